"""Really running a task: its `flow` container's command as a local process.

Only that container has a process. Sidecars are shown RUNNING and stop with the
task: what they would do is in their images, and images are not pulled here. Their
commands need not exist on this machine.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Callable, Dict, List, Mapping, Optional

from . import container as containers
from .lifecycle import Lifecycle, Runner, StartFailure, Timers
from .other_services import OtherServices
from .task import Container, Events, LineWritten, Task

#: What an image has when it says nothing.
IMAGE_ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}

#: Seconds that the last lines may take to arrive after everything that could write is
#: gone; only if a process outside the group still holds the pipe it takes longer.
LAST_LINES = 5.0

# The variable by which a container's processes are found: its value has the token.
_MARK = "ECS_CONTAINER_METADATA_URI_V4"


def default_most() -> int:
    """How many tasks a machine runs at once by default."""
    return max(4, 2 * (os.cpu_count() or 1))


class ProcessRunner(Runner):
    """Runs the `flow` containers of tasks as processes.

    Args:
        lock: Held whenever a task is changed.
        image_environment: What the "image" brings: PATH, HOME, ...
        url: Where this AWS listens.
        other_services: Those of the region that a task is in.
    """

    def __init__(
        self,
        lock: threading.RLock,
        timers: Timers,
        events: Events,
        image_environment: Mapping[str, str],
        url: str,
        other_services: Callable[[Task], OtherServices],
    ) -> None:
        super().__init__(timers)
        self._lock = lock
        self._events = events
        self._image = {**IMAGE_ENVIRONMENT, **image_environment}
        self._url = url
        self._other_services = other_services
        self._processes: Dict[str, ContainerProcess] = {}
        self._threads: Dict[str, threading.Thread] = {}
        self._closed = False

    def start(self, task: Task, lifecycle: Lifecycle) -> None:
        """Start the task's process, if it has a `flow` container."""
        if "flow" not in task.containers:
            lifecycle.running(task)
            return
        thread = threading.Thread(
            target=self._run,
            args=(task, lifecycle),
            name=f"task-{task.id}",
            daemon=True,
        )
        with self._lock:
            if self._closed:
                return
            self._threads[task.arn] = thread
        thread.start()

    def stop(self, task: Task, lifecycle: Lifecycle) -> None:
        """SIGTERM now, SIGKILL after the task's stopTimeout."""
        process = self._processes.get(task.arn)
        if process is None:
            lifecycle.exited(task, 0)
            return
        process.terminate()
        self._timers.after(task.stop_timeout, lambda: self.abandon(task))

    def close(self) -> None:
        """Kill everything that runs, and wait until it is gone."""
        with self._lock:
            self._closed = True
            processes = list(self._processes.values())
            threads = list(self._threads.values())
        for process in processes:
            process.kill()
        for thread in threads:
            thread.join(timeout=10)

    def abandon(self, task: Task) -> None:
        """SIGKILL now."""
        process = self._processes.get(task.arn)
        if process is not None:
            process.kill()

    def _run(self, task: Task, lifecycle: Lifecycle) -> None:
        flow = task.containers["flow"]
        try:
            with tempfile.TemporaryDirectory(
                prefix="ecs-task-", ignore_cleanup_errors=True
            ) as directory:
                process = self._process(directory, task, flow, lifecycle)
                if process is not None:
                    lifecycle.exited(task, process.wait())
        finally:
            with self._lock:
                self._processes.pop(task.arn, None)
                self._threads.pop(task.arn, None)

    def _process(
        self, directory: str, task: Task, flow: Container, lifecycle: Lifecycle
    ) -> Optional[ContainerProcess]:
        """The task's process; None if it cannot start or need not start any more."""
        try:
            environment = self._environment(directory, task, flow)
            words = containers.command(flow)
            if not words:
                reason = "the sandbox pulls no images, so a container needs a command"
                raise _CannotStart(_cannot_start(reason))
            on_line = self._listener(task, flow)
            # StopTask must not see the process before the task is RUNNING.
            with self._lock:
                if self._closed or not lifecycle.may_run(task):
                    return None
                try:
                    process = ContainerProcess(words, environment, directory, on_line)
                except OSError as error:
                    reason = f"{containers.show(words)}: {error}"
                    raise _CannotStart(_cannot_start(reason)) from error
                self._processes[task.arn] = process
                lifecycle.running(task)
                return process
        except _CannotStart as cannot_start:
            lifecycle.failed_to_start(task, cannot_start.failure)
            return None

    def _environment(
        self, directory: str, task: Task, flow: Container
    ) -> Dict[str, str]:
        other_services = self._other_services(task)
        secrets, no_secrets = containers.secrets_of(flow, other_services.secret)
        files, no_files = containers.files_of(flow, other_services.s3_text)
        # ECS's words, which name the first thing that is missing:
        # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/resource-initialization-error.html
        why = None
        if no_secrets:
            why = (
                "unable to pull secrets or registry auth: execution resource retrieval "
                f"failed: unable to retrieve secret {no_secrets[0]}: "
                "ResourceNotFoundException"
            )
        elif no_files:
            why = f"failed to download env files: {no_files[0]}: NoSuchKey"
        if why is not None:
            reason = f"ResourceInitializationError: {why}"
            raise _CannotStart(StartFailure(stopped_reason=reason))
        aws = Path(directory) / ".aws"
        brought = {
            # A home and AWS files apart from the user's. Without HOME, a program would
            # look up the user's own home in the system's user database.
            "HOME": directory,
            "AWS_CONFIG_FILE": str(aws / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(aws / "credentials"),
            **self._image,
            **containers.injected(task, flow, self._url),
        }
        return containers.environment(flow, brought, files, secrets)

    def _listener(self, task: Task, flow: Container) -> Callable[[str], None]:
        log = containers.awslogs(task, flow)
        other_services = self._other_services(task)
        if log is not None:
            other_services.open_log(*log)

        def on_line(line: str) -> None:
            at = time.time()
            task.lines.append(line)
            if log is not None:
                other_services.write_log(*log, line=line, at=at)
            if self._events.wanted:
                self._events.publish(
                    LineWritten(task.arn, task.started_by, flow.name, line, at)
                )

        return on_line


class _CannotStart(Exception):
    def __init__(self, failure: StartFailure) -> None:
        super().__init__(failure)
        self.failure = failure


def _cannot_start(why: str) -> StartFailure:
    return StartFailure(container_reason=f"CannotStartContainerError: {why}")


class ContainerProcess:
    """A container's command as a local process, in a process group of its own.

    What a container's runtime does when its first process ends is done here too:
    everything that this process started and left behind is killed.

    Args:
        command: Its words.
        environment: All of its environment. Descendants that left the process group
            are found by its metadata URI, which no other process has (where there is
            /proc).
        directory: Its working directory.
        on_line: Called with each line it writes, stdout and stderr together, on a
            thread of the process's own.

    Raises:
        OSError: The command cannot be started.
    """

    def __init__(
        self,
        command: List[str],
        environment: Mapping[str, str],
        directory: str,
        on_line: Callable[[str], None],
    ) -> None:
        self._mark = f"{_MARK}={environment[_MARK]}".encode()
        self._on_line = on_line
        self._process = self._start(command, environment, directory)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _start(
        self, command: List[str], environment: Mapping[str, str], directory: str
    ) -> subprocess.Popen[bytes]:
        """Start the process; tests start theirs in a faster way."""
        return subprocess.Popen(
            command,
            env=dict(environment),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

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
        for directory in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended, or belongs to another user
                if self._mark in (directory / "environ").read_bytes().split(b"\0"):
                    os.kill(int(directory.name), signal.SIGKILL)

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
