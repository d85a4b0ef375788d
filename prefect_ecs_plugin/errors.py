"""The errors of this plugin, with one base and a few kinds.

Every message is one line: what happened, to which run or file, and what to do next. It
ends with its code in brackets, such as `[no-credentials]`: a stable name in kebab-case,
listed in docs/troubleshooting.md. Code that catches one of these errors shows
`str(error)` only and logs the traceback at DEBUG.
"""

from __future__ import annotations

import re
from typing import Any, Tuple, Type

#: What requests raises for an address that no request can be sent to.
_NO_URL = ("InvalidSchema", "InvalidURL", "MissingSchema")

#: What urllib3 puts before the reason.
_WRAPPING = re.compile(
    r"^(<[^>]*>|HTTPS?Connection(Pool)?\([^)]*\)): "
    r"|Failed to establish a new connection: |\[Errno -?\d+\] "
)

#: A code at the end of a message.
_CODE = re.compile(r" \[([a-z0-9]+(?:-[a-z0-9]+)*)\]\Z")


def with_code(message: str, code: str) -> str:
    """A message that ends with a code, in place of the one that it ends with so far.

    Args:
        message: A sentence.
        code: In kebab-case; empty keeps the message as it is.
    """
    return f"{without_code(message)} [{code}]" if code else message


def without_code(message: str) -> str:
    """A message without the code at its end, so that more can follow."""
    return _CODE.sub("", message)


def code_of(message: object) -> str:
    """The code that a message, or an error's, ends with; empty where it has none."""
    found = _CODE.search(str(message))
    return found[1] if found else ""


class PrefectECSError(Exception):
    """The base of every error this plugin raises on purpose.

    Attributes:
        message: What happened and what to do, without the code.
        code: The name of the kind of problem, in kebab-case.
    """

    def __init__(self, message: str, *, code: str) -> None:
        self.code = code
        self.message = without_code(message)
        super().__init__(with_code(self.message, self.code))

    def __reduce__(self) -> Tuple[Any, ...]:
        """Let a flow that makes run configs in other processes see its error."""
        return _unpickled, (type(self), self.args), self.__dict__


def _unpickled(kind: Type[PrefectECSError], arguments: Tuple[Any, ...]) -> Any:
    return kind.__new__(kind, *arguments)


class ConfigurationError(PrefectECSError, ValueError):
    """An option, a template or a run config is wrong.

    An option that is wrong keeps the agent from starting. The error is a `ValueError`
    because Prefect's own run configs raise that for the same mistakes.
    """


class SourceError(ConfigurationError):
    """A template or a file of run_task kwargs cannot be read or parsed."""


class RunConfigError(ConfigurationError):
    """A flow run's run config is damaged or cannot be used."""


class UnsupportedRunConfig(RunConfigError):
    """A flow run has a run config for another kind of agent."""


class LaunchError(PrefectECSError):
    """A flow run cannot be launched, and a retry would not help."""


class RateLimited(PrefectECSError):
    """The Prefect API limits the rate of requests (429).

    Attributes:
        retry_after: Seconds from now until the next request makes sense.
    """

    def __init__(self, retry_after: float) -> None:
        super().__init__(
            "the Prefect API limits the rate of requests (429); the next one is sent "
            f"in {retry_after:.0f} s",
            code="prefect-rate-limit",
        )
        self.retry_after = retry_after


def reason(error: BaseException) -> str:
    """Why a request failed, in one line without a full stop and without a code.

    Args:
        error: An error of requests, which wraps one of urllib3; or any other error.
    """
    if type(error).__name__ in _NO_URL:
        return "it is not an http:// or https:// URL"
    wrapped = error.args[0] if error.args else error
    cause = wrapped if isinstance(wrapped, BaseException) else error
    text = " ".join(str(getattr(cause, "reason", cause)).split())
    text = without_code(_WRAPPING.sub("", text))
    return text.rstrip(".") or type(error).__name__
