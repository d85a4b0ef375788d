"""`where`, `order_by`, `distinct_on`, `limit` and `offset`, as Hasura means them.

No wider than what Prefect's client, its command line and the agent ask for.

Conditions have SQL's three values: a comparison with a column that is null is neither
true nor false but unknown (None here), and only rows for which the whole condition is
true are kept. A comparison whose operand is null holds for every row, as in Hasura 1
(https://hasura.io/docs/1.0/graphql/core/queries/query-filters.html): Prefect's command
line sends such ones for the options that were not given.
"""

from __future__ import annotations

import re
from operator import itemgetter
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple

from .tables import RELATIONS, Row, Tables

Where = Mapping[str, Any]
Truth = Optional[bool]  # None: unknown


def select(
    tables: Tables,
    table: str,
    *,
    rows: Optional[Iterable[Row]] = None,
    where: Optional[Where] = None,
    order_by: Optional[List[Mapping[str, Any]]] = None,
    distinct_on: Optional[List[str]] = None,
    limit: Optional[int] = None,
    offset: Optional[int] = None,
) -> List[Row]:
    """The rows of a table that a query asks for.

    Args:
        tables: all tables, since conditions reach into related rows.
        table: the table asked.
        rows: the rows to choose from; all of the table's if not given.
        where, order_by, distinct_on, limit, offset: the query's arguments.

    """
    where = where or {}
    if rows is None:
        rows = _candidates(tables, table, where)
    found = [row for row in rows if matches(tables, table, row, where)]
    _sort(found, order_by or [])
    if distinct_on:
        found = _distinct(found, distinct_on)
    return found[offset or 0 :][: limit if limit is not None else len(found)]


def matches(tables: Tables, table: str, row: Row, where: Optional[Where]) -> Truth:
    """Whether a row meets a condition: True, False, or None for unknown."""
    return _all(
        _term(tables, table, row, field, operand)
        for field, operand in (where or {}).items()
        if operand is not None
    )


def _term(tables: Tables, table: str, row: Row, field: str, operand: Any) -> Truth:
    if field == "_and":
        return _all(matches(tables, table, row, part) for part in operand)
    if field == "_or":
        return _any(matches(tables, table, row, part) for part in operand)
    if field == "_not":
        return _not(matches(tables, table, row, operand))
    relation = RELATIONS[table].get(field)
    if relation is None:
        return compare(row[field], operand)
    # SQL's EXISTS, never unknown.
    related = tables.related(row, relation)
    return any(matches(tables, relation.table, other, operand) for other in related)


# ------------------------------------------------------------------ three values


def _all(truths: Iterable[Truth]) -> Truth:
    result: Truth = True
    for truth in truths:
        if truth is False:
            return False
        if truth is None:
            result = None
    return result


def _any(truths: Iterable[Truth]) -> Truth:
    result: Truth = False
    for truth in truths:
        if truth:
            return True
        if truth is None:
            result = None
    return result


def _not(truth: Truth) -> Truth:
    return None if truth is None else not truth


# ------------------------------------------------------------------ comparisons


_OPERATORS: Dict[str, Callable[[Any, Any], bool]] = {
    "_eq": lambda value, operand: bool(value == operand),
    "_neq": lambda value, operand: bool(value != operand),
    "_in": lambda value, operand: value in operand,
    "_nin": lambda value, operand: value not in operand,
    "_lt": lambda value, operand: bool(value < operand),
    "_lte": lambda value, operand: bool(value <= operand),
    "_gt": lambda value, operand: bool(value > operand),
    "_gte": lambda value, operand: bool(value >= operand),
    "_like": lambda value, operand: _is_like(value, operand),
    "_has_key": lambda value, operand: operand in value,
    "_contained_in": lambda value, operand: all(each in operand for each in value),
}


def _is_like(value: str, pattern: str) -> bool:
    """SQL's LIKE, with `%` for any text; `_` is not needed here."""
    return bool(re.fullmatch(re.escape(pattern).replace("%", ".*"), value, re.DOTALL))


def compare(value: Any, comparison: Mapping[str, Any]) -> Truth:
    """Whether a column's value meets every operator of a comparison."""
    return _all(
        _compare(value, operator, operand)
        for operator, operand in comparison.items()
        if operand is not None
    )


def _compare(value: Any, operator: str, operand: Any) -> Truth:
    if operator == "_is_null":
        return (value is None) is operand
    if value is None:
        return None
    return _OPERATORS[operator](value, operand)


# ------------------------------------------------------------------ where to look


def _candidates(tables: Tables, table: str, where: Where) -> Iterable[Row]:
    """The rows to test: by an index if the condition pins an indexed column."""
    rows = tables[table]
    lookups = [each for each in _lookups(where) if rows.indexes(each[0])]
    if not lookups:
        return rows
    return rows.having(*min(lookups, key=lambda each: rows.size(*each)))


def _lookups(where: Where) -> Iterable[Tuple[str, List[Any]]]:
    """Columns with the only values that can meet the condition, e.g. id: [a, b]."""
    for field, operand in where.items():
        if field == "_and" and operand is not None:
            for part in operand:
                yield from _lookups(part)
        elif isinstance(operand, Mapping) and operand.get("_eq") is not None:
            yield field, [operand["_eq"]]
        elif isinstance(operand, Mapping) and operand.get("_in") is not None:
            yield field, operand["_in"]


# ------------------------------------------------------------------ order


def _sort(rows: List[Row], order_by: List[Mapping[str, str]]) -> None:
    """Sorts in place; the last key first, since Python's sort is stable."""
    keys = [key for mapping in order_by for key in mapping.items() if key[1]]
    for column, direction in reversed(keys):
        # As in PostgreSQL, nulls come last when ascending and first when descending.
        nulls = [row for row in rows if row[column] is None]
        others = [row for row in rows if row[column] is not None]
        down = direction == "desc"
        others.sort(key=itemgetter(column), reverse=down)
        rows[:] = nulls + others if down else others + nulls


def _distinct(rows: List[Row], columns: List[str]) -> List[Row]:
    first: Dict[Tuple[str, ...], Row] = {}
    for row in rows:
        first.setdefault(tuple(repr(row[column]) for column in columns), row)
    return list(first.values())
