"""Trouble that a test orders."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Mapping, Optional


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request.

    Args:
        status: an HTTP status to answer instead, such as 503.
        body: what to answer instead; with status 200 unless one is given.
        headers: further headers of that answer, such as Retry-After.
        delay: seconds to wait before anything else.
        drop_connection: close the connection instead of answering.
        after_effect: do what the request asks first; only its answer is lost.
    """

    status: Optional[int] = None
    body: Optional[bytes] = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drop_connection: bool = False
    after_effect: bool = False

    @property
    def replaces_answer(self) -> bool:
        return self.status is not None or self.body is not None or self.drop_connection


# Given the operation (the root field's name; "" if the request is not understood) and
# its arguments, before each request; None: nothing goes wrong.
FaultPlan = Callable[[str, Dict[str, Any]], Optional[Fault]]
