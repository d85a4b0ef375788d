"""What an agent asks the Prefect API while it has nothing to launch."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any, Dict, Iterator

import pytest
from deadlines import DEADLINE
from prefect import Flow, task

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from runs import tasks_of
from world import World, eventually

LOOK = "get_runs_in_queue"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("home")
    with World(home, runs_tasks=False).running() as world:
        yield world


@pytest.fixture
def world(running: World) -> Iterator[World]:
    running.api.calls.clear()
    yield running
    running.api.fault = None


def asked_in_looks(world: World, looks: int) -> Dict[str, int]:
    """What the API is asked until the agent has looked at the queue so often."""
    before = Counter(world.api.calls)
    eventually(lambda: world.api.calls[LOOK] >= before[LOOK] + looks)
    return dict(world.api.calls - before)


def test_an_idle_agent_asks_for_ids_and_nothing_else(world: World) -> None:
    with world.quick_agent():
        eventually(lambda: world.api.calls["flow_run"] >= 2)  # for recovery
        asked = asked_in_looks(world, 8)
    assert list(asked) == [LOOK]


def test_a_run_in_hand_is_not_read_again(world: World) -> None:
    claimed, looked = threading.Event(), threading.Event()

    def hold(operation: str, _: Any) -> None:
        if operation == "set_flow_run_states" and not claimed.is_set():
            claimed.set()
            looked.wait(DEADLINE)

    @task
    def nothing() -> None: ...

    with Flow("nothing") as flow:
        nothing()
    run_id = world.run(world.register(flow))
    world.api.fault = hold
    with world.quick_agent():
        assert claimed.wait(DEADLINE)
        eventually(lambda: world.api.calls["flow_run"] >= 3)  # the row, and recovery's
        asked = asked_in_looks(world, 8)
        assert world.states([run_id]) == ["Scheduled"]
        looked.set()
        tasks_of(world, run_id, 1)
    assert list(asked) == [LOOK]
