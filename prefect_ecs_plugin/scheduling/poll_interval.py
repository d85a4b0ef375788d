"""How long to wait before the queue is read again. Pure.

The API shows at most 25 runs: due ones and those of the next ten seconds. A run stays
among them until it is marked Submitted. If 25 are shown there may be more, which are
visible as soon as one of them has been claimed: the agent looks again then.
"""

from __future__ import annotations

from typing import Mapping

#: The most runs that the API shows.
WINDOW = 25


#: The most seconds between two looks while the API answers. A run that a user starts
#: by hand waits half of it on average.
IDLE = 2.0


class PollInterval:
    """Seconds between two reads of the queue; more while there is nothing new.

    Args:
        intervals: Prefect's own: seconds by the number of reads without a new run, up
            to ten seconds. They go beyond `IDLE` only while the API fails.
    """

    def __init__(self, intervals: Mapping[int, float]) -> None:
        self._intervals = intervals
        self._without_new = 0

    def after(self, has_new: bool) -> float:
        """How long to wait after a read.

        Args:
            has_new: Whether it showed a run that is not being launched already.
        """
        if has_new:
            self._without_new = 0
            return self._intervals[0]
        return min(self._next(), IDLE)

    def after_failure(self) -> float:
        """How long to wait after a read that failed."""
        return self._next()

    def _next(self) -> float:
        self._without_new = min(self._without_new + 1, max(self._intervals))
        return self._intervals[self._without_new]
