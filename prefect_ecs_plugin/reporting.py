"""Everything the agent tells Prefect about a run.

Telling is housekeeping: nothing here raises, and what could not be said is said in
the agent's own log. Only `mark_submitted` decides anything, namely whether the run
is ours to launch.
"""

from __future__ import annotations

import logging
import threading
from typing import Any, Callable, Dict, List, Mapping

import pendulum
from prefect.engine.state import Failed, Submitted

from .api import AgentClient
from .waiting import Pause, Steps

#: Prefect's words for "somebody has submitted this run", from its API's state lock.
_TAKEN = "State update failed"

#: The types of state that wait for their start time.
_SCHEDULED = frozenset(("Scheduled", "Retrying", "Resume", "Paused"))

#: Seconds for which lines of many runs are collected into one request, and how many.
_COLLECT, _AT_ONCE = 0.25, 200


class Reporter:
    """Talks to the Prefect API about flow runs.

    Args:
        client: The client of the API.
        name: The agent's name, which signs its log lines.
        logger: The agent's own log.
        start: Starts steps, for what need not be said at once.
    """

    def __init__(
        self,
        client: AgentClient,
        name: str,
        logger: logging.Logger,
        start: Callable[[Steps[None]], None],
    ) -> None:
        self._client = client
        self._logger = logger
        self._log = LogWriter(client, name, logger, start)
        self._submitted = Submitted(message="Submitted for execution").serialize()
        self.log = self._log.write

    # -- Taking a run -------------------------------------------------------------

    def mark_submitted(self, row: Mapping[str, Any]) -> bool:
        """Take a run and the task runs whose retry is due.

        Args:
            row: The run as the API gave it.

        Returns:
            Whether the run is ours. It is not if another agent was faster, or if
            the API could not be reached, in which case it stays in the queue.
        """
        try:
            return self._take(row)
        except Exception as error:  # of any kind; the run is then not ours to launch
            self._logger.error(
                "Flow run %s could not be marked Submitted and stays in the queue: %s",
                row["id"],
                error,
            )
            return False

    def _take(self, row: Mapping[str, Any]) -> bool:
        try:
            self._submit(row)
        except Exception as error:
            if _TAKEN not in str(error):
                raise
            # The lost answer to our own request looks like another agent's success.
            if not self._client.is_submitted_by_us(row["id"]):
                self._logger.debug("Flow run %s was taken by another agent", row["id"])
                return False
        return True

    def _submit(self, row: Mapping[str, Any]) -> None:
        state = row["serialized_state"]
        if state["type"] in _SCHEDULED:
            self._client.set_run_state(
                row["id"], row.get("version"), {**self._submitted, "state": state}
            )
        for task_run in row.get("task_runs") or ():
            state = task_run["serialized_state"]
            if state["type"] in _SCHEDULED:
                self._client.set_task_state(
                    task_run["id"],
                    task_run.get("version"),
                    {**self._submitted, "state": state},
                )

    # -- Telling how it went ------------------------------------------------------

    def mark_failed(self, row: Mapping[str, Any], message: str) -> None:
        """End a run as Failed, with a reason a person can act on."""
        self._log.write_now(row["id"], message, "ERROR")
        try:
            state = Failed(message=message).serialize()
            self._client.set_run_state(row["id"], row.get("version"), state)
        except Exception as error:
            self._logger.error(
                "Flow run %s could not be marked Failed: %s", row["id"], error
            )

    def heartbeat(self, run_id: str) -> None:
        """Tell the API that a run which waits is being looked after."""
        try:
            self._client.update_flow_run_heartbeat(run_id)
        except Exception as error:
            self._logger.warning(
                "The heartbeat of flow run %s could not be sent: %s", run_id, error
            )


class LogWriter:
    """Writes lines into the logs of runs, many with one request.

    Args:
        client: The client of the API.
        name: Who signs the lines.
        logger: The agent's own log.
        start: Starts the steps that write.
    """

    def __init__(
        self,
        client: AgentClient,
        name: str,
        logger: logging.Logger,
        start: Callable[[Steps[None]], None],
    ) -> None:
        self._client = client
        self._name = name
        self._logger = logger
        self._start = start
        self._lock = threading.Lock()
        self._lines: List[Dict[str, Any]] = []

    def write(self, run_id: str, message: str, level: str = "INFO") -> None:
        """Write a line into a run's log, soon.

        Args:
            run_id: The run.
            message: The line.
            level: DEBUG, INFO, WARNING, ERROR or CRITICAL.
        """
        with self._lock:
            self._lines.append(self._line(run_id, message, level))
            is_first = len(self._lines) == 1
        if is_first:
            self._start(self._collect())

    def write_now(self, run_id: str, message: str, level: str) -> None:
        """Write a line that must be there before anything else happens."""
        self._send([self._line(run_id, message, level)])

    def _line(self, run_id: str, message: str, level: str) -> Dict[str, Any]:
        return {
            "flow_run_id": run_id,
            "name": self._name,
            "timestamp": pendulum.now("UTC").isoformat(),
            "message": message,
            "level": level,
        }

    def _collect(self) -> Steps[None]:
        yield Pause(_COLLECT)
        with self._lock:
            lines, self._lines = self._lines, []
        for first in range(0, len(lines), _AT_ONCE):
            self._send(lines[first : first + _AT_ONCE])

    def _send(self, lines: List[Dict[str, Any]]) -> None:
        """Send lines; if the API refuses them, one by one, to lose only the bad one."""
        try:
            self._client.write_logs(lines)
        except Exception as error:
            if len(lines) > 1:
                for line in lines:
                    self._send([line])
            else:
                self._logger.warning(
                    "A line for flow run %s could not be written: %s",
                    lines[0]["flow_run_id"],
                    error,
                )


def seconds_until_start(row: Mapping[str, Any]) -> float:
    """How long until a run is due, in seconds; negative if it is late.

    A run that comes back for the retry of a task is Running and due at once.
    """
    text = (row["serialized_state"] or {}).get("start_time")
    if not text:
        return 0.0
    start: Any = pendulum.parse(text)
    return float((start - pendulum.now("UTC")).total_seconds())
