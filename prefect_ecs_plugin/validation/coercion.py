"""Requests coerced to the types of ECS's service model.

Templates and kwargs come from YAML files, from Python code and from the API, where
a number may be a string, a string a number, and a key misspelled. `coerce` walks over
such a request together with botocore's description of the operation's input. It
converts values to the type of the model where it can, and reports the others by their
place. Nothing here opens a connection or needs an account; the model is a file of
botocore's, read when it is first used.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Mapping, Tuple

from .excerpt import quoted
from .plain import as_string, key_name, without_nulls
from .rules import Problem

if TYPE_CHECKING:
    from botocore.model import ServiceModel, Shape

# Enums for which ECS accepts no other case. Of others it is not known.
_CASE_SENSITIVE = frozenset(
    ("AssignPublicIp", "Compatibility", "LaunchType", "NetworkMode")
)

# Known keys shorter than this have too many neighbours for an edit to be a likely slip.
_LONG_ENOUGH_FOR_ONE_EDIT = 4
_LONG_ENOUGH_FOR_TWO_EDITS = 8

# Wrong keys of a request for which the likely right one is looked for: each search
# takes a millisecond.
_MAX_HINTS = 100

# Only what reads back the same: "007" may be meant as it is.
_INTEGER = re.compile(r"(0|-?[1-9][0-9]{0,18})\Z")

#: The model, once it has been read.
_models: List[ServiceModel] = []


def coerce(
    operation: str, params: Mapping[str, Any], *, strict: bool = False
) -> Tuple[Dict[str, Any], List[Problem]]:
    """`params` in the types of an operation of ECS.

    Args:
        operation: An operation of ECS, such as "RunTask".
        params: Keyword arguments of it, all or some. They are not changed.
        strict: The request is sent with this very botocore, so a key that its model
            does not know is an error even when it is unlike any other. By default
            it is a warning, since the sender of the request may have a newer botocore.

    Returns:
        New, plain dicts and lists, without nulls (a null is a key that is not
        given), and the problems: a wrong type, an unknown key, a required key
        missing. At the top level, keys may be missing. A value with a problem stays
        in the result as it is.
    """
    walk = _Walk(strict)
    coerced = walk.structure(_input_shape(operation), params, "")
    return (coerced if isinstance(coerced, dict) else {}), walk.problems


def use(model: ServiceModel) -> None:
    """Use a client's model of ECS from now on, instead of reading it again."""
    _models[:] = [model]


def _input_shape(operation: str) -> Shape:
    # The loader alone reads no config file, so the user's cannot break it.
    from botocore.loaders import Loader
    from botocore.model import ServiceModel

    if not _models:
        content = Loader().load_service_model("ecs", "service-2")
        _models.append(ServiceModel(content, "ecs"))
    return _models[0].operation_model(operation).input_shape


class _Walk:
    """One walk over a request; its methods take a shape, a value and its place."""

    def __init__(self, strict: bool) -> None:
        self._strict = strict
        self.problems: List[Problem] = []

    def value(self, shape: Shape, value: Any, place: str) -> Any:
        # What no operation has today (floats, timestamps) is left to botocore.
        coerce_kind = _KINDS.get(shape.type_name)
        return (
            coerce_kind(self, shape, value, place)
            if coerce_kind
            else without_nulls(value)
        )

    def structure(self, shape: Shape, value: Any, place: str) -> Any:
        if not isinstance(value, Mapping):
            return self._wrong_type(place, "a mapping", value)
        members = shape.members
        coerced: Dict[str, Any] = {}
        for key, item in value.items():
            inside = f"{place}.{key}" if place else str(key)
            if key not in members:
                # A key that is given as well is not the one that is meant.
                absent = [name for name in members if value.get(name) is None]
                self._report_unknown(str(key), absent, inside)
            if item is not None:
                coerced[key_name(key)] = (
                    self.value(members[key], item, inside)
                    if key in members
                    else without_nulls(item)
                )
        if place:  # at the top level more may be added
            for name in shape.required_members:
                if name not in coerced:
                    self.problem(
                        f"{place}.{name}",
                        "is missing, but required",
                        code="missing-key",
                    )
        return coerced

    def list(self, shape: Shape, value: Any, place: str) -> Any:
        if not isinstance(value, (list, tuple)):
            return self._wrong_type(place, "a list", value)
        return [
            self.value(shape.member, item, f"{place}[{index}]")
            for index, item in enumerate(value)
            if item is not None
        ]

    def map(self, shape: Shape, value: Any, place: str) -> Any:
        if not isinstance(value, Mapping):
            return self._wrong_type(place, "a mapping", value)
        return {
            self.value(shape.key, key, place): self.value(
                shape.value, item, f"{place}.{key}"
            )
            for key, item in value.items()
            if item is not None
        }

    def string(self, shape: Shape, value: Any, place: str) -> Any:
        written = as_string(value)
        if written is None:
            return self._wrong_type(place, "a string", value)
        if shape.enum and written not in shape.enum:
            self._report_unlisted(shape, written, place)
        return written

    def integer(self, shape: Shape, value: Any, place: str) -> Any:
        if (
            _INTEGER.match(value)
            if isinstance(value, str)
            else value.is_integer()
            if isinstance(value, float)
            else isinstance(value, int) and not isinstance(value, bool)
        ):
            return int(value)
        return self._wrong_type(place, "an integer", value)

    def boolean(self, shape: Shape, value: Any, place: str) -> Any:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        return self._wrong_type(place, "true or false", value)

    def problem(
        self, place: str, message: str, *, code: str, certain: bool = True
    ) -> None:
        self.problems.append(Problem(place, message, code, certain))

    def _wrong_type(self, place: str, wanted: str, value: Any) -> Any:
        # A value by its kind, never by its content, which may be a secret.
        kinds = (kind for types, kind in _KINDS_OF_VALUES if isinstance(value, types))
        kind = next(kinds, f"of type {type(value).__name__}")
        self.problem(place, f"must be {wanted}, but is {kind}", code="wrong-type")
        return without_nulls(value)

    def _report_unknown(self, key: str, absent: Iterable[str], place: str) -> None:
        is_searched = len(self.problems) < _MAX_HINTS
        likely = likely_meant(key, absent) if is_searched else []
        names = " or ".join(map(repr, likely))
        self.problem(
            place,
            f"unknown key, did you mean {names}?" if likely else "unknown key",
            code="unknown-key",
            certain=bool(likely) or self._strict,
        )

    def _report_unlisted(self, shape: Any, written: str, place: str) -> None:
        for listed in shape.enum:
            if listed.lower() == written.lower():
                return self.problem(
                    place,
                    f"write {listed!r} instead of {quoted(written)}",
                    code="wrong-case",
                    certain=shape.name in _CASE_SENSITIVE,
                )
        return self.problem(
            place,
            f"{quoted(written)} is not one of {', '.join(shape.enum)}",
            code="unknown-value",
            certain=False,
        )


_KINDS: Dict[str, Any] = {
    "structure": _Walk.structure,
    "list": _Walk.list,
    "map": _Walk.map,
    "string": _Walk.string,
    "character": _Walk.string,
    "integer": _Walk.integer,
    "long": _Walk.integer,
    "boolean": _Walk.boolean,
}

_KINDS_OF_VALUES: Tuple[Tuple[Any, str], ...] = (
    (Mapping, "a mapping"),
    ((list, tuple), "a list"),
    (str, "a string"),
    (bool, "true or false"),
    (int, "an integer"),
    (float, "a number"),
    (type(None), "null"),
)


# --- misspelled keys ---------------------------------------------------------------


def likely_meant(key: str, known: Iterable[str]) -> List[str]:
    """Those of `known` of which `key` is plainly a misspelling, the nearest only.

    Plainly: other case or separators, singular for plural, or an edit or two (a
    character wrong, missing, added, or two swapped) in a key that is long enough.
    """
    edits = {name: _edits(_bare(key), _bare(name)) for name in known}
    near = {
        name: count
        for name, count in edits.items()
        if count <= _edits_allowed(len(_bare(name)))
    }
    return [name for name, count in near.items() if count == min(near.values())]


def _edits(one: str, other: str) -> int:
    if _singular(one) == _singular(other):
        return 0
    longest = max(len(one), len(other))
    if abs(len(one) - len(other)) > _edits_allowed(len(other)):
        return longest
    same = SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks()
    return longest - sum(block.size for block in same)


def _bare(name: str) -> str:
    return name.replace("_", "").replace("-", "").casefold()


def _singular(name: str) -> str:
    if name.endswith("ies"):
        return name[:-3] + "y"
    return name[:-1] if name.endswith("s") else name


def _edits_allowed(length: int) -> int:
    return (length >= _LONG_ENOUGH_FOR_ONE_EDIT) + (
        length >= _LONG_ENOUGH_FOR_TWO_EDITS
    )
