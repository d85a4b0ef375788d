"""When to look into the queue again.

The API shows 25 runs at a time, due ones and those of the next ten seconds, and a
run stays among them until it is marked Submitted. So a full window means that there
may be more behind it, which can be seen as soon as one of them has been taken.
"""

from __future__ import annotations

from typing import Mapping

#: How many runs the API shows at most.
WINDOW = 25


class PollInterval:
    """Seconds between two looks, longer and longer while there is nothing new.

    Args:
        intervals: Prefect's own: seconds by the number of fruitless looks.
    """

    def __init__(self, intervals: Mapping[int, float]) -> None:
        self._intervals = intervals
        self._fruitless = 0
        self.window_is_full = False

    def after(self, seen: int, new: int) -> float:
        """How long to wait after a look.

        Args:
            seen: How many runs the queue showed.
            new: How many of them are now being launched for the first time.
        """
        self.window_is_full = seen >= WINDOW
        if new:
            self._fruitless = 0
            return 0.0 if self.window_is_full else self._intervals[0]
        self._fruitless = min(self._fruitless + 1, max(self._intervals))
        return self._intervals[self._fruitless]
