"""The launch record: what a launch is, written once into the state that claims its run.

Recovery, supervision and cancelling read it back. Nothing about a launch is derived
from versions, counted tasks or the cluster that is configured now.

    flow run, first launch      in the context of its Submitted state
    flow run, resumed launch    in the context of its task runs' Submitted states: a run
                                that comes back for a task retry stays Running itself
    returned to the queue       in the context of the Scheduled (or Retrying) state

An API that drops the context leaves a Submitted state without a record; `standing` then
decides by the agent's id, as Prefect's own agent would. A record that is damaged or of
a later format counts as absent. Pure.
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import MISSING, dataclass, fields
from typing import (
    Any,
    Callable,
    FrozenSet,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

import pendulum

#: Where a state's context keeps the record.
KEY = "prefect_ecs_launch"

#: The format that this version writes, and the latest that it reads.
FORMAT = 1

#: Characters of a launch's name; with the attempt it fits a clientToken of 64.
MAX_NAME = 60

#: States in which a run has a task, or should have one.
NEEDS_TASK = frozenset({"Submitted", "Running", "Cancelling"})

#: States that wait for their start time, or for a person: the server's queue shows a
#: run again for a task run in one of them.
RESCHEDULED_STATES = frozenset({"Scheduled", "Retrying", "Resume", "Paused", "Queued"})


@dataclass(frozen=True)
class LaunchRecord:
    """One launch of a flow run.

    Attributes:
        name: What all starts of a task for this launch have in common. It is made of
            the run's id and version when it was claimed first, and is the clientToken
            of its first start.
        attempt: 1 for the first start of a task, 2 for the first relaunch.
        cluster: The cluster's name or ARN, as in the RunTask request.
        region: The AWS region, empty if unknown.
        definition: The run's own `task_definition_arn`, if it names one.
        holder: The process that claimed the run.
        agent_id: The agent's id at the API, which outlives its processes.
        after: The ARN of the last task of an earlier start or launch: that one and
            all before it do not belong to this start.
        time: When the run was claimed, in ISO 8601 by the agent's clock; for people,
            and to find the latest of several records in returned task runs.
        recoveries: How many agents in a row have ended while they read the run, as far
            as is known; see `recovery`.
        interruptions: How often the run was interrupted and has gone on in a new task.
        on_demand: Whether its task runs on FARGATE where the run asks for FARGATE_SPOT.
        memory: The MiB that its task has after one was killed for memory; 0 for what
            the run asks for.
        cpu: The CPU units that go with `memory`; 0 likewise.
        task_cpu: The CPU units that its task asks for, however that is given; 0 if they
            are not known.
        capacity: `FARGATE` or `FARGATE_SPOT`; empty for other capacity, or if unknown.
    """

    name: str
    attempt: int = 1
    cluster: str = "default"
    region: str = ""
    definition: Optional[str] = None
    holder: str = ""
    agent_id: Optional[str] = None
    after: Optional[str] = None
    time: str = ""
    recoveries: int = 0
    interruptions: int = 0
    on_demand: bool = False
    memory: int = 0
    cpu: int = 0
    task_cpu: int = 0
    capacity: str = ""

    def to_context(self) -> Mapping[str, Any]:
        """The context of the state that claims the run."""
        return {KEY: {"format": FORMAT, **vars(self)}}

    def is_same_start(self, name: str, attempt: int) -> bool:
        """Whether this is that start of a task of that launch."""
        return (self.name, self.attempt) == (name, attempt)

    def carried(self) -> Mapping[str, Any]:
        """What later launches of the run keep, until a user starts it anew."""
        return {name: getattr(self, name) for name in _CARRIED}


_CARRIED = ("interruptions", "on_demand", "memory", "cpu")


class Launch(NamedTuple):
    """How a task was launched.

    Attributes:
        attempt: 1 for the first task of a run's launch, 2 for its first relaunch.
        resumed: Whether the run was Running already when it was launched, as one is
            that comes back for the retry of a task.
        name: What all starts of one launch have in common, `LaunchRecord.name`.
    """

    attempt: int = 1
    resumed: bool = False
    name: str = ""


def _types(default: Any) -> Tuple[type, ...]:
    """The types of a field with this default; Optional ones may be missing or null."""
    if default is None:
        return (str, type(None))
    return (str,) if default is MISSING else (type(default),)


_TYPES: Mapping[str, Tuple[type, ...]] = {
    each.name: _types(each.default) for each in fields(LaunchRecord)
}


def read(state: Any) -> Optional[LaunchRecord]:
    """The record in a serialized state; None if there is none that can be used."""
    try:
        raw = state["context"][KEY]
        if raw["format"] != FORMAT:
            return None
        record = LaunchRecord(**{name: raw[name] for name in _TYPES if name in raw})
    except (KeyError, TypeError, IndexError):
        return None
    has_types = all(
        type(getattr(record, name)) in types for name, types in _TYPES.items()
    )
    is_sound = has_types and 0 < len(record.name) <= MAX_NAME and record.attempt >= 1
    return record if is_sound else None


def is_damaged(state: Any) -> bool:
    """Whether a serialized state has a record that cannot be used."""
    context = state.get("context") if isinstance(state, Mapping) else None
    return isinstance(context, Mapping) and KEY in context and read(state) is None


# -- The name of a launch ----------------------------------------------------------


def launch_of(
    row: Mapping[str, Any], latest: Optional[LaunchRecord] = None
) -> LaunchRecord:
    """The launch that a run in the queue needs: its name, attempt and `after`.

    All agents that read the run in the same state get the same result. A run that an
    agent has returned to the queue keeps its launch. A run that comes back for a task
    retry keeps its version, therefore the due task runs are part of the name.

    Args:
        row: The run as the API gave it.
        latest: Its latest launch, if it comes back for a task retry.
    """
    task_runs = row.get("task_runs") or ()
    states = [row.get("serialized_state")]
    if row.get("state") == "Running":
        states = [each.get("serialized_state") for each in task_runs]
    records = [record for record in map(read, states) if record]
    if records:  # an agent left it when it returned the run to the queue
        returned = max(records, key=lambda record: record.time)
        return LaunchRecord(
            returned.name,
            attempt=returned.attempt,
            after=returned.after,
            **returned.carried(),
        )
    name = f"{row['id']}-{version_of(row)}"
    due = sorted((str(each["id"]), version_of(each)) for each in task_runs)
    if due:
        name = f"{name}-{hashlib.sha256(repr(tuple(due)).encode()).hexdigest()[:12]}"
    return LaunchRecord(name, **(latest.carried() if latest else {}))


def was_started_anew(run_id: str, record: LaunchRecord) -> bool:
    """Whether a launch starts a run anew that was launched before.

    The name of a first launch has version 1; that of a resumed run's launch includes
    the task runs that were due.
    """
    version = record.name[len(run_id) + 1 :]
    return version.isdigit() and version != "1"


def records_of(claims: Mapping[str, Any]) -> Sequence[LaunchRecord]:
    """The launch records of a run's claims, given as `AgentClient.claims_of` does."""
    states = [*_list(claims.get("states"))]
    for task_run in _list(claims.get("resumed")):
        states += _list(task_run.get("states"))
    records = (read(each.get("serialized_state")) for each in states)
    return [record for record in records if record]


# -- Who holds a run ---------------------------------------------------------------


class Claim(NamedTuple):
    """A claim of a run, as its states show it.

    Attributes:
        record: The launch; None if the claim has no record.
        timestamp: When the API stored it, in ISO 8601.
        resumed: Whether the run was Running when it was claimed.
    """

    record: Optional[LaunchRecord]
    timestamp: str
    resumed: bool

    @property
    def stored_at(self) -> float:
        """The same in seconds since 1970; 0 if it is not known."""
        return _seconds(self.timestamp)


def latest_claim(row: Mapping[str, Any]) -> Optional[Claim]:
    """The latest claim of a run; None if it was never claimed.

    Args:
        row: The run with `AgentClient`'s launch fields.
    """
    states = _list(row.get("states"))
    if row.get("state") == "Submitted":
        state, timestamp = row["serialized_state"], row.get("state_timestamp")
        states = [{"serialized_state": state, "timestamp": timestamp}]
    found = [(each, False) for each in states]
    for task_run in _list(row.get("resumed")):
        found += [(each, True) for each in _list(task_run.get("states"))]
    claims = [
        Claim(
            read(each.get("serialized_state")), str(each.get("timestamp") or ""), flag
        )
        for each, flag in found
    ]
    if len(claims) < 2:  # the usual case, without parsing a time
        return claims[0] if claims else None
    return max(claims, key=lambda claim: claim.stored_at)


class Situation(NamedTuple):
    """What must not have changed about a run before the agent ends it.

    Neither the state nor the version of a Running run changes when it comes back for a
    task retry; its latest claim and its task runs do.

    Attributes:
        state: The name of its state.
        version: The version of its state.
        launch: The record of its latest claim.
        claimed: Its task runs that are claimed and have not begun.
        waits: Whether a task run waits for its start time or for a person.
    """

    state: Optional[str]
    version: int
    launch: Optional[LaunchRecord]
    claimed: FrozenSet[Tuple[str, int]]
    waits: bool


def situation(row: Mapping[str, Any]) -> Situation:
    """The situation of a run.

    Args:
        row: The run with the fields of `AgentClient.states_of`.
    """
    claim = latest_claim(row)
    return Situation(
        state=row.get("state"),
        version=version_of(row),
        launch=claim.record if claim else None,
        claimed=frozenset(
            (each["id"], version_of(each)) for each in claimed_task_runs(row)
        ),
        waits=bool(row.get("task_runs")),
    )


def unchanged_since(row: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], bool]:
    """A check of later rows of a run: whether its situation is still the same."""
    seen = situation(row)
    return lambda now: situation(now) == seen


class Standing(enum.Enum):
    """How a run relates to a launch of it."""

    HELD = "this launch holds the run"
    UNCHANGED = "the run is as it was before it was claimed"
    UNCLEAR = "claimed, and the API does not show yet by which agent"
    LOST = "another claim or another state was set, or the run is gone"


def standing(
    seen: Mapping[str, Any], now: Optional[Mapping[str, Any]], record: LaunchRecord
) -> Standing:
    """How a run relates to a launch; its version, state and holder decide.

    Args:
        seen: The run as it was read before the claim.
        now: The run as the API has it now, with the launch fields; None if it is gone.
        record: The launch.
    """
    if now is None:
        return Standing.LOST
    is_same_state = seen.get("state") == now.get("state")
    is_same_state = is_same_state and version_of(seen) == version_of(now)
    is_unchanged = is_same_state and _has_same_task_runs(seen, now)
    claim = latest_claim(now) if now.get("state") in NEEDS_TASK else None
    if claim and claim.record:
        is_same_start = claim.record.is_same_start(record.name, record.attempt)
        if is_same_start and claim.record.holder == record.holder:
            return Standing.HELD
    elif claim and now.get("state") != "Submitted":
        # The API drops the context. It sets no agent's id for a resumed run, so two
        # agents may both continue; their launches have one name, and so one task.
        if is_same_state and not is_unchanged:
            return Standing.HELD
    elif claim and version_of(now) == version_of(seen) + 1:
        # The API drops the context, and sets the agent's id last.
        is_ours = now.get("agent_id") == record.agent_id
        return Standing.HELD if is_ours else Standing.UNCLEAR
    return Standing.UNCHANGED if is_unchanged else Standing.LOST


def _has_same_task_runs(seen: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether no task run that is to be resumed was claimed since."""
    versions = {each["id"]: version_of(each) for each in _list(seen.get("task_runs"))}
    return all(
        version_of(each) == versions.get(each["id"], version_of(each))
        for each in claimed_task_runs(now)
    )


def holds(
    seen: Mapping[str, Any], now: Mapping[str, Any], record: LaunchRecord
) -> bool:
    """Whether a launch holds a run, as far as the API shows yet; see `standing`."""
    return standing(seen, now, record) in (Standing.HELD, Standing.UNCLEAR)


def is_same_claim(row: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], bool]:
    """A check of later rows of a run: whether its latest claim is still the same."""
    seen = latest_claim(row)
    return lambda now: latest_claim(now) == seen


# -- Fields ------------------------------------------------------------------------


def version_of(row: Mapping[str, Any]) -> int:
    """The version of the state of a run or task run; 0 if it is not known."""
    return int(row.get("version") or 0)


def heartbeat_of(row: Mapping[str, Any]) -> float:
    """A run's last heartbeat, in seconds since 1970; 0 if it has none."""
    return _seconds(row["heartbeat"])


def claimed_task_runs(row: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The ids and versions of task runs that are claimed and have not begun."""
    return _list(row.get("claimed"))


def _seconds(timestamp: Optional[str]) -> float:
    """An ISO 8601 time in seconds since 1970; 0 for none."""
    moment: Any = pendulum.parse(timestamp) if timestamp else None
    return float(moment.timestamp()) if moment else 0.0


def _list(value: Any) -> Sequence[Mapping[str, Any]]:
    return value if isinstance(value, list) else ()
