"""Twenty minutes of random faults on both sides, agents killed and restarted, two side
by side: nothing lost, nothing doubled, memory flat. Prints its figures.

    tox -e soak                      as it is
    python tests/soak.py 60 7        a minute of it, from another seed
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List

import psutil
from prefect import Flow
from prefect.engine.state import Running, Success

sys.path.insert(0, str(Path(__file__).parent))

from world import World

from prefect_ecs_plugin.sandbox.aws import Fault as AWSFault
from prefect_ecs_plugin.sandbox.aws import TaskView
from prefect_ecs_plugin.sandbox.prefect_api import Fault as APIFault

#: Runs that become due each second.
RATE = 3.0

#: What goes wrong on each side, and how often.
AWS_FAULTS = [
    (0.03, AWSFault(error_code="ThrottlingException")),
    (0.02, AWSFault(status=503, error_code="ServerException")),
    (0.02, AWSFault(drop_connection=True)),
    (0.03, AWSFault(drop_connection=True, after_effect=True)),
    (0.02, AWSFault(body=b"rubbish", after_effect=True)),
]
API_FAULTS = [
    (0.02, APIFault(status=503)),
    (0.01, APIFault(drop_connection=True)),
    (0.02, APIFault(drop_connection=True, after_effect=True)),
    (0.01, APIFault(body=b"rubbish")),
]


class Chance:
    """Spoils calls at random, from a fixed seed."""

    def __init__(self, seed: int, faults: Any) -> None:
        self._random = random.Random(seed)
        self._faults = faults
        self.spoilt = 0

    def __call__(self, operation: str, _: Dict[str, Any]) -> Any:
        if operation in ("register_agent", "hello", "tenant", "ec2.DescribeVpcs"):
            return None  # an agent that cannot start is started again by its service
        drawn = self._random.random()
        for share, fault in self._faults:
            if drawn < share:
                self.spoilt += 1
                return fault
            drawn -= share
        return None


#: Seconds from a task's RUNNING to its run's, and from there to Success; a second
#: later the task ends.
FLOW_SECONDS = 1.5


class Flows:
    """Plays the containers: each run becomes Running and ends Success."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._seen: Counter = Counter()  # type: ignore[type-arg]  # Python 3.8
        world.aws.subscribe(self._on_event)

    def _on_event(self, event: Any) -> None:
        task = getattr(event, "task", None)
        if isinstance(task, TaskView) and task.last_status == "RUNNING":
            self._seen[task.task_arn] += 1
            if self._seen[task.task_arn] == 1:
                for number, state in enumerate((Running(), Success()), start=1):
                    self._set_later(FLOW_SECONDS * number, task.started_by, state)

    def _set_later(self, seconds: float, run_id: Any, state: Any) -> None:
        arguments = (run_id, state.serialize())
        set_state = self._world.api.store.set_flow_run_state
        timer = threading.Timer(seconds, set_state, arguments)
        timer.daemon = True
        timer.start()


class Agents:
    """Two agents of one name and labels, of which one is killed now and then."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._random = random.Random(seed)
        self.agents = [world.quick_agent(), world.quick_agent()]
        self.deaths: Counter = Counter()  # type: ignore[type-arg]  # Python 3.8
        self.memory: List[float] = []

    def disturb(self) -> None:
        number = self._random.randrange(2)
        how = self._random.choice([signal.SIGKILL, signal.SIGTERM])
        agent = self.agents[number]
        agent._process.send_signal(how)
        agent._process.wait(timeout=60)
        self.deaths[how.name] += 1
        self.agents[number] = self._world.quick_agent()

    def revive(self) -> None:
        for number, agent in enumerate(self.agents):
            if agent.exit_code is not None:
                self.agents[number] = self._world.quick_agent()

    def measure(self) -> None:
        for agent in self.agents:
            try:
                memory = psutil.Process(agent._process.pid).memory_info().rss
            except psutil.NoSuchProcess:
                continue
            self.memory.append(memory / 2**20)

    def stop(self) -> None:
        for agent in self.agents:
            agent.stop()


def soak(seconds: float, seed: int) -> int:
    home = Path(tempfile.mkdtemp())
    length = 2 * FLOW_SECONDS + 1
    options: Dict[str, Any] = {"runs_tasks": False, "task_seconds": length}
    world = World(home, locks_submitted=False, forks=False, **options)
    with world.running():
        with Flow("soak") as flow:
            pass
        flow_id = world.register(flow)
        Flows(world)
        agents = Agents(world, seed)
        chances = [Chance(seed + 1, AWS_FAULTS), Chance(seed + 2, API_FAULTS)]
        world.aws.fault, world.api.fault = chances  # type: ignore[assignment]
        runs = _let_it_rain(world, agents, flow_id, seconds)
        world.aws.fault = world.api.fault = None
        world.finished(runs, seconds=300)
        agents.stop()
        return _report(world, agents, runs, sum(chance.spoilt for chance in chances))


def _let_it_rain(
    world: World, agents: Agents, flow_id: str, seconds: float
) -> List[str]:
    runs: List[str] = []
    began = disturbed = time.monotonic()
    while time.monotonic() - began < seconds:
        runs.append(world.api.store.create_flow_run(flow_id=flow_id))
        if time.monotonic() - disturbed > 20:
            disturbed = time.monotonic()
            agents.disturb()
            print(f"{disturbed - began:5.0f} s {dict(world.api.store.counts())}")
            for run in world.api.store.flow_runs(state="Failed"):
                _tell(world, run.id)
        agents.revive()
        agents.measure()
        time.sleep(1 / RATE)
    return runs


def _report(world: World, agents: Agents, runs: List[str], spoilt: int) -> int:
    states = Counter(world.states(runs))
    tasks = Counter(task.started_by for task in world.aws.tasks())
    doubled = [run_id for run_id in runs if tasks[run_id] > 1]
    lost = [run_id for run_id in runs if not tasks[run_id]]
    half = len(agents.memory) // 2
    print(f"runs {len(runs)}, states {dict(states)}")
    print(f"doubled {len(doubled)}, without a task {len(lost)}")
    print(f"calls spoilt {spoilt}, agents ended {dict(agents.deaths)}")
    print(
        f"memory of an agent: at most {max(agents.memory[:half]):.0f} MiB in the first "
        f"half, {max(agents.memory[half:]):.0f} MiB in the second"
    )
    failed = [run_id for run_id in runs if world.states([run_id]) != ["Success"]]
    for run_id in [*doubled, *lost, *failed][:10]:
        _tell(world, run_id)
    return 0 if states == {"Success": len(runs)} and not doubled and not lost else 1


def _tell(world: World, run_id: str) -> None:
    """The course of a run that did not end as it should."""
    for state in world.api.store.states(run_id):
        print(run_id, state.timestamp.time(), state.state, state.message)
    for line in world.api.store.logs(run_id):
        print(run_id, line.timestamp.time(), line.message[:400].replace("\n", " "))
    for task in world.tasks_of(run_id):
        print(run_id, task.task_arn[-6:], task.created_at, task.stopped_at)


if __name__ == "__main__":
    given = [float(argument) for argument in sys.argv[1:]]
    length, seed, *_ = [*given, *(1200.0, 1.0)[len(given) :]]
    sys.exit(soak(length, int(seed)))
