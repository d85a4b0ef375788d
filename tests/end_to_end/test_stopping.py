"""An agent starts and stops as asked, whatever the Prefect API answers."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any, Callable, Iterator, List, Optional

import pendulum
import pytest
from deadlines import DEADLINE
from prefect import Flow, task

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from world import World, eventually

from prefect_ecs_plugin.agent import QUEUE
from prefect_ecs_plugin.errors import code_of, without_code
from prefect_ecs_plugin.sandbox.aws import Fault as AWSFault
from prefect_ecs_plugin.sandbox.prefect_api import Fault

#: What Prefect's client would sleep minutes for.
LIMITED = Fault(status=429, headers={"Retry-After": "600"})

#: Longer than any test.
SILENT = Fault(delay=600.0)

FULL = AWSFault(failures=[{"arn": "i-1", "reason": "RESOURCE:CPU"}])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("home")
    with World(home, runs_tasks=False).running() as world:
        yield world


@pytest.fixture(scope="module")
def flow_id(running: World) -> str:
    @task
    def nothing() -> None: ...

    with Flow("nothing") as flow:
        nothing()
    return running.register(flow)


@pytest.fixture
def world(running: World) -> Iterator[World]:
    running.api.calls.clear()
    yield running
    running.api.fault = running.aws.fault = None


@pytest.fixture
def new_run(world: World, flow_id: str) -> Iterator[Callable[..., str]]:
    """Makes runs; those that a test leaves are no concern of the next one's agent."""
    runs: List[str] = []

    def make(**options: Any) -> str:
        runs.append(world.run(flow_id, **options))
        return runs[-1]

    yield make
    world.api.fault = None
    for run_id in runs:
        world.api.store.set_flow_run_state(run_id, {"type": "Failed"})


def says(agent: Any, words: str) -> bool:
    return bool(eventually(lambda: any(words in line for line in agent.lines)))


def send(agent: Any, number: int) -> None:
    os.kill(agent._process.pid, number)


def end(agent: Any) -> int:
    """The exit code; a deadline far below what the API is told to take."""
    return int(agent._process.wait(timeout=DEADLINE))


def without_capacity(world: World) -> None:
    world.aws.fault = lambda operation, _: FULL if operation == "ecs.RunTask" else None


@pytest.mark.parametrize("fault", [LIMITED, SILENT], ids=["429", "silent"])
def test_sigterm_is_obeyed_whatever_the_api_answers(
    world: World, new_run: Callable[..., str], fault: Fault
) -> None:
    without_capacity(world)
    run_id = new_run()
    patient = {"PREFECT__CLOUD__REQUEST_TIMEOUT": "600"}
    with world.agent("--shutdown-grace", "5", **patient) as agent:
        assert says(agent, f"Flow run {run_id} waits")
        asked: List[str] = []

        def trouble(operation: str, _: Any) -> Optional[Fault]:
            if operation == "get_runs_in_queue":
                asked.append(operation)
            return fault if asked else None

        world.api.fault = trouble
        assert eventually(lambda: asked)
        send(agent, signal.SIGTERM)
        assert end(agent) == 0
        assert says(agent, "0 flow runs returned to the queue, 1 left")
    assert world.states([run_id]) == ["Submitted"]
    assert len(asked) == 1


def test_a_rate_limit_is_told_once_and_waited_for(
    world: World, new_run: Callable[..., str]
) -> None:
    limited = Fault(status=429, headers={"Retry-After": "1"})
    faults = [limited, limited]
    world.api.fault = lambda operation, _: (
        faults.pop() if faults and operation == "get_runs_in_queue" else None
    )
    run_id = new_run()
    with world.agent() as agent:
        assert eventually(lambda: world.tasks_of(run_id))
        assert says(agent, f"{without_code(QUEUE)}: over after")
    (told,) = [line for line in agent.lines if "ERROR" in line]
    assert code_of(told) == "prefect-rate-limit"
    assert told.count(without_code(QUEUE)) == 1
    assert "Traceback" not in "\n".join(agent.lines)


def test_an_agent_registers_when_the_rate_limit_is_over(
    world: World, new_run: Callable[..., str]
) -> None:
    run_id = new_run()
    faults = [Fault(status=429, headers={"Retry-After": "1"})]
    world.api.fault = lambda *_: faults.pop() if faults else None
    with world.agent() as agent:
        assert eventually(lambda: world.tasks_of(run_id))
    assert any("cannot register yet" in line for line in agent.lines)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_obeyed_while_the_agent_cannot_register(
    world: World, number: int
) -> None:
    world.api.fault = lambda *_: LIMITED
    with world.agent() as agent:
        assert says(agent, "cannot register yet")
        send(agent, number)
        assert end(agent) == 0
        assert says(agent, f"Stopping because of {signal.Signals(number).name}")
    assert "Traceback" not in "\n".join(agent.lines)


# -- --max-polls ---------------------------------------------------------------------


def test_sigterm_is_obeyed_while_the_last_runs_are_launched(
    world: World, new_run: Callable[..., str]
) -> None:
    without_capacity(world)
    later = pendulum.now("UTC").add(seconds=8)  # seen at the only look, and not due
    run_id = new_run(scheduled_start_time=later)
    with world.agent("--max-polls", "1") as agent:
        assert says(agent, f"Flow run {run_id} waits")
        send(agent, signal.SIGTERM)
        assert end(agent) == 0
        assert says(agent, "1 flow runs returned to the queue, 0 left")
    assert world.states([run_id]) == ["Scheduled"]
    assert world.tasks_of(run_id) == []


def test_a_second_signal_ends_at_once_while_the_last_runs_are_launched(
    world: World, new_run: Callable[..., str]
) -> None:
    without_capacity(world)
    run_id = new_run()
    with world.agent("--max-polls", "1", "--shutdown-grace", "600") as agent:
        assert says(agent, f"Flow run {run_id} waits")
        world.api.fault = lambda *_: SILENT
        send(agent, signal.SIGTERM)
        assert says(agent, "Stopping because of SIGTERM")
        send(agent, signal.SIGINT)
        assert end(agent) == 128 + signal.SIGINT


def test_an_agent_ends_when_the_last_runs_are_launched(
    world: World, new_run: Callable[..., str]
) -> None:
    runs = [new_run() for _ in range(3)]
    with world.agent("--max-polls", "1") as agent:
        assert end(agent) == 0
    assert all(len(world.tasks_of(run_id)) == 1 for run_id in runs)
    assert all(any("Submitted for" in line for line in world.log(r)) for r in runs)


# -- The agent's address -------------------------------------------------------------


def test_an_address_that_is_in_use_starts_nothing(
    world: World, new_run: Callable[..., str]
) -> None:
    without_capacity(world)
    left = new_run()
    with world.agent() as agent:
        assert says(agent, f"Flow run {left} waits")
        send(agent, signal.SIGKILL)
        end(agent)
    due = new_run()
    before = world.api.store.flow_run(left)
    world.api.calls.clear()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        ended = world.prefect("agent", "ecs", "start", "--agent-address", address)
    assert ended.returncode == 1
    (line,) = ended.stdout.strip().splitlines()
    assert address in line
    assert "--agent-address" in line
    assert world.api.store.flow_run(left) == before
    assert world.states([due]) == ["Scheduled"]
    assert world.api.calls == {}
