"""What may be a tag of a task definition or a task."""

from __future__ import annotations

import unicodedata
from functools import partial
from typing import Iterator

from ..excerpt import quoted
from .request import Part, Problem, Rule, at_most, each_once, required

_SOURCE = "https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Tag.html"

MAX_TAGS = 50
_MAX_KEY = 128
_MAX_VALUE = 256
_PUNCTUATION = frozenset("_.:/=+-@")


def as_tag_value(written: str) -> str:
    """Text as a tag's value may have it: `_` for other characters, at most 256."""
    value = "".join(char if _allowed(char) else "_" for char in written)
    if value.lower().startswith("aws:"):
        value = f"aws_{value[4:]}"
    return value[:_MAX_VALUE]


def _keys_and_values(request: Part) -> Iterator[Problem]:
    for tag in request.parts("tags"):
        yield from required(tag, "key")
        yield from _characters(tag, "key", _MAX_KEY)
        yield from _characters(tag, "value", _MAX_VALUE)


def _characters(tag: Part, key: str, limit: int) -> Iterator[Problem]:
    written = tag.text(key) or ""
    if len(written) > limit:
        yield tag.problem(
            key,
            f"{len(written)} characters; ECS accepts at most {limit}",
            code="tag-length",
        )
    wrong = sorted({char for char in written if not _allowed(char)})
    if wrong:
        yield tag.problem(
            key,
            f"invalid characters {' '.join(map(repr, wrong))}: use letters, digits, "
            "spaces and _.:/=+-@",
            code="tag-characters",
        )
    if written.lower().startswith("aws:"):
        yield tag.problem(
            key,
            f"{quoted(written)} starts with 'aws:', which is reserved for AWS",
            code="tag-prefix",
            certain=key == "key",
        )


def _allowed(char: str) -> bool:
    # The model's pattern is [\p{L}\p{Z}\p{N}_.:/=+\-@]*.
    return char in _PUNCTUATION or unicodedata.category(char)[0] in "LZN"


RULES = (
    Rule(partial(at_most, key="tags", limit=MAX_TAGS), _SOURCE),
    Rule(partial(each_once, key="tags", member="key"), _SOURCE),
    Rule(_keys_and_values, _SOURCE),
)
