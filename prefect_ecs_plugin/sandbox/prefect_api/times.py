"""Times as the API writes them: UTC, microseconds, always as long, so they sort."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, Union


def text(moment: datetime) -> str:
    """2026-11-22T16:09:33.806663+00:00"""
    return moment.astimezone(timezone.utc).isoformat(timespec="microseconds")


def iso(value: Union[str, datetime, Any]) -> str:
    """The same moment as the API writes it; a time without a zone is in UTC.

    Raises:
        ValueError: if it is no time in ISO 8601.
    """
    return text(moment(value))


def moment(value: Union[str, datetime, Any]) -> datetime:
    """The moment that a text or a datetime stands for; without a zone it is in UTC.

    Raises:
        ValueError: if it is no time in ISO 8601.
    """
    if not isinstance(value, datetime):
        if not isinstance(value, str):
            raise ValueError(f"not a time: {value!r}")
        value = datetime.fromisoformat(_readable(value))
    return value if value.tzinfo else value.replace(tzinfo=timezone.utc)


def later(start: str, seconds: float) -> str:
    """A time so many seconds after another."""
    return text(moment(start) + timedelta(seconds=seconds))


def _readable(value: str) -> str:
    """Python before 3.11 reads neither `Z` nor other than 3 or 6 decimals."""
    value = value.strip().replace("Z", "+00:00").replace("z", "+00:00")
    head, dot, tail = value.partition(".")
    if not dot:
        return value
    digits = len(tail) - len(tail.lstrip("0123456789"))
    return f"{head}.{tail[:digits][:6].ljust(6, '0')}{tail[digits:]}"
