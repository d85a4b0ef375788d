"""What was read about a run -> all that the page tells, without secrets. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from ...aws import console_links
from ...monitoring import costs, fargate_prices, phases
from ...monitoring.costs import Cost
from ...monitoring.decision import Task
from ...observability import redaction
from . import causes
from .causes import Cause
from .seen import TASK_RUNS, Line, Seen, claims_of, moment
from .timeline import Span, longest, timeline

#: Characters of one line of a log.
_LONGEST_LINE = 1000
#: Members of a described task that RunTask was given.
_OF_REQUEST = (
    *("taskDefinitionArn", "clusterArn", "launchType", "capacityProviderName"),
    *("platformVersion", "overrides", "group", "startedBy", "enableExecuteCommand"),
    *("tags", "cpu", "memory"),
)

#: Members of a described definition that ECS added.
_ADDED = frozenset(
    {
        *("taskDefinitionArn", "revision", "status", "requiresAttributes"),
        *("compatibilities", "registeredAt", "registeredBy", "deregisteredAt"),
    }
)


@dataclass(frozen=True)
class TaskRun:
    """A task run of the flow.

    Attributes:
        name: Its task's name, with its number if it is one of many.
        state: The name of its state.
        seconds: How long it took, or has taken; None if it did not begin.
        message: Its state's message.
    """

    name: str
    state: str
    seconds: Optional[float]
    message: str


@dataclass(frozen=True)
class Explanation:
    """Everything that is told about a run, without secrets.

    Attributes:
        run: Its id, name, state, flow, agent, times: facts by their names.
        cause: Why it ended; None if it goes on or has succeeded.
        waits_for: What it waits for; empty if it has ended.
        spans: Its phases, the first one first.
        longest: The longest of them.
        task_runs: Its task runs, those that failed or took longest first.
        task_run_states: How many of them are in which state.
        tasks: Its ECS tasks: facts by their names, the oldest first.
        costs: What those that have stopped used and cost, as far as it is known.
        log: The last lines of its log.
        log_source: Where they are.
        requests: What ECS shows of the two requests that made its last task.
        links: Where to look in the AWS console.
        unseen: What is not known, and why.
    """

    run: Mapping[str, Any]
    cause: Optional[Cause]
    waits_for: str
    spans: Tuple[Span, ...]
    longest: Optional[Span]
    task_runs: Tuple[TaskRun, ...]
    task_run_states: Mapping[str, int]
    tasks: Tuple[Mapping[str, Any], ...]
    costs: Tuple[Cost, ...]
    log: Tuple[str, ...]
    log_source: str
    requests: Mapping[str, Any]
    links: Tuple[str, ...]
    unseen: Tuple[str, ...]

    @property
    def seconds(self) -> float:
        """From the first event to the last one."""
        return self.spans[-1].end - self.spans[0].begin if self.spans else 0.0


def explain(seen: Seen, log_lines: int) -> Explanation:
    """Assemble the explanation of a run, without secrets.

    Args:
        seen: What was read.
        log_lines: How many of the last lines of its log to tell.
    """
    seen = without_secrets(seen)
    spans = timeline(seen)
    log, log_source = _log(seen, log_lines)
    return Explanation(
        run=_run(seen),
        cause=causes.cause(seen),
        waits_for=causes.waits_for(seen),
        spans=spans,
        longest=longest(spans),
        task_runs=tuple(_task_runs(seen)),
        task_run_states=dict(
            Counter(str(each["state"]) for each in seen.row.get("task_runs") or ())
        ),
        tasks=tuple(map(_task, seen.tasks)),
        costs=tuple(_costs(seen)),
        log=log,
        log_source=log_source,
        requests=_requests(seen),
        links=_links(seen),
        unseen=(*_not_seen(seen), *seen.unseen),
    )


def secrets_of(seen: Seen) -> List[str]:
    """The secrets of a run, its tasks and its definition."""
    described = [task.get("overrides") for task in seen.tasks]
    return [*seen.secrets, *redaction.secrets_in(described, seen.definition)]


def without_secrets(seen: Seen) -> Seen:
    """What was read, with stars in place of secrets."""
    secrets = secrets_of(seen)

    def clean(lines: Sequence[Line]) -> List[Line]:
        messages = [each.message for each in lines]
        texts = redaction.redact_lines(messages, secrets, redaction.LONGEST_TEXT)
        return [each._replace(message=text) for each, text in zip(lines, texts)]

    container_log = seen.container_log
    if container_log is not None:
        container_log = redaction.redact_lines(container_log, secrets, _LONGEST_LINE)
    return replace(
        seen,
        row=redaction.redact(seen.row, secrets),
        said=clean(seen.said),
        log=clean(seen.log),
        tasks=redaction.redact(seen.tasks, secrets),
        definition=redaction.redact(seen.definition, secrets),
        container_log=container_log,
        unseen=[redaction.redact_text(each, secrets) for each in seen.unseen],
    )


def _run(seen: Seen) -> Dict[str, Any]:
    row = seen.row
    flow, agent = row.get("flow") or {}, row.get("agent") or {}
    return {
        **{key: row.get(key) for key in ("id", "name", "state", "state_message")},
        "flow": flow.get("name"),
        "flow_version": flow.get("version"),
        "project": (flow.get("project") or {}).get("name"),
        "labels": list(row.get("labels") or ()),
        "agent": agent.get("name"),
        **{
            key: row.get(key)
            for key in ("scheduled_start_time", "start_time", "end_time")
        },
        "resurrected": row.get("times_resurrected") or 0,
    }


def _task_runs(seen: Seen) -> Iterator[TaskRun]:
    """The task runs: those that failed first, then those at work, then the longest."""
    found, end = [], moment(seen.row.get("end_time")) or seen.now
    for row in seen.row.get("task_runs") or ():
        begun, ended = moment(row.get("start_time")), moment(row.get("end_time"))
        took = None if begun is None else (ended or end) - begun
        found.append(
            TaskRun(
                causes.name_of(row),
                str(row["state"]),
                took,
                str(row.get("state_message") or ""),
            )
        )

    def rank(each: TaskRun) -> Tuple[int, float]:
        order = ("Failed", "TimedOut", "Running", "Retrying")
        place = order.index(each.state) if each.state in order else len(order)
        return place, -(each.seconds or 0.0)

    return iter(sorted(found, key=rank))


def _task(task: Task) -> Dict[str, Any]:
    name = console_links.TaskName.of(str(task["taskArn"]))
    members = ("lastStatus", "stopCode", "stoppedReason", "cpu", "memory")
    return {
        "task_arn": task["taskArn"],
        "id": name.task_id,
        "cluster": name.cluster,
        "region": name.region,
        "provider": task.get("capacityProviderName") or task.get("launchType"),
        **{member: task.get(member) for member in members},
        "containers": [
            {key: each.get(key) for key in ("name", "lastStatus", "exitCode", "reason")}
            for each in task.get("containers") or ()
        ],
    }


def _costs(seen: Seen) -> Iterator[Cost]:
    """What agents wrote about the costs of tasks, else what the table of prices says.

    An agent may have asked AWS for the prices, and ECS may have forgotten the task.
    """
    found: Dict[str, Optional[Cost]] = {}
    for task in seen.tasks:
        name = str(task["taskArn"]).rpartition("/")[2]
        found[name] = costs.cost_of(task, fargate_prices.prices_of)
    for line in seen.said:
        told = phases.read(line.message)
        if told:
            found[told[0]] = costs.read(line.message) or found.get(told[0])
    yield from filter(None, found.values())


def _log(seen: Seen, count: int) -> Tuple[Tuple[str, ...], str]:
    """The last lines of the container's log, or else those that the API has."""
    if seen.container_log:
        return tuple(seen.container_log), seen.log_source
    lines: List[str] = []
    for each in seen.log:
        begin = (
            f"{datetime.fromtimestamp(each.at, timezone.utc):%H:%M:%S} {each.level} "
        )
        first, *others = each.message.splitlines() or [""]
        lines += [begin + first, *(f"  {line}" for line in others)]
    return tuple(lines[-count:]), "the run's log at the Prefect API"


def _links(seen: Seen) -> Tuple[str, ...]:
    if not seen.task_arn:
        return ()
    urls = (
        console_links.task_url(seen.task_arn),
        console_links.log_url(seen.task_arn, seen.definition or {}),
    )
    return tuple(filter(None, urls))


def _requests(seen: Seen) -> Dict[str, Any]:
    """Both requests, as far as ECS shows them."""
    task, definition = seen.task, seen.definition
    if task is None:
        return {}
    run_task = {key: task[key] for key in _OF_REQUEST if task.get(key)}
    if definition is None:
        return {"RunTask": run_task}
    register = {key: each for key, each in definition.items() if key not in _ADDED}
    return {"RunTask": run_task, "RegisterTaskDefinition": register}


def _not_seen(seen: Seen) -> Iterator[str]:
    """What is missing although it was asked for."""
    if len(seen.row.get("task_runs") or ()) >= TASK_RUNS:
        yield f"Of the task runs, the {TASK_RUNS} that changed last are counted."
    claims = claims_of(seen.row)
    if not claims and not seen.task_arn:
        if seen.has_ended or seen.state == "Running":
            yield "No agent has taken this run, as far as the API shows."
        return
    if claims and claims[-1].record is None:
        yield (
            "The run has no launch record: another kind of agent took it, or the API "
            "drops the context of states."
        )
    if seen.tasks or not seen.were_listed:
        return
    if seen.task_arn:
        name = seen.task_arn.rpartition("/")[2]
        yield f"ECS has forgotten task {name}; it keeps stopped tasks for an hour."
    else:
        yield "ECS shows no task of this run; it keeps stopped tasks for an hour."
