"""What was read about a run, frozen. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import pendulum

from ...aws.ecs import CLOCK_SKEW
from ...launch_record import NEEDS_TASK, RESCHEDULED_STATES, Claim, read
from ...monitoring.deadlines import seconds
from ...monitoring.decision import Task

#: What agents write into a run's log when they have launched its task.
SUBMITTED = "Submitted for execution"

#: The states of a run that has not ended.
UNFINISHED = NEEDS_TASK | RESCHEDULED_STATES

#: Task runs that are read, of those that changed last.
TASK_RUNS = 1000

_TASK_ARN = re.compile(r"arn:aws[\w-]*:ecs:[\w-]+:\d+:task/[\w/-]+")


class Line(NamedTuple):
    """A line of a run's log.

    Attributes:
        at: When it was written, in seconds since 1970.
        level: Such as `WARNING`.
        message: Its text.
    """

    at: float
    level: str
    message: str

    @property
    def task_arn(self) -> str:
        """The task that it says was launched; empty if it is about something else."""
        found = _TASK_ARN.search(self.message)
        return found[0] if found and self.message.startswith(SUBMITTED) else ""


class Launched(NamedTuple):
    """A claim of a run, and the task that was launched for it.

    Attributes:
        claim: When and how an agent took the run.
        task: As described; None where there is none, or ECS has forgotten it.
        submitted: When an agent wrote that it had launched the task; 0 if it did not.
    """

    claim: Claim
    task: Optional[Task]
    submitted: float


@dataclass(frozen=True)
class Seen:
    """What was read about a run.

    Attributes:
        now: When, in seconds since 1970.
        row: The run, with the fields that `reading` asks for.
        agents: All agents of the tenant, those that looked last first.
        said: What agents wrote into the run's log, the oldest first.
        log: What others wrote last into it, the oldest first.
        tasks: The run's tasks as described, the oldest first.
        were_listed: Whether ECS has listed and described them; it forgets those that
            have stopped.
        definition: The definition of the last one.
        container_log: The last lines of its flow container; None if not read.
        log_source: Where these are, in words.
        unseen: What could not be read, and why, as sentences.
        secrets: Known secrets.
    """

    now: float
    row: Mapping[str, Any]
    agents: Sequence[Mapping[str, Any]] = ()
    said: Sequence[Line] = ()
    log: Sequence[Line] = ()
    tasks: Sequence[Task] = ()
    were_listed: bool = False
    definition: Optional[Mapping[str, Any]] = None
    container_log: Optional[Sequence[str]] = None
    log_source: str = ""
    unseen: Sequence[str] = ()
    secrets: Sequence[str] = field(default=(), repr=False)

    @property
    def state(self) -> str:
        """The name of the run's state."""
        return str(self.row.get("state"))

    @property
    def has_ended(self) -> bool:
        """Whether the run has a final state."""
        return self.state not in UNFINISHED

    @property
    def task(self) -> Optional[Task]:
        """The run's latest task, if ECS shows it."""
        return self.tasks[-1] if self.tasks else None

    @property
    def task_arn(self) -> str:
        """The run's latest task, even if ECS has forgotten it; empty for none."""
        if self.task:
            return str(self.task["taskArn"])
        return next(
            (each.task_arn for each in reversed(self.said) if each.task_arn), ""
        )


def claims_of(row: Mapping[str, Any]) -> List[Claim]:
    """All claims of a run, the oldest first.

    Several task runs that were claimed together are one claim.

    Args:
        row: The run, with `claims` and `resumed` as `reading` asks for them.
    """
    own = [_claim(each, False) for each in row.get("claims") or ()]
    of_task_runs = [
        _claim(each, True)
        for task_run in row.get("resumed") or ()
        for each in task_run.get("states") or ()
    ]
    resumed = {claim.record or claim.timestamp: claim for claim in of_task_runs}
    return sorted([*own, *resumed.values()], key=lambda claim: claim.stored_at)


def _claim(state: Mapping[str, Any], is_resumed: bool) -> Claim:
    record = read(state.get("serialized_state"))
    return Claim(record, str(state["timestamp"]), is_resumed)


def launches_of(seen: Seen) -> Tuple[Launched, ...]:
    """Each claim with its task.

    A task belongs to the latest claim that was not made after it; and not to one whose
    record names it, or a later task, as that of an earlier start.
    """
    claims = claims_of(seen.row)
    numbers = {str(task["taskArn"]): each for each, task in enumerate(seen.tasks)}
    tasks: List[Optional[Task]] = [None] * len(claims)
    for number, task in enumerate(seen.tasks):
        created = (seconds(task.get("createdAt")) or seen.now) + CLOCK_SKEW
        for index in reversed(range(len(claims))):
            record = claims[index].record
            after = numbers.get(record.after or "", -1) if record else -1
            if after < number and (claims[index].stored_at <= created or not index):
                tasks[index] = task
                break
    ends = [claim.stored_at for claim in claims[1:]] + [float("inf")]
    return tuple(
        Launched(claim, task, _submitted(seen.said, claim.stored_at, end))
        for claim, task, end in zip(claims, tasks, ends)
    )


def _submitted(said: Sequence[Line], begin: float, end: float) -> float:
    found = (each.at for each in said if each.task_arn and begin <= each.at < end)
    return next(found, 0.0)


def oldest_first(tasks: Iterable[Task]) -> List[Task]:
    """Described tasks in their order; one that has just begun has no createdAt."""
    return sorted(
        tasks, key=lambda task: seconds(task.get("createdAt")) or float("inf")
    )


def moment(text: Any) -> Optional[float]:
    """An ISO 8601 time of the API in seconds since 1970; None for none."""
    parsed: Any = pendulum.parse(text) if text else None
    return float(parsed.timestamp()) if parsed else None
