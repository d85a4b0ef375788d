"""What was read about all runs -> what is shown about them. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import (
    Any,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

from ...launch.counting import taken_demand
from ...launch_record import NEEDS_TASK
from ...limits import limit_in, totals
from ...monitoring.deadlines import seconds
from ...monitoring.decision import Task
from ...monitoring.poll_queue import Location
from ..explain.causes import name_of
from ..explain.seen import Line, moment
from ..runs import as_id

#: Seconds for which a run that is due, or was taken, is not said to wait: an agent
#: looks every few seconds.
_USUAL = 10.0

#: What agents write before the reason for which a run waits.
WAITING = "Waiting for "

#: The statuses of tasks, in their order.
STATUSES = (
    *("PROVISIONING", "PENDING", "ACTIVATING", "RUNNING"),
    *("DEACTIVATING", "STOPPING", "DEPROVISIONING"),
)

#: What a run waits for while its task has a status.
_PHASES = {
    "PROVISIONING": "provisioning",
    "PENDING": "image pull",
    "ACTIVATING": "container start",
}


@dataclass(frozen=True)
class Seen:
    """What was read.

    Attributes:
        now: When, in seconds since 1970.
        runs: The runs that are due, or under way; see `reading`.
        agents: The ECS agents, those that looked last first.
        said: By run, the last line with which an agent said what it waits for.
        tasks: The live tasks of these clusters, as described.
        unseen: What could not be read, and why, as sentences.
    """

    now: float
    runs: Sequence[Mapping[str, Any]]
    agents: Sequence[Mapping[str, Any]]
    said: Mapping[str, Line]
    tasks: Mapping[Location, Sequence[Task]]
    unseen: Sequence[str]


class Group(NamedTuple):
    """Runs of one flow, or with one label.

    Attributes:
        name: The flow's name, or the label.
        states: How many runs are in which state.
        oldest: For how many seconds the first one has been due or under way.
    """

    name: str
    states: Mapping[str, int]
    oldest: float


class Waiting(NamedTuple):
    """A run that waits.

    Attributes:
        run_id: Its id.
        name: Its name.
        flow: The name of its flow.
        reason: What it waits for.
        seconds: Since how long.
    """

    run_id: str
    name: str
    flow: str
    reason: str
    seconds: float


class Tasks(NamedTuple):
    """The live tasks of runs in one cluster.

    Attributes:
        cluster: Its name or ARN.
        region: Its region; empty for that of this machine's settings.
        statuses: How many tasks have which lastStatus.
    """

    cluster: str
    region: str
    statuses: Mapping[str, int]


class LimitUse(NamedTuple):
    """A limit for which runs wait, as their logs say.

    Attributes:
        what: What it counts, such as `flow=etl`.
        most: How much may be taken at once.
        used: How much is taken: runs, or vCPUs as far as launch records say.
        waiting: How many runs wait for it.
    """

    what: str
    most: float
    used: float
    waiting: int


class Agent(NamedTuple):
    """An agent.

    Attributes:
        name: Its name.
        labels: Its labels.
        seconds: Since its last look at the queue; None if it has never looked.
        runs: How many runs it has taken.
    """

    name: str
    labels: Tuple[str, ...]
    seconds: Optional[float]
    runs: int


@dataclass(frozen=True)
class Overview:
    """What is shown.

    Attributes:
        now: When it was read, in seconds since 1970.
        states: How many runs are in which state.
        flows: By flow, those with most runs first.
        labels: By label, likewise.
        waiting: The runs that wait, those that have waited longest first.
        tasks: By cluster.
        limits: For which runs wait.
        agents: Those that looked last first.
        unseen: What is not known, and why.
    """

    now: float
    states: Mapping[str, int]
    flows: Tuple[Group, ...]
    labels: Tuple[Group, ...]
    waiting: Tuple[Waiting, ...]
    tasks: Tuple[Tasks, ...]
    limits: Tuple[LimitUse, ...]
    agents: Tuple[Agent, ...]
    unseen: Tuple[str, ...]


def overview(seen: Seen) -> Overview:
    """Assemble what is shown."""
    by_flow: Dict[str, List[Mapping[str, Any]]] = defaultdict(list)
    by_label: Dict[str, List[Mapping[str, Any]]] = defaultdict(list)
    for row in seen.runs:
        by_flow[_flow_of(row)].append(row)
        for label in row.get("labels") or ():
            by_label[str(label)].append(row)
    waiting = sorted(_waiting(seen), key=lambda each: -each.seconds)
    return Overview(
        now=seen.now,
        states=_states(seen.runs),
        flows=_groups(by_flow, seen.now),
        labels=_groups(by_label, seen.now),
        waiting=tuple(waiting),
        tasks=tuple(_tasks(seen)),
        limits=tuple(_limits(seen, waiting)),
        agents=tuple(_agents(seen)),
        unseen=tuple(seen.unseen),
    )


def _flow_of(row: Mapping[str, Any]) -> str:
    return str((row.get("flow") or {}).get("name"))


def _states(rows: Iterable[Mapping[str, Any]]) -> Dict[str, int]:
    return dict(Counter(str(row["state"]) for row in rows))


def _groups(
    rows: Mapping[str, Sequence[Mapping[str, Any]]], now: float
) -> Tuple[Group, ...]:
    groups = [
        Group(
            name, _states(some), round(max(now - _since(row, now) for row in some), 1)
        )
        for name, some in rows.items()
    ]
    return tuple(
        sorted(groups, key=lambda each: (-sum(each.states.values()), each.name))
    )


def _since(row: Mapping[str, Any], now: float) -> float:
    """When a run was due."""
    return min(moment(row.get("scheduled_start_time")) or now, now)


# -- What waits ----------------------------------------------------------------------


def _waiting(seen: Seen) -> Iterator[Waiting]:
    latest: Dict[str, Task] = {}
    for tasks in seen.tasks.values():
        for task in sorted(tasks, key=lambda each: seconds(each.get("createdAt")) or 0):
            latest[str(task.get("startedBy"))] = task
    for row in seen.runs:
        found = _wait_of(row, latest.get(str(row["id"])), seen)
        if found and found[0]:
            reason, since = found
            length = round(max(0.0, seen.now - since), 1)
            yield Waiting(
                str(row["id"]), str(row["name"]), _flow_of(row), reason, length
            )


def _wait_of(
    row: Mapping[str, Any], task: Optional[Task], seen: Seen
) -> Optional[Tuple[str, float]]:
    """What a run waits for, and since when; None if it does not wait."""
    since = moment(row.get("state_timestamp")) or seen.now
    line = seen.said.get(str(row["id"]))
    told = line.message[len(WAITING) :].partition("\n")[0] if line else ""
    if row["state"] == "Scheduled":
        since = moment(row.get("state_start_time")) or since
        is_late = seen.now - since > _USUAL
        return (told or "an agent", since) if told or is_late else None
    if row["state"] == "Running":
        return _retry_of(row, seen.now)
    if row["state"] != "Submitted":
        return None
    if line and limit_in(line.message):  # it waited for that before it was taken
        told = ""
    if task is None:
        is_late = seen.now - since > _USUAL
        return (told or "its task", since) if told or is_late else None
    begun = seconds(task.get("pullStartedAt")) or seconds(task.get("createdAt"))
    status = str(task.get("lastStatus"))
    if status in _PHASES:
        return _PHASES[status], begun or since
    started = seconds(task.get("startedAt")) or since
    return ("its flow's start", started) if seen.now - started > _USUAL else None


def _retry_of(row: Mapping[str, Any], now: float) -> Optional[Tuple[str, float]]:
    """The retry that a run waits for, if none of its task runs is at work."""
    for task_run in row.get("waiting") or ():
        due = moment(task_run.get("state_start_time"))
        if not row.get("at_work") and due is not None and due > now:
            since = moment(task_run.get("state_timestamp")) or now
            return f"the retry of {name_of(task_run)}", since
    return None


# -- Tasks, limits, agents -----------------------------------------------------------


def _tasks(seen: Seen) -> Iterator[Tasks]:
    for location, tasks in seen.tasks.items():
        of_runs = (task for task in tasks if as_id(task.get("startedBy")))
        found = Counter(str(task.get("lastStatus")) for task in of_runs)
        known = {status: found[status] for status in STATUSES if found[status]}
        yield Tasks(location.cluster, location.region, known)


def _limits(seen: Seen, waiting: Iterable[Waiting]) -> Iterator[LimitUse]:
    found = Counter(limit_in(f"{WAITING}{each.reason}") for each in waiting)
    counts = {limit: count for limit, count in found.items() if limit}
    taken = [taken_demand(row) for row in seen.runs if row["state"] in NEEDS_TASK]
    for (limit, count), used in zip(counts.items(), totals([*counts], taken)):
        yield LimitUse(limit.what, limit.most, used, count)


def _agents(seen: Seen) -> Iterator[Agent]:
    taken = Counter(
        row.get("agent_id") for row in seen.runs if row["state"] in NEEDS_TASK
    )
    for row in seen.agents:
        looked = moment(row.get("last_queried"))
        yield Agent(
            str(row.get("name")),
            tuple(str(label) for label in row.get("labels") or ()),
            None if looked is None else round(max(0.0, seen.now - looked), 1),
            taken[row["id"]],
        )
