"""Child processes, started, and stopped in any case.

Each child gets a session of its own, so that Ctrl-C in the terminal reaches only
the sandbox, which then stops its children one after the other, with their children.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections import deque
from types import FrameType
from typing import (
    Any,
    Callable,
    Deque,
    Dict,
    List,
    Mapping,
    Optional,
    Sequence,
)

#: Seconds between SIGTERM and SIGKILL.
GRACE = 5.0

#: As many lines of a child's output are kept.
KEPT_LINES = 400


class Child:
    """A running child process whose output is read line by line.

    Args:
        command: What to run.
        environment: All of its environment.
        on_line: Called with each line of its output, in a thread.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        on_line: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._lines: Deque[str] = deque(maxlen=KEPT_LINES)
        self._on_line = on_line
        self._process = self._start(command, environment)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _start(
        self, command: Sequence[str], environment: Mapping[str, str]
    ) -> subprocess.Popen[str]:
        """Start the process; tests start theirs in a faster way."""
        return subprocess.Popen(
            list(command),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            encoding="utf-8",
            errors="replace",
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def exit_code(self) -> Optional[int]:
        """Its exit code, None while it runs."""
        return self._process.poll()

    @property
    def lines(self) -> List[str]:
        """The last lines of its output; all of them once it has ended."""
        if self.exit_code is not None:
            self._reader.join(GRACE)
        return list(self._lines)

    def stop(self) -> None:
        """End it and all that it started: SIGTERM, `GRACE` seconds, SIGKILL."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE)
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._reader.join(GRACE)

    def _signal(self, number: int) -> None:
        # The group outlives its leader as long as it has a member.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self._lines.append(line.rstrip())
                self._on_line(line.rstrip())


class Interrupted(Exception):
    """The user or the system asked the sandbox to stop, by a signal."""


class StopSignals:
    """While it is entered, SIGINT, SIGTERM and SIGHUP are only recorded.

    So no signal can come between a child's start and the line that remembers it, and
    a second Ctrl-C does not cut the clean-up short. Code that waits calls `check`.
    """

    def __init__(self) -> None:
        self._previous: Dict[int, Any] = {}
        self.received: Optional[int] = None

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise `Interrupted` when a signal has come."""
        if self.received is not None:
            raise Interrupted(signal.Signals(self.received).name)

    def wait_for(self, child: Child) -> int:
        """Return the child's exit code, as soon as there is one.

        Raises:
            Interrupted: A signal came first.
        """
        while child.exit_code is None:
            self.check()
            time.sleep(0.02)
        return child.exit_code

    def _note(self, number: int, frame: Optional[FrameType]) -> None:
        self.received = number
