"""Bounds on how much of a given input a message repeats (pure)."""

from __future__ import annotations

from typing import Iterable, List

#: Characters of a message about input: longer ones do not help and flood logs.
MAX_LINE = 500

#: Characters of a value that a message quotes.
MAX_QUOTE = 80

_GAP = "..."


def shortened(text: str, limit: int = MAX_LINE) -> str:
    """A text of at most `limit` characters; what is cut out is in its middle.

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
    """Sentences in one line; those that have no place in it are counted.

    Args:
        sentences: At least one.
        limit: Characters of the line.
    """
    found = [" ".join(each.split()) for each in sentences]
    line = "; ".join(found)
    if len(line) <= limit:
        return line
    kept: List[str] = []
    for each in found:
        more = f"; and {len(found) - len(kept) - 1} more"
        if len("; ".join([*kept, each])) + len(more) > limit:
            break
        kept.append(each)
    if not kept:
        more = f"; and {len(found) - 1} more" if len(found) > 1 else ""
        return shortened(found[0], limit - len(more)) + more
    return f"{'; '.join(kept)}; and {len(found) - len(kept)} more"
