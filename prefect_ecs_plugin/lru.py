"""Dicts that forget what was not asked for the longest time. Pure, but for a lock."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import suppress
from typing import Any, Callable, Generic, Optional, TypeVar

Value = TypeVar("Value")

#: How many results a `Memory` keeps, and characters of what one is made of.
_REMEMBERED, _LONGEST = 200, 20_000


class LeastRecentlyUsed(Generic[Value]):
    """Drops what was not asked for the longest time when it is full.

    Threads that share one need a lock.

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


class Memory(Generic[Value]):
    """Remembers 200 results by what they were made of; threads may share it.

    Results are shared, so nothing may change them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: LeastRecentlyUsed[Value] = LeastRecentlyUsed(_REMEMBERED)

    def get(self, content: Optional[str], make: Callable[[], Value]) -> Value:
        """The result for some content, made if it is not known.

        Args:
            content: What it is made of, see `content_of`; None to remember nothing.
            make: Makes the result. What it raises is raised here and not remembered.
        """
        if content is None:
            return make()
        with self._lock:
            known = self._values.get(content)
        if known is None:
            known = make()
            with self._lock:
                self._values.set(content, known)
        return known


def content_of(*values: Any) -> Optional[str]:
    """What JSON or YAML values and frozen dataclasses consist of, as text.

    Returns:
        None if that is more than 20,000 characters, or nested too deeply.
    """
    with suppress(RecursionError):
        text = repr(values)
        return text if len(text) <= _LONGEST else None
    return None
