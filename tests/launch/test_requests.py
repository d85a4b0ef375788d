"""Runs of one flow have equal requests, which are rendered once."""

from __future__ import annotations

import copy
import logging
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import pytest
from codes import raises_code

from prefect_ecs_plugin import kwargs, template
from prefect_ecs_plugin.config.sources import Reader
from prefect_ecs_plugin.launch.requests import Requests
from prefect_ecs_plugin.launch_record import LaunchRecord
from prefect_ecs_plugin.scheduling.steps import run_blocking
from prefect_ecs_plugin.settings import AgentSettings, PrefectSettings

TEMPLATE = {
    "networkMode": "awsvpc",
    "cpu": "512",
    "memory": "1024",
    "containerDefinitions": [{"name": "side", "image": "s:1"}, {"name": "flow"}],
}
AGENT = AgentSettings(
    task_definition=TEMPLATE,
    run_task_kwargs={"tags": [{"key": "team", "value": "x"}]},
    execution_role_arn="arn:aws:iam::123456789012:role/execution",
    env={"A": "1"},
    subnets=("subnet-1",),
    agent_name="agent",
)


def row(run_config: Any, **changes: Any) -> Dict[str, Any]:
    """A run, as the API gives it; each has an id of its own."""
    flow = {"id": "f1", "name": "etl", "version": 3, "core_version": "1.4.1"}
    flow.update(changes)
    name, version = uuid.uuid4().hex, uuid.uuid4().int % 100
    return {
        "id": str(uuid.uuid4()),
        "name": name,
        "version": version,
        "run_config": run_config,
        "flow": flow,
    }


def ecs_run(**members: Any) -> Dict[str, Any]:
    return {"type": "ECSRun", "labels": [], **members}


class Maker:
    """Makes requests as the agent does.

    Attributes:
        rendered: The runs for which a definition was rendered.
        learned: What may contain secrets, by run.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.prefect = PrefectSettings(backend="server", api="http://api")
        self.rendered: List[str] = []
        self.learned: Dict[str, Any] = {}
        build = template.build

        def counted(source: Any, flow_run: Any, *rest: Any) -> Any:
            self.rendered.append(flow_run.id)
            return build(source, flow_run, *rest)

        monkeypatch.setattr(template, "build", counted)
        self.requests = self.anew()

    def anew(self) -> Requests:
        """One that remembers nothing."""
        return Requests(
            settings=lambda: AGENT,
            prefect_settings=lambda: self.prefect,
            files=Reader(lambda _: None),
            logger=logging.getLogger("agent"),
            learn=self.learned.__setitem__,
        )

    def make(
        self, run: Dict[str, Any], requests: Optional[Requests] = None
    ) -> Tuple[Dict[str, Any], Dict[str, Any]]:
        requests = requests or self.requests
        plan = requests.plan(run, LaunchRecord(name=f"{run['id']}-1"))
        return run_blocking(requests.both(plan), time.sleep)


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> Maker:
    return Maker(monkeypatch)


LONG = {f"LONG_{n}": "x" * 1000 for n in range(9)}
RUN_CONFIGS: Dict[str, Any] = {
    "none": None,
    "universal": {"type": "UniversalRun", "labels": [], "env": {"A": "2"}},
    "image": ecs_run(image="example/flow:1", cpu="256", memory="512"),
    "template": ecs_run(task_definition={**TEMPLATE, "family": "own"}),
    "kwargs": ecs_run(
        run_task_kwargs={"cluster": "c", "startedBy": "me", "group": "g"}
    ),
    "too many variables": ecs_run(env=LONG),
}


@pytest.mark.parametrize("run_config", RUN_CONFIGS.values(), ids=RUN_CONFIGS)
def test_a_remembered_request_is_the_one_that_would_be_rendered(
    maker: Maker, run_config: Any
) -> None:
    first, second = row(run_config), row(copy.deepcopy(run_config))
    maker.make(first)
    count = len(maker.rendered)
    definition, request = maker.make(second)
    assert len(maker.rendered) == count
    assert (definition, request) == maker.make(second, maker.anew())
    assert request["startedBy"] == second["id"]
    assert request["clientToken"] == f"{second['id']}-1"
    assert first["id"] not in str((definition, request))
    assert str(request).count(second["id"]) == 4  # with the variable and the tag


def test_a_request_without_a_remembered_one_is_that_of_the_pure_functions(
    maker: Maker,
) -> None:
    run = row(RUN_CONFIGS["kwargs"])
    definition, request = maker.make(run)
    plan = maker.requests.plan(run, LaunchRecord(name=f"{run['id']}-1"))
    facts = (plan.flow_run, plan.run_config, AGENT)
    merged = kwargs.merge(
        kwargs.agent_level(AGENT), RUN_CONFIGS["kwargs"]["run_task_kwargs"]
    )
    assert definition == template.build(TEMPLATE, *facts, merged)
    assert request == kwargs.build(merged, definition, *facts, maker.prefect)


@pytest.mark.parametrize(
    "cluster, region",
    [
        ("prod", "us-east-1"),
        ("arn:aws:ecs:eu-west-1:123456789012:cluster/prod", "eu-west-1"),
    ],
)
def test_the_log_group_is_in_the_region_of_the_task(
    maker: Maker, monkeypatch: pytest.MonkeyPatch, cluster: str, region: str
) -> None:
    agent = replace(AGENT, flow_log_group="/ecs/flows", region="us-east-1")
    monkeypatch.setattr(maker.requests, "_settings", lambda: agent)
    definition, _ = maker.make(row(ecs_run(run_task_kwargs={"cluster": cluster})))
    logs = [each["logConfiguration"] for each in definition["containerDefinitions"]]
    assert [log["options"]["awslogs-region"] for log in logs] == [region] * 2


@pytest.mark.parametrize(
    "other",
    [
        row(ecs_run(image="b")),
        row(ecs_run(image="a", env={"X": "1"})),
        row(ecs_run(image="a"), id="f2"),
        row(ecs_run(image="a"), version=4),
        row(ecs_run(image="a"), core_version="0.12.0"),
    ],
)
def test_runs_that_differ_have_requests_of_their_own(maker: Maker, other: Any) -> None:
    maker.make(row(ecs_run(image="a")))
    assert maker.make(other) == maker.make(other, maker.anew())


def test_another_api_key_is_sent(maker: Maker) -> None:
    maker.make(row(None))
    maker.prefect = PrefectSettings(backend="cloud", api="http://api", api_key="new")
    assert "'new'" in str(maker.make(row(None))[1])


def test_a_template_that_has_changed_is_rendered_again(
    maker: Maker, tmp_path: Path
) -> None:
    path = tmp_path / "template.yaml"
    run_config = ecs_run(task_definition_path=str(path))
    families = []
    for cpu in (512, 512, 1024):
        path.write_text(
            f"cpu: {cpu}\nmemory: 2048\nnetworkMode: awsvpc\n"
            "containerDefinitions: [{name: flow}]\n"
        )
        run = row(run_config)
        families.append(maker.make(run)[0]["family"])
        assert maker.learned[run["id"]]["cpu"] == cpu
    assert families[0] == families[1] != families[2]
    assert len(maker.rendered) == 2


def test_a_run_that_ecs_would_refuse_is_refused_each_time(maker: Maker) -> None:
    run_config = ecs_run(run_task_kwargs={"launchType": "FARGATE", "count": 2})
    for _ in range(2):
        with raises_code("one-task"):
            maker.make(row(run_config))


def test_a_run_config_that_is_too_large_is_not_remembered(maker: Maker) -> None:
    flow = {"name": "flow", "dockerLabels": {"long": "x" * 25_000}}
    large = {**TEMPLATE, "containerDefinitions": [flow]}
    for _ in range(2):
        maker.make(row(ecs_run(task_definition=large)))
    assert len(maker.rendered) == 2
