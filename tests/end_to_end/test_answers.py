"""What AWS answers to one run's request is that run's alone: through the real agent."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import pytest
from codes import code_of
from prefect import Flow

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from world import World, eventually

from prefect_ecs_plugin import ECSRun
from prefect_ecs_plugin.sandbox.aws import Fault

pytestmark = pytest.mark.slow

TAGGING = "User: agent is not authorized to perform: ecs:TagResource on resource: *"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, runs_tasks=False).running() as world:
        yield world


@pytest.fixture
def flow_id(world: World) -> str:
    with Flow("answers") as flow:
        pass
    return world.register(flow)


def launched(world: World, run_id: str) -> Any:
    """The one task of a run, once it is there."""
    eventually(lambda: world.tasks_of(run_id))
    (task,) = world.tasks_of(run_id)
    return task


def tags_of(world: World, run_id: str) -> Dict[str, str]:
    ecs, arn = world.aws.client("ecs"), launched(world, run_id).task_arn
    (task,) = ecs.describe_tasks(tasks=[arn], include=["TAGS"])["tasks"]
    return {tag["key"]: tag["value"] for tag in task["tags"]}


def refused(world: World, run_id: str) -> str:
    """Why a run is Failed, in the one line that its log says it in."""
    assert world.finished([run_id]) == ["Failed"]
    (line,) = world.log(run_id, "ERROR")
    return line


def test_guarantee_6_what_a_run_asks_for_is_said_in_its_own_log(
    world: World, flow_id: str, tmp_path: Path
) -> None:
    kwargs = tmp_path / "kwargs.yaml"
    kwargs.write_text("startedBy: nightly", encoding="utf-8")
    password = "hunter2-" + "x" * 9000
    plain, absent, secret = (
        world.run(flow_id, run_config=run_config)
        for run_config in (
            None,
            ECSRun(task_definition_arn="absent:3"),
            ECSRun(env={"DB_PASSWORD": password}),
        )
    )
    with world.quick_agent("--run-task-kwargs", str(kwargs)):
        assert tags_of(world, plain)["prefect:started-by"] == "nightly"
        said = "run_task_kwargs gives 'nightly', and it is kept as the task's tag"
        eventually(lambda: any(said in line for line in world.log(plain)))
        assert [line for line in world.log(plain) if said in line]
        line = refused(world, absent)
        assert code_of(line) == "no-task-definition"
        assert "absent:3" in line
        line = refused(world, secret)
    assert code_of(line) == "overrides-too-long"
    assert "DB_PASSWORD" in line
    assert not any(
        password in str(params)
        for name, params in world.aws.requests
        if name == "ecs.RegisterTaskDefinition"
    )


@pytest.mark.parametrize(
    "code, message",
    [
        (
            "InvalidParameterException",
            "No Container Instances were found in your cluster.",
        ),
        (
            "InvalidSignatureException",
            "Signature expired: 20240101T000000Z is now earlier than 20240101T000500Z "
            "(20240101T001000Z - 5 min.)",
        ),
        ("IDPCommunicationError", "The identity provider did not answer."),
    ],
)
def test_guarantee_4_what_passes_is_waited_for(
    world: World, flow_id: str, code: str, message: str
) -> None:
    faults: List[Optional[Fault]] = [Fault(error_code=code, message=message)] * 2
    world.aws.fault = lambda operation, _: (
        faults.pop() if operation == "ecs.RunTask" and faults else None
    )
    run_id = world.run(flow_id)
    with world.quick_agent():
        launched(world, run_id)
        assert world.states([run_id]) == ["Submitted"]
    assert world.aws.calls["ecs.RunTask"] == 3


def test_guarantee_6_tags_that_are_refused_fail_the_run_that_asks_for_them(
    world: World, flow_id: str
) -> None:
    def fault(operation: str, params: Dict[str, Any]) -> Optional[Fault]:
        if params.get("tags"):
            return Fault(error_code="AccessDeniedException", message=TAGGING)
        return None

    world.aws.fault = fault
    tagged = ECSRun(run_task_kwargs={"tags": [{"key": "team", "value": "data"}]})
    first = world.run(flow_id, run_config=tagged)
    with world.quick_agent() as agent:
        assert "ecs:TagResource" in refused(world, first)
        assert tags_of(world, world.run(flow_id)) == {}
        assert agent.lines
    warnings = [line for line in agent.lines if "WARNING" in line]
    assert len([line for line in warnings if "ecs:TagResource" in line]) == 1
