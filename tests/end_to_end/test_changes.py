"""What happens when something changes while the agent has a run: it is cancelled,
restarted, rescheduled, comes back for a task retry, or the agent starts with other
options. Each run has one live task, none is lost, none is stopped by mistake."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest
from prefect import Flow, Task

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from runs import (
    NO_CAPACITY,
    NO_ENI,
    comes_back,
    create_cluster,
    kill,
    now,
    reaches,
    refuse,
    retry,
    says,
    sent_tokens,
    set_state,
    task_run_state,
    tasks_of,
    waits,
)
from world import QUICK, World, eventually

from prefect_ecs_plugin.launch_record import KEY, read
from prefect_ecs_plugin.sandbox.aws import Fault, Hold, Phases
from prefect_ecs_plugin.sandbox.prefect_api import Fault as APIFault

pytestmark = pytest.mark.slow


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    # A run that was returned to the queue could not be taken again for 30 s.
    with World(tmp_path, locks_submitted=False, runs_tasks=False).running() as world:
        yield world


@pytest.fixture
def new_run(world: World) -> Callable[[], str]:
    flow_id = world.register(Flow("changing", tasks=[Task("fetch")]))
    return lambda: world.api.store.create_flow_run(flow_id=flow_id)


def starts_task(world: World, run_id: str) -> Any:
    """The first task of a run, RUNNING, with its run Running."""
    (task,) = tasks_of(world, run_id, 1)
    assert reaches(world, task, "RUNNING")
    set_state(world, run_id, "Running")
    return task


class Heard:
    """Requests to the Prefect API, as they come."""

    def __init__(self, world: World) -> None:
        self.cancellation_looks = 0
        self.requests: List[Any] = []
        world.api.fault = self

    def __call__(self, operation: str, arguments: Dict[str, Any]) -> None:
        text = json.dumps(arguments)
        self.requests.append((operation, text))
        if operation == "flow_run" and '"Cancelling", "Cancelled"' in text:
            self.cancellation_looks += 1

    def looks(self, count: int) -> None:
        """Wait until the agent has looked for cancelled runs so often again."""
        before = self.cancellation_looks
        assert eventually(lambda: self.cancellation_looks >= before + count)


# -- A run is cancelled and restarted ----------------------------------------------


def test_guarantee_1_a_restarted_run_keeps_its_new_task_and_loses_the_old_one(
    world: World, new_run: Callable[[], str]
) -> None:
    heard = Heard(world)
    run_id = new_run()
    with world.quick_agent("--cancel-grace", "3600"):
        old = starts_task(world, run_id)
        set_state(world, run_id, "Cancelling")
        heard.looks(2)
        set_state(world, run_id, "Scheduled", start_time=now())
        new = tasks_of(world, run_id, 2)[1]
        assert reaches(world, old, "STOPPED")
        assert reaches(world, new, "RUNNING")
        set_state(world, run_id, "Running")
        heard.looks(4)
        assert world.aws.task(new.task_arn).last_status == "RUNNING"
        assert world.aws.calls["ecs.StopTask"] == 1
    assert world.states([run_id]) == ["Running"]


def test_guarantee_1_the_old_task_of_a_restarted_run_is_stopped_by_any_agent(
    world: World, new_run: Callable[[], str]
) -> None:
    """The agent that launched it is gone, and it is in another cluster."""
    create_cluster(world, "first", world.aws.region)
    run_id = new_run()
    with world.quick_agent("--cluster", "first") as agent:
        old = starts_task(world, run_id)
        kill(agent, signal.SIGKILL)
    set_state(world, run_id, "Cancelled")
    set_state(world, run_id, "Scheduled", start_time=now())
    with world.quick_agent():
        new = tasks_of(world, run_id, 2)[1]
        assert reaches(world, old, "STOPPED")
        assert reaches(world, new, "RUNNING")
    assert world.aws.calls["ecs.StopTask"] == 1


def test_a_cancellation_that_is_over_is_forgotten(
    world: World, new_run: Callable[[], str]
) -> None:
    """The run goes on: for the task it is as if it had not been cancelled."""
    heard = Heard(world)
    run_id, other = new_run(), new_run()
    with world.quick_agent("--cancel-grace", "2"):
        task, second = starts_task(world, run_id), starts_task(world, other)
        set_state(world, run_id, "Cancelling")
        heard.looks(1)
        set_state(world, run_id, "Running")
        heard.looks(2)
        set_state(world, other, "Cancelling")
        assert reaches(world, second, "STOPPED")
        assert world.aws.task(task.task_arn).last_status == "RUNNING"


def test_a_task_that_is_slow_to_stop_is_stopped_once(
    world: World, new_run: Callable[[], str]
) -> None:
    heard = Heard(world)
    run_id = new_run()
    refused = Fault(status=503, error_code="ServerException")
    refusals = [refused, refused]

    def fault(operation: str, _: Any) -> Optional[Fault]:
        if operation == "ecs.StopTask" and refusals:
            return refusals.pop()
        return None

    world.aws.fault = fault
    with world.quick_agent("--cancel-grace", "0"):
        task = starts_task(world, run_id)
        set_state(world, run_id, "Cancelling")
        assert reaches(world, task, "STOPPED")
        assert world.finished([run_id]) == ["Cancelled"]
        heard.looks(0)
    assert world.aws.calls["ecs.StopTask"] == 3


def test_a_task_that_was_asked_to_stop_is_looked_at_soon(
    world: World, new_run: Callable[[], str]
) -> None:
    """Otherwise this agent looks at a RUNNING task once an hour."""
    hourly = QUICK.replace("RUNNING = 0.1, 0.2", "RUNNING = 0.1, 3600")
    assert hourly != QUICK
    run_id = new_run()
    with world.agent_of(hourly, "--cancel-grace", "0"):
        starts_task(world, run_id)
        set_state(world, run_id, "Cancelling")
        assert world.finished([run_id]) == ["Cancelled"]


def test_a_task_that_takes_long_to_stop_is_asked_once(tmp_path: Path) -> None:
    slow = Phases(deactivating=2.0)
    options: Dict[str, Any] = {"runs_tasks": False, "phases": slow}
    with World(tmp_path, locks_submitted=False, **options).running() as world:
        heard = Heard(world)
        flow_id = world.register(Flow("slow", tasks=[Task("fetch")]))
        run_id = world.api.store.create_flow_run(flow_id=flow_id)
        with world.quick_agent("--cancel-grace", "0"):
            starts_task(world, run_id)
            set_state(world, run_id, "Cancelling")
            assert eventually(lambda: world.aws.calls["ecs.StopTask"] > 0)
            heard.looks(3)
            assert world.finished([run_id]) == ["Cancelled"]
        assert world.aws.calls["ecs.StopTask"] == 1


def test_a_run_that_has_been_cancelling_for_long_has_its_task_stopped(
    world: World, new_run: Callable[[], str]
) -> None:
    """Found by its task, whatever the clocks say about when it was cancelled."""
    store = world.api.store
    run_id = new_run()
    with world.quick_agent("--cancel-grace", "0"):
        task = starts_task(world, run_id)
        with store.transaction():
            store.set_flow_run_state(run_id, {"type": "Cancelling"})
            row = store.row("flow_run", run_id)
            store.update("flow_run", row, state_timestamp=now(days=1))
        assert reaches(world, task, "STOPPED")
        assert world.finished([run_id]) == ["Cancelled"]


# -- A run changes while it waits --------------------------------------------------


@pytest.mark.parametrize("state", ["Cancelled", "Success", "Failed"])
def test_a_run_that_ends_while_it_waits_is_never_started(
    world: World, new_run: Callable[[], str], state: str
) -> None:
    refuse(world, "ecs.RunTask", NO_CAPACITY)
    run_id = new_run()
    with world.quick_agent() as agent:
        assert waits(agent, run_id)
        set_state(world, run_id, state)
        abandoned = f"Flow run {run_id} is not launched"
        assert says(agent, abandoned)
        world.aws.fault = None
        tasks_of(world, new_run(), 1)
    assert world.tasks_of(run_id) == []
    assert world.states([run_id]) == [state]


def test_guarantee_1_a_run_that_is_rescheduled_while_it_waits_starts_once(
    world: World, new_run: Callable[[], str]
) -> None:
    refuse(world, "ecs.RunTask", NO_CAPACITY)
    run_id = new_run()
    with world.quick_agent() as agent:
        assert waits(agent, run_id)
        set_state(world, run_id, "Scheduled", start_time=now())
        abandoned = f"Flow run {run_id} is not launched"
        assert says(agent, abandoned)
        world.aws.fault = None
        (task,) = tasks_of(world, run_id, 1)
        assert reaches(world, task, "RUNNING")
    assert len(world.tasks_of(run_id)) == 1


def test_a_resumed_run_that_is_cancelled_while_it_waits_ends_cancelled(
    world: World, new_run: Callable[[], str]
) -> None:
    """It has no container that could end it."""
    refuse(world, "ecs.RunTask", NO_CAPACITY)
    run_id = new_run()
    comes_back(world, run_id)
    with world.quick_agent() as agent:
        assert waits(agent, run_id)
        world.client.cancel_flow_run(run_id)
        assert world.finished([run_id]) == ["Cancelled"]
    assert world.tasks_of(run_id) == []


def test_guarantee_1_a_run_that_is_rescheduled_before_its_relaunch_starts_once(
    world: World, new_run: Callable[[], str]
) -> None:
    failures = [NO_ENI]
    world.aws.before_start = lambda _: failures.pop() if failures else None
    run_id = new_run()

    def fault(operation: str, arguments: Dict[str, Any]) -> None:
        if operation == "write_run_logs" and "launched again" in json.dumps(arguments):
            world.api.fault = None
            set_state(world, run_id, "Scheduled", start_time=now())

    world.api.fault = fault
    with world.quick_agent():
        new = tasks_of(world, run_id, 2)[1]
        assert reaches(world, new, "RUNNING")
        others = [new_run() for _ in range(2)]
        for other in others:
            tasks_of(world, other, 1)
        assert world.api.fault is None
    assert len(world.tasks_of(run_id)) == 2


@pytest.mark.parametrize("state", ["Cancelled", "Scheduled"])
def test_a_run_that_changes_before_its_start_is_not_started(
    world: World, new_run: Callable[[], str], state: str
) -> None:
    """It is read up to ten seconds ahead."""
    run_id = new_run()
    set_state(world, run_id, "Scheduled", start_time=now(seconds=-5))
    heard: List[str] = []

    def fault(operation: str, arguments: Dict[str, Any]) -> None:
        if operation == "flow_run" and run_id in json.dumps(arguments):
            heard.append("read")
        elif operation == "get_runs_in_queue" and heard == ["read"]:
            heard.append("changed")
            later = {} if state == "Cancelled" else {"start_time": now(hours=-1)}
            set_state(world, run_id, state, **later)

    world.api.fault = fault
    with world.quick_agent("--log-level", "DEBUG") as agent:
        told = f"Flow run {run_id} is not launched"
        assert says(agent, told)
        tasks_of(world, new_run(), 1)
    assert world.tasks_of(run_id) == []
    assert world.states([run_id]) == [state]


def test_a_resumed_run_that_was_cancelled_and_whose_agent_died_ends_cancelled(
    world: World, new_run: Callable[[], str]
) -> None:
    refuse(world, "ecs.RunTask", NO_CAPACITY)
    run_id = new_run()
    comes_back(world, run_id)
    with world.quick_agent() as agent:
        assert waits(agent, run_id)
        world.api.fault = lambda operation, _: APIFault(status=503)
        set_state(world, run_id, "Cancelling")
        kill(agent, signal.SIGKILL)
    world.api.fault = world.aws.fault = None
    with world.quick_agent():
        assert world.finished([run_id]) == ["Cancelled"]
    assert world.tasks_of(run_id) == []


# -- A run comes back for a task retry ---------------------------------------------


def test_guarantee_2_a_resumed_run_is_returned_when_its_agent_stops(
    world: World, new_run: Callable[[], str]
) -> None:
    refuse(world, "ecs.RunTask", NO_CAPACITY)
    run_id = new_run()
    comes_back(world, run_id)
    with world.quick_agent() as agent:
        assert waits(agent, run_id)
        assert task_run_state(world, run_id) == "Submitted"
        kill(agent, signal.SIGTERM)
    assert any("1 flow runs returned to the queue" in line for line in agent.lines)
    assert world.states([run_id]) == ["Running"]
    assert task_run_state(world, run_id) == "Retrying"
    tokens = sent_tokens(world, run_id)
    world.aws.fault = None
    with world.quick_agent():
        tasks_of(world, run_id, 1)
    assert sent_tokens(world, run_id) == tokens


def test_guarantee_2_a_resumed_run_is_found_again_after_a_kill(
    world: World, new_run: Callable[[], str]
) -> None:
    refuse(world, "ecs.RunTask", NO_CAPACITY)
    run_id = new_run()
    comes_back(world, run_id)
    with world.quick_agent() as agent:
        assert waits(agent, run_id)
        kill(agent, signal.SIGKILL)
    world.aws.fault = None
    with world.quick_agent():
        (task,) = tasks_of(world, run_id, 1)
        assert reaches(world, task, "RUNNING")
        world.aws.finish(task.task_arn, exit_code=1)
        assert world.finished([run_id]) == ["Failed"]
    assert len(sent_tokens(world, run_id)) == 1


@pytest.mark.parametrize("restarted", [False, True])
def test_guarantee_2_a_resumed_run_is_this_agents_whatever_its_row_says(
    world: World, new_run: Callable[[], str], restarted: bool
) -> None:
    """Its row names the agent that launched it first; the launch record, this one."""
    run_id = new_run()
    task_run_id = comes_back(world, run_id, agent="another")
    agent = world.quick_agent()
    try:
        (task,) = tasks_of(world, run_id, 1)
        assert reaches(world, task, "RUNNING")
        running = {"task_run_id": task_run_id, "state": {"type": "Running"}}
        world.api.store.set_task_run_states([running])
        if restarted:
            kill(agent, signal.SIGKILL)
            agent = world.quick_agent()
            found = f"Flow run {run_id}: its task {task.task_arn} is watched"
            assert says(agent, found)
        world.aws.finish(task.task_arn, exit_code=1)
        assert world.finished([run_id]) == ["Failed"]
    finally:
        agent.stop()
    assert len(world.tasks_of(run_id)) == 1


def test_a_resumed_runs_task_is_kept_when_recovery_finds_the_former_one_later(
    world: World, new_run: Callable[[], str]
) -> None:
    """The run comes back and is launched in another cluster while recovery looks for
    its tasks."""
    create_cluster(world, "second", world.aws.region)
    heard = Heard(world)
    run_id = new_run()
    with world.quick_agent() as agent:
        old = starts_task(world, run_id)
        kill(agent, signal.SIGKILL)

    def fault(operation: str, _: Any) -> None:
        if operation == "ecs.ListTasks":
            world.aws.fault = None
            (task_run,) = world.api.store.task_runs(run_id)
            retry(world, task_run.id)
            world.aws.finish(old.task_arn)
            eventually(lambda: len(world.tasks_of(run_id)) == 2)

    world.aws.fault = fault
    with world.quick_agent("--cluster", "second") as agent:
        found = f"Flow run {run_id}: its task {old.task_arn} is watched"
        assert says(agent, found)
        new = tasks_of(world, run_id, 2)[1]
        assert reaches(world, new, "RUNNING")
        heard.looks(4)
        assert world.aws.task(new.task_arn).desired_status == "RUNNING"
    assert world.aws.calls["ecs.StopTask"] == 0
    assert world.states([run_id]) == ["Running"]


def test_a_resumed_run_whose_row_names_another_agent_is_stopped_when_cancelled(
    world: World, new_run: Callable[[], str]
) -> None:
    run_id = new_run()
    comes_back(world, run_id, agent="another")
    with world.quick_agent("--cancel-grace", "0"):
        (task,) = tasks_of(world, run_id, 1)
        assert reaches(world, task, "RUNNING")
        set_state(world, run_id, "Cancelling")
        assert reaches(world, task, "STOPPED")
        assert world.finished([run_id]) == ["Cancelled"]


def test_guarantee_2_a_resumed_run_whose_task_does_not_start_is_relaunched(
    world: World, new_run: Callable[[], str]
) -> None:
    failures = [NO_ENI]
    world.aws.before_start = lambda _: failures.pop() if failures else None
    run_id = new_run()
    comes_back(world, run_id, agent="another")
    with world.quick_agent():
        assert reaches(world, tasks_of(world, run_id, 2)[1], "RUNNING")
    first, second = sent_tokens(world, run_id)
    assert second == f"{first}-2"


def test_guarantee_1_all_due_task_runs_are_claimed_with_one_mutation(
    world: World,
) -> None:
    flow_id = world.register(Flow("wide", tasks=[Task(f"t{n}") for n in range(30)]))
    store = world.api.store
    run_id = store.create_flow_run(flow_id=flow_id)
    set_state(world, run_id, "Running")
    for task_run in store.task_runs(run_id):
        retry(world, task_run.id)
    world.api.calls.clear()
    with world.quick_agent():
        tasks_of(world, run_id, 1)
    assert world.api.calls["set_task_run_states"] == 1
    assert {each.state for each in store.task_runs(run_id)} == {"Submitted"}


def test_guarantee_1_a_resumed_run_has_a_heartbeat_while_its_task_starts(
    world: World, new_run: Callable[[], str]
) -> None:
    """The server's Lazarus takes a run for dead whose task runs are Submitted."""
    store = world.api.store
    world.aws.before_start = lambda _: Hold()
    run_id = new_run()
    comes_back(world, run_id)
    with store.transaction():
        row = store.row("flow_run", run_id)
        store.update("flow_run", row, heartbeat=now(hours=1))
    with world.quick_agent():
        tasks_of(world, run_id, 1)
        assert store.run_lazarus() == []
    assert world.states([run_id]) == ["Running"]


# -- The agent starts with other options -------------------------------------------


@pytest.mark.parametrize(
    "options, variables",
    [
        (["--cluster", "second"], {}),
        (["--run-task-kwargs", "kwargs.yaml"], {}),
        ([], {"AWS_DEFAULT_REGION": "eu-west-1", "AWS_REGION": "eu-west-1"}),
    ],
    ids=["cluster", "kwargs", "region"],
)
@pytest.mark.parametrize("has_started", [False, True])
def test_guarantee_1_a_task_is_found_where_it_was_launched(
    world: World,
    new_run: Callable[[], str],
    options: List[str],
    variables: Dict[str, str],
    has_started: bool,
) -> None:
    create_cluster(world, "first", world.aws.region)
    create_cluster(world, "second", world.aws.region)
    create_cluster(world, "default", "eu-west-1")
    kwargs = '{"cluster": "second"}'
    (world.home / "kwargs.yaml").write_text(kwargs, encoding="utf-8")
    options = [
        str(world.home / each) if each.endswith(".yaml") else each for each in options
    ]
    if not has_started:
        world.aws.before_start = lambda _: Hold()
    run_id = new_run()
    with world.quick_agent("--cluster", "first") as agent:
        (task,) = tasks_of(world, run_id, 1)
        if has_started:
            starts_task(world, run_id)
        kill(agent, signal.SIGKILL)
    with world.quick_agent(*options, **variables) as agent:
        found = f"Flow run {run_id}: its task {task.task_arn} is watched"
        assert says(agent, found)
        if not has_started:
            world.aws.release(task.task_arn)
        assert reaches(world, task, "RUNNING")
        world.aws.finish(task.task_arn, exit_code=1)
        assert world.finished([run_id]) == ["Failed"]
    assert len(world.tasks_of(run_id)) == 1


def test_guarantee_1_a_task_that_may_not_be_seen_is_not_started_elsewhere(
    world: World, new_run: Callable[[], str]
) -> None:
    create_cluster(world, "first", world.aws.region)
    create_cluster(world, "second", world.aws.region)
    world.aws.before_start = lambda _: Hold()
    run_id = new_run()
    with world.quick_agent("--cluster", "first") as agent:
        (task,) = tasks_of(world, run_id, 1)
        kill(agent, signal.SIGKILL)
    denied: List[Any] = []

    def fault(operation: str, request: Dict[str, Any]) -> Optional[Fault]:
        if operation != "ecs.ListTasks" or request.get("cluster") != "first":
            return None
        denied.append(request)
        return Fault(error_code="AccessDeniedException")

    world.aws.fault = fault
    with world.quick_agent("--cluster", "second") as agent:
        assert eventually(lambda: len(denied) >= 4)
        assert len(world.tasks_of(run_id)) == 1
        world.aws.fault = None
        found = f"its task {task.task_arn} is watched"
        assert says(agent, found)
    assert len(world.tasks_of(run_id)) == 1


def test_a_cancelled_runs_task_is_stopped_where_it_was_launched(
    world: World, new_run: Callable[[], str]
) -> None:
    create_cluster(world, "first", world.aws.region)
    run_id = new_run()
    with world.quick_agent("--cluster", "first") as agent:
        task = starts_task(world, run_id)
        kill(agent, signal.SIGKILL)
    with world.quick_agent("--cancel-grace", "0"):
        set_state(world, run_id, "Cancelling")
        assert reaches(world, task, "STOPPED")
        assert world.finished([run_id]) == ["Cancelled"]


def test_guarantee_1_starts_are_counted_by_the_launch_record(
    world: World, new_run: Callable[[], str]
) -> None:
    """Not by the tasks that can be seen: ECS forgets stopped ones after an hour."""
    world.aws.before_start = lambda _: NO_ENI
    agents: List[Any] = []
    launches: List[str] = []

    def fault(operation: str, request: Dict[str, Any]) -> Optional[Fault]:
        if operation != "ecs.RunTask":
            return None
        launches.append(request["clientToken"])
        if len(launches) != 2:
            return None
        eventually(lambda: agents)
        kill(agents[0], signal.SIGKILL)
        return Fault(drop_connection=True, after_effect=True)

    world.aws.fault = fault
    run_id = new_run()
    with world.quick_agent() as agent:
        agents.append(agent)
        tasks_of(world, run_id, 2)
    record = read(world.api.store.row("flow_run", run_id)["serialized_state"])
    assert record
    assert (record.attempt, record.after) == (2, world.tasks_of(run_id)[0].task_arn)
    with world.quick_agent():
        assert world.finished([run_id]) == ["Failed"]
    name = record.name
    assert list(dict.fromkeys(launches)) == [name, f"{name}-2", f"{name}-3"]
    assert len(world.tasks_of(run_id)) == 3


def test_guarantee_1_a_recovered_run_has_a_heartbeat_while_its_task_starts(
    world: World, new_run: Callable[[], str]
) -> None:
    store = world.api.store
    world.aws.before_start = lambda _: Hold()
    run_id = new_run()
    with world.quick_agent() as agent:
        tasks_of(world, run_id, 1)
        kill(agent, signal.SIGKILL)
    with store.transaction():
        row = store.row("flow_run", run_id)
        store.update("flow_run", row, heartbeat=now(hours=1))
    world.api.calls.clear()
    with world.quick_agent():
        beats = "update_flow_run_heartbeat"
        assert eventually(lambda: world.api.calls[beats] > 0)
        assert store.run_lazarus() == []
    assert len(world.tasks_of(run_id)) == 1


# -- Damage ------------------------------------------------------------------------


def test_guarantee_2_a_run_whose_row_is_damaged_is_failed_with_a_sentence(
    world: World, new_run: Callable[[], str]
) -> None:
    store = world.api.store
    run_id, other = new_run(), new_run()
    with store.transaction():
        row = store.row("flow", store.row("flow_run", run_id)["flow_id"])
        store.update("flow", row, storage=["no mapping"])
    with world.quick_agent():
        assert world.finished([run_id, other]) == ["Failed", "Failed"]
    message = store.flow_run(run_id).state_message or ""
    assert "no usable description of the run's flow" in message


@pytest.mark.parametrize("damage", [{"format": 99}, {"attempt": "x"}, {"name": None}])
def test_a_damaged_launch_record_counts_as_absent(
    world: World, new_run: Callable[[], str], damage: Dict[str, Any]
) -> None:
    store = world.api.store
    world.aws.before_start = lambda _: Hold()
    run_id = new_run()
    with world.quick_agent() as agent:
        (task,) = tasks_of(world, run_id, 1)
        kill(agent, signal.SIGKILL)
    with store.transaction():
        row = store.row("flow_run", run_id)
        state = row["serialized_state"]
        context = {KEY: {**state["context"][KEY], **damage}}
        changed = {**state, "context": context}
        store.update("flow_run", row, serialized_state=changed)
    with world.quick_agent("--log-level", "DEBUG") as agent:
        told = f"The launch record of flow run {run_id} cannot be read"
        assert says(agent, told)
        found = f"its task {task.task_arn} is watched"
        assert says(agent, found)
    assert len(world.tasks_of(run_id)) == 1
    assert not any("Traceback" in line for line in agent.lines)


# -- Answers that come late --------------------------------------------------------


def test_guarantee_2_claims_whose_answers_are_held_back_are_launched(
    world: World, new_run: Callable[[], str]
) -> None:
    """The client waits two seconds here; the server sets the agent's id last."""
    store = world.api.store
    store.locks_submitted = True
    runs = [new_run() for _ in range(12)]
    seen: Counter = Counter()  # type: ignore[type-arg]  # Python 3.8

    def fault(operation: str, _: Dict[str, Any]) -> Optional[APIFault]:
        seen[operation] += 1
        if operation == "set_flow_run_states" and seen[operation] % 3 == 0:
            return APIFault(answer_delay=3.0)
        return None

    world.api.fault = fault
    store.step_gap = 0.5
    with world.quick_agent(PREFECT__CLOUD__REQUEST_TIMEOUT="2"):
        eventually(lambda: {t.started_by for t in world.aws.tasks()} >= set(runs))
    assert Counter(task.started_by for task in world.aws.tasks()) == Counter(runs)
    assert set(world.states(runs)) == {"Submitted"}


def test_a_claim_that_is_given_up_is_a_warning(
    world: World, new_run: Callable[[], str]
) -> None:
    """The API refuses it for long, and shows no other agent's."""
    message = "State update failed: this run has already been submitted."
    errors = [{"message": message}]
    refused = {"data": {"set_flow_run_states": None}, "errors": errors}
    fault = APIFault(body=json.dumps(refused).encode())
    world.api.fault = lambda operation, _: (
        fault if operation == "set_flow_run_states" else None
    )
    run_id = new_run()
    told = f"Flow run {run_id} is not launched: the Prefect API keeps refusing"
    with world.quick_agent() as agent:
        assert eventually(
            lambda: any(told in line and "WARNING" in line for line in agent.lines)
        )
        world.api.fault = None
        tasks_of(world, run_id, 1)


def test_guarantee_2_a_claim_that_the_api_refuses_holds_up_no_other(
    world: World, new_run: Callable[[], str]
) -> None:
    """Claims go together: a mutation with this one is refused as a whole."""
    bad, *runs = [new_run() for _ in range(6)]
    errors = [{"message": "State payload is too large."}]
    refused = {"data": {"set_flow_run_states": None}, "errors": errors}
    fault = APIFault(body=json.dumps(refused).encode())
    together: List[int] = []

    def fault_of(operation: str, variables: Dict[str, Any]) -> Optional[APIFault]:
        if operation != "set_flow_run_states":
            return None
        ids = [each["flow_run_id"] for each in variables["input"]["states"]]
        together.append(len(ids))
        return fault if bad in ids else None

    world.api.fault = fault_of
    with world.quick_agent():
        eventually(lambda: {t.started_by for t in world.aws.tasks()} >= set(runs))
    assert Counter(task.started_by for task in world.aws.tasks()) == Counter(runs)
    assert max(together) > 1


def test_an_api_that_drops_the_context_gets_its_runs_launched(
    world: World, new_run: Callable[[], str]
) -> None:
    world.api.store.keeps_context = False
    runs = [new_run() for _ in range(3)]
    resumed = new_run()
    comes_back(world, resumed)
    with world.quick_agent():
        for run_id in [*runs, resumed]:
            (task,) = tasks_of(world, run_id, 1)
            assert reaches(world, task, "RUNNING")
        world.aws.finish(task.task_arn, exit_code=1)
