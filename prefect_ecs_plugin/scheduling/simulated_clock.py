"""The real dispatcher on a simulated clock, for simulations and tests.

Nothing sleeps: the clock jumps to what is due next. The same inputs give the same
course of events.
"""

from __future__ import annotations

import math
from concurrent.futures import Executor, Future
from typing import Any, Callable, List, Optional

from .dispatcher import Dispatcher, Report
from .steps import Result, Steps


def _raise(what: str, error: BaseException, run_id: Optional[str]) -> None:
    raise error


class Simulation:
    """A dispatcher without threads, and its clock.

    Args:
        report: The dispatcher's `report`; by default exceptions are raised by `start`
            and `run`.

    Attributes:
        now: The simulated time, in seconds.
        dispatcher: Runs steps in the caller's thread.
    """

    def __init__(self, report: Report = _raise) -> None:
        self.now = 0.0
        self.dispatcher = Dispatcher(_InlineExecutor(), report, lambda: self.now)

    def run(self) -> None:
        """Advance the clock until nothing is left to do."""
        self._run_until(math.inf)

    def run_until(self, then: float) -> None:
        """Advance the clock to a time, in seconds."""
        self._run_until(then)
        self.now = max(self.now, then)

    def _run_until(self, then: float) -> None:
        next_due = self.dispatcher.do_due()
        while next_due is not None and next_due <= then:
            self.now = max(self.now, next_due)
            next_due = self.dispatcher.do_due()

    def result_of(self, steps: Steps[Result]) -> Result:
        """Run steps to their end; what they raise is raised here."""
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
