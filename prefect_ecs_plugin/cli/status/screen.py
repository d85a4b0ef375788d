"""An overview as text of 80 columns, or as JSON. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple

import click
from tabulate import tabulate

from ...limits import limit_in
from ...validation.excerpt import shortened
from ..terminal import printable, spoken, wrapped
from .overview import WAITING, Group, Overview, Waiting

#: The states of runs, in their order.
_STATES = ("Scheduled", "Submitted", "Running", "Cancelling")

#: Seconds without a look at the queue after which an agent counts as gone; the longest
#: pause between two looks is 10 s.
_GONE = 60.0

#: Columns of numbers and lengths.
_COUNTS = frozenset(
    [
        *(state.upper() for state in _STATES),
        *("OLDEST", "SINCE", "TAKEN", "OF", "WAITING", "LAST LOOK", "RUNS"),
    ]
)

#: Rows of a table, without a bound for all lines.
_MANY = 20


class _Table(NamedTuple):
    """A table.

    Attributes:
        headings: The first one names what the rows are about.
        rows: Its rows.
        least: How many rows of it are shown even where there is little space.
    """

    headings: Tuple[str, ...]
    rows: Sequence[Sequence[str]]
    least: int


def lines(overview: Overview, height: Optional[int] = None) -> List[str]:
    """The lines of the screen.

    Args:
        overview: What to show.
        height: Lines that there are; None for any number.
    """
    shown = [_head(overview)]
    notes = [line for note in overview.unseen for line in wrapped(note, "")]
    tables = [table for table in _tables(overview) if table.rows]
    if not tables:
        shown.append("No run is due or under way, and no agent is known.")
    if height is None:
        for table in tables:
            shown += ["", *_drawn(table, _MANY)]
    else:
        for table, most in zip(tables, _shares(tables, height - 1 - len(notes))):
            shown += _drawn(table, most)
    if notes:
        shown += ["", *notes] if height is None else notes
    return shown[:height]


def as_json(overview: Overview) -> str:
    """One document; lengths in seconds."""
    document = asdict(overview)
    document["now"] = datetime.fromtimestamp(overview.now, timezone.utc).isoformat()
    for name in ("flows", "labels", "waiting", "tasks", "limits", "agents"):
        # Python before 3.12 leaves named tuples as they are.
        document[name] = [each._asdict() for each in getattr(overview, name)]
    return json.dumps(document, indent=2)


def _head(overview: Overview) -> str:
    now = datetime.fromtimestamp(overview.now, timezone.utc)
    counts = ", ".join(
        f"{overview.states[state]} {state}"
        for state in _STATES
        if overview.states.get(state)
    )
    return click.style(f"{now:%Y-%m-%d %H:%M:%S} UTC  {counts or 'no runs'}", bold=True)


def _shares(tables: Sequence[_Table], height: int) -> List[int]:
    """How many rows of each table are shown in so many lines."""
    shares = [min(len(table.rows), table.least) for table in tables]
    spare = height - len(tables) - sum(shares)
    while spare > 0:
        cut = [n for n, table in enumerate(tables) if shares[n] < len(table.rows)]
        for number in cut[:spare]:
            shares[number] += 1
        spare = spare - len(cut) if cut else 0
    return shares


def _drawn(table: _Table, most: int) -> List[str]:
    """A table's heading and at most so many rows."""
    first, *headings = table.headings
    if len(table.rows) > most:
        first = f"{first} ({most} of {len(table.rows)})"
    cells = [[printable(cell) for cell in row] for row in table.rows[:most]]
    rows = [[first, *headings], *cells]
    are_counts = [name in _COUNTS for name in table.headings]
    align = ["right" if is_count else "left" for is_count in are_counts]
    heading, *rows = tabulate(
        rows, tablefmt="plain", disable_numparse=True, colalign=align
    ).splitlines()
    return [click.style(heading.rstrip(), bold=True), *(row.rstrip() for row in rows)]


def _tables(overview: Overview) -> Iterator[_Table]:
    states = tuple(state.upper() for state in _STATES)
    for name, groups, least in (
        ("FLOW", overview.flows, 3),
        ("LABEL", overview.labels, 2),
    ):
        rows = [_of_group(group) for group in groups]
        yield _Table((name, *states, "OLDEST"), rows, least)
    yield _Table(
        ("WAITS FOR", "SINCE", "RUN"),
        [
            [
                shortened(_reason(each), 40),
                spoken(each.seconds),
                shortened(f"{each.flow}/{each.name}", 25),
            ]
            for each in overview.waiting
        ],
        5,
    )
    yield _Table(
        ("TASKS IN CLUSTER", "REGION", "STATUS"),
        [
            [
                shortened(each.cluster.rpartition("/")[2], 24),
                each.region,
                ", ".join(f"{n} {status}" for status, n in each.statuses.items())
                or "none",
            ]
            for each in overview.tasks
        ],
        2,
    )
    yield _Table(
        ("LIMIT", "TAKEN", "OF", "WAITING"),
        [
            [
                shortened(each.what, 40),
                f"{each.used:g}",
                f"{each.most:g}",
                str(each.waiting),
            ]
            for each in overview.limits
        ],
        2,
    )
    yield _Table(
        ("AGENT", "LABELS", "LAST LOOK", "RUNS"),
        [
            [
                shortened(each.name, 24),
                shortened(", ".join(each.labels) or "none", 24),
                _look(each.seconds),
                str(each.runs),
            ]
            for each in overview.agents
        ],
        2,
    )


def _of_group(group: Group) -> List[str]:
    counts = [str(group.states.get(state, "-")) for state in _STATES]
    return [shortened(group.name, 24), *counts, spoken(group.oldest)]


def _reason(waiting: Waiting) -> str:
    """What a run waits for; of a full limit, its name alone, which fits."""
    limit = limit_in(f"{WAITING}{waiting.reason}")
    return f"limit {limit}" if limit else waiting.reason


def _look(ago: Optional[float]) -> str:
    if ago is None:
        return "never"
    return f"{spoken(ago)} ago" + (", gone" if ago > _GONE else "")
