"""What was read about a run -> phases that follow each other without a gap. Pure.

The times are those of the API for the run's states and of AWS for its tasks. The clocks
may differ: no event of a task counts as earlier than the claim that it follows. The
lengths of all phases add up to the time between the first event and the last.
"""

from __future__ import annotations

import enum
import itertools
from dataclasses import dataclass, replace
from typing import Any, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ...aws.ecs import CLOCK_SKEW
from ...monitoring.deadlines import seconds
from ...monitoring.decision import Task, stop_reason
from ...monitoring.explanation import facts
from ...monitoring.phases import LONG_PULL, pull_advice
from .seen import UNFINISHED, Launched, Seen, launches_of, moment

#: What agents write before the reason for which a run waits.
_WAITING = "Waiting for "


class Phase(str, enum.Enum):
    """What a run does, or waits for."""

    AGENT = "waiting for an agent"
    AWS = "waiting for AWS"
    PROVISIONING = "provisioning"
    PULL = "image pull"
    CONTAINER = "container start"
    FLOW = "start of the flow"
    TASK = "start of the task"
    RUN = "run"
    STOP = "stop of the task"
    NO_TASK = "without a task"
    ENDED = "ended"


class _Kind(enum.IntEnum):
    """Kinds of events, in the order of cause and effect."""

    SCHEDULED = 0
    CLAIMED = 1
    SUBMITTED = 2
    CREATED = 3
    PULL_STARTED = 4
    PULL_STOPPED = 5
    STARTED = 6
    RUNNING = 7
    STOPPING = 8
    STOPPED = 9
    FINAL = 10


#: The phases that begin with events, whatever was before.
_BEGINS = {
    _Kind.SCHEDULED: Phase.AGENT,
    _Kind.CLAIMED: Phase.AWS,
    _Kind.SUBMITTED: Phase.TASK,
    _Kind.CREATED: Phase.PROVISIONING,
    _Kind.PULL_STARTED: Phase.PULL,
    _Kind.PULL_STOPPED: Phase.CONTAINER,
    _Kind.STARTED: Phase.FLOW,
    _Kind.RUNNING: Phase.RUN,
    _Kind.STOPPING: Phase.STOP,
}

#: The times of a described task.
_TIMES = {
    _Kind.CREATED: "createdAt",
    _Kind.PULL_STARTED: "pullStartedAt",
    _Kind.PULL_STOPPED: "pullStoppedAt",
    _Kind.STARTED: "startedAt",
    _Kind.STOPPING: "stoppingAt",
    _Kind.STOPPED: "stoppedAt",
}


class _Event(NamedTuple):
    at: float
    kind: _Kind
    task: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Span:
    """A phase and when it was.

    Attributes:
        phase: Which one.
        begin: In seconds since 1970.
        end: Likewise; now, if it goes on.
        task: The id of the task that it is about, if any.
        detail: What is to be known about it, in words.
        is_open: Whether it goes on.
    """

    phase: Phase
    begin: float
    end: float
    task: str = ""
    detail: str = ""
    is_open: bool = False

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.begin


def timeline(seen: Seen) -> Tuple[Span, ...]:
    """The phases of a run, from its scheduled start to its end, or to now."""
    events = sorted(_events(seen))
    ends = [*(each.at for each in events[1:]), seen.now]
    spans: List[Span] = []
    phase, task, has_ended, has_task = Phase.ENDED, "", False, False
    for event, end in zip(events, ends):
        if event.at > seen.now:  # a start in the future
            break
        if event.kind in (_Kind.SCHEDULED, _Kind.CLAIMED):
            has_ended, task = False, ""
        elif event.kind is _Kind.FINAL:
            has_ended = True
        elif event.kind is _Kind.STOPPED:
            has_task = False
        elif event.task:
            has_task, task = True, event.task
        phase = _after(event.kind, phase, has_ended, has_task)
        spans.append(Span(phase, event.at, end, task, event.detail))
    if spans and phase is Phase.ENDED:
        del spans[-1]
    elif spans:
        spans[-1] = replace(spans[-1], end=seen.now, is_open=True)
    return tuple(_detailed(each, seen) for each in _merged(spans))


def longest(spans: Sequence[Span]) -> Optional[Span]:
    """The longest phase; None where there is no other to compare it with."""
    return max(spans, key=lambda span: span.seconds) if len(spans) > 1 else None


def _after(kind: _Kind, before: Phase, has_ended: bool, has_task: bool) -> Phase:
    """The phase that follows an event."""
    if kind is _Kind.RUNNING and before in (Phase.STOP, Phase.NO_TASK):
        return before  # the update came late
    if kind in _BEGINS:
        return _BEGINS[kind]
    if has_ended:
        return Phase.STOP if has_task else Phase.ENDED
    return Phase.NO_TASK


def _events(seen: Seen) -> Iterator[_Event]:
    launches = launches_of(seen)
    claimed = [each.claim.stored_at for each in launches]
    times = (seen.row.get("created"), seen.row.get("scheduled_start_time"))
    due = max((moment(each) or 0.0 for each in times), default=0.0)
    yield _Event(min([due or seen.now, *claimed]), _Kind.SCHEDULED)
    for launch, end in zip(launches, [*claimed[1:], float("inf")]):
        events = [each for each in _events_of(launch) if each.at < end]
        yield from events
        if launch.claim.resumed:  # it is Running already, and sets no such state
            for each in events:
                if each.kind is _Kind.STARTED:
                    yield each._replace(kind=_Kind.RUNNING)
    states = itertools.dropwhile(_is_new, seen.row.get("states") or ())
    for state in states:
        at, name = moment(state.get("timestamp")) or seen.now, state.get("state")
        if name == "Scheduled":
            yield _Event(at, _Kind.SCHEDULED, "", str(state.get("message") or ""))
        elif name == "Running":
            yield _Event(_after_start(at, launches), _Kind.RUNNING)
        elif name not in UNFINISHED:
            yield _Event(at, _Kind.FINAL)


def _after_start(at: float, launches: Sequence[Launched]) -> float:
    """When a flow set a state, but not before AWS's clock had its container started."""
    begun = [each for each in launches if each.claim.stored_at <= at]
    started = seconds((begun[-1].task or {}).get("startedAt")) if begun else None
    return max(at, started) if started and started - at < CLOCK_SKEW else at


def _is_new(state: Mapping[str, Any]) -> bool:
    """Whether a state is one of those with which a run is created."""
    return state.get("state") in ("Pending", "Scheduled")


def _events_of(launch: Launched) -> Iterator[_Event]:
    """The events of a launch; none is earlier than the one that it follows."""
    at = launch.claim.stored_at
    yield _Event(at, _Kind.CLAIMED)
    if launch.task is None:
        if launch.submitted:
            yield _Event(max(at, launch.submitted), _Kind.SUBMITTED)
        return
    name = str(launch.task["taskArn"]).rpartition("/")[2]
    for kind, member in _TIMES.items():
        found = seconds(launch.task.get(member))
        if found is not None:
            at = max(at, found)
            yield _Event(at, kind, name)


def _merged(spans: Sequence[Span]) -> List[Span]:
    """The spans without those of no length, and without two of one phase in a row."""
    merged: List[Span] = []
    for span in spans:
        if merged and merged[-1].phase is span.phase and span.phase is not Phase.AGENT:
            merged[-1] = replace(merged[-1], end=span.end, is_open=span.is_open)
        elif span.seconds > 0:
            merged.append(span)
    return merged


def _detailed(span: Span, seen: Seen) -> Span:
    """A span with what agents said about it, or with what makes it shorter."""
    if span.phase in (Phase.AGENT, Phase.AWS):
        said = [
            each.message[len(_WAITING) :]
            for each in seen.said
            if each.message.startswith(_WAITING)
            and span.begin - 1 <= each.at <= span.end + 1
        ]
        return replace(span, detail=" ".join([span.detail, *said[:1]]).strip())
    tasks = [each for each in seen.tasks if str(each["taskArn"]).endswith(span.task)]
    if not span.task or not tasks:
        return span
    if span.phase is Phase.PULL and span.seconds > LONG_PULL:
        return replace(span, detail=f"for a shorter one, {pull_advice(tasks[0])}")
    if span.phase is Phase.STOP:
        return replace(span, detail=_about_stop(tasks[0], seen))
    return span


def _about_stop(task: Task, seen: Seen) -> str:
    """How the containers of a task ended; of an earlier task, also why."""
    ends = [each for each in facts(task) if each.startswith("Container ")]
    if task is not seen.task:
        reason = stop_reason(task)
        ends.append(f"because {reason.cause} [{reason.code}]")
    return "; ".join(ends)
