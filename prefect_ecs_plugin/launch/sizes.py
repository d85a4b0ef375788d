"""How many CPU units the tasks of runs ask for, and on which capacity.

A run's launch record says both, so that every agent can add them up. The record is
written before the run's template is read. A run whose template or named definition asks
for more than was known is given back, and what it asks for is known from then on.
"""

from __future__ import annotations

import threading
from typing import Any, Mapping, NamedTuple, Optional

from ..kwargs import asks_for_spot
from ..launch_record import LaunchRecord
from ..limits import ON_DEMAND, SPOT
from ..lru import LeastRecentlyUsed
from ..run_config import ECSRun
from ..validation import rules

#: How many templates and names of definitions are remembered.
_REMEMBERED = 2000

#: The capacity of tasks on Fargate by their capacity provider.
_FARGATE = (ON_DEMAND, SPOT)


class Size(NamedTuple):
    """What a task asks for.

    Attributes:
        units: CPU units; 0 if unknown.
        capacity: `FARGATE`, `FARGATE_SPOT`, or empty for other capacity.
    """

    units: int = 0
    capacity: str = ""


class Sizes:
    """Knows what runs ask for; threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._learned: LeastRecentlyUsed[int] = LeastRecentlyUsed(_REMEMBERED)

    def of(
        self,
        run_config: ECSRun,
        merged: Mapping[str, Any],
        template: Mapping[str, Any],
        record: LaunchRecord,
    ) -> Size:
        """The size of a run's task, as far as it is known before its template is read.

        Args:
            run_config: The run's.
            merged: The agent's and the run's run_task kwargs.
            template: The agent's own.
            record: The launch.
        """
        asked = run_config.cpu or (merged.get("overrides") or {}).get("cpu")
        with self._lock:
            learned = self._learned.get(_key(run_config))
        units = record.cpu or rules.cpu_units(asked) or learned or 0
        if not units and not _name_of(run_config):
            units = _units_of(run_config.task_definition or template)
        return Size(units, capacity_of(merged, record.on_demand))

    def check(
        self,
        run_config: ECSRun,
        definition: Mapping[str, Any],
        request: Mapping[str, Any],
        record: LaunchRecord,
    ) -> bool:
        """Whether a task asks for no more than its launch record says; learns it.

        Args:
            run_config: The run's.
            definition: Its definition, rendered or described.
            request: The RunTask request.
            record: The launch.
        """
        asked = (request.get("overrides") or {}).get("cpu")
        units = rules.cpu_units(asked) or _units_of(definition)
        if units <= record.task_cpu:
            return True
        with self._lock:
            self._learned.set(_key(run_config), units)
        return False


def capacity_of(merged: Mapping[str, Any], on_demand: bool) -> str:
    """The capacity of Fargate that a run asks for; empty for other capacity."""
    if asks_for_spot(merged) and not on_demand:
        return SPOT
    strategy = merged.get("capacityProviderStrategy") or []
    asked = {each.get("capacityProvider") for each in strategy}
    is_fargate = asked <= set(_FARGATE) if asked else merged.get("launchType")
    return ON_DEMAND if is_fargate in (True, "FARGATE") else ""


def _name_of(run_config: ECSRun) -> Optional[str]:
    return run_config.task_definition_arn or run_config.task_definition_path


def _key(run_config: ECSRun) -> str:
    """What names the runs whose tasks have one size."""
    return _name_of(run_config) or str(hash(repr(run_config.task_definition)))


def _units_of(definition: Mapping[str, Any]) -> int:
    """A definition's own CPU units, or those of its containers."""
    units = rules.cpu_units(definition.get("cpu"))
    if units:
        return units
    containers = definition.get("containerDefinitions") or ()
    return sum(rules.cpu_units(each.get("cpu")) or 0 for each in containers)
