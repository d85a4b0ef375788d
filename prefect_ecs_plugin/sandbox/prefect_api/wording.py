"""Errors as the real API words them: graphql-js 14 in Apollo, behind it graphql-core.

graphql-core says the same things in other words, and not the same ones in 3.2 and 3.3.
Messages that were observed on the real API are restored to the letter here; others keep
graphql-core's words, with the double quotes of graphql-js.
"""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, List, Match, Pattern, Sequence, Tuple

from graphql import (
    GraphQLError,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLSchema,
    GraphQLSyntaxError,
)
from graphql.pyutils import suggestion_list


def refusal(errors: Sequence[GraphQLError], schema: GraphQLSchema) -> Dict[str, Any]:
    """The body that goes with status 400: the document does not fit the schema."""
    return {"errors": [_refused(error, schema) for error in errors]}


def failure(error: GraphQLError) -> Dict[str, Any]:
    """The entry for a field whose resolver failed; the status is 200."""
    return {
        "message": error.message,
        "locations": _locations(error),
        "path": error.path,
        "extensions": {
            "code": "INTERNAL_SERVER_ERROR",
            "exception": {"message": error.message},
        },
    }


def _refused(error: GraphQLError, schema: GraphQLSchema) -> Dict[str, Any]:
    return {
        "message": reworded(error.message, schema),
        "locations": _locations(error),
        "extensions": {"code": _code(error)},
    }


def _code(error: GraphQLError) -> str:
    if isinstance(error, GraphQLSyntaxError):
        return "GRAPHQL_PARSE_FAILED"
    if re.match(r"Variable '\$\w+' (got|has) invalid value", error.message):
        return "INTERNAL_SERVER_ERROR"
    return "GRAPHQL_VALIDATION_FAILED"


def _locations(error: GraphQLError) -> List[Dict[str, int]]:
    return [
        {"line": location.line, "column": location.column}
        for location in error.locations or ()
    ]


# ------------------------------------------------------------------ messages


def reworded(text: str, schema: GraphQLSchema) -> str:
    """A message of graphql-core 3.2 or 3.3 in the words of graphql-js 14."""
    for pattern, write in _REWORDED:
        match = pattern.match(text)
        if match:
            return write(match, schema)
    return text.replace("'", '"')


def _enum(match: Match[str], schema: GraphQLSchema) -> str:
    variable, value, kind = match.group("variable", "value", "type")
    place = match["place"] or variable[1:] + match["below"]
    return (
        f'Variable "{variable}" got invalid value "{value}" at "{place}"; '
        f"Expected type {kind}."
    )


def _missing(match: Match[str], schema: GraphQLSchema) -> str:
    kind, name = match.group("type", "field")
    required = _fields(kind, schema)[name].type
    return f"Field {kind}.{name} of required type {required} was not provided."


def _unknown(match: Match[str], schema: GraphQLSchema) -> str:
    """The likely names, nearest first, and equally near ones as they are declared."""
    kind, name = match.group("type", "field")
    said = f'Field "{name}" is not defined by type {kind}.'
    fields = list(_fields(kind, schema))
    near = sorted(
        suggestion_list(name, fields),
        key=lambda other: (_distance(name, other), fields.index(other)),
    )
    return f"{said} Did you mean {_either(near[:5])}?" if near else said


def _fields(kind: str, schema: GraphQLSchema) -> Dict[str, GraphQLInputField]:
    input_type = schema.type_map[kind]
    assert isinstance(input_type, GraphQLInputObjectType)
    return dict(input_type.fields)


_REWORDED: List[Tuple[Pattern[str], Callable[[Match[str], GraphQLSchema], str]]] = [
    (
        re.compile(
            r"Variable '(?P<variable>\$\w+)' (?:got invalid value '.*' at '"
            r"(?P<place>[\w.\[\]]+)';|has invalid value at (?P<below>[\w.\[\]]+):) "
            r"Value '(?P<value>.*)' does not exist in '(?P<type>\w+)' enum\."
        ),
        _enum,
    ),
    (
        re.compile(
            r"Field '(?P<type>\w+)\.(?P<field>\w+)' of required type .* was not"
        ),
        _missing,
    ),
    (
        re.compile(
            r"Expected value of type '(?P<type>\w+)' to include required field"
            r" '(?P<field>\w+)'"
        ),
        _missing,
    ),
    (
        re.compile(r"Field '(?P<field>\w+)' is not defined by type '(?P<type>\w+)'"),
        _unknown,
    ),
    (
        re.compile(
            r"Expected value of type '(?P<type>\w+)' not to include unknown field"
            r" '(?P<field>\w+)'"
        ),
        _unknown,
    ),
]


def _distance(name: str, other: str) -> int:
    """How many letters must be changed, added or left out."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(name, 1):
        above, row = row, [i]
        for j, its in enumerate(other, 1):
            changed = above[j - 1] + (letter != its)
            row.append(min(changed, above[j] + 1, row[j - 1] + 1))
    return row[-1]


def _either(names: Sequence[str]) -> str:
    if len(names) < 3:
        return " or ".join(names)
    return f"{', '.join(names[:-1])}, or {names[-1]}"
