"""Bounds on how much of a given input a message repeats (pure)."""

from __future__ import annotations

from typing import Iterable

#: Characters of a message about input: longer ones only fill logs.
MAX_LINE = 500

#: Characters of a value that a message quotes.
MAX_QUOTE = 80

_GAP = "..."


def shortened(text: str, limit: int = MAX_LINE) -> str:
    """A text of at most `limit` characters; a longer one is cut in its middle.

    Args:
        text: Any text.
        limit: Characters; at least 10.
    """
    if len(text) <= limit:
        return text
    tail = (limit - len(_GAP)) // 3
    head = limit - len(_GAP) - tail
    return f"{text[:head]}{_GAP}{text[len(text) - tail :]}"


def quoted(value: object, limit: int = MAX_QUOTE) -> str:
    """A value as `repr` writes it, of at most `limit` characters."""
    if isinstance(value, (str, bytes)):
        value = value[: 2 * limit]  # what is cut is longer than the limit already
    return shortened(repr(value), limit)


def joined(sentences: Iterable[str], limit: int = MAX_LINE) -> str:
    """Sentences in one line; those beyond its limit are only counted.

    Args:
        sentences: At least one.
        limit: Characters of the line.
    """
    found = [" ".join(each.split()) for each in sentences]
    more = ""
    for kept in range(min(len(found), limit // 3), 0, -1):
        more = f"; and {len(found) - kept} more" if kept < len(found) else ""
        line = "; ".join(found[:kept]) + more
        if len(line) <= limit:
            return line
    return shortened(found[0], limit - len(more)) + more
