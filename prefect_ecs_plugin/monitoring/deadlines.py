"""When a task has taken too long, as its own times show. Pure.

A deadline is counted from what DescribeTasks says about the task, so it is the same for
an agent that was restarted meanwhile. The reason for a stop goes with StopTask, and ECS
shows it as the task's stoppedReason: `stop_reasons` has a row for each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Mapping, Optional

import pendulum

from ..errors import code_of
from ..flow_run import FLOW_CONTAINER, MAX_RUNTIME, seconds_in
from ..settings import DEFAULT_MAX_RUNTIME, DEFAULT_START_DEADLINE
from . import stop_reasons
from .decision import Task, never_started, stop_reason

#: The values of `lastStatus` of a task that has not started yet.
STARTING = frozenset({"PROVISIONING", "PENDING", "ACTIVATING"})


@dataclass(frozen=True)
class Deadlines:
    """How long tasks may take.

    Attributes:
        start: Seconds from a task's creation until it has to be RUNNING; 0 for any.
        max_runtime: Seconds for which a task may run, unless its own environment says
            otherwise; 0 for any.
    """

    start: float = DEFAULT_START_DEADLINE
    max_runtime: float = DEFAULT_MAX_RUNTIME

    def of(self, task: Task) -> float:
        """When a task is to be stopped, in seconds since 1970; infinite for never."""
        status, limit, since = task.get("lastStatus"), 0.0, None
        if status in STARTING:
            limit, since = self.start, seconds(task.get("createdAt"))
        elif status == "RUNNING":
            limit, since = self._runtime_of(task), seconds(task.get("startedAt"))
        return since + limit if limit and since else math.inf

    def reason_to_stop(self, task: Task) -> str:
        """Why a task is to be stopped that is past its deadline.

        Returns:
            The `reason` for StopTask; empty for a task that is to be left: its flow may
            have begun although the task is not RUNNING, as one with sidecars may.
        """
        if task.get("lastStatus") == "RUNNING":
            limit = self._runtime_of(task)
            return f"Ran for longer than {limit:g} s ({MAX_RUNTIME} or --max-runtime)"
        if not never_started(task):
            return ""
        return (
            f"Not RUNNING {self.start:g} s after its creation (--start-deadline): "
            f"{phase(task)}"
        )

    def _runtime_of(self, task: Task) -> float:
        """Seconds for which a task may run; 0 for any."""
        overrides: Mapping[str, Any] = task.get("overrides") or {}
        for container in overrides.get("containerOverrides") or ():
            if container.get("name") != FLOW_CONTAINER:
                continue
            for entry in container.get("environment") or ():
                if entry.get("name") == MAX_RUNTIME:
                    own = seconds_in(entry.get("value"))
                    return self.max_runtime if own is None else own
        return self.max_runtime


def phase(task: Task) -> str:
    """The phase that a task hangs in which has not started."""
    if task.get("pullStoppedAt"):
        return f"it is {task.get('lastStatus')}, and its image has been pulled"
    if task.get("pullStartedAt"):
        return f"it is {task.get('lastStatus')}, and its image pull has not ended"
    return f"it is {task.get('lastStatus')}, and no image pull has begun"


def was_ended_by_stop(task: Optional[Task], row: Mapping[str, Any]) -> bool:
    """Whether a run ended only because its task was stopped for its runtime.

    A flow that gets a signal may report Cancelled or Failed. A state that was set
    before the stop is the flow's own.

    Args:
        task: As described; None if ECS does not know it any more.
        row: The run with the fields of `AgentClient.states_of`.
    """
    if task is None or row["state"] not in ("Cancelled", "Failed"):
        return False
    if stop_reason(task) is not stop_reasons.MAX_RUNTIME:
        return False
    state = row.get("serialized_state") or {}
    if code_of(state.get("message")) == stop_reasons.MAX_RUNTIME.code:
        return False
    stopped, set_at = seconds(task.get("stoppingAt")), row.get("state_timestamp")
    moment: Any = pendulum.parse(set_at) if set_at else None
    return bool(stopped and moment) and moment.timestamp() >= stopped


def seconds(moment: Any) -> Optional[float]:
    """A time of a described task in seconds since 1970; None if it has none."""
    return moment.timestamp() if isinstance(moment, datetime) else None
