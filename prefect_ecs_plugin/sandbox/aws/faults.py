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
        failures: Answer 200 with no tasks and these `failures[]` (RunTask).
        drop_connection: End the connection without an answer.
        after_effect: Do what was asked for first, and only then go wrong: the
            answer is lost or wrong, the effect is there.
        delay: Seconds to wait before anything else; alone, the request is merely
            slow.
    """

    error_code: Optional[str] = None
    message: str = "Rate exceeded"
    status: int = 400
    members: Optional[Mapping[str, Any]] = None
    failures: Optional[Sequence[Mapping[str, Any]]] = None
    drop_connection: bool = False
    after_effect: bool = False
    delay: float = 0.0

    @property
    def changes_answer(self) -> bool:
        """False for a fault that is nothing but slow."""
        return bool(
            self.drop_connection
            or self.failures is not None
            or self.error_code
            or self.status >= 500
        )

    def refusal(self) -> Refusal:
        """The error to answer."""
        code = self.error_code or "InternalServerError"
        return Refusal(code, self.message, self.status, **dict(self.members or {}))


FaultHook = Callable[[str, Dict[str, Any]], Optional[Fault]]
