"""Delivers events to subscribers, in the order in which they happened."""

from __future__ import annotations

import logging
import queue
import threading
from dataclasses import dataclass
from typing import Callable, List, Optional, Union

from .task import TaskView

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskChanged:
    """A task has another status than before; `task` is how it was then."""

    task: TaskView


@dataclass(frozen=True)
class LineWritten:
    """A container wrote a line.

    Attributes:
        at: Seconds since 1970.
    """

    task_arn: str
    started_by: Optional[str]
    container: str
    line: str
    at: float


Event = Union[TaskChanged, LineWritten]
Subscriber = Callable[[Event], None]


class Events:
    """Delivers events on a thread of its own, so that subscribers delay no caller.

    Args:
        subscribers: Called with every event; the list may grow.
    """

    def __init__(self, subscribers: List[Subscriber]) -> None:
        self._subscribers = subscribers
        self._queue: queue.SimpleQueue[Optional[Event]] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._deliver, name="sandbox-aws-events", daemon=True
        )
        self._thread.start()

    @property
    def wanted(self) -> bool:
        """Whether there is a subscriber."""
        return bool(self._subscribers)

    def publish(self, event: Event) -> None:
        """Tell everybody, soon."""
        self._queue.put(event)

    def stop(self) -> None:
        """Deliver what is still waiting, and end."""
        self._queue.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=10)

    def _deliver(self) -> None:
        while True:
            event = self._queue.get()
            if event is None:
                return
            for subscriber in list(self._subscribers):
                try:
                    subscriber(event)
                except Exception:  # one listener's trouble is not the others'
                    logger.exception("A subscriber of the sandbox's events failed.")
