r"""Finds what looks like a secret in text, by a name or by its shape. Pure.

Every function takes time in proportion to the length of any text: an expression matches
at the beginning of a word, repeats one class of characters that the next part does not
have, or has a bound; and `str.find` looks for the end of each value once.
"""

from __future__ import annotations

import re
from typing import Iterator, List, Match, Optional, Pattern

from .known_secrets import SHORTEST, Span
from .secret_names import FRAGMENTS, is_open, is_secret_name

_QUOTE = r"\\{0,15}['\"]"  # with the backslashes that JSON within JSON has

#: A name, and all of it: what follows is not tried for its parts.
_NAME = r"(?<![\w.-])(?=(?P<name>[\w.-]+))(?P=name)"

#: `'DB_PASSWORD': 'x'`, `DB_PASSWORD=x` and `x-api-key: x`, as in JSON, in Python, in
#: URLs and in headers.
_PAIR = re.compile(
    rf"{_NAME}(?P<close>{_QUOTE})?(?P<sign>\s?(?:=>|==?|:=?)[ \t]{{0,8}})"
    rf"(?P<open>{_QUOTE})?"
)

#: `'name': 'DB_PASSWORD', 'value': 'x'`, as ECS has it.
_ENTRY = re.compile(
    rf"{_QUOTE}(?:name|key){_QUOTE}\s?:\s?{_QUOTE}(?P<name>[^'\"\\\n]{{1,256}}){_QUOTE},"
    rf"\s{{0,40}}{_QUOTE}value{_QUOTE}\s?:\s?(?P<open>{_QUOTE})?",
    re.IGNORECASE,
)

#: What SSM answers for a parameter that is a secret.
_PARAMETER = re.compile(
    rf"SecureString{_QUOTE},\s{{0,40}}{_QUOTE}Value{_QUOTE}:\s?(?P<open>{_QUOTE})"
)

#: `--password X`, and `'--password', 'X'`.
_FLAG = re.compile(
    rf"(?<![\w.-])--?(?:[a-z][a-z0-9]{{0,20}}[-_]){{0,3}}"
    r"(?:passw(?:or)?d|passphrase|pass|pwd|(?:access|auth|api|id)?token|api[-_]?key"
    r"|(?:secret[-_]?)?access[-_]?key|(?:client|app)[-_]secret|secret[-_]key)"
    rf"(?P<close>{_QUOTE})?(?:[ \t]{{1,8}}|\s?,\s{{0,8}})(?P<open>{_QUOTE})?",
    re.IGNORECASE,
)

#: A flag of that kind alone, as in a list of arguments.
FLAG = re.compile(_FLAG.pattern.partition("(?P<close>")[0], re.IGNORECASE)

#: Names after which a colon and a value without quotes are no prose.
_HEADER = re.compile(
    r".+[_-].+|passw.*|passphrase|pwd|(?:proxy-)?authorization|cookie", re.IGNORECASE
)

#: Names that `_PAIR` skips: `key` and `keys` are those of tags, and arguments of
#: Python's `sorted`; the others have patterns of their own.
_SKIPPED = ("key", "keys", "authorization", "proxy-authorization")

#: Names that count in the query of a URL.
_IN_QUERY = ("key", "keys", "sig", "sas")

_BARE = re.compile(r"[^\s&'\"\\,;)}\]]*")

#: `Authorization: Bearer x`.
_AUTHORIZATION = re.compile(
    rf"\bauthorization(?:{_QUOTE})?\s{{0,4}}[:=,]\s{{0,4}}(?P<open>{_QUOTE})?"
    r"(?:(?:basic|bearer|token|digest|negotiate|apikey)\s{1,4})?",
    re.IGNORECASE,
)

#: What is between white space and quotes, where a URL begins in it.
_WITH_URL = re.compile(r"(?<![^\s'\"<>])[^\s'\"<>:]*:[^\s'\"<>]*")

_USER = re.compile(r"[^/:?#@]*")

#: The port and the path of a URL, which are no password.
_PORT_AND_PATH = re.compile(r"\d{1,5}[/?#]")

#: Kinds of tokens of GitLab.
_GITLAB = ("pat", "dt", "rt", "ptt", "cbt", "soat", "ft", "imt", "agent")

_SHAPE = re.compile(
    r"""
      \b (?P<aws> (?: AKIA | ASIA ) [A-Z0-9]{16} ) \b
    | \b (?P<github> gh[pousr]_ [A-Za-z0-9]{16,255} | github_pat_ \w{16,255} )
    | \b (?P<slack> xox[a-z] (?:-[A-Za-z0-9]{1,255}){1,8} )
    | \b (?P<gitlab> gl (?: GITLAB )
          - [\w-]{16,255} )
    | \b (?P<prefect> p[cn]u_ [A-Za-z0-9]{16,255} )
    | \b (?P<other> (?: npm_ | hf_ | dop_v1_ | dapi | pypi- | [sr]k_live_ | sk- )
          (?= [\w-]{0,40} \d ) [\w-]{20,255} )
    | \b (?P<google> AIza [\w-]{35} )
    | (?<![\w-]) (?P<jwt> eyJ [\w-]{5,8192} \. [\w-]{5,8192} (?: \. [\w-]{0,8192} )? )
    | hooks\.slack(?:-gov)?\.com / [a-z]{1,20} / (?P<slack_hook> [\w/-]{8,255} )
    | discord(?:app)?\.com/api/webhooks / (?P<discord_hook> [\w/-]{8,255} )
    | webhook\.office\.com / (?P<teams_hook> [\w/@-]{8,512} )
    | \b [Bb][Ee][Aa][Rr][Ee][Rr] \s (?P<bearer> [\w.~+/=-]{16,8192} )
    | \b [Bb][Aa][Ss][Ii][Cc] \s
      (?P<basic> (?= \w [A-Za-z0-9+/]{0,255}? [0-9A-Z=] )
          [A-Za-z0-9+/]{12,8192} ={0,2} )
    """.replace("GITLAB", " | ".join(_GITLAB)),
    re.VERBOSE,
)

#: What text with one of these shapes has in it, in lower case: most text has none.
_HINTS = (
    *("akia", "asia", "xox", "pcu_", "pnu_", "npm_", "hf_"),
    *("dop_v1", "dapi", "pypi-", "k_live", "sk-", "aiza", "eyj", "slack", "webhook"),
    *("bearer", "basic", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    *(f"gl{kind}-" for kind in _GITLAB),
)

#: The first line of a private key, and what follows it up to its last line or to where
#: it was cut off.
_KEY_BEGINS = re.compile(r"-----BEGIN (?P<kind>[A-Z0-9 ]{0,40})-----")
_KEY_BODY = re.compile(
    r"[A-Za-z0-9+/=:,\s\\-]{0,16384}?(?=-----END)|[A-Za-z0-9+/=:,\s\\-]{0,16384}"
)


#: What a value stands beside, and what text with one of these has in it, in lower case.
_BESIDE = (_PAIR, _ENTRY, _PARAMETER, _AUTHORIZATION, _FLAG)
_BESIDE_HINTS = (*FRAGMENTS, "securestring")


def spans(text: str) -> List[Span]:
    """Where a text has something that looks like a secret.

    Args:
        text: What may hold several.

    Returns:
        From, to; in no order, and some may overlap.
    """
    lower = text.lower()
    found: List[Span] = []
    if any(map(lower.__contains__, _HINTS)):
        found += (match.span(match.lastgroup or 0) for match in _SHAPE.finditer(text))
    if "://" in text and "@" in text:
        found += _in_urls(text)
    if "-----BEGIN" in text:
        found += _private_keys(text)
    if any(map(lower.__contains__, _BESIDE_HINTS)):
        for pattern in _BESIDE:
            found += _values_beside(pattern, text)
    return [(a, b) for a, b in found if a < b and not is_open(text[a:b])]


# -- Beside a name ----------------------------------------------------------------


def _values_beside(pattern: Pattern[str], text: str) -> Iterator[Span]:
    """The values that follow where a pattern matches, each looked at once.

    A value ends at its quote, its brace, or its last character. One whose end is
    missing goes on to the end of its line.
    """
    line_end = -1
    match = pattern.search(text)
    while match:
        start = end = match.end()
        if _makes_secret(match, text):
            quote = match["open"]
            if quote or text.startswith("{", start):
                if start > line_end:  # else it is the line of the value before
                    line_end = text.find("\n", start)
                    line_end = len(text) if line_end < 0 else line_end
                find = _closing_quote if quote else _closing_brace
                end = find(text, start, line_end, quote)
            else:
                bare = _BARE.match(text, start)
                end = bare.end() if bare else start
            yield start, end
        match = pattern.search(text, end)


def _closing_quote(text: str, start: int, last: int, opening: str) -> int:
    """Where the quote closes that opened before a place.

    A quote in JSON in JSON has as many backslashes as the one that opened it, and
    those of escaped backslashes before it.
    """
    quote, depth, at = opening[-1], len(opening) - 1, start
    while True:
        end = text.find(quote, at, last)
        if end < 0:
            return last
        between = text[at:end]
        backslashes = len(between) - len(between.rstrip("\\"))
        if backslashes % (2 * (depth + 1)) == depth:
            return end - depth
        at = end + 1


def _closing_brace(text: str, start: int, last: int, _: str) -> int:
    """Where `{...}` ends, in which `}}` stands for one brace."""
    at = start
    while True:
        end = text.find("}", at, last)
        if end < 0:
            return last
        if not text.startswith("}}", end):
            return end + 1
        at = end + 2


def _makes_secret(match: Match[str], text: str) -> bool:
    """Whether what stands before a value makes it a secret."""
    if match.re not in (_PAIR, _ENTRY):  # the pattern itself says it
        return True
    name = match["name"]
    if match.re is _ENTRY:
        return is_secret_name(name)
    before = text[match.start() - 1] if match.start() else " "
    if before in "?&" and name.lower() in _IN_QUERY:
        return True
    if name.lower() == "pwd":  # of a connection string; else the working directory
        return match["sign"] == "=" and not text.startswith("/", match.end())
    if name.lower() in _SKIPPED or not is_secret_name(name):
        return False
    sign = match["sign"]
    if match["close"] or sign in ("=", "==") or (match["open"] and "=" in sign):
        return True
    if before in ":/" or not (sign[-1] in " \t" or name.lower().startswith("x-")):
        return False  # the end of an ARN, or a name and its revision
    return _HEADER.fullmatch(name[-256:]) is not None


# -- By its shape -------------------------------------------------------------------


def _in_urls(text: str) -> Iterator[Span]:
    """Passwords and tokens before the host of URLs."""
    for match in _WITH_URL.finditer(text):
        at, parts = match.start(), match.group().split("://")
        for before, part in zip(parts, parts[1:]):
            at += len(before) + 3
            span = _user_info(part)
            if span:
                yield at + span[0], at + span[1]


def _user_info(part: str) -> Optional[Span]:
    """What is secret in what follows `://`: `user:PASSWORD@host`, `TOKEN@host`."""
    end = part.rfind("@")
    user = _USER.match(part)
    colon = user.end() if user else 0
    if end < 0 or colon > end:
        return None
    if part[colon] == ":":
        is_port = _PORT_AND_PATH.match(part, colon + 1, end)
        return None if is_port else (colon + 1, end)
    return (0, colon) if part[colon] == "@" and colon >= SHORTEST else None


def _private_keys(text: str) -> Iterator[Span]:
    match = _KEY_BEGINS.search(text)
    while match:
        end = match.end()
        if "KEY" in match["kind"] and "PUBLIC" not in match["kind"]:
            body = _KEY_BODY.match(text, end)
            end = body.end() if body else end
            yield match.end(), end
        match = _KEY_BEGINS.search(text, end)
