"""What the sandbox does to tasks if the user asks for it."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, List, Set

if TYPE_CHECKING:
    from prefect_ecs_plugin.sandbox.aws import AWS

#: What can be done to a task.
FAULTS = ("spot", "memory")


class Faults:
    """Stops the first task of each run once, some seconds after its flow has begun.

    Args:
        aws: Where the tasks are.
        kind: `spot`: AWS takes the task's capacity; `memory`: the flow's container is
            killed for memory.
        seconds: How many seconds after the run has become Running.
    """

    def __init__(self, aws: AWS, kind: str, seconds: float) -> None:
        self._aws = aws
        self._kind = kind
        self._seconds = seconds
        self._begun: Set[str] = set()
        self._timers: List[threading.Timer] = []

    def begin(self, run_id: str) -> None:
        """A run has become Running."""
        if run_id in self._begun:
            return
        self._begun.add(run_id)
        timer = threading.Timer(self._seconds, self._strike, [run_id])
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def close(self) -> None:
        """Do nothing to tasks any more."""
        for timer in self._timers:
            timer.cancel()

    def _strike(self, run_id: str) -> None:
        tasks = [task for task in self._aws.tasks() if task.started_by == run_id]
        with suppress(IndexError):  # its task has been forgotten
            task_arn = tasks[-1].task_arn
            if self._kind == "spot":
                self._aws.interrupt(task_arn)
            else:
                reason = "OutOfMemoryError: Container killed due to memory usage"
                self._aws.finish(task_arn, 137, reason)
