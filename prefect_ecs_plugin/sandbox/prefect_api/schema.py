"""The executable schema: schema.graphql and what follows from its tables."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Dict, Iterator, Tuple

from graphql import (
    DocumentNode,
    GraphQLArgument,
    GraphQLField,
    GraphQLInt,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    NamedTypeNode,
    NonNullTypeNode,
    ObjectTypeDefinitionNode,
    TypeNode,
    build_schema,
    get_named_type,
    is_input_type,
    is_list_type,
    parse,
)

SDL: str = (Path(__file__).parent / "schema.graphql").read_text(encoding="utf-8")
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


@functools.lru_cache(maxsize=1)
def schema() -> GraphQLSchema:
    """The schema, with arguments on every list of rows and no resolvers yet."""
    built = build_schema("\n".join([SDL, *(_derived(table) for table in TABLES)]))
    for type_name in ["Query", *TABLES]:
        object_type = built.type_map[type_name]
        assert isinstance(object_type, GraphQLObjectType)
        for field in _lists_of_rows(object_type):
            field.args.update(_arguments(built, get_named_type(field.type).name))
    return built


def _lists_of_rows(object_type: GraphQLObjectType) -> Iterator[GraphQLField]:
    for field in object_type.fields.values():
        if is_list_type(field.type) and get_named_type(field.type).name in TABLES:
            yield field


def _arguments(built: GraphQLSchema, table: str) -> Dict[str, GraphQLArgument]:
    where, order_by, column = (
        built.type_map[f"{table}_{derived}"]
        for derived in ("bool_exp", "order_by", "select_column")
    )
    assert is_input_type(where)
    return {
        "where": GraphQLArgument(where),
        "order_by": GraphQLArgument(GraphQLList(GraphQLNonNull(order_by))),
        "distinct_on": GraphQLArgument(GraphQLList(GraphQLNonNull(column))),
        "limit": GraphQLArgument(GraphQLInt),
        "offset": GraphQLArgument(GraphQLInt),
    }


def _derived(table: str) -> str:
    """The conditions, the orders and the column names of one table."""
    columns = COLUMNS[table].items()
    return "\n".join(
        [
            f"input {table}_bool_exp {{",
            f"  _and: [{table}_bool_exp!]",
            f"  _or: [{table}_bool_exp!]",
            f"  _not: {table}_bool_exp",
            *(f"  {column}: {kind}_comparison_exp" for column, kind in columns),
            *(f"  {field}: {other}_bool_exp" for field, other in FIELDS[table]),
            "}",
            f"input {table}_order_by {{",
            *(f"  {column}: order_by" for column in COLUMNS[table]),
            "}",
            f"enum {table}_select_column {{ {' '.join(COLUMNS[table])} }}",
        ]
    )
