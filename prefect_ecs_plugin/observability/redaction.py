"""Redacts secrets in logs, messages and requests. Pure, but for a lock.

Text is never cut before it is redacted: half a secret would not be found.
"""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from functools import lru_cache
from typing import (
    Any,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
)
from urllib.parse import unquote, urlsplit

from ..lru import Memory, content_of
from . import secret_patterns
from .known_secrets import MOST_SECRETS, Sliced, Slices, Span, sliced, windows
from .secret_names import is_secret

STARS = "***"

#: Characters of a text that are shown at most: no line of a log needs more, and the
#: search for secrets takes time in proportion.
LONGEST_TEXT = 100_000

#: Characters behind a cut that are looked at, so that a secret across it is found.
_BEHIND_CUT = 64

#: Slices of all runs together that are looked for in text that is about no run.
_MOST_OF_ALL_RUNS = 200_000

#: The members of requests and run configs that map names of the user's own to values.
_FREE = ("env", "options", "dockerLabels", "driverOpts", "labels")

#: The members that name a `value` beside them: of variables, and of tags.
_NAMES = ("name", "key")

_URL = re.compile(r"\s*[a-z][a-z0-9+.-]{0,40}://\S+\s*", re.IGNORECASE)

#: `Server=db.example.com;Uid=me;Pwd=x`, of which most is no secret.
_CONNECTION = re.compile(r"[\w .-]+=[^;=\n]*;[\w .-]+=.*", re.DOTALL)


def secrets_in(*structures: Any) -> List[str]:
    """The values whose names or shapes make them secrets, and those within texts.

    Args:
        structures: Requests, run configs, described tasks, or any other dicts and
            lists. A plain map of variables is given as `{"env": variables}`.
    """
    found = (secret for each in structures for secret in _secrets(each))
    return list(dict.fromkeys(found))


def redact_text(
    text: str, secrets: Iterable[str] = (), longest: int = LONGEST_TEXT
) -> str:
    """Text without secrets.

    Stars replace the secrets given, in every common spelling; values beside a name
    that makes them secrets; and what has the shape of a token.

    Args:
        text: What people will read.
        secrets: What to look for; those of fewer than eight characters are not.
        longest: Characters of the text that are shown. What is cut off is noted.
    """
    return _redact_text(text, (_slices_of(tuple(secrets)),), longest)


def redact_lines(
    lines: Sequence[str], secrets: Iterable[str], longest: int
) -> List[str]:
    """Lines without secrets, among them those that reach over several lines.

    Args:
        lines: What people will read.
        secrets: As for `redact_text`.
        longest: Characters of a line that are shown.
    """
    starts, heads = [0], [line[: longest + _BEHIND_CUT] for line in lines]
    for head in heads:
        starts.append(starts[-1] + len(head) + 1)
    text = "\n".join(heads)
    found = _spans(text, (_slices_of(tuple(secrets)),))
    return [
        _with_stars(text, found, start, start + min(len(line), longest))
        + ("..." if len(line) > longest else "")
        for start, line in zip(starts, lines)
    ]


def redact(request: Any, secrets: Iterable[str] = ()) -> Any:
    """A copy of a request in which secret values are stars.

    Args:
        request: The request, or a part of it.
        secrets: Values that are to be found wherever they stand, besides those that
            the request itself names as secrets.
    """
    return _redact(request, (Slices([*secrets, *secrets_in(request)]),))


class Secrets:
    """The secrets that an agent knows; threads may share it.

    A run's belong to the run: they are looked for in text about this run and in text
    about no run, and forgotten when the run has ended. So no run makes the log of
    another unreadable, and none pushes the secrets of another out.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: Dict[str, None] = {}
        self._own = Slices()
        self._of_runs: Dict[str, Tuple[str, ...]] = {}
        self._of_all_runs = Slices()
        self._added: Dict[str, Sliced] = {}
        self._found: Memory[List[str]] = Memory()

    def keep(self, *values: Any) -> None:
        """Redact these values for good; None and empty ones are skipped."""
        with self._lock:
            self._kept.update(dict.fromkeys(str(value) for value in values if value))
            self._own = Slices(self._kept)

    def learn(self, run_id: str, *structures: Any) -> None:
        """Redact what is secret in a run's own dicts from now on; see `secrets_in`.

        Args:
            run_id: The run, of which 200 secrets count.
            structures: Its run config, its template, its requests.
        """
        found: List[str] = []
        with suppress(RecursionError):  # such a run config is refused elsewhere
            content = content_of(*structures)
            found = self._found.get(content, lambda: secrets_in(*structures))
        with self._lock:
            before = self._of_runs.get(run_id, ())
            known = tuple(dict.fromkeys([*before, *found]))[:MOST_SECRETS]
            if known == before:
                return
            self._take_out(run_id)
            self._of_runs[run_id] = known
            parts = sliced(known)
            if len(self._of_all_runs) + len(parts.slices) <= _MOST_OF_ALL_RUNS:
                self._of_all_runs.add(parts)
                self._added[run_id] = parts

    def forget(self, run_id: str) -> None:
        """A run has ended: look for its secrets no more."""
        with self._lock:
            self._take_out(run_id)

    def of(self, run_id: str) -> List[str]:
        """The agent's secrets and a run's."""
        with self._lock:
            return [*self._kept, *self._of_runs.get(run_id, ())]

    def redact_text(self, text: str, run_id: Optional[str] = None) -> str:
        """Text without the agent's secrets and without a run's.

        Args:
            text: What people will read.
            run_id: The run that it is about; without one, the secrets of all runs are
                looked for.
        """
        if run_id is None:
            return _redact_text(text, (self._own, self._of_all_runs))
        of_this_run = _slices_of(self._of_runs.get(run_id, ()))
        return _redact_text(text, (self._own, of_this_run))

    def _take_out(self, run_id: str) -> None:
        self._of_runs.pop(run_id, None)
        if run_id in self._added:
            self._of_all_runs.remove(self._added.pop(run_id))


@lru_cache(maxsize=16)
def _slices_of(secrets: Tuple[str, ...]) -> Slices:
    return Slices(secrets)


# -- Finding them -------------------------------------------------------------------


def _secrets(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, named in _named(value):
            if isinstance(named, (str, int, float)) and is_secret(name, named):
                yield from _secret_parts(str(named))
        for each in value.values():
            yield from _secrets(each)
    elif isinstance(value, (list, tuple)):
        for before, each in zip([None, *value], value):
            if _follows_flag(before, each):
                yield each
            yield from _secrets(each)
    elif isinstance(value, str):
        yield from _found(value)


def _named(value: Mapping[str, Any]) -> Iterator[Tuple[Any, Any]]:
    """The variables, options and tags of a mapping itself, by name."""
    for name in _NAMES:
        if name in value and "value" in value:
            yield value[name], value["value"]
    for key in _FREE:
        if isinstance(value.get(key), Mapping):
            yield from value[key].items()


def _follows_flag(before: Any, value: Any) -> bool:
    """Whether an argument follows one like `--password`."""
    are_texts = isinstance(before, str) and isinstance(value, str)
    return are_texts and secret_patterns.FLAG.fullmatch(before) is not None


def _secret_parts(value: str) -> List[str]:
    """A value whose name makes it a secret; of a URL, what is secret in it.

    The host in a connection string is none, and is wanted in messages.
    """
    is_url = _URL.fullmatch(value)
    if not is_url and not _CONNECTION.fullmatch(value):
        return [value]
    return list(_found(value)) or [_path(value.strip()) if is_url else value]


def _path(url: str) -> str:
    with suppress(ValueError):
        parts = urlsplit(url)
        return url[len(f"{parts.scheme}://{parts.netloc}") :].strip("/") or url
    return url


def _found(text: str) -> Iterator[str]:
    for start, end in secret_patterns.spans(text[:LONGEST_TEXT]):
        yield text[start:end]
        if "%" in text[start:end]:
            yield unquote(text[start:end])


# -- Redacting them -----------------------------------------------------------------


def _redact_text(
    text: str, known: Sequence[Slices], longest: Optional[int] = None
) -> str:
    longest = LONGEST_TEXT if longest is None else longest
    head = text[: longest + _BEHIND_CUT]
    found = _spans(head, known)
    if len(text) <= longest:
        return _with_stars(text, found, 0, len(text)) if found else text
    cut = "..."
    if longest == LONGEST_TEXT:
        cut = f"... ({len(text) - longest} more characters are left out)"
    return _with_stars(head, found, 0, longest) + cut


def _spans(text: str, known: Sequence[Slices]) -> List[Span]:
    """Where secrets are in a text, without overlaps, in order."""
    found = secret_patterns.spans(text)
    parts = windows(text) if any(map(len, known)) else []
    for slices in known:
        found += slices.spans(text, parts)
    merged: List[Span] = []
    for start, end in sorted(found):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _with_stars(text: str, spans: Sequence[Span], start: int, end: int) -> str:
    """A part of a text, with stars in these places."""
    parts, at = [], start
    for first, last in spans:
        if last > at and first < end:
            parts += [text[at : max(first, at)], STARS]
            at = last
    return "".join([*parts, text[at:end]])


def _redact(value: Any, known: Sequence[Slices]) -> Any:
    if isinstance(value, Mapping):
        named = _redact_named(value)
        return {key: _redact(each, known) for key, each in named.items()}
    if isinstance(value, (list, tuple)):
        return [
            STARS if _follows_flag(before, each) else _redact(each, known)
            for before, each in zip([None, *value], value)
        ]
    return _redact_text(value, known) if isinstance(value, str) else value


def _redact_named(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """A mapping in which its own secret variables, options and tags are stars."""
    redacted = dict(value)
    names = [value[name] for name in _NAMES if name in value and "value" in value]
    if any(is_secret(name, value["value"]) for name in names):
        redacted["value"] = STARS
    for key in _FREE:
        if isinstance(value.get(key), Mapping):
            redacted[key] = {
                name: STARS if is_secret(name, each) else each
                for name, each in value[key].items()
            }
    return redacted
