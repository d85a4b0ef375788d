"""What a Prefect server does to runs by itself; here only when it is called.

The rules are those of the server's own code (Lazarus every 10 minutes, the zombie
killer every 2), see https://docs.prefect.io/orchestration/concepts/services.html.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Dict, Iterator, List, Optional, Sequence, Set

from ..states import simple
from ..tables import Row
from ..times import later, text
from .registration import Registration

FETCHED = 75
RETURNED = 25


class Agents(Registration):
    """Registering, and the queue."""

    def register_agent(
        self,
        type: str,
        tenant_id: Optional[str] = None,
        name: Optional[str] = None,
        labels: Optional[List[str]] = None,
        agent_config_id: Optional[str] = None,
        core_version: Optional[str] = None,
    ) -> str:
        """The agent's id: the same again for the same type, name, labels and config."""
        tenant_id = tenant_id or self.tenant_id
        with self.transaction():
            same = {
                "tenant_id": tenant_id,
                "agent_config_id": agent_config_id,
                "type": type,
                "name": name,
                "labels": sorted(labels or []),
            }
            self.row("tenant", tenant_id)
            for row in self.tables["agent"]:
                if all(row[column] == value for column, value in same.items()):
                    self.update("agent", row, core_version=core_version)
                    return str(row["id"])
            row = self.insert("agent", core_version=core_version, **same)
            return str(row["id"])

    def add_agent_config(
        self, settings: Dict[str, Any], name: Optional[str] = None
    ) -> str:
        """Keeps settings for agents that start with --agent-config-id."""
        with self.transaction():
            row = self.insert(
                "agent_config", tenant_id=self.tenant_id, name=name, settings=settings
            )
            return str(row["id"])

    def get_runs_in_queue(
        self,
        tenant_id: Optional[str] = None,
        before: Optional[str] = None,
        labels: Optional[Sequence[str]] = None,
        agent_id: Optional[str] = None,
    ) -> Dict[str, List[str]]:
        """The runs that an agent with these labels should take, first first.

        75 are fetched, those whose labels do not fit are left out, 25 are given.

        Args:
            before: runs that start later are not looked at; now if not given.
            labels: the agent's. A run's must be among them, and a run that has none
                goes to no agent that has some.
            agent_id: the agent, whose sign of life this is.
        """
        mine = set(labels or [])
        with self.transaction():
            agent = self.tables["agent"].get(agent_id)
            if agent:
                self.update("agent", agent, last_queried=self.now())
            fetched = list(islice(self._due(before or self.now()), FETCHED))
            fitting = [row["id"] for row in fetched if _fits(row, mine)]
            return {"flow_run_ids": fitting[:RETURNED]}

    def _due(self, before: str) -> Iterator[Row]:
        """Scheduled runs by start time, then Running ones that have a due retry."""
        for run_id in self._queue.due(before):
            yield self.row("flow_run", run_id)
        retrying = {
            task_run["flow_run_id"]
            for task_run in self._waiting.values()
            if task_run["state_start_time"] <= before
        }
        for run in self.tables["flow_run"].having("id", sorted(retrying)):
            if run["state"] == "Running":
                yield run


def _fits(run: Row, agent_labels: Set[str]) -> bool:
    wanted = set(run["labels"] or [])
    return wanted <= agent_labels and bool(wanted) == bool(agent_labels)


STALE = timedelta(minutes=10)

# Task runs that keep Lazarus away. Submitted and Queued ones do not.
_AT_WORK = frozenset(
    {"Scheduled", "Paused", "Resume", "Retrying", "Running", "Cancelling"}
)


class Services(Agents):
    """Lazarus and the zombie killer, each run once, at a time that may be passed in."""

    def run_lazarus(
        self,
        now: Optional[datetime] = None,
        stale_after: timedelta = STALE,
        attempts: int = 10,
    ) -> List[str]:
        """Schedules again the flow runs that were taken and that nothing works on.

        Those are Submitted or Running, have had no heartbeat for `stale_after`, and
        none of their task runs is scheduled or running. After `attempts` times they
        fail. They are due at once by the store's clock, whatever `now` is.

        Args:
            now: the time by which heartbeats are judged; the clock's if not given.
            stale_after: how old a heartbeat may be.
            attempts: how often a flow run is scheduled again.

        Returns:
            The ids of the flow runs that it changed.
        """
        with self.transaction():
            runs = self.tables["flow_run"].having("state", ["Submitted", "Running"])
            newest = text((now or self.clock()) - stale_after)
            lost = [
                run
                for run in runs
                if _is_stale(run, newest)
                and self._allows(run, "heartbeat_enabled", "lazarus_enabled")
                and not self._is_at_work(run)
            ]
            for run in lost:
                self._resurrect(run, attempts)
            return [run["id"] for run in lost]

    def _is_at_work(self, run: Row) -> bool:
        task_runs = self.tables["task_run"].having("flow_run_id", [run["id"]])
        return any(task_run["state"] in _AT_WORK for task_run in task_runs)

    def _allows(self, run: Row, *settings: str) -> bool:
        """Whether the flow's group has not switched any of these settings off."""
        flow = self.row("flow", run["flow_id"])
        group: Any = self.row("flow_group", flow["flow_group_id"])["settings"] or {}
        return all(group.get(name) is not False for name in settings)

    def _resurrect(self, run: Row, attempts: int) -> None:
        times = run["times_resurrected"] + 1
        if times > attempts:
            message = f"Lazarus gave the run up after {attempts} attempts."
            self._enter("flow_run", run, simple("Failed", message))
            return
        self.update("flow_run", run, times_resurrected=times)
        message = f"Lazarus scheduled the run again, attempt {times} of {attempts}."
        # Between two real visits of Lazarus the lock has long run out.
        self._locked_until.pop(run["id"], None)
        self._enter("flow_run", run, simple("Scheduled", message))

    def run_zombie_killer(
        self, now: Optional[datetime] = None, stale_after: timedelta = STALE
    ) -> List[str]:
        """Ends what runs in flow runs without a heartbeat.

        Task runs that are Running are Retrying after the task's retry_delay, while the
        flow run is Running and they have been Retrying less than max_retries times;
        else they are Failed. Flow runs that are Cancelling are Failed.

        Args:
            now: the time by which heartbeats are judged; the clock's if not given.
            stale_after: how old a flow run's heartbeat may be. A task run's own
                heartbeat is not looked at.

        Returns:
            The ids of the task runs and flow runs that it changed.
        """
        with self.transaction():
            newest = text((now or self.clock()) - stale_after)
            task_runs = [
                task_run
                for task_run in self.tables["task_run"].having("state", ["Running"])
                if self._is_dead(self.row("flow_run", task_run["flow_run_id"]), newest)
            ]
            for task_run in task_runs:
                self._retry_or_fail(task_run)
            runs = [
                run
                for run in self.tables["flow_run"].having("state", ["Cancelling"])
                if self._is_dead(run, newest)
            ]
            for run in runs:
                message = "The flow run sent no heartbeat while it was cancelled."
                self._enter("flow_run", run, simple("Failed", message))
            return [row["id"] for row in [*task_runs, *runs]]

    def _is_dead(self, run: Row, newest: str) -> bool:
        return _is_stale(run, newest) and self._allows(run, "heartbeat_enabled")

    def _retry_or_fail(self, task_run: Row) -> None:
        run = self.row("flow_run", task_run["flow_run_id"])
        task = self.row("task", task_run["task_id"])
        states = self.tables["task_run_state"].having("task_run_id", [task_run["id"]])
        retries = sum(state["state"] == "Retrying" for state in states)
        message = "The flow run sent no heartbeat while the task ran."
        if run["state"] == "Running" and retries < (task["max_retries"] or 0):
            start = later(self.now(), float(task["retry_delay"] or 0))
            state = simple("Retrying", message, start_time=start, run_count=retries + 1)
        else:
            state = simple("Failed", message)
        self._set_task_run_state(task_run["id"], state)


def _is_stale(run: Row, newest: str) -> bool:
    """Whether the last heartbeat is not younger; one that never was is not stale."""
    return run["heartbeat"] is not None and run["heartbeat"] <= newest
