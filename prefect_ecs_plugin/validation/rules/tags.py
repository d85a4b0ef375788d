"""What may be a tag of a task definition or a task."""

from __future__ import annotations

import unicodedata
from collections import Counter
from typing import Iterator

from ..excerpt import quoted
from .problem import Problem, Request
from .values import Entry, entries, items, text

SOURCE = "https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Tag.html"

MAX_TAGS = 50
MAX_TAG_KEY = 128
MAX_TAG_VALUE = 256
_PUNCTUATION = frozenset("_.:/=+-@")


def few_enough(request: Request) -> Iterator[Problem]:
    """At most 50 tags a resource."""
    count = len(items(request, "tags"))
    if count > MAX_TAGS:
        yield Problem("tags", f"{count} tags, and ECS takes at most {MAX_TAGS}")


def each_key_once(request: Request) -> Iterator[Problem]:
    """A resource has one value for a key."""
    keys = Counter(text(entry.value, "key") for entry in entries(request, "tags"))
    for key, count in keys.items():
        if key is not None and count > 1:
            yield Problem(
                "tags", f"the key {quoted(key)} is given {count} times, not once"
            )


def keys(request: Request) -> Iterator[Problem]:
    """1 to 128 allowed characters, not starting with `aws:`."""
    for entry in entries(request, "tags"):
        place, key = f"{entry.place}.key", text(entry.value, "key")
        if key is None and entry.value.get("key") is not None:
            continue  # of a wrong type, which is for `coercion` to say
        if not key:
            yield Problem(place, "a tag needs a key of 1 to 128 characters")
            continue
        yield from _written(place, key, MAX_TAG_KEY)
        if key.lower().startswith("aws:"):
            yield Problem(
                place, f"{quoted(key)} starts with 'aws:', which AWS reserves"
            )


def values(request: Request) -> Iterator[Problem]:
    """At most 256 allowed characters."""
    for entry in entries(request, "tags"):
        yield from _value(entry)


def as_tag_value(written: str) -> str:
    """Text as a tag's value may have it: `_` for other characters, at most 256."""
    value = "".join(char if _allowed(char) else "_" for char in written)
    if value.lower().startswith("aws:"):
        value = f"aws_{value[4:]}"
    return value[:MAX_TAG_VALUE]


def _value(entry: Entry) -> Iterator[Problem]:
    value, place = text(entry.value, "value") or "", f"{entry.place}.value"
    yield from _written(place, value, MAX_TAG_VALUE)
    if value.lower().startswith("aws:"):
        yield Problem(
            place,
            f"{quoted(value)} starts with 'aws:', which AWS reserves",
            certain=False,
        )


def _written(place: str, written: str, limit: int) -> Iterator[Problem]:
    if len(written) > limit:
        yield Problem(place, f"{len(written)} characters, and at most {limit} go")
    wrong = sorted({char for char in written if not _allowed(char)})
    if wrong:
        shown = " ".join(map(repr, wrong))
        yield Problem(
            place, f"{shown} may not stand in a tag: letters, digits, spaces, _.:/=+-@"
        )


def _allowed(char: str) -> bool:
    # The model's pattern is [\p{L}\p{Z}\p{N}_.:/=+\-@]*.
    return char in _PUNCTUATION or unicodedata.category(char)[0] in "LZN"
