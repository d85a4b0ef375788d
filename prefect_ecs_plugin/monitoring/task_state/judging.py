"""A stopped task and its flow run become a verdict.

The cast: a `Launch` is how the task came to be, a `Run` is what the API says of the
flow run now; `judge` weighs both; its `Judgement` says what the agent does next.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Iterable, NamedTuple, Optional

from ...launch_record import NEEDS_TASK, RESCHEDULED_STATES, Launch
from ...scheduling.backoff import Backoff
from ..stop_reasons import VANISHED, StopReason
from . import described
from .described import Described

#: How often a run's task is started at most (`--start-attempts`).
START_ATTEMPTS = 3

#: Seconds between the first and the second look at a run whose task has stopped: its
#: last state update may still be on its way.
GRACE = 10.0

#: Between two starts of one run; what keeps a task from starting passes in minutes.
RELAUNCH_BACKOFF = Backoff(15.0, 120.0)


class Verdict(enum.Enum):
    """What the agent does about a stopped task."""

    LEAVE = "nothing: the run is finished, launched again or about to be queued again"
    LOOK_AGAIN = "ask for the run's state once more, after a while"
    RELAUNCH = "launch the run again: its flow surely never ran"
    CANCEL = "mark the run Cancelled: it was being cancelled when its task ended"
    FAIL = "mark the run Failed, with the reason"


@dataclass(frozen=True)
class Run:
    """What the API says of a flow run.

    Attributes:
        state: The name of its state, `Submitted`; None if the API could not be asked.
        waits: Whether Prefect itself will go on with it: one of its task runs waits
            for its retry or for a person; see `waits`.
        taken_over: Whether it was launched again after the launch in question: by
            this agent, or by another, as its launch record tells.
        version: The version of its state.
        is_claimed: Whether task runs of it were claimed for a launch and have not
            begun: Prefect will not show the run again for them.
    """

    state: Optional[str]
    waits: bool = False
    taken_over: bool = False
    version: Optional[int] = None
    is_claimed: bool = False


FIRST_LAUNCH = Launch()


@dataclass(frozen=True)
class Judgement:
    """What a stopped task means.

    Attributes:
        verdict: What to do next.
        why: A reason for the agent's own log.
        hint: Why the task stopped.
        started: False if the flow surely never ran.
        attempt: The launch's attempt.
        limit: How many attempts there are.
    """

    verdict: Verdict
    why: str
    hint: StopReason
    started: bool = True
    attempt: int = 1
    limit: int = START_ATTEMPTS


#: The stoppedReason of a task that an agent has stopped because its run was cancelled.
#: Its flow may have made the run Running in the same moment.
CANCELLED = "The flow run was cancelled"


def waits(task_run_states: Iterable[str]) -> bool:
    """Whether Prefect will show a Running run in its queue again by itself.

    Its process ends with the run still Running where a retry is more than ten minutes
    away; when that is due, the queue has the run again.

    Args:
        task_run_states: The names of the states of the run's task runs.
    """
    return not RESCHEDULED_STATES.isdisjoint(task_run_states)


def judge(
    task: Optional[Described],
    run: Run,
    launch: Launch = FIRST_LAUNCH,
    limit: int = START_ATTEMPTS,
    confirmed: bool = False,
) -> Judgement:
    """Decide what a stopped task means for its run.

    Args:
        task: The task as described, None if ECS does not know it any more.
        run: What the API says of its run.
        launch: How the task came to be.
        limit: How often the run may be started.
        confirmed: Whether this is the second look, `GRACE` seconds after the first.
    """
    started = task is None or not described.never_started(task)
    hint = VANISHED if task is None else described.hint(task)
    decision = _if_settled(task, run)
    if decision is None and started:
        decision = _if_started(run)
    verdict, why = decision or _if_never_ran(run, launch, hint, limit)
    if started and verdict in (Verdict.FAIL, Verdict.CANCEL) and not confirmed:
        verdict, why = Verdict.LOOK_AGAIN, f"{why}; its last word may be on its way"
    return Judgement(verdict, why, hint, started, launch.attempt, limit)


class _Decision(NamedTuple):
    verdict: Verdict
    why: str


def _if_settled(task: Optional[Described], run: Run) -> Optional[_Decision]:
    """Cases in which the task's end does not matter, or cannot be judged yet."""
    if run.state is None:
        return _Decision(Verdict.LOOK_AGAIN, "the run's state is not known")
    if run.state not in NEEDS_TASK:
        return _Decision(Verdict.LEAVE, f"the run is {run.state}")
    if run.taken_over:
        return _Decision(Verdict.LEAVE, "the run was launched again since")
    if run.state == "Running" and run.waits and not run.is_claimed:
        return _Decision(Verdict.LEAVE, "Prefect will show the run in its queue again")
    if task is not None and task.get("lastStatus") != "STOPPED":
        return _Decision(Verdict.LOOK_AGAIN, f"the task is {task.get('lastStatus')}")
    if task is not None and task.get("stoppedReason") == CANCELLED:
        return _Decision(Verdict.CANCEL, "the task was stopped to cancel the run")
    return None


def _if_never_ran(run: Run, launch: Launch, hint: StopReason, limit: int) -> _Decision:
    if run.state != "Submitted" and not launch.resumed:
        return _Decision(Verdict.LEAVE, f"another task made the run {run.state}")
    if run.state == "Cancelling":
        return _Decision(Verdict.CANCEL, "the run is Cancelling and has no task")
    if not hint.transient:
        return _Decision(Verdict.FAIL, "the task would fail to start again")
    if launch.attempt >= limit:
        return _Decision(Verdict.FAIL, f"{launch.attempt} of {limit} starts failed")
    return _Decision(
        Verdict.RELAUNCH, f"start {launch.attempt} of {limit} failed, perhaps by chance"
    )


def _if_started(run: Run) -> _Decision:
    if run.state == "Cancelling":
        return _Decision(Verdict.CANCEL, "the run is Cancelling and its task has ended")
    return _Decision(Verdict.FAIL, f"the run is {run.state} and its task has ended")
