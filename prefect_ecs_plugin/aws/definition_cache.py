"""Remembers which task definitions exist. Pure, but for a lock."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any, Dict, Optional, Tuple

from ..lru import LeastRecentlyUsed
from ..scheduling.steps import Cause

#: How many families are remembered, with the ARN of each: about 1 MiB.
FAMILIES = 2000

#: How many definitions of run configs are remembered in full; one is up to 64 KiB.
DESCRIBED = 500


class Promise(Future):  # type: ignore[type-arg]  # a subscript fails on Python 3.8
    """The ARN that a definition will have.

    Attributes:
        cause: What the wait for it is for.
    """

    cause = Cause.DEFINITION


class TaskDefinitionCache:
    """Families that this agent has found or registered, or is about to.

    A family is named after its content, so it stands for one definition. The first
    launch that needs a family has to provide it; all others get the future of that
    work. Threads may share the cache.

    Args:
        families: How many families are remembered. The least recently used is
            forgotten first, and found again with one DescribeTaskDefinition; one that
            is being provided is never forgotten.
        described: The same for definitions that were only read.
    """

    def __init__(self, families: int = FAMILIES, described: int = DESCRIBED) -> None:
        self._lock = threading.Lock()
        self._pending: Dict[str, Promise] = {}
        self._provided: LeastRecentlyUsed[Promise] = LeastRecentlyUsed(families)
        self._described: LeastRecentlyUsed[Any] = LeastRecentlyUsed(described)

    def __len__(self) -> int:
        """How many families are remembered or are being provided."""
        with self._lock:
            return len(self._pending) + len(self._provided)

    def reserve(self, family: str) -> Tuple[Promise, bool]:
        """The future ARN of a family, and whether the caller has to provide it."""
        with self._lock:
            promise = self._pending.get(family) or self._provided.get(family)
            if promise is not None:
                return promise, False
            self._pending[family] = Promise()
            return self._pending[family], True

    def resolve(self, family: str, arn: str) -> None:
        """Give the ARN of a family that was reserved to all who wait for it."""
        with self._lock:
            promise = self._pending.pop(family)
            self._provided.set(family, promise)
        promise.set_result(arn)

    def reject(self, family: str, error: BaseException) -> None:
        """Give up a family that was reserved; a launch that waits may reserve it."""
        with self._lock:
            promise = self._pending.pop(family)
        promise.set_exception(error)

    def forget(self, family: str, arn: str) -> None:
        """Drop an ARN that ECS does not know, unless it was replaced meanwhile."""
        with self._lock:
            promise = self._provided.get(family)
            if promise is not None and promise.done() and promise.result() == arn:
                self._provided.remove(family)

    def described(self, name: str) -> Optional[Any]:
        """A definition that was read, by the name that a run config gives; or None."""
        with self._lock:
            return self._described.get(name)

    def keep_described(self, name: str, definition: Any) -> None:
        """Remember a definition that was read."""
        with self._lock:
            self._described.set(name, definition)

    def forget_described(self, name: str) -> None:
        """Drop a definition that was read and does not exist any more."""
        with self._lock:
            self._described.remove(name)
