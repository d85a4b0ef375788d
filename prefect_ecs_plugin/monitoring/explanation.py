"""Explains a decision to people: one line for the run's state, several for its log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterator, Mapping, Optional, Sequence

from ..aws import console_links
from ..errors import with_code, without_code
from ..flow_run import FLOW_CONTAINER
from ..observability import redaction
from ..validation import rules
from .decision import Decision, Task, Verdict, reasons
from .stop_reasons import EXIT_CODES, OUT_OF_MEMORY, StopReason

#: Characters of ECS's own words in a state message; the log has all of them.
_LONGEST_REASON = 300

#: Characters of a line of the container's own log.
_LONGEST_LINE = 1000

#: The codes of stop reasons whose remedy is more memory.
_ABOUT_MEMORY = frozenset({OUT_OF_MEMORY, "flow-killed"})


@dataclass(frozen=True)
class Explanation:
    """What people read about a stopped task.

    Attributes:
        message: One line, for the state and the agent's log; it ends with the code of
            the stop reason.
        log: Several lines, for the run's log; the first one ends with the code.
    """

    message: str
    log: str


def explain(
    task_arn: str,
    task: Optional[Task],
    definition: Optional[Mapping[str, Any]],
    decision: Decision,
    log_lines: Sequence[str] = (),
    secrets: Sequence[str] = (),
) -> Explanation:
    """Say what happened and what to do about it.

    Args:
        task_arn: The task.
        task: As described; None if ECS does not know it any more.
        definition: Its definition, rendered or described, if it is known.
        decision: What was decided.
        log_lines: The last lines of the flow container's own log.
        secrets: Known secrets, besides those of the task and its definition.

    Returns:
        Both texts, redacted. Words of ECS and of the flow are cut after that, so that
        no part of a secret remains.
    """
    seen, known = task or {}, definition or {}
    secrets = [*secrets, *redaction.secrets_in(seen.get("overrides"), definition)]
    opening, code = _opening(decision), decision.stop_reason.code
    to_do = remedy(decision.stop_reason, seen, known)
    if decision.verdict is Verdict.RESUME:  # there is nothing to do
        to_do = ""
    about = "; ".join(filter(None, [opening, without_code(decision.resumption), to_do]))
    message = _one_line(f"{about}{_quoted(seen, secrets)}")
    tail = redaction.redact_lines(log_lines, secrets, _LONGEST_LINE)
    lines = [
        with_code(f"{opening}.", code),
        *_resumption(decision),
        *([f"What to do: {to_do}."] if to_do else []),
        *facts(seen),
        *links(task_arn, known),
        f"More about this: {decision.stop_reason.source}",
    ]
    if tail:
        lines += [f"The last {len(tail)} lines of its log:"]
        lines += [f"    {line}" for line in tail]
    return Explanation(
        with_code(redaction.redact_text(message, secrets), code),
        redaction.redact_text("\n".join(lines), secrets),
    )


def remedy(reason: StopReason, task: Task, definition: Mapping[str, Any]) -> str:
    """What a person can do about a stopped task, as an imperative.

    Args:
        reason: Why it stopped.
        task: As described.
        definition: Its definition, empty if it is not known.
    """
    if reason.code in _ABOUT_MEMORY:
        return _more_memory(task, definition)
    return reason.remedy


def _resumption(decision: Decision) -> Iterator[str]:
    """Whether the run goes on, and why not."""
    words = decision.resumption
    if words:
        yield words[0].upper() + words[1:]


def _opening(decision: Decision) -> str:
    """What happened, and what the agent does about it."""
    cause = decision.stop_reason.cause
    if decision.started:
        return f"The ECS task stopped before the run was finished because {cause}"
    opening = f"The ECS task never ran because {cause}"
    if decision.verdict is Verdict.RELAUNCH:
        start = f"start {decision.attempt + 1} of {decision.limit}"
        return f"{opening}, and is launched again ({start})"
    earlier = decision.attempt - 1
    if earlier:
        attempts = "attempt" if earlier == 1 else "attempts"
        return f"{opening}; {earlier} earlier {attempts} also failed to start"
    return opening


def _quoted(task: Task, secrets: Sequence[str]) -> str:
    """ECS's own words, short enough for a state message."""
    said = ": ".join(filter(None, [task.get("stopCode"), *reasons(task)[:1]]))
    said = redaction.redact_text(said, secrets, _LONGEST_REASON)
    return f" (ECS says: {said})" if said else ""


def facts(task: Task) -> Iterator[str]:
    """What ECS says about a stopped task and each of its containers."""
    for key in ("stopCode", "stoppedReason"):
        if task.get(key):
            yield f"{key}: {_one_line(str(task[key]))}"
    for container in task.get("containers") or ():
        code: Any = container.get("exitCode")
        end = "no exit code" if code is None else f"exit code {code}"
        if code in EXIT_CODES:
            end = f"{end}, {EXIT_CODES[code]}"
        if container.get("reason"):
            end = f"{end}; {_one_line(str(container['reason']))}"
        yield f"Container {container.get('name')!r}: {end}"


def links(task_arn: str, definition: Mapping[str, Any]) -> Iterator[str]:
    """Where to look at a task and its log in the AWS console."""
    yield f"Task {task_arn}: {console_links.task_url(task_arn)}"
    logs = console_links.log_url(task_arn, definition)
    if logs:
        yield f"Its log: {logs}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


# -- Memory ---------------------------------------------------------------------


def _more_memory(task: Task, definition: Mapping[str, Any]) -> str:
    """How much memory the flow had, and how to give it twice as much."""
    of_container = rules.container_memory(task.get("overrides") or {}, definition)
    if of_container is not None:
        return (
            f"the container {FLOW_CONTAINER!r} has {of_container} MiB: raise its "
            "`memory` in the task definition template, or remove it so that the task's "
            "limit applies"
        )
    mib = rules.memory_mib(task.get("memory") or definition.get("memory"))
    if mib is None:
        return "set `memory` in the run config, such as ECSRun(memory='4 GB')"
    memory = f"memory='{2 * mib // 1024} GB'" if mib >= 512 else f"memory={2 * mib}"
    more = f"ECSRun({memory})"
    cpu = rules.cpu_units(task.get("cpu"))
    is_limited = task.get("launchType") == "FARGATE" and cpu is not None
    if is_limited and not rules.fits_fargate(cpu, 2 * mib):
        sizes = rules.FARGATE_SIZES
        cpus = [each for each in sizes if rules.fits_fargate(each, 2 * mib)]
        more = f"ECSRun(cpu={cpus[0]}, {memory})" if cpus else "a larger cpu too"
    return f"the task has {mib} MiB: give it more, such as {more}"
