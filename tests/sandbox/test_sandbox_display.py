"""The sandbox's display: events in, rows, lines and tables out."""

from __future__ import annotations

import io
import re
from functools import reduce
from typing import Any, Dict, List, Optional

import pytest

from prefect_ecs_plugin.sandbox.display import (
    Event,
    Lines,
    LiveTable,
    LogLine,
    Note,
    Row,
    RunCreated,
    RunState,
    TaskStatus,
    apply,
    cause,
    cells,
    fitting,
    line,
    summary,
    table,
)

rich_console = pytest.importorskip("rich.console", reason="needs the sandbox extra")

CREATED = RunCreated(1.0, "r1", "happy-cat", "example")

SUCCESS: List[Event] = [
    CREATED,
    RunState(2.0, "r1", "Submitted", "Submitted for execution"),
    TaskStatus(2.5, "r1", "PROVISIONING"),
    RunState(3.0, "r1", "Running", "Running flow."),
    LogLine(3.5, "r1", "INFO", "hello"),
    RunState(4.0, "r1", "Success", "All reference tasks succeeded."),
    TaskStatus(4.5, "r1", "STOPPED", 0, "Essential container in task exited"),
]

CRASH: List[Event] = [
    CREATED,
    RunState(2.0, "r1", "Failed", "Some reference\n  tasks failed."),
    TaskStatus(5.0, "r1", "STOPPED", 1, "Essential container in task exited"),
    LogLine(6.0, "r1", "ERROR", "boom"),
]

NEVER_LAUNCHED: List[Event] = [
    CREATED,
    RunState(2.0, "r1", "Failed", "Cluster 'x' is INACTIVE."),
]


def rows_after(events: List[Event]) -> Dict[str, Row]:
    start: Dict[str, Row] = {}
    return reduce(apply, events, start)


@pytest.mark.parametrize(
    "events, row",
    [
        (
            SUCCESS[:1],
            Row("r1", "happy-cat", "example", created=1.0, changed=1.0),
        ),
        (
            SUCCESS,
            Row(
                "r1",
                "happy-cat",
                "example",
                created=1.0,
                changed=4.5,
                state="Success",
                message="All reference tasks succeeded.",
                task="STOPPED",
                exit_code=0,
                reason="Essential container in task exited",
                ended=4.5,
            ),
        ),
        (
            CRASH,  # a late log line does not make the run longer
            Row(
                "r1",
                "happy-cat",
                "example",
                created=1.0,
                changed=6.0,
                state="Failed",
                message="Some reference\n  tasks failed.",
                task="STOPPED",
                exit_code=1,
                reason="Essential container in task exited",
                ended=5.0,
            ),
        ),
        (
            NEVER_LAUNCHED,
            Row(
                "r1",
                "happy-cat",
                "example",
                created=1.0,
                changed=2.0,
                state="Failed",
                message="Cluster 'x' is INACTIVE.",
                ended=2.0,
            ),
        ),
    ],
)
def test_events_make_a_row(events: List[Event], row: Row) -> None:
    assert rows_after(events) == {"r1": row}


def test_apply_leaves_the_rows_it_was_given() -> None:
    before = rows_after(SUCCESS[:3])
    kept = dict(before)
    apply(before, SUCCESS[3])
    assert before == kept


@pytest.mark.parametrize(
    "state, task, finished",
    [
        ("Scheduled", "", False),
        ("Running", "RUNNING", False),
        ("Success", "RUNNING", False),  # its exit code is still to come
        ("Success", "STOPPED", True),
        ("Running", "STOPPED", False),  # lost, or waiting for a retry
        ("Failed", "", True),
        ("Cancelled", "", True),
        ("Skipped", "STOPPED", True),
        ("Cancelling", "STOPPED", False),
    ],
)
def test_a_run_is_finished_with_its_task(state: str, task: str, finished: bool) -> None:
    row = Row("r1", "n", "f", 0.0, 0.0, state=state, task=task)
    assert row.is_finished is finished


@pytest.mark.parametrize(
    "history, event, text",
    [
        ([], CREATED, "   1.0 s  example/happy-cat  Scheduled  no task"),
        ([], SUCCESS[1], None),
        ([], SUCCESS[4], None),
        (
            [CREATED],
            SUCCESS[1],
            "   2.0 s  example/happy-cat  Submitted  no task",
        ),
        (
            SUCCESS[:2],
            SUCCESS[2],
            "   2.5 s  example/happy-cat  Submitted  task PROVISIONING",
        ),
        (
            SUCCESS[:6],
            SUCCESS[6],
            "   4.5 s  example/happy-cat  Success    task STOPPED, exit code 0",
        ),
        ([CREATED], SUCCESS[4], "   3.5 s  example/happy-cat | hello"),
        ([CREATED], CRASH[3], "   6.0 s  example/happy-cat | ERROR boom"),
        (
            [CREATED],
            CRASH[1],
            "   2.0 s  example/happy-cat  Failed     no task"
            ": Some reference tasks failed.",
        ),
        (
            CRASH[:2],
            CRASH[2],
            "   5.0 s  example/happy-cat  Failed     task STOPPED, exit code 1"
            ": Essential container in task exited",
        ),
        (
            [],
            Note(1234.56, "agent | careful", "WARNING"),
            "1234.6 s  WARNING agent | careful",
        ),
        ([], Note(0.0, "hello"), "   0.0 s  hello"),
    ],
)
def test_an_event_is_one_line(
    history: List[Event], event: Event, text: Optional[str]
) -> None:
    assert line(rows_after([*history, event]), event) == text


@pytest.mark.parametrize(
    "events, now, expected",
    [
        (SUCCESS[:1], 3.0, ("happy-cat", "example", "Scheduled", "-", "2.0")),
        (SUCCESS[:4], 3.0, ("happy-cat", "example", "Running", "PROVISIONING", "2.0")),
        (SUCCESS, 99.0, ("happy-cat", "example", "Success", "STOPPED (0)", "3.5")),
        (NEVER_LAUNCHED, 99.0, ("happy-cat", "example", "Failed", "-", "1.0")),
    ],
)
def test_a_row_is_five_cells(events: List[Event], now: float, expected: Any) -> None:
    assert cells(rows_after(events)["r1"], now) == expected


def many(finished: int, running: int) -> Dict[str, Row]:
    """The finished runs are the older ones."""
    return {
        f"r{n}": Row(
            f"r{n}", f"n{n}", "f", n, n, "Success" if n < finished else "Running"
        )
        for n in range(finished + running)
    }


@pytest.mark.parametrize(
    "finished, running, lines, shown, hidden",
    [
        (1, 2, 3, ["r0", "r1", "r2"], 0),
        (3, 1, 3, ["r2", "r3"], 2),
        (0, 5, 3, ["r3", "r4"], 3),
        (2, 2, 1, ["r3"], 3),
        (0, 0, 3, [], 0),
    ],
)
def test_the_runs_that_fit(
    finished: int, running: int, lines: int, shown: List[str], hidden: int
) -> None:
    rows, left = fitting(many(finished, running), lines)
    assert ([row.run_id for row in rows], left) == (shown, hidden)


def drawn(rows: Dict[str, Row], **options: Any) -> str:
    console = rich_console.Console(file=io.StringIO(), width=80, height=24, **options)
    console.print(table(rows, 10.0, 14, 78))
    return str(console.file.getvalue())


def test_the_table_fits_a_terminal_of_80_by_24() -> None:
    rows = {
        f"r{n}": Row(f"r{n}", "a-very-long-name-indeed" * 3, "flow " * 20, 0.0, 0.0)
        for n in range(100)
    }
    text = drawn(rows)
    lines = text.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) == 78
    assert "and 87 more" in text


def test_states_are_coloured_unless_no_color_is_set() -> None:
    rows = rows_after(SUCCESS)
    terminal = {"force_terminal": True, "color_system": "standard"}
    assert "\x1b[32mSuccess" in drawn(rows, **terminal)
    assert "\x1b[32m" not in drawn(rows, **terminal, no_color=True)


def test_names_are_not_markup() -> None:
    rows = {"r1": Row("r1", "[red]x", "[/]", 0.0, 0.0)}
    assert "[red]x" in drawn(rows)
    assert "[/]" in drawn(rows)


def test_the_summary_counts_what_aws_was_asked() -> None:
    rows = {
        **rows_after(SUCCESS),
        "r2": Row("r2", "sad-dog", "other", 2.0, 2.0),
        "r3": Row("r3", "old-fox", "bad", 2.0, 2.0, "Failed", "No\ngood.", ended=3.0),
    }
    calls = {"ecs.RunTask": 2, "ecs.DescribeTasks": 3, "ec2.DescribeVpcs": 1}
    assert summary(rows, calls, 9.0) == [
        "example/happy-cat: Success, task STOPPED, exit code 0, 3.5 s",
        "other/sad-dog: Scheduled, no task, 7.0 s",
        "bad/old-fox: Failed, no task, 1.0 s: No good.",
        "ECS calls: DescribeTasks 3, RunTask 2",
        "Other AWS calls: ec2.DescribeVpcs 1",
    ]
    assert summary({}, {}, 9.0) == ["ECS calls: none"]


def test_a_run_whose_tasks_failed_ends_with_the_exception() -> None:
    rows = {
        name: Row(name, "n", name, 0.0, 0.0, "Failed", message, ended=1.0)
        for name, message in (
            ("r1", "Some reference tasks failed."),
            ("r2", "The task needs more memory."),
            ("r3", "Some reference tasks failed."),
        )
    }
    causes = {"r1": "task 'a': ValueError()", "r2": "task 'b': ValueError()", "r3": ""}
    assert [line.split(" s: ")[1] for line in summary(rows, {}, 9.0, causes)[:3]] == [
        "task 'a': ValueError()",
        "The task needs more memory.",
        "Some reference tasks failed.",
    ]


@pytest.mark.parametrize(
    "message, failed, expected",
    [
        (
            "Error during execution of task: ValueError('no')",
            1,
            "task 'load-2': ValueError('no')",
        ),
        (
            "Execution\ntimed out.",
            3,
            "task 'load-2' (and 2 more): Execution timed out.",
        ),
        ("x" * 201, 1, f"task 'load-2': {'x' * 200}..."),
    ],
)
def test_the_exception_is_one_line(message: str, failed: int, expected: str) -> None:
    assert cause("load-2-1", message, failed) == expected


def test_what_is_being_started_moves_on_a_terminal_only() -> None:
    console = rich_console.Console(file=io.StringIO(), width=80, force_terminal=True)
    screen = LiveTable(console)
    screen.busy("Starting.", 0.0)
    screen.say(["a word " * 20])
    screen.show(SUCCESS, now=5.0)  # the table takes its place
    screen.busy("Late.", 5.0)
    screen.close()
    text = console.file.getvalue()
    assert re.search("[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] Starting", re.sub(r"\x1b\[[0-9;]*m", "", text))
    assert "Late." not in text
    assert max(len(line) for line in text.splitlines() if "word" in line) < 100
    written: List[str] = []
    Lines(written.append).busy("Starting.", 1.0)
    assert written == ["   1.0 s  Starting."]


def test_lines_prints_each_event_once() -> None:
    written: List[str] = []
    screen = Lines(written.append)
    for event in SUCCESS:
        screen.show([event], now=event.at)
    screen.show([], now=9.0)
    assert written == [line(rows_after(SUCCESS[: n + 1]), SUCCESS[n]) for n in range(7)]
    assert screen.rows == rows_after(SUCCESS)


def test_the_live_table_prints_only_log_lines_and_notes_above_it() -> None:
    console = rich_console.Console(file=io.StringIO(), width=80, force_terminal=True)
    screen = LiveTable(console)
    screen.show([*SUCCESS, Note(5.0, "[b]careful[/b]")], now=5.0)
    screen.close()
    text = console.file.getvalue()
    assert "example/happy-cat | hello" in text
    assert "[b]careful[/b]" in text
    assert "no task" not in text
    assert "STOPPED (0)" in text
    assert screen.rows == rows_after(SUCCESS)
