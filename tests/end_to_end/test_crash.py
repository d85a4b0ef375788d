"""The agent is killed before and after each of its calls in turn, and started again.

Whatever it had done by then, every run ends as its course says: none lost, none with
two tasks, none Failed. The calls are those that the whole course makes when no agent is
killed, so a new call is covered by itself.

Two variables make a sample of it, which is chosen by chance and can be repeated:

    CRASH_SAMPLE=10     one moment of each ten that follow one another
    CRASH_SEED=text     the same ones as for this text; by default another day's differ
"""

from __future__ import annotations

import contextlib
import datetime
import os
import random
import signal
import threading
from collections import Counter
from typing import (
    Any,
    ClassVar,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Type,
)

import pytest
from prefect import Flow, Task
from prefect.run_configs import ECSRun

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from runs import (
    NO_CAPACITY,
    NO_ENI,
    comes_back,
    create_cluster,
    kill,
    sent_tokens,
    set_state,
    task_run_state,
    tasks_of,
    waits,
)
from world import World, eventually

from prefect_ecs_plugin.sandbox.aws import Fault as AWSFault
from prefect_ecs_plugin.sandbox.prefect_api import Fault as APIFault

pytestmark = [pytest.mark.slow, pytest.mark.crash]

#: Calls that change nothing: before and after are the same.
READS = ("agent", "flow_run", "get_runs_in_queue", "hello", "tenant")
READS += ("task", "edge", "task_run")
AWS_READS = ("Describe", "Get", "List")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("home")
    with World(home, locks_submitted=False, runs_tasks=False).running() as world:
        for cluster in ("first", "second"):
            create_cluster(world, cluster, world.aws.region)
        yield world


# -- When an agent is killed -------------------------------------------------------


class Moment(NamedTuple):
    """When an agent is killed.

    Attributes:
        operation: The call.
        number: Which of the calls of this operation, from 1.
        after: Whether what it asks for happens; the agent never hears the answer.
    """

    operation: str
    number: int
    after: bool

    def __str__(self) -> str:
        when = "after" if self.after else "before"
        return f"{when} call {self.number} of {self.operation}"


def changes_nothing(operation: str) -> bool:
    service, _, name = operation.rpartition(".")
    return name.startswith(AWS_READS) if service else operation in READS


class Calls:
    """The calls of one agent, in their order; at one moment it is killed."""

    def __init__(self, world: World, fatal: Optional[Moment] = None) -> None:
        self.names: List[str] = []
        self.agent: Any = None
        self.has_killed = False
        self._fatal = fatal
        self._lock = threading.Lock()
        no_api, no_aws = APIFault(drop_connection=True), AWSFault(drop_connection=True)
        world.api.fault = lambda name, _: no_api if self._prevents(name) else None
        world.aws.fault = lambda name, _: no_aws if self._prevents(name) else None

    def _prevents(self, operation: str) -> bool:
        """Note a call; whether what it asks for does not happen."""
        with self._lock:
            self.names.append(operation)
            number = self.names.count(operation)
        fatal = self._fatal
        if fatal is None or (operation, number) != fatal[:2]:
            return False
        eventually(lambda: self.agent is not None)
        self.kill()
        return not fatal.after

    def kill(self) -> None:
        """Kill the agent, if it is alive."""
        with contextlib.suppress(ProcessLookupError):
            kill(self.agent, signal.SIGKILL)
        self.has_killed = True

    def moments(self) -> List[Moment]:
        """Before and after each call that changes something, and before the first of
        those between them that only read: an agent keeps nothing, so what it has read
        makes no difference to the next one."""
        seen: Counter = Counter()  # type: ignore[type-arg]  # Python 3.8
        moments = []
        follows_read = False
        for name in self.names:
            seen[name] += 1
            if not changes_nothing(name):
                moments += [Moment(name, seen[name], after) for after in (False, True)]
            elif not follows_read:
                moments.append(Moment(name, seen[name], after=False))
            follows_read = changes_nothing(name)
        return moments


# -- What agents go through --------------------------------------------------------


class Course:
    """What happens to a few runs, from before the agent that is killed starts.

    Attributes:
        runs: The runs.
        options: The options of the agent that is killed.
        last_options: Those of the one that is started then.
    """

    options: ClassVar[Sequence[str]] = ()
    last_options: ClassVar[Sequence[str]] = ()

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        # No agent knows its definition yet.
        retries = {"max_retries": 1, "retry_delay": datetime.timedelta(minutes=30)}
        fetch = Task("fetch", **retries)
        flow = Flow(name, tasks=[fetch], run_config=ECSRun(image=name))
        flow_id = world.register(flow)
        self.runs = [world.api.store.create_flow_run(flow_id=flow_id) for _ in "12"]
        self.begin()

    def begin(self) -> None:
        """What happens before the agent starts."""

    def end(self) -> None:
        """Leave nothing to agents of later courses."""
        self.world.aws.before_start = None
        for run_id in self.runs:
            set_state(self.world, run_id, "Success")
            for task in self.live_tasks(run_id):
                self.world.aws.finish(task.task_arn)

    def live_tasks(self, run_id: str) -> List[Any]:
        tasks = self.world.tasks_of(run_id)
        return [task for task in tasks if task.last_status != "STOPPED"]

    def statuses(self, run_id: str) -> List[str]:
        return [task.last_status for task in self.world.tasks_of(run_id)]

    def is_over(self) -> bool:
        """Whether an agent has done all that there was to do."""
        return all(self.statuses(run_id) == ["RUNNING"] for run_id in self.runs)

    def outcome(self, run_id: str) -> List[Any]:
        """How a run ended: its state, its tasks, how many clientTokens were sent."""
        (state,) = self.world.states([run_id])
        tokens = len(sent_tokens(self.world, run_id))
        return [state, self.statuses(run_id), tokens]

    #: How each run has to end.
    expected: ClassVar[List[Any]] = ["Submitted", ["RUNNING"], 1]


class FirstLaunches(Course):
    """Two runs become due."""


class Resumed(Course):
    """Two runs come back for the retry of a task."""

    expected: ClassVar[List[Any]] = ["Running", ["RUNNING"], 1, "Submitted"]

    def begin(self) -> None:
        for run_id in self.runs:
            comes_back(self.world, run_id)

    def outcome(self, run_id: str) -> List[Any]:
        return [*super().outcome(run_id), task_run_state(self.world, run_id)]


class Relaunches(Course):
    """The first task of each run does not start; one of the runs is a resumed one."""

    def begin(self) -> None:
        comes_back(self.world, self.runs[1])
        failed: Set[str] = set()

        def fail_first(task: Any) -> Any:
            is_first = task.started_by not in failed
            failed.add(task.started_by)
            return NO_ENI if is_first else None

        self.world.aws.before_start = fail_first

    def is_over(self) -> bool:
        wanted = ["STOPPED", "RUNNING"]
        return all(self.statuses(run_id) == wanted for run_id in self.runs)

    def outcome(self, run_id: str) -> List[Any]:
        first, *others = sent_tokens(self.world, run_id)
        state, statuses, _ = super().outcome(run_id)
        expected = "Running" if run_id == self.runs[1] else "Submitted"
        return [state == expected, statuses, others == [f"{first}-2"]]

    expected: ClassVar[List[Any]] = [True, ["STOPPED", "RUNNING"], True]


class Cancels(Course):
    """The runs are cancelled once they run; one of them is a resumed one."""

    options = last_options = ("--cancel-grace", "0")
    expected: ClassVar[List[Any]] = ["Cancelled", ["STOPPED"], 1]

    def begin(self) -> None:
        comes_back(self.world, self.runs[1])
        self.world.aws.subscribe(self._on_event)

    def _on_event(self, event: Any) -> None:
        task = getattr(event, "task", None)
        if task and task.started_by in self.runs and task.last_status == "RUNNING":
            for state in ("Running", "Cancelling"):
                set_state(self.world, task.started_by, state)

    def is_over(self) -> bool:
        states = self.world.states(self.runs)
        return states == ["Cancelled"] * 2 and not any(map(self.live_tasks, self.runs))


class Interrupted(Course):
    """The first task of each run is interrupted; in one of them a task run is running,
    in the other none has begun."""

    expected: ClassVar[List[Any]] = [True, ["STOPPED", "RUNNING"], 2]

    def begin(self) -> None:
        self.interrupted: Set[str] = set()
        self.world.aws.subscribe(self._on_event)

    def _on_event(self, event: Any) -> None:
        task = getattr(event, "task", None)
        if not task or task.last_status != "RUNNING":
            return
        run_id = task.started_by
        if run_id not in self.runs or run_id in self.interrupted:
            return
        self.interrupted.add(run_id)
        if run_id == self.runs[0]:
            set_state(self.world, run_id, "Running")
            (task_run,) = self.world.api.store.task_runs(run_id)
            running = {"task_run_id": task_run.id, "state": {"type": "Running"}}
            self.world.api.store.set_task_run_states([running])
        self.world.aws.interrupt(task.task_arn)

    def is_over(self) -> bool:
        wanted = ["STOPPED", "RUNNING"]
        return all(self.statuses(run_id) == wanted for run_id in self.runs)

    def outcome(self, run_id: str) -> List[Any]:
        state, statuses, tokens = super().outcome(run_id)
        found = state, task_run_state(self.world, run_id)
        at_work, not_begun = ("Running", "Submitted"), ("Submitted", "Pending")
        expected = at_work if run_id == self.runs[0] else not_begun
        return [found == expected, statuses, tokens]


class AnotherCluster(Course):
    """An agent died when it had launched one run and claimed the other; the next one
    is started with another cluster, the last one with none."""

    options = ("--cluster", "second")

    def begin(self) -> None:
        launched, waiting = self.runs

        def refuse(operation: str, request: Dict[str, Any]) -> Optional[AWSFault]:
            refused = operation == "ecs.RunTask" and request["startedBy"] == waiting
            return NO_CAPACITY if refused else None

        self.world.aws.fault = refuse
        with self.world.quick_agent("--cluster", "first") as agent:
            tasks_of(self.world, launched, 1)
            assert waits(agent, waiting)
            kill(agent, signal.SIGKILL)


COURSES = (
    FirstLaunches,
    Resumed,
    Relaunches,
    Cancels,
    Interrupted,
    AnotherCluster,
)


# -- The tests ---------------------------------------------------------------------


def moments_of(world: World, kind: Type[Course]) -> List[Moment]:
    """When an agent can be killed that goes through a course: until its runs are where
    they should be, and it has looked at tasks and written a line into a run's log."""
    course = kind(world, f"{kind.__name__}-recorded")
    calls = Calls(world)
    with world.quick_agent(*course.options) as agent:
        assert eventually(course.is_over)
        wanted = {"ecs.DescribeTasks", "write_run_logs"}
        assert eventually(lambda: wanted <= set(calls.names))
        moments = calls.moments()
        kill(agent, signal.SIGKILL)
    world.api.fault = world.aws.fault = None
    course.end()
    return moments


def outcomes(world: World, kind: Type[Course], moment: Moment) -> List[Any]:
    """How the runs of a course end when an agent is killed at a moment.

    An agent that is at the end before that moment comes is killed at the end.
    """
    course = kind(world, f"{kind.__name__} {moment}".replace(" ", "-"))
    calls = Calls(world, fatal=moment)
    with world.quick_agent(*course.options) as calls.agent:
        eventually(lambda: calls.has_killed or course.is_over())
        calls.kill()
    world.api.fault = world.aws.fault = None
    with world.quick_agent(*course.last_options) as last:
        eventually(course.is_over)
        # An agent that wrongly starts another task does so after the first has settled.
        looks = lambda: looks_of(world)  # noqa: E731
        seen = looks()
        eventually(lambda: looks() > seen + 3)
        kill(last, signal.SIGKILL)
    found = [course.outcome(run_id) for run_id in course.runs]
    course.end()
    return found


def looks_of(world: World) -> int:
    """How often agents have looked at tasks or into the queue."""
    api, aws = world.api.calls, world.aws.calls
    return api["get_runs_in_queue"] + aws["ecs.DescribeTasks"]


def sample(count: int, each: int, seed: str) -> List[int]:
    """One number of each so many that follow one another, from 0 up to a count."""
    chance = random.Random(seed)
    return [
        chance.choice(range(first, min(first + each, count)))
        for first in range(0, count, each)
    ]


@pytest.mark.parametrize("course", COURSES)
def test_guarantee_1_and_2_killed_before_and_after_each_call(
    world: World, course: Type[Course]
) -> None:
    each = int(os.environ.get("CRASH_SAMPLE", "1"))
    seed = os.environ.get("CRASH_SEED", datetime.date.today().isoformat())
    moments = moments_of(world, course)
    wrong: Dict[str, List[Any]] = {}
    print(f"{course.__name__}: {len(moments)} moments")
    for number in sample(len(moments), each, seed):
        moment = moments[number]
        print(f"{course.__name__}: killed {moment}", flush=True)
        found = outcomes(world, course, moment)
        if found != [course.expected] * 2:
            wrong[str(moment)] = found
    assert wrong == {}, f"CRASH_SAMPLE={each} CRASH_SEED={seed}"


@pytest.mark.parametrize("count, each", [(0, 5), (1, 5), (18, 5), (18, 1)])
def test_a_sample_takes_one_of_each_so_many(count: int, each: int) -> None:
    chosen = sample(count, each, "seed")
    assert chosen == sample(count, each, "seed")
    assert [number // each for number in chosen] == list(range(-(-count // each)))
    assert all(number < count for number in chosen)
