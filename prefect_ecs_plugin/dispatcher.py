"""Many launches at once, by few threads: one that waits holds none of them.

A launch is a generator (see `waiting`). The dispatcher lets a worker run it up to
its next wait, then puts it aside: into the schedule until it is due, or behind the
future it waits for. One timer thread watches the schedule.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, Callable, Dict, Optional, Set

from .schedule import Action, Schedule
from .waiting import Interrupted, Pause, Steps


class Dispatcher:
    """Drives steps to their end.

    Guarantees:

    * Steps go on in the order in which they are due; equals in the order in which
      they came.
    * No step goes on before it is due, and none is driven by two workers at once.
    * What waits costs memory alone.
    * After `interrupt`, every step learns of it at its wait, and waits no more.

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
        self._waiting: Set[Steps[None]] = set()
        self._running: Dict[int, float] = {}
        self._interrupted = False
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

    def start(self, steps: Steps[None], background: bool = False) -> None:
        """Begin with steps as soon as a worker is free.

        Args:
            steps: What to drive.
            background: Whether nobody waits for their end.
        """
        if not background:
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

    def slowest(self) -> float:
        """For how many seconds the slowest worker has been busy with one step."""
        began = min(list(self._running.values()), default=None)
        return 0.0 if began is None else self.clock() - began

    def interrupt(self) -> None:
        """Raise `Interrupted` in all steps that wait, and in others at their wait."""
        with self._changed:
            self._interrupted = True
            waiting = list(self._waiting)
        for steps in waiting:
            self._go_on(steps)

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
        worker = threading.get_ident()
        self._running[worker] = self.clock()
        try:
            self._run_to_wait(steps)
        finally:
            self._running.pop(worker, None)

    def _run_to_wait(self, steps: Steps[None]) -> None:
        try:
            wait = self._next(steps)
            while self._interrupted or _is_over(wait):
                wait = self._next(steps)
        except (StopIteration, Interrupted):
            self._end(steps)
        except BaseException as error:
            self._end(steps)
            self._report(error)
        else:
            self._put_aside(steps, wait)

    def _next(self, steps: Steps[None]) -> Any:
        return steps.throw(Interrupted()) if self._interrupted else next(steps)

    def _put_aside(self, steps: Steps[None], wait: Any) -> None:
        with self._changed:
            self._waiting.add(steps)
        if isinstance(wait, Pause):
            self.call_later(wait.seconds, lambda: self._go_on(steps))
        else:
            wait.add_done_callback(lambda _: self._go_on(steps))
        if self._interrupted:  # since it was decided to wait
            self._go_on(steps)

    def _go_on(self, steps: Steps[None]) -> None:
        """Give steps to a worker again, once however many ask for it."""
        with self._changed:
            if steps not in self._waiting or self._closed:
                return
            self._waiting.remove(steps)
        self._executor.submit(self._run, steps)

    def _end(self, steps: Steps[None]) -> None:
        with self._changed:
            self._unfinished.discard(steps)
            if not self._unfinished:
                self._changed.notify_all()


def _is_over(wait: Any) -> bool:
    return wait.seconds <= 0 if isinstance(wait, Pause) else wait.done()
