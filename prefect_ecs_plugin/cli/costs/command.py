"""`prefect agent ecs costs`: the options and the table."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from typing import Any, Dict, List, Mapping, Optional, TextIO

import click

from ...validation.excerpt import shortened
from ..click_types import NamedCommand, one_line_errors
from ..terminal import printable
from .sums import KINDS, Stopped, Sum, by, total

HELP = """\
Add up what the tasks of flow runs used and cost.

It reads the line that an agent writes about each stopped task: from the logs of the
flow runs at the Prefect API or, with --log, from an agent's own log in JSON. WAITING is
the share of the tasks' time before the image pull; AWS bills PULLING and RUNNING.

\b
  prefect agent ecs costs
  prefect agent ecs costs --since 7d --by day
  prefect agent ecs costs --by label --log agent.log --json

The dollars are those in the lines; docs/costs.md has the arithmetic.
"""

#: Characters of a name in the table, so that a row fits 80 columns.
_WIDTH = 22

_PARTS_OF_TIME = ("WAITING", "PULLING", "RUNNING")

_UNITS: Mapping[str, str] = {"h": "hours", "d": "days", "w": "weeks"}


def _age(ctx: click.Context, param: click.Parameter, value: str) -> timedelta:
    """A length of time up to now, such as `12h`, `30d` or `4w`."""
    match = re.fullmatch(r"(\d{1,4})([hdw])", value.strip())
    if match is None:
        raise click.BadParameter(
            f"{value!r} is not a number of hours, days or weeks, such as 12h, 30d or "
            "4w [invalid-option-value]"
        )
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


@click.command("costs", cls=NamedCommand, help=HELP)
@click.option(
    "--since",
    callback=_age,
    default="30d",
    metavar="AGE",
    help="Tasks that stopped in this time: a number of hours, days or weeks, such as "
    "12h, 30d or 4w.",
)
@click.option(
    "--by",
    "kind",
    type=click.Choice(KINDS),
    default="flow",
    help="What to add up by. Days are those of UTC.",
)
@click.option(
    "--log",
    type=click.File(encoding="utf-8", errors="replace"),
    metavar="FILE",
    help="An agent's log in JSON, or - for stdin. Default: the logs of the flow runs "
    "at the Prefect API.",
)
@click.option("--json", "as_json", is_flag=True, help="Write one JSON document.")
def costs(since: timedelta, kind: str, log: Optional[TextIO], as_json: bool) -> None:
    began = datetime.now(timezone.utc) - since
    with one_line_errors():
        from . import reading

        found = reading.from_log(log, began) if log else reading.from_api(began)
        tasks = list({task.task: task for task in found}.values())
    if as_json:
        click.echo(json.dumps(as_data(kind, began, tasks), indent=2))
    elif tasks:
        click.echo("\n".join(table(kind, tasks)))
    else:
        where = "the log" if log else "the logs of flow runs"
        click.echo(
            f"There is no stopped task in {where} since {began:%Y-%m-%d %H:%M} UTC."
        )


def as_data(kind: str, since: datetime, tasks: List[Stopped]) -> Dict[str, Any]:
    """What `--json` prints."""
    return {
        "since": since.isoformat(),
        "by": kind,
        "rows": [{kind: name, **_data(each)} for name, each in by(kind, tasks).items()],
        "total": _data(total(tasks)),
    }


def _data(each: Sum) -> Dict[str, Any]:
    return {
        "tasks": each.tasks,
        "vcpu_hours": round(each.vcpu_hours, 6),
        "gb_hours": round(each.gb_hours, 6),
        "dollars": round(each.dollars, 6),
        "tasks_without_price": each.unpriced,
        "seconds": {part: round(taken, 1) for part, taken in each.seconds.items()},
        "shares": {part: round(share, 4) for part, share in each.shares.items()},
    }


def table(kind: str, tasks: List[Stopped]) -> List[str]:
    """The lines that people read."""
    whole = total(tasks)
    lines = [
        _row(kind.upper(), "TASKS", "VCPU H", "GB H", "DOLLARS", *_PARTS_OF_TIME),
        *(_line(name, each) for name, each in by(kind, tasks).items()),
        _line("all", whole),
    ]
    if kind == "label" and any(len(task.labels) > 1 for task in tasks):
        lines.append("A run with several labels counts for each of them.")
    if whole.unpriced:
        lines.append(
            f"{whole.unpriced} of the tasks have no known price: they ran elsewhere "
            "than on Fargate, or the\nagent had no price of their region and platform."
        )
    return lines


def _line(name: str, each: Sum) -> str:
    shares = (f"{share:.0%}" for share in each.shares.values())
    return _row(
        name,
        str(each.tasks),
        f"{each.vcpu_hours:.2f}",
        f"{each.gb_hours:.2f}",
        f"${each.dollars:.2f}" if each.dollars >= 1 else f"${each.dollars:.4f}",
        *shares,
    )


def _row(name: str, *cells: str) -> str:
    """A line of 80 columns."""
    widths = (5, 8, 8, 9, 7, 7, 7)
    row = " ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths))
    return f"{shortened(printable(name), _WIDTH):<{_WIDTH}} {row}"
