"""Agents, and which runs each of them is given."""

from __future__ import annotations

from itertools import islice
from typing import Any, Dict, Iterator, List, Optional, Sequence, Set

from ..tables import Row
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
