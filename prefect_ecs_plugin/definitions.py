"""Which task definitions exist, as far as this agent knows."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any, Dict, Tuple

from .waiting import Cause


class Promise(Future):  # type: ignore[type-arg]  # a subscript fails on Python 3.8
    """The ARN that a definition will have.

    Attributes:
        cause: What the wait for it is for.
    """

    cause = Cause.DEFINITION


class DefinitionMemory:
    """Families that this agent has found or registered, or is about to.

    A family is named after its content, so it stands for one definition. The first
    launch that needs a family gets the task of providing it; all others get the
    future of that work.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arns: Dict[str, Promise] = {}
        #: Definitions that were only read, by the name that a run config gives.
        self.described: Dict[str, Dict[str, Any]] = {}

    def claim(self, family: str) -> Tuple[Promise, bool]:
        """The ARN that a family has or will have, and whether to provide it is ours."""
        with self._lock:
            if family in self._arns:
                return self._arns[family], False
            self._arns[family] = Promise()
            return self._arns[family], True

    def keep(self, family: str, arn: str) -> None:
        """Tell everybody the ARN of a family that was ours to provide."""
        with self._lock:
            promise = self._arns[family]
        promise.set_result(arn)

    def fail(self, family: str, error: BaseException) -> None:
        """Give the task of providing a family back; who waits for it may claim it."""
        with self._lock:
            promise = self._arns.pop(family)
        promise.set_exception(error)

    def forget(self, family: str, arn: str) -> None:
        """Drop what turned out to be gone, unless it has been replaced meanwhile."""
        with self._lock:
            known = self._arns.get(family)
            if known is not None and known.done() and known.result() == arn:
                del self._arns[family]
