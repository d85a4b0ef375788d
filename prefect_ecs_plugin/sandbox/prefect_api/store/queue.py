"""Scheduled runs in the order of their start times."""

from __future__ import annotations

import bisect
from typing import Dict, Iterator, List, Tuple

_Entry = Tuple[str, int, str]


class Queue:
    """Ids by start time, then by when they came; none is looked at that is not due."""

    def __init__(self) -> None:
        self._entries: List[_Entry] = []
        self._by_id: Dict[str, _Entry] = {}
        self._count = 0

    def add(self, row_id: str, start_time: str) -> None:
        self.remove(row_id)
        self._count += 1
        entry = (start_time, self._count, row_id)
        self._by_id[row_id] = entry
        bisect.insort(self._entries, entry)

    def remove(self, row_id: str) -> None:
        entry = self._by_id.pop(row_id, None)
        if entry is not None:
            del self._entries[bisect.bisect_left(self._entries, entry)]

    def due(self, before: str) -> Iterator[str]:
        """The ids whose time is not after `before`, first first."""
        for start_time, _, row_id in self._entries:
            if start_time > before:
                return
            yield row_id
