"""Secrets made stars in whatever people will read. Pure, but for a lock.

is_secret_name   whether the name of a variable speaks of a secret
secrets_in       the secret values that stand in requests, run configs and tasks
hidden           text without them
masked           a copy of a request without them
Secrets          those that one agent knows, for its own log and its runs'
"""

from __future__ import annotations

import json
import re
import threading
from contextlib import suppress
from functools import lru_cache
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Match, Tuple
from urllib.parse import quote, unquote

STARS = "***"

#: Shorter values (`1`, `prod`) are part of many words. They are stars where their name
#: stands beside them, and are not looked for elsewhere.
SHORTEST = 8

#: What speaks of a secret, in a name in lower case with `_` around each word.
_SECRET_NAME = re.compile(
    r"""
      passw | passphrase | secret | credential | webhook | connection_string
    | (?: token | auth | pwd | dsn | jwt | signature | (?: access | account | api | auth
        | encryption | licen[cs]e | master | private | shared | signing | ssh ) key
        ) s? \d* _
    | _ (?: keys? | pass | passcode | pw | creds? | cookie | bearer | pem
        | authorization | authentication ) \d* _
    | _ private _ $
    """,
    re.VERBOSE,
)

#: The working directory, and the one before it, are no passwords.
_NO_SECRET = frozenset(("_pwd_", "_oldpwd_"))

#: Values that are nobody's secret, whatever they are called: nothing, switches, ARNs.
_OPEN = re.compile(r"\s*|true|false|none|null|\*{3}|arn:aws[\w-]*:\S+", re.IGNORECASE)

#: The members of requests and run configs that map names of anybody's own to values.
_FREE = ("env", "options", "dockerLabels", "driverOpts", "labels")

#: The members that name a `value` beside them: of variables, and of tags.
_NAMES = ("name", "key")

#: How many secret values of runs are remembered; the runs of a flow share theirs.
_REMEMBERED = 2000

# -- In text ----------------------------------------------------------------------

_QUOTE = r"\\*['\"]"  # with the backslashes that JSON within JSON has

#: What stands between two quotes of the same kind.
_QUOTED = rf"(?P<quote>{_QUOTE})(?P<value>(?:(?!(?<!\\)(?P=quote)).)*)(?=(?P=quote))"

#: The password of a URL: `postgresql://user:PASSWORD@host`.
_IN_URL = re.compile(r"(?<=://)(?P<user>[^/\s:@]*:)(?P<value>[^/\s@]+)(?=@)")

#: `'DB_PASSWORD': 'x'` and `DB_PASSWORD=x`, as in JSON, in Python and in URLs. `key`
#: alone names a tag, or is an argument of Python's `sorted`, but for that of a URL.
_PAIR = re.compile(
    rf"(?<![\w.-])(?:(?<=[?&])|(?!keys?\b))(?P<name>[\w.-]+)"
    rf"(?:(?:{_QUOTE}\s?:|\s?=)\s?{_QUOTED}|=(?P<bare>[^\s&'\"\\,;)}}\]]+))"
)

#: `'name': 'DB_PASSWORD', 'value': 'x'`, as ECS has it.
_ENTRY = re.compile(
    rf"{_QUOTE}(?:name|key){_QUOTE}: ?{_QUOTE}(?P<name>[^'\"\\]+){_QUOTE}, ?"
    rf"{_QUOTE}value{_QUOTE}: ?{_QUOTED}"
)

#: What SSM answers for a parameter that is a secret.
_PARAMETER = re.compile(rf"SecureString{_QUOTE}, ?{_QUOTE}Value{_QUOTE}: ?{_QUOTED}")

#: `Authorization: Bearer x`.
_BEARER = re.compile(r"(?<=\bBearer )(?P<value>[\w.~+/=-]{16,})")


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether the value of a variable, an option or a tag is nobody's business.

    Args:
        name: In any case, such as `DB_PASSWORD`, `splunk-token` or `accessKey`.
    """
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    words = f"_{re.sub(r'[^a-z0-9]+', '_', apart).strip('_')}_"
    return words not in _NO_SECRET and _SECRET_NAME.search(words) is not None


def secrets_in(*structures: Any) -> List[str]:
    """The values whose names speak of secrets, and the passwords in URLs.

    Args:
        structures: Requests, run configs, described tasks, or any other dicts and
            lists. A plain map of variables is given as `{"env": variables}`.
    """
    found = (secret for each in structures for secret in _secrets(each))
    return list(dict.fromkeys(found))


def hidden(text: str, secrets: Iterable[str] = ()) -> str:
    """Text without secrets.

    Stars stand for the secrets given, in every spelling that is common; for values
    beside a name that speaks of a secret; and for passwords in URLs.

    Args:
        text: What people will read.
        secrets: What to look for; shorter ones than eight characters are not.
    """
    return _hidden(text, _spellings(secrets))


def masked(request: Any, secrets: Iterable[str] = ()) -> Any:
    """A copy of a request in which secret values are stars.

    Args:
        request: The request, or a part of it.
        secrets: Values that are to be found wherever they stand, besides those that
            the request itself names as secrets.
    """
    return _masked(request, _spellings([*secrets, *secrets_in(request)]))


class Secrets:
    """The secrets that an agent knows; threads may share it.

    Those of its runs come and go, so of them the 2000 learned last are remembered.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: Dict[str, None] = {}
        self._of_runs: Dict[str, None] = {}
        self._spellings: Tuple[str, ...] = ()

    def keep(self, *values: Any) -> None:
        """Hide these values for good; None and what is empty is passed over."""
        with self._lock:
            self._kept.update(dict.fromkeys(str(value) for value in values if value))
            self._spell()

    def learn(self, *structures: Any) -> None:
        """Hide what is secret in a run's own dicts from now on; see `secrets_in`."""
        found: List[str] = []
        with suppress(
            RecursionError
        ):  # nobody launches that; it is not for here to say
            found = secrets_in(*structures)
        with self._lock:
            new = [secret for secret in found if secret not in self._of_runs]
            for secret in found:
                self._of_runs.pop(secret, None)
                self._of_runs[secret] = None
            if new:
                for secret in list(self._of_runs)[:-_REMEMBERED]:
                    del self._of_runs[secret]
                self._spell()

    def hidden(self, text: str) -> str:
        """Text without any of them, see the function of this name."""
        return _hidden(text, self._spellings)

    def _spell(self) -> None:
        self._spellings = _spellings([*self._kept, *self._of_runs])


# -- Finding them -------------------------------------------------------------------


def _secrets(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, named in _named(value):
            if isinstance(named, (str, int, float)) and _is_secret(name, named):
                yield str(named)
        for each in value.values():
            yield from _secrets(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _secrets(each)
    elif isinstance(value, str):
        for match in _IN_URL.finditer(value):
            yield from (match["value"], unquote(match["value"]))


def _named(value: Mapping[str, Any]) -> Iterator[Tuple[Any, Any]]:
    """The variables, options and tags that stand in a mapping itself."""
    for name in _NAMES:
        if name in value and "value" in value:
            yield value[name], value["value"]
    for key in _FREE:
        if isinstance(value.get(key), Mapping):
            yield from value[key].items()


def _is_secret(name: Any, value: Any) -> bool:
    return is_secret_name(str(name)) and not _OPEN.fullmatch(str(value))


def _spellings(secrets: Iterable[str]) -> Tuple[str, ...]:
    """All spellings of secrets that are long enough, the longest first."""
    found = {each for secret in secrets for each in _spelled(secret)}
    return tuple(sorted(found, key=lambda each: (-len(each), each)))


@lru_cache(maxsize=2 * _REMEMBERED)
def _spelled(secret: str) -> Tuple[str, ...]:
    """As it is, in JSON, in Python, in a URL, on one line, and each of its lines."""
    spellings = (
        secret,
        json.dumps(secret)[1:-1],
        repr(secret)[1:-1],
        quote(secret, safe="", errors="replace"),
        " ".join(secret.split()),
        *(line.strip() for line in secret.splitlines()),
    )
    return tuple(each for each in spellings if len(each) >= SHORTEST)


# -- Hiding them --------------------------------------------------------------------


def _hidden(text: str, spellings: Iterable[str]) -> str:
    """Again and again, since what was taken out may join the two halves of another."""
    before = None
    while text != before:
        before = text
        for spelling in spellings:
            text = text.replace(spelling, STARS)
        for pattern, star in _PATTERNS:
            text = pattern.sub(star, text)
    return text


def _starred(match: Match[str]) -> str:
    """What was found, with stars in place of its value."""
    group = "bare" if match.groupdict().get("bare") is not None else "value"
    start, end = (place - match.start() for place in match.span(group))
    return match.group()[:start] + STARS + match.group()[end:]


def _starred_if_secret(match: Match[str]) -> str:
    value = match.groupdict().get("bare") or match["value"]
    return _starred(match) if _is_secret(match["name"], value) else match.group()


_PATTERNS = (
    (_ENTRY, _starred_if_secret),
    (_PAIR, _starred_if_secret),
    (_PARAMETER, _starred),
    (_IN_URL, _starred),
    (_BEARER, _starred),
)


def _masked(value: Any, spellings: Iterable[str]) -> Any:
    if isinstance(value, Mapping):
        return {
            key: _masked(each, spellings) for key, each in _with_stars(value).items()
        }
    if isinstance(value, (list, tuple)):
        return [_masked(each, spellings) for each in value]
    return _hidden(value, spellings) if isinstance(value, str) else value


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
    return STARS if _is_secret(name, value) else value
