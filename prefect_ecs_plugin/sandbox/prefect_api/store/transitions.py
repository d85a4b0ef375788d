"""The states of runs: who may set them, what a run is like afterwards."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any, Dict, List, Mapping, Optional

from ..errors import Refused
from ..states import FINISHED, MAX_BYTES, RUNNING, SCHEDULED, simple, stored
from ..tables import Row
from .core import Core
from .queue import Queue

LOCK = timedelta(seconds=30)


class Transitions(Core):
    """From state to state.

    Args:
        locks_submitted: whether a run that became Submitted refuses to become so again
            for 30 seconds. One server process does that, in memory; with several
            replicas of the server there is no such guard.
    """

    def __init__(self, *, locks_submitted: bool = True, **more: Any) -> None:
        super().__init__(**more)
        self.locks_submitted = locks_submitted
        self._locked_until: Dict[str, datetime] = {}
        self._queue = Queue()
        # Task runs whose state has a start time: the retries that are waiting.
        self._waiting: Dict[str, Row] = {}

    def set_flow_run_states(
        self, states: List[Mapping[str, Any]], agent_id: Optional[str] = None
    ) -> Dict[str, Any]:
        """Each run enters the state given for it; `version` is not looked at.

        Args:
            states: mappings with flow_run_id and state.
            agent_id: the agent that asks; kept on runs that become Submitted.

        Raises:
            Refused: at the first state that is refused; those before it stand.
        """
        with self.transaction():
            for each in states:
                self._set_flow_run_state(each["flow_run_id"], each["state"], agent_id)
            return _succeeded([each["flow_run_id"] for each in states])

    def set_flow_run_state(
        self, flow_run_id: str, state: Mapping[str, Any], agent_id: Optional[str] = None
    ) -> None:
        """`set_flow_run_states` for one run."""
        self.set_flow_run_states(
            [{"flow_run_id": flow_run_id, "state": state}], agent_id
        )

    def _set_flow_run_state(
        self, run_id: str, state: Mapping[str, Any], agent_id: Optional[str]
    ) -> None:
        run = self.tables["flow_run"].get(run_id)
        if run is None:
            raise Refused(f"State update failed for flow run ID {run_id}")
        _check_size(state)
        state = stored(state, self.now())
        if state["type"] == "Submitted":
            self._lock_submitted(run_id)
            if agent_id is not None:
                self.update("flow_run", run, agent_id=agent_id)
        self._enter("flow_run", run, state)

    def _lock_submitted(self, run_id: str) -> None:
        now = self.clock()
        if self.locks_submitted and self._locked_until.get(run_id, now) > now:
            raise Refused("State update failed: this run has already been submitted.")
        self._locked_until[run_id] = now + LOCK

    def set_task_run_states(self, states: List[Mapping[str, Any]]) -> Dict[str, Any]:
        with self.transaction():
            for each in states:
                task_run = self.tables["task_run"].get(each["task_run_id"])
                if task_run is None:
                    run_id = each["task_run_id"]
                    raise Refused(f"State update failed for task run ID {run_id}")
                _check_size(each["state"])
                self._enter("task_run", task_run, each["state"])
            return _succeeded([each["task_run_id"] for each in states])

    def cancel_flow_run(self, flow_run_id: str) -> Dict[str, Any]:
        """A run that runs is Cancelling; one that does not yet is Cancelled at once."""
        with self.transaction():
            run = self.row("flow_run", flow_run_id)
            if run["state"] in RUNNING:
                cancelling = simple("Cancelling", "Flow run is being cancelled.")
                self._enter("flow_run", run, cancelling)
            elif run["state"] not in FINISHED:
                cancelled = simple("Cancelled", "Flow run was cancelled.")
                self._enter("flow_run", run, cancelled)
            return {"state": run["state"]}

    def _enter(self, table: str, run: Row, state: Mapping[str, Any]) -> None:
        """The run is in that state from now on."""
        kept = stored(state, self.now())
        self._record(table, run, kept, version=run["version"] + 1)
        if table == "flow_run":
            self._tell_state(run)

    def _record(
        self, table: str, run: Row, state: Mapping[str, Any], version: int
    ) -> None:
        now, kind = self.now(), state["type"]
        start = state.get("start_time") if kind in SCHEDULED else None
        common = {"version": version, "state": kind, "serialized_state": state}
        self.insert(
            f"{table}_state",
            tenant_id=run["tenant_id"],
            timestamp=now,
            start_time=start,
            message=state["message"],
            result=state["_result"],
            **{f"{table}_id": run["id"]},
            **common,
        )
        self.update(
            table,
            run,
            state_timestamp=now,
            state_start_time=start,
            state_message=state["message"],
            state_result=state["_result"],
            **common,
            **_times(run, kind, now),
        )
        self._index(table, run)

    def _index(self, table: str, run: Row) -> None:
        """Keeps what is due where it is found without looking at every run."""
        if table == "flow_run" and run["state"] == "Scheduled":
            self._queue.add(run["id"], run["state_start_time"])
        elif table == "flow_run":
            self._queue.remove(run["id"])
        elif run["state_start_time"] is not None:
            self._waiting[run["id"]] = run
        else:
            self._waiting.pop(run["id"], None)

    def delete(self, table: str, row: Row) -> None:
        super().delete(table, row)
        if table == "flow_run":
            self._queue.remove(row["id"])
            self._locked_until.pop(row["id"], None)
        elif table == "task_run":
            self._waiting.pop(row["id"], None)


def _times(run: Row, kind: str, now: str) -> Dict[str, Any]:
    """The first time it ran, when it ended, and that somebody has it in hand."""
    times: Dict[str, Any] = {"end_time": now if kind in FINISHED else None}
    if kind in RUNNING or kind == "Submitted":
        times["heartbeat"] = now
    if kind in RUNNING and run["start_time"] is None:
        times["start_time"] = now
    return times


def _succeeded(ids: List[str]) -> Dict[str, Any]:
    return {
        "states": [{"id": each, "status": "SUCCESS", "message": None} for each in ids]
    }


def _check_size(state: Any) -> None:
    # The length of str() is within a few per cent of JSON's, and far cheaper.
    if len(str(state)) > MAX_BYTES * 0.8 and len(json.dumps(state)) > MAX_BYTES:
        raise Refused("State payload is too large.")
