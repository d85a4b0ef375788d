"""Things to do later, on one thread and one heap.

A task passes through its states by itself, and there may be ten thousand of them,
so none of them gets a thread for waiting.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from typing import Callable, List, Tuple

Act = Callable[[], None]
logger = logging.getLogger(__name__)


class Timers:
    """Calls functions when their time has come, in order of that time.

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
            except Exception:  # one task's trouble must not stop the others' clocks
                logger.exception("The sandbox could not move a task on.")

    def _next(self) -> Act | None:
        with self._changed:
            while not self._stopped:
                wait = self._heap[0][0] - self._clock() if self._heap else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._heap)[2]
                self._changed.wait(wait)
        return None
