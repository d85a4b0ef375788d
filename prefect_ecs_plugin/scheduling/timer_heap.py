"""A heap of what is due when. Pure; callers pass the time."""

from __future__ import annotations

import heapq
import itertools
from typing import Callable, List, Optional, Tuple

#: What is done when its time has come.
Action = Callable[[], object]


class Schedule:
    """Actions by their due time; equals in the order in which they were added."""

    def __init__(self) -> None:
        self._heap: List[Tuple[float, int, Action]] = []
        self._order = itertools.count()

    def add(self, due: float, action: Action) -> bool:
        """Add an action; True if it is now the first one due."""
        entry = (due, next(self._order), action)
        heapq.heappush(self._heap, entry)
        return self._heap[0] is entry

    def take_due(self, now: float) -> Optional[Action]:
        """Take out the earliest action whose time has come; None if there is none."""
        if self._heap and self._heap[0][0] <= now:
            return heapq.heappop(self._heap)[2]
        return None

    @property
    def next_due(self) -> Optional[float]:
        """When the first action is due; None if there is none."""
        return self._heap[0][0] if self._heap else None
