"""Rows in memory, found by their id or by an indexed column, and how they relate.

A row is a dict whose keys are the columns in schema.graphql. Its values are replaced,
never changed in place, so what was read from a row may be used after the lock is gone.
"""

from __future__ import annotations

from typing import (
    Any,
    Dict,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

Row = Dict[str, Any]


class Relation(NamedTuple):
    """How a field of one table leads to rows of another.

    Args:
        table: the table it leads to.
        column: the column of this row whose value is looked up.
        remote: the column of the other table in which it is looked up.
        many: whether the field is a list.
    """

    table: str
    column: str
    remote: str
    many: bool


def _one(table: str, column: str) -> Relation:
    return Relation(table, column, "id", many=False)


def _many(table: str, remote: str) -> Relation:
    return Relation(table, "id", remote, many=True)


RELATIONS: Dict[str, Dict[str, Relation]] = {
    "tenant": {"projects": _many("project", "tenant_id")},
    "project": {
        "tenant": _one("tenant", "tenant_id"),
        "flows": _many("flow", "project_id"),
        "flows_aggregate": _many("flow", "project_id"),
    },
    "flow_group": {"flows": _many("flow", "flow_group_id")},
    "flow": {
        "project": _one("project", "project_id"),
        "flow_group": _one("flow_group", "flow_group_id"),
        "tasks": _many("task", "flow_id"),
        "edges": _many("edge", "flow_id"),
        "flow_runs": _many("flow_run", "flow_id"),
    },
    "task": {
        "flow": _one("flow", "flow_id"),
        "task_runs": _many("task_run", "task_id"),
    },
    "edge": {
        "flow": _one("flow", "flow_id"),
        "upstream_task": _one("task", "upstream_task_id"),
        "downstream_task": _one("task", "downstream_task_id"),
    },
    "flow_run": {
        "flow": _one("flow", "flow_id"),
        "tenant": _one("tenant", "tenant_id"),
        "agent": _one("agent", "agent_id"),
        "task_runs": _many("task_run", "flow_run_id"),
        "states": _many("flow_run_state", "flow_run_id"),
        "logs": _many("log", "flow_run_id"),
    },
    "flow_run_state": {"flow_run": _one("flow_run", "flow_run_id")},
    "task_run": {
        "flow_run": _one("flow_run", "flow_run_id"),
        "task": _one("task", "task_id"),
        "states": _many("task_run_state", "task_run_id"),
        "logs": _many("log", "task_run_id"),
    },
    "task_run_state": {"task_run": _one("task_run", "task_run_id")},
    "task_run_artifact": {"task_run": _one("task_run", "task_run_id")},
    "log": {},  # the server's has no relation, not even to its run
    "agent": {},
    "agent_config": {},
}

# What belongs to a row, although the server's schema has no relation to it.
BELONGING: Dict[str, Tuple[Relation, ...]] = {
    "task_run": (_many("task_run_artifact", "task_run_id"),)
}

# Columns that queries single rows out by, besides the keys of the relations above.
_ALSO_INDEXED = {
    "tenant": ["slug"],
    "project": ["name"],
    "flow_group": ["name"],
    "flow": ["name"],
    "flow_run": ["state", "agent_id", "idempotency_key", "name"],
    "task_run": ["state"],
    "task_run_artifact": ["task_run_id"],
}


def _indexed(table: str) -> List[str]:
    """The columns of a table that some relation or query looks rows up by."""
    keys = {
        relation.remote
        for relations in RELATIONS.values()
        for relation in relations.values()
        if relation.table == table and relation.many
    }
    return sorted(keys | set(_ALSO_INDEXED.get(table, [])))


class Table:
    """Rows by id, in the order in which they came, with an index on some columns."""

    def __init__(self, indexed: Sequence[str] = ()) -> None:
        self._rows: Dict[str, Row] = {}
        self._indexes: Dict[str, Dict[Any, Dict[str, Row]]] = {
            column: {} for column in indexed
        }

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(list(self._rows.values()))

    def __contains__(self, row_id: object) -> bool:
        return row_id in self._rows

    def get(self, row_id: Optional[str]) -> Optional[Row]:
        """The row with that id, if there is one."""
        return None if row_id is None else self._rows.get(row_id)

    def indexes(self, column: str) -> bool:
        """Whether looking up by that column costs no walk over all rows."""
        return column == "id" or column in self._indexes

    def having(self, column: str, values: Iterable[Any]) -> List[Row]:
        """The rows whose column has one of the values; the column must be indexed."""
        if column == "id":
            found = (self._rows.get(value) for value in dict.fromkeys(values))
            return [row for row in found if row is not None]
        index = self._indexes[column]
        return [
            row
            for value in dict.fromkeys(values)
            for row in index.get(value, {}).values()
        ]

    def size(self, column: str, values: Iterable[Any]) -> int:
        """How many rows `having` would give, or a little more."""
        if column == "id":
            return len(list(values))
        return sum(len(self._indexes[column].get(value, ())) for value in values)

    def count(self, column: str) -> Dict[Any, int]:
        """How many rows have each value of an indexed column."""
        return {value: len(rows) for value, rows in self._indexes[column].items()}

    def insert(self, row: Row) -> Row:
        self._rows[row["id"]] = row
        for column, index in self._indexes.items():
            index.setdefault(row[column], {})[row["id"]] = row
        return row

    def update(self, row: Row, changes: Row) -> None:
        for column in self._indexes.keys() & changes.keys():
            if row[column] != changes[column]:
                self._leave(row, column)
                index = self._indexes[column]
                index.setdefault(changes[column], {})[row["id"]] = row
        row.update(changes)

    def delete(self, row: Row) -> None:
        del self._rows[row["id"]]
        for column in self._indexes:
            self._leave(row, column)

    def _leave(self, row: Row, column: str) -> None:
        bucket = self._indexes[column][row[column]]
        del bucket[row["id"]]
        if not bucket:
            del self._indexes[column][row[column]]


class Tables(Dict[str, Table]):
    """All tables by name, and the way from a row to the rows that belong to it."""

    def __init__(self) -> None:
        super().__init__({table: Table(_indexed(table)) for table in RELATIONS})

    def related(self, row: Row, relation: Relation) -> List[Row]:
        """The rows that a relation leads to; at most one if it is not `many`."""
        value = row[relation.column]
        if value is None:
            return []
        return self[relation.table].having(relation.remote, [value])
