"""Many runs at once through the real command line: each one task, none Failed."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pendulum
import pytest
from deadlines import DEADLINE
from prefect import Flow

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from world import World, claim, eventually

from prefect_ecs_plugin.sandbox.aws import Fault
from prefect_ecs_plugin.scheduling.steps import run_blocking

pytestmark = pytest.mark.slow

THROTTLE = Fault(error_code="ThrottlingException", message="Rate exceeded")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, runs_tasks=False).running() as world:
        yield world


@pytest.fixture
def flow_id(world: World) -> str:
    with Flow("burst") as flow:
        pass
    return world.register(flow)


def due(world: World, flow_id: str, count: int, seconds: float = 0.0) -> List[str]:
    """Runs that are all due at one moment."""
    start = pendulum.now("UTC").add(seconds=seconds)
    return [
        world.api.store.create_flow_run(
            flow_id=flow_id, scheduled_start_time=start.isoformat()
        )
        for _ in range(count)
    ]


def tasks_by_run(world: World) -> Counter:  # type: ignore[type-arg]  # Python 3.8
    return Counter(task.started_by for task in world.aws.tasks())


def assert_one_task_each(world: World, runs: List[str]) -> None:
    eventually(lambda: set(tasks_by_run(world)) >= set(runs))
    assert tasks_by_run(world) == Counter(runs)
    assert set(world.states(runs)) == {"Submitted"}


class Every:
    """Spoils every so manyth call of an operation, each time in the next way."""

    def __init__(self, operation: str, period: int, *faults: Fault) -> None:
        self.operation, self.period, self.faults = operation, period, faults
        self.calls = 0
        self.lock = threading.Lock()

    def __call__(self, operation: str, params: Dict[str, Any]) -> Any:
        if operation != self.operation:
            return None
        with self.lock:
            self.calls += 1
            number, rest = divmod(self.calls, self.period)
        return self.faults[number % len(self.faults)] if rest == 0 else None


def test_guarantee_4_a_burst_under_awss_limits_is_launched_whole(
    world: World, flow_id: str
) -> None:
    world.aws.limits = True
    runs = due(world, flow_id, 60, seconds=1)
    with world.agent():
        assert_one_task_each(world, runs)
    assert sum(world.aws.throttled.values()) == 0
    starts = [task.created_at for task in world.aws.tasks()]
    planned = world.api.store.flow_run(runs[0]).scheduled_start_time.timestamp()
    assert min(starts) >= planned


@pytest.mark.parametrize(
    "spoil",
    [
        Every("ecs.RunTask", 3, THROTTLE),
        Every("ecs.RunTask", 3, Fault(status=503, error_code="ServerException")),
        Every("ecs.RunTask", 3, Fault(drop_connection=True)),
        Every("ecs.RunTask", 3, Fault(drop_connection=True, after_effect=True)),
        Every(
            "ecs.RegisterTaskDefinition",
            1,
            THROTTLE,
            Fault(
                error_code="ClientException",
                message="Too many concurrent attempts to create a new revision of the "
                "specified family.",
            ),
            Fault(delay=0.0),
        ),
    ],
    ids=["throttle", "5xx", "lost before", "lost after", "contention"],
)
def test_guarantee_1_and_4_trouble_fails_no_run_and_starts_none_twice(
    world: World, flow_id: str, spoil: Every
) -> None:
    world.aws.fault = spoil
    runs = due(world, flow_id, 20)
    with world.quick_agent("--launches-per-second", "1000"):
        assert_one_task_each(world, runs)


def test_guarantee_3_cold_one_register_and_at_most_one_describe_per_definition(
    world: World, flow_id: str
) -> None:
    runs = due(world, flow_id, 40)
    with world.quick_agent("--launches-per-second", "1000"):
        assert_one_task_each(world, runs)
    assert world.ecs_calls() == {
        "DescribeClusters": 1,
        "DescribeTaskDefinition": 1,
        "RegisterTaskDefinition": 1,
        "RunTask": 40,
    }


class Together:
    """Lets runs be taken only once two agents have asked for one and the same."""

    def __init__(self) -> None:
        self._asked = Counter()  # type: Counter[str]
        self._lock = threading.Lock()
        self._both = threading.Event()

    def __call__(self, operation: str, variables: Dict[str, Any]) -> None:
        if operation != "set_flow_run_states":
            return
        with self._lock:
            self._asked.update(
                state["flow_run_id"] for state in variables["input"]["states"]
            )
            if max(self._asked.values()) >= 2:
                self._both.set()
        assert self._both.wait(DEADLINE)


def test_guarantee_1_two_agents_on_an_api_that_does_not_lock(tmp_path: Path) -> None:
    world = World(tmp_path, locks_submitted=False, runs_tasks=False)
    with world.running():
        with Flow("burst") as flow:
            pass
        flow_id = world.register(flow)
        with world.quick_agent(), world.quick_agent("--name", "second"):
            eventually(lambda: len(world.api.store.agents()) == 2)
            world.api.fault = Together()
            runs = due(world, flow_id, 30)
            assert_one_task_each(world, runs)
        # Both agents found the runs due; how often both got as far as RunTask depends
        # on the machine.
        assert world.aws.calls["ecs.RunTask"] >= 30


def test_guarantee_1_a_lost_answer_of_the_api_loses_no_run(
    world: World, flow_id: str
) -> None:
    from prefect_ecs_plugin.sandbox.prefect_api import Fault as APIFault

    lost = APIFault(drop_connection=True, after_effect=True)
    seen = Counter()  # type: Counter[str]  # the first answer for each run is lost

    def fault(operation: str, variables: Dict[str, Any]) -> Any:
        if operation != "set_flow_run_states":
            return None
        run_id = variables["input"]["states"][0]["flow_run_id"]
        seen[run_id] += 1
        return lost if seen[run_id] == 1 else None

    world.api.fault = fault
    runs = due(world, flow_id, 5)
    with world.quick_agent():
        assert_one_task_each(world, runs)


def waiting_line(world: World, run_id: str) -> List[str]:
    return [line for line in world.log(run_id) if line.startswith("Waiting for ECS")]


def test_a_waiting_run_says_once_why_and_when_it_went_through(
    world: World, flow_id: str
) -> None:
    full = Fault(failures=[{"arn": "i-1", "reason": "RESOURCE:CPU"}])
    world.aws.fault = lambda operation, _: full if operation == "ecs.RunTask" else None
    (run_id,) = due(world, flow_id, 1)
    with world.quick_agent():
        assert eventually(lambda: waiting_line(world, run_id)) == [
            "Waiting for ECS: there is no capacity for the task at present"
        ]
        eventually(lambda: world.aws.calls["ecs.RunTask"] >= 2)
        world.aws.fault = None
        assert_one_task_each(world, [run_id])
        eventually(lambda: len(world.log(run_id)) >= 3)
    assert [line.split(":")[0] for line in world.log(run_id)] == [
        "Waiting for ECS",
        "ECS has accepted the task now",
        "Submitted for execution",
    ]


def test_a_run_that_ecs_puts_off_for_too_long_ends_with_what_was_tried(
    world: World, flow_id: str
) -> None:
    full = Fault(failures=[{"arn": "i-1", "reason": "RESOURCE:CPU"}])
    world.aws.fault = lambda operation, _: full if operation == "ecs.RunTask" else None
    (run_id,) = due(world, flow_id, 1)
    with world.quick_agent("--launch-timeout", "0"):
        assert world.finished([run_id]) == ["Failed"]
    (line,) = world.log(run_id, "ERROR")
    assert "1 try" in line
    assert "RESOURCE:CPU" in line


def test_runs_are_left_to_others_while_many_definitions_wait_to_be_registered(
    world: World, flow_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.utilities.configuration import set_temporary_config

    from prefect_ecs_plugin import ECSAgent

    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    runs = due(world, flow_id, 2)
    with set_temporary_config({"cloud.api": world.api.url}):
        agent = ECSAgent()
        for _ in range(100):
            agent._rate_limiter.ticket("RegisterTaskDefinition")
        agent._poll()
    assert agent.submitting_flow_runs == set()
    with world.agent():
        eventually(lambda: set(tasks_by_run(world)) == set(runs))
    assert_one_task_each(world, runs)


def test_a_run_that_waits_has_a_heartbeat(
    world: World, flow_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one, the server's Lazarus would have it launched twice."""
    from prefect.utilities.configuration import set_temporary_config

    from prefect_ecs_plugin import ECSAgent

    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    (run_id,) = due(world, flow_id, 1)
    before = world.api.store.flow_run(run_id).heartbeat
    with set_temporary_config({"cloud.api": world.api.url}):
        agent = ECSAgent()
        agent._launcher.pending_run_ids.add(run_id)
        agent.heartbeat()
    assert world.api.store.flow_run(run_id).heartbeat != before


@pytest.mark.parametrize(
    "status, beats",
    [("PROVISIONING", True), ("PENDING", True), ("RUNNING", False), ("", False)],
)
def test_guarantee_1_a_run_whose_task_does_not_start_for_long_has_a_heartbeat(
    world: World,
    flow_id: str,
    monkeypatch: pytest.MonkeyPatch,
    status: str,
    beats: bool,
) -> None:
    """Lazarus again: a capacity provider may take longer than its ten minutes."""
    from prefect.utilities.configuration import set_temporary_config

    from prefect_ecs_plugin import ECSAgent
    from prefect_ecs_plugin.launch.launcher import Started
    from prefect_ecs_plugin.launch_record import Launch

    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    (run_id,) = due(world, flow_id, 1)
    store = world.api.store
    store.set_flow_run_state(run_id, {"type": "Submitted"})
    before = store.flow_run(run_id).heartbeat
    with set_temporary_config({"cloud.api": world.api.url}):
        agent = ECSAgent()
        agent._supervisor.watch(Started("a task", "default", run_id, Launch()))
        (watched,) = agent._watcher.in_flight()
        watched.last_status = status
        for _ in range(300 // agent.heartbeat_period):
            agent.heartbeat()
    assert (store.flow_run(run_id).heartbeat != before) is beats
    assert world.api.calls["update_flow_run_heartbeat"] <= 3


def test_guarantee_1_a_run_that_another_agent_of_the_same_name_took_is_left_to_it(
    world: World, flow_id: str
) -> None:
    store = world.api.store
    (run_id,) = due(world, flow_id, 1)

    def fault(operation: str, _: Dict[str, Any]) -> None:
        if operation == "set_flow_run_states":
            world.api.fault = None
            (agent,) = store.agents()
            claim(store, run_id, agent.id, "another")

    world.api.fault = fault
    with world.quick_agent():
        eventually(lambda: world.states([run_id]) == ["Submitted"])
        others = due(world, flow_id, 2)
        eventually(lambda: set(tasks_by_run(world)) >= set(others))
    assert tasks_by_run(world) == Counter(others)


@pytest.mark.parametrize("state", ["Running", "Success"])
def test_guarantee_5_a_run_that_was_read_a_while_ago_is_looked_at_before_it_is_taken(
    world: World, flow_id: str, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """It may have been taken, and even have ended, by an API that does not lock."""
    from prefect.utilities.configuration import set_temporary_config

    from prefect_ecs_plugin import ECSAgent

    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    run_id, other = due(world, flow_id, 2, seconds=-60)
    with set_temporary_config({"cloud.api": world.api.url}):
        agent = ECSAgent()
        rows = agent.client.runs_to_take([run_id, other])
        world.api.store.set_flow_run_state(run_id, {"type": state})
        for row in rows:
            read = time.monotonic() - 60
            steps = agent._launcher.claim_and_launch(row, read)
            run_blocking(steps, lambda seconds: time.sleep(max(0.0, seconds)))
    assert world.states([run_id, other]) == [state, "Submitted"]
    assert tasks_by_run(world) == Counter([other])
