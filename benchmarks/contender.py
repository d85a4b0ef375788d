"""An agent as a child process, and what it costs. Reads /proc, so it needs Linux."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Mapping, Optional, Sequence, Tuple, Type

#: The names of the two agents.
OURS, THEIRS = "ours", "theirs"

#: The options with which this agent has no limits of AWS to keep.
UNLIMITED = ("--launches-per-second", "1000")

#: Seconds between SIGTERM and SIGKILL.
GRACE = 10.0

#: The clock of a process's CPU, in nanoseconds; /proc has it in hundredths of a second.
#: As clock_getcpuclockid of glibc makes it of a process id.
_CPU_OF_PROCESS = 2


@dataclass(frozen=True)
class Contender:
    """One of the two agents.

    Attributes:
        name: `ours` or `theirs`.
        prefect: The `prefect` command of its environment.
        unlimited: The options that lift its own limit on launches.
    """

    name: str
    prefect: Path
    unlimited: Tuple[str, ...] = ()

    def start(
        self,
        environment: Mapping[str, str],
        log: Path,
        unlimited: bool,
        options: Sequence[str] = (),
    ) -> RunningAgent:
        """Start `prefect agent ecs start`, with further options."""
        options = [*(self.unlimited if unlimited else ()), *options]
        command = [str(self.prefect), "agent", "ecs", "start", *options]
        return RunningAgent(command, environment, log)


class RunningAgent:
    """A running agent; leaving its block stops it.

    Attributes:
        started: When it was started, on the monotonic clock.
        total_cpu: Seconds of CPU, once it is stopped.
        peak_memory: Bytes that were resident at most, once it is stopped.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> None:
        self.started = time.monotonic()
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                list(command),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.total_cpu = 0.0
        self.peak_memory = 0

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def __enter__(self) -> RunningAgent:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.stop()

    def cpu(self) -> float:
        """Seconds of CPU so far, of all threads that there are or were."""
        return time.clock_gettime(~self._process.pid << 3 | _CPU_OF_PROCESS)

    def memory(self) -> int:
        """Bytes that are resident now."""
        statm = Path(f"/proc/{self._process.pid}/statm").read_text()
        return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def has_ended(self) -> bool:
        """Whether it has ended by itself."""
        state = Path(f"/proc/{self._process.pid}/stat").read_text()
        return state.rpartition(")")[2].split()[0] == "Z"

    def stop(self) -> None:
        """SIGTERM, `GRACE` seconds, SIGKILL; then its bill."""
        if self._process.returncode is not None:
            return
        os.killpg(self._process.pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while not self.has_ended and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(self._process.pid, signal.SIGKILL)
        _, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = status  # it has been waited for
        self.total_cpu = usage.ru_utime + usage.ru_stime
        self.peak_memory = usage.ru_maxrss * 1024
