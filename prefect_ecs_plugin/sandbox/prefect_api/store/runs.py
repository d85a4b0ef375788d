"""Flow runs and task runs: how they come about, are named, live and go."""

from __future__ import annotations

import random
from datetime import datetime
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple, Union

from ..errors import Refused
from ..states import simple, stored
from ..tables import Row
from ..times import iso
from .transitions import Transitions

AUTO = "auto-scheduled:"


class Runs(Transitions):
    """Runs and what is said of them besides their states."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        # By flow run, task and map index, which are together unique.
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
            run = self.insert(
                "flow_run",
                tenant_id=flow["tenant_id"],
                flow_id=flow["id"],
                name=flow_run_name or _any_name(),
                version=0,
                labels=_labels(labels, run_config, group, flow),
                parameters=_parameters(parameters, group, flow),
                context=context or {},
                run_config=run_config or group["run_config"] or flow["run_config"],
                idempotency_key=idempotency_key,
                auto_scheduled=auto_scheduled,
                scheduled_start_time=iso(scheduled_start_time or self.clock()),
                times_resurrected=0,
            )
            self._begin(run)
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

    def _begin(self, run: Row) -> None:
        start = run["scheduled_start_time"]
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
        if table == "task_run":
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
                for event in _upcoming(schedule, self.clock(), max_runs)
            ]

    def drop_auto_scheduled(self, flow: Row) -> None:
        """Removes the runs of a schedule that have not started."""
        for run in self.tables["flow_run"].having("flow_id", [flow["id"]]):
            if run["auto_scheduled"] and run["state"] == "Scheduled":
                self.delete("flow_run", run)

    # ------------------------------------------------------------ task runs, names

    def get_or_create_task_run_info(
        self, flow_run_id: str, task_id: str, map_index: Optional[int] = -1
    ) -> Row:
        """The task run of a task, or of one of a mapped task's children."""
        index = -1 if map_index is None else map_index
        with self.transaction():
            found = self._task_run_ids.get((flow_run_id, task_id, index))
            if found:
                return dict(self.row("task_run", found))
            run, task = self.row("flow_run", flow_run_id), self.row("task", task_id)
            return dict(self._add_task_run(run, task, index))

    def get_or_create_task_run(self, **key: Any) -> str:
        return str(self.get_or_create_task_run_info(**key)["id"])

    def set_flow_run_name(self, flow_run_id: str, name: str) -> None:
        self._update_by_id("flow_run", flow_run_id, name=name)

    def set_task_run_name(self, task_run_id: str, name: str) -> None:
        self._update_by_id("task_run", task_run_id, name=name)


class Event(NamedTuple):
    """A start that a schedule asks for, and what its clock adds to the run."""

    start: datetime
    parameters: Dict[str, Any]
    labels: Optional[List[str]]


def _upcoming(schedule: Mapping[str, Any], after: datetime, count: int) -> List[Event]:
    """The next starts of a serialized schedule.

    Prefect is imported here and not above: the store does not need it otherwise.
    """
    import pendulum
    from prefect.serialization.schedule import ScheduleSchema

    events = (
        ScheduleSchema()
        .load(dict(schedule))
        .next(n=count, after=pendulum.instance(after), return_events=True)
    )
    return [
        Event(event.start_time, dict(event.parameter_defaults or {}), event.labels)
        for event in events
    ]


def _labels(
    given: Optional[List[str]],
    run_config: Optional[Mapping[str, Any]],
    group: Row,
    flow: Row,
) -> List[str]:
    """The labels given, else those of the run's own config, the group or the flow."""
    if given is not None:
        return list(given)
    if run_config is not None:
        return list(run_config.get("labels") or [])
    if group["labels"] is not None:
        return list(group["labels"])
    source = group["run_config"] or flow["run_config"] or flow["environment"] or {}
    return list(source.get("labels") or [])


def _parameters(
    given: Optional[Mapping[str, Any]], group: Row, flow: Row
) -> Dict[str, Any]:
    """The ones given over the group's.

    Raises:
        Refused: the flow does not know one, or needs one that is missing.
    """
    values = {**(group["default_parameters"] or {}), **(given or {})}
    known = {each["name"] for each in flow["parameters"]}
    required = {each["name"] for each in flow["parameters"] if each.get("required")}
    if required - values.keys():
        missing = sorted(required - values.keys())
        raise Refused(f"Required parameters are missing: {missing}")
    if values.keys() - known:
        raise Refused(f"Unknown parameters: {sorted(values.keys() - known)}")
    return values


_HOW = """
    amber brisk calm clear deft early even fair fleet frank glad keen kind lively
    lucid mellow neat nimble patient plain prompt quiet ready sound spry steady
    sunny swift tidy warm willing wry
"""
_WHO = """
    auk badger bittern crane curlew dipper dunlin egret finch gannet godwit grebe
    heron ibis jackdaw kestrel lapwing linnet marten merlin nuthatch otter petrel
    pipit plover raven shrike siskin stoat teal tern wren
"""


def _any_name() -> str:
    """Something to say aloud, such as `quiet-heron`; not unique."""
    return "-".join(random.choice(words.split()) for words in (_HOW, _WHO))
