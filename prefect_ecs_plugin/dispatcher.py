"""Many launches at once, by few threads: one that waits holds none of them.

A launch is a generator (see `waiting`). The dispatcher lets a worker run it up to
its next wait, then puts it aside: into the schedule until it is due, or behind the
future it waits for. One timer thread watches the schedule.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, Callable, Optional, Set

from .schedule import Action, Schedule
from .waiting import Pause, Steps


class Dispatcher:
    """Drives steps to their end.

    Guarantees:

    * Steps go on in the order in which they are due; equals in the order in which
      they came.
    * No step goes on before it is due, and none is driven by two workers at once.
    * What waits costs memory alone.

    Args:
        executor: Runs the steps; see `threaded`.
        report: Told about an exception that steps let out.
        clock: Tells the time, in seconds.
    """

    def __init__(
        self,
        executor: Executor,
        report: Callable[[BaseException], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._executor = executor
        self._report = report
        self.clock = clock
        self._changed = threading.Condition()
        self._schedule = Schedule()
        self._unfinished: Set[Steps[None]] = set()
        self._closed = False
        self._timer: Optional[threading.Thread] = None

    @classmethod
    def threaded(
        cls, workers: int, report: Callable[[BaseException], None]
    ) -> Dispatcher:
        """One with its own worker threads, and a timer thread from now on."""
        executor = ThreadPoolExecutor(workers, thread_name_prefix="launch")
        dispatcher = cls(executor, report)
        dispatcher._timer = threading.Thread(
            target=dispatcher._watch, name="timer", daemon=True
        )
        dispatcher._timer.start()
        return dispatcher

    def start(self, steps: Steps[None]) -> None:
        """Begin with steps as soon as a worker is free."""
        with self._changed:
            self._unfinished.add(steps)
        self._executor.submit(self._run, steps)

    def call_later(self, seconds: float, action: Action) -> None:
        """Do something short after some time, in the timer's thread."""
        due = self.clock() + seconds
        with self._changed:
            if self._schedule.add(due, action):
                self._changed.notify_all()

    def __len__(self) -> int:
        """How many steps have been started and not ended."""
        with self._changed:
            return len(self._unfinished)

    def wait_until_done(self, timeout: Optional[float] = None) -> bool:
        """Wait until nothing is left to drive; False if `timeout` seconds went by."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._unfinished, timeout)

    def close(self) -> None:
        """Begin nothing more; what a worker runs right now it finishes to its wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._timer is not None:
            self._timer.join()
        self._executor.shutdown(wait=True)

    def do_due(self) -> Optional[float]:
        """Do all that is due, and return when something will be due next."""
        with self._changed:
            due = self._schedule.take_due(self.clock())
        for action in due:
            action()
        with self._changed:
            return self._schedule.next_due

    # -- The timer's thread -------------------------------------------------------

    def _watch(self) -> None:
        while not self._closed:
            self.do_due()
            with self._changed:
                seconds = self._seconds_left()
                if not self._closed and seconds != 0:
                    self._changed.wait(seconds)

    def _seconds_left(self) -> Optional[float]:
        """Until something is due; None if nothing is planned."""
        due = self._schedule.next_due
        return None if due is None else max(0.0, due - self.clock())

    # -- A worker -----------------------------------------------------------------

    def _run(self, steps: Steps[None]) -> None:
        """Run steps up to a wait that is worth giving the worker away for."""
        try:
            wait = next(steps)
            while _is_over(wait):
                wait = next(steps)
        except StopIteration:
            self._end(steps)
        except BaseException as error:
            self._end(steps)
            self._report(error)
        else:
            self._put_aside(steps, wait)

    def _put_aside(self, steps: Steps[None], wait: Any) -> None:
        def go_on(_: Any = None) -> None:
            if not self._closed:
                self._executor.submit(self._run, steps)

        if isinstance(wait, Pause):
            self.call_later(wait.seconds, go_on)
        else:
            wait.add_done_callback(go_on)

    def _end(self, steps: Steps[None]) -> None:
        with self._changed:
            self._unfinished.discard(steps)
            if not self._unfinished:
                self._changed.notify_all()


def _is_over(wait: Any) -> bool:
    return wait.seconds <= 0 if isinstance(wait, Pause) else wait.done()
