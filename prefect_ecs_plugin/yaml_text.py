"""A mapping out of YAML text, or one line that says where the text goes wrong."""

from __future__ import annotations

import json
from typing import Any, Dict, Union

import yaml

from .errors import SourceError

Text = Union[bytes, str]


def parse_mapping(text: Text, where: str) -> Dict[str, Any]:
    """The mapping that a YAML text holds.

    Args:
        text: the content of a file; bytes are UTF-8, or UTF-16 with its mark.
        where: the path that names the text in errors.

    Raises:
        SourceError: when the text does not parse, is empty or holds no mapping: one
            line with the path, and the line and column where there are any.
    """
    value = _parse(text, where)
    if value is None:
        raise SourceError(
            f"{where} is empty, and a mapping of keys to values is wanted"
        )
    if not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else "a single value"
        raise SourceError(
            f"{where}, line 1, column 1: {kind}, and a mapping of keys to values is "
            "wanted"
        )
    _refuse_cycle(value, where)
    return value


def _parse(text: Text, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = _place(mark.line, mark.column) if mark else ""
        reason = error.problem or error.context or "it does not parse"
        raise SourceError(f"{where}{place}: {_one_line(reason)}") from error
    except yaml.reader.ReaderError as error:
        raise SourceError(f"{where}{_place_of(error, text)}: {error.reason}") from error
    except (yaml.YAMLError, ValueError) as error:
        # ValueError: what looks like a date and is none, such as 2022-13-45.
        raise SourceError(f"{where}: {_one_line(str(error))}") from error
    except RecursionError as error:
        raise SourceError(f"{where}: it is nested too deeply") from error


def _place(line: int, column: int) -> str:
    """Both counted from 0 by PyYAML, and from 1 by editors."""
    return f", line {line + 1}, column {column + 1}"


def _place_of(error: yaml.reader.ReaderError, text: Text) -> str:
    # PyYAML counts the position of a character that it cannot read in characters,
    # and that of a byte that it cannot decode in bytes, which the text is then in.
    before = text[: error.position]
    if isinstance(before, bytes):
        before = before.decode("utf-8", "replace")
    return _place(before.count("\n"), len(before) - before.rfind("\n") - 1)


def _one_line(reason: str) -> str:
    return " ".join(reason.split())


def _refuse_cycle(value: Dict[str, Any], where: str) -> None:
    """Anchors can make a mapping hold itself, which no request can."""
    try:
        json.dumps(value, default=str, skipkeys=True)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{where}: an anchor refers to what it stands in") from error
