"""How a task goes from PROVISIONING to STOPPED.

    PROVISIONING  waits for a place (`Slots`) and an ENI
    PENDING       `before_start` may fail it or hold it here; then the image is pulled
    ACTIVATING    its containers are about to start
    RUNNING       its containers run
    DEACTIVATING, STOPPING   containers get SIGTERM, and SIGKILL after stopTimeout
    DEPROVISIONING           the ENI is deleted
    STOPPED       with stopCode and stoppedReason

This module does not run containers: a `Runner` starts them and reports back with
`running` and `exited`.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Callable, Deque, List, Optional, Tuple, Union

from .task import (
    ACTIVATING,
    DEACTIVATING,
    DEPROVISIONING,
    PENDING,
    PROVISIONING,
    RUNNING,
    STOPPED,
    STOPPING,
    Events,
    Task,
    TaskChanged,
    TaskView,
    main_container,
    view,
)

logger = logging.getLogger(__name__)
Act = Callable[[], None]

ESSENTIAL_EXITED = "EssentialContainerExited"
FAILED_TO_START = "TaskFailedToStart"
USER_INITIATED = "UserInitiated"
SPOT_INTERRUPTION = "SpotInterruption"


@dataclass(frozen=True)
class StartFailure:
    """A task that never runs, as `before_start` may answer.

    Attributes:
        stop_code: The task's stopCode.
        stopped_reason: Its stoppedReason, "CannotPullContainerError: ...".
        container_reason: The reason at the container, None: none there.
    """

    stop_code: str = FAILED_TO_START
    stopped_reason: str = "Task failed to start"
    container_reason: Optional[str] = None


@dataclass(frozen=True)
class Hold:
    """A task that stays PENDING, as `before_start` may answer.

    Attributes:
        seconds: For how long; None: until `AWS.release` or StopTask.
    """

    seconds: Optional[float] = None


Outcome = Optional[Union[StartFailure, Hold]]
BeforeStart = Callable[[TaskView], Outcome]


@dataclass(frozen=True)
class Phases:
    """How many seconds a task stays in each status. Nothing by default."""

    provisioning: float = 0.0
    pending: float = 0.0
    activating: float = 0.0
    deactivating: float = 0.0
    deprovisioning: float = 0.0


class Timers:
    """Calls functions when their time has come, in order of that time.

    One thread serves all tasks: there may be ten thousand, and each passes through its
    states by itself.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heap: List[Tuple[float, int, Act]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(
            target=self._run, name="sandbox-aws-timers", daemon=True
        )
        self._thread.start()

    def after(self, seconds: float, act: Act) -> None:
        """Call `act` in so many seconds; at the same time: first come first served."""
        with self._changed:
            due = self._clock() + max(0.0, seconds)
            heapq.heappush(self._heap, (due, next(self._order), act))
            self._changed.notify()

    def stop(self) -> None:
        """Forget what is still to come."""
        with self._changed:
            self._stopped = True
            self._heap.clear()
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while True:
            act = self._next()
            if act is None:
                return
            try:
                act()
            except Exception:  # the other tasks go on
                logger.exception("The sandbox could not move a task on.")

    def _next(self) -> Optional[Act]:
        with self._changed:
            while not self._stopped:
                wait = self._heap[0][0] - self._clock() if self._heap else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._heap)[2]
                self._changed.wait(wait)
        return None


class Runner:
    """Runs containers; this one only pretends to.

    Args:
        seconds: How long a task runs before it exits 0; None: until it is stopped.
    """

    def __init__(self, timers: Timers, seconds: Optional[float] = None) -> None:
        self._timers = timers
        self._seconds = seconds

    def start(self, task: Task, lifecycle: Lifecycle) -> None:
        """Start the task's containers and report to the lifecycle, at any time."""
        lifecycle.running(task)
        if self._seconds is not None:
            self._timers.after(self._seconds, lambda: lifecycle.exited(task, 0))

    def stop(self, task: Task, lifecycle: Lifecycle) -> None:
        """End them, and report that they have exited."""
        lifecycle.exited(task, 143)

    def abandon(self, task: Task) -> None:
        """The task is over, whatever its containers do."""

    def close(self) -> None:
        """End all that runs."""


class Slots:
    """How many tasks may be past PROVISIONING at a time; first come, first served.

    Args:
        most: None for any number.
    """

    def __init__(self, most: Optional[int]) -> None:
        self._free = most
        self._waiting: Deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()

    def take(self, act: Callable[[], None]) -> None:
        """Call `act` when there is a place, now if there is one."""
        with self._lock:
            if self._free == 0:
                self._waiting.append(act)
                return
            if self._free is not None:
                self._free -= 1
        act()

    def give_back(self) -> None:
        """Free a place."""
        with self._lock:
            if not self._waiting:
                if self._free is not None:
                    self._free += 1
                return
            act = self._waiting.popleft()
        act()


@dataclass(frozen=True)
class Lifecycle:
    """Moves tasks on.

    Attributes:
        lock: Held whenever a task is changed.
        slots: How many may run at once.
        runner: Runs their containers.
        released: Told of every task that has STOPPED, to free what it occupied.
        before_start: Asked before a task leaves PENDING.
    """

    lock: threading.RLock
    timers: Timers
    events: Events
    phases: Phases
    slots: Slots
    runner: Runner
    released: Callable[[Task], None]
    before_start: BeforeStart
    now: Callable[[], float] = time.time

    # Starting

    def launch(self, task: Task) -> None:
        """A task has been made."""
        self._tell(task)
        self.slots.take(
            lambda: self.timers.after(
                self.phases.provisioning, lambda: self._pend(task)
            )
        )

    def _pend(self, task: Task) -> None:
        with self.lock:
            if task.last_status != PROVISIONING:
                self.slots.give_back()  # stopped while it waited for its place
                return
            task.holds_slot = True
            self._move(task, PENDING, pullStartedAt=self.now())
        self.timers.after(self.phases.pending, lambda: self._prepare(task))

    def _prepare(self, task: Task) -> None:
        outcome = self.before_start(view(task))
        if isinstance(outcome, StartFailure):
            self.failed_to_start(task, outcome)
        elif outcome is None:
            self.release(task)
        elif outcome.seconds is not None:
            self.timers.after(outcome.seconds, lambda: self.release(task))

    def release(self, task: Task) -> None:
        """A task that is PENDING goes on."""
        with self.lock:
            if task.last_status != PENDING:
                return
            self._move(task, ACTIVATING, pullStoppedAt=self.now())
        self.timers.after(self.phases.activating, lambda: self._start(task))

    def _start(self, task: Task) -> None:
        if self.may_run(task):
            self.runner.start(task, self)

    def may_run(self, task: Task) -> bool:
        """Whether the task has not been asked to stop."""
        return task.desired_status == RUNNING

    def running(self, task: Task) -> None:
        """Its containers have started."""
        with self.lock:
            if not self.may_run(task):
                return
            for container in task.containers.values():
                container.last_status = RUNNING
            now = self.now()
            self._move(
                task,
                RUNNING,
                startedAt=now,
                connectivity="CONNECTED",
                connectivityAt=now,
            )

    # Stopping

    def failed_to_start(self, task: Task, failure: StartFailure) -> None:
        """It will never run."""
        with self.lock:
            main_container(task).reason = failure.container_reason
            self._begin_stop(task, failure.stop_code, failure.stopped_reason)

    def stop(self, task: Task, stop_code: str, reason: str) -> None:
        """Stop the task; its containers get SIGTERM first."""
        with self.lock:
            self._begin_stop(task, stop_code, reason)

    def exited(
        self,
        task: Task,
        exit_code: Optional[int],
        reason: Optional[str] = None,
        stop_code: str = ESSENTIAL_EXITED,
        stopped_reason: str = "Essential container in task exited",
    ) -> None:
        """Its main container has ended, by itself or stopped."""
        with self.lock:
            container = main_container(task)
            if container.last_status == STOPPED or task.last_status == STOPPED:
                return
            container.last_status = STOPPED
            container.exit_code = exit_code
            container.reason = reason or container.reason
            if task.desired_status == STOPPED:
                self._leave(task)
            elif container.essential or len(task.containers) == 1:
                self._begin_stop(task, stop_code, stopped_reason)

    def _begin_stop(self, task: Task, stop_code: str, reason: str) -> None:
        if task.desired_status == STOPPED:
            return
        task.desired_status = STOPPED
        task.stop_code, task.stopped_reason = stop_code, reason
        ran = task.last_status == RUNNING
        self._move(task, DEACTIVATING if ran else STOPPING, stoppingAt=self.now())
        self.timers.after(
            self.phases.deactivating if ran else 0, lambda: self._end_containers(task)
        )

    def _end_containers(self, task: Task) -> None:
        with self.lock:
            if task.last_status == DEACTIVATING:
                self._move(task, STOPPING)
            alive = main_container(task).last_status == RUNNING
            if not alive:
                self._leave(task)
        if alive:
            self.runner.stop(task, self)

    def _leave(self, task: Task) -> None:
        if task.last_status != STOPPING:
            return  # not yet there, or past it
        ran = "startedAt" in task.times
        for container in task.containers.values():
            if ran and container.exit_code is None:
                container.exit_code = 0
            container.last_status = STOPPED
        ended = {"executionStoppedAt": self.now()} if ran else {}
        self._move(task, DEPROVISIONING, **ended)
        self.timers.after(self.phases.deprovisioning, lambda: self._stopped(task))

    def _stopped(self, task: Task) -> None:
        with self.lock:
            self._move(task, STOPPED, stoppedAt=self.now())
            self.released(task)
            held, task.holds_slot = task.holds_slot, False
        if held:
            self.slots.give_back()

    # Events

    def _move(self, task: Task, status: str, **times: object) -> None:
        task.last_status = status
        task.version += 1
        task.times.update(times)
        if task.attachment is not None:
            task.attachment["status"] = _ENI.get(status, task.attachment["status"])
        self._tell(task)

    def _tell(self, task: Task) -> None:
        if self.events.wanted:
            self.events.publish(TaskChanged(view(task)))


_ENI = {
    PENDING: "ATTACHED",
    DEPROVISIONING: "DETACHED",
    STOPPED: "DELETED",
}
