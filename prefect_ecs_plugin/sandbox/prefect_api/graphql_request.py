"""One GraphQL request: read, parsed, validated, executed, answered."""

from __future__ import annotations

import functools
import json
import logging
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLError,
    GraphQLSyntaxError,
    OperationDefinitionNode,
    OperationType,
    execute_sync,
    parse,
    validate,
)
from graphql.utilities import value_from_ast_untyped

from .errors import Refused
from .resolvers import Caller, executable_schema

# Longer documents carry many ids and times in their text and never come twice.
_LONGEST_KEPT = 1_000
_log = logging.getLogger(__name__)


class Response(NamedTuple):
    """An HTTP status and the JSON value that goes with it."""

    status: int
    body: Dict[str, Any]


class Prepared(NamedTuple):
    """A document, and what is wrong with it."""

    document: Optional[DocumentNode]
    errors: Sequence[GraphQLError]


class BadRequest(Exception):
    """The request's body is no GraphQL request."""


@dataclass(frozen=True)
class Request:
    """What a POST or GET asks for.

    Args:
        query: the document.
        variables: by name.
        operation_name: which of the document's operations.
    """

    query: str
    variables: Dict[str, Any] = field(default_factory=dict)
    operation_name: Optional[str] = None

    @classmethod
    def from_json(cls, body: Any) -> Request:
        """Reads a body; Prefect's client sends `variables` as JSON within JSON.

        Raises:
            BadRequest: it is not that.
        """
        if not isinstance(body, dict) or not isinstance(body.get("query"), str):
            raise BadRequest("POST body missing. A query is needed.")
        variables = body.get("variables")
        if isinstance(variables, str):
            variables = _decoded(variables)
        if not isinstance(variables, (dict, type(None))):
            raise BadRequest("Variables are not an object.")
        return cls(body["query"], variables or {}, body.get("operationName"))

    @functools.cached_property
    def prepared(self) -> Prepared:
        """The document, parsed and validated."""
        return prepare(self.query)

    @property
    def names(self) -> List[str]:
        """The root fields it asks for; none if it is refused."""
        return [node.name.value for node in self._root_fields()]

    @property
    def first_field(self) -> Tuple[str, Dict[str, Any]]:
        """The first root field with its arguments; "" and none if it is refused."""
        for node in self._root_fields():
            return node.name.value, _arguments(node, self.variables)
        return "", {}

    @property
    def writes(self) -> bool:
        """Whether it asks for a mutation."""
        return any(
            node.operation is not OperationType.QUERY for node in self._operations()
        )

    def _operations(self) -> List[OperationDefinitionNode]:
        document, errors = self.prepared
        if document is None or errors:
            return []
        nodes = document.definitions
        operations = [n for n in nodes if isinstance(n, OperationDefinitionNode)]
        if self.operation_name is None:
            return operations
        return [n for n in operations if n.name and n.name.value == self.operation_name]

    def _root_fields(self) -> List[FieldNode]:
        return [
            node
            for operation in self._operations()
            for node in operation.selection_set.selections
            if isinstance(node, FieldNode)
        ]

    def respond(self, caller: Caller) -> Response:
        """Does what it asks: a query in one transaction, a mutation field by field.

        A document or variable that does not fit the schema is a 400, a field whose
        resolver fails is null in a 200.
        """
        document, errors = self.prepared
        if document is None or errors:
            return _refused(errors)
        with nullcontext() if self.writes else caller.store.transaction():
            result = execute_sync(
                executable_schema(),
                document,
                context_value=caller,
                variable_values=self.variables,
                operation_name=self.operation_name,
            )
        errors = result.errors or []
        if any(error.path is None for error in errors):
            return _refused(errors)
        body: Dict[str, Any] = {"data": result.data}
        if errors:
            body["errors"] = [_failed(error) for error in errors]
        return Response(200, body)


def _refused(errors: Sequence[GraphQLError]) -> Response:
    """The document does not fit the schema; the codes are Apollo's."""
    entries = [
        {
            **error.formatted,
            "extensions": {
                "code": "GRAPHQL_PARSE_FAILED"
                if isinstance(error, GraphQLSyntaxError)
                else "GRAPHQL_VALIDATION_FAILED"
            },
        }
        for error in errors
    ]
    return Response(400, {"errors": entries})


def _failed(error: GraphQLError) -> Dict[str, Any]:
    """The entry for a field whose resolver failed, as Apollo has it."""
    if not isinstance(error.original_error, Refused):
        _log.error("a resolver is broken", exc_info=error.original_error)
    exception = {"message": error.message}
    extensions = {"code": "INTERNAL_SERVER_ERROR", "exception": exception}
    return {**error.formatted, "extensions": extensions}


def prepare(query: str) -> Prepared:
    """Parses and validates a document, once if it is likely to come again."""
    return _kept(query) if len(query) <= _LONGEST_KEPT else _prepare(query)


def _prepare(query: str) -> Prepared:
    try:
        document = parse(query)
    except GraphQLError as error:
        return Prepared(None, [error])
    return Prepared(document, validate(executable_schema(), document))


_kept = functools.lru_cache(maxsize=512)(_prepare)


def _arguments(node: FieldNode, variables: Dict[str, Any]) -> Dict[str, Any]:
    return {
        argument.name.value: value_from_ast_untyped(argument.value, variables)
        for argument in node.arguments or ()
    }


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadRequest(f"Variables are invalid JSON: {error}") from error
