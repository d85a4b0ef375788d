"""Decides what a stopped task means for its flow run. Pure.

`decide` takes the task as DescribeTasks returns it, what the Prefect API says about
the run, and how the task was launched.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Iterable, List, Mapping, Optional, Tuple

from ..flow_run import FLOW_CONTAINER
from ..launch_record import NEEDS_TASK, RESCHEDULED_STATES, Launch, situation
from ..scheduling.backoff import Backoff
from ..settings import DEFAULT_START_ATTEMPTS
from . import stop_reasons
from .stop_reasons import StopReason

#: Seconds between the first and the second look at a run whose task has stopped: the
#: flow's last state update may still be on its way.
GRACE = 10.0

#: Between two starts of one run. What keeps a task from starting often passes within
#: minutes.
RELAUNCH_BACKOFF = Backoff(15.0, 120.0)

#: The stoppedReason of a task that an agent stopped because its run was cancelled. Its
#: flow may have made the run Running at the same moment.
CANCELLED = "The flow run was cancelled"

#: A task as DescribeTasks returns it.
Task = Mapping[str, Any]


class Verdict(enum.Enum):
    """What the agent does about a stopped task."""

    LEAVE = "nothing: the run is finished, launched again or about to be queued again"
    LOOK_AGAIN = "ask for the run's state once more, after a while"
    RELAUNCH = "launch the run again: its flow certainly never ran"
    RESUME = "have the run go on in another task, if that is safe"
    CANCEL = "mark the run Cancelled: it was being cancelled when its task ended"
    FAIL = "mark the run Failed, with the reason"


@dataclass(frozen=True)
class Run:
    """What the API says about a flow run.

    Attributes:
        state: The name of its state, `Submitted`; None if the API did not answer.
        waits: Whether Prefect will continue it by itself: one of its task runs waits
            for its retry or for a person; see `waits`.
        taken_over: Whether it was launched again after the launch in question: by
            this agent, or by another, as its launch record tells.
        is_claimed: Whether task runs of it were claimed for a launch and have not
            begun: Prefect will not queue the run again for those.
        was_ended_by_stop: Whether it ended only because its task was stopped for its
            runtime; see `deadlines`.
    """

    state: Optional[str]
    waits: bool = False
    taken_over: bool = False
    is_claimed: bool = False
    was_ended_by_stop: bool = False


@dataclass(frozen=True)
class Decision:
    """What a stopped task means.

    Attributes:
        verdict: What to do next.
        why: The reason for the verdict, for the agent's log.
        stop_reason: Why the task stopped.
        started: False if the flow certainly never ran.
        attempt: The launch's attempt.
        limit: How many attempts there are.
        resumption: How the run goes on in another task, or why it does not; empty if
            that is not in question.
    """

    verdict: Verdict
    why: str
    stop_reason: StopReason
    started: bool = True
    attempt: int = 1
    limit: int = DEFAULT_START_ATTEMPTS
    resumption: str = ""


def decide(
    task: Optional[Task],
    run: Run,
    launch: Launch = Launch(),  # noqa: B008  # a frozen value
    limit: int = DEFAULT_START_ATTEMPTS,
    confirmed: bool = False,
) -> Decision:
    """Decide what a stopped task means for its run.

    Args:
        task: The task; None if ECS does not know it any more.
        run: What the API says about its run.
        launch: How the task was launched.
        limit: How often the run may be started.
        confirmed: Whether this is the second look, `GRACE` seconds after the first.
    """
    started = task is None or not never_started(task)
    reason = stop_reasons.VANISHED if task is None else stop_reason(task)
    can_resume = started and can_go_on(reason)
    settled = _if_settled(task, run, reason, can_resume)
    if settled:
        verdict, why = settled
    elif not started:
        verdict, why = _if_never_ran(run, launch, reason, limit)
    elif run.state == "Cancelling":
        verdict, why = Verdict.CANCEL, "the run is Cancelling and its task has ended"
    elif can_resume:
        verdict, why = Verdict.RESUME, f"the run is {run.state} and was interrupted"
    else:
        verdict, why = Verdict.FAIL, f"the run is {run.state} and its task has ended"
    if started and verdict in _TO_BE_CONFIRMED and not confirmed:
        verdict, why = Verdict.LOOK_AGAIN, f"{why}; its last update may be on its way"
    return Decision(verdict, why, reason, started, launch.attempt, limit)


#: Verdicts that need a second look if the flow had begun.
_TO_BE_CONFIRMED = (Verdict.FAIL, Verdict.CANCEL, Verdict.RESUME)


def can_go_on(reason: StopReason) -> bool:
    """Whether a run whose flow had begun may go on in another task."""
    return reason.interrupted or reason.code == stop_reasons.OUT_OF_MEMORY


def _if_settled(
    task: Optional[Task], run: Run, reason: StopReason, can_resume: bool
) -> Optional[Tuple[Verdict, str]]:
    """Cases in which the task's end does not matter, or cannot be decided yet."""
    if run.state is None:
        return Verdict.LOOK_AGAIN, "the run's state is not known"
    ran_too_long = reason is stop_reasons.MAX_RUNTIME
    if run.state not in NEEDS_TASK and not run.was_ended_by_stop:
        return Verdict.LEAVE, f"the run is {run.state}"
    if run.taken_over:
        return Verdict.LEAVE, "the run was launched again since"
    waits = run.state == "Running" and run.waits and not run.is_claimed
    # Other task runs may have been interrupted, or stopped for their runtime.
    if waits and not (can_resume or ran_too_long):
        return Verdict.LEAVE, "Prefect will queue the run again"
    if task is not None and task.get("lastStatus") != "STOPPED":
        return Verdict.LOOK_AGAIN, f"the task is {task.get('lastStatus')}"
    if task is not None and task.get("stoppedReason") == CANCELLED:
        return Verdict.CANCEL, "the task was stopped to cancel the run"
    return None


def _if_never_ran(
    run: Run, launch: Launch, reason: StopReason, limit: int
) -> Tuple[Verdict, str]:
    if run.state != "Submitted" and not launch.resumed:
        return Verdict.LEAVE, f"another task made the run {run.state}"
    if run.state == "Cancelling":
        return Verdict.CANCEL, "the run is Cancelling and has no task"
    if not reason.transient:
        return Verdict.FAIL, "the task would fail to start again"
    if launch.attempt >= limit:
        return Verdict.FAIL, f"{launch.attempt} of {limit} starts failed"
    return Verdict.RELAUNCH, f"start {launch.attempt} of {limit} failed; it may pass"


def is_unchanged(row: Mapping[str, Any], seen: Mapping[str, Any]) -> bool:
    """Whether nothing has happened to a run since the decision about its task.

    Args:
        row: The run, as `AgentClient.row` reads it: without task runs that wait.
        seen: The run at the decision.
    """
    then = situation(seen)
    return situation(row)._replace(waits=then.waits) == then


def waits(task_run_states: Iterable[str]) -> bool:
    """Whether Prefect will queue a Running run again by itself.

    Its process ends with the run still Running where a retry is more than ten minutes
    away; when that is due, the queue has the run again.

    Args:
        task_run_states: The names of the states of the run's task runs.
    """
    return not RESCHEDULED_STATES.isdisjoint(task_run_states)


# -- What a described task says ------------------------------------------------------


def flow_container(task: Task) -> Mapping[str, Any]:
    """The container that runs the flow; empty where ECS shows none."""
    containers: Iterable[Mapping[str, Any]] = task.get("containers") or ()
    return next((each for each in containers if each.get("name") == FLOW_CONTAINER), {})


def never_started(task: Task) -> bool:
    """Whether the flow cannot have run, not even for a moment.

    A task gets `startedAt` when it becomes RUNNING, but where there are sidecars its
    containers start one by one before that. So the flow's container must have no exit
    code and must not have been created either: a created one has a `runtimeId`.
    https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Container.html
    """
    flow = flow_container(task)
    return (
        task.get("startedAt") is None
        and flow.get("exitCode") is None
        and not flow.get("runtimeId")
        and flow.get("lastStatus") != "RUNNING"
    )


def reasons(task: Task) -> List[str]:
    """The task's stoppedReason, then its containers' reasons."""
    containers = task.get("containers") or ()
    found = [task.get("stoppedReason"), *(each.get("reason") for each in containers)]
    return [str(reason) for reason in found if reason]


def stop_reason(task: Task) -> StopReason:
    """The row of the table that explains why the task stopped."""
    text, code = "\n".join(reasons(task)), flow_container(task).get("exitCode")
    return stop_reasons.find(text, str(task.get("stopCode") or ""), code)
