"""The rows of the API and the rules by which they change; no HTTP, no GraphQL.

`Store` is built in layers, each a class on the one before:

    core          the clock, the lock, events
    transitions   the states of runs, and heartbeats
    runs          flow runs and task runs
    registration  logs and artifacts; tenants, projects, versions of flows
    services      agents and the queue, Lazarus and the zombie killer

Every mutation of the schema is a method of `Store` of the same name that takes the
fields of its input as keywords.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from .core import Clock, Event, LogWritten, StateChanged, Subscriber, utc_now
from .services import Services
from .transitions import HEARTBEAT, STATE, BetweenSteps, StepDone, StepHold
from .views import Agent, FlowRun, Log, State, TaskRun, view

__all__ = [
    "HEARTBEAT",
    "STATE",
    "Agent",
    "BetweenSteps",
    "Event",
    "FlowRun",
    "Log",
    "LogWritten",
    "State",
    "StateChanged",
    "StepDone",
    "StepHold",
    "Store",
    "Subscriber",
    "TaskRun",
]


class Store(Services):
    """All that the API knows, safe to read and change from any thread.

    It starts with one tenant, `default`.

    Args:
        locks_submitted, keeps_context: see `Transitions`.
        clock: gives the time in UTC; the system's if not given.
    """

    def __init__(
        self,
        *,
        locks_submitted: bool = True,
        keeps_context: bool = True,
        clock: Optional[Clock] = None,
    ) -> None:
        super().__init__(
            locks_submitted=locks_submitted,
            keeps_context=keeps_context,
            clock=clock or utc_now,
        )
        self.tenant_id = self.create_tenant(name="default", slug="default")

    # ------------------------------------------------------------ reading

    def flow_runs(self, *, state: Optional[str] = None) -> List[FlowRun]:
        """Frozen pictures of all flow runs, or of those in one state."""
        with self.transaction():
            table = self.tables["flow_run"]
            rows = table if state is None else table.having("state", [state])
            return [self._flow_run(row) for row in rows]

    def flow_run(self, flow_run_id: str) -> FlowRun:
        """A frozen picture of a flow run.

        Raises:
            Refused: there is none.
        """
        with self.transaction():
            return self._flow_run(self.row("flow_run", flow_run_id))

    def counts(self) -> Dict[str, int]:
        """How many flow runs are in each state; cheap, for those who wait."""
        with self.transaction():
            return self.tables["flow_run"].count("state")

    def states(self, flow_run_id: str) -> List[State]:
        """The states that a flow run was in, first first, Pending included."""
        return [view(State, row) for row in self._of("flow_run_state", flow_run_id)]

    def logs(self, flow_run_id: str) -> List[Log]:
        """The lines of a flow run's log by their times."""
        logs = [view(Log, row) for row in self._of("log", flow_run_id)]
        return sorted(logs, key=lambda log: log.timestamp)

    def task_runs(self, flow_run_id: str) -> List[TaskRun]:
        """A flow run's task runs, mapped children after all others."""
        with self.transaction():
            rows = self._of("task_run", flow_run_id)
            slugs = {
                row["id"]: self.row("task", row["task_id"])["slug"] for row in rows
            }
            return [view(TaskRun, row, task_slug=slugs[row["id"]]) for row in rows]

    def agents(self) -> List[Agent]:
        """The agents that have registered."""
        with self.transaction():
            return [view(Agent, row) for row in self.tables["agent"]]

    def _of(self, table: str, flow_run_id: str) -> List[Dict[str, Any]]:
        with self.transaction():
            self.row("flow_run", flow_run_id)
            return self.tables[table].having("flow_run_id", [flow_run_id])

    def _flow_run(self, row: Dict[str, Any]) -> FlowRun:
        return view(FlowRun, row, flow_name=self.row("flow", row["flow_id"])["name"])
