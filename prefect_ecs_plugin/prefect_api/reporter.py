"""Reports to Prefect about runs: final states, log lines, heartbeats.

Reporting is best-effort: a failure never affects a launched task. A final state is sent
until the API has taken it. Log lines are kept in an outage, the newest 2,000 of them. A
heartbeat that cannot be sent is left out.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from datetime import datetime, timezone
from typing import Any, Callable, Dict, Iterable, List, Mapping

import pendulum
from prefect.engine.state import Cancelled, Failed, State

from ..errors import reason
from ..observability.log_formats import log_context
from ..observability.outage_log import OutageLog, retry_until_success
from ..observability.redaction import redact_text
from ..scheduling.steps import Interrupted, Pause, Steps, as_steps
from .client import AgentClient
from .run_states import RunStates

#: Prefect's words for a state that its API's state lock refuses.
_TAKEN = "State update failed"

#: Seconds for which lines of many runs are collected into one request, and how many.
_COLLECT, _AT_ONCE = 0.25, 200

#: Lines kept while the API does not take any; the agent drops the oldest.
_KEPT = 2000

#: Whether a run is as it was when its end was decided, given its row.
IsAsSeen = Callable[[Mapping[str, Any]], bool]

#: Takes secrets out of a text about a run, given the run's id.
Redact = Callable[[str, str], str]

STATES = "The states of flow runs cannot be set at the Prefect API [states-not-set]"
LOGS = "Lines cannot be written into the logs of flow runs [logs-not-written]"
HEARTBEATS = "The heartbeats of waiting flow runs cannot be sent [heartbeats-not-sent]"


class Reporter:
    """Sets states of flow runs, writes into their logs and sends their heartbeats.

    Many log lines are written with one request. A line that the API refuses is reported
    in the agent's log; the others are written.

    Args:
        client: The client of the API.
        states: Reads the states of runs.
        name: The agent's name, which signs its log lines.
        logger: The agent's own log.
        outages: Logs what fails.
        start: Starts the steps that write log lines.
        redact: Redacts text about a run, given the run's id.
    """

    def __init__(
        self,
        *,
        client: AgentClient,
        states: RunStates,
        name: str,
        logger: logging.Logger,
        outages: OutageLog,
        start: Callable[[Steps[None]], None],
        redact: Redact = lambda text, run_id: redact_text(text),
    ) -> None:
        self._client = client
        self._states = states
        self._name = name
        self._logger = logger
        self._outages = outages
        self._start = start
        self._redact = redact
        self._lock = threading.Lock()
        self._lines: List[Dict[str, Any]] = []
        self._is_collecting = False

    def mark_failed(
        self, run_id: str, is_as_seen: IsAsSeen, message: str, log: str = ""
    ) -> Steps[bool]:
        """End a run as Failed, with a reason that the user can act on.

        Args:
            run_id: The run.
            is_as_seen: Whether it is still as it was when this was decided, given its
                row. If not, another process deals with it, and it is left alone.
            message: One line, for its state.
            log: The line for its log; the same line, if empty.

        Returns:
            False if the run has changed.
        """
        failed = Failed(message=self._redact(message, run_id))
        return self._end(run_id, is_as_seen, failed, log or message, "ERROR")

    def mark_cancelled(
        self, run_id: str, is_as_seen: IsAsSeen, message: str
    ) -> Steps[bool]:
        """End a run that was being cancelled as its task ended; see `mark_failed`."""
        cancelled = Cancelled(message=message)
        return self._end(run_id, is_as_seen, cancelled, message, "WARNING")

    def _end(
        self, run_id: str, is_as_seen: IsAsSeen, state: State, log: str, level: str
    ) -> Steps[bool]:
        """Set a final state until the API has taken it, or the run has changed.

        The run is read before each attempt: in an outage the server may have it started
        again, and a running run must not become Failed.
        """
        is_logged, version = False, 0
        about = log_context(run_id)

        def attempt() -> Steps[bool]:
            nonlocal is_logged, version
            now = yield from self._states.of(run_id)
            if now is None or not is_as_seen(now):
                self._logger.debug(
                    "Flow run %s is %s and has changed, so it is not made %s",
                    run_id,
                    now["state"] if now else "gone",
                    type(state).__name__,
                    extra=about,
                )
                return False
            if not is_logged:
                is_logged = True
                self.log_now(run_id, log, level)
            version = int(now.get("version") or 0)
            try:
                self._client.set_run_state(run_id, None, state.serialize())
            except Exception as error:
                if _TAKEN not in str(error):
                    raise
                self._logger.debug(
                    "The API keeps flow run %s: %s", run_id, error, extra=about
                )
            return True

        is_set = yield from retry_until_success(attempt, self._outages, STATES)
        if is_set:
            yield from retry_until_success(
                lambda: self._restore_other(run_id, version, state),
                self._outages,
                STATES,
            )
        return is_set

    def _restore_other(self, run_id: str, version: int, state: State) -> Steps[None]:
        """Set a state again that was set between the agent's look and its own state.

        The server ignores versions. The agent's state would hide that the flow has
        ended by itself, or that the user has started the run anew.
        """
        now = yield from self._states.of(run_id)
        if now is None or int(now.get("version") or 0) <= version + 1:
            return
        later = self._client.states_after(run_id, version)
        if len(later) < 2:
            return
        overwritten, ours = (each["serialized_state"] for each in later[-2:])
        kind = type(state).__name__
        if (ours.get("type"), ours.get("message")) != (kind, state.message):
            return  # the other one is the latest
        other = overwritten.get("type")
        self._logger.warning(
            "Flow run %s became %s at the moment at which this agent made it %s; the "
            "agent makes it %s again [state-restored]",
            *(run_id, other, kind, other),
            extra=log_context(run_id),
        )
        self._client.set_run_state(run_id, None, overwritten)

    def heartbeats(self, run_ids: Iterable[str]) -> None:
        """Send heartbeats for runs that wait, so that the server leaves them alone."""
        try:
            self._client.send_heartbeats(run_ids)
        except Exception as error:
            self._outages.begin(HEARTBEATS, error)
        else:
            self._outages.end(HEARTBEATS)

    # -- Log lines ------------------------------------------------------------------

    def log(self, run_id: str, message: str, level: str = "INFO") -> None:
        """Write a line into a run's log, soon.

        Args:
            run_id: The run.
            message: The line.
            level: DEBUG, INFO, WARNING, ERROR or CRITICAL.
        """
        self._keep(self._line(run_id, message, level))

    def log_now(self, run_id: str, message: str, level: str) -> None:
        """Write a line before anything else happens; soon, if that fails."""
        line = self._line(run_id, message, level)
        try:
            self._client.write_logs([line])
        except Exception as error:
            if self._client.blames(error):
                self._report(line, error)
            else:
                self._outages.begin(LOGS, error)
                self._keep(line)

    def flush(self) -> None:
        """Write what has been collected, as far as the API takes it now."""
        try:
            self._write_collected()
        except Exception as error:
            self._outages.begin(LOGS, error)

    def _line(self, run_id: str, message: str, level: str) -> Dict[str, Any]:
        return {
            "flow_run_id": run_id,
            "name": self._name,
            "timestamp": datetime.fromtimestamp(time.time(), timezone.utc).isoformat(),
            "message": self._redact(message, run_id),
            "level": level,
        }

    def _keep(self, line: Dict[str, Any]) -> None:
        with self._lock:
            self._lines.append(line)
            del self._lines[:-_KEPT]
            is_first, self._is_collecting = not self._is_collecting, True
        if is_first:
            self._start(self._collect())

    def _collect(self) -> Steps[None]:
        """Write lines until there are none."""
        write = as_steps(self._write_collected)
        try:
            while self._has_lines():
                yield Pause(_COLLECT)
                yield from retry_until_success(write, self._outages, LOGS)
        except Interrupted:
            self.flush()

    def _has_lines(self) -> bool:
        with self._lock:
            self._is_collecting = bool(self._lines)
            return self._is_collecting

    def _write_collected(self) -> None:
        """Write all lines, oldest first, in smaller and smaller parts if refused."""
        size = _AT_ONCE
        while True:
            with self._lock:
                lines, self._lines = self._lines[:size], self._lines[size:]
            if not lines:
                return
            try:
                self._client.write_logs(lines)
            except Exception as error:
                is_refused = self._client.blames(error)
                if is_refused and len(lines) == 1:
                    self._report(lines[0], error)
                    continue
                with self._lock:
                    self._lines = [*lines, *self._lines][-_KEPT:]
                if not is_refused:
                    raise
                size = len(lines) // 2
            else:
                size = min(2 * size, _AT_ONCE)

    def _report(self, line: Mapping[str, Any], error: Exception) -> None:
        run_id = line["flow_run_id"]
        self._logger.warning(
            "Flow run %s: the Prefect API refuses the line %r for its log: %s. It is "
            "left out. [log-line-refused]",
            *(run_id, line["message"], reason(error)),
            extra=log_context(run_id),
        )


def seconds_until_start(row: Mapping[str, Any]) -> float:
    """How long until a run is due, in seconds; negative if it is late.

    A run that comes back for the retry of a task is Running and due at once, and so is
    one whose start time cannot be read.
    """
    try:
        return _timestamp((row["serialized_state"] or {})["start_time"]) - time.time()
    except (KeyError, TypeError, ValueError, AttributeError):
        return 0.0


@functools.lru_cache(maxsize=1000)  # a launch asks twice, and many runs start together
def _timestamp(start_time: str) -> float:
    start: Any = pendulum.parse(start_time)
    return float(start.timestamp())
