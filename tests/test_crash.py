"""The agent is killed at each of its calls in turn, and started again.

Whatever it had done by then, every run ends with exactly one task. The calls are
those that a whole course makes, so a new call is covered by itself.

Two variables make a sample of it, which is chosen by chance and can be repeated:

    CRASH_SAMPLE=5      one call of each five that follow one another
    CRASH_SEED=text     the same ones as for this text; by default another day's differ
"""

from __future__ import annotations

import datetime
import os
import random
import signal
import threading
from collections import Counter
from typing import Any, Dict, Iterator, List, Optional, Tuple

import pytest
from deadlines import DEADLINE
from prefect import Flow
from prefect.run_configs import ECSRun

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from world import World, eventually

pytestmark = [pytest.mark.slow, pytest.mark.crash]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("home")
    with World(home, locks_submitted=False, runs_tasks=False).running() as world:
        yield world


class Calls:
    """The calls of one agent, in order; at one of them it is killed.

    The process is gone before it hears the answer, but what it asked for happens.
    """

    def __init__(self, world: World, fatal: Optional[int] = None) -> None:
        self.names: List[str] = []
        self.agent: Any = None
        self._fatal = fatal
        self._lock = threading.Lock()
        world.api.fault = world.aws.fault = self  # type: ignore[assignment]

    def __call__(self, operation: str, _: Dict[str, Any]) -> None:
        with self._lock:
            self.names.append(operation)
            is_fatal = len(self.names) - 1 == self._fatal
        if is_fatal:
            eventually(lambda: self.agent is not None)
            os.kill(self.agent._process.pid, signal.SIGKILL)
            self.agent._process.wait(timeout=DEADLINE)


def new_flow(world: World, name: str) -> str:
    """A flow whose definition no agent knows yet."""
    with Flow(name) as flow:
        pass
    flow.run_config = ECSRun(image=f"image:{name}")
    return world.register(flow)


def two_runs(world: World, name: str) -> List[str]:
    flow_id = new_flow(world, name)
    store = world.api.store
    return [store.create_flow_run(flow_id=flow_id) for _ in range(2)]


def have_a_task(world: World, runs: List[str]) -> bool:
    return {task.started_by for task in world.aws.tasks()} >= set(runs)


@pytest.fixture(scope="module")
def course(world: World) -> List[str]:
    """The calls of an agent that nobody kills, up to its first look at the tasks."""
    runs = two_runs(world, "recorded")
    calls = Calls(world)
    with world.quick_agent():
        eventually(lambda: have_a_task(world, runs))
        eventually(lambda: "ecs.DescribeTasks" in calls.names)
        eventually(lambda: "write_run_logs" in calls.names)
    world.api.fault = world.aws.fault = None
    return calls.names[: calls.names.index("ecs.DescribeTasks") + 1]


def killed_at(world: World, number: int) -> Dict[str, int]:
    """How many tasks each of two runs has, when the first agent dies at this call."""
    runs = two_runs(world, f"killed-{number}")
    calls = Calls(world, fatal=number)
    with world.quick_agent() as calls.agent:
        calls.agent._process.wait(timeout=DEADLINE)
    world.api.fault = world.aws.fault = None
    with world.quick_agent():
        eventually(lambda: have_a_task(world, runs))
        # Whoever would start a second one does so when the first has settled.
        seen = world.aws.calls["ecs.DescribeTasks"]
        eventually(lambda: world.aws.calls["ecs.DescribeTasks"] > seen + 4)
    assert set(world.states(runs)) == {"Submitted"}
    tasks = Counter(task.started_by for task in world.aws.tasks())
    return {run_id: tasks[run_id] for run_id in runs}


def sample(count: int, each: int, seed: str) -> List[int]:
    """One number of each so many that follow one another, from 0 up to a count."""
    chance = random.Random(seed)
    return [
        chance.choice(range(first, min(first + each, count)))
        for first in range(0, count, each)
    ]


def test_guarantee_1_and_2_killed_at_each_call(world: World, course: List[str]) -> None:
    each = int(os.environ.get("CRASH_SAMPLE", "1"))
    seed = os.environ.get("CRASH_SEED", datetime.date.today().isoformat())
    wrong: List[Tuple[int, str, Dict[str, int]]] = []
    for number in sample(len(course), each, seed):
        print(f"killed at call {number}, {course[number]}", flush=True)
        counted = killed_at(world, number)
        if set(counted.values()) != {1}:
            wrong.append((number, course[number], counted))
    assert wrong == [], f"CRASH_SAMPLE={each} CRASH_SEED={seed}"


@pytest.mark.parametrize("count, each", [(0, 5), (1, 5), (18, 5), (18, 1)])
def test_a_sample_takes_one_of_each_so_many(count: int, each: int) -> None:
    chosen = sample(count, each, "seed")
    assert chosen == sample(count, each, "seed")
    assert [number // each for number in chosen] == list(range(-(-count // each)))
    assert all(number < count for number in chosen)
