"""Text for people: colours where they are wanted, lines that fit 80 columns."""

from __future__ import annotations

import os
import textwrap
import unicodedata
from typing import List, Optional

import click

#: Columns of the narrowest terminal.
WIDTH = 80


#: Categories of Unicode: control and format characters, halves of characters, and
#: separators of lines. In them a terminal reads commands, or text in another order.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    """A line with `?` in place of what a terminal does not print; tabs stay.

    Names of runs and flows, and lines of logs, are written by people and programs that
    must not control the terminal in which they are read.

    Args:
        text: One line, without colours of this package's own.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        "?" if unicodedata.category(char) in _UNPRINTABLE and char != "\t" else char
        for char in text
    )


def echo(text: str) -> None:
    """Print a text on stdout, in colours if that is a terminal: https://no-color.org"""
    click.echo(text, color=False if os.environ.get("NO_COLOR") else None)


def wrapped(text: str, indent: str = "  ", later: Optional[str] = None) -> List[str]:
    """The printable lines of a text; a word that does not fit stays whole, as a URL.

    Args:
        text: One or more lines.
        indent: What stands before the first line.
        later: What stands before the others; by default the same.
    """
    return [
        line
        for each in text.splitlines() or [""]
        for line in textwrap.wrap(
            printable(each),
            WIDTH,
            initial_indent=indent,
            subsequent_indent=indent if later is None else later,
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]


def spoken(length: float) -> str:
    """A length of time: `2.1 s`, `45 s`, `3 min 20 s`, `2 h 5 min`.

    Args:
        length: In seconds; less than none is none.
    """
    length = max(0.0, length)
    if length < 9.95:
        return f"{length:.1f} s"
    whole = round(length)
    parts: List[str] = []
    for name, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, whole = divmod(whole, size)
        if count or parts:
            parts.append(f"{count} {name}")
    return " ".join(each for each in parts[:2] if not each.startswith("0 "))
