"""One GraphQL request: read, parsed, validated, executed, answered."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from graphql import (
    DocumentNode,
    ExecutionResult,
    FieldNode,
    GraphQLError,
    OperationDefinitionNode,
    OperationType,
    execute_sync,
    parse,
    validate,
)
from graphql.utilities import value_from_ast_untyped

from .resolvers import Caller, executable_schema
from .wording import failure, refusal

# Longer documents carry ids and times in their text and never come twice.
_LONGEST_KEPT = 2_000


class Answer(NamedTuple):
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

    @property
    def fields(self) -> List[Tuple[str, Dict[str, Any]]]:
        """The root fields it asks for with their arguments; none if it is refused."""
        prepared = prepare(self.query)
        if prepared.document is None or prepared.errors:
            return []
        return [
            (node.name.value, _arguments(node, self.variables))
            for node in _root_fields(prepared.document, self.operation_name)
        ]

    @property
    def names(self) -> List[str]:
        """The root fields it asks for; none if it is refused."""
        prepared = prepare(self.query)
        if prepared.document is None or prepared.errors:
            return []
        nodes = _root_fields(prepared.document, self.operation_name)
        return [node.name.value for node in nodes]

    @property
    def writes(self) -> bool:
        prepared = prepare(self.query)
        return prepared.document is not None and any(
            node.operation is not OperationType.QUERY
            for node in _operations(prepared.document, self.operation_name)
        )

    def answer(self, caller: Caller) -> Answer:
        """Does what it asks, in one transaction.

        A document or variable that does not fit the schema is a 400, a field whose
        resolver fails is null in a 200.
        """
        prepared = prepare(self.query)
        if prepared.document is None or prepared.errors:
            return Answer(400, refusal(prepared.errors, executable_schema()))
        with caller.store.transaction():
            result = execute_sync(
                executable_schema(),
                prepared.document,
                context_value=caller,
                variable_values=self.variables,
                operation_name=self.operation_name,
            )
        return _answer(result)


def _answer(result: ExecutionResult) -> Answer:
    errors = result.errors or []
    if any(error.path is None for error in errors):
        return Answer(400, refusal(errors, executable_schema()))
    body: Dict[str, Any] = {"data": result.data}
    if errors:
        body["errors"] = [failure(error) for error in errors]
    return Answer(200, body)


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


def _operations(
    document: DocumentNode, name: Optional[str]
) -> List[OperationDefinitionNode]:
    return [
        node
        for node in document.definitions
        if isinstance(node, OperationDefinitionNode)
        and (name is None or (node.name is not None and node.name.value == name))
    ]


def _root_fields(document: DocumentNode, name: Optional[str]) -> List[FieldNode]:
    return [
        node
        for operation in _operations(document, name)
        for node in operation.selection_set.selections
        if isinstance(node, FieldNode)
    ]


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
