"""The schema's text, and the columns of each table in it."""

from __future__ import annotations

import pkgutil
from typing import Dict, Tuple

from graphql import (
    DocumentNode,
    NamedTypeNode,
    NonNullTypeNode,
    ObjectTypeDefinitionNode,
    TypeNode,
    parse,
)


def _text() -> str:
    content = pkgutil.get_data(__package__ or "", "schema.graphql")
    assert content is not None, "schema.graphql is part of this package"
    return content.decode()


SDL: str = _text()
DOCUMENT: DocumentNode = parse(SDL)
TABLES: Dict[str, ObjectTypeDefinitionNode] = {
    node.name.value: node
    for node in DOCUMENT.definitions
    if isinstance(node, ObjectTypeDefinitionNode)
    and any(directive.name.value == "table" for directive in node.directives or ())
}
_OBJECTS = frozenset(
    node.name.value
    for node in DOCUMENT.definitions
    if isinstance(node, ObjectTypeDefinitionNode)
)


def named(node: TypeNode) -> str:
    """The name of a type without its list and non-null marks."""
    while not isinstance(node, NamedTypeNode):
        assert isinstance(node, NonNullTypeNode) or hasattr(node, "type")
        node = node.type
    return node.name.value


# Table -> column -> scalar: every field that does not lead to another type.
COLUMNS: Dict[str, Dict[str, str]] = {
    table: {
        field.name.value: named(field.type)
        for field in node.fields or ()
        if named(field.type) not in _OBJECTS
    }
    for table, node in TABLES.items()
}
# Table -> field -> table: every field that leads to rows of another table.
FIELDS: Dict[str, Tuple[Tuple[str, str], ...]] = {
    table: tuple(
        (field.name.value, named(field.type))
        for field in node.fields or ()
        if named(field.type) in TABLES
    )
    for table, node in TABLES.items()
}
