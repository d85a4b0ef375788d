"""One run has one live task, whatever happens while it is launched: more task runs fall
due, it is started anew while RunTask is under way, or an answer comes late."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest
from prefect import Flow, Task
from prefect.utilities.configuration import set_temporary_config

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from runs import (
    NO_CAPACITY,
    comes_back,
    create_cluster,
    kill,
    now,
    reaches,
    refuse,
    retry,
    says,
    set_state,
    task_run_state,
    tasks_of,
    waits,
)
from world import QUICK, World, eventually

from prefect_ecs_plugin.launch_record import LaunchRecord, latest_claim
from prefect_ecs_plugin.prefect_api.client import AgentClient
from prefect_ecs_plugin.sandbox.aws import Fault, Hold
from prefect_ecs_plugin.sandbox.prefect_api import Fault as APIFault

pytestmark = pytest.mark.slow


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, locks_submitted=False, runs_tasks=False).running() as world:
        yield world


@pytest.fixture
def new_run(world: World) -> Callable[[], str]:
    flow_id = world.register(Flow("changing", tasks=[Task("fetch")]))
    return lambda: world.api.store.create_flow_run(flow_id=flow_id)


@pytest.fixture
def wide_run(world: World) -> str:
    """A Running run with three task runs."""
    flow_id = world.register(Flow("wide", tasks=[Task(f"t{n}") for n in range(3)]))
    run_id = world.api.store.create_flow_run(flow_id=flow_id)
    set_state(world, run_id, "Running")
    return str(run_id)


def polls(world: World, count: int) -> None:
    """Wait until the queue has been read so often again."""
    reads = "get_runs_in_queue"
    before = world.api.calls[reads]
    assert eventually(lambda: world.api.calls[reads] >= before + count)


def on_reads(world: World, run_id: str, *acts: Callable[[], Any]) -> None:
    """Do something before the first, second... query that names a run, but for those
    about cancelled runs."""
    left = list(acts)

    def fault(operation: str, arguments: Dict[str, Any]) -> None:
        text = json.dumps(arguments)
        is_read = operation == "flow_run" and run_id in text
        if is_read and "Cancelled" not in text and left:
            left.pop(0)()

    world.api.fault = fault


def nothing() -> None:
    """What is done before a query that is only counted."""


def set_task_run(world: World, task_run_id: str, kind: str, **more: Any) -> None:
    change = {"task_run_id": task_run_id, "state": {"type": kind, **more}}
    world.api.store.set_task_run_states([change])


def beat(world: World, run_id: str, **before: float) -> None:
    """Give a run a heartbeat, now or some time ago."""
    store = world.api.store
    with store.transaction():
        row = store.row("flow_run", run_id)
        store.update("flow_run", row, heartbeat=now(**before))


# -- More task runs fall due -------------------------------------------------------


def test_guarantee_1_a_task_retry_that_falls_due_later_is_left_to_the_task_there_is(
    world: World, wide_run: str
) -> None:
    world.aws.before_start = lambda _: Hold()
    first, second, _ = world.api.store.task_runs(wide_run)
    retry(world, first.id)
    with world.quick_agent():
        (task,) = tasks_of(world, wide_run, 1)
        retry(world, second.id)
        polls(world, 5)
        world.aws.release(task.task_arn)
        assert reaches(world, task, "RUNNING")
        set_task_run(world, first.id, "Success")
        polls(world, 5)
        assert len(world.tasks_of(wide_run)) == 1
        world.aws.finish(task.task_arn)
        tasks_of(world, wide_run, 2)
    assert world.states([wide_run]) == ["Running"]


def test_guarantee_1_a_due_task_retry_is_left_to_a_task_of_another_agent(
    world: World, new_run: Callable[[], str]
) -> None:
    create_cluster(world, "first", world.aws.region)
    run_id = new_run()
    with world.quick_agent("--cluster", "first", "--name", "other") as agent:
        (task,) = tasks_of(world, run_id, 1)
        assert reaches(world, task, "RUNNING")
        kill(agent, signal.SIGKILL)
    set_state(world, run_id, "Running")
    (task_run,) = world.api.store.task_runs(run_id)
    retry(world, task_run.id)
    with world.quick_agent():
        polls(world, 5)
        assert len(world.tasks_of(run_id)) == 1
        world.aws.finish(task.task_arn)
        tasks_of(world, run_id, 2)


def test_guarantee_1_a_due_task_retry_is_left_to_the_agent_that_claimed_another(
    world: World, wide_run: str
) -> None:
    """Its launch waits, so that there is no task yet; nor has it sent a heartbeat."""
    store = world.api.store
    first, second, _ = store.task_runs(wide_run)
    record = LaunchRecord(f"{wide_run}-2-x", holder="other", agent_id="other")
    context = dict(record.to_context())
    set_task_run(world, first.id, "Submitted", context=context)
    beat(world, wide_run, hours=1)
    retry(world, second.id)
    with world.quick_agent():
        polls(world, 5)
        assert world.tasks_of(wide_run) == []
        with store.transaction():
            for state in store.tables["task_run_state"].having(
                "task_run_id", [first.id]
            ):
                store.update("task_run_state", state, timestamp=now(hours=1))
        tasks_of(world, wide_run, 1)


def test_guarantee_2_a_task_retry_is_launched_by_an_agent_that_cannot_see_tasks(
    world: World, new_run: Callable[[], str]
) -> None:
    """Without ecs:DescribeTasks it does not see that the earlier one has ended."""
    refuse(world, "ecs.DescribeTasks", Fault(error_code="AccessDeniedException"))
    run_id = new_run()
    with world.quick_agent():
        (task,) = tasks_of(world, run_id, 1)
        assert reaches(world, task, "RUNNING")
        set_state(world, run_id, "Running")
        world.aws.finish(task.task_arn)
        (task_run,) = world.api.store.task_runs(run_id)
        retry(world, task_run.id)
        tasks_of(world, run_id, 2)


def test_guarantee_1_a_task_run_that_has_begun_since_it_was_read_is_not_claimed(
    world: World, new_run: Callable[[], str]
) -> None:
    run_id = new_run()
    task_run_id = comes_back(world, run_id)
    begin = lambda: set_task_run(world, task_run_id, "Running")  # noqa: E731
    on_reads(world, run_id, nothing, nothing, begin)
    with world.quick_agent("--log-level", "DEBUG") as agent:
        told = f"Flow run {run_id} is not launched"
        assert says(agent, told)
        polls(world, 3)
    assert world.tasks_of(run_id) == []
    assert task_run_state(world, run_id) == "Running"


def test_guarantee_1_a_claim_of_task_runs_that_fails_half_way_starts_one_task(
    world: World, wide_run: str
) -> None:
    """The API takes a thousand with one mutation; here it is one."""
    one = f"from prefect_ecs_plugin.prefect_api import client\nclient.PAGE = 1\n{QUICK}"
    for task_run in world.api.store.task_runs(wide_run):
        retry(world, task_run.id)
    mutations: List[str] = []

    def fault(operation: str, _: Any) -> Optional[APIFault]:
        if operation != "set_task_run_states":
            return None
        mutations.append(operation)
        return APIFault(status=503) if len(mutations) == 2 else None

    world.api.fault = fault
    with world.agent_of(one):
        (task,) = tasks_of(world, wide_run, 1)
        assert reaches(world, task, "RUNNING")
        polls(world, 5)
    assert len(world.tasks_of(wide_run)) == 1


def test_guarantee_2_the_latest_claim_is_found_among_many_task_runs(
    world: World,
) -> None:
    """Those that changed last are not those that were claimed last."""
    store = world.api.store
    flow_id = world.register(Flow("wide", tasks=[Task(f"t{n}") for n in range(30)]))
    run_id = store.create_flow_run(flow_id=flow_id)
    set_state(world, run_id, "Running")
    latest, *others = store.task_runs(run_id)
    for name, claimed in (("earlier", others), ("latest", [latest])):
        context = dict(LaunchRecord(name).to_context())
        for task_run in claimed:
            set_task_run(world, task_run.id, "Submitted", context=context)
    for task_run in [latest, *others]:
        set_task_run(world, task_run.id, "Running")
    with set_temporary_config({"backend": "server"}):
        client = AgentClient(api_server=world.api.url)
        rows = [client.row(run_id), client.states_of([run_id])[run_id]]
    for row in rows:
        claim = latest_claim(row or {})
        assert claim
        assert claim.record
        assert claim.record.name == "latest"


# -- A run is started anew ---------------------------------------------------------


class HeldBack:
    """RunTask requests that wait, before they take effect, until they are let go."""

    def __init__(self, world: World, count: int = 1) -> None:
        self._left = count
        self._let_go = threading.Event()
        self.waiting = threading.Event()
        world.aws.fault = self

    def __call__(self, operation: str, _: Any) -> None:
        if operation == "ecs.RunTask" and self._left:
            self._left -= 1
            self.waiting.set()
            self._let_go.wait()

    def let_go(self) -> None:
        self._let_go.set()


def start_anew(world: World, run_id: str) -> None:
    set_state(world, run_id, "Cancelled")
    set_state(world, run_id, "Scheduled", start_time=now())


def is_started_anew_beside_its_task(world: World, run_id: str) -> Any:
    """Start a run anew whose task is RUNNING and whose agent is gone; the task."""
    with world.quick_agent() as agent:
        (old,) = tasks_of(world, run_id, 1)
        assert reaches(world, old, "RUNNING")
        kill(agent, signal.SIGKILL)
    start_anew(world, run_id)
    return old


def test_guarantee_1_a_task_that_starts_after_its_run_was_started_anew_is_stopped(
    world: World, new_run: Callable[[], str]
) -> None:
    """By the agent that asked for it, which sees that the answer came late."""
    late = f"from prefect_ecs_plugin.launch import launcher\n{QUICK}".replace(
        "launcher._LATE, other_tasks._LATE = 0.2, 1.0, (1.0,)",
        "launcher._LATE, other_tasks._LATE = 0.2, 0.0, ()",
    )
    held = HeldBack(world)
    run_id = new_run()
    with world.agent_of(late):
        assert eventually(held.waiting.is_set)
        start_anew(world, run_id)
        with world.agent_of(late, "--name", "other"):
            (new,) = tasks_of(world, run_id, 1)
            assert reaches(world, new, "RUNNING")
            set_state(world, run_id, "Running")
            held.let_go()
            _, old = tasks_of(world, run_id, 2)
            assert reaches(world, old, "STOPPED")
            assert world.aws.task(new.task_arn).desired_status == "RUNNING"
    assert world.states([run_id]) == ["Running"]


def test_guarantee_1_a_task_that_starts_late_is_stopped_though_its_agent_is_gone(
    world: World, new_run: Callable[[], str]
) -> None:
    """By the agent that launched the run anew, with a second look."""
    held = HeldBack(world)
    run_id = new_run()
    with world.quick_agent() as agent:
        assert eventually(held.waiting.is_set)
        kill(agent, signal.SIGKILL)

    def fault(operation: str, _: Any) -> None:
        if operation == "ecs.ListTasks" and world.tasks_of(run_id):  # the second look
            world.aws.fault = None
            held.let_go()
            eventually(lambda: len(world.tasks_of(run_id)) == 2)

    world.aws.fault = fault
    start_anew(world, run_id)
    with world.quick_agent():
        new, old = tasks_of(world, run_id, 2)
        assert reaches(world, old, "STOPPED")
        assert world.aws.task(new.task_arn).desired_status == "RUNNING"


def test_guarantee_1_a_task_that_starts_late_is_stopped_by_the_agent_after_the_next(
    world: World, new_run: Callable[[], str]
) -> None:
    """Both agents that knew of it are gone."""
    never = QUICK.replace("other_tasks._LATE = 0.2, 1.0, (1.0,)", "_ = 0.2, 1.0, ()")
    assert never != QUICK
    create_cluster(world, "second", world.aws.region)
    held = HeldBack(world)
    run_id = new_run()
    with world.quick_agent("--cluster", "second") as agent:
        assert eventually(held.waiting.is_set)
        kill(agent, signal.SIGKILL)
    start_anew(world, run_id)
    with world.agent_of(never) as agent:
        (new,) = tasks_of(world, run_id, 1)
        told = f"Flow run {run_id} was submitted"
        assert says(agent, told)
        kill(agent, signal.SIGKILL)
    held.let_go()
    _, old = tasks_of(world, run_id, 2)
    with world.quick_agent():
        assert reaches(world, old, "STOPPED")
        assert world.aws.task(new.task_arn).desired_status == "RUNNING"


def test_a_stop_of_an_earlier_task_is_asked_for_until_aws_does_it(
    world: World, new_run: Callable[[], str]
) -> None:
    run_id = new_run()
    old = is_started_anew_beside_its_task(world, run_id)
    refusals = [Fault(status=503, error_code="ServerException")] * 2

    def fault(operation: str, _: Any) -> Optional[Fault]:
        if operation == "ecs.StopTask" and refusals:
            return refusals.pop()
        return None

    world.aws.fault = fault
    with world.quick_agent():
        assert reaches(world, old, "STOPPED")
        tasks_of(world, run_id, 2)
    assert world.aws.calls["ecs.StopTask"] == 3


@pytest.mark.parametrize(
    "stop, left", [(signal.SIGTERM, "Scheduled"), (signal.SIGKILL, "Submitted")]
)
def test_guarantee_1_the_next_agent_stops_an_earlier_task_that_could_not_be_stopped(
    world: World, new_run: Callable[[], str], stop: int, left: str
) -> None:
    at_once = "from prefect_ecs_plugin.launch import claims\nclaims._RETURN_DELAY = 0\n"
    run_id = new_run()
    old = is_started_anew_beside_its_task(world, run_id)
    refuse(world, "ecs.StopTask", Fault(status=503, error_code="ServerException"))
    with world.agent_of(at_once + QUICK) as agent:
        assert eventually(lambda: world.aws.calls["ecs.StopTask"] > 1)
        kill(agent, stop)
    assert world.states([run_id]) == [left]
    world.aws.fault = None
    with world.quick_agent():
        assert reaches(world, old, "STOPPED")
        _, new = tasks_of(world, run_id, 2)
        assert reaches(world, new, "RUNNING")


def test_guarantee_1_the_task_of_a_later_launch_is_not_taken_for_a_lost_answers(
    world: World, new_run: Callable[[], str]
) -> None:
    """The agent whose launch was overtaken finds it when it looks for its own."""
    run_id = new_run()
    waiting = threading.Event()

    def fault(operation: str, _: Any) -> Optional[Fault]:
        if operation != "ecs.RunTask" or waiting.is_set():
            return None
        waiting.set()
        eventually(lambda: world.tasks_of(run_id))
        return Fault(drop_connection=True)

    world.aws.fault = fault
    with world.quick_agent("--log-level", "DEBUG") as agent:
        assert eventually(waiting.is_set)
        start_anew(world, run_id)
        with world.quick_agent("--name", "other"):
            (task,) = tasks_of(world, run_id, 1)
            assert reaches(world, task, "RUNNING")
            set_state(world, run_id, "Running")
            found = f"Flow run {run_id} was submitted"
            assert says(agent, found)
            polls(world, 10)
            assert world.aws.task(task.task_arn).desired_status == "RUNNING"
    assert len(world.tasks_of(run_id)) == 1


def test_guarantee_2_a_run_that_its_earlier_task_made_running_is_launched_all_the_same(
    world: World, new_run: Callable[[], str]
) -> None:
    """That task is being stopped, and the launch waits for capacity meanwhile."""
    run_id = new_run()
    is_started_anew_beside_its_task(world, run_id)
    refuse(world, "ecs.RunTask", NO_CAPACITY)
    with world.quick_agent() as agent:
        assert waits(agent, run_id)
        set_state(world, run_id, "Running")
        polls(world, 5)
        world.aws.fault = None
        _, new = tasks_of(world, run_id, 2)
        assert reaches(world, new, "RUNNING")


# -- A run is ended only as it was seen --------------------------------------------


def test_a_resumed_run_that_another_agent_claims_meanwhile_is_not_failed(
    world: World, new_run: Callable[[], str]
) -> None:
    """Neither its state nor its version changes then."""
    run_id = new_run()
    task_run_id = comes_back(world, run_id)
    with world.quick_agent("--log-level", "DEBUG") as agent:
        (task,) = tasks_of(world, run_id, 1)
        assert reaches(world, task, "RUNNING")
        set_task_run(world, task_run_id, "Running")

        def claim() -> None:
            record = LaunchRecord("another", holder="other", agent_id="other")
            context = dict(record.to_context())
            set_task_run(world, task_run_id, "Submitted", context=context)
            beat(world, run_id)

        on_reads(world, run_id, nothing, nothing, claim)
        world.aws.finish(task.task_arn, exit_code=1)
        left = "and has changed, so it is not made Failed"
        assert says(agent, left)
    assert world.states([run_id]) == ["Running"]


def test_a_run_that_is_started_anew_as_it_becomes_cancelled_is_started(
    world: World, new_run: Callable[[], str]
) -> None:
    """The API takes a state whatever the run's version is."""
    run_id = new_run()

    def fault(operation: str, arguments: Dict[str, Any]) -> None:
        text = json.dumps(arguments)
        if operation == "set_flow_run_states" and "its task has ended" in text:
            world.api.fault = None
            set_state(world, run_id, "Scheduled", start_time=now())

    world.api.fault = fault
    with world.quick_agent("--cancel-grace", "0") as agent:
        (task,) = tasks_of(world, run_id, 1)
        assert reaches(world, task, "RUNNING")
        set_state(world, run_id, "Running")
        set_state(world, run_id, "Cancelling")
        assert says(agent, "[state-restored]")
        tasks_of(world, run_id, 2)


@pytest.mark.parametrize("state, ends", [("Running", "Running"), ("Failed", "Failed")])
def test_a_recovered_run_without_a_claimed_task_run_is_failed_if_it_is_idle(
    world: World, new_run: Callable[[], str], state: str, ends: str
) -> None:
    refuse(world, "ecs.RunTask", NO_CAPACITY)
    run_id = new_run()
    task_run_id = comes_back(world, run_id)
    with world.quick_agent() as agent:
        assert waits(agent, run_id)
        kill(agent, signal.SIGKILL)
    reads: List[str] = []

    def fault(operation: str, arguments: Dict[str, Any]) -> None:
        text = json.dumps(arguments)
        if operation == "flow_run" and f'{{"_eq": "{run_id}"}}' in text:
            if not reads:  # the row is read for its launch
                set_task_run(world, task_run_id, state)
            reads.append(operation)

    world.api.fault = fault
    with world.quick_agent():
        assert eventually(lambda: reads)
        if ends == "Failed":
            assert world.finished([run_id]) == ["Failed"]
        else:
            polls(world, 5)
    assert world.states([run_id]) == [ends]
    assert world.tasks_of(run_id) == []


# -- Answers that are lost, errors of the agent's own ------------------------------


def lose_the_answer(world: World, look: Fault, looks: int) -> None:
    """Lose the answer to RunTask; refuse so many looks for the task."""
    left = [look] * looks

    def fault(operation: str, _: Any) -> Optional[Fault]:
        if operation == "ecs.RunTask":
            return Fault(drop_connection=True, after_effect=True)
        return left.pop() if operation == "ecs.ListTasks" and left else None

    world.aws.fault = fault


def test_guarantee_2_the_look_for_a_task_after_a_lost_answer_is_made_until_answered(
    world: World, new_run: Callable[[], str]
) -> None:
    lose_the_answer(world, Fault(status=503, error_code="ServerException"), 3)
    run_id = new_run()
    with world.quick_agent("--launch-timeout", "0") as agent:
        submitted = f"Flow run {run_id} was submitted"
        assert says(agent, submitted)
    assert world.states([run_id]) == ["Submitted"]
    assert len(world.tasks_of(run_id)) == 1


def test_guarantee_2_a_run_that_may_have_a_task_which_cannot_be_seen_is_not_failed(
    world: World, new_run: Callable[[], str]
) -> None:
    lose_the_answer(world, Fault(error_code="AccessDeniedException"), 1)
    run_id = new_run()
    with world.quick_agent("--launch-timeout", "0") as agent:
        may = f"Flow run {run_id} may have a task that this agent cannot see"
        assert says(agent, may)
    assert world.states([run_id]) == ["Submitted"]


def test_guarantee_2_an_internal_error_after_the_start_leaves_the_run_to_its_task(
    world: World, new_run: Callable[[], str]
) -> None:
    broken = """
from prefect_ecs_plugin import kwargs
from prefect_ecs_plugin.launch import launcher

def broken(*arguments, **options):
    raise LookupError("of the agent's own")

launcher._with_links = kwargs.notes = broken
"""
    run_id = new_run()
    with world.agent_of(broken + QUICK) as agent:
        (task,) = tasks_of(world, run_id, 1)
        assert reaches(world, task, "RUNNING")
        told = f"Flow run {run_id} was submitted"
        assert says(agent, told)
        set_state(world, run_id, "Running")
        world.aws.finish(task.task_arn, exit_code=1)
        assert world.finished([run_id]) == ["Failed"]
    message = world.api.store.flow_run(run_id).state_message or ""
    assert "of the agent's own" not in message


# -- Recovery ----------------------------------------------------------------------


def test_guarantee_2_running_runs_whose_tasks_may_not_be_seen_are_watched_later(
    world: World, new_run: Callable[[], str]
) -> None:
    run_id = new_run()
    with world.quick_agent() as agent:
        (task,) = tasks_of(world, run_id, 1)
        assert reaches(world, task, "RUNNING")
        kill(agent, signal.SIGKILL)
    set_state(world, run_id, "Running")
    left = [Fault(error_code="AccessDeniedException")] * 3
    world.aws.fault = lambda operation, _: (
        left.pop() if operation == "ecs.ListTasks" and left else None
    )
    with world.quick_agent() as agent:
        found = f"its task {task.task_arn} is watched"
        assert says(agent, found)
        world.aws.finish(task.task_arn, exit_code=1)
        assert world.finished([run_id]) == ["Failed"]


def test_guarantee_2_runs_are_recovered_where_a_page_of_them_is_too_much(
    world: World, new_run: Callable[[], str]
) -> None:
    """The API answers 504 to a query for more than 400 rows."""
    run_id = new_run()
    with world.quick_agent() as agent:
        (task,) = tasks_of(world, run_id, 1)
        kill(agent, signal.SIGKILL)
    limits: List[int] = []

    def fault(operation: str, arguments: Dict[str, Any]) -> Optional[APIFault]:
        limit = arguments.get("limit") or 0
        if operation != "flow_run" or "agent_id" not in json.dumps(arguments):
            return None
        limits.append(limit)
        return APIFault(status=504) if limit > 400 else None

    world.api.fault = fault
    with world.quick_agent() as agent:
        found = f"its task {task.task_arn} is watched"
        assert says(agent, found)
    assert {250, 500, 1000} <= set(limits)
