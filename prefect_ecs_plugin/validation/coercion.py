"""Requests made to fit the shapes of ECS's service model.

Templates and kwargs come from YAML files, from Python code and from the API, where
a number may be a string, a string a number, and a key misspelled. `fit` walks over
such a request once, beside botocore's description of the operation's input: what it
can turn into the type that the model wants it turns, and what it cannot it reports
by its place. Nothing here opens a connection or needs an account; the model is a
file of botocore's, read when it is first asked for.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Mapping, Optional, Tuple

from .excerpt import quoted
from .rules import Problem

if TYPE_CHECKING:
    from botocore.model import ServiceModel, Shape

# Enums for which ECS takes no other case. Of others it is not known.
_CASE_SENSITIVE = frozenset(
    ("AssignPublicIp", "Compatibility", "LaunchType", "NetworkMode")
)

# Known keys shorter than this have too many neighbours for an edit to be a likely slip.
_LONG_ENOUGH_FOR_ONE_EDIT = 4
_LONG_ENOUGH_FOR_TWO_EDITS = 8

# Keys of a request for which the likely right one is looked for: it takes a
# millisecond.
_MAX_HINTS = 100


def fit(
    operation: str, params: Mapping[str, Any], *, strict: bool = False
) -> Tuple[Dict[str, Any], List[Problem]]:
    """`params` in the types that an operation of ECS wants.

    Args:
        operation: an operation of ECS, such as "RunTask".
        params: keyword arguments of it, all or some. They are not changed.
        strict: the request is sent with this very botocore, so a key that its model
            does not know is an error even when it is unlike any other. By default
            it is a warning, since the sender of the request may have a newer botocore.

    Returns:
        New, plain dicts and lists, without nulls (a null is a key that is not
        given), and what is wrong: a wrong type, an unknown key, a required key
        missing. At the top level, keys may be missing. What is wrong stays in the
        result as it is.
    """
    problems: List[Problem] = []
    fitted = _fitter(operation).fit(params, "", _Report(problems, strict))
    return (fitted if isinstance(fitted, dict) else {}), problems


def knows(operation: str, member: str) -> bool:
    """Whether the model's `operation` takes the keyword argument `member`."""
    return member in _model().operation_model(operation).input_shape.members


def use(model: ServiceModel) -> None:
    """Use a client's model of ECS from now on, in place of reading it once more."""
    _models[:] = [model]
    _fitter.cache_clear()


def _model() -> ServiceModel:
    # The loader alone reads no config file, so nothing of the user's can break it.
    from botocore.loaders import Loader
    from botocore.model import ServiceModel

    if not _models:
        content = Loader().load_service_model("ecs", "service-2")
        _models.append(ServiceModel(content, "ecs"))
    return _models[0]


#: The model, once it has been read.
_models: List[ServiceModel] = []


@lru_cache(maxsize=None)
def _fitter(operation: str) -> _Structure:
    shape = _model().operation_model(operation).input_shape
    return _Structure(shape, {})


class _Report:
    """The problems found on one walk."""

    def __init__(self, problems: List[Problem], strict: bool) -> None:
        self._problems = problems
        self.strict = strict

    def add(self, place: str, message: str, certain: bool = True) -> None:
        self._problems.append(Problem(place, message, certain))

    def likely_meant(self, key: str, known: Iterable[str]) -> List[str]:
        """What a key is meant for; of many that are wrong, for the first ones only."""
        if len(self._problems) >= _MAX_HINTS:
            return []
        return likely_meant(key, known)

    def wrong_type(self, place: str, wanted: str, value: Any) -> None:
        self.add(place, f"{wanted} is wanted here, and this is {_described(value)}")


class _Fitter:
    """Fits the values of one shape."""

    def fit(self, value: Any, place: str, report: _Report) -> Any:
        raise NotImplementedError


_Fitters = Dict[str, _Fitter]


def _compile(shape: Shape, known: _Fitters) -> _Fitter:
    """The fitter of a shape; `known` ends the recursion of shapes within themselves."""
    if shape.name not in known:
        kind = _KINDS.get(shape.type_name, _Anything)
        known[shape.name] = kind(shape, known)
    return known[shape.name]


class _Structure(_Fitter):
    def __init__(self, shape: Shape, known: _Fitters) -> None:
        known[shape.name] = self
        self._required = tuple(shape.required_members)
        self._members = {
            name: _compile(member, known) for name, member in shape.members.items()
        }

    def fit(self, value: Any, place: str, report: _Report) -> Any:
        if not isinstance(value, Mapping):
            report.wrong_type(place, "a mapping", value)
            return _plain(value)
        fitted: Dict[str, Any] = {}
        for key, item in value.items():
            member = self._members.get(key)
            inside = f"{place}.{key}" if place else str(key)
            if member is None:
                self._report_unknown(str(key), value, inside, report)
            if item is not None:
                fitted[_name(key)] = (
                    member.fit(item, inside, report) if member else _plain(item)
                )
        if place:  # at the top level more may be added
            self._report_missing(fitted, place, report)
        return fitted

    def _report_unknown(
        self, key: str, given: Mapping[str, Any], place: str, report: _Report
    ) -> None:
        # A key that stands there in its own right is not what this one is meant for.
        absent = [name for name in self._members if given.get(name) is None]
        likely = " or ".join(map(repr, report.likely_meant(key, absent)))
        hint = f", did you mean {likely}?" if likely else ""
        report.add(place, f"unknown key{hint}", bool(likely) or report.strict)

    def _report_missing(
        self, fitted: Mapping[str, Any], place: str, report: _Report
    ) -> None:
        for name in self._required:
            if name not in fitted:
                report.add(f"{place}.{name}", "is missing and has to be given")


class _List(_Fitter):
    def __init__(self, shape: Shape, known: _Fitters) -> None:
        self._member = _compile(shape.member, known)

    def fit(self, value: Any, place: str, report: _Report) -> Any:
        if not isinstance(value, (list, tuple)):
            report.wrong_type(place, "a list", value)
            return _plain(value)
        fit_one = self._member.fit
        return [
            fit_one(item, f"{place}[{index}]", report)
            for index, item in enumerate(value)
            if item is not None
        ]


class _Map(_Fitter):
    def __init__(self, shape: Shape, known: _Fitters) -> None:
        self._key = _compile(shape.key, known)
        self._value = _compile(shape.value, known)

    def fit(self, value: Any, place: str, report: _Report) -> Any:
        if not isinstance(value, Mapping):
            report.wrong_type(place, "a mapping", value)
            return _plain(value)
        return {
            self._key.fit(key, place, report): self._value.fit(
                item, f"{place}.{key}", report
            )
            for key, item in value.items()
            if item is not None
        }


class _String(_Fitter):
    def __init__(self, shape: Shape, known: _Fitters) -> None:
        self._enum = tuple(shape.enum)
        self._case_sensitive = shape.name in _CASE_SENSITIVE

    def fit(self, value: Any, place: str, report: _Report) -> Any:
        written = _as_string(value)
        if written is None:
            report.wrong_type(place, "a string", value)
            return _plain(value)
        if self._enum and written not in self._enum:
            self._report_unlisted(written, place, report)
        return written

    def _report_unlisted(self, written: str, place: str, report: _Report) -> None:
        for listed in self._enum:
            if listed.lower() == written.lower():
                message = f"{quoted(written)} is written {listed!r}"
                return report.add(place, message, self._case_sensitive)
        listing = ", ".join(self._enum)
        return report.add(
            place, f"{quoted(written)} is none of {listing}", certain=False
        )


def _as_string(value: Any) -> Optional[str]:
    # The base classes' own conversions: an enum's str() is its name, not its value.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return repr(int(value))
    if isinstance(value, float) and math.isfinite(value):
        return repr(float(value))
    return None


class _Integer(_Fitter):
    def __init__(self, shape: Shape, known: _Fitters) -> None:
        pass

    def fit(self, value: Any, place: str, report: _Report) -> Any:
        if _is_integer(value):
            return int(value)
        report.wrong_type(place, "an integer", value)
        return _plain(value)


class _Boolean(_Fitter):
    def __init__(self, shape: Shape, known: _Fitters) -> None:
        pass

    def fit(self, value: Any, place: str, report: _Report) -> Any:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        report.wrong_type(place, "true or false", value)
        return _plain(value)


class _Anything(_Fitter):
    """A type that no operation of ours has today, left for botocore to judge."""

    def __init__(self, shape: Shape, known: _Fitters) -> None:
        pass

    def fit(self, value: Any, place: str, report: _Report) -> Any:
        return _plain(value)


_KINDS: Dict[str, Any] = {
    "structure": _Structure,
    "list": _List,
    "map": _Map,
    "string": _String,
    "character": _String,
    "integer": _Integer,
    "long": _Integer,
    "boolean": _Boolean,
}


def _is_integer(value: Any) -> bool:
    if isinstance(value, float):
        return value.is_integer()
    if isinstance(value, str):
        # Only what reads back the same: "007" may be meant as it is.
        return bool(_INTEGER.match(value))
    return isinstance(value, int) and not isinstance(value, bool)


_INTEGER = re.compile(r"(0|-?[1-9][0-9]{0,18})\Z")


def _name(key: Any) -> str:
    """A key as a string: YAML has keys that are numbers or `true`."""
    written = _as_string(key)
    return str(key) if written is None else written


def _plain(value: Any) -> Any:
    """A copy in plain dicts and lists, without nulls; other values as they are."""
    if isinstance(value, Mapping):
        return {_name(k): _plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value if item is not None]
    return value


_KINDS_OF_VALUES: Tuple[Tuple[Tuple[type, ...], str], ...] = (
    ((Mapping,), "a mapping"),
    ((list, tuple), "a list"),
    ((str,), "a string"),
    ((bool,), "true or false"),
    ((int,), "an integer"),
    ((float,), "a number"),
    ((type(None),), "null"),
)


def _described(value: Any) -> str:
    """A value by its kind, never by its content, which may be a secret."""
    for types, kind in _KINDS_OF_VALUES:
        if isinstance(value, types):
            return kind
    return f"of type {type(value).__name__}"


# --- misspelled keys ---------------------------------------------------------------


def likely_meant(key: str, known: Iterable[str]) -> List[str]:
    """Those of `known` of which `key` is plainly a misspelling, the nearest only.

    Plainly: other case or separators, singular for plural, or an edit or two (a
    character wrong, missing, added, or two swapped) in a key that is long enough.
    """
    near = [(_distance(key, name), name) for name in known]
    nearest = min((far for far, _ in near), default=_FAR)
    return [name for far, name in near if far == nearest < _FAR]


_FAR = 9


def _distance(key: str, name: str) -> int:
    """0 for another way to write `name`, 1 or 2 edits, or `_FAR`."""
    key, name = _bare(key), _bare(name)
    if key == name or _singular(key) == _singular(name):
        return 0
    allowed = _edits_allowed(len(name))
    if abs(len(key) - len(name)) > allowed:
        return _FAR
    edits = _edits(key, name)
    return edits if edits <= allowed else _FAR


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


def _edits(one: str, other: str) -> int:
    """Damerau-Levenshtein distance: inserted, deleted, changed, swapped neighbours."""
    before: List[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, last, row = row, before, [i]
        for j, b in enumerate(other, 1):
            cost = min(before[j] + 1, row[-1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]
