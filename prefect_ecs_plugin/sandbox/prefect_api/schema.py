"""The executable schema: schema.graphql and what follows from its tables."""

from __future__ import annotations

import functools
from typing import Dict, Iterator, List

from graphql import (
    GraphQLArgument,
    GraphQLField,
    GraphQLInt,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    build_schema,
    get_named_type,
    is_input_type,
    is_list_type,
)

from .columns import COLUMNS, FIELDS, SDL, TABLES
from .tables import RELATIONS


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
    return "\n".join(
        [
            f"input {table}_bool_exp {{",
            f"  _and: [{table}_bool_exp!]",
            f"  _or: [{table}_bool_exp!]",
            f"  _not: {table}_bool_exp",
            *_conditions(table),
            "}",
            f"input {table}_order_by {{",
            *_orders(table),
            "}",
            f"enum {table}_select_column {{ {' '.join(COLUMNS[table])} }}",
        ]
    )


def _conditions(table: str) -> List[str]:
    columns = COLUMNS[table].items()
    return [
        *(f"  {column}: {kind}_comparison_exp" for column, kind in columns),
        *(f"  {field}: {other}_bool_exp" for field, other in FIELDS[table]),
    ]


def _orders(table: str) -> List[str]:
    """By a column, or by a column of the one row that a field leads to."""
    single = [each for each in FIELDS[table] if not RELATIONS[table][each[0]].many]
    return [
        *(f"  {column}: order_by" for column in COLUMNS[table]),
        *(f"  {field}: {other}_order_by" for field, other in single),
    ]
