"""What a request's arguments hold, read by the types of the schema.

graphql-core checks names, shapes and plain scalars. UUIDs and times are checked here,
because the API answers a bad one after the document was accepted: with status 200 and
the words of the layer that tripped over it.
"""

from __future__ import annotations

import functools
import uuid
from typing import Any, Callable, Dict, Tuple

from graphql import (
    is_input_object_type,
    is_list_type,
    is_non_null_type,
)

from .errors import Refused
from .times import iso

Path = Tuple[Any, ...]


@functools.lru_cache(maxsize=65536)
def _uuid(value: str) -> str:
    return str(uuid.UUID(value))


_READERS: Dict[str, Callable[[Any], str]] = {
    "UUID": _uuid,
    "uuid": _uuid,
    "DateTime": iso,
    "timestamptz": iso,
}
_SQL = {"uuid": "uuid", "timestamptz": "timestamp with time zone"}


def read(kind: Any, value: Any, path: Path) -> Any:
    """A new value in which every UUID and time is written as rows have them.

    Args:
        kind: the value's type in the schema, a GraphQLInputType.
        value: what graphql-core made of the argument.
        path: the argument's or variable's name, for the message.

    Raises:
        Refused: in the words of the layer that refuses it.
    """
    if is_non_null_type(kind):
        return read(kind.of_type, value, path)
    if value is None:
        return None
    if is_list_type(kind):
        return [read(kind.of_type, each, (*path, i)) for i, each in enumerate(value)]
    if is_input_object_type(kind):
        return {k: read(kind.fields[k].type, v, (*path, k)) for k, v in value.items()}
    return _leaf(kind.name, value, path)


def _leaf(kind: str, value: Any, path: Path) -> Any:
    reader = _READERS.get(kind)
    if reader is None:
        return value
    try:
        return reader(value)
    except (ValueError, AttributeError, TypeError):
        raise Refused(_complaint(kind, value, path)) from None


def _complaint(kind: str, value: Any, path: Path) -> str:
    """PostgreSQL's words for a row's column, graphql-core's for an input's field."""
    if kind in _SQL:
        return f'invalid input syntax for type {_SQL[kind]}: "{value}"'
    place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path[1:])
    return (
        f"Variable '${path[0]}' got invalid value {value!r} at '{path[0]}{place}'; "
        f"Expected type {kind}. Could not parse {kind}: {value}"
    )
