"""What happens in the sandbox, gathered from its servers and its agent.

The servers call back in threads of their own; everything is put in one queue and
taken out by the main thread, which alone touches the screen.
"""

from __future__ import annotations

import queue
import re
import time
from typing import Callable, List, Optional, Set

from prefect_ecs_plugin.errors import with_code
from prefect_ecs_plugin.sandbox.display import (
    LOUD,
    Event,
    LogLine,
    Note,
    Row,
    RunCreated,
    RunState,
    Screen,
    TaskStatus,
)

#: Loggers of Prefect's runners, and what these say of every run. A task's own prints
#: come from there too (`log_stdout`).
RUNNER = re.compile(r"prefect\.Cloud(Flow|Task)Runner$")
ROUTINE = re.compile(
    r"Task '.*': (Starting|Finished) task run|Beginning Flow run for '"
    r"|Flow run (SUCCESS|FAILED|RUNNING): "
)

#: A line as Prefect's default format has it.
AGENT_LINE = re.compile(r"\[.+?\] (?P<level>[A-Z]+) - (?P<name>.+?) \| (?P<text>.*)")

#: What no line of the agent's banner has.
WORD = re.compile(r"[A-Za-z0-9]")

#: A link into the AWS console, and what leads to it: its tasks are not there.
CONSOLE_LINK = re.compile(
    r"(?:; logs: |: | \()https://[\w.-]+\.console\.(?:aws\.amazon\.com|amazonaws[\w.-]+)"
    r"/[^\s);]*\)?"
)

#: What a task says whose image lacks a module.
NO_MODULE = re.compile(r"ModuleNotFoundError\W+No module named '([\w.]+)'")

#: Seconds between two looks at what has happened.
TICK = 0.1

#: Seconds after which a run is given up whose task failed without a word. The agent
#: describes a RUNNING task every 30 s, and gives Prefect 10 s to report the end itself.
LAST_WORDS = 60.0


class Watch:
    """The events of one use of the sandbox, and what follows from them.

    Args:
        screen: Where they are shown.
        verbose: Show every line of the agent and of Prefect's runners.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        screen: Screen,
        verbose: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._screen = screen
        self._verbose = verbose
        self._clock = clock
        self._started = clock()
        # SimpleQueue.get may wait for ever if a signal comes as its time runs out.
        self._events: queue.Queue[Event] = queue.Queue()
        self._seen: Set[str] = set()
        self._agent_is_heard = verbose
        self._given_up: Set[str] = set()
        self._missing_modules: Set[str] = set()
        self._looked: Optional[float] = None

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._started

    # What comes in, from any thread --------------------------------------------------

    def note(self, text: str, level: str = "INFO") -> None:
        """Take a line that belongs to no run."""
        self._events.put(Note(self.now, text, level))

    def run_state(
        self, run_id: str, name: str, flow: str, state: str, message: str
    ) -> None:
        """Take a flow run's new state; the first one makes the run known."""
        if run_id not in self._seen:
            self._seen.add(run_id)
            self._events.put(RunCreated(self.now, run_id, name, flow))
        elif state != "Pending":
            self._events.put(RunState(self.now, run_id, state, message))

    def log(self, run_id: str, name: str, level: str, message: str) -> None:
        """Take a line of a flow run's log, if it is the flow's or important."""
        message = without_console_links(message)
        is_routine = RUNNER.search(name) and ROUTINE.match(message)
        if self._verbose or level in LOUD or (level != "DEBUG" and not is_routine):
            self._events.put(LogLine(self.now, run_id, level, message))
        no_module = NO_MODULE.search(message)
        if no_module and no_module[1] not in self._missing_modules:
            self._missing_modules.add(no_module[1])
            self.note(
                f"No module {no_module[1]!r}: the sandbox's tasks find modules of this "
                "Python, of PYTHONPATH and of the folder of a file that the sandbox "
                "has registered. On AWS the image has to have them."
            )

    def task(
        self,
        run_id: str,
        status: str,
        exit_code: Optional[int] = None,
        reason: str = "",
    ) -> None:
        """Take the new status of a flow run's ECS task."""
        self._events.put(TaskStatus(self.now, run_id, status, exit_code, reason))

    def task_output(self, run_id: str, text: str) -> None:
        """Take a line that a flow run's task has written to its standard output."""
        self._events.put(LogLine(self.now, run_id, "INFO", f"task | {text}"))

    def agent_line(self, text: str) -> None:
        """Take a line of the agent's output: warnings and errors, or all of them.

        What it says of a flow run stands in the run's own log. A line that is no log
        line belongs to the one before it, unless it is of the agent's banner.
        """
        text = without_console_links(text)
        match = AGENT_LINE.match(text)
        if match:
            of_a_run = any(run_id in text for run_id in self._seen.copy())
            is_heard = match["level"] in LOUD and not of_a_run
            self._agent_is_heard = self._verbose or is_heard
        if self._agent_is_heard and match:
            self.note(f"agent | {match['text']}", match["level"])
        elif self._agent_is_heard and WORD.search(text):
            self.note(f"agent | {text}")

    # What goes out, in the main thread -----------------------------------------------

    def refresh(self, wait: float = TICK) -> None:
        """Show what has happened, after waiting a moment for it."""
        self._screen.show(self._taken(wait), self.now)

    def _taken(self, wait: float) -> List[Event]:
        try:
            events = [self._events.get(timeout=wait)]
        except queue.Empty:
            return []
        while True:
            try:
                events.append(self._events.get_nowait())
            except queue.Empty:
                return events

    @property
    def is_over(self) -> bool:
        """Whether every run has ended or was given up."""
        rows = self._screen.rows
        return bool(rows) and all(
            row.is_finished or row.run_id in self._given_up for row in rows.values()
        )

    @property
    def all_succeeded(self) -> bool:
        """Whether there were runs and every one ended Success."""
        return {row.state for row in self._screen.rows.values()} == {"Success"}

    def agent_looked(self) -> None:
        """Take note that the agent has looked at the queue; the first look counts."""
        if self._looked is None:
            self._looked = self.now

    def give_up(self, timeout: float) -> None:
        """Report the runs to which nothing has happened for so many seconds.

        No run waits before the agent's first look at the queue: how long the agent
        takes to start depends on the machine and says nothing about the run.

        Args:
            timeout: The seconds.
        """
        if self._looked is None:
            return
        for row in self._screen.rows.values():
            # After exit code 0 the run may come back: a flow with a retry that is due
            # later ends its task and is launched again.
            is_dead = row.task == "STOPPED" and row.exit_code != 0
            most = min(timeout, LAST_WORDS) if is_dead else timeout
            waited = self.now - max(row.changed, self._looked)
            is_known = row.is_finished or row.run_id in self._given_up
            if waited > most and not is_known:
                self._given_up.add(row.run_id)
                self.note(_stuck(row, waited), "ERROR")


def without_console_links(text: str) -> str:
    """Return a line of a log without links into the AWS console."""
    return CONSOLE_LINK.sub("", text)


def _stuck(row: Row, waited: float) -> str:
    if not row.task:
        task = "it has no task"
    elif row.exit_code is None:
        task = f"its task is {row.task}"
    else:
        task = f"its task is {row.task} with exit code {row.exit_code}"
    reason = f" ({row.reason})" if row.reason else ""
    return with_code(
        f"{row.title}: nothing has happened for {waited:.0f} s. The run is "
        f"{row.state}, {task}{reason}.",
        code="run-stuck",
    )
