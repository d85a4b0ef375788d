"""Twenty minutes of random faults on both sides: two agents side by side are killed and
restarted with changed options, runs are cancelled, restarted and come back for task
retries. Nothing is lost, doubled or wrongly stopped, and memory is flat. Prints its
figures.

    tox -e soak                      as it is
    python tests/soak.py 60 7        a minute of it, from another seed
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, Callable, DefaultDict, Dict, List, Optional, Set

import psutil
from prefect import Flow, Task

sys.path.insert(0, str(Path(__file__).parent))

from runs import NO_ENI, create_cluster, now, set_state
from world import FINISHED, QUICK, World, eventually

from prefect_ecs_plugin.sandbox.aws import Fault as AWSFault
from prefect_ecs_plugin.sandbox.aws import TaskView
from prefect_ecs_plugin.sandbox.prefect_api import Fault as APIFault
from prefect_ecs_plugin.sandbox.prefect_api.store import transitions

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
    (0.005, APIFault(status=429, headers={"Retry-After": "1"})),
]

#: The share of tasks that do not start.
START_FAILURES = 0.03

#: Put before an agent's program: TLS fails for a share of its calls, half of the time
#: when the request has been sent. The sandbox speaks no TLS, so the errors come from
#: where botocore and requests would raise them.
TLS_FAULTS = """
import random

import botocore.httpsession, requests.adapters
from botocore.exceptions import SSLError as BotocoreSSLError
from requests.exceptions import SSLError

def spoil(owner, error, share):
    send = owner.send
    def spoilt(self, request, *args, **kwargs):
        drawn = random.random()
        if drawn < share / 2:
            raise error(request.url)
        answer = send(self, request, *args, **kwargs)
        if drawn < share:
            raise error(request.url)
        return answer
    owner.send = spoilt

spoil(
    botocore.httpsession.URLLib3Session,
    lambda url: BotocoreSSLError(endpoint_url=url, error="EOF occurred"),
    0.02,
)
spoil(requests.adapters.HTTPAdapter, lambda url: SSLError("EOF occurred"), 0.01)
"""

#: Options with which an agent is started, besides those that all have.
OPTIONS: List[List[str]] = [
    [],
    ["--cluster", "first"],
    ["--cluster", "second"],
    ["--run-task-kwargs", "tags.yaml"],
    ["--cluster", "first", "--run-task-kwargs", "tags.yaml"],
]

#: What may become of a run, and how often.
PLANS = {"plain": 0.55, "retry": 0.15, "cancel": 0.15, "restart": 0.15}

#: Seconds from a task's RUNNING to its run's, from there to what its flow does next,
#: and from there to the task's end.
FLOW_SECONDS = 1.5

#: Seconds that a task may go on beside the new one of its restarted run.
STOP_SECONDS = 60.0

#: Seconds in which a flow ends by itself whose run was restarted: an agent that knew
#: its task may be dead.
OLD_FLOW_SECONDS = 30.0


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


def later(seconds: float, act: Callable[..., Any], *arguments: Any) -> None:
    timer = threading.Timer(seconds, act, arguments)
    timer.daemon = True
    timer.start()


class Flows:
    """Plays users and containers.

    Attributes:
        plans: What becomes of each run.
        cancelled_at: When runs were cancelled, in seconds since 1970.
        restarted_at: When runs were restarted.
        resumed: Runs that have come back for a task retry.
    """

    def __init__(self, world: World, flow_id: str, seed: int) -> None:
        self._world = world
        self._store = world.api.store
        self._flow_id = flow_id
        self._random = random.Random(seed)
        self._seen: Counter = Counter()  # type: ignore[type-arg]  # Python 3.8
        self.plans: Dict[str, str] = {}
        self.cancelled_at: Dict[str, float] = {}
        self.restarted_at: Dict[str, float] = {}
        self.resumed: Dict[str, float] = {}
        world.aws.subscribe(self._on_event)
        world.aws.before_start = lambda _: (
            NO_ENI if self._random.random() < START_FAILURES else None
        )

    def create(self) -> None:
        """A run that is due, and perhaps cancelled and restarted at random moments."""
        run_id = self._store.create_flow_run(flow_id=self._flow_id)
        (plan,) = self._random.choices([*PLANS], [*PLANS.values()])
        self.plans[run_id] = plan
        if plan in ("cancel", "restart"):
            later(self._random.uniform(0, 5), self._cancel, run_id)

    def _cancel(self, run_id: str) -> None:
        if self._state(run_id) in FINISHED:
            return
        self.cancelled_at[run_id] = time.time()
        self._store.cancel_flow_run(run_id)
        if self.plans[run_id] == "restart":
            later(self._random.uniform(0, 4), self._restart, run_id)

    def _restart(self, run_id: str) -> None:
        self.restarted_at[run_id] = time.time()
        set_state(self._world, run_id, "Scheduled", start_time=now())
        for task in self._world.tasks_of(run_id):
            later(OLD_FLOW_SECONDS, self._end, task.task_arn)

    # -- A container ---------------------------------------------------------------

    def _on_event(self, event: Any) -> None:
        task = getattr(event, "task", None)
        if isinstance(task, TaskView) and task.last_status == "RUNNING":
            self._seen[task.task_arn] += 1
            if self._seen[task.task_arn] == 1:
                later(FLOW_SECONDS, self._begin, task)

    def _begin(self, task: TaskView) -> None:
        """The flow begins, or goes on with the retry of its task."""
        run_id = str(task.started_by)
        if not self._is_alive(task):
            return
        state = self._state(run_id)
        if state == "Submitted":
            set_state(self._world, run_id, "Running")
        elif state == "Running" and run_id in self.resumed:
            self._set_task_run(run_id, "Running")
        elif state not in ("Running", "Cancelling"):
            self._end(task.task_arn)  # as Prefect's flow runner does
            return
        later(FLOW_SECONDS, self._go_on, task)

    def _go_on(self, task: TaskView) -> None:
        run_id = str(task.started_by)
        if not self._is_alive(task) or self._state(run_id) != "Running":
            return
        if self.plans[run_id] == "retry" and run_id not in self.resumed:
            self.resumed[run_id] = time.time()
            self._set_task_run(run_id, "Retrying", start_time=now(), run_count=1)
        else:
            set_state(self._world, run_id, "Success")
        later(FLOW_SECONDS / 2, self._end, task.task_arn)

    def _end(self, task_arn: str) -> None:
        if self._world.aws.task(task_arn).last_status != "STOPPED":
            self._world.aws.finish(task_arn)

    def _is_alive(self, task: TaskView) -> bool:
        """Whether a task goes on, and is the latest of its run."""
        latest = self._world.tasks_of(str(task.started_by))[-1]
        return (latest.task_arn, latest.desired_status) == (task.task_arn, "RUNNING")

    def _state(self, run_id: str) -> str:
        return str(self._store.flow_run(run_id).state)

    def _set_task_run(self, run_id: str, kind: str, **more: Any) -> None:
        (task_run,) = self._store.task_runs(run_id)
        change = {"task_run_id": task_run.id, "state": {"type": kind, **more}}
        self._store.set_task_run_states([change])

    # -- How it ended --------------------------------------------------------------

    def is_over(self, run_id: str) -> bool:
        """Whether a run has ended as it should, and all its tasks have stopped."""
        state = self._state(run_id)
        is_cancelled = self.plans[run_id] == "cancel" and run_id in self.cancelled_at
        good = ("Cancelled", "Success") if is_cancelled else ("Success",)
        return state in good

    def doubled(self, run_id: str, tasks: List[TaskView]) -> bool:
        """Whether two tasks of a run were alive at once, or there were too many.

        Two tasks of a restarted run may be for a while: RunTask may have been under way
        when it was restarted, and a task is alive until it is stopped.
        """
        tasks = [task for task in tasks if task.stop_code != "TaskFailedToStart"]
        restarted = run_id in self.restarted_at
        starts = 1 + restarted + (run_id in self.resumed)
        if len(tasks) > starts:
            return True
        for first, second in itertools.combinations(tasks, 2):
            began = max(first.created_at, second.created_at)
            ended = min(each.stopped_at or time.time() for each in (first, second))
            if ended - began > (STOP_SECONDS if restarted else 0.0):
                return True
        return False

    def wrongly_stopped(self, run_id: str, tasks: List[TaskView]) -> bool:
        """Whether a task was stopped that had not been cancelled or replaced.

        Of a restarted run one task that was started since must not be stopped before
        the run has ended.
        """
        restarted = self.restarted_at.get(run_id)
        if restarted is None and run_id in self.cancelled_at:
            return False
        ended = self._store.flow_run(run_id).state_timestamp.timestamp()
        new = [task for task in tasks if task.created_at > (restarted or 0.0)]
        stopped = [
            task.stop_code == "UserInitiated" and (task.stopped_at or 0.0) < ended
            for task in new
        ]
        return any(stopped) if restarted is None else bool(stopped) and all(stopped)


class Agents:
    """Two agents of one name and labels, of which one is killed now and then, and
    started again with other options."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._random = random.Random(seed)
        self.agents = [self._start(), self._start()]
        self.deaths: Counter = Counter()  # type: ignore[type-arg]  # Python 3.8
        self.memory: List[float] = []

    def _start(self) -> Any:
        options = [
            str(self._world.home / each) if each.endswith(".yaml") else each
            for each in self._random.choice(OPTIONS)
        ]
        code = TLS_FAULTS + QUICK
        return self._world.agent_of(code, "--cancel-grace", "2", *options)

    def disturb(self) -> None:
        number = self._random.randrange(2)
        how = self._random.choice([signal.SIGKILL, signal.SIGTERM])
        agent = self.agents[number]
        agent._process.send_signal(how)
        agent._process.wait(timeout=60)
        self.deaths[how.name] += 1
        self.agents[number] = self._start()

    def revive(self) -> None:
        for number, agent in enumerate(self.agents):
            if agent.exit_code is not None:
                self.deaths["by itself"] += 1
                self.agents[number] = self._start()

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
    """Let it rain for so many seconds, and report.

    As a server of one process does, the API refuses a run that was claimed to be
    claimed again, but for 5 s only, not for 30 s: as all pauses are short here.

    Returns:
        The exit code: 0 if no run was lost or doubled and no task wrongly stopped.
    """
    home = Path(tempfile.mkdtemp())
    options: Dict[str, Any] = {"runs_tasks": False}
    transitions.LOCK = datetime.timedelta(seconds=5)
    world = World(home, forks=False, **options)
    with world.running():
        for cluster in ("first", "second"):
            create_cluster(world, cluster, world.aws.region)
        tags = {"tags": [{"key": "team", "value": "data"}]}
        (home / "tags.yaml").write_text(json.dumps(tags), encoding="utf-8")
        flow_id = world.register(Flow("soak", tasks=[Task("fetch")]))
        flows = Flows(world, flow_id, seed + 3)
        agents = Agents(world, seed)
        chances = [Chance(seed + 1, AWS_FAULTS), Chance(seed + 2, API_FAULTS)]
        world.aws.fault, world.api.fault = chances  # type: ignore[assignment]
        _let_it_rain(world, agents, flows, seconds)
        world.aws.fault = world.api.fault = None
        _settle(world, agents, flows)
        agents.stop()
        return _report(world, agents, flows, sum(chance.spoilt for chance in chances))


def _let_it_rain(world: World, agents: Agents, flows: Flows, seconds: float) -> None:
    began = disturbed = time.monotonic()
    told: Set[str] = set()
    while time.monotonic() - began < seconds:
        flows.create()
        if time.monotonic() - disturbed > 20:
            disturbed = time.monotonic()
            agents.disturb()
            counts = dict(world.api.store.counts())
            print(f"{disturbed - began:5.0f} s {counts}", flush=True)
            for run in world.api.store.flow_runs(state="Failed"):
                if run.id not in told:
                    told.add(run.id)
                    _tell(world, run.id)
        agents.revive()
        agents.measure()
        time.sleep(1 / RATE)


def _settle(world: World, agents: Agents, flows: Flows) -> None:
    """Wait until all runs have ended and all tasks have stopped."""

    def is_settled() -> bool:
        agents.revive()
        return all(map(flows.is_over, flows.plans)) and all(
            task.last_status == "STOPPED" for task in world.aws.tasks()
        )

    with contextlib.suppress(AssertionError):  # the report says what is not
        eventually(is_settled, 120)


def _report(world: World, agents: Agents, flows: Flows, spoilt: int) -> int:
    runs = list(flows.plans)
    tasks: DefaultDict[Optional[str], List[TaskView]] = defaultdict(list)
    for task in world.aws.tasks():
        tasks[task.started_by].append(task)
    lost = [
        run_id
        for run_id in runs
        if not flows.is_over(run_id)
        or any(task.last_status != "STOPPED" for task in tasks[run_id])
    ]
    doubled = [run_id for run_id in runs if flows.doubled(run_id, tasks[run_id])]
    stopped = [r for r in runs if flows.wrongly_stopped(r, tasks[r])]
    half = len(agents.memory) // 2
    print(f"runs {len(runs)}, states {dict(Counter(world.states(runs)))}")
    print(
        f"came back for a task retry {len(flows.resumed)}, cancelled "
        f"{len(flows.cancelled_at)}, of which restarted {len(flows.restarted_at)}"
    )
    print(f"lost {len(lost)}, doubled {len(doubled)}, wrongly stopped {len(stopped)}")
    print(f"calls spoilt {spoilt}, agents ended {dict(agents.deaths)}")
    print(
        f"memory of an agent: at most {max(agents.memory[:half]):.0f} MiB in the first "
        f"half, {max(agents.memory[half:]):.0f} MiB in the second"
    )
    for kind, found in (("lost", lost), ("doubled", doubled), ("stopped", stopped)):
        for run_id in found[:5]:
            print(f"-- {kind}: {run_id}, planned: {flows.plans[run_id]}")
            _tell(world, run_id)
    return 1 if lost or doubled or stopped else 0


def _tell(world: World, run_id: str) -> None:
    """The course of a run that did not end as it should."""
    for state in world.api.store.states(run_id):
        print(run_id, state.timestamp.time(), state.state, state.message)
    for line in world.api.store.logs(run_id):
        print(run_id, line.timestamp.time(), line.message[:400].replace("\n", " "))
    for task in world.tasks_of(run_id):
        print(
            *(run_id, task.task_arn[-6:], task.cluster, task.last_status),
            *(task.created_at, task.stopped_at, task.stop_code, task.stopped_reason),
        )


if __name__ == "__main__":
    given = [float(argument) for argument in sys.argv[1:]]
    length, seed, *_ = [*given, *(1200.0, 1.0)[len(given) :]]
    sys.exit(soak(length, int(seed)))
