"""Logs and artifacts; tenants, projects, and the versions of a flow."""

from __future__ import annotations

import base64
import gzip
import json
import uuid
from typing import Any, Dict, List, Mapping, Optional

from ..errors import Refused
from ..tables import Row
from .runs import Runs


class Logs(Runs):
    """Logs and artifacts."""

    def write_run_logs(self, logs: List[Mapping[str, Any]]) -> None:
        """Adds lines to the logs of flow runs, all of them or none.

        Raises:
            Refused: a line names a run that is not there, or none.
        """
        with self.transaction():
            runs = [self._run_of_log(log) for log in logs]
            for log, run in zip(logs, runs):
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

    def _run_of_log(self, log: Mapping[str, Any]) -> Row:
        run = self.tables["flow_run"].get(log.get("flow_run_id"))
        task_run_id = log.get("task_run_id")
        lost = task_run_id and not self.tables["task_run"].get(task_run_id)
        if run is None or lost:
            raise Refused("Foreign key violation.")
        return run

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
        self._update_by_id("task_run_artifact", task_run_artifact_id, data=data)

    def delete_task_run_artifact(self, task_run_artifact_id: str) -> None:
        with self.transaction():
            row = self.row("task_run_artifact", task_run_artifact_id)
            self.delete("task_run_artifact", row)


# What a flow group starts with; the runner asks for the first one.
_SETTINGS = {
    "heartbeat_enabled": True,
    "lazarus_enabled": True,
    "version_locking_enabled": False,
}


class Registration(Logs):
    """What `prefect create project`, `prefect register` and Flow.register ask for."""

    # ------------------------------------------------------------ tenants, projects

    def create_tenant(self, name: str, slug: str) -> str:
        with self.transaction():
            if self.tables["tenant"].having("slug", [slug]):
                raise Refused("Uniqueness violation.")
            row = self.insert("tenant", name=name, slug=slug)
            return str(row["id"])

    def create_project(
        self,
        name: str,
        description: Optional[str] = None,
        tenant_id: Optional[str] = None,
    ) -> str:
        tenant_id = tenant_id or self.tenant_id
        with self.transaction():
            self.row("tenant", tenant_id)
            same_name = self.tables["project"].having("name", [name])
            if any(row["tenant_id"] == tenant_id for row in same_name):
                raise Refused("Uniqueness violation.")
            row = self.insert(
                "project", name=name, description=description, tenant_id=tenant_id
            )
            return str(row["id"])

    def delete_project(self, project_id: str) -> None:
        """Removes a project with its flows and their runs."""
        with self.transaction():
            self.delete("project", self.row("project", project_id))

    # ------------------------------------------------------------ flows

    def create_flow_from_compressed_string(
        self, serialized_flow: str, **more: Any
    ) -> str:
        """`create_flow`, with the flow as base64 of gzip of JSON."""
        try:
            flow = json.loads(gzip.decompress(base64.b64decode(serialized_flow)))
        except (ValueError, OSError, EOFError) as error:
            raise Refused(f"Unable to decompress the flow: {error}") from error
        return self.create_flow(serialized_flow=flow, **more)

    def create_flow(
        self,
        project_id: str,
        serialized_flow: Mapping[str, Any],
        set_schedule_active: bool = True,
        version_group_id: Optional[str] = None,
        idempotency_key: Optional[str] = None,
        description: Optional[str] = None,
    ) -> str:
        """Adds a version of a flow and archives the others of its version group.

        Args:
            project_id: the project; flows of one name in it share a version group
                unless one is given.
            serialized_flow: what Flow.serialize gave, with or without its tasks.
            set_schedule_active: whether its schedule creates runs from now on.
            version_group_id: names the group of versions.
            idempotency_key: if the latest version was registered with the same key,
                that one is returned.
            description: of this version.

        Returns:
            The flow's id.
        """
        with self.transaction():
            project = self.row("project", project_id)
            group = self._group(project, serialized_flow, version_group_id)
            latest = self._latest(group)
            last_key = group["settings"].get("idempotency_key")
            if latest and idempotency_key and last_key == idempotency_key:
                return str(latest["id"])
            flow = self._add_version(project, group, serialized_flow, description)
            settings = {**group["settings"], "idempotency_key": idempotency_key}
            self.update("flow_group", group, settings=settings)
            self._add_tasks(flow, serialized_flow.get("tasks") or [])
            self._add_edges(flow, serialized_flow.get("edges") or [])
            if set_schedule_active:
                self.set_schedule_active(flow["id"])
            return str(flow["id"])

    def register_tasks(
        self, flow_id: str, serialized_tasks: List[Mapping[str, Any]]
    ) -> None:
        with self.transaction():
            self._add_tasks(self.row("flow", flow_id), serialized_tasks)

    def register_edges(
        self, flow_id: str, serialized_edges: List[Mapping[str, Any]]
    ) -> None:
        with self.transaction():
            self._add_edges(self.row("flow", flow_id), serialized_edges)

    def archive_flow(self, flow_id: str) -> None:
        """Ends a version: its scheduled runs that have not started are dropped."""
        with self.transaction():
            flow = self.row("flow", flow_id)
            self.update("flow", flow, archived=True)
            self.drop_auto_scheduled(flow)

    def unarchive_flow(self, flow_id: str) -> None:
        self._update_by_id("flow", flow_id, archived=False)

    def _group(
        self, project: Row, flow: Mapping[str, Any], version_group_id: Optional[str]
    ) -> Row:
        """The group given, else that of the project's flow of that name, else a new."""
        if version_group_id is None:
            for other in self.tables["flow"].having("name", [flow["name"]]):
                if other["project_id"] == project["id"]:
                    return self.row("flow_group", other["flow_group_id"])
        name = version_group_id or str(uuid.uuid4())
        for group in self.tables["flow_group"].having("name", [name]):
            return group
        return self.insert(
            "flow_group",
            tenant_id=project["tenant_id"],
            name=name,
            settings=dict(_SETTINGS),
            default_parameters={},
        )

    def _latest(self, group: Row) -> Optional[Row]:
        versions = self.tables["flow"].having("flow_group_id", [group["id"]])
        return max(versions, key=lambda flow: int(flow["version"]), default=None)

    def _add_version(
        self,
        project: Row,
        group: Row,
        flow: Mapping[str, Any],
        description: Optional[str],
    ) -> Row:
        latest = self._latest(group)
        for other in self.tables["flow"].having("flow_group_id", [group["id"]]):
            if not other["archived"]:
                self.archive_flow(other["id"])
        return self.insert(
            "flow",
            tenant_id=project["tenant_id"],
            project_id=project["id"],
            flow_group_id=group["id"],
            version_group_id=group["name"],
            version=latest["version"] + 1 if latest else 1,
            archived=False,
            is_schedule_active=False,
            settings=group["settings"],
            **_columns_of(flow, description),
        )

    def _add_tasks(self, flow: Row, tasks: List[Mapping[str, Any]]) -> None:
        known = {row["slug"] for row in self._tasks(flow)}
        for task in tasks:
            if task.get("slug") not in known:
                self.insert(
                    "task",
                    tenant_id=flow["tenant_id"],
                    flow_id=flow["id"],
                    mapped=False,
                    **_columns_of_task(task),
                )

    def _add_edges(self, flow: Row, edges: List[Mapping[str, Any]]) -> None:
        by_slug = {row["slug"]: row for row in self._tasks(flow)}
        for edge in edges:
            ends = [
                by_slug.get((edge.get(end) or {}).get("slug"))
                for end in ("upstream_task", "downstream_task")
            ]
            if ends[0] is None or ends[1] is None:
                raise Refused(f"Edge between tasks that the flow lacks: {edge}")
            mapped = bool(edge.get("mapped"))
            self.insert(
                "edge",
                tenant_id=flow["tenant_id"],
                flow_id=flow["id"],
                upstream_task_id=ends[0]["id"],
                downstream_task_id=ends[1]["id"],
                key=edge.get("key"),
                mapped=mapped,
            )
            if mapped:
                self.update("task", ends[1], mapped=True)

    def _tasks(self, flow: Row) -> List[Row]:
        return self.tables["task"].having("flow_id", [flow["id"]])

    # ------------------------------------------------------------ flow groups

    def set_flow_group_labels(
        self, flow_group_id: str, labels: Optional[List[str]] = None
    ) -> None:
        """Labels for the group's runs instead of the flow's; None: the flow's again."""
        self._update_by_id("flow_group", flow_group_id, labels=labels)

    def set_flow_group_default_parameters(
        self, flow_group_id: str, parameters: Dict[str, Any]
    ) -> None:
        self._update_by_id("flow_group", flow_group_id, default_parameters=parameters)

    def set_flow_group_run_config(
        self, flow_group_id: str, run_config: Optional[Mapping[str, Any]] = None
    ) -> None:
        self._update_by_id("flow_group", flow_group_id, run_config=run_config)

    # ------------------------------------------------------------ schedules

    def set_schedule_active(self, flow_id: str) -> None:
        """The flow's schedule creates runs, the next few of them at once."""
        with self.transaction():
            flow = self.row("flow", flow_id)
            self.update("flow", flow, is_schedule_active=True)
            self.schedule_flow_runs(flow_id)

    def set_schedule_inactive(self, flow_id: str) -> None:
        """No more runs; those that have not started are dropped."""
        with self.transaction():
            flow = self.row("flow", flow_id)
            self.update("flow", flow, is_schedule_active=False)
            self.drop_auto_scheduled(flow)


def _columns_of(flow: Mapping[str, Any], description: Optional[str]) -> Dict[str, Any]:
    return {
        "name": flow["name"],
        "description": description or flow.get("description"),
        "core_version": flow.get("__version__"),
        "environment": flow.get("environment"),
        "run_config": flow.get("run_config"),
        "storage": flow.get("storage"),
        "parameters": flow.get("parameters") or [],
        "schedule": flow.get("schedule"),
        "serialized_flow": flow,
    }


def _columns_of_task(task: Mapping[str, Any]) -> Dict[str, Any]:
    same = ("name", "slug", "type", "description", "auto_generated", "cache_key")
    return {
        **{column: task.get(column) for column in (*same, "retry_delay", "trigger")},
        "max_retries": task.get("max_retries") or 0,
        "tags": task.get("tags") or [],
    }
