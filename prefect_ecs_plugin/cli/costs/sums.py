"""Stopped tasks, added up by flow, label or day. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple

from ...monitoring import costs, phases
from ...monitoring.costs import Cost
from ...observability.counters import Phase

#: By what tasks can be added up.
KINDS = ("flow", "label", "day")

#: The row of runs without a label, and of runs whose flow is not known.
NO_LABEL, NO_FLOW = "(no label)", "(unknown)"

#: The three parts of a task's time; AWS bills the last two.
_PARTS: Mapping[str, Tuple[Phase, ...]] = {
    "waiting": (Phase.WAITING, Phase.PROVISIONING),
    "pulling": (Phase.PULL,),
    "running": (Phase.START, Phase.RUN),
}


class Stopped(NamedTuple):
    """A task that has stopped.

    Attributes:
        task: Its id.
        at: When its line was written.
        flow: Its flow's name, with its project's before a slash; empty if unknown.
        labels: Its run's labels.
        seconds: How long each phase took.
        cost: What it used; None if it never pulled its image.
    """

    task: str
    at: datetime
    flow: str
    labels: Tuple[str, ...]
    seconds: Mapping[Phase, float]
    cost: Optional[Cost]


def stopped(line: str, at: datetime, run: Mapping[str, Any]) -> Optional[Stopped]:
    """The task that a line of a log is about; None if it is another line.

    Args:
        line: The line's message.
        at: When it was written.
        run: The `labels` of its run, and the names `flow` and `project`.
    """
    found = phases.read(line)
    if found is None:
        return None
    names = filter(None, (run.get("project"), run.get("flow")))
    labels = tuple(map(str, run.get("labels") or ()))
    task, seconds = found
    return Stopped(task, at, "/".join(names), labels, seconds, costs.read(line))


@dataclass
class Sum:
    """What some tasks used together.

    Attributes:
        tasks: How many they are.
        vcpu_hours: vCPUs times hours.
        gb_hours: GB of memory times hours.
        dollars: What those cost whose price is known.
        unpriced: How many used something and have no known price.
        seconds: How long they were waiting, pulling and running.
    """

    tasks: int
    vcpu_hours: float
    gb_hours: float
    dollars: float
    unpriced: int
    seconds: Mapping[str, float]

    @property
    def shares(self) -> Dict[str, float]:
        """The parts of their time from 0 to 1; all 0 without any."""
        whole = sum(self.seconds.values())
        return {
            part: taken / whole if whole else 0.0
            for part, taken in self.seconds.items()
        }


def total(tasks: Iterable[Stopped]) -> Sum:
    """What tasks used together."""
    found = list(tasks)
    used = [task.cost for task in found if task.cost]
    return Sum(
        tasks=len(found),
        vcpu_hours=sum(cost.vcpu_hours for cost in used),
        gb_hours=sum(cost.gb_hours for cost in used),
        dollars=sum(cost.dollars or 0.0 for cost in used),
        unpriced=sum(cost.dollars is None for cost in used),
        seconds={
            part: sum(task.seconds.get(each, 0.0) for task in found for each in which)
            for part, which in _PARTS.items()
        },
    )


def by(kind: str, tasks: Iterable[Stopped]) -> Dict[str, Sum]:
    """What tasks used, added up; the dearest first, and days in their order.

    Args:
        kind: One of `KINDS`. A task whose run has several labels counts for each.
        tasks: The tasks.
    """
    groups: Dict[str, List[Stopped]] = {}
    for task in tasks:
        for name in _names(kind, task):
            groups.setdefault(name, []).append(task)
    sums = {name: total(group) for name, group in sorted(groups.items())}
    if kind == "day":
        return sums
    dearest = sorted(sums.items(), key=lambda each: -each[1].vcpu_hours)
    return dict(sorted(dearest, key=lambda each: -each[1].dollars))


def _names(kind: str, task: Stopped) -> Tuple[str, ...]:
    if kind == "flow":
        return (task.flow or NO_FLOW,)
    if kind == "day":
        return (task.at.date().isoformat(),)
    return task.labels or (NO_LABEL,)
