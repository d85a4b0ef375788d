"""A problem of a request, and the rules that find problems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Iterator, List, Mapping, Sequence

from ...errors import with_code
from ..excerpt import shortened

#: Characters of a place, which has the request's own keys in it, and of a message.
_MAX_PLACE = 160
_MAX_MESSAGE = 400

Request = Mapping[str, Any]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a request.

    Attributes:
        place: where it is, such as `containerDefinitions[1].environment[0].value`;
            empty for the request as a whole.
        message: a sentence that says what is wrong and what would be right.
        certain: True where ECS must refuse the request; False where it may accept
            it all the same, so that it is worth a warning only.
        code: names the rule that is broken; stands in brackets at the end.
    """

    place: str
    message: str
    certain: bool = True
    code: str = ""

    def __post_init__(self) -> None:
        """Repeat a part only of what the request has written in it."""
        object.__setattr__(self, "place", shortened(self.place, _MAX_PLACE))
        object.__setattr__(self, "message", shortened(self.message, _MAX_MESSAGE))

    def __str__(self) -> str:
        line = f"{self.place}: {self.message}" if self.place else self.message
        return with_code(line, self.code)


@dataclass(frozen=True)
class Rule:
    """One rule of ECS.

    Attributes:
        check: yields the problems that a request has with this rule.
        source: where the rule can be looked up.
        whole: the rule is about something missing, so it can only be asked of a
            request that is complete.
    """

    check: Callable[[Request], Iterator[Problem]]
    source: str
    whole: bool = False


def apply(rules: Sequence[Rule], request: Request, *, partial: bool) -> List[Problem]:
    """The problems of `request`, in the order of the rules.

    Args:
        rules: the rules to ask.
        request: a request as ECS would get it.
        partial: more will be added to the request, so what is missing is no problem.
    """
    return [
        problem
        for rule in rules
        if not (partial and rule.whole)
        for problem in rule.check(request)
    ]
