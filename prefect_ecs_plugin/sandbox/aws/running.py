"""Really running a task: its `flow` container's command as a local process.

Only that container has a process. Sidecars are shown RUNNING and stop with the
task: what they would do is in their images, and images are not pulled here. So it
is no harm if their command does not exist on this machine.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Callable, Dict, List, Mapping, Optional

from . import container as containers
from .events import Events, LineWritten
from .lifecycle import Lifecycle, Runner, StartFailure
from .neighbours import OtherServices
from .processes import ContainerProcess
from .task import Container, Task
from .timers import Timers

#: What an image has when it says nothing.
IMAGE_ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}


class ProcessRunner(Runner):
    """Runs the `flow` containers of tasks as processes.

    Args:
        lock: Held whenever a task is changed.
        image_environment: What the "image" brings: PATH, HOME, ...
        url: Where this AWS listens.
        neighbours: The neighbours of the region that a task is in.
    """

    def __init__(
        self,
        lock: threading.RLock,
        timers: Timers,
        events: Events,
        image_environment: Mapping[str, str],
        url: str,
        neighbours: Callable[[Task], OtherServices],
    ) -> None:
        super().__init__(timers)
        self._lock = lock
        self._events = events
        self._image = {**IMAGE_ENVIRONMENT, **image_environment}
        self._url = url
        self._neighbours = neighbours
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
        directory = tempfile.mkdtemp(prefix="ecs-task-")
        try:
            self._run_in(directory, task, flow, lifecycle)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
            with self._lock:
                self._processes.pop(task.arn, None)
                self._threads.pop(task.arn, None)

    def _run_in(
        self, directory: str, task: Task, flow: Container, lifecycle: Lifecycle
    ) -> None:
        environment = self._environment(directory, task, flow, lifecycle)
        if environment is None:
            return
        process = self._process(directory, environment, task, flow, lifecycle)
        if process is not None:
            lifecycle.exited(task, process.wait())

    def _process(
        self,
        directory: str,
        environment: Dict[str, str],
        task: Task,
        flow: Container,
        lifecycle: Lifecycle,
    ) -> Optional[ContainerProcess]:
        words = containers.command(flow)
        if not words:
            failure = _cannot_start(
                "the sandbox pulls no images, so a container needs a command"
            )
            lifecycle.failed_to_start(task, failure)
            return None
        mark = "ECS_CONTAINER_METADATA_URI_V4"
        on_line = self._listener(task, flow)
        # StopTask must not see the process before the task is RUNNING.
        with self._lock:
            if self._closed or not lifecycle.may_run(task):
                return None
            try:
                process = ContainerProcess(
                    words,
                    environment,
                    directory,
                    on_line,
                    f"{mark}={environment[mark]}",
                )
            except OSError as error:
                failure = _cannot_start(f"{containers.show(words)}: {error}")
                lifecycle.failed_to_start(task, failure)
                return None
            self._processes[task.arn] = process
            lifecycle.running(task)
            return process

    def _environment(
        self, directory: str, task: Task, flow: Container, lifecycle: Lifecycle
    ) -> Optional[Dict[str, str]]:
        neighbours = self._neighbours(task)
        secrets, no_secrets = containers.secrets_of(flow, neighbours.secret)
        files, no_files = containers.files_of(flow, neighbours.s3_text)
        if no_secrets or no_files:
            lifecycle.failed_to_start(task, _cannot_get(no_secrets, no_files))
            return None
        brought = {
            **_isolated_home(directory),
            **self._image,
            **containers.injected(task, flow, self._url),
        }
        return containers.environment(flow, brought, files, secrets)

    def _listener(self, task: Task, flow: Container) -> Callable[[str], None]:
        log = containers.awslogs(task, flow)
        neighbours = self._neighbours(task)
        if log is not None:
            neighbours.open_log(*log)

        def on_line(line: str) -> None:
            at = time.time()
            task.lines.append(line)
            if log is not None:
                neighbours.write_log(*log, line=line, at=at)
            if self._events.wanted:
                self._events.publish(
                    LineWritten(task.arn, task.started_by, flow.name, line, at)
                )

        return on_line


def _isolated_home(directory: str) -> Dict[str, str]:
    """A home and AWS files apart from the user's. Without HOME, a program would look up
    the user's own home in the system's user database."""
    return {
        "HOME": directory,
        "AWS_CONFIG_FILE": str(Path(directory) / ".aws" / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(Path(directory) / ".aws" / "credentials"),
    }


def _cannot_start(why: str) -> StartFailure:
    reason = f"CannotStartContainerError: {why}"
    return StartFailure(stopped_reason="Task failed to start", container_reason=reason)


def _cannot_get(secrets: List[str], files: List[str]) -> StartFailure:
    """In ECS's words, which name the first thing that is missing.

    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/resource-initialization-error.html
    """
    if secrets:
        why = (
            "unable to pull secrets or registry auth: execution resource retrieval "
            f"failed: unable to retrieve secret {secrets[0]}: ResourceNotFoundException"
        )
    else:
        why = f"failed to download env files: {files[0]}: NoSuchKey"
    return StartFailure(stopped_reason=f"ResourceInitializationError: {why}")
