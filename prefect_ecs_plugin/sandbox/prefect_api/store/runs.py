"""Flow runs and task runs: how they come about, what states they take, their logs."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union

from ..errors import Refused
from ..names import flow_run_name as any_name
from ..states import (
    FINISHED,
    MAX_BYTES,
    RUNNING,
    SCHEDULED,
    simple,
    stored,
)
from ..tables import Row
from ..times import iso
from .queue import Queue
from .registration import Registration

LOCK = timedelta(seconds=30)
AUTO = "auto-scheduled:"


class Runs(Registration):
    """Runs and their states.

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
        self._task_run_ids: Dict[Tuple[str, str, int], str] = {}

    # ------------------------------------------------------------ creating

    def create_flow_run(
        self,
        flow_id: Optional[str] = None,
        version_group_id: Optional[str] = None,
        parameters: Optional[Mapping[str, Any]] = None,
        context: Optional[Mapping[str, Any]] = None,
        run_config: Optional[Mapping[str, Any]] = None,
        labels: Optional[List[str]] = None,
        scheduled_start_time: Union[str, datetime, None] = None,
        flow_run_name: Optional[str] = None,
        idempotency_key: Optional[str] = None,
        auto_scheduled: bool = False,
    ) -> str:
        """Adds a flow run, Scheduled, with a Pending task run for each of its tasks.

        What is not given comes from the flow group, then from the flow.

        Args:
            flow_id: the version of the flow to run.
            version_group_id: instead of flow_id: the group's version not archived.
            idempotency_key: a flow's run that has it already is returned instead.
            scheduled_start_time: now if not given.

        Returns:
            The run's id.

        Raises:
            Refused: no such flow, an archived one, or parameters that do not fit.
        """
        with self.transaction():
            flow = self._flow_to_run(flow_id, version_group_id)
            existing = self._run_with_key(flow, idempotency_key)
            if existing:
                return existing
            group = self.row("flow_group", flow["flow_group_id"])
            start = iso(scheduled_start_time or self.clock())
            run = self.insert(
                "flow_run",
                tenant_id=flow["tenant_id"],
                flow_id=flow["id"],
                name=flow_run_name or any_name(),
                version=0,
                labels=_labels(labels, run_config, group, flow),
                parameters=_parameters(parameters, group, flow),
                context=context or {},
                run_config=run_config or group["run_config"] or flow["run_config"],
                idempotency_key=idempotency_key,
                auto_scheduled=auto_scheduled,
                scheduled_start_time=start,
                times_resurrected=0,
            )
            self._begin(run, start)
            return str(run["id"])

    def _flow_to_run(self, flow_id: Optional[str], group_name: Optional[str]) -> Row:
        if flow_id:
            flow = self.row("flow", flow_id)
            if flow["archived"]:
                raise Refused(f"Flow {flow_id} is archived.")
            return flow
        for group in self.tables["flow_group"].having("name", [group_name]):
            for flow in self.tables["flow"].having("flow_group_id", [group["id"]]):
                if not flow["archived"]:
                    return flow
        raise Refused(f"Version group {group_name} has no flow that is not archived.")

    def _run_with_key(self, flow: Row, key: Optional[str]) -> Optional[str]:
        if key is None:
            return None
        for run in self.tables["flow_run"].having("idempotency_key", [key]):
            if run["flow_id"] == flow["id"]:
                return str(run["id"])
        return None

    def _begin(self, run: Row, start: str) -> None:
        pending = simple("Pending", "Flow run created.")
        self._record("flow_run", run, stored(pending, self.now()), version=0)
        for task in self.tables["task"].having("flow_id", [run["flow_id"]]):
            self._add_task_run(run, task, -1)
        scheduled = simple("Scheduled", "Flow run scheduled.", start_time=start)
        self._enter("flow_run", run, scheduled)

    def _add_task_run(self, run: Row, task: Row, map_index: int) -> Row:
        task_run = self.insert(
            "task_run",
            tenant_id=run["tenant_id"],
            flow_run_id=run["id"],
            task_id=task["id"],
            map_index=map_index,
            version=0,
            cache_key=task["cache_key"],
        )
        self._task_run_ids[run["id"], task["id"], map_index] = task_run["id"]
        pending = stored(simple("Pending", "Task run created."), self.now())
        self._record("task_run", task_run, pending, version=0)
        return task_run

    def delete_flow_run(self, flow_run_id: str) -> None:
        with self.transaction():
            self.delete("flow_run", self.row("flow_run", flow_run_id))

    def delete(self, table: str, row: Row) -> None:
        super().delete(table, row)
        if table == "flow_run":
            self._queue.remove(row["id"])
            self._locked_until.pop(row["id"], None)
        elif table == "task_run":
            self._waiting.pop(row["id"], None)
            key = (row["flow_run_id"], row["task_id"], row["map_index"])
            self._task_run_ids.pop(key, None)

    # ------------------------------------------------------------ schedules

    def schedule_flow_runs(self, flow_id: str, max_runs: int = 10) -> List[str]:
        """Creates the runs that are next on a flow's schedule, each only once.

        Args:
            max_runs: how many to look ahead; the real scheduler's is 10
                (https://docs.prefect.io/orchestration/concepts/services.html).

        Returns:
            The ids of the runs that stand in the schedule now.
        """
        from .schedules import upcoming

        with self.transaction():
            flow = self.row("flow", flow_id)
            schedule = self.row("flow_group", flow["flow_group_id"])["schedule"]
            schedule = schedule or flow["schedule"]
            if not schedule or not flow["is_schedule_active"] or flow["archived"]:
                return []
            return [
                self.create_flow_run(
                    flow_id,
                    parameters=event.parameters,
                    labels=event.labels,
                    scheduled_start_time=event.start,
                    idempotency_key=AUTO + iso(event.start),
                    auto_scheduled=True,
                )
                for event in upcoming(schedule, self.clock(), max_runs)
            ]

    def drop_auto_scheduled(self, flow: Row) -> None:
        """Removes the runs of a schedule that have not started."""
        for run in self.tables["flow_run"].having("flow_id", [flow["id"]]):
            if run["auto_scheduled"] and run["state"] == "Scheduled":
                self.delete("flow_run", run)

    # ------------------------------------------------------------ states

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

    # ------------------------------------------------------------ task runs

    def get_or_create_task_run_info(
        self, flow_run_id: str, task_id: str, map_index: Optional[int] = -1
    ) -> Row:
        """The task run of a task, or of one of a mapped task's children."""
        index = -1 if map_index is None else map_index
        with self.transaction():
            found = self._task_run_ids.get((flow_run_id, task_id, index))
            if found:
                return self.row("task_run", found)
            run, task = self.row("flow_run", flow_run_id), self.row("task", task_id)
            return self._add_task_run(run, task, index)

    def get_or_create_task_run(self, **key: Any) -> str:
        return str(self.get_or_create_task_run_info(**key)["id"])

    def set_flow_run_name(self, flow_run_id: str, name: str) -> None:
        with self.transaction():
            self.update("flow_run", self.row("flow_run", flow_run_id), name=name)

    def set_task_run_name(self, task_run_id: str, name: str) -> None:
        with self.transaction():
            self.update("task_run", self.row("task_run", task_run_id), name=name)

    # ------------------------------------------------------------ heartbeats

    def update_flow_run_heartbeat(self, flow_run_id: str) -> None:
        """The run lives, and so do its task runs that are running."""
        with self.transaction():
            now = self.now()
            self.update("flow_run", self.row("flow_run", flow_run_id), heartbeat=now)
            for task_run in self.tables["task_run"].having(
                "flow_run_id", [flow_run_id]
            ):
                if task_run["state"] in RUNNING:
                    self.update("task_run", task_run, heartbeat=now)

    def update_task_run_heartbeat(self, task_run_id: str) -> None:
        with self.transaction():
            task_run = self.row("task_run", task_run_id)
            self.update("task_run", task_run, heartbeat=self.now())

    # ------------------------------------------------------------ logs, artifacts

    def write_run_logs(self, logs: List[Mapping[str, Any]]) -> None:
        """Adds lines to the logs of flow runs, all of them or none.

        Raises:
            Refused: a line names a run that is not there, or none.
        """
        with self.transaction():
            runs = [self._run_of_log(log) for log in logs]
            for log, run in zip(logs, runs):
                self._write_log(log, run)

    def _run_of_log(self, log: Mapping[str, Any]) -> Row:
        run = self.tables["flow_run"].get(log.get("flow_run_id"))
        task_run_id = log.get("task_run_id")
        lost = task_run_id and not self.tables["task_run"].get(task_run_id)
        if run is None or lost:
            raise Refused("Foreign key violation.")
        return run

    def _write_log(self, log: Mapping[str, Any], run: Row) -> None:
        row = self.insert(
            "log",
            tenant_id=run["tenant_id"],
            flow_run_id=run["id"],
            task_run_id=log.get("task_run_id"),
            timestamp=log.get("timestamp") or self.now(),
            level=log.get("level") or "INFO",
            name=log.get("name"),
            message=log.get("message") or "",
            info=log.get("info"),
        )
        self._tell_log(row)

    def create_task_run_artifact(
        self,
        task_run_id: str,
        kind: str,
        data: Optional[Mapping[str, Any]] = None,
        tenant_id: Optional[str] = None,
    ) -> str:
        with self.transaction():
            task_run = self.row("task_run", task_run_id)
            row = self.insert(
                "task_run_artifact",
                tenant_id=tenant_id or task_run["tenant_id"],
                task_run_id=task_run_id,
                kind=kind,
                data=data,
            )
            return str(row["id"])

    def update_task_run_artifact(
        self, task_run_artifact_id: str, data: Optional[Mapping[str, Any]] = None
    ) -> None:
        with self.transaction():
            row = self.row("task_run_artifact", task_run_artifact_id)
            self.update("task_run_artifact", row, data=data)

    def delete_task_run_artifact(self, task_run_artifact_id: str) -> None:
        with self.transaction():
            row = self.row("task_run_artifact", task_run_artifact_id)
            self.delete("task_run_artifact", row)


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


def _labels(
    labels: Optional[List[str]],
    run_config: Optional[Mapping[str, Any]],
    group: Row,
    flow: Row,
) -> List[str]:
    """The labels given, else those of the run's own config, the group or the flow."""
    if labels is not None:
        return list(labels)
    if run_config is not None:
        return list(run_config.get("labels") or [])
    if group["labels"] is not None:
        return list(group["labels"])
    source = group["run_config"] or flow["run_config"] or flow["environment"] or {}
    return list(source.get("labels") or [])


def _parameters(
    given: Optional[Mapping[str, Any]], group: Row, flow: Row
) -> Dict[str, Any]:
    parameters = {**(group["default_parameters"] or {}), **(given or {})}
    known = {each["name"] for each in flow["parameters"]}
    required = {each["name"] for each in flow["parameters"] if each.get("required")}
    if required - parameters.keys():
        missing = sorted(required - parameters.keys())
        raise Refused(f"Required parameters are missing: {missing}")
    if parameters.keys() - known:
        raise Refused(f"Unknown parameters: {sorted(parameters.keys() - known)}")
    return parameters
