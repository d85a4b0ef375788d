"""Faults that a test orders."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from typing import Any, Callable, Collection, Dict, Mapping, Optional


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request.

    The client waits 15 seconds for an answer, then sends the request once more. With
    `delay=16` the first request takes effect after the second has come, with
    `answer_delay=16` before that.

    Args:
        status: an HTTP status to answer instead, such as 503.
        body: what to answer instead; with status 200 unless one is given.
        headers: headers of that answer, such as `{"Retry-After": "30"}`.
        delay: seconds to wait before anything else, the effect included.
        answer_delay: seconds to hold the answer back once the effect is there.
        drop_connection: close the connection instead of answering.
        after_effect: do what the request asks first; only its answer is lost.
    """

    status: Optional[int] = None
    body: Optional[bytes] = None
    headers: Optional[Mapping[str, str]] = None
    delay: float = 0.0
    answer_delay: float = 0.0
    drop_connection: bool = False
    after_effect: bool = False

    @property
    def replaces_answer(self) -> bool:
        return self.status is not None or self.body is not None or self.drop_connection

    @property
    def has_effect(self) -> bool:
        """Whether what the request asks for is done."""
        return self.after_effect or not self.replaces_answer


# Given the operation (the root field's name; "" if the request is not understood) and
# its arguments, before each request; None: nothing goes wrong.
FaultPlan = Callable[[str, Dict[str, Any]], Optional[Fault]]


class RandomFaults:
    """A FaultPlan: the same fault for a share of the requests, drawn at random.

        api.fault = RandomFaults(0.3, Fault(answer_delay=16.0), seed=1)

    Args:
        share: the probability for each request, from 0 to 1.
        fault: what goes wrong with those that are drawn.
        seed: of the draws, of which there is one for each request in the order in which
            they come.
        operations: only requests for these root fields are drawn; any by default.

    Attributes:
        drawn: how many requests the fault has met.
    """

    def __init__(
        self,
        share: float,
        fault: Fault,
        *,
        seed: int = 0,
        operations: Optional[Collection[str]] = None,
    ) -> None:
        self._share = share
        self._fault = fault
        self._random = random.Random(seed)
        self._operations = operations
        self._lock = threading.Lock()
        self.drawn = 0

    def __call__(self, operation: str, arguments: Dict[str, Any]) -> Optional[Fault]:
        if self._operations is not None and operation not in self._operations:
            return None
        with self._lock:
            if self._random.random() >= self._share:
                return None
            self.drawn += 1
        return self._fault
