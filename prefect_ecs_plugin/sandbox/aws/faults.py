"""Trouble on purpose: what a test may make the sandbox's AWS answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, Mapping, Optional, Sequence

from .answers import Refusal


@dataclass(frozen=True)
class Fault:
    """What is wrong with one request.

    Attributes:
        error_code: Answer this error, `ThrottlingException`.
        message: The error's sentence.
        status: Its HTTP status; from 500 on without an error_code, AWS's own
            InternalServerError is answered.
        members: Further members of the error, `{"resourceIds": [...]}`.
        body: Answer these bytes, with status 200 unless told.
        failures: Answer 200 with no tasks and these `failures[]` (RunTask).
        drop_connection: End the connection without an answer.
        after_effect: Do what was asked for first, and only then go wrong: the
            answer is lost or wrong, the effect is there.
        delay: Seconds to wait before anything else; alone, the request is merely
            slow.
    """

    error_code: Optional[str] = None
    message: str = "Rate exceeded"
    status: Optional[int] = None
    members: Optional[Mapping[str, Any]] = None
    body: Optional[bytes] = None
    failures: Optional[Sequence[Mapping[str, Any]]] = None
    drop_connection: bool = False
    after_effect: bool = False
    delay: float = 0.0

    @property
    def changes_answer(self) -> bool:
        """False for a fault that is nothing but slow."""
        kinds = (self.error_code, self.status, self.body, self.failures)
        return self.drop_connection or any(kind is not None for kind in kinds)

    def refusal(self) -> Refusal:
        """The error to answer."""
        code = self.error_code or "InternalServerError"
        members = dict(self.members or {})
        return Refusal(code, self.message, self.status or 400, **members)


FaultHook = Callable[[str, Dict[str, Any]], Optional[Fault]]
