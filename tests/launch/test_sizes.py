"""What the tasks of runs ask for, as far as it is known before their claim."""

from __future__ import annotations

from typing import Any, Dict

import pytest

from prefect_ecs_plugin.launch.sizes import Size, Sizes, capacity_of
from prefect_ecs_plugin.launch_record import LaunchRecord
from prefect_ecs_plugin.run_config import ECSRun

TEMPLATE = {"cpu": "1 vCPU", "memory": 2048}
ON_EC2 = {"containerDefinitions": [{"name": "flow", "cpu": 300}, {"cpu": 200}, {}]}
RECORD = LaunchRecord("a-run-1")


def size(merged: Any, template: Any = TEMPLATE, **options: Any) -> int:
    return Sizes().of(ECSRun(**options), merged, template, RECORD).units


@pytest.mark.parametrize(
    "options, merged, template, units",
    [
        ({}, {}, TEMPLATE, 1024),
        ({}, {}, ON_EC2, 500),
        ({}, {"overrides": {"cpu": "512"}}, TEMPLATE, 512),
        ({"cpu": "2 vCPU"}, {"overrides": {"cpu": "512"}}, TEMPLATE, 2048),
        ({"task_definition": {"cpu": 4096}}, {}, TEMPLATE, 4096),
        ({"task_definition_arn": "etl:3"}, {}, TEMPLATE, 0),
        ({"task_definition_arn": "etl:3", "cpu": 256}, {}, TEMPLATE, 256),
    ],
)
def test_cpu_comes_from_the_run_the_kwargs_or_the_template(
    options: Dict[str, Any], merged: Any, template: Any, units: int
) -> None:
    assert size(merged, template, **options) == units


def test_more_memory_brings_its_own_cpu() -> None:
    record = LaunchRecord("a-run-1", memory=8192, cpu=2048)
    assert Sizes().of(ECSRun(cpu=1024), {}, TEMPLATE, record) == Size(2048, "")


@pytest.mark.parametrize(
    "merged, on_demand, capacity",
    [
        ({"launchType": "FARGATE"}, False, "FARGATE"),
        ({"launchType": "EC2"}, False, ""),
        ({}, False, ""),
        ({"capacityProviderStrategy": ["FARGATE_SPOT"]}, False, "FARGATE_SPOT"),
        ({"capacityProviderStrategy": ["FARGATE_SPOT"]}, True, "FARGATE"),
        (
            {"capacityProviderStrategy": ["FARGATE", "FARGATE_SPOT"]},
            False,
            "FARGATE",
        ),
        ({"capacityProviderStrategy": ["my-instances"]}, False, ""),
    ],
)
def test_capacity_is_that_of_fargates_quotas(
    merged: Dict[str, Any], on_demand: bool, capacity: str
) -> None:
    strategy = merged.get("capacityProviderStrategy")
    if strategy:
        providers = [{"capacityProvider": each} for each in strategy]
        merged = {"capacityProviderStrategy": providers}
    assert capacity_of(merged, on_demand) == capacity


def test_what_a_definition_asks_for_is_learned_when_it_is_known() -> None:
    sizes, run_config = Sizes(), ECSRun(task_definition_arn="etl:3")
    definition = {"cpu": "2048"}
    assert not sizes.check(run_config, definition, {}, RECORD)
    found = sizes.of(run_config, {}, TEMPLATE, RECORD)
    assert found.units == 2048
    known = LaunchRecord("a-run-1", task_cpu=found.units)
    assert sizes.check(run_config, definition, {}, known)
    assert sizes.check(run_config, definition, {"overrides": {"cpu": "512"}}, known)
    assert not sizes.check(
        run_config, definition, {"overrides": {"cpu": "4096"}}, known
    )


def test_the_sizes_of_many_definitions_are_remembered() -> None:
    """A run whose size is forgotten is claimed and given back again and again."""
    sizes = Sizes()
    for number in range(1000):
        config = ECSRun(task_definition_arn=f"etl-{number}:1")
        assert not sizes.check(config, {"cpu": "2048"}, {}, RECORD)
    first = ECSRun(task_definition_arn="etl-0:1")
    assert sizes.of(first, {}, TEMPLATE, RECORD).units == 2048
