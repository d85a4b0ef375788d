"""`where`, `order_by`, `distinct_on`, `limit` and `offset`, as Hasura means them.

Conditions have SQL's three answers: a comparison with a column that is null is neither
true nor false but unknown (None here), and only rows for which the whole condition is
true are kept. A comparison whose operand is null holds for every row, as in Hasura 1
(https://hasura.io/docs/1.0/graphql/core/queries/query-filters.html): Prefect's command
line sends such ones for the options that were not given.
"""

from __future__ import annotations

import functools
import re
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple

from .tables import RELATIONS, Relation, Row, Tables

Where = Mapping[str, Any]
Answer = Optional[bool]  # None: unknown


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
    _sort(tables, table, found, order_by or [])
    if distinct_on:
        found = _distinct(found, distinct_on)
    return found[offset or 0 :][: limit if limit is not None else len(found)]


def matches(tables: Tables, table: str, row: Row, where: Optional[Where]) -> Answer:
    """Whether a row meets a condition: True, False, or None for unknown."""
    return _all(
        _term(tables, table, row, field, operand)
        for field, operand in (where or {}).items()
        if operand is not None
    )


def _term(tables: Tables, table: str, row: Row, field: str, operand: Any) -> Answer:
    if field == "_and":
        return _all(matches(tables, table, row, part) for part in operand)
    if field == "_or":
        return _any(matches(tables, table, row, part) for part in operand)
    if field == "_not":
        return _not(matches(tables, table, row, operand))
    relation = RELATIONS[table].get(field)
    if relation is None:
        return compare(row[field], operand)
    return _related(tables, row, relation, operand)


def _related(tables: Tables, row: Row, relation: Relation, where: Where) -> Answer:
    """Whether some related row meets the condition: SQL's EXISTS, never unknown."""
    return any(
        matches(tables, relation.table, other, where)
        for other in tables.related(row, relation)
    )


# ------------------------------------------------------------------ three answers


def _all(answers: Iterable[Answer]) -> Answer:
    result: Answer = True
    for answer in answers:
        if answer is False:
            return False
        if answer is None:
            result = None
    return result


def _any(answers: Iterable[Answer]) -> Answer:
    result: Answer = False
    for answer in answers:
        if answer:
            return True
        if answer is None:
            result = None
    return result


def _not(answer: Answer) -> Answer:
    return None if answer is None else not answer


# ------------------------------------------------------------------ comparisons


@functools.lru_cache(maxsize=256)
def _like(pattern: str, flags: int) -> re.Pattern[str]:
    """SQL's LIKE: % is anything, _ is one character."""
    parts = (
        ".*" if part == "%" else "." if part == "_" else re.escape(part)
        for part in re.split("([%_])", pattern)
    )
    return re.compile("".join(parts), flags | re.DOTALL)


def _contains(value: Any, part: Any) -> bool:
    """PostgreSQL's @> on jsonb."""
    if isinstance(value, dict) and isinstance(part, dict):
        return all(k in value and _contains(value[k], v) for k, v in part.items())
    if isinstance(value, list) and isinstance(part, list):
        return all(any(_contains(mine, each) for mine in value) for each in part)
    if isinstance(value, list):
        return any(_contains(mine, part) for mine in value)
    return bool(value == part)


_OPERATORS: Dict[str, Callable[[Any, Any], bool]] = {
    "_eq": lambda value, operand: bool(value == operand),
    "_neq": lambda value, operand: bool(value != operand),
    "_in": lambda value, operand: value in operand,
    "_nin": lambda value, operand: value not in operand,
    "_lt": lambda value, operand: bool(value < operand),
    "_lte": lambda value, operand: bool(value <= operand),
    "_gt": lambda value, operand: bool(value > operand),
    "_gte": lambda value, operand: bool(value >= operand),
    "_like": lambda value, operand: bool(_like(operand, 0).fullmatch(value)),
    "_nlike": lambda value, operand: not _like(operand, 0).fullmatch(value),
    "_ilike": lambda value, operand: bool(_like(operand, re.I).fullmatch(value)),
    "_nilike": lambda value, operand: not _like(operand, re.I).fullmatch(value),
    "_contains": _contains,
    "_has_key": lambda value, operand: operand in value,
}


def compare(value: Any, comparison: Mapping[str, Any]) -> Answer:
    """Whether a column's value meets every operator of a comparison."""
    return _all(
        _compare(value, operator, operand)
        for operator, operand in comparison.items()
        if operand is not None
    )


def _compare(value: Any, operator: str, operand: Any) -> Answer:
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


def _sort(
    tables: Tables, table: str, rows: List[Row], order_by: List[Mapping[str, Any]]
) -> None:
    """Sorts in place; the last key first, since Python's sort is stable."""
    keys = [key for mapping in order_by for key in mapping.items() if key[1]]
    for field, direction in reversed(keys):
        _sort_by(tables, table, rows, field, direction)


def _sort_by(
    tables: Tables, table: str, rows: List[Row], field: str, direction: Any
) -> None:
    relation = RELATIONS[table].get(field)
    if relation is None:
        _sort_by_column(rows, field, direction)
        return
    pairs: List[Row] = [
        {"other": next(iter(tables.related(row, relation)), {}), "row": row}
        for row in rows
    ]
    for column, way in reversed(list(direction.items())):
        for pair in pairs:
            pair["key"] = pair["other"].get(column)
        _sort_by_column(pairs, "key", way)
    rows[:] = [pair["row"] for pair in pairs]


def _sort_by_column(rows: List[Row], column: str, direction: str) -> None:
    """As PostgreSQL does, nulls come last when ascending and first when descending."""
    down = direction.startswith("desc")
    nulls_first = direction.endswith("nulls_first") or direction == "desc"
    nulls = [row for row in rows if row[column] is None]
    others = [row for row in rows if row[column] is not None]
    others.sort(key=lambda row: row[column], reverse=down)
    rows[:] = nulls + others if nulls_first else others + nulls


def _distinct(rows: List[Row], columns: List[str]) -> List[Row]:
    first: Dict[Tuple[str, ...], Row] = {}
    for row in rows:
        first.setdefault(tuple(repr(row[column]) for column in columns), row)
    return list(first.values())
