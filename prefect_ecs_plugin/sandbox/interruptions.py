"""Tasks that the sandbox's AWS interrupts if a user asks for it with `--fault`."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, List, Sequence, Set

if TYPE_CHECKING:
    from prefect_ecs_plugin.sandbox.aws import AWS

#: How a task is interrupted: AWS takes its capacity, or its flow's container is killed
#: for memory.
INTERRUPTIONS = ("spot", "memory")


class Interruptions:
    """Interrupts the first task of each run, some seconds after its flow has begun.

    Args:
        aws: Where the tasks are.
        kinds: Of `INTERRUPTIONS`; the first one counts. Others are left out.
        seconds: How many seconds after the run has become Running.
    """

    def __init__(self, aws: AWS, kinds: Sequence[str], seconds: float) -> None:
        self._aws = aws
        self._kinds = [kind for kind in kinds if kind in INTERRUPTIONS]
        self._seconds = seconds
        self._begun: Set[str] = set()
        self._timers: List[threading.Timer] = []

    def begin(self, run_id: str) -> None:
        """A run has become Running."""
        if not self._kinds or run_id in self._begun:
            return
        self._begun.add(run_id)
        timer = threading.Timer(self._seconds, self._interrupt, [run_id])
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def close(self) -> None:
        """Interrupt nothing any more."""
        for timer in self._timers:
            timer.cancel()

    def _interrupt(self, run_id: str) -> None:
        tasks = [task for task in self._aws.tasks() if task.started_by == run_id]
        with suppress(IndexError):  # its task is gone
            task_arn = tasks[-1].task_arn
            if self._kinds[0] == "spot":
                self._aws.interrupt(task_arn)
            else:
                reason = "OutOfMemoryError: Container killed due to memory usage"
                self._aws.finish(task_arn, 137, reason)
