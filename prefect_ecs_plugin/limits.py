"""How many runs may be under way at once, and which of those that wait go first. Pure.

A run is taken from its claim until its end: while it is Submitted, Running or
Cancelling. docs/limits.md has the rules, and why no limit is exceeded.
"""

from __future__ import annotations

import enum
import math
import re
from dataclasses import dataclass
from typing import (
    AbstractSet,
    Any,
    Dict,
    FrozenSet,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    SupportsFloat,
    Tuple,
    Union,
)

from .errors import ConfigurationError
from .validation.excerpt import quoted

#: Capacity whose quotas are apart: the capacity providers of Fargate.
ON_DEMAND, SPOT = "FARGATE", "FARGATE_SPOT"

#: The value of `--max-vcpus` for AWS's quotas.
QUOTA = "quota"

_UNITS_PER_VCPU = 1024

#: The most runs that a limit may allow.
_MOST = 999_999_999


class Kind(str, enum.Enum):
    """What a limit counts."""

    TOTAL = "total"
    FLOW = "flow"
    LABEL = "label"
    PROJECT = "project"
    VCPUS = "vcpus"


@dataclass(frozen=True)
class Limit:
    """How much may be taken at once.

    Attributes:
        kind: What is counted: runs, or vCPUs.
        name: The flow, label, project or capacity provider; empty for all runs.
        most: How many runs or vCPUs.
    """

    kind: Kind
    name: str
    most: float

    @property
    def what(self) -> str:
        """What it counts, as options and metrics name it."""
        return f"{self.kind.value}={self.name}" if self.name else self.kind.value

    def __str__(self) -> str:
        return f"{self.what}:{self.most:g}"

    def amount(self, demand: Demand) -> float:
        """How much of it a run takes; 0 if it is not about that run."""
        kind, name = self.kind, self.name
        if kind is Kind.FLOW:
            return float(name == demand.flow)
        if kind is Kind.LABEL:
            return float(name in demand.labels)
        if kind is Kind.PROJECT:
            return float(name == demand.project)
        if kind is Kind.VCPUS:
            return demand.vcpus if name in ("", demand.capacity) else 0.0
        return 1.0


@dataclass(frozen=True)
class Demand:
    """What a run takes of limits.

    Attributes:
        run_id: The run.
        flow: The name of its flow.
        project: The name of the flow's project.
        labels: Its labels.
        units: The CPU units that its task asks for; 0 if unknown.
        capacity: `FARGATE` or `FARGATE_SPOT`; empty for other capacity.
    """

    run_id: str
    flow: str = ""
    project: str = ""
    labels: FrozenSet[str] = frozenset()
    units: int = 0
    capacity: str = ""

    @property
    def vcpus(self) -> float:
        """The same in vCPUs."""
        return self.units / _UNITS_PER_VCPU


class Taken(NamedTuple):
    """A run that is taken.

    Attributes:
        demand: What it takes.
        rank: Orders runs that are taken: those that run, then claims by their time.
    """

    demand: Demand
    rank: Tuple[bool, str, str]


def waiting_line(limit: Limit) -> str:
    """What the log of a run says while it waits for a limit."""
    return f"Waiting for other runs to end: the limit {limit} is reached"


_WAITING_LINE = re.compile(
    r"Waiting for other runs to end: the limit "
    r"(?P<kind>\w+)(?:=(?P<name>.+))?:(?P<most>\d+(?:\.\d+)?) is reached"
)


def limit_in(line: str) -> Optional[Limit]:
    """The limit that a `waiting_line` names; None for another line."""
    found = _WAITING_LINE.match(line)
    if found is None or found["kind"] not in [each.value for each in Kind]:
        return None
    return Limit(Kind(found["kind"]), found["name"] or "", float(found["most"]))


class Use(NamedTuple):
    """The use of one limit.

    Attributes:
        limit: The limit.
        used: How much of it is taken, runs or vCPUs.
        waiting: How many runs wait for it, as far as the agent has seen.
        since: When the start of the first of them was due, in seconds since 1970; None
            if no run waits.
    """

    limit: Limit
    used: float
    waiting: int = 0
    since: Optional[float] = None


# -- Who may go --------------------------------------------------------------------


class Admission(NamedTuple):
    """Which of the runs that wait may be claimed.

    Attributes:
        admitted: Ids of runs.
        blocked: The full limits of each other run, by its id.
        used: How much of each limit is taken, by its position, admitted runs included.
    """

    admitted: List[str]
    blocked: Dict[str, List[Limit]]
    used: List[float]


def admit(
    limits: Sequence[Limit],
    taken: Iterable[Demand],
    waiting: Iterable[Demand],
    patient: AbstractSet[str] = frozenset(),
) -> Admission:
    """Decide which runs may be claimed now; the earliest first.

    A run that waits for vCPUs alone keeps later runs from taking them, or a large one
    would wait for ever. A run that has been the first for long, see `patient`, keeps
    what is free of one limit while it waits for another.

    Args:
        limits: The limits.
        taken: The runs that are taken.
        waiting: The runs that are due, in the order of their start.
        patient: Ids of runs that keep what is free.
    """
    used = totals(limits, taken)
    found = Admission([], {}, used)
    for demand in waiting:
        amounts = [limit.amount(demand) for limit in limits]
        full = [
            index
            for index, (limit, amount) in enumerate(zip(limits, amounts))
            if amount and used[index] + amount > limit.most
        ]
        if full:
            found.blocked[demand.run_id] = [limits[index] for index in full]
        else:
            found.admitted.append(demand.run_id)
        if not full or demand.run_id in patient:
            for index in set(range(len(limits))).difference(full):
                used[index] += amounts[index]
        elif not is_too_large(limits, demand):
            _keep_vcpus(limits, full, used)
    return found


def _keep_vcpus(
    limits: Sequence[Limit], full: Sequence[int], used: List[float]
) -> None:
    """Leave nothing of vCPUs for later runs, if a run waits for nothing else."""
    if all(limits[index].kind is Kind.VCPUS for index in full):
        for index in full:
            used[index] = max(used[index], limits[index].most)


def is_too_large(limits: Iterable[Limit], demand: Demand) -> Optional[Limit]:
    """The limit that a run exceeds by itself, so that it can never start; or None."""
    return next(
        (
            limit
            for limit in limits
            if limit.kind is Kind.VCPUS and limit.amount(demand) > limit.most
        ),
        None,
    )


def totals(limits: Sequence[Limit], taken: Iterable[Demand]) -> List[float]:
    """How much of each limit is taken."""
    used = [0.0] * len(limits)
    for demand in taken:
        for index, limit in enumerate(limits):
            used[index] += limit.amount(demand)
    return used


class Verdict(enum.Enum):
    """What an agent does with a run that it has claimed."""

    GO = "launch it"
    WAIT = "count again: claims that rank behind it are about to be given back"
    BACK = "give it back"


def verdict(
    limits: Iterable[Limit], taken: Sequence[Taken], demand: Demand
) -> Tuple[Verdict, Optional[Limit]]:
    """Decide about a run that was claimed, by a count that was made after its claim.

    A run goes only if no limit is exceeded, itself included: then a run that is
    claimed later finds it taken. So no two agents can both exceed a limit, whatever
    their clocks say. The rank decides only which runs are given back.

    Args:
        limits: The limits.
        taken: The runs that are taken, this one included.
        demand: What this run takes.

    Returns:
        The verdict, and the limit that is exceeded.
    """
    ahead: Dict[str, Taken] = {each.demand.run_id: each for each in taken}
    own = ahead.get(demand.run_id)
    found: Tuple[Verdict, Optional[Limit]] = Verdict.GO, None
    for limit in limits:
        amount = limit.amount(demand)
        if not amount:
            continue
        others = [each for each in taken if each.demand.run_id != demand.run_id]
        if amount + sum(limit.amount(each.demand) for each in others) <= limit.most:
            continue
        before = [each for each in others if own is None or each.rank < own.rank]
        if amount + sum(limit.amount(each.demand) for each in before) > limit.most:
            return Verdict.BACK, limit
        found = Verdict.WAIT, limit
    return found


# -- Options and files -------------------------------------------------------------

_NAMED = (Kind.FLOW, Kind.LABEL, Kind.PROJECT)


def parse(text: str) -> Limit:
    """The limit that an option says.

    Args:
        text: `N`, `flow=NAME:N`, `label=NAME:N` or `project=NAME:N`.

    Raises:
        ConfigurationError: if it is none of these.
    """
    kind, equals, rest = text.partition("=")
    name, colon, most = rest.rpartition(":")
    if not equals:
        return _limit(text, Kind.TOTAL.value, "", text)
    if kind in [each.value for each in _NAMED] and not (colon and name):
        raise ConfigurationError(
            f"{quoted(text)} does not say how many; use {kind}=NAME:N",
            code="invalid-limit",
        )
    return _limit(text, kind, name or rest, most)


def _limit(text: str, kind: str, name: str, most: Any) -> Limit:
    known = [each.value for each in _NAMED] + ([] if name else [Kind.TOTAL.value])
    if kind not in known:
        raise ConfigurationError(
            f"unknown kind {quoted(kind)} of limit in {quoted(text)}; use N, "
            "flow=NAME:N, label=NAME:N or project=NAME:N",
            code="unknown-limit",
        )
    is_text = isinstance(most, str) and most.isdecimal() and len(most) < 10
    is_number = isinstance(most, int) and not isinstance(most, bool)
    if not (is_text or is_number) or not 0 <= int(most) <= _MOST:
        raise ConfigurationError(
            f"{quoted(most)} in {quoted(text)} is not a number of runs, 0 to {_MOST}",
            code="invalid-limit",
        )
    return Limit(Kind(kind), name, float(int(most)))


def parse_file(content: Mapping[str, Any]) -> Tuple[Limit, ...]:
    """The limits in a file: `total: N`, and mappings of names to N by kind.

    Raises:
        ConfigurationError: if a kind is unknown, or a limit is not a number.
    """
    return tuple(_in_file(content))


def _in_file(content: Mapping[str, Any]) -> Iterator[Limit]:
    for kind, value in content.items():
        if kind == Kind.TOTAL.value:
            yield _limit(f"total: {value}", kind, "", value)
        elif not isinstance(value, Mapping):
            _limit(f"{kind}: {value}", str(kind), "-", 0)  # an unknown kind, first
            raise ConfigurationError(
                f"{kind} must be a mapping of names to numbers of runs",
                code="invalid-limit",
            )
        else:
            for name, most in value.items():
                if name in ("", None):
                    raise ConfigurationError(
                        f"a name is missing in {kind}", code="invalid-limit"
                    )
                yield _limit(f"{kind}: {name}: {most}", str(kind), str(name), most)


def merged(limits: Iterable[Limit]) -> Tuple[Limit, ...]:
    """Limits, each once.

    Raises:
        ConfigurationError: if one stands there twice with different values.
    """
    found: Dict[Tuple[Kind, str], Limit] = {}
    for limit in limits:
        before = found.setdefault((limit.kind, limit.name), limit)
        if before != limit:
            raise ConfigurationError(
                f"the limit {limit.what} is given twice, as {before.most:g} and as "
                f"{limit.most:g}; remove one of them",
                code="conflicting-limits",
            )
    return tuple(found.values())


def of_vcpus(most: float, capacity: str = "") -> Limit:
    """A limit of vCPUs, of all tasks or of those on one kind of capacity."""
    return Limit(Kind.VCPUS, capacity, most)


def vcpu_limits(most: Union[SupportsFloat, str, None]) -> Tuple[Limit, ...]:
    """The limits that `--max-vcpus` says; those of `quota` are known later.

    Raises:
        ConfigurationError: if it is neither `quota` nor a number.
    """
    if most is None or most == QUOTA:
        return ()
    try:
        number = float(most)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise ConfigurationError(
            f"--max-vcpus: {quoted(str(most))} is neither {QUOTA!r} nor a number of "
            "vCPUs, 0 or more",
            code="invalid-limit",
        )
    return (of_vcpus(number),)
