"""A container's command as a local process, in a process group of its own.

What a container's runtime does when its first process ends is done here too:
everything that this process started and left behind is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import Callable, Iterator, List, Mapping, Optional

# How long the last lines may take to arrive after everything that could write is
# gone; it waits only if a process outside the group still holds the pipe.
LAST_LINES = 5.0


def default_most() -> int:
    """How many tasks a machine runs at once by default."""
    return max(4, 2 * (os.cpu_count() or 1))


class ContainerProcess:
    """One running command.

    Args:
        command: Its words.
        environment: All of its environment.
        directory: Its working directory.
        on_line: Called with each line it writes, stdout and stderr together, on a
            thread of the process's own.
        mark: `NAME=VALUE` of its environment that no other process has, by which
            descendants that left the process group are found (where there is
            /proc).

    Raises:
        OSError: The command cannot be started.
    """

    def __init__(
        self,
        command: List[str],
        environment: Mapping[str, str],
        directory: str,
        on_line: Callable[[str], None],
        mark: str,
    ) -> None:
        self._mark = mark.encode()
        self._on_line = on_line
        self._process = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait(self) -> int:
        """Wait for its end, and for its last line.

        Returns:
            The exit code as a container's: 128 + N when signal N ended it.
        """
        code = self._process.wait()
        self.kill()
        self._reader.join(LAST_LINES)
        return code if code >= 0 else 128 - code

    def terminate(self) -> None:
        """SIGTERM to the whole group, as `tini -g` in Prefect's images passes it on."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to everything that the command has started."""
        self._signal(signal.SIGKILL)
        for pid in _marked(self._mark):
            _kill(pid)

    def _signal(self, number: signal.Signals) -> None:
        # Gone; macOS says "not permitted" of a group of zombies.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _read(self) -> None:
        output = self._process.stdout
        assert output is not None  # it is a pipe
        with output:
            for line in output:
                self._on_line(line.decode("utf-8", "replace").rstrip("\r\n"))


def _marked(mark: bytes) -> Iterator[int]:
    for directory in Path("/proc").glob("[0-9]*"):
        content = _environ_of(directory)
        if content is not None and mark in content.split(b"\0"):
            yield int(directory.name)


def _environ_of(directory: Path) -> Optional[bytes]:
    try:
        return (directory / "environ").read_bytes()
    except OSError:
        return None  # it has ended, or belongs to another user


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
