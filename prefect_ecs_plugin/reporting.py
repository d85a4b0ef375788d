"""Everything the agent tells Prefect about a run.

Telling is housekeeping: nothing here raises, and what could not be said is said in
the agent's own log. Only `mark_submitted` decides anything, namely whether the run
is ours to launch.
"""

from __future__ import annotations

import logging
from typing import Any, Mapping

import pendulum
from prefect.client import Client
from prefect.engine.state import Failed, State, Submitted
from prefect.serialization.state import StateSchema

#: Prefect's words for "another agent was faster", from its API's state lock.
_TAKEN = "State update failed"


class Reporter:
    """Talks to the Prefect API about flow runs.

    Args:
        client: Prefect's client.
        name: The agent's name, which signs its log lines.
        logger: The agent's own log.
    """

    def __init__(self, client: Client, name: str, logger: logging.Logger) -> None:
        self._client = client
        self._name = name
        self._logger = logger

    def mark_submitted(self, row: Mapping[str, Any]) -> bool:
        """Take a run and the task runs whose retry is due.

        Args:
            row: The run as the API's `flow_run` query gave it.

        Returns:
            Whether the run is ours. It is not if another agent was faster, or if
            the API could not be reached, in which case it stays in the queue.
        """
        try:
            self._submit(row)
        except Exception as error:  # of any kind; the run is then not ours to launch
            self._explain_not_taken(row["id"], error)
            return False
        return True

    def _submit(self, row: Mapping[str, Any]) -> None:
        state = StateSchema().load(row["serialized_state"])
        if state.is_scheduled():
            self._client.set_flow_run_state(
                flow_run_id=row["id"],
                version=row.get("version"),
                state=_submitted(state),
            )
        for task_run in row.get("task_runs") or ():
            task_state = StateSchema().load(task_run["serialized_state"])
            if task_state.is_scheduled():
                self._client.set_task_run_state(
                    task_run_id=task_run["id"],
                    version=task_run.get("version"),
                    state=_submitted(task_state),
                )

    def _explain_not_taken(self, run_id: str, error: Exception) -> None:
        if _TAKEN in str(error):
            self._logger.debug("Flow run %s was taken by another agent", run_id)
        else:
            self._logger.error(
                "Flow run %s could not be marked Submitted and stays in the queue: %s",
                run_id,
                error,
            )

    def mark_failed(self, row: Mapping[str, Any], message: str) -> None:
        """End a run as Failed, with a reason a person can act on."""
        self.log(row["id"], message, "ERROR")
        try:
            self._client.set_flow_run_state(
                flow_run_id=row["id"],
                version=row.get("version"),
                state=Failed(message=message),
            )
        except Exception as error:
            self._logger.error(
                "Flow run %s could not be marked Failed: %s", row["id"], error
            )

    def log(self, run_id: str, message: str, level: str = "INFO") -> None:
        """Write a line into a run's log."""
        line = {
            "flow_run_id": run_id,
            "name": self._name,
            "message": message,
            "level": level,
        }
        try:
            self._client.write_run_logs([line])
        except Exception as error:
            self._logger.warning(
                "A line for flow run %s could not be written: %s", run_id, error
            )

    def heartbeat(self, run_id: str) -> None:
        """Tell the API that a run which waits is being looked after."""
        try:
            self._client.update_flow_run_heartbeat(run_id)
        except Exception as error:
            self._logger.warning(
                "The heartbeat of flow run %s could not be sent: %s", run_id, error
            )


def _submitted(state: State) -> State:
    return Submitted(message="Submitted for execution", state=state)


def seconds_until_start(row: Mapping[str, Any]) -> float:
    """How long until a run is due, in seconds; negative if it is late.

    A run that comes back for the retry of a task is Running and due at once.
    """
    text = (row["serialized_state"] or {}).get("start_time")
    if not text:
        return 0.0
    start: Any = pendulum.parse(text)
    return float((start - pendulum.now("UTC")).total_seconds())
