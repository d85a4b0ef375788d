"""Parts of a request, the problems that they have, and the rules that find them.

The rules also read requests whose types `coercion` has not checked yet. A `Part`
therefore reads a value of the wrong type as if it were absent, and so a null.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import (
    Any,
    Callable,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Type,
)

from ...errors import ConfigurationError, code_of, with_code, without_code
from ..excerpt import MAX_LINE, joined, quoted, shortened
from ..plain import without_nulls

#: Characters of a place, which has the request's own keys in it, and of a message.
_MAX_PLACE = 160
_MAX_MESSAGE = 400

#: Characters of a code at the end of a message.
_MAX_CODE = 40


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a request.

    Attributes:
        place: Where it is, such as `containerDefinitions[1].environment[0].value`;
            empty for the request as a whole.
        message: A sentence that says what is wrong and what would be right.
        code: Names the kind of problem, such as `unknown-key`.
        certain: True where ECS refuses the request; False where ECS may accept it, so
            that the problem is a warning only.
    """

    place: str
    message: str
    code: str
    certain: bool = True

    def __post_init__(self) -> None:
        """Limit how much of the request a message repeats."""
        object.__setattr__(self, "place", shortened(self.place, _MAX_PLACE))
        object.__setattr__(self, "message", shortened(self.message, _MAX_MESSAGE))

    def __str__(self) -> str:
        line = f"{self.place}: {self.message}" if self.place else self.message
        return with_code(line, self.code)

    def within(self, argument: str) -> Problem:
        """The same problem where `argument` holds the request."""
        place = f"{argument}.{self.place}" if self.place else argument
        return replace(self, place=place)

    def because_of(self, place: str, lead: str) -> Problem:
        """The same problem, reported at another place.

        Args:
            place: The other place.
            lead: What the message says first.
        """
        return replace(self, place=place, message=f"{lead}: {without_code(str(self))}")


class Part(NamedTuple):
    """A structure in a request, and the place where it is.

    Attributes:
        place: The path from the request's top; empty for the request itself.
        value: The structure; empty where the request has none at this place.
    """

    place: str
    value: Mapping[str, Any]

    def problem(
        self, key: str, message: str, *, code: str, certain: bool = True
    ) -> Problem:
        """A problem of the member `key`, or of this structure if `key` is empty."""
        return Problem(self.at(key), message, code, certain)

    def at(self, key: str) -> str:
        """The place of the member `key`."""
        return ".".join(filter(None, (self.place, key)))

    def get(self, key: str) -> Any:
        """The value of the member `key`, of any type."""
        return self.value.get(key)

    def text(self, key: str) -> Optional[str]:
        """The string at `key`."""
        value = self.value.get(key)
        return value if isinstance(value, str) else None

    def number(self, key: str) -> Optional[int]:
        """The integer at `key`, also where it is written as a string."""
        value = self.value.get(key)
        if isinstance(value, str) and value.strip().lstrip("-").isdecimal():
            return int(value)
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        return value if is_integer else None

    def items(self, key: str) -> List[Any]:
        """The list at `key`."""
        value = self.value.get(key)
        return list(value) if isinstance(value, (list, tuple)) else []

    def part(self, key: str) -> Part:
        """The structure at `key`."""
        value = self.value.get(key)
        return Part(self.at(key), value if isinstance(value, Mapping) else {})

    def parts(self, key: str) -> List[Part]:
        """The structures in the list at `key`."""
        return [
            Part(f"{self.at(key)}[{index}]", item)
            for index, item in enumerate(self.items(key))
            if isinstance(item, Mapping)
        ]

    def texts(self, key: str, member: str = "name") -> List[str]:
        """The string at `member` of each structure in the list at `key`."""
        found = (part.text(member) for part in self.parts(key))
        return [text for text in found if text is not None]


def raise_certain(
    problems: Iterable[Problem], error: Type[ConfigurationError], prefix: str = ""
) -> List[Problem]:
    """Raise an error if ECS is certain to refuse a request.

    Args:
        problems: The problems of the request.
        error: The class of the error.
        prefix: What its message says first.

    Returns:
        The problems, all of which ECS may accept.

    Raises:
        ConfigurationError: of the class `error`, with all problems that are certain
            in one line, each with its code; the error's own code is the last one's.
    """
    found = list(problems)
    certain = list(dict.fromkeys(problem for problem in found if problem.certain))
    if certain:
        sentences = [prefix + str(certain[0]), *map(str, certain[1:])]
        line = joined(sentences, MAX_LINE - _MAX_CODE)
        raise error(line, code=code_of(line) or certain[0].code)
    return found


@dataclass(frozen=True)
class Rule:
    """One rule of ECS.

    Attributes:
        check: Yields the problems that a request has with this rule. It takes a
            `Part`, or a `LaunchRequest` for the rules of run_task.LAUNCH_RULES.
        source: Where AWS documents the rule.
        whole: The rule is about something missing, so it applies only to a request
            that is complete.
    """

    check: Callable[[Any], Iterator[Problem]]
    source: str
    whole: bool = False


def apply(rules: Iterable[Rule], request: Any, *, partial: bool) -> List[Problem]:
    """The problems of a request, each once, in the order of the rules.

    Args:
        rules: The rules to apply.
        request: What their `check` takes.
        partial: More will be added to the request, so what is missing is no problem.
    """
    found = (
        problem
        for rule in rules
        if not (partial and rule.whole)
        for problem in rule.check(request)
    )
    return list(dict.fromkeys(found))


def compact_json(value: Any) -> str:
    """`value` as the shortest JSON that says the same, without nulls."""
    return json.dumps(
        without_nulls(value), separators=(",", ":"), ensure_ascii=False, default=str
    )


# --- kinds of rules that several members share --------------------------------------


def required(part: Part, *keys: str, certain: bool = True) -> Iterator[Problem]:
    """Members that have to be given."""
    for key in keys:
        if not part.get(key):
            yield part.problem(
                key, "is missing, but required", code="missing-key", certain=certain
            )


def at_most(part: Part, key: str, limit: int) -> Iterator[Problem]:
    """A list that ECS accepts up to a number of entries."""
    count = len(part.items(key))
    if count > limit:
        yield part.problem(
            key,
            f"{count} entries; ECS accepts at most {limit}",
            code="too-many-entries",
        )


def each_once(
    part: Part, key: str, member: str = "name", certain: bool = True
) -> Iterator[Problem]:
    """A list of structures that differ in a member, such as their names."""
    for text, count in Counter(part.texts(key, member)).items():
        if count > 1:
            yield part.problem(
                key,
                f"{count} entries have the {member} {quoted(text)}; keep one of them",
                code="duplicate-entry",
                certain=certain,
            )


def in_range(
    part: Part, key: str, low: int, high: int, certain: bool = True
) -> Iterator[Problem]:
    """A number with bounds, both included."""
    number = part.number(key)
    if number is not None and not low <= number <= high:
        yield part.problem(
            key,
            f"{number} is outside {low}-{high}",
            code="out-of-range",
            certain=certain,
        )
