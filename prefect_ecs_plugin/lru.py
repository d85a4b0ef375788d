"""A dict that forgets. Pure; callers that share one between threads hold a lock."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, Optional, TypeVar

Value = TypeVar("Value")


class LeastRecentlyUsed(Generic[Value]):
    """Drops what was not asked for the longest time when it is full.

    Args:
        size: How many values are kept.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[str, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str) -> Optional[Value]:
        """The value of a key, None where there is none; it counts as used."""
        if key in self._values:
            self._values.move_to_end(key)
        return self._values.get(key)

    def set(self, key: str, value: Value) -> None:
        """Keep a value, as the one that was used last."""
        self._values[key] = value
        self._values.move_to_end(key)
        while len(self._values) > self._size:
            self._values.popitem(last=False)

    def remove(self, key: str) -> None:
        """Drop a key, if it is there."""
        self._values.pop(key, None)
