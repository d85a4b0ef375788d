"""Reads members of a request that may be malformed.

The rules also read requests whose types `coercion` has not checked yet. Values of the
wrong type are therefore skipped here instead of raising errors. A null counts as a
member that is not given.
"""

from __future__ import annotations

import json
from typing import Any, Iterable, Iterator, List, Mapping, NamedTuple, Optional

EMPTY: Mapping[str, Any] = {}


class Entry(NamedTuple):
    """One structure of a list, and where it stands."""

    place: str
    value: Mapping[str, Any]


def structure(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The structure at `key`; an empty one when there is none."""
    value = parent.get(key)
    return value if isinstance(value, Mapping) else EMPTY


def items(parent: Mapping[str, Any], key: str) -> List[Any]:
    """The list at `key`; an empty one when there is none."""
    value = parent.get(key)
    return list(value) if isinstance(value, (list, tuple)) else []


def entries(parent: Mapping[str, Any], key: str, place: str = "") -> Iterator[Entry]:
    """The structures in the list at `key` of `parent`, which stands at `place`."""
    for index, value in enumerate(items(parent, key)):
        if isinstance(value, Mapping):
            yield Entry(f"{inside(place, key)}[{index}]", value)


def inside(place: str, key: str) -> str:
    """The place of `key` within the structure at `place`."""
    return f"{place}.{key}" if place else key


def containers(definition: Mapping[str, Any]) -> Iterator[Entry]:
    """The container definitions of a task definition."""
    return entries(definition, "containerDefinitions")


def names(structures: Iterable[Entry]) -> List[str]:
    """The `name` of each structure that has one."""
    found = (text(entry.value, "name") for entry in structures)
    return [name for name in found if name is not None]


def text(parent: Mapping[str, Any], key: str) -> Optional[str]:
    """The string at `key`, if it is one."""
    value = parent.get(key)
    return value if isinstance(value, str) else None


def number(parent: Mapping[str, Any], key: str) -> Optional[int]:
    """The integer at `key`, also when it is written as a string."""
    value = parent.get(key)
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and value.strip().lstrip("-").isdecimal():
        return int(value)
    return None


def compact_json(value: Any) -> str:
    """`value` as the shortest JSON that says the same, nulls left out."""
    return json.dumps(
        _without_nulls(value), separators=(",", ":"), ensure_ascii=False, default=str
    )


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [_without_nulls(item) for item in value]
    return value
