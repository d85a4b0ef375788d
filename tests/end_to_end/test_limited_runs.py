"""Limits through the real command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
from click.testing import CliRunner
from prefect import Flow

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from codes import codes_of
from runs import says
from world import World, eventually

from prefect_ecs_plugin.cli.start import start
from prefect_ecs_plugin.sandbox.aws import Fault, other_services

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("home")
    with World(home, runs_tasks=False, locks_submitted=False).running() as world:
        yield world


def launched(world: World, runs: List[str]) -> List[str]:
    return [task.started_by for task in world.aws.tasks() if task.started_by in runs]


def test_a_free_slot_is_taken_by_the_earliest_run(
    world: World,
) -> None:
    flow_id = world.register(Flow("limited"))
    runs = [world.run(flow_id) for _ in range(4)]
    said = "Waiting for other runs to end: the limit flow=limited:2 is reached"
    options = ("--limit", "flow=limited:2")
    with world.quick_agent(*options), world.quick_agent("--name", "b", *options):
        eventually(lambda: len(launched(world, runs)) >= 2)
        for run_id in runs[2:]:
            assert eventually(lambda run_id=run_id: said in world.log(run_id))
        assert set(launched(world, runs)) == set(runs[:2])
        assert world.states(runs[2:]) == ["Scheduled"] * 2
        for ended, next_one in ((runs[1], runs[2]), (runs[0], runs[3])):
            world.api.store.set_flow_run_state(ended, {"type": "Success"})
            eventually(lambda next_one=next_one: next_one in launched(world, runs))
    assert sorted(launched(world, runs)) == sorted(runs)


def test_a_quota_limits_runs_as_far_as_the_agent_may_read_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(other_services.VCPU_QUOTAS, "L-3032A538", 1.0)
    denied = Fault(status=400, error_code="AccessDeniedException", message="no")

    def deny_spot(operation: str, params: Dict[str, Any]) -> Any:
        is_spot = params.get("QuotaCode") == "L-36FBB829"
        return denied if is_spot and operation.startswith("servicequotas") else None

    monkeypatch.setattr(world.aws, "fault", deny_spot)
    flow_id = world.register(Flow("sized"))
    with world.quick_agent("--limit", "50", "--max-vcpus", "quota") as agent:
        assert says(agent, ", limits total:50, vcpus:quota, ")
        assert says(agent, "[quota-unreadable]")
        runs = [world.run(flow_id) for _ in range(2)]
        assert eventually(lambda: world.log(runs[1]))[0] == (
            "Waiting for other runs to end: the limit vcpus=FARGATE:1 is reached"
        )
        assert launched(world, runs) == runs[:1]


@pytest.mark.parametrize(
    "options, code",
    [
        (["--limit", "flow=etl"], "invalid-limit"),
        (["--limit", "flows=etl:1"], "unknown-limit"),
        (["--limit", "5", "--limit", "6"], "conflicting-limits"),
        (["--max-vcpus", "many"], "invalid-limit"),
    ],
)
def test_a_wrong_limit_is_a_mistake_of_usage(options: List[str], code: str) -> None:
    done = CliRunner().invoke(start, options)
    assert (done.exit_code, codes_of(done.output.splitlines())[-1]) == (2, code)


@pytest.mark.parametrize(
    "content, options, code",
    [
        (None, [], "unreadable-file"),
        ("total: ten", [], "invalid-limit"),
        ("tasks: {a: 1}", [], "unknown-limit"),
        ("total: 5", ["--limit", "6"], "conflicting-limits"),
        ("flow: {etl: 1, etl: 2}", [], "duplicate-key"),
    ],
)
def test_a_wrong_file_keeps_the_agent_from_starting(
    world: World, tmp_path: Path, content: str, options: List[str], code: str
) -> None:
    path = tmp_path / "limits.yaml"
    if content:
        path.write_text(content, encoding="utf-8")
    command = ("agent", "ecs", "start", "--limits", str(path), *options)
    done = world.prefect(*command)
    assert (done.returncode, codes_of(done.stdout.splitlines())[-1]) == (1, code)
