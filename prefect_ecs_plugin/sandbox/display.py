"""What has happened in the sandbox, as lines or as a table.

Events go in, rows come out, and rows become text: `apply`, `line`, `cells` and
`summary` are pure. Only `table` knows rich, and only the two screens print.

Times are seconds since the sandbox was started.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Union,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: The states a flow run does not leave, and what they look like.
FINISHED = {
    "Success": "green",
    "Skipped": "green",
    "Cached": "green",
    "Failed": "red",
    "TimedOut": "red",
    "TriggerFailed": "red",
    "ValidationFailed": "red",
    "Cancelled": "magenta",
}
UNFINISHED = {
    "Scheduled": "yellow",
    "Queued": "yellow",
    "Submitted": "cyan",
    "Running": "blue",
    "Retrying": "yellow",
    "Cancelling": "magenta",
}
STYLES = {**UNFINISHED, **FINISHED}

#: Levels of log lines that are shown with their name.
LOUD = ("WARNING", "ERROR", "CRITICAL")


@dataclass(frozen=True)
class RunCreated:
    """A flow run that is to be shown."""

    at: float
    run_id: str
    name: str
    flow: str


@dataclass(frozen=True)
class RunState:
    """A flow run has a new state; the message is Prefect's."""

    at: float
    run_id: str
    state: str
    message: str = ""


@dataclass(frozen=True)
class TaskStatus:
    """A flow run's ECS task has a new status."""

    at: float
    run_id: str
    status: str
    exit_code: Optional[int] = None
    reason: str = ""


@dataclass(frozen=True)
class LogLine:
    """A flow run has a new log line."""

    at: float
    run_id: str
    level: str
    message: str


@dataclass(frozen=True)
class Note:
    """Something that belongs to no flow run: from the sandbox or its agent."""

    at: float
    text: str
    level: str = "INFO"


Event = Union[RunCreated, RunState, TaskStatus, LogLine, Note]


@dataclass(frozen=True)
class Row:
    """One flow run, as far as is known."""

    run_id: str
    name: str
    flow: str
    created: float
    changed: float
    state: str = "Scheduled"
    message: str = ""
    task: str = ""
    exit_code: Optional[int] = None
    reason: str = ""
    ended: Optional[float] = None

    @property
    def title(self) -> str:
        """The flow's name and the run's."""
        return f"{self.flow}/{self.name}"

    @property
    def is_finished(self) -> bool:
        """Whether the flow run has ended, and its task with it, if it has one."""
        return self.state in FINISHED and self.task in ("", "STOPPED")

    def seconds(self, now: float) -> float:
        """Return for how long it has been going on, or went on."""
        return (now if self.ended is None else self.ended) - self.created


Rows = Mapping[str, Row]


def apply(rows: Rows, event: Event) -> Dict[str, Row]:
    """Return the rows as they are after an event."""
    if isinstance(event, RunCreated):
        row = Row(event.run_id, event.name, event.flow, event.at, event.at)
        return {**rows, event.run_id: row}
    if isinstance(event, Note) or event.run_id not in rows:
        return dict(rows)
    row = _changed(rows[event.run_id], event)
    return {**rows, event.run_id: row}


def _changed(row: Row, event: Union[RunState, TaskStatus, LogLine]) -> Row:
    if isinstance(event, RunState):
        row = dataclasses.replace(row, state=event.state, message=event.message)
    elif isinstance(event, TaskStatus):
        row = dataclasses.replace(
            row, task=event.status, exit_code=event.exit_code, reason=event.reason
        )
    if isinstance(event, LogLine):  # which may come late
        return dataclasses.replace(row, changed=event.at)
    ended = event.at if row.is_finished else None
    return dataclasses.replace(row, changed=event.at, ended=ended)


def line(rows: Rows, event: Event) -> Optional[str]:
    """Return what is printed for an event, given the rows after it.

    None for the log line or the change of a run that is not shown.
    """
    if isinstance(event, Note):
        return _stamped(event.at, _levelled(event.level, event.text))
    row = rows.get(event.run_id)
    if row is None:
        return None
    if isinstance(event, LogLine):
        text = f"{row.title} | {_levelled(event.level, event.message)}"
        return _stamped(event.at, text)
    return _stamped(event.at, f"{row.title}  {row.state:<9}  {_task(row)}{_why(event)}")


def _stamped(at: float, text: str) -> str:
    return f"{at:6.1f} s  {text}".rstrip()


def _levelled(level: str, text: str) -> str:
    return f"{level} {text}" if level in LOUD else text


def _task(row: Row) -> str:
    if not row.task:
        return "no task"
    if row.exit_code is None:
        return f"task {row.task}"
    return f"task {row.task}, exit code {row.exit_code}"


def _why(event: Event) -> str:
    """What Prefect or ECS says about a failure."""
    if isinstance(event, RunState):
        return _complaint(event.state, event.message)
    if isinstance(event, TaskStatus) and event.exit_code != 0 and event.reason:
        return f": {' '.join(event.reason.split())}"
    return ""


def _complaint(state: str, message: str) -> str:
    failed = FINISHED.get(state) == "red" and message
    return f": {' '.join(message.split())}" if failed else ""


HEADINGS = ("flow run", "flow", "state", "ECS task", "seconds")


def cells(row: Row, now: float) -> Tuple[str, ...]:
    """Return a row's cells, under `HEADINGS`."""
    task = row.task or "-"
    if row.task == "STOPPED" and row.exit_code is not None:
        task = f"{task} ({row.exit_code})"
    return (row.name, row.flow, row.state, task, f"{row.seconds(now):.1f}")


def fitting(rows: Rows, lines: int) -> Tuple[List[Row], int]:
    """Return the rows that fit into so many lines, and how many do not.

    Those that are not finished come first, the newest before the oldest; what is
    shown stays in the order of creation.
    """
    everything = list(rows.values())
    if len(everything) <= lines:
        return everything, 0
    ranked = sorted(everything, key=lambda row: (row.is_finished, -row.created))
    shown = {row.run_id for row in ranked[: max(lines - 1, 1)]}
    return [row for row in everything if row.run_id in shown], len(rows) - len(shown)


def table(rows: Rows, now: float, lines: int, width: int) -> Table:
    """Return the rows as a table.

    Args:
        rows: All of them.
        now: The time.
        lines: How many lines it may take for rows.
        width: How wide it is to be.
    """
    from rich.table import Table
    from rich.text import Text

    shown, hidden = fitting(rows, lines)
    result = Table(width=width, caption=f"and {hidden} more" if hidden else None)
    for heading, width in zip(HEADINGS, (8, 6, 10, 14, 7)):
        result.add_column(heading, min_width=width, no_wrap=True, overflow="ellipsis")
    for column in result.columns[:2]:  # the names get what is left
        column.ratio = 1
    result.columns[-1].justify = "right"
    for row in shown:
        name, flow, state, task, seconds = cells(row, now)
        styled = Text(state, style=STYLES.get(state, ""))
        result.add_row(Text(name), Text(flow), styled, Text(task), seconds)
    return result


#: What Prefect says of a run whose tasks failed. It does not say why.
TASKS_FAILED = "Some reference tasks failed."

#: The same of a task, before the exception.
TASK_FAILED = "Error during execution of task: "

#: How many characters of an exception are shown.
LONGEST_CAUSE = 200


def cause(slug: str, message: str, failed: int) -> str:
    """Return why a run failed, in one line.

    Args:
        slug: The first failed task, as Prefect has it: `load-1`.
        message: That task run's state message.
        failed: How many task runs failed.
    """
    text = " ".join(message.split())
    if text.startswith(TASK_FAILED):
        text = text[len(TASK_FAILED) :]
    if len(text) > LONGEST_CAUSE:
        text = f"{text[:LONGEST_CAUSE]}..."
    others = f" (and {failed - 1} more)" if failed > 1 else ""
    return f"task {re.sub('-[0-9]+$', '', slug)!r}{others}: {text}"


def summary(
    rows: Rows,
    calls: Mapping[str, int],
    now: float,
    causes: Mapping[str, str] = {},
) -> List[str]:
    """Return the last lines: each run's end, and the calls to AWS.

    Args:
        rows: All the runs.
        calls: How often each operation was called, as `ecs.RunTask`.
        now: The time at which those that are not finished were given up.
        causes: Why tasks of a run failed, by the run's id.
    """
    lines = [
        f"{row.title}: {row.state}, {_task(row)}, {row.seconds(now):.1f} s"
        + _complaint(row.state, _message(row, causes))
        for row in rows.values()
    ]
    ecs = {name[4:]: n for name, n in calls.items() if name.startswith("ecs.")}
    others = {name: n for name, n in calls.items() if not name.startswith("ecs.")}
    lines.append("ECS calls: " + (_listed(ecs) or "none"))
    if others:
        lines.append("Other AWS calls: " + _listed(others))
    return lines


def _message(row: Row, causes: Mapping[str, str]) -> str:
    """The message of a run's state, or the exception where that says nothing."""
    is_vague = row.message == TASKS_FAILED
    return (causes.get(row.run_id) if is_vague else "") or row.message


def _listed(counts: Mapping[str, int]) -> str:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {number}" for name, number in ranked)


class Screen:
    """Where events are shown.

    Attributes:
        rows: What is known after the last event.
    """

    def __init__(self) -> None:
        self.rows: Dict[str, Row] = {}

    def show(self, events: Iterable[Event], now: float) -> None:
        """Take in what has happened and show it."""
        for event in events:
            self.rows = apply(self.rows, event)
            text = line(self.rows, event)
            if text is not None and self.prints(event):
                self.say([text])

    def busy(self, text: str, now: float) -> None:
        """Show what is being started."""
        raise NotImplementedError

    def prints(self, event: Event) -> bool:
        """Whether an event gets a line of its own."""
        return True

    def say(self, texts: Sequence[str], whole: bool = False) -> None:
        """Print lines that are no events.

        Args:
            texts: The lines.
            whole: Leave long lines as they are, for a user who copies them.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Give the terminal back."""


class Lines(Screen):
    """A screen for pipes and files: one line for each event.

    Args:
        write: Prints one line.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__()
        self._write = write

    def busy(self, text: str, now: float) -> None:
        self._write(_stamped(now, text))

    def say(self, texts: Sequence[str], whole: bool = False) -> None:
        for text in texts:
            self._write(text)


class LiveTable(Screen):
    """A screen for terminals: a table at the bottom, log lines passing above it.

    Args:
        console: Where to draw.
    """

    #: Lines left for borders, headings, the caption and some log lines.
    SPARED_LINES = 10

    #: Columns left for the ^C that a terminal echoes: if it wrapped to the next line,
    #: the table would be redrawn one line too low.
    SPARED_COLUMNS = 2
    MOST_COLUMNS = 100

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        super().__init__()
        self._console = console
        self._live = Live(console=console, auto_refresh=False)
        self._status = console.status("")

    def busy(self, text: str, now: float) -> None:
        if not self.rows:  # the table moves by itself
            self._status.update(text)
            self._status.start()

    def show(self, events: Iterable[Event], now: float) -> None:
        super().show(events, now)
        if self.rows:
            lines = max(self._console.height - self.SPARED_LINES, 1)
            width = min(self._console.width - self.SPARED_COLUMNS, self.MOST_COLUMNS)
            self._status.stop()  # rich shows one of the two at a time
            self._live.start()
            self._live.update(table(self.rows, now, lines, width), refresh=True)

    def prints(self, event: Event) -> bool:
        return isinstance(event, (LogLine, Note))

    def say(self, texts: Sequence[str], whole: bool = False) -> None:
        for text in texts:
            self._console.print(text, markup=False, highlight=False, soft_wrap=whole)

    def close(self) -> None:
        self._status.stop()
        self._live.stop()
