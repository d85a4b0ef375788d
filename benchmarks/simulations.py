"""What happens when much is at stake at once: the whole agent on a clock that jumps.

python -m benchmarks.simulations                   everything, a few minutes
python -m benchmarks.simulations recovery outages  these only

recovery      10,000 runs that an earlier process claimed, at an agent's start
outages       an hour without the API, then one without AWS, 200 runs each
definitions   1,000 runs with a new definition each, and two agents
hanging       1,000 tasks of which 1 % never start
watching      10,000 tasks in flight: bytes, calls, and looks for cancelled runs
limits        500 runs with a limit of 10, one and two agents, one of them killed; and
              1,000 runs of 20 flows with three limits
"""

from __future__ import annotations

import argparse
import gc
import resource
import time
import tracemalloc
import uuid
from collections import Counter
from dataclasses import dataclass
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Set,
    Tuple,
)

from prefect.utilities.configuration import set_temporary_config

from prefect_ecs_plugin.launch.launcher import Started
from prefect_ecs_plugin.launch_record import Launch, LaunchRecord
from prefect_ecs_plugin.prefect_api.client import AgentClient
from prefect_ecs_plugin.sandbox.prefect_api import PrefectAPI
from prefect_ecs_plugin.sandbox.prefect_api.store import StateChanged

from .report import table
from .simulated import Agent, World

#: Seconds of a call that lists or describes tasks, and of a request to the API.
_AWS_LATENCY, _API_LATENCY = 0.1, 0.05

#: What is measured, what it must be, what it is.
Row = Tuple[str, str, str]

HOUR = 3600.0


# -- Runs that an earlier process claimed --------------------------------------------


@dataclass(frozen=True)
class Recovered:
    """How an agent's start went.

    Attributes:
        runs: How many runs an earlier process of its name had claimed.
        lost: How many of them have no task in the end.
        doubled: How many have more than one.
        calls: How many calls of ECS recovery made, without those that launch.
        watched: Seconds from its start until every task that was there is watched.
        launched: Seconds from its start until the last run is launched.
        rows: How many rows the largest answer of the API had.
        pages: How many queries had 100 rows or more.
        memory: Bytes by which the process grew, the simulated servers included.
    """

    runs: int
    lost: int
    doubled: int
    calls: int
    watched: float
    launched: float
    rows: int
    pages: int
    memory: int


def recover(
    runs: int, aws_latency: float = _AWS_LATENCY, api_latency: float = _API_LATENCY
) -> Recovered:
    """Start an agent whose predecessor has left runs behind.

    Nine of ten are Running, with a task; of the others, which are Submitted, one half
    has a task that starts, the other none. There are half as many runs of other agents.

    Args:
        runs: How many.
        aws_latency: Seconds of a call that lists or describes tasks.
        api_latency: Seconds of a request to the API.
    """
    world = World(aws_latency=aws_latency, api_latency=api_latency, task_seconds=1e6)
    with world.running():
        flow_id = world.flow("claimed")
        mine, other = (
            world.api.store.register_agent(type="Agent", name=name)
            for name in ("agent", "other")
        )
        bare = runs // 20
        waiting = [_claimed(world, flow_id, mine) for _ in range(2 * bare)]
        running = [
            _claimed(world, flow_id, mine, "Running") for _ in range(runs - 2 * bare)
        ]
        for _ in range(runs // 2):
            _claimed(world, flow_id, other, "Running")
        for run_id in running:
            world.ecs.add_task(run_id, "RUNNING")
        for run_id in waiting[bare:]:
            world.ecs.add_task(run_id, "PENDING")
        world.simulation.run_until(1.0)
        before, began = _peak_memory(), world.simulation.now
        agent = world.agent()
        calls = _recovery_calls(world, agent)
        until(world, lambda: len(agent._watcher) >= runs - bare)
        watched = world.simulation.now - began
        # What follows is done by many workers at a time, so it takes no time here.
        world.api.latency = 0.0
        until(world, lambda: len(world.ecs.tasks) >= runs)
        launched = world.simulation.now - began
        world.simulation.run_until(launched + 60.0)
        lost, doubled = world.outcome(running + waiting)
        answers = [query.rows for query in world.api.queries]
        return Recovered(
            runs=runs,
            lost=lost,
            doubled=doubled,
            calls=calls["recovery"],
            watched=watched,
            launched=launched,
            rows=max(answers),
            pages=sum(1 for rows in answers if rows >= 100),
            memory=_peak_memory() - before,
        )


def _claimed(world: World, flow_id: str, agent_id: str, state: str = "") -> str:
    """A run that an earlier process claimed, Submitted or in a later state."""
    store, run_id = world.api.store, world.run(flow_id)
    record = LaunchRecord(
        name=f"{run_id}-1", region="us-east-1", holder="earlier", agent_id=agent_id
    )
    claimed = {"type": "Submitted", "context": dict(record.to_context())}
    store.set_flow_run_state(run_id, claimed, agent_id=agent_id)
    if state:
        store.set_flow_run_state(run_id, {"type": state})
    return run_id


def _recovery_calls(world: World, agent: Agent) -> Counter[str]:
    """Counts calls that list or describe tasks, those of the watch apart."""
    counted = Counter(recovery=world.ecs.calls["ListTasks"])
    counted["recovery"] += world.ecs.calls["DescribeTasks"]
    tasks = agent._recovery._tasks._ecs
    call = tasks.call

    def counting(operation: str, request: Mapping[str, Any], **more: Any) -> Any:
        if operation in ("ListTasks", "DescribeTasks"):
            counted["recovery"] += 1
        return call(operation, request, **more)

    class Counting(type(tasks)):  # type: ignore[misc]  # of whatever class it is
        pass

    counting_ecs = Counting.__new__(Counting)
    counting_ecs.__dict__.update(tasks.__dict__, call=counting)
    agent._recovery._tasks._ecs = counting_ecs
    return counted


# -- Outages -------------------------------------------------------------------------


@dataclass(frozen=True)
class Outage:
    """How an outage went.

    Attributes:
        service: What was away: `API` or `AWS`.
        runs: How many runs there were.
        lost: How many have no task in the end.
        doubled: How many have more than one.
        failed: How many ended Failed.
        grown: Bytes by which the agent's own objects grew in its second half.
        begun: The lines at ERROR or WARNING since its beginning.
        ended: The lines that say that something is over.
        others: How many other lines there were while it lasted.
    """

    service: str
    runs: int
    lost: int
    doubled: int
    failed: int
    grown: int
    begun: Sequence[str]
    ended: Sequence[str]
    others: int


def outage(
    service: str, runs: int, seconds: float = HOUR, traces: bool = True, **options: Any
) -> Outage:
    """Take a service away from an agent that is in the middle of its work.

    Three quarters of the runs are due before, and about half of these have a task when
    it begins; the others become due while it lasts.

    Args:
        service: `API` or `AWS`.
        runs: How many runs.
        seconds: How long the outage lasts.
        traces: Whether to measure memory, which takes three times as long.
        options: Those of the agent.
    """
    world = World(task_seconds=600.0)
    with world.running():
        simulation, flow_id = world.simulation, world.flow("interrupted")
        run_ids = [world.run(flow_id) for _ in range(3 * runs // 4)]
        agent = world.agent(**options)
        simulation.run_until(runs / 65)
        run_ids += [world.run(flow_id, 5.0) for _ in range(runs - len(run_ids))]
        simulation.run_until(simulation.now + 1.0)
        began, server = simulation.now, world.api if service == "API" else world.ecs
        server.is_down = True
        sizes = [_size_at(world, began + seconds * part, traces) for part in (0.5, 1)]
        others = [
            line
            for at, level, line in agent.lines.lines
            if at >= began and level == "INFO" and "was submitted" not in line
        ]
        server.is_down = False
        simulation.run_until(simulation.now + 1800.0)
        lost, doubled = world.outcome(run_ids)
        levels = ("ERROR", "WARNING")
        return Outage(
            service=service,
            runs=runs,
            lost=lost,
            doubled=doubled,
            failed=world.states()["Failed"],
            grown=sizes[1] - sizes[0],
            begun=[line for each in levels for line in agent.lines.since(began, each)],
            ended=[
                line
                for line in agent.lines.since(began, "INFO")
                if "over after" in line
            ],
            others=len(others),
        )


def _size_at(world: World, moment: float, traces: bool) -> int:
    """Bytes that the agent's own modules hold at a moment, of those they took since."""
    if traces and not tracemalloc.is_tracing():
        tracemalloc.start()
    world.simulation.run_until(moment)
    gc.collect()
    if not traces:
        return 0
    # The sandbox's GraphQL keeps documents, in this process here.
    filters = (
        tracemalloc.Filter(True, "*/prefect_ecs_plugin/*"),
        tracemalloc.Filter(False, "*/sandbox/*"),
    )
    snapshot = tracemalloc.take_snapshot().filter_traces(filters)
    return sum(trace.size for trace in snapshot.traces)


# -- Definitions ---------------------------------------------------------------------


@dataclass(frozen=True)
class Registered:
    """How runs went of which each needs a new definition.

    Attributes:
        runs: How many.
        lost: How many have no task in the end.
        doubled: How many have more than one.
        failed: How many ended Failed.
        launched: How many each of two agents launched.
        most: How many each had claimed and not launched at most.
        last: Seconds until the last was launched.
        floor: Seconds that AWS's limit for registering makes it take.
    """

    runs: int
    lost: int
    doubled: int
    failed: int
    launched: Sequence[int]
    most: Sequence[int]
    last: float
    floor: float


def register(runs: int, second_after: float = 30.0) -> Registered:
    """Have two agents launch runs that are all due, each of a flow of its own.

    Args:
        runs: How many.
        second_after: Seconds after which the second agent starts.
    """
    world = World(task_seconds=5.0)
    with world.running():
        run_ids = [
            world.run(world.flow(f"flow-{number}", f"example/flow:{number}"))
            for number in range(runs)
        ]
        agents = [world.agent("first")]
        most = [0, 0]

        def is_done() -> bool:
            if len(agents) == 1 and world.simulation.now >= second_after:
                agents.append(world.agent("second"))
            for number, agent in enumerate(agents):
                claimed = len(agent._launcher.pending_run_ids)
                most[number] = max(most[number], claimed)
            return len(world.ecs.tasks) >= runs

        until(world, is_done)
        last = world.simulation.now
        world.simulation.run_until(last + 60.0)
        lost, doubled = world.outcome(run_ids)
        return Registered(
            runs=runs,
            lost=lost,
            doubled=doubled,
            failed=world.states()["Failed"],
            launched=[
                sum("was submitted" in line for line in agent.lines.since(0, "INFO"))
                for agent in agents
            ],
            most=most,
            last=last,
            floor=max(0.0, runs - 20.0),
        )


# -- Limits --------------------------------------------------------------------------


@dataclass(frozen=True)
class Limited:
    """How runs went of which only some may go at once.

    Attributes:
        runs: How many there were.
        lost: How many have not ended in Success.
        doubled: How many have had more than one task.
        most: The most tasks at a time.
        longest: Seconds for which a slot was free at most while a run waited.
        exceeded: Limits that were exceeded at some time.
        seconds: From the first run's start to the last one's end.
        least: The seconds that the limits allow.
        told: The most lines about limits in the log of a run.
    """

    runs: int
    lost: int
    doubled: int
    most: int
    longest: float
    exceeded: Sequence[str]
    seconds: float
    least: float
    told: int


def limit(
    runs: int,
    most: int = 10,
    agents: int = 1,
    kills: Sequence[float] = (),
    task_seconds: float = 2.0,
    locks_submitted: bool = True,
    api_latency: float = 0.0,
) -> Limited:
    """Have many runs start at one moment, of which only some may go at once.

    Args:
        runs: How many runs.
        most: The limit.
        agents: How many agents.
        kills: When an agent is killed, and starts again 5 s later.
        task_seconds: For how long a flow runs.
        locks_submitted: Whether the API refuses a second claim.
        api_latency: Seconds of a request to the API.
    """
    world = World(
        task_seconds=task_seconds,
        starts_after=1.0,
        locks_submitted=locks_submitted,
        api_latency=api_latency,
    )
    with world.running():
        flow_id, options = world.flow("limited"), {"limits": [str(most)]}
        run_ids = [world.run(flow_id) for _ in range(runs)]
        slots = _Slots(world, runs, most)
        alive = [world.agent(f"agent-{number}", **options) for number in range(agents)]
        for when in kills:
            world.simulation.run_until(when)
            killed = alive.pop(0)
            killed.kill()
            world.simulation.run_until(when + 5.0)
            alive.append(world.agent(killed.name, **options))
        until(world, lambda: world.states()["Success"] >= runs, 4 * HOUR)
        return Limited(
            runs=runs,
            lost=runs - world.states()["Success"],
            doubled=world.outcome(run_ids)[1],
            most=max(count for _, count in world.ecs.alive),
            longest=slots.longest,
            exceeded=(),
            seconds=world.ecs.alive[-1][0] - world.ecs.alive[0][0],
            least=runs / most * (task_seconds + 1.0),
            told=_most_told(world, run_ids),
        )


def limit_flows(runs: int, flows: int, task_seconds: float = 30.0) -> Limited:
    """Have runs of many flows start at one moment, with three limits.

    Half of them are of one flow, which may have 10 runs; one in five has a label that
    5 may have; all may have 50.

    Args:
        runs: How many runs.
        flows: Of how many flows.
        task_seconds: For how long a flow runs.
    """
    limits = {"50": 50, "flow=flow-0:10": 10, "label=db:5": 5}
    world = World(task_seconds=task_seconds, starts_after=1.0)
    with world.running():
        flow_ids = [world.flow(f"flow-{number}") for number in range(flows)]
        kinds: Dict[str, Tuple[str, ...]] = {}
        for number in range(runs):
            is_first, has_label = number % 10 == 0, number % 20 == 1
            index = 0 if is_first else 1 + number % (flows - 1)
            labels = ["db"] if has_label else ["any"]
            run_id = world.run(flow_ids[index], labels=labels)
            kinds[run_id] = (
                "50",
                *(["flow=flow-0:10"] if is_first else []),
                *(["label=db:5"] if has_label else []),
            )
        world.agent("agent", labels=["db", "any"], limits=list(limits))
        exceeded = set()

        def is_done() -> bool:
            counted = Counter(
                kind
                for task in world.ecs.tasks.values()
                if task.status != "STOPPED"
                for kind in kinds[task.run_id]
            )
            exceeded.update(kind for kind, n in counted.items() if n > limits[kind])
            return world.states()["Success"] >= runs

        until(world, is_done, 4 * HOUR)
        each = task_seconds + 1.0
        counts = Counter(kind for of_run in kinds.values() for kind in of_run)
        return Limited(
            runs=runs,
            lost=runs - world.states()["Success"],
            doubled=world.outcome(list(kinds))[1],
            most=max(count for _, count in world.ecs.alive),
            longest=0.0,
            exceeded=sorted(exceeded),
            seconds=world.ecs.alive[-1][0] - world.ecs.alive[0][0],
            least=max(-(-counts[kind] // n) * each for kind, n in limits.items()),
            told=_most_told(world, list(kinds)),
        )


class _Slots:
    """For how long a slot was free while a run waited.

    Args:
        world: Where the runs are.
        runs: How many there are.
        most: How many may be taken.

    Attributes:
        longest: In seconds.
    """

    def __init__(self, world: World, runs: int, most: int) -> None:
        self._now = lambda: world.simulation.now
        self._waiting, self._most = runs, most
        self._taken: Set[str] = set()
        self._since: Optional[float] = None
        self._has_begun = False
        self.longest = 0.0
        world.api.store.subscribe(self._see)

    def _see(self, event: Any) -> None:
        if not isinstance(event, StateChanged):
            return
        is_taken = event.state in ("Submitted", "Running")
        if is_taken != (event.flow_run_id in self._taken):
            self._taken.symmetric_difference_update([event.flow_run_id])
            self._waiting += (event.state == "Scheduled") - (event.state == "Submitted")
        if self._since is not None:
            self.longest = max(self.longest, self._now() - self._since)
        self._has_begun |= len(self._taken) == self._most  # idle, it looks every 2 s
        is_full = len(self._taken) >= self._most
        if not self._has_begun or is_full or not self._waiting:
            self._since = None
        elif self._since is None:
            self._since = self._now()


def _most_told(world: World, run_ids: Sequence[str]) -> int:
    logs = (world.api.store.logs(run_id) for run_id in run_ids)
    return max(
        sum(line.message.startswith("Waiting for other runs") for line in log)
        for log in logs
    )


def until(world: World, is_so: Callable[[], bool], seconds: float = HOUR) -> None:
    """Let time go by until something is so.

    Raises:
        AssertionError: if it is not within some simulated seconds.
    """
    deadline = world.simulation.now + seconds
    while not is_so():
        assert world.simulation.now < deadline, "that did not happen in time"
        world.simulation.run_until(world.simulation.now + 0.5)


# -- Many tasks in flight ------------------------------------------------------------


@dataclass(frozen=True)
class Watching:
    """What it takes to watch tasks that run.

    Attributes:
        tasks: How many.
        bytes_each: Bytes for each, strings included.
        calls: Calls of ECS in a second while they start, and once they run.
        cpu: Seconds of CPU of one look for cancelled runs.
        sent: Bytes that one look sends to the API.
    """

    tasks: int
    bytes_each: float
    calls: Tuple[float, float]
    cpu: float
    sent: int


def watch(tasks: int) -> Watching:
    """Have an agent watch tasks that were launched a moment ago.

    Args:
        tasks: How many.
    """
    world = World(task_seconds=1e6)
    with world.running(), PrefectAPI() as api:
        agent = world.agent()
        run_ids = [str(uuid.uuid4()) for _ in range(tasks)]
        arns = [world.ecs.add_task(run_id, "PENDING") for run_id in run_ids]
        tracemalloc.start()
        for run_id, arn in zip(run_ids, arns):
            own_id, own_arn = f" {run_id}"[1:], f" {arn}"[1:]  # copies, to be counted
            launch = Launch(1, False, f"{own_id}-1")
            agent._supervisor.watch(Started(own_arn, "default", own_id, launch))
        agent._supervisor._client.cancelled_of = lambda _: {}  # type: ignore[method-assign]
        world.simulation.run_until(world.simulation.now + 60.0)
        gc.collect()
        used = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        calls = [_calls_per_second(world)]
        for task in world.ecs.tasks.values():
            task.status = "RUNNING"
        world.simulation.run_until(world.simulation.now + 60.0)
        calls.append(_calls_per_second(world))
        cpu, sent = _look_for_cancelled(agent, api)
    return Watching(tasks, used / tasks, (calls[0], calls[1]), cpu, sent)


def _calls_per_second(world: World, seconds: float = 120.0) -> float:
    before = world.ecs.calls["DescribeTasks"]
    world.simulation.run_until(world.simulation.now + seconds)
    return (world.ecs.calls["DescribeTasks"] - before) / seconds


def _look_for_cancelled(agent: Agent, api: PrefectAPI) -> Tuple[float, int]:
    """CPU of this thread, over HTTP to another one, and bytes that are sent."""
    settings: Dict[str, Any] = {"cloud.api": api.url, "cloud.graphql": api.url}
    with set_temporary_config(settings):
        client = AgentClient(api_server=api.url)
    sent: List[int] = []
    post = client.post

    def measuring(*args: Any, **kwargs: Any) -> Any:
        sent.append(len(str(kwargs["params"])))
        return post(*args, **kwargs)

    client.post = measuring  # type: ignore[method-assign]
    agent._supervisor._client = client
    agent._supervisor._to_stop()  # opens the connection
    sent.clear()
    before = time.thread_time()
    agent._supervisor._to_stop()
    return time.thread_time() - before, sum(sent)


# -- Tasks that hang -----------------------------------------------------------------


@dataclass(frozen=True)
class Hung:
    """How runs went of which some tasks never start.

    Attributes:
        runs: How many runs.
        hung: How many tasks hung.
        lost: How many runs have no task that started in the end.
        started: Seconds from the creation of a task that hung until its run has one
            that is RUNNING, at most.
        alive: The most tasks that one run has had at a time.
    """

    runs: int
    hung: int
    lost: int
    started: float
    alive: int


def hang(
    runs: int, deadline: float = 1800.0, found: bool = False, each: int = 100
) -> Hung:
    """Have some tasks hang for ever.

    Args:
        runs: How many runs.
        deadline: The agent's `start_deadline`, in seconds.
        found: Whether an earlier process had launched the tasks, half the deadline ago.
        each: Which tasks hang: by default every hundredth.
    """
    world = World(task_seconds=4 * deadline)
    with world.running():
        ecs, flow_id = world.ecs, world.flow("hangs")
        if found:
            mine = world.api.store.register_agent(type="Agent", name="agent")
            run_ids = [_claimed(world, flow_id, mine) for _ in range(runs)]
            for number, run_id in enumerate(run_ids):
                state = "PENDING" if number % each == each // 2 else "RUNNING"
                ecs.add_task(run_id, state)
                if state == "RUNNING":
                    world.api.store.set_flow_run_state(run_id, {"type": "Running"})
            world.simulation.run_until(deadline / 2)
        else:
            ecs.hangs = lambda number: number < runs and number % each == each // 2
            run_ids = [world.run(flow_id) for _ in range(runs)]
        world.agent(start_deadline=deadline)
        world.simulation.run_until(deadline + runs / 15 + 90.0)
        stuck = [task for task in ecs.tasks.values() if task.status == "STOPPED"]
        begun = {
            task.run_id: task for task in ecs.tasks.values() if task.status == "RUNNING"
        }
        waits = [
            (begun[task.run_id].started or 0.0) - task.created
            for task in stuck
            if task.run_id in begun
        ]
        return Hung(
            runs=runs,
            hung=len(stuck),
            lost=len(set(run_ids) - set(begun)),
            started=max(waits, default=0.0),
            alive=ecs.most_alive,
        )


# -- The table -----------------------------------------------------------------------


def _recovery_rows() -> Iterator[Row]:
    for latencies in ((0.0, 0.0), (_AWS_LATENCY, _API_LATENCY)):
        found = recover(10_000, *latencies)
        calls = "take 0.1 s" if any(latencies) else "take no time"
        yield (
            f"{found.runs:,} claimed runs at a start, AWS's limits, calls {calls}",
            "0 lost, 0 doubled; at most 300 calls to find their tasks, and 60 s",
            f"{found.lost} lost, {found.doubled} doubled; {found.calls} calls; tasks "
            f"watched after {found.watched:.0f} s, runs without one launched after "
            f"{found.launched:.0f} s; the process grew by "
            f"{found.memory / 2**20:.0f} MiB",
        )
    yield (
        "the API's answers meanwhile",
        "none above 1,000 rows",
        f"at most {found.rows:,} rows; {found.pages} answers with 100 or more",
    )


def _outage_rows() -> Iterator[Row]:
    for service, options in (
        ("API", {}),
        ("AWS", {"launch_timeout": 2 * HOUR}),
        ("AWS", {}),
    ):
        found = outage(service, 200, **options)
        patience = ", `--launch-timeout` of two hours" if options else ""
        yield (
            f"an hour without {'the API' if service == 'API' else service}, "
            f"{found.runs} runs{patience}",
            "0 lost, 0 doubled, memory flat, one line when it begins and one when it "
            "ends",
            f"{found.lost - found.failed} lost, {found.doubled} doubled, "
            f"{found.failed} Failed; {len(found.begun) - found.failed} and "
            f"{len(found.ended)} lines, {found.others} others; "
            f"{found.grown / 1024:+.0f} KiB in its second half",
        )


def _definition_rows() -> Iterator[Row]:
    found = register(1000)
    yield (
        f"{found.runs:,} runs with a new definition each, a second agent after 30 s",
        "0 lost, 0 doubled, 0 Failed; each takes what it launches in 15 s and a window",
        f"{found.lost} lost, {found.doubled} doubled, {found.failed} Failed; "
        f"{found.launched[0]} and {found.launched[1]} launched, at most "
        f"{max(found.most)} claimed and not launched; the last after "
        f"{found.last:.0f} s (AWS's floor {found.floor:.0f} s)",
    )


def _hanging_rows() -> Iterator[Row]:
    for is_found in (False, True):
        found = hang(1000, found=is_found)
        restart = ", the agent restarted in between" if is_found else ""
        yield (
            f"{found.runs:,} tasks, {found.hung} never start, `--start-deadline 1800`"
            f"{restart}",
            "0 lost, never two live tasks of a run; RUNNING at last within 1,860 s",
            f"{found.lost} lost, at most {found.alive} live; RUNNING after at most "
            f"{found.started:,.0f} s",
        )


def _watching_rows() -> Iterator[Row]:
    found = watch(10_000)
    yield (
        f"{found.tasks:,} tasks in flight",
        "at most 551 bytes each with ids and ARNs; 5 calls a second while they "
        "start, then 3.4",
        f"{found.bytes_each:.0f} bytes each; {found.calls[0]:.1f} calls a second, then "
        f"{found.calls[1]:.1f}",
    )
    yield (
        "a look for cancelled runs among them, every 5 s",
        "at most 2% of a core",
        f"{found.cpu * 1000:.0f} ms of CPU, {found.cpu / 5:.1%} of a core; "
        f"{found.sent / 1024:.0f} KiB sent",
    )


def _limit_rows() -> Iterator[Row]:
    cases: Sequence[Tuple[str, Dict[str, Any]]] = (
        ("one agent", {}),
        ("two agents", {"agents": 2}),
        ("two agents, an API that does not lock", {"agents": 2, "api_latency": 0.02}),
        ("two agents, one killed", {"agents": 2, "kills": (20.0, 41.3, 60.1)}),
    )
    for words, options in cases:
        locks = "lock" not in words
        found = limit(500, locks_submitted=locks, **options)
        yield (
            f"{found.runs} runs at one moment, `--limit 10`, tasks of 2 s, {words}",
            "never an 11th live task; a free slot is taken within 2 s; 0 lost",
            f"at most {found.most}; {found.longest:.2f} s; {found.lost} lost, "
            f"{found.doubled} doubled",
        )
    found = limit_flows(1000, 20)
    yield (
        "three limits at once, 1,000 runs of 20 flows, tasks of 31 s",
        "each kept; within 1.2 x what the limits allow",
        f"{', '.join(found.exceeded) or 'none'} exceeded; {found.lost} lost; "
        f"{found.seconds / found.least:.2f} x",
    )


_FIGURES: Dict[str, Callable[[], Iterator[Row]]] = {
    "recovery": _recovery_rows,
    "outages": _outage_rows,
    "definitions": _definition_rows,
    "hanging": _hanging_rows,
    "watching": _watching_rows,
    "limits": _limit_rows,
}


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.simulations",
        description="Simulates the whole agent on a clock that jumps.",
    )
    parser.add_argument("figures", nargs="*", help=", ".join(_FIGURES))
    names = parser.parse_args().figures or list(_FIGURES)
    rows: List[Row] = []
    for name in names:
        rows += _FIGURES[name]()
        print(".", end="", flush=True)
    print("\n" + table(("case", "must", "measured"), [list(row) for row in rows]))


if __name__ == "__main__":
    main()
