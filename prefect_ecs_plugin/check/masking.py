"""Secrets made stars, for requests that people will read or send to others. Pure."""

from __future__ import annotations

import re
from typing import Any, Iterable, Mapping

STARS = "***"

#: Names of variables and options whose values are nobody's business.
_SECRET_NAME = re.compile(
    r"key|token|secret|passw|pwd|credential|auth|private|dsn|signature", re.IGNORECASE
)

#: The password of a URL: `postgresql://user:PASSWORD@host`.
_IN_URL = re.compile(r"(?<=://)([^/\s:@]*):[^/\s@]+(?=@)")

#: Shorter values (`1`, `true`, `prod`) are no secrets, and are part of many words.
_SHORTEST = 8

#: The members of a definition that are maps of anybody's own names.
_FREE = ("options", "dockerLabels", "driverOpts", "labels")


def masked(request: Any, secrets: Iterable[str] = ()) -> Any:
    """A copy of a request in which secret values are stars.

    Args:
        request: The request, or a part of it.
        secrets: Values that are to be found wherever they stand.
    """
    known = sorted((each for each in secrets if each), key=len, reverse=True)
    return _masked(request, known)


def hidden(text: str, secrets: Iterable[str]) -> str:
    """Text without some secrets and without passwords in URLs."""
    for secret in secrets:
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, STARS)
    return _IN_URL.sub(rf"\1:{STARS}", text)


def _masked(value: Any, secrets: Iterable[str]) -> Any:
    if isinstance(value, Mapping):
        return _entry({key: _member(key, each, secrets) for key, each in value.items()})
    if isinstance(value, (list, tuple)):
        return [_masked(each, secrets) for each in value]
    return hidden(value, secrets) if isinstance(value, str) else value


def _member(key: str, value: Any, secrets: Iterable[str]) -> Any:
    if key in _FREE and isinstance(value, Mapping):
        named = {each: _stars(each, value[each]) for each in value}
        return _masked(named, secrets)
    return _masked(value, secrets)


def _entry(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """An environment variable, or a tag: its name says whether it is secret."""
    for name in ("name", "key"):
        if "value" in value and name in value:
            return {**value, "value": _stars(str(value[name]), value["value"])}
    return value


def _stars(name: str, value: Any) -> Any:
    """What is nobody's secret stays: that nothing is sent, and switches."""
    is_open = str(value).lower() in ("", "true", "false")
    return STARS if _SECRET_NAME.search(name) and not is_open else value
