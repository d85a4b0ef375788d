"""Runs many launches with few threads: one that waits holds no thread.

A launch is a generator (see `steps`). A worker runs it up to its next wait. Then it is
an entry in a heap until it is due, or a callback of the future that it waits for. One
timer thread watches the heap.
"""

from __future__ import annotations

import collections
import heapq
import itertools
import threading
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Callable, Dict, List, Optional, Set, Tuple

from .backoff import Backoff
from .steps import Cause, Interrupted, Pause, Steps, Wait

#: Between a failure of a background loop and its next start, in seconds.
RESTART = Backoff(1.0, 60.0)

#: Seconds that a background loop has to run for until its earlier failures are over.
STABLE = 60.0

#: Failures in a row from which on a background loop is a problem.
FAILURES = 3

#: Seconds for which a background loop may be down before it is a problem.
DOWN = 60.0

#: Seconds that one action of the timer thread may take; they are all short.
TIMER_AGE = 60.0

#: Called with an exception: what happened, in words that fit before a colon; the
#: exception; and the id of the run that it concerns, if there is one.
Report = Callable[[str, BaseException, Optional[str]], object]

#: Called for each wait of a run's steps: the run's id, the wait.
OnWait = Callable[[str, Wait], object]

#: What is done when its time has come.
Action = Callable[[], object]


class _Job:
    """Steps that the dispatcher runs.

    Attributes:
        steps: The generator.
        run_id: The flow run that they are for, if there is one.
        cause: What they wait for, or waited for last.
    """

    __slots__ = ("cause", "run_id", "steps")

    def __init__(self, steps: Steps[None], run_id: Optional[str]) -> None:
        self.steps = steps
        self.run_id = run_id
        self.cause = Cause.OTHER


@dataclass
class _Loop:
    """The state of a background loop.

    Attributes:
        name: Its name in problems.
        began: When it was last started, in seconds.
        failed: When the first of its failures in a row happened.
        failures: How many failures in a row there were.
        is_running: Whether it is not waiting for its next start.
        has_ended: Whether it returned, which a background loop must not do.
    """

    name: str
    began: float
    failed: float = 0.0
    failures: int = 0
    is_running: bool = True
    has_ended: bool = False

    def fail(self, now: float) -> int:
        """Note that it raised an exception; returns how many in a row that makes."""
        if self._is_stable(now):
            self.failures = 0
        if not self.failures:
            self.failed = now
        self.failures += 1
        self.is_running = False
        return self.failures

    def problem(self, now: float) -> Optional[str]:
        """What is wrong with it; None if nothing is."""
        if self.has_ended:
            return f"the background loop {self.name} has ended [loop-ended]"
        if not self.failures or self._is_stable(now):
            return None
        is_down = not self.is_running and now - self.failed > DOWN
        if self.failures >= FAILURES or is_down:
            return f"the background loop {self.name} keeps failing [loop-failing]"
        return None

    def _is_stable(self, now: float) -> bool:
        return self.is_running and now - self.began >= STABLE


class Dispatcher:
    """Runs steps to their end.

    Guarantees:

    * Steps continue in the order in which they are due; those that are due at the same
      time, in the order in which they came.
    * No steps continue before they are due, and no two workers run the same steps.
    * What waits costs only memory.
    * No exception ends a background loop, a worker or the timer thread.
    * After `interrupt`, all steps are interrupted at their wait, and wait no more.

    Args:
        executor: Runs the steps; see `threaded`.
        report: Called with each exception of steps, timer actions or the observer of
            waits.
        clock: Tells the time, in seconds.
    """

    def __init__(
        self,
        executor: Executor,
        report: Report,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._executor = executor
        self._report = report
        self.clock = clock
        self._changed = threading.Condition()
        self._heap: List[Tuple[float, int, Action]] = []
        self._order = itertools.count()
        self._unfinished: Set[_Job] = set()
        self._waiting: Set[_Job] = set()
        self._running: Dict[int, float] = {}
        self._loops: List[_Loop] = []
        self._on_wait: Optional[OnWait] = None
        self._interrupted = False
        self._closed = False
        self._timer: Optional[threading.Thread] = None
        self._acting_since: Optional[float] = None

    @classmethod
    def threaded(cls, workers: int, report: Report) -> Dispatcher:
        """A dispatcher with worker threads and a running timer thread."""
        executor = ThreadPoolExecutor(workers, thread_name_prefix="launch")
        dispatcher = cls(executor, report)
        dispatcher._timer = threading.Thread(
            target=dispatcher._watch, name="timer", daemon=True
        )
        dispatcher._timer.start()
        return dispatcher

    # -- What is run --------------------------------------------------------------

    def start(
        self,
        steps: Steps[None],
        background: bool = False,
        run_id: Optional[str] = None,
    ) -> None:
        """Run steps, from when a worker is free.

        Args:
            steps: What to run.
            background: Whether `wait_until_done` does not wait for their end.
            run_id: The flow run that they are for. Its waits are counted and
                observed; steps that these steps start have to name it again.
        """
        job = _Job(steps, run_id)
        if not background:
            with self._changed:
                self._unfinished.add(job)
        self._executor.submit(self._run, job)

    def keep_running(self, name: str, make_steps: Callable[[], Steps[None]]) -> None:
        """Run a background loop, and start it again whenever it fails.

        Each exception is reported. The loop is started again after 1 s; this time
        doubles with each failure, up to 60 s, until the loop has run for 60 s.
        `problem` says when it keeps failing.

        Args:
            name: Names the loop in the log and in the health check.
            make_steps: Makes its steps, which must not end by themselves.
        """
        loop = _Loop(name, self.clock())
        self._loops.append(loop)
        self.start(self._kept_running(name, make_steps, loop), background=True)

    def call_later(self, seconds: float, action: Action) -> None:
        """Do something short after some time, in the timer's thread."""
        due = self.clock() + seconds
        with self._changed:
            entry = (due, next(self._order), action)
            heapq.heappush(self._heap, entry)
            if self._heap[0] is entry:
                self._changed.notify_all()

    def observe_waits(self, on_wait: OnWait) -> None:
        """Have a function called before steps that name a run begin to wait.

        It is called in the worker's thread, has to be short, and must not wait. It is
        not called for waits that are over at once, nor after `interrupt`. An exception
        in it is reported and does not affect the steps.

        Args:
            on_wait: Called with the run's id and the wait. It replaces the previous
                observer.
        """
        self._on_wait = on_wait

    # -- Its state ----------------------------------------------------------------

    def waits(self) -> Dict[Cause, int]:
        """How many flow runs wait at present, for each cause."""
        with self._changed:
            causes = {
                job.run_id: job.cause for job in self._waiting if job.run_id is not None
            }
        return {**dict.fromkeys(Cause, 0), **collections.Counter(causes.values())}

    def slowest(self) -> float:
        """For how many seconds the slowest worker has been busy with one step."""
        began = min(list(self._running.values()), default=None)
        return 0.0 if began is None else self.clock() - began

    def problem(self) -> Optional[str]:
        """What is wrong with the timer thread or a background loop, with its code.

        Returns:
            The first problem found; None if there is none, or it is being stopped.
        """
        if self._interrupted or self._closed:
            return None
        if self._timer is not None and not self._timer.is_alive():
            return "the timer thread has ended [timer-ended]"
        now, since = self.clock(), self._acting_since
        if since is not None and now - since > TIMER_AGE:
            seconds = now - since
            return f"the timer thread has been stuck for {seconds:.0f} s [timer-stuck]"
        problems = (loop.problem(now) for loop in list(self._loops))
        return next(filter(None, problems), None)

    # -- Its end ------------------------------------------------------------------

    def wait_until_done(self, timeout: Optional[float] = None) -> bool:
        """Wait until all steps have ended; False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._unfinished, timeout)

    def interrupt(self) -> None:
        """Raise `Interrupted` in all steps that wait, and in others at their wait."""
        with self._changed:
            self._interrupted = True
            waiting = list(self._waiting)
        for job in waiting:
            self._continue(job)

    def close(self) -> None:
        """Start nothing more; steps that run right now continue up to their wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._timer is not None:
            self._timer.join()
        self._executor.shutdown(wait=True)

    # -- The timer's thread -------------------------------------------------------

    def do_due(self) -> Optional[float]:
        """Do all that is due, and return when something will be due next."""
        now = self.clock()
        while True:
            with self._changed:
                if not self._heap or self._heap[0][0] > now:
                    return self._next_due()
                action = heapq.heappop(self._heap)[2]
            self._acting_since = self.clock()
            try:
                action()
            except BaseException as error:
                self._report("A timed action failed", error, None)
            finally:
                self._acting_since = None

    def _watch(self) -> None:
        while not self._closed:
            try:
                self.do_due()
            except BaseException:  # even reporting failed; what else is due goes on
                continue
            with self._changed:
                due = self._next_due()
                seconds = None if due is None else max(0.0, due - self.clock())
                if not self._closed and seconds != 0:
                    self._changed.wait(seconds)

    def _next_due(self) -> Optional[float]:
        return self._heap[0][0] if self._heap else None

    # -- A worker -----------------------------------------------------------------

    def _run(self, job: _Job) -> None:
        worker = threading.get_ident()
        self._running[worker] = self.clock()
        try:
            self._run_to_wait(job)
        finally:
            self._running.pop(worker, None)

    def _run_to_wait(self, job: _Job) -> None:
        """Run steps up to a wait that is not over at once."""
        try:
            wait = self._next(job.steps)
            while self._interrupted or _is_over(wait):
                wait = self._next(job.steps)
        except (StopIteration, Interrupted):
            self._end(job)
        except BaseException as error:
            self._end(job)
            what = "Work of the agent was aborted by an internal error"
            if job.run_id is not None:
                what = (
                    f"Flow run {job.run_id}: the agent's work on it was aborted by an "
                    "internal error"
                )
            self._report(what, error, job.run_id)
        else:
            self._wait(job, wait)

    def _next(self, steps: Steps[None]) -> Wait:
        return steps.throw(Interrupted()) if self._interrupted else next(steps)

    def _wait(self, job: _Job, wait: Wait) -> None:
        if job.run_id is not None and self._on_wait is not None:
            try:
                self._on_wait(job.run_id, wait)
            except Exception as error:
                what = f"Flow run {job.run_id}: the agent could not say why it waits"
                self._report(what, error, job.run_id)
        job.cause = getattr(wait, "cause", Cause.OTHER)
        with self._changed:
            self._waiting.add(job)
        if isinstance(wait, Pause):
            self.call_later(wait.seconds, lambda: self._continue(job))
        else:
            wait.add_done_callback(lambda _: self._continue(job))
        if self._interrupted:  # since the last check
            self._continue(job)

    def _continue(self, job: _Job) -> None:
        """Give steps to a worker again; only the first call for a wait does so."""
        with self._changed:
            if job not in self._waiting or self._closed:
                return
            self._waiting.remove(job)
        self._executor.submit(self._run, job)

    def _end(self, job: _Job) -> None:
        with self._changed:
            self._unfinished.discard(job)
            if not self._unfinished:
                self._changed.notify_all()

    def _kept_running(
        self, name: str, make_steps: Callable[[], Steps[None]], loop: _Loop
    ) -> Steps[None]:
        while True:
            loop.began, loop.is_running = self.clock(), True
            try:
                yield from make_steps()
            except (Interrupted, GeneratorExit):
                raise
            except BaseException as error:
                seconds = RESTART.seconds(loop.fail(self.clock()), 1.0)
                self._report(
                    f"The background loop {name} failed and is started again in "
                    f"{seconds:.0f} s",
                    error,
                    None,
                )
                yield Pause(seconds)
            else:
                loop.has_ended = True
                return


def _is_over(wait: Wait) -> bool:
    return wait.seconds <= 0 if isinstance(wait, Pause) else wait.done()
