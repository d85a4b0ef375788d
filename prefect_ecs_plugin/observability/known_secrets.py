"""Finds known secrets in text, in one pass and in every common spelling. Pure.

A spelling of up to 16 characters is looked for whole. Of a longer one every slice of
16 characters is, so that a part of it, cut off or on a line of its own, is found too.
All slices are keys of one table: however many secrets there are, each place in a text
costs one look-up, and where the first eight characters match, at most nine more.
"""

from __future__ import annotations

import base64
import html
import itertools
import json
import re
import shlex
from functools import lru_cache
from typing import Dict, Iterable, Iterator, List, NamedTuple, Sequence, Set, Tuple
from urllib.parse import quote, quote_plus

#: Where in a text a secret is: from, to.
Span = Tuple[int, int]

#: Shorter values (`1`, `prod`) are part of many words. They are redacted where their
#: name stands beside them, and are not looked for elsewhere.
SHORTEST = 8

#: Characters of a slice.
_SLICE = 16

#: Text of fewer different characters is a ruler such as `--------`, not a secret.
_FEWEST_CHARACTERS = 3

#: Secrets that count of one owner, and slices of all of them together, one for each
#: character: the values as they are go first, their other spellings after that. The
#: overrides of a task have at most 8,192 characters.
MOST_SECRETS, MOST_SLICES = 200, 20_000

#: Characters of spellings that are sliced for one owner, most of them to no effect: the
#: spellings of a value have most slices in common.
_MOST_WORK = 4 * MOST_SLICES

#: Where text may have been cut by others.
_END_OF_LINE = re.compile(r"(?:\.\.\.|\u2026|['\")\]]{0,2}(?:\r?\n|$))")


def is_worth_looking_for(text: str) -> bool:
    """Whether text is long enough and not made of stars or of one character.

    What follows stars may be what is left of a text that was redacted before: to
    redact it would redact all such places.
    """
    bare = text.replace("***", "")
    return len(bare) >= SHORTEST and len(set(bare)) >= _FEWEST_CHARACTERS


def windows(text: str) -> List[str]:
    """All parts of a text that are as long as the beginning of a slice."""
    return [text[i : i + SHORTEST] for i in range(len(text) - SHORTEST + 1)]


class Sliced(NamedTuple):
    """What secrets are found by.

    Attributes:
        slices: All slices of all spellings.
        starts: The beginnings of those that are longer than a slice.
    """

    slices: Sequence[str]
    starts: Sequence[str]


class Slices:
    """The slices of some secrets, by which these are found.

    An owner's slices can be removed again: each counts how often it was added.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._heads: Dict[str, int] = {}
        self._slices: Dict[str, int] = {}
        self._starts: Dict[str, int] = {}
        self.add(sliced(tuple(secrets)))

    def __len__(self) -> int:
        return len(self._slices)

    def add(self, found: Sliced, by: int = 1) -> None:
        """Look for these too."""
        for counts, keys in (
            (self._slices, found.slices),
            (self._heads, [each[:SHORTEST] for each in found.slices]),
            (self._starts, found.starts),
        ):
            for key in keys:
                count = counts.get(key, 0) + by
                if count > 0:
                    counts[key] = count
                else:
                    counts.pop(key, None)

    def remove(self, found: Sliced) -> None:
        """Do so no more, unless they were added more often."""
        self.add(found, -1)

    def spans(self, text: str, windows: Sequence[str]) -> List[Span]:
        """Where secrets stand in a text; spans may overlap.

        Args:
            text: Any text.
            windows: Its `windows`.
        """
        heads, slices = self._heads, self._slices
        if heads.keys().isdisjoint(windows):  # the usual case
            return []
        length, found = len(text), []
        for start in [i for i, each in enumerate(windows) if each in heads]:
            for end in range(min(start + _SLICE, length), start + SHORTEST - 1, -1):
                if text[start:end] in slices:
                    found.append((start, end))
                    break
        for match in _END_OF_LINE.finditer(text):  # a cut left less than a slice
            end = match.start()
            for size in range(_SLICE - 1, SHORTEST - 1, -1):
                if end >= size and text[end - size : end] in self._starts:
                    found.append((end - size, end))
                    break
        return found


@lru_cache(maxsize=16)
def sliced(secrets: Tuple[str, ...]) -> Sliced:
    """The slices of one owner's secrets, within its quota.

    Args:
        secrets: The most important first; of more than 200 the others are left out.
    """
    slices: Dict[str, None] = {}
    starts: Dict[str, None] = {}
    work = 0
    for spelling in _spellings(secrets[:MOST_SECRETS]):
        left = min(MOST_SLICES - len(slices), _MOST_WORK - work)
        if left <= 0:
            break
        work += len(spelling)
        count = min(max(len(spelling) - _SLICE, 0) + 1, left)
        slices.update((spelling[i : i + _SLICE], None) for i in range(count))
        if len(spelling) > _SLICE:
            starts.update((spelling[:size], None) for size in range(SHORTEST, _SLICE))
    return Sliced(tuple(slices), tuple(starts))


def _spellings(secrets: Sequence[str]) -> Iterator[str]:
    """All secrets as they are, then their other spellings, those that are worth it."""
    seen: Set[str] = set()
    as_they_are = (secret[:MOST_SLICES] for secret in secrets)
    others = (each for secret in secrets for each in spelled(secret))
    for spelling in itertools.chain(as_they_are, others):
        if spelling not in seen and is_worth_looking_for(spelling):
            seen.add(spelling)
            yield spelling


def spelled(secret: str) -> Iterator[str]:
    """The spellings in which logs and messages show a value.

    Lines, JSON, JSON in JSON, both with and without escapes for what is not ASCII,
    Python, one line, percent-encoding in both cases with and without `/`, HTML, quoted
    for a shell, and base64 in each of the three places in which it may begin.
    """
    secret = secret[:MOST_SLICES]
    yield secret
    yield from (line.strip() for line in secret.splitlines())
    yield " ".join(secret.split())
    for is_ascii in (True, False):
        as_json = json.dumps(secret, ensure_ascii=is_ascii)[1:-1]
        yield as_json
        yield json.dumps(as_json, ensure_ascii=is_ascii)[1:-1]
    yield repr(secret)[1:-1]
    for encoded in (
        quote(secret, safe="", errors="replace"),
        quote(secret, safe="/", errors="replace"),
        quote_plus(secret, errors="replace"),
    ):
        yield encoded
        yield re.sub("%[0-9A-F]{2}", lambda match: match.group().lower(), encoded)
    escaped = html.escape(secret)
    yield escaped
    yield escaped.replace("&#x27;", "&#39;").replace("&quot;", "&#34;")
    yield shlex.quote(secret).strip("'")
    yield re.sub(r"([^\w./@%+=:,-])", r"\\\1", secret)
    yield from _base64(secret)


def _base64(secret: str) -> Iterator[str]:
    """The characters that do not depend on what stands before and after the secret."""
    plain = secret.encode(errors="replace")
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + plain).decode()
        first = (before * 8 + 5) // 6
        last = (before + len(plain)) * 8 // 6
        inner = encoded[first:last]
        yield inner
        yield inner.replace("+", "-").replace("/", "_")
