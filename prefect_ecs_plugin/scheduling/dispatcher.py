"""Drives many launches with few threads: one that waits holds none of them.

A launch is a generator (see `steps`). The dispatcher lets a worker run it up to
its next wait, then puts it aside: into the schedule until it is due, or behind the
future it waits for. One timer thread watches the schedule.
"""

from __future__ import annotations

import collections
import threading
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Callable, Dict, List, Optional, Set

from .backoff import Backoff
from .steps import Cause, Interrupted, Pause, Steps, Wait
from .timer_heap import Action, Schedule

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

#: Told about an exception: what happened, in words that fit before a colon; the
#: exception; and the id of the run that it concerns, if there is one.
Report = Callable[[str, BaseException, Optional[str]], object]

#: Told about each wait of a run's steps: the run's id, the wait.
OnWait = Callable[[str, Wait], object]


class _Driven:
    """Steps that are driven.

    Attributes:
        steps: The generator.
        run_id: The flow run that they are for, if there is one.
        is_background: Whether nothing waits for their end.
        cause: What they wait for, or waited for last.
    """

    __slots__ = ("cause", "is_background", "run_id", "steps")

    def __init__(
        self, steps: Steps[None], run_id: Optional[str], is_background: bool
    ) -> None:
        self.steps = steps
        self.run_id = run_id
        self.is_background = is_background
        self.cause = Cause.OTHER


class _Loop:
    """A background loop, and how it is doing.

    Args:
        name: What problems call it.
        now: The time, in seconds.
    """

    def __init__(self, name: str, now: float) -> None:
        self._name = name
        self._began = now
        self._failed = now
        self._failures = 0
        self._is_running = True
        self._has_ended = False

    def begin(self, now: float) -> None:
        """It is started again."""
        self._began, self._is_running = now, True

    def fail(self, now: float) -> int:
        """It let out an exception; how many in a row that makes."""
        if self._is_stable(now):
            self._failures = 0
        if not self._failures:
            self._failed = now
        self._failures += 1
        self._is_running = False
        return self._failures

    def end(self) -> None:
        """It returned, which a background loop must not do."""
        self._has_ended = True

    def problem(self, now: float) -> Optional[str]:
        """What is wrong with it; None if nothing is."""
        if self._has_ended:
            return f"the background loop {self._name} has ended [loop-ended]"
        if not self._failures or self._is_stable(now):
            return None
        is_down = not self._is_running and now - self._failed > DOWN
        if self._failures >= FAILURES or is_down:
            return f"the background loop {self._name} keeps failing [loop-failing]"
        return None

    def _is_stable(self, now: float) -> bool:
        return self._is_running and now - self._began >= STABLE


class Dispatcher:
    """Drives steps to their end.

    Guarantees:

    * Steps go on in the order in which they are due; equals in the order in which
      they came.
    * No step goes on before it is due, and none is driven by two workers at once.
    * What waits costs memory alone.
    * No exception ends a background loop, a worker or the timer thread.
    * After `interrupt`, every step learns of it at its wait, and waits no more.

    Args:
        executor: Runs the steps; see `threaded`.
        report: Told about each exception that steps, timer actions or the observer
            of waits let out.
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
        self._schedule = Schedule()
        self._unfinished: Set[_Driven] = set()
        self._waiting: Set[_Driven] = set()
        self._running: Dict[int, float] = {}
        self._loops: List[_Loop] = []
        self._on_wait: Optional[OnWait] = None
        self._interrupted = False
        self._closed = False
        self._timer: Optional[threading.Thread] = None
        self._acting_since: Optional[float] = None

    @classmethod
    def threaded(cls, workers: int, report: Report) -> Dispatcher:
        """One with its own worker threads, and a timer thread from now on."""
        executor = ThreadPoolExecutor(workers, thread_name_prefix="launch")
        dispatcher = cls(executor, report)
        dispatcher._timer = threading.Thread(
            target=dispatcher._watch, name="timer", daemon=True
        )
        dispatcher._timer.start()
        return dispatcher

    # -- What is driven -----------------------------------------------------------

    def start(
        self,
        steps: Steps[None],
        background: bool = False,
        run_id: Optional[str] = None,
    ) -> None:
        """Begin with steps as soon as a worker is free.

        Args:
            steps: What to drive.
            background: Whether nothing waits for their end.
            run_id: The flow run that they are for. Its waits are counted and
                observed; steps that these steps start have to name it again.
        """
        driven = _Driven(steps, run_id, background)
        if not background:
            with self._changed:
                self._unfinished.add(driven)
        self._executor.submit(self._run, driven)

    def keep_running(self, name: str, make_steps: Callable[[], Steps[None]]) -> None:
        """Drive a background loop, and start it again whenever it fails.

        Each exception is reported. The loop is started again after 1 s; this time
        doubles with each failure, up to 60 s, until the loop has run for 60 s.
        `problem` tells when it keeps failing.

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
            if self._schedule.add(due, action):
                self._changed.notify_all()

    def observe_waits(self, on_wait: OnWait) -> None:
        """Have a function called before steps that name a run are put aside.

        It is called in the worker's thread, has to be short, and must not wait. It
        is not called for waits that are over at once, nor after `interrupt`. An
        exception in it is reported and does the steps no harm.

        Args:
            on_wait: Called with the run's id and the wait. It replaces the observer
                that was there before.
        """
        self._on_wait = on_wait

    # -- How it is ----------------------------------------------------------------

    def waits(self) -> Dict[Cause, int]:
        """How many flow runs wait at present, by what for; all causes are there."""
        with self._changed:
            causes = {
                driven.run_id: driven.cause
                for driven in self._waiting
                if driven.run_id is not None
            }
        return {**dict.fromkeys(Cause, 0), **collections.Counter(causes.values())}

    def slowest(self) -> float:
        """For how many seconds the slowest worker has been busy with one step."""
        began = min(list(self._running.values()), default=None)
        return 0.0 if began is None else self.clock() - began

    def problem(self) -> Optional[str]:
        """What is wrong with the timer thread or a background loop, in plain words.

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
        """Wait until nothing is left to drive; False if `timeout` seconds went by."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._unfinished, timeout)

    def interrupt(self) -> None:
        """Raise `Interrupted` in all steps that wait, and in others at their wait."""
        with self._changed:
            self._interrupted = True
            waiting = list(self._waiting)
        for driven in waiting:
            self._go_on(driven)

    def close(self) -> None:
        """Begin nothing more; what a worker runs right now it finishes to its wait."""
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
                action = self._schedule.take_due(now)
                if action is None:
                    return self._schedule.next_due
            self._act(action)

    def _act(self, action: Action) -> None:
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
                seconds = self._seconds_left()
                if not self._closed and seconds != 0:
                    self._changed.wait(seconds)

    def _seconds_left(self) -> Optional[float]:
        """Until something is due; None if nothing is planned."""
        due = self._schedule.next_due
        return None if due is None else max(0.0, due - self.clock())

    # -- A worker -----------------------------------------------------------------

    def _run(self, driven: _Driven) -> None:
        """Run steps up to a wait that is worth giving the worker away for."""
        worker = threading.get_ident()
        self._running[worker] = self.clock()
        try:
            self._run_to_wait(driven)
        finally:
            self._running.pop(worker, None)

    def _run_to_wait(self, driven: _Driven) -> None:
        try:
            wait = self._next(driven.steps)
            while self._interrupted or _is_over(wait):
                wait = self._next(driven.steps)
        except (StopIteration, Interrupted):
            self._end(driven)
        except BaseException as error:
            self._end(driven)
            self._report(_what_was_aborted(driven.run_id), error, driven.run_id)
        else:
            self._tell_observer(driven.run_id, wait)
            self._put_aside(driven, wait)

    def _next(self, steps: Steps[None]) -> Wait:
        return steps.throw(Interrupted()) if self._interrupted else next(steps)

    def _tell_observer(self, run_id: Optional[str], wait: Wait) -> None:
        if run_id is None or self._on_wait is None:
            return
        try:
            self._on_wait(run_id, wait)
        except Exception as error:
            what = f"Flow run {run_id}: the agent could not say why it waits"
            self._report(what, error, run_id)

    def _put_aside(self, driven: _Driven, wait: Wait) -> None:
        driven.cause = getattr(wait, "cause", Cause.OTHER)
        with self._changed:
            self._waiting.add(driven)
        if isinstance(wait, Pause):
            self.call_later(wait.seconds, lambda: self._go_on(driven))
        else:
            wait.add_done_callback(lambda _: self._go_on(driven))
        if self._interrupted:  # since it was decided to wait
            self._go_on(driven)

    def _go_on(self, driven: _Driven) -> None:
        """Give steps to a worker again, once however many ask for it."""
        with self._changed:
            if driven not in self._waiting or self._closed:
                return
            self._waiting.remove(driven)
        self._executor.submit(self._run, driven)

    def _end(self, driven: _Driven) -> None:
        with self._changed:
            self._unfinished.discard(driven)
            if not self._unfinished:
                self._changed.notify_all()

    def _kept_running(
        self, name: str, make_steps: Callable[[], Steps[None]], loop: _Loop
    ) -> Steps[None]:
        while True:
            loop.begin(self.clock())
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
                return loop.end()


def _is_over(wait: Wait) -> bool:
    return wait.seconds <= 0 if isinstance(wait, Pause) else wait.done()


def _what_was_aborted(run_id: Optional[str]) -> str:
    if run_id is None:
        return "Work of the agent was aborted by an internal error"
    return f"Flow run {run_id}: the agent's work on it was aborted by an internal error"
