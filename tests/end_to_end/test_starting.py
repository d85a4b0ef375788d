"""An agent looks at the queue before it has read all that it needs for a launch."""

from __future__ import annotations

import json
import re
import threading
from importlib.metadata import version
from typing import Any, Iterator

import pytest
from deadlines import DEADLINE
from prefect import Flow, task

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from codes import codes_of
from runs import tasks_of
from world import World, eventually

from prefect_ecs_plugin.sandbox.aws import Fault

TEMPLATE = b"networkMode: awsvpc\ncpu: 256\nmemory: 512\n"
REMOTE = "s3://templates/task.yaml"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("home")
    with World(home, runs_tasks=False).running() as world:
        s3 = world.aws.client("s3")
        s3.create_bucket(Bucket="templates")
        s3.put_object(Bucket="templates", Key="task.yaml", Body=TEMPLATE)
        yield world


@pytest.fixture
def world(running: World) -> Iterator[World]:
    yield running
    running.api.fault = running.aws.fault = None


@pytest.fixture
def run_id(world: World) -> Iterator[str]:
    """A run that is due, and no concern of the next test's agent."""

    @task
    def nothing() -> None: ...

    with Flow("nothing") as flow:
        nothing()
    run_id = world.run(world.register(flow))
    yield run_id
    world.api.fault = None
    world.api.store.set_flow_run_state(run_id, {"type": "Failed"})


@pytest.mark.parametrize(
    "held", ["ec2.DescribeVpcs", "s3.GetObject", "ecs.DescribeClusters", "flow_run"]
)
def test_the_queue_is_looked_at_while_something_else_is_read(
    world: World, run_id: str, held: str
) -> None:
    """`flow_run` is the query for the runs that have to be recovered."""
    looked, was_first = threading.Event(), []

    def hold(operation: str, _: Any) -> None:
        if operation == "get_runs_in_queue":
            looked.set()
        elif operation == held:
            was_first.append(looked.wait(DEADLINE))

    world.api.fault = world.aws.fault = hold
    with world.agent("--task-definition", REMOTE):
        tasks_of(world, run_id, 1)
    assert was_first[0]


@pytest.mark.parametrize("held", ["ec2.DescribeVpcs", "s3.GetObject"])
def test_a_run_is_not_claimed_before_all_is_read_that_its_launch_needs(
    world: World, run_id: str, held: str
) -> None:
    was_seen, states = threading.Event(), []

    def look(operation: str, _: Any) -> None:
        if operation == "flow_run":  # the row of the run; recovery has not begun
            was_seen.set()

    def hold(operation: str, _: Any) -> None:
        if operation == held:
            was_seen.wait(DEADLINE)
            states.extend(world.states([run_id]))

    world.api.fault, world.aws.fault = look, hold
    with world.agent("--task-definition", REMOTE):
        tasks_of(world, run_id, 1)
    assert states == ["Scheduled"]
    request = world.aws.sent("RunTask")[-1]
    assert request["networkConfiguration"]["awsvpcConfiguration"]["subnets"]


@pytest.mark.parametrize("broken", ["ec2.DescribeVpcs", "s3.GetObject"])
def test_guarantee_6_what_cannot_be_read_at_start_is_one_line_and_costs_no_run(
    world: World, run_id: str, broken: str
) -> None:
    denied = Fault(error_code="AccessDenied", message="no", status=403)
    world.aws.fault = lambda operation, _: denied if operation == broken else None
    ended = world.prefect("agent", "ecs", "start", "--task-definition", REMOTE)
    assert ended.returncode == 1
    errors = re.findall("^Error: .*", ended.stdout, re.MULTILINE)
    assert codes_of(errors) == ["missing-permission"]
    assert "Traceback" not in ended.stdout
    assert world.states([run_id]) == ["Scheduled"]


def test_a_run_that_the_agent_claims_while_it_starts_is_not_recovered(
    world: World, run_id: str
) -> None:
    """The query for the runs of earlier agents shows what this one claims meanwhile."""

    def hold(operation: str, arguments: Any) -> None:
        if operation == "flow_run" and "agent_id" in arguments["where"]:
            eventually(lambda: world.states([run_id]) == ["Submitted"])

    world.api.fault = hold
    with world.quick_agent() as agent:
        tasks_of(world, run_id, 1)
        other = world.run(world.api.store.flow_run(run_id).flow_id)
        tasks_of(world, other, 1)
    assert not [line for line in agent.lines if "Looking after" in line]
    world.api.store.set_flow_run_state(other, {"type": "Failed"})


@pytest.mark.parametrize("describing", ["answered", "denied", "held"])
def test_the_first_line_says_what_the_agent_works_with(
    world: World, run_id: str, describing: str
) -> None:
    """It comes before the warnings, and waits a moment only for the account."""
    launched, denied = (
        threading.Event(),
        Fault(error_code="AccessDeniedException", message="no"),
    )

    def fault(operation: str, _: Any) -> Any:
        if operation != "ecs.DescribeClusters" or describing == "answered":
            return None
        if describing == "held":
            launched.wait(DEADLINE)
        return denied

    world.aws.fault = fault
    variables = {"PREFECT__CLOUD__API_KEY": "a-key"}
    with world.agent("--log-format", "json", **variables) as agent:
        tasks_of(world, run_id, 1)
        launched.set()
        eventually(lambda: "Waiting" in " ".join(agent.lines))
    records = [json.loads(each) for each in agent.lines]
    assert records[0]["level"] == "INFO"
    account = "123456789012" if describing == "answered" else "unknown"
    assert records[0]["message"] == (
        f"Starting ECSAgent of prefect-ecs-plugin {version('prefect-ecs-plugin')}: "
        f"labels [], API {world.api.url} (server), cluster default in "
        f"{world.aws.region}, account {account}, launch type FARGATE, no health address"
    )
    assert "plain-text-api-key" in codes_of(each["message"] for each in records)
