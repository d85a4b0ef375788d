"""Takes secrets out of what people will read. Pure, but for a lock.

is_secret_name   whether the name of a variable speaks of a secret
secrets_in       the secret values that stand in requests, run configs and tasks
hidden           text without them
hidden_lines     lines without them, cut afterwards
masked           a copy of a request without them
Secrets          those that one agent knows, its own and its runs'

Text is never cut before it is masked: half a secret would not be found.
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

from . import secret_patterns
from .known_secrets import MOST_SECRETS, SHORTEST, Sliced, Slices, Span, sliced, windows
from .secret_names import is_secret, is_secret_name

__all__ = [
    "SHORTEST",
    "STARS",
    "Secrets",
    "hidden",
    "hidden_lines",
    "is_secret_name",
    "masked",
    "secrets_in",
]

STARS = "***"

#: Characters of a text that are shown at most: no line of a log needs more, and what
#: looks for secrets takes time in proportion.
LONGEST_TEXT = 100_000

#: Characters behind a cut that are looked at, so that a secret across it is found.
_BEHIND_CUT = 64

#: Slices of all runs together that are looked for in text that speaks of no run.
_MOST_OF_ALL_RUNS = 200_000

#: The members of requests and run configs that map names of anybody's own to values.
_FREE = ("env", "options", "dockerLabels", "driverOpts", "labels")

#: The members that name a `value` beside them: of variables, and of tags.
_NAMES = ("name", "key")

_URL = re.compile(r"\s*[a-z][a-z0-9+.-]{0,40}://\S+\s*", re.IGNORECASE)

#: `Server=db.example.com;Uid=me;Pwd=x`, of which most is no secret.
_CONNECTION = re.compile(r"[\w .-]+=[^;=\n]*;[\w .-]+=.*", re.DOTALL)


def secrets_in(*structures: Any) -> List[str]:
    """The values whose names or shapes speak of secrets, and those within texts.

    Args:
        structures: Requests, run configs, described tasks, or any other dicts and
            lists. A plain map of variables is given as `{"env": variables}`.
    """
    found = (secret for each in structures for secret in _secrets(each))
    return list(dict.fromkeys(found))


def hidden(text: str, secrets: Iterable[str] = (), longest: int = LONGEST_TEXT) -> str:
    """Text without secrets.

    Stars stand for the secrets given, in every spelling that is common; for values
    beside a name that speaks of a secret; and for what has the shape of a token.

    Args:
        text: What people will read.
        secrets: What to look for; those of fewer than eight characters are not.
        longest: Characters of the text that are shown. What is cut off says so.
    """
    return _hidden(text, (_slices_of(tuple(secrets)),), longest)


def hidden_lines(
    lines: Sequence[str], secrets: Iterable[str], longest: int
) -> List[str]:
    """Lines without secrets, among them those that reach over several lines.

    Args:
        lines: What people will read.
        secrets: As for `hidden`.
        longest: Characters of a line that are shown.
    """
    starts, windows = [0], [line[: longest + _BEHIND_CUT] for line in lines]
    for window in windows:
        starts.append(starts[-1] + len(window) + 1)
    text = "\n".join(windows)
    found = _merged(_spans(text, (_slices_of(tuple(secrets)),)))
    return [
        _shown(text, found, start, start + min(len(line), longest))
        + ("..." if len(line) > longest else "")
        for start, line in zip(starts, lines)
    ]


def masked(request: Any, secrets: Iterable[str] = ()) -> Any:
    """A copy of a request in which secret values are stars.

    Args:
        request: The request, or a part of it.
        secrets: Values that are to be found wherever they stand, besides those that
            the request itself names as secrets.
    """
    return _masked(request, (Slices([*secrets, *secrets_in(request)]),))


class Secrets:
    """The secrets that an agent knows; threads may share it.

    A run's belong to the run: they are looked for in what is told about this run and
    in what speaks of no run, and forgotten when the run has ended. So no run makes the
    log of another unreadable, and none pushes the secrets of another out.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: Dict[str, None] = {}
        self._own = Slices()
        self._of_runs: Dict[str, Tuple[str, ...]] = {}
        self._of_all_runs = Slices()
        self._added: Dict[str, Sliced] = {}

    def keep(self, *values: Any) -> None:
        """Hide these values for good; None and what is empty is passed over."""
        with self._lock:
            self._kept.update(dict.fromkeys(str(value) for value in values if value))
            self._own = Slices(self._kept)

    def learn(self, run_id: str, *structures: Any) -> None:
        """Hide what is secret in a run's own dicts from now on; see `secrets_in`.

        Args:
            run_id: The run, of which 200 secrets count.
            structures: Its run config, its template, its requests.
        """
        found: List[str] = []
        with suppress(RecursionError):  # such a run config is refused elsewhere
            found = secrets_in(*structures)
        with self._lock:
            before = self._of_runs.get(run_id, ())
            known = tuple(dict.fromkeys([*before, *found]))[:MOST_SECRETS]
            if known != before:
                self._take_out(run_id)
                self._put_in(run_id, known)

    def forget(self, run_id: str) -> None:
        """A run has ended: look for its secrets no more."""
        with self._lock:
            self._take_out(run_id)

    def of(self, run_id: str) -> List[str]:
        """The agent's secrets and a run's."""
        with self._lock:
            return [*self._kept, *self._of_runs.get(run_id, ())]

    def hidden(self, text: str, run_id: Optional[str] = None) -> str:
        """Text without the agent's secrets and without a run's.

        Args:
            text: What people will read.
            run_id: The run that it speaks of; without one, the secrets of all runs are
                looked for.
        """
        if run_id is None:
            return _hidden(text, (self._own, self._of_all_runs))
        of_this_run = _slices_of(self._of_runs.get(run_id, ()))
        return _hidden(text, (self._own, of_this_run))

    def _put_in(self, run_id: str, known: Tuple[str, ...]) -> None:
        self._of_runs[run_id] = known
        found = sliced(known)
        if len(self._of_all_runs) + len(found.slices) <= _MOST_OF_ALL_RUNS:
            self._of_all_runs.add(found)
            self._added[run_id] = found

    def _take_out(self, run_id: str) -> None:
        self._of_runs.pop(run_id, None)
        found = self._added.pop(run_id, None)
        if found:
            self._of_all_runs.remove(found)


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
        yield from _found(value, secret_patterns.spans(value[:LONGEST_TEXT]))


def _follows_flag(before: Any, value: Any) -> bool:
    """Whether an argument follows one like `--password`."""
    are_texts = isinstance(before, str) and isinstance(value, str)
    return are_texts and secret_patterns.FLAG.fullmatch(before) is not None


def _secret_parts(value: str) -> Iterator[str]:
    """A value whose name speaks of a secret; of a URL, what is secret in it.

    The host in a connection string is none, and is wanted in messages.
    """
    if _URL.fullmatch(value):
        parts = list(_found(value, secret_patterns.spans(value[:LONGEST_TEXT])))
        yield from parts or [_path(value)]
    elif _CONNECTION.fullmatch(value):
        parts = list(_found(value, secret_patterns.spans(value[:LONGEST_TEXT])))
        yield from parts or [value]
    else:
        yield value


def _path(url: str) -> str:
    with suppress(ValueError):
        parts = urlsplit(url.strip())
        return url.strip()[len(f"{parts.scheme}://{parts.netloc}") :].strip("/") or url
    return url


def _found(text: str, spans: Iterable[Span]) -> Iterator[str]:
    for start, end in spans:
        yield text[start:end]
        if "%" in text[start:end]:
            yield unquote(text[start:end])


def _named(value: Mapping[str, Any]) -> Iterator[Tuple[Any, Any]]:
    """The variables, options and tags that stand in a mapping itself."""
    for name in _NAMES:
        if name in value and "value" in value:
            yield value[name], value["value"]
    for key in _FREE:
        if isinstance(value.get(key), Mapping):
            yield from value[key].items()


# -- Hiding them --------------------------------------------------------------------


def _hidden(text: str, known: Sequence[Slices], longest: Optional[int] = None) -> str:
    longest = LONGEST_TEXT if longest is None else longest
    window = text[: longest + _BEHIND_CUT]
    found = _merged(_spans(window, known))
    if len(text) <= longest:
        return _shown(text, found, 0, len(text))
    cut = "..." if longest < LONGEST_TEXT else _note(len(text) - longest)
    return f"{_shown(window, found, 0, longest)}{cut}"


def _note(left_out: int) -> str:
    return f"... ({left_out} more characters are left out)"


def _spans(text: str, known: Sequence[Slices]) -> Iterator[Span]:
    seen = windows(text) if any(map(len, known)) else []
    for slices in known:
        yield from slices.spans(text, seen)
    yield from secret_patterns.spans(text)


def _merged(spans: Iterable[Span]) -> List[Span]:
    """The same places, without overlaps, in order."""
    merged: List[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _shown(text: str, spans: Sequence[Span], start: int, end: int) -> str:
    """A part of a text, with stars in these places."""
    parts, at = [], start
    for first, last in spans:
        if last > at and first < end:
            parts += [text[at : max(first, at)], STARS]
            at = last
    return "".join([*parts, text[at:end]])


def _masked(value: Any, known: Sequence[Slices]) -> Any:
    if isinstance(value, Mapping):
        return {key: _masked(each, known) for key, each in _with_stars(value).items()}
    if isinstance(value, (list, tuple)):
        return [
            STARS if _follows_flag(before, each) else _masked(each, known)
            for before, each in zip([None, *value], value)
        ]
    return _hidden(value, known) if isinstance(value, str) else value


def _with_stars(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """A mapping in which the variables that stand in it themselves are stars."""
    stars: Dict[str, Any] = {}
    for name in _NAMES:
        if name in value and "value" in value:
            stars["value"] = _star(value[name], value["value"])
    for key in _FREE:
        if isinstance(value.get(key), Mapping):
            named = value[key].items()
            stars[key] = {name: _star(name, each) for name, each in named}
    return {**value, **stars}


def _star(name: Any, value: Any) -> Any:
    return STARS if is_secret(name, value) else value
