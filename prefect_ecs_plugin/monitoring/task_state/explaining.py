"""A judgement in words: one line for the run's state, several for its log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterable, Iterator, List, Mapping, Optional, Sequence

from ...aws import console_links
from ...flow_run import FLOW_CONTAINER
from ...observability import redaction
from ...validation import rules
from ..stop_reasons import EXIT_CODES
from . import described
from .described import Described
from .judging import Judgement, Verdict

#: Characters of ECS's own words in a state message; the log has all of them.
_LONGEST_REASON = 300

#: Characters of a line of the container's own log.
_LONGEST_LINE = 1000

#: Hints whose remedy is more memory.
_ABOUT_MEMORY = frozenset({"memory", "killed"})


@dataclass(frozen=True)
class Explanation:
    """What people read about a stopped task.

    Attributes:
        message: One line, for the state and the agent's log.
        log: Several lines, for the run's log.
    """

    message: str
    log: str


def explain(
    task_arn: str,
    task: Optional[Described],
    definition: Optional[Mapping[str, Any]],
    judgement: Judgement,
    log_lines: Sequence[str] = (),
    secrets: Sequence[str] = (),
) -> Explanation:
    """Say what happened and what to do about it.

    Args:
        task_arn: The task.
        task: As described, None if ECS does not know it any more.
        definition: Its definition, rendered or described, if it is known.
        judgement: What was decided.
        log_lines: The last lines of the flow container's own log.
        secrets: What is known to be secret, besides what the task and its definition
            have.

    Returns:
        Both texts, without secrets. Words of others are cut after these are out.
    """
    seen, known = task or {}, definition or {}
    secrets = [*secrets, *redaction.secrets_in(seen.get("overrides"), definition)]
    remedy = _remedy(seen, known, judgement)
    message = f"{_opening(judgement)}; {remedy}{_quoted(seen, secrets)}"
    lines = [
        f"{_opening(judgement)}.",
        f"What to do: {remedy}.",
        *_facts(seen),
        *_links(task_arn, known),
        f"More about this: {judgement.hint.source}",
        *_tail(redaction.redact_lines(log_lines, secrets, _LONGEST_LINE)),
    ]
    return Explanation(
        redaction.redact_text(_one_line(message), secrets),
        redaction.redact_text("\n".join(lines), secrets),
    )


def _opening(judgement: Judgement) -> str:
    """What happened, and what the agent does about it."""
    verb = "stopped before the run was finished" if judgement.started else "never ran"
    opening = f"The ECS task {verb} because {judgement.hint.cause}"
    if judgement.verdict is Verdict.RELAUNCH:
        next_start = f"{judgement.attempt + 1} of {judgement.limit}"
        return f"{opening}, and is launched again (start {next_start})"
    if not judgement.started and judgement.attempt > 1:
        return f"{opening}, and neither did the {judgement.attempt - 1} before it"
    return opening


def _remedy(
    task: Described, definition: Mapping[str, Any], judgement: Judgement
) -> str:
    if judgement.hint.name in _ABOUT_MEMORY:
        return _more_memory(task, definition)
    return judgement.hint.remedy


# -- Memory ---------------------------------------------------------------------


def _more_memory(task: Described, definition: Mapping[str, Any]) -> str:
    """How much memory the flow had, and how to give it twice as much."""
    of_container = _container_memory(task, definition)
    if of_container is not None:
        return (
            f"the container {FLOW_CONTAINER!r} has {of_container} MiB: raise its "
            "`memory` in the task definition template, or leave it out so that the "
            "task's counts"
        )
    of_task = rules.memory_mib(task.get("memory") or definition.get("memory"))
    if of_task is None:
        return "set `memory` in the run config, such as ECSRun(memory='4 GB')"
    return f"the task has {of_task} MiB: give it more, such as {_larger(task, of_task)}"


def _container_memory(task: Described, definition: Mapping[str, Any]) -> Optional[int]:
    """The hard limit of the flow's container, the override's before its own."""
    overrides = (task.get("overrides") or {}).get("containerOverrides") or ()
    for container in [*overrides, *(definition.get("containerDefinitions") or ())]:
        if container.get("name") == FLOW_CONTAINER and container.get("memory"):
            return int(container["memory"])
    return None


def _larger(task: Described, mib: int) -> str:
    """A run config with twice the memory, and the cpu that Fargate wants with it."""
    memory = f"memory='{2 * mib // 1024} GB'" if mib >= 512 else f"memory={2 * mib}"
    cpu = rules.cpu_units(task.get("cpu"))
    on_fargate = task.get("launchType") == "FARGATE"
    if not on_fargate or cpu is None or rules.fits_fargate(cpu, 2 * mib):
        return f"ECSRun({memory})"
    fitting = [
        each for each in rules.FARGATE_SIZES if rules.fits_fargate(each, 2 * mib)
    ]
    return f"ECSRun(cpu={fitting[0]}, {memory})" if fitting else "a larger cpu too"


# -- Lines ----------------------------------------------------------------------


def _quoted(task: Described, secrets: Sequence[str]) -> str:
    """ECS's own words, short enough for a state message."""
    code, words = task.get("stopCode"), described.reasons(task)
    said = ": ".join(str(part) for part in (code, *words[:1]) if part)
    said = redaction.redact_text(said, secrets, _LONGEST_REASON)
    return f" (ECS says: {said})" if said else ""


def _facts(task: Described) -> Iterator[str]:
    for key in ("stopCode", "stoppedReason"):
        if task.get(key):
            yield f"{key}: {_one_line(str(task[key]))}"
    for container in task.get("containers") or ():
        yield f"Container {container.get('name')!r}: {_fate(container)}"


def _fate(container: Mapping[str, Any]) -> str:
    code: Any = container.get("exitCode")
    fate = "no exit code" if code is None else f"exit code {code}"
    if code in EXIT_CODES:
        fate = f"{fate}, {EXIT_CODES[code]}"
    reason = container.get("reason")
    return f"{fate}; {_one_line(str(reason))}" if reason else fate


def _links(task_arn: str, definition: Mapping[str, Any]) -> Iterator[str]:
    yield f"Task {task_arn}: {console_links.task_url(task_arn)}"
    logs = console_links.log_url(task_arn, definition)
    if logs:
        yield f"Its log: {logs}"


def _tail(log_lines: Sequence[str]) -> List[str]:
    if not log_lines:
        return []
    return [f"The last {len(log_lines)} lines of its log:", *_indented(log_lines)]


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (f"    {line}" for line in lines)


def _one_line(text: str) -> str:
    return " ".join(text.split())
