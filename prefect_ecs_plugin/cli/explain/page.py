"""An explanation as text of 80 columns, or as JSON. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any, Iterator, List, Mapping, Sequence, Tuple

import click
import yaml

from ...monitoring.costs import Cost, price_tag, sentence
from ...validation.excerpt import shortened
from ..terminal import WIDTH, printable, spoken, wrapped
from .account import Explanation
from .timeline import Phase

#: Task runs that are shown.
_TASK_RUNS = 5

_COLOURS = {"Success": "green", "Failed": "red", "Cancelled": "yellow"}

#: Before the details of a phase.
_INDENT = " " * 25


def page(explained: Explanation, with_requests: bool = False) -> str:
    """The page.

    Args:
        explained: What to tell.
        with_requests: Whether to show both requests whole.
    """
    requests = explained.requests
    # The cause comes last: what a terminal shows when the command has ended.
    parts = [
        list(_head(explained)),
        _section("Timeline (UTC)", list(_timeline(explained))),
        _section("Task runs", list(_task_runs(explained))),
        _section("Requests", list((_whole if with_requests else _folded)(requests))),
        _section("In the AWS console", [*map(_url, explained.links)]),
        _section(
            "Not seen", [each for note in explained.unseen for each in wrapped(note)]
        ),
        _section(
            printable(f"Last lines of {explained.log_source}"),
            [line for each in explained.log for line in wrapped(each, later="      ")],
        ),
        _section(*_why(explained)),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def as_json(explained: Explanation) -> str:
    """One document; times in ISO 8601, lengths in seconds."""
    document = asdict(explained)
    for name in ("spans", "longest"):
        del document[name]
    document["seconds"] = round(explained.seconds, 3)
    document["timeline"] = [
        {
            **asdict(span),
            "phase": span.phase.value,
            "begin": _at(span.begin).isoformat(),
            "end": _at(span.end).isoformat(),
            "seconds": round(span.seconds, 3),
            "is_longest": span is explained.longest,
        }
        for span in explained.spans
    ]
    return json.dumps(document, indent=2, default=str)


def _url(url: str) -> str:
    return f"  {printable(url)}"


def _section(heading: str, lines: Sequence[str]) -> List[str]:
    return [click.style(heading, bold=True), *lines] if lines else []


def _at(moment: float) -> datetime:
    return datetime.fromtimestamp(moment, timezone.utc)


def _head(explained: Explanation) -> Iterator[str]:
    run, spans = explained.run, explained.spans
    state = printable(str(run["state"]))
    title = printable(f"Flow run {run['name']} is ")
    yield click.style(title, bold=True) + click.style(
        state, fg=_COLOURS.get(state, "cyan"), bold=True
    )
    flow = f"{run['flow']}, version {run['flow_version']}, project {run['project']}"
    yield from _fact("flow", flow)
    yield from _fact("run", str(run["id"]))
    labels = ", ".join(run["labels"]) or "none"
    yield from _fact("agent", f"{run['agent'] or 'none yet'}; labels: {labels}")
    for task in explained.tasks[-1:]:
        size = f"cpu {task['cpu']}, memory {task['memory']}"
        where = f"in cluster {task['cluster']}, {task['region']}"
        yield from _fact("task", f"{task['id']} {where}; {task['provider']}, {size}")
    if explained.costs:
        yield from _fact("cost", _cost(explained.costs))
    if spans:
        begin, end = _at(spans[0].begin), _at(spans[-1].end)
        same_day = "%H:%M:%S" if begin.date() == end.date() else "%Y-%m-%d %H:%M:%S"
        until = "now" if spans[-1].is_open else f"{end:{same_day}}"
        took = spoken(explained.seconds)
        yield from _fact("time", f"{took}: {begin:%Y-%m-%d %H:%M:%S} to {until} UTC")


def _cost(costs: Sequence[Cost]) -> str:
    """What all tasks of the run cost; of a single one, also what it used."""
    dollars = [each.dollars for each in costs if each.dollars is not None]
    if len(costs) == 1 or len(dollars) < len(costs):
        return "; ".join(map(sentence, costs))
    return f"{price_tag(sum(dollars))} for {len(costs)} tasks"


def _fact(name: str, text: str) -> List[str]:
    return wrapped(text, f"  {name:<7}", " " * 9)


def _why(explained: Explanation) -> Tuple[str, List[str]]:
    cause = explained.cause
    lines = wrapped(explained.waits_for) if explained.waits_for else []
    if cause is None:
        return "What it waits for", lines
    lines += wrapped(f"{cause.text}.")
    if cause.remedy:
        lines += wrapped(f"What to do: {cause.remedy}.")
    for fact in cause.facts:
        lines += wrapped(fact, "  - ", "    ")
    if cause.source:
        lines += [f"  More: {cause.source}"]
    heading = "Why it ended" if not explained.waits_for else "Why its task stopped"
    return f"{heading} [{cause.code}]" if cause.code else heading, lines


def _timeline(explained: Explanation) -> Iterator[str]:
    spans, has_several = explained.spans, len(explained.tasks) > 1
    days = {_at(moment).date() for span in spans for moment in (span.begin, span.end)}
    time = "%H:%M:%S" if len(days) < 2 else "%m-%d %H:%M:%S"
    for span in spans:
        name = span.phase.value
        if has_several and span.phase is Phase.PROVISIONING:
            name = f"{name} of task {span.task[:8]}"
        name = f"{name} so far" if span.is_open else name
        row = f"  {_at(span.begin):{time}}  {spoken(span.seconds):>11}  {name}"
        if span is explained.longest:
            row = click.style(f"{row}  <- longest", bold=True)
        yield row
        if span.detail:
            yield from wrapped(span.detail, _INDENT)
    if spans and not spans[-1].is_open:
        state = printable(explained.run["state"])
        yield f"  {_at(spans[-1].end):{time}}  {'':<13}{state}"


def _task_runs(explained: Explanation) -> Iterator[str]:
    counts = explained.task_run_states
    if not counts:
        return
    yield from wrapped(", ".join(f"{count} {state}" for state, count in counts.items()))
    for each in explained.task_runs[:_TASK_RUNS]:
        took = spoken(each.seconds) if each.seconds is not None else "-"
        row = f"  {took:>11}  {each.state:<9} {shortened(each.name, 24)}"
        row = f"{row}: {each.message}" if each.message else row
        yield shortened(printable(row), WIDTH)
    left = sum(counts.values()) - _TASK_RUNS
    if left > 0:
        yield f"  and {left} more (--json has them)"


def _folded(requests: Mapping[str, Any]) -> Iterator[str]:
    """One line or two about each request."""
    run_task, register = requests.get("RunTask"), requests.get("RegisterTaskDefinition")
    if run_task:
        overrides = run_task.get("overrides") or {}
        containers = overrides.get("containerOverrides") or ()
        variables = sum(len(each.get("environment") or ()) for each in containers)
        name = str(run_task.get("taskDefinitionArn")).rpartition("/")[2]
        tags = len(run_task.get("tags") or ())
        provider = run_task.get("capacityProviderName") or run_task.get("launchType")
        yield from wrapped(
            f"RunTask: {name} on {provider}, {variables} variables, {tags} tags"
        )
    if register:
        images = ", ".join(
            f"{each.get('name')} ({each.get('image')})"
            for each in register.get("containerDefinitions") or ()
        )
        size = f"cpu {register.get('cpu')}, memory {register.get('memory')}"
        yield from wrapped(f"RegisterTaskDefinition: {images}; {size}")
    if requests:
        yield "  --requests shows them whole, with secrets masked."


def _whole(requests: Mapping[str, Any]) -> Iterator[str]:
    for name, request in requests.items():
        yield f"  {name}, as ECS shows it:"
        text = yaml.safe_dump(request, sort_keys=False, allow_unicode=True)
        yield from (f"    {printable(line)}" for line in text.splitlines())
