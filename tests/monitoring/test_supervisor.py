"""After its launch, a run continues or ends with a reason and what to do about it."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pendulum
import pytest
from codes import code_of
from deadlines import DEADLINE
from prefect import Flow, Task

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from world import World, claim, eventually

from prefect_ecs_plugin.sandbox.aws import Fault, Hold, StartFailure
from prefect_ecs_plugin.sandbox.prefect_api import Fault as APIFault
from prefect_ecs_plugin.scheduling.steps import Pause

pytestmark = pytest.mark.slow

NOT_FOUND = StartFailure(
    stop_code="TaskFailedToStart",
    stopped_reason=(
        "CannotPullContainerError: pull image manifest has been retried 1 time(s): "
        "failed to resolve ref docker.io/library/nope:1: not found"
    ),
)
NO_ENI = StartFailure(
    stop_code="TaskFailedToStart",
    stopped_reason="Timeout waiting for network interface provisioning to complete.",
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    # A run that was returned to the queue could not be taken again for 30 s.
    with World(tmp_path, locks_submitted=False, runs_tasks=False).running() as world:
        yield world


@pytest.fixture
def new_run(world: World) -> Callable[[], str]:
    with Flow("supervised") as flow:
        pass
    flow_id = world.register(flow)
    return lambda: world.api.store.create_flow_run(flow_id=flow_id)


def task_of(world: World, run_id: str, status: str = "") -> Any:
    """The run's latest task, once it is there and has a status."""

    def found() -> Any:
        tasks = world.tasks_of(run_id)
        return tasks and (not status or tasks[-1].last_status == status) and tasks[-1]

    return eventually(found)


def set_state(world: World, run_id: str, state: Any) -> None:
    world.client.set_flow_run_state(run_id, state)


# -- The task never starts ---------------------------------------------------------


def test_guarantee_2_a_start_that_fails_for_good_ends_the_run_with_the_reason(
    world: World, new_run: Callable[[], str]
) -> None:
    world.aws.before_start = lambda _: NOT_FOUND
    run_id = new_run()
    with world.quick_agent():
        assert world.finished([run_id]) == ["Failed"]
    message = world.api.store.flow_run(run_id).state_message or ""
    assert code_of(message) == "image-not-found"
    assert "CannotPullContainerError" in message
    assert "\n" not in message
    (log,) = world.log(run_id, "ERROR")
    assert code_of(log.splitlines()[0]) == "image-not-found"
    assert "console.aws.amazon.com" in log
    assert len(world.tasks_of(run_id)) == 1


def test_guarantee_2_a_start_that_fails_by_chance_is_made_again(
    world: World, new_run: Callable[[], str]
) -> None:
    failures = [NO_ENI, NO_ENI]
    world.aws.before_start = lambda _: failures.pop() if failures else None
    run_id = new_run()
    with world.quick_agent():
        assert eventually(lambda: len(world.tasks_of(run_id)) == 3)
        task_of(world, run_id, "RUNNING")
        assert world.states([run_id]) == ["Submitted"]
    warnings = world.log(run_id, "WARNING")
    assert len(warnings) == 2
    assert "start 2 of 3" in warnings[0]


def test_guarantee_2_start_attempts_are_counted(
    world: World, new_run: Callable[[], str]
) -> None:
    world.aws.before_start = lambda _: NO_ENI
    run_id = new_run()
    with world.quick_agent("--start-attempts", "2"):
        assert world.finished([run_id]) == ["Failed"]
    assert len(world.tasks_of(run_id)) == 2


# -- The task ends with its run unfinished -----------------------------------------


@pytest.mark.parametrize(
    "end, code",
    [
        ({"exit_code": 0}, "end-not-reported"),
        ({"exit_code": 137, "container_reason": "OutOfMemoryError"}, "out-of-memory"),
        (
            {
                "exit_code": 143,
                "stop_code": "SpotInterruption",
                "stopped_reason": "Your Spot Task was interrupted.",
            },
            "spot-interruption",
        ),
    ],
)
@pytest.mark.parametrize("state", ["Submitted", "Running"])
def test_guarantee_2_a_task_that_ends_with_its_run_unfinished_fails_it(
    world: World,
    new_run: Callable[[], str],
    end: Dict[str, Any],
    code: str,
    state: str,
) -> None:
    from prefect.engine.state import Running

    run_id = new_run()
    with world.quick_agent("--on-interruption", "fail"):
        task = task_of(world, run_id, "RUNNING")
        if state == "Running":
            set_state(world, run_id, Running())
        world.aws.finish(task.task_arn, **end)
        assert world.finished([run_id]) == ["Failed"]
    assert code_of(world.api.store.flow_run(run_id).state_message) == code
    assert len(world.tasks_of(run_id)) == 1


def test_a_run_that_finished_is_left_alone(
    world: World, new_run: Callable[[], str]
) -> None:
    from prefect.engine.state import Success

    run_id, other = new_run(), new_run()
    with world.quick_agent():
        task, second = task_of(world, run_id, "RUNNING"), task_of(world, other)
        set_state(world, run_id, Success())
        world.aws.finish(task.task_arn, exit_code=1)
        world.aws.finish(second.task_arn, exit_code=1)
        assert world.finished([other]) == ["Failed"]
    assert world.states([run_id]) == ["Success"]


def test_tasks_that_stop_together_cost_few_queries(
    world: World, new_run: Callable[[], str]
) -> None:
    runs = [new_run() for _ in range(20)]
    questions: List[str] = []

    def note(operation: str, arguments: Dict[str, Any]) -> None:
        where = arguments.get("where") or {}
        if operation == "flow_run" and list(where) == ["id"]:
            questions.append(where["id"])

    all_ended = threading.Event()
    all_ended.set()

    def wait(operation: str, _: Dict[str, Any]) -> None:
        if operation == "ecs.DescribeTasks":
            all_ended.wait(DEADLINE)

    world.aws.fault = wait
    with world.quick_agent():
        tasks = [task_of(world, run_id, "RUNNING") for run_id in runs]
        world.api.fault = note
        all_ended.clear()
        for task in tasks:
            world.aws.finish(task.task_arn, exit_code=1)
        all_ended.set()
        assert world.finished(runs) == ["Failed"] * 20
    assert 2 <= len(questions) <= 8  # two looks at each run


def test_guarantee_5_a_run_that_waits_for_a_retry_is_left_alone(
    world: World,
) -> None:
    from prefect.engine.state import Running

    flow_id = world.register(Flow("retries", tasks=[Task("fetch")]))
    run_id, other = (world.api.store.create_flow_run(flow_id) for _ in range(2))
    (task_run,) = world.api.store.task_runs(run_id)
    with world.quick_agent():
        for each in (run_id, other):
            task_of(world, each, "RUNNING")
            set_state(world, each, Running())
        change = {"task_run_id": task_run.id, "state": {"type": "Retrying"}}
        world.api.store.set_task_run_states([change])
        for each in (run_id, other):
            world.aws.finish(task_of(world, each).task_arn, exit_code=0)
        assert world.finished([other]) == ["Failed"]
    assert world.states([run_id]) == ["Running"]


def test_no_watch_leaves_tasks_alone(world: World, new_run: Callable[[], str]) -> None:
    run_id = new_run()
    # With its real pauses: after an answer that came late it looks for other tasks.
    with world.agent("--no-watch"):
        task_of(world, run_id, "RUNNING")
    assert world.aws.calls["ecs.DescribeTasks"] == 0


# -- Cancelling --------------------------------------------------------------------


def test_a_run_that_is_cancelled_before_its_flow_started_has_its_task_stopped(
    world: World, new_run: Callable[[], str]
) -> None:
    world.aws.before_start = lambda _: Hold()
    run_id = new_run()
    with world.quick_agent():
        task_of(world, run_id, "PENDING")
        world.client.cancel_flow_run(run_id)
        task = task_of(world, run_id, "STOPPED")
        assert task.stop_code == "UserInitiated"
    assert world.states([run_id]) == ["Cancelled"]


def test_a_flow_that_does_not_end_by_itself_when_cancelled_is_stopped(
    world: World, new_run: Callable[[], str]
) -> None:
    from prefect.engine.state import Running

    run_id = new_run()
    with world.quick_agent("--cancel-grace", "1"):
        task_of(world, run_id, "RUNNING")
        set_state(world, run_id, Running())
        world.client.cancel_flow_run(run_id)
        task_of(world, run_id, "STOPPED")
        assert world.finished([run_id]) == ["Cancelled"]


# -- Stopping and starting again ---------------------------------------------------


def burst(world: World, new_run: Callable[[], str], count: int) -> List[str]:
    """Many runs, when AWS lets only a few of them through at once."""
    world.aws.limits = True
    return [new_run() for _ in range(count)]


def assert_one_task_each(world: World, runs: List[str]) -> None:
    eventually(lambda: {task.started_by for task in world.aws.tasks()} >= set(runs))
    assert Counter(task.started_by for task in world.aws.tasks()) == Counter(runs)


def kill(agent: Any, number: int) -> int:
    os.kill(agent._process.pid, number)
    return int(agent._process.wait(timeout=DEADLINE))


def test_guarantee_2_sigterm_in_a_burst_loses_nothing(
    world: World, new_run: Callable[[], str]
) -> None:
    runs = burst(world, new_run, 60)
    with world.quick_agent("--launches-per-second", "2") as agent:
        eventually(lambda: world.api.store.counts().get("Submitted", 0) >= 20)
        eventually(lambda: len(world.aws.tasks()) >= 2)
        assert kill(agent, signal.SIGTERM) == 0
    assert set(world.states(runs)) == {"Scheduled", "Submitted"}
    returned = [run_id for run_id in runs if was_returned(world, run_id)]
    assert returned
    line_end = f"{len(returned)} flow runs returned to the queue, 0 left"
    assert any(line_end in line for line in agent.lines)
    hurry(world, runs)
    with world.quick_agent():
        assert_one_task_each(world, runs)


def test_guarantee_5_a_run_that_another_agent_launches_too_is_not_returned(
    world: World, new_run: Callable[[], str]
) -> None:
    """As when one agent replaces another: both have the same name and id."""
    run_id = new_run()
    full = Fault(failures=[{"arn": "i-1", "reason": "RESOURCE:CPU"}])
    world.aws.fault = lambda operation, _: full if operation == "ecs.RunTask" else None
    with world.quick_agent() as agent:
        waits = f"Flow run {run_id} waits"
        assert eventually(lambda: any(waits in line for line in agent.lines))
        mark_submitted(world, run_id, run_id, holder="another")
        assert kill(agent, signal.SIGTERM) == 0
    assert world.states([run_id]) == ["Submitted"]
    assert any("0 flow runs returned to the queue" in line for line in agent.lines)


def was_launched(world: World, run_id: str) -> bool:
    lines = world.log(run_id)
    return any(line.startswith("Submitted for execution") for line in lines)


def was_returned(world: World, run_id: str) -> bool:
    message = world.api.store.flow_run(run_id).state_message or ""
    return message.startswith("Returned to the queue")


def hurry(world: World, runs: List[str]) -> None:
    """Returned runs are due in 35 s; make that now."""
    store = world.api.store
    with store.transaction():
        for run_id in runs:
            row = store.row("flow_run", run_id)
            if row["state"] == "Scheduled":
                state = {**row["serialized_state"], "start_time": row["created"]}
                store.set_flow_run_state(run_id, state)


def test_guarantee_1_and_2_sigkill_in_a_burst_and_a_restart(
    world: World, new_run: Callable[[], str]
) -> None:
    runs = burst(world, new_run, 60)
    with world.quick_agent() as agent:
        eventually(lambda: len(world.aws.tasks()) >= 10)
        kill(agent, signal.SIGKILL)
    with world.quick_agent():
        assert_one_task_each(world, runs)


def test_guarantee_1_a_run_that_another_agent_launches_is_not_recovered(
    world: World, new_run: Callable[[], str]
) -> None:
    run_id = new_run()
    with world.quick_agent():  # takes the run, and its name is the next one's
        task_of(world, run_id)
    other = new_run()
    mark_submitted(world, other, run_id, holder="gone")
    heart = Heart(world, other)
    with world.quick_agent() as agent:
        eventually(lambda: any("claimed before" in line for line in agent.lines))
        calls = world.aws.calls
        before = calls["ecs.ListTasks"]
        assert eventually(lambda: calls["ecs.ListTasks"] >= before + 6)
        assert world.tasks_of(other) == []
        heart.stop()
        task_of(world, other)


def test_guarantee_1_a_run_that_prefects_own_agent_claimed_is_not_launched_again(
    world: World, new_run: Callable[[], str]
) -> None:
    """It may be about to do so."""
    run_id = new_run()
    with world.quick_agent():
        task_of(world, run_id)
    theirs, ours = new_run(), new_run()
    mark_submitted(world, theirs, run_id)
    mark_submitted(world, ours, run_id, holder="gone")
    with world.quick_agent() as agent:
        assert eventually(
            lambda: any(
                theirs in line and "[claimed-by-prefects-agent]" in line
                for line in agent.lines
            )
        )
        task_of(world, ours)
    assert world.tasks_of(theirs) == []


def mark_submitted(world: World, run_id: str, like: str, holder: str = "") -> None:
    """Let the agent of another run have claimed this one.

    Without a holder it is Prefect's own agent, which writes no launch record.
    """
    store = world.api.store
    agent_id = str(store.flow_run(like).agent_id)
    if holder:
        claim(store, run_id, agent_id, holder)
    else:
        store.set_flow_run_state(run_id, {"type": "Submitted"}, agent_id=agent_id)


PREFECTS_OWN = """
from prefect.agent.ecs import ECSAgent

ECSAgent().start()
"""


@pytest.mark.parametrize("ended", [False, True])
def test_guarantee_1_a_task_that_prefects_own_agent_started_is_found(
    world: World, new_run: Callable[[], str], ended: bool
) -> None:
    """Both agents have one id at the API, as on the day on which one is replaced."""
    run_id = new_run()
    with world.child([sys.executable, "-c", PREFECTS_OWN]):
        (task,) = eventually(lambda: launched(world, run_id) and world.aws.tasks())
    assert world.states([run_id]) == ["Submitted"]
    if ended:
        world.aws.finish(task.task_arn, exit_code=1)
    with world.quick_agent() as agent:
        found = f"Flow run {run_id}: its task {task.task_arn} is watched"
        assert eventually(lambda: any(found in line for line in agent.lines))
        if not ended:
            world.aws.finish(task.task_arn, exit_code=1)
        assert world.finished([run_id]) == ["Failed"]
    assert len(world.aws.tasks()) == 1


def launched(world: World, run_id: str) -> bool:
    """Whether Prefect's own agent has done with a run."""
    return any("Submitted for execution: Task" in line for line in world.log(run_id))


class Heart:
    """Sends a heartbeat for a run whenever the agent asks for runs.

    Like an agent that is launching the run, but always in time for the next check.
    """

    def __init__(self, world: World, run_id: str) -> None:
        self._world, self._run_id = world, run_id
        world.api.fault = self._beat

    def _beat(self, operation: str, _: Dict[str, Any]) -> None:
        if operation == "flow_run":
            self._world.api.store.update_flow_run_heartbeat(self._run_id)

    def stop(self) -> None:
        self._world.api.fault = None


# -- Outages -----------------------------------------------------------------------


def test_guarantee_2_an_outage_of_the_api_loses_nothing_and_is_logged_once(
    world: World, new_run: Callable[[], str]
) -> None:
    runs = burst(world, new_run, 40)
    with world.quick_agent() as agent:
        eventually(lambda: len(world.aws.tasks()) >= 5)
        world.api.stop()
        assert eventually(lambda: [line for line in agent.lines if "ERROR" in line])
        world.api.start()
        assert_one_task_each(world, runs)
        assert eventually(lambda: any("over after" in line for line in agent.lines))
    (begun,) = [line for line in agent.lines if "ERROR" in line]
    (ended,) = [line for line in agent.lines if "over after" in line]
    kind = begun.split("ERROR - ")[1].split(" | ")[-1].split(":")[0]
    assert f"{kind}: over after" in ended
    assert "Traceback" not in "\n".join(agent.lines)


def test_guarantee_2_and_5_failed_is_sent_until_the_api_accepts_it(
    world: World, new_run: Callable[[], str]
) -> None:
    world.aws.before_start = lambda _: NOT_FOUND
    refusals = [APIFault(status=503)] * 5

    def fault(operation: str, variables: Dict[str, Any]) -> Any:
        if '"Failed"' in json.dumps(variables) and refusals:
            return refusals.pop()
        return None

    world.api.fault = fault
    run_id = new_run()
    with world.quick_agent():
        assert world.finished([run_id]) == ["Failed"]
    assert refusals == []


def test_guarantee_5_a_run_that_continued_in_an_outage_is_not_failed_after_it(
    world: World, new_run: Callable[[], str]
) -> None:
    from prefect.engine.state import Running

    run_id, other = new_run(), new_run()
    another = world.api.store.register_agent(type="ECSAgent", name="another")
    refused: List[str] = []

    def fault(operation: str, variables: Dict[str, Any]) -> Any:
        if operation != "set_flow_run_states" or refused:
            return None
        (change,) = variables["input"]["states"]
        if change["flow_run_id"] != run_id or change["state"]["type"] != "Failed":
            return None
        refused.append(run_id)
        store = world.api.store  # Lazarus, and another agent with its task
        store.set_flow_run_state(run_id, {"type": "Scheduled"})
        store.set_flow_run_state(run_id, {"type": "Submitted"}, agent_id=another)
        store.set_flow_run_state(run_id, {"type": "Running"})
        return APIFault(status=503)

    world.api.fault = fault
    with world.quick_agent():
        tasks = [task_of(world, each, "RUNNING") for each in (run_id, other)]
        for each in (run_id, other):
            set_state(world, each, Running())
        world.aws.finish(tasks[0].task_arn, exit_code=1)
        eventually(lambda: refused)
        world.aws.finish(tasks[1].task_arn, exit_code=1)
        assert world.finished([other]) == ["Failed"]
    assert world.states([run_id]) == ["Running"]


def test_guarantee_5_the_end_of_an_old_task_is_not_that_of_a_run_launched_again(
    world: World, new_run: Callable[[], str]
) -> None:
    run_id, other = new_run(), new_run()
    full = Fault(failures=[{"arn": "i-1", "reason": "RESOURCE:CPU"}])
    with world.quick_agent() as agent:
        tasks = [task_of(world, each, "RUNNING") for each in (run_id, other)]
        world.aws.fault = lambda operation, _: (
            full if operation == "ecs.RunTask" else None
        )
        lazarus = {"type": "Scheduled", "start_time": pendulum.now("UTC").isoformat()}
        world.api.store.set_flow_run_state(run_id, lazarus)
        waits = f"Flow run {run_id} waits"
        assert eventually(lambda: any(waits in line for line in agent.lines))
        world.aws.finish(tasks[0].task_arn, exit_code=1)
        world.aws.finish(tasks[1].task_arn, exit_code=1)
        assert world.finished([other]) == ["Failed"]
        world.aws.fault = None
        assert eventually(lambda: len(world.tasks_of(run_id)) == 2)
    assert world.states([run_id]) == ["Submitted"]


@pytest.mark.parametrize("state", ["Running", "Cancelled"])
def test_guarantee_5_a_launch_that_fails_ends_only_a_run_that_waits_for_it(
    world: World, new_run: Callable[[], str], state: str
) -> None:
    """Another agent of the same name may have started it; a user may cancel it."""
    run_id = new_run()
    logged = f"Flow run {run_id} cannot be launched"

    def fault(operation: str, request: Dict[str, Any]) -> Any:
        if operation != "ecs.RunTask":
            return None
        if request["startedBy"] == run_id:
            world.api.store.set_flow_run_state(run_id, {"type": state})
        return Fault(error_code="AccessDeniedException")

    world.aws.fault = fault
    with world.quick_agent() as agent:
        assert eventually(lambda: any(logged in line for line in agent.lines))
        assert world.finished([new_run()]) == ["Failed"]
    assert world.states([run_id]) == [state]
    assert world.log(run_id, "ERROR") == []


def test_guarantee_1_lost_answers_of_run_task_start_no_second_task(
    world: World, new_run: Callable[[], str]
) -> None:
    lost = Fault(drop_connection=True, after_effect=True)
    world.aws.fault = lambda operation, _: lost if operation == "ecs.RunTask" else None
    runs = [new_run() for _ in range(10)]
    with world.quick_agent():
        eventually(lambda: len(world.aws.tasks()) >= 10)
        world.aws.fault = None
        eventually(lambda: all(was_launched(world, run_id) for run_id in runs))
        assert_one_task_each(world, runs)
    assert set(world.states(runs)) == {"Submitted"}


# -- Health ------------------------------------------------------------------------


def get(url: str) -> Tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def is_served(address: str) -> bool:
    try:
        return bool(get(f"{address}/api/health"))
    except OSError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_health_and_poke(world: World, new_run: Callable[[], str]) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    with world.agent("--agent-address", address):
        assert eventually(lambda: is_served(address))
        assert get(f"{address}/api/health") == (200, "{}")
        before = world.api.calls["get_runs_in_queue"]
        assert get(f"{address}/api/poke")[0] == 200
        assert eventually(lambda: world.api.calls["get_runs_in_queue"] > before)


def test_a_background_loop_that_keeps_failing_is_counted_and_shows_in_the_health(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.utilities.configuration import set_temporary_config

    from prefect_ecs_plugin import ECSAgent

    def fails() -> Iterator[Any]:
        raise ValueError("broken")
        yield

    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    with set_temporary_config({"cloud.api": world.api.url}):
        agent = ECSAgent()
    agent._dispatcher.keep_running("sweeper", fails)  # type: ignore[arg-type]
    assert eventually(lambda: agent._health.problem() is not None)
    assert code_of(agent._health.problem()) == "loop-failing"
    assert agent._counts.internal_errors.items()[()] >= 3
    agent._dispatcher.interrupt()
    agent._dispatcher.close()


def test_cancellations_are_watched_from_the_first_task_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then no timer wakes the agent."""
    from prefect.utilities.configuration import set_temporary_config

    from prefect_ecs_plugin import ECSAgent

    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    with set_temporary_config({"cloud.api": world.api.url}):
        agent = ECSAgent()
    steps = agent._supervisor.watch_cancellations()
    assert isinstance(next(steps), Future)
    agent._watcher.add("a task", "default", "a run")
    assert isinstance(next(steps), Pause)


@pytest.mark.parametrize(
    "address, exit_code, code",
    [("nonsense", 2, "no-port"), ("http://127.0.0.1:{port}", 1, "cannot-listen")],
)
def test_an_address_that_cannot_be_used_is_one_line(
    world: World, address: str, exit_code: int, code: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = world.prefect(
            *("agent", "ecs", "start", "--agent-address"),
            address.format(port=taken.getsockname()[1]),
        )
    assert ended.returncode == exit_code
    assert code_of(ended.stdout.strip()) == code
    assert "Traceback" not in ended.stdout
