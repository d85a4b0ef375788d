"""The real dispatcher on a clock that jumps: for simulations and for tests.

A simulated hour takes as long as what happens in it; nothing sleeps, and the same
inputs give the same course.
"""

from __future__ import annotations

from concurrent.futures import Executor, Future
from typing import Any, Callable, List, Optional

from .dispatcher import Dispatcher, Report
from .steps import Result, Steps


def _raise(what: str, error: BaseException, run_id: Optional[str]) -> None:
    raise error


class Simulation:
    """A dispatcher without threads, and its clock.

    Args:
        report: The dispatcher's `report`; by default exceptions are raised where
            steps are started or time goes by.

    Attributes:
        now: The simulated time, in seconds.
        dispatcher: Drives steps in the caller's thread, when `run` is called.
    """

    def __init__(self, report: Report = _raise) -> None:
        self.now = 0.0
        self.dispatcher = Dispatcher(_InlineExecutor(), report, lambda: self.now)

    def run(self) -> None:
        """Let time go by until nothing is left to do."""
        next_due = self.dispatcher.do_due()
        while next_due is not None:
            self.now = max(self.now, next_due)
            next_due = self.dispatcher.do_due()

    def run_until(self, then: float) -> None:
        """Let time go by until a moment, in seconds."""
        next_due = self.dispatcher.do_due()
        while next_due is not None and next_due <= then:
            self.now = max(self.now, next_due)
            next_due = self.dispatcher.do_due()
        self.now = max(self.now, then)

    def result_of(self, steps: Steps[Result]) -> Result:
        """Drive steps to their end; what they raise is raised here."""
        results: List[Result] = []

        def collect() -> Steps[None]:
            results.append((yield from steps))

        self.dispatcher.start(collect())
        self.run()
        return results[0]


class _InlineExecutor(Executor):
    """Runs everything at once."""

    def submit(  # type: ignore[override]  # the base's spelling differs by version
        self, fn: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done
