"""Types of the arguments that Python code gives to `ECSRun` and `ECSAgent` (pure)."""

from __future__ import annotations

from typing import Any, Iterable, Iterator, Mapping

from .excerpt import quoted
from .rules import Problem


def wrong_type(name: str, wanted: str, value: object) -> Problem:
    """An argument whose type is not the one that is wanted.

    Args:
        name: The argument's.
        wanted: The type in words, such as `a string`.
        value: What was given.
    """
    return Problem(
        name, f"must be {wanted}, not {type(value).__name__}", code="wrong-type"
    )


def listed(value: Any) -> Any:
    """The items of an iterator, which can be read once only; else the same value."""
    return list(value) if isinstance(value, Iterator) else value


def strings(name: str, value: Any) -> Iterator[Problem]:
    """What is wrong with a list of strings; any iterable of strings is one.

    Args:
        name: The argument's.
        value: What was given, from `listed`.
    """
    if isinstance(value, (str, bytes)):
        yield Problem(
            name,
            f"must be a list of strings; write {name}=[{quoted(value)}]",
            code="wrong-type",
        )
        return
    for item in value if isinstance(value, Iterable) else (value,):
        if not isinstance(item, str):
            yield wrong_type(name, "a list of strings", item)
            return


def variables(name: str, value: Any) -> Iterator[Problem]:
    """What is wrong with a dict of environment variables.

    Args:
        name: The argument's.
        value: What was given.
    """
    if not isinstance(value, Mapping):
        yield wrong_type(name, "a dict", value)
        return
    for key, each in value.items():
        if not isinstance(key, str):
            yield wrong_type(f"{name}: the name {quoted(key)}", "a string", key)
        elif not isinstance(each, (str, bool, int, float, type(None))):
            place = f"{name}[{quoted(key)}]"
            yield wrong_type(place, "a string, number or boolean", each)
