"""What runs say: lines of log, and the artifacts of their tasks."""

from __future__ import annotations

from typing import Any, List, Mapping, Optional

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
