"""From a field of the schema to the store: queries read rows, mutations call rules."""

from __future__ import annotations

import functools
import uuid
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Tuple

from graphql import (
    GraphQLField,
    GraphQLObjectType,
    GraphQLSchema,
    VariableNode,
    get_named_type,
    is_input_object_type,
    is_list_type,
    is_non_null_type,
)

from .errors import Refused
from .filters import select
from .schema import TABLES, schema
from .store import Store
from .tables import RELATIONS, Relation, Row
from .times import iso


@dataclass(frozen=True)
class Caller:
    """Who asks, by the headers of the request, and what is asked.

    Args:
        store: the rows.
        agent_id: X-PREFECT-AGENT-ID.
        core_version: X-PREFECT-CORE-VERSION.
    """

    store: Store
    agent_id: Optional[str] = None
    core_version: Optional[str] = None


Resolver = Callable[..., Any]
# A generic of its own in graphql-core 3.3, and not yet one in 3.2.
if TYPE_CHECKING:
    from graphql import GraphQLResolveInfo

    Info = GraphQLResolveInfo[Caller]
else:
    Info = Any

# What a mutation needs of the caller besides its input.
_OF_CALLER: Dict[str, Tuple[str, ...]] = {
    "register_agent": ("core_version",),
    "get_runs_in_queue": ("agent_id",),
    "set_flow_run_states": ("agent_id",),
}
# Mutations of several transactions, between which other requests see the rows.
_STEPWISE = frozenset({"set_flow_run_states", "set_task_run_states", "cancel_flow_run"})
# What a mutation's result is made of, by the type that the schema gives it.
_PAYLOADS: Dict[str, Callable[[Any], Any]] = {
    "id_payload": lambda result: {"id": result},
    "success_payload": lambda result: {"success": True},
}


@functools.lru_cache(maxsize=1)
def executable_schema() -> GraphQLSchema:
    """The schema with its resolvers; built once, since that takes a while."""
    built = schema()
    assert built.query_type
    assert built.mutation_type
    for name, field in built.query_type.fields.items():
        field.resolve = _of_query(name, field)
    for name, field in built.mutation_type.fields.items():
        field.resolve = _reading(_mutation(name, get_named_type(field.type).name))
    for table in TABLES:
        object_type = built.type_map[table]
        assert isinstance(object_type, GraphQLObjectType)
        for name, relation in RELATIONS[table].items():
            object_type.fields[name].resolve = _reading(_related(name, relation))
    return built


def _reading(resolve: Resolver) -> Resolver:
    """A resolver whose arguments are read first."""

    def resolver(source: Any, info: Info, **arguments: Any) -> Any:
        return resolve(source, info, **_read(info, arguments))

    return resolver


def _read(info: Info, arguments: Dict[str, Any]) -> Dict[str, Any]:
    definitions = info.parent_type.fields[info.field_name].args
    variables = {
        node.name.value: node.value.name.value
        for node in info.field_nodes[0].arguments or ()
        if isinstance(node.value, VariableNode)
    }
    return {
        name: read(definitions[name].type, value, (variables.get(name, name),))
        for name, value in arguments.items()
    }


# ------------------------------------------------------------------ queries


def _of_query(name: str, field: GraphQLField) -> Resolver:
    if name in _SINGLE:
        return _reading(_SINGLE[name])
    if is_list_type(field.type):
        return _reading(_rows(name))
    return _reading(_by_key(get_named_type(field.type).name))


def _rows(table: str) -> Resolver:
    def resolve(_: Any, info: Info, **arguments: Any) -> List[Row]:
        return select(info.context.store.tables, table, **arguments)

    return resolve


def _by_key(table: str) -> Resolver:
    def resolve(_: Any, info: Info, id: str) -> Optional[Row]:
        row: Optional[Row] = info.context.store.tables[table].get(id)
        return row

    return resolve


def _related(name: str, relation: Relation) -> Resolver:
    def rows(row: Row, info: Info, **arguments: Any) -> Any:
        tables = info.context.store.tables
        found = tables.related(row, relation)
        if not relation.many:
            return found[0] if found else None
        return select(tables, relation.table, rows=found, **arguments)

    def count(row: Row, info: Info, **arguments: Any) -> Any:
        return {"aggregate": {"count": len(rows(row, info, **arguments))}}

    return count if name.endswith("_aggregate") else rows


def _task_run_info(_: Any, info: Info, task_run_id: str) -> Row:
    store: Store = info.context.store
    return store.row("task_run", task_run_id)


def _auth_info(_: Any, info: Info) -> Row:
    return {"tenant_id": info.context.store.tenant_id, "user_id": None}


_SINGLE: Dict[str, Resolver] = {
    "hello": lambda _, info: "Hello from the sandbox of prefect-ecs-plugin",
    "get_task_run_info": _task_run_info,
    "auth_info": _auth_info,
}


# ------------------------------------------------------------------ mutations


def _mutation(name: str, payload: str) -> Resolver:
    """Calls the method of the store that has the mutation's name."""
    wrap = _PAYLOADS.get(payload, lambda result: result)
    of_caller = _OF_CALLER.get(name, ())

    def resolve(_: Any, info: Info, input: Dict[str, Any]) -> Any:
        caller: Caller = info.context
        known = {each: getattr(caller, each) for each in of_caller}
        store = caller.store
        with nullcontext() if name in _STEPWISE else store.transaction():
            return wrap(getattr(store, name)(**input, **known))

    return resolve


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
