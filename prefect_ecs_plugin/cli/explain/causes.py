"""What was read about a run -> why it ended, or what it waits for. Pure.

The table of stop reasons says what a stopped task means; this module says which of
those who can end a run did: the agent, ECS, the flow itself, a user.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterator, Mapping, Optional, Sequence, Tuple

from ...errors import code_of, without_code
from ...launch_record import NEEDS_TASK
from ...monitoring import explanation
from ...monitoring.deadlines import seconds
from ...monitoring.decision import Task, never_started, stop_reason
from ...monitoring.stop_reasons import STOP_REASONS, VANISHED, StopReason
from ...validation.excerpt import shortened
from ..terminal import spoken
from .seen import Seen, claims_of, moment

#: A task that ends so says nothing about its run: the flow's process has just ended.
_PLAIN_ENDS = frozenset({"end-not-reported", "flow-exited", "container-ended"})

#: With what Prefect's server ends runs that it has heard nothing of.
_BY_SERVER = ("No heartbeat detected", "A Lazarus process attempted")

#: Seconds without a look at the queue after which an agent counts as gone; the longest
#: pause between two looks is 10 s.
_GONE = 60.0

_BY_CODE: Mapping[str, StopReason] = {row.code: row for row in STOP_REASONS}


@dataclass(frozen=True)
class Cause:
    """Why a run ended, or its task.

    Attributes:
        code: The code of the stop reason or of the agent's message; empty for an end
            that is not the agent's or ECS's doing.
        text: What happened, as a sentence without a full stop.
        remedy: What to do, as an imperative; empty if the text says it.
        facts: What ECS says.
        source: The page behind the stop reason.
    """

    code: str
    text: str
    remedy: str = ""
    facts: Tuple[str, ...] = ()
    source: str = ""


def cause(seen: Seen) -> Optional[Cause]:
    """Why a run ended; None if it goes on or has succeeded."""
    task = seen.task
    has_stopped = task is not None and task.get("lastStatus") == "STOPPED"
    if not seen.has_ended:
        if task and has_stopped:
            return _of_task(seen, task)
        return _VANISHED if _has_vanished(seen) else None
    if seen.state == "Success":
        return None
    message = str(seen.row.get("state_message") or "")
    code = code_of(message)
    if task and has_stopped and _is_to_blame(seen, task, code):
        return _of_task(seen, task)
    if code:
        return _of_agent(seen, code, message)
    if seen.state == "Cancelled":
        return Cause("", _with("The run was cancelled", message.rstrip(".")))
    return _of_flow(seen, message)


_VANISHED = Cause(
    VANISHED.code,
    f"The run is not finished, and {VANISHED.cause}",
    VANISHED.remedy,
    source=VANISHED.source,
)


def _has_vanished(seen: Seen) -> bool:
    """Whether a run that had a task has none any more, and none is about to start."""
    claims = claims_of(seen.row)
    latest = claims[-1].stored_at if claims else 0.0
    launched = [each.at for each in seen.said if each.task_arn]
    return (
        seen.state in NEEDS_TASK
        and seen.were_listed
        and not seen.tasks
        and bool(launched)
        and launched[-1] >= latest
    )


def _is_to_blame(seen: Seen, task: Task, code: str) -> bool:
    """Whether a run ended because its task did, and not the other way round."""
    found = stop_reason(task).code
    if code:
        return found == code
    message = str(seen.row.get("state_message") or "")
    if any(words in message for words in _BY_SERVER):
        return True
    if seen.state == "Cancelled" or found in _PLAIN_ENDS:
        return False
    stopping = seconds(task.get("stoppingAt")) or 0.0
    return stopping <= (moment(seen.row.get("end_time")) or seen.now) + 1


def _of_task(seen: Seen, task: Task) -> Cause:
    reason, definition = stop_reason(task), seen.definition or {}
    how = "never ran" if never_started(task) else "stopped before the run was finished"
    return Cause(
        reason.code,
        f"The ECS task {how} because {reason.cause}",
        explanation.remedy(reason, task, definition),
        tuple(explanation.facts(task)),
        reason.source,
    )


def _of_agent(seen: Seen, code: str, message: str) -> Cause:
    """An agent ended the run, and said why in its state and in its log."""
    source = _BY_CODE[code].source if code in _BY_CODE else ""
    for line in reversed(seen.said):
        first, *others = line.message.splitlines() or [""]
        if code_of(first) == code and others:
            remedies = [each for each in others if each.startswith(_TO_DO)]
            return Cause(
                code,
                without_code(first).rstrip("."),
                "".join(remedies)[len(_TO_DO) :].rstrip("."),
                tuple(each for each in others if each.startswith(_FACTS)),
                source,
            )
    return Cause(code, without_code(message).rstrip("."), source=source)


#: How lines of `explanation.explain` begin.
_TO_DO, _FACTS = "What to do: ", ("stopCode: ", "stoppedReason: ", "Container ")


def _of_flow(seen: Seen, message: str) -> Cause:
    """The flow itself, or the API, ended the run."""
    failed = [each for each in seen.row.get("task_runs") or () if each["state"] in _BAD]
    facts = tuple(
        _with(f"Task run {name_of(each)!r} is {each['state']}", each["state_message"])
        for each in sorted(failed, key=lambda each: str(each["end_time"]))[:5]
    )
    remedy = "read the last log lines below"
    if failed:
        remedy = "correct the failed task of the flow; its traceback is in the log"
    text = _with(f"The run is {seen.state}", message.rstrip("."))
    return Cause("", text, remedy, facts)


def _with(what: str, message: Optional[str]) -> str:
    """What happened, with a message if there is one."""
    return f"{what}: {message}" if message else what


#: States of task runs that make a flow run Failed.
_BAD = ("Failed", "TimedOut")


def name_of(task_run: Mapping[str, Any]) -> str:
    """The name of a task run, with its number if it is one of many."""
    name, index = (task_run.get("task") or {}).get("name"), task_run.get("map_index")
    return f"{name}[{index}]" if index is not None and index >= 0 else str(name)


# -- What it waits for ---------------------------------------------------------------


def waits_for(seen: Seen) -> str:
    """What a run that has not ended waits for, as a sentence; empty if it has ended."""
    if seen.has_ended:
        return ""
    if seen.state in ("Submitted", "Cancelling", "Running"):
        return _of_launched(seen)
    if seen.state == "Queued":
        return _with("It is Queued", seen.row.get("state_message"))
    due = moment(seen.row.get("state_start_time")) or moment(
        seen.row.get("scheduled_start_time")
    )
    if due is not None and due > seen.now:
        return f"It is due in {spoken(due - seen.now)}."
    if seen.state == "Paused":
        return "It is Paused until a person approves it."
    since = f" for {spoken(seen.now - due)}" if due is not None else ""
    said = _said_since(seen, due or 0.0) or _about_agents(seen)
    return f"It has been due{since}, and no agent has taken it. {said}"


def _of_launched(seen: Seen) -> str:
    task = seen.task
    if task is None:
        if _has_vanished(seen):
            return "Its task is not there any more."
        if seen.state == "Running":
            return "Its flow is Running, as far as the API knows."
        return _said_since(seen, 0.0) or "No task is seen yet."
    status = str(task.get("lastStatus"))
    task_runs = seen.row.get("task_runs") or ()
    if status == "STOPPED":
        retried = " ".join(_retried(task_runs, seen.now))
        said = _said_since(seen, seconds(task.get("stoppingAt")) or seen.now)
        rest = retried or said or "Its agent has not acted on that yet."
        return f"Its task has ended. {rest}"
    if status != "RUNNING":
        return f"Its task is {status}: {_STATUSES.get(status, 'see the AWS console')}."
    if seen.state == "Cancelling":
        return "It is being cancelled; its container has not ended yet."
    at_work = [*_at_work(task_runs, seen.now), *_retried(task_runs, seen.now)]
    if at_work:
        return f"Its task is RUNNING. {' '.join(at_work[:3])}"
    if seen.state == "Submitted":
        return "Its container runs, and its flow has not set a state yet."
    return "Its task is RUNNING, and no task run is at work."


_STATUSES = {
    "PROVISIONING": "ECS looks for capacity and a network interface",
    "PENDING": "the image is being pulled, or the containers are being created",
    "ACTIVATING": "its containers are about to start",
    "DEACTIVATING": "it is being stopped",
    "STOPPING": "it is being stopped",
    "DEPROVISIONING": "its network interface is being removed",
}


def _at_work(task_runs: Sequence[Mapping[str, Any]], now: float) -> Iterator[str]:
    for each in task_runs:
        begun = moment(each.get("state_timestamp"))
        if each.get("state") == "Running" and begun is not None:
            yield f"Task run {name_of(each)!r} has run for {spoken(now - begun)}."


def _retried(task_runs: Sequence[Mapping[str, Any]], now: float) -> Iterator[str]:
    for each in task_runs:
        due = moment(each.get("state_start_time"))
        if each.get("state") == "Retrying" and due is not None and due > now:
            yield f"Task run {name_of(each)!r} is retried in {spoken(due - now)}."


def _said_since(seen: Seen, begin: float) -> str:
    """What an agent wrote last into the run's log since a moment."""
    said = [each for each in seen.said if each.at >= begin]
    first = said[-1].message.splitlines()[:1] if said else []
    return f"An agent wrote: {without_code(first[0])}" if first else ""


def _about_agents(seen: Seen) -> str:
    """Which agents could take a run, by their labels, and whether they are there."""
    wanted = sorted(seen.row.get("labels") or ())
    able = [
        each
        for each in seen.agents
        if set(wanted) <= set(each["labels"] or ()) and (wanted or not each["labels"])
    ]
    which = f"the labels {', '.join(wanted)}" if wanted else "no labels"
    if not able:
        return f"No agent with {which} is known: start one."
    looked = moment(able[0].get("last_queried"))
    name = shortened(str(able[0]["name"]), 40)
    if looked is None:
        return f"Agent {name!r} could take it, and has never looked."
    ago = seen.now - looked
    if ago > _GONE:
        return f"Agent {name!r} last looked {spoken(ago)} ago: start it again."
    return f"Agent {name!r} could take it; it looked {spoken(ago)} ago."
