"""Everything the agent tells Prefect about a run.

Telling is housekeeping: it never costs a task that was launched. What must be said
(a run is taken, a run has failed) is said again until the API has heard it; what
need not (a log line, a heartbeat) is left out when it cannot be said.
"""

from __future__ import annotations

import logging
import threading
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

#: Prefect's words for a run that is submitted already, from its API's state lock.
_TAKEN = "State update failed"

#: Seconds for which lines of many runs are collected into one request, and how many.
_COLLECT, _AT_ONCE = 0.25, 200

#: Lines kept while the API does not take any; the oldest are dropped.
_KEPT = 2000

#: Whether a run is as it was when its end was decided, given its row.
IsAsSeen = Callable[[Mapping[str, Any]], bool]

#: Takes secrets out of a text about a run, given the run's id.
Redact = Callable[[str, str], str]

STATES = "The states of flow runs cannot be set at the Prefect API [states-not-set]"
LOGS = "Lines cannot be written into the logs of flow runs [logs-not-written]"
HEARTBEATS = "The heartbeats of waiting flow runs cannot be sent [heartbeats-not-sent]"


class Reporter:
    """Talks to the Prefect API about flow runs.

    Args:
        client: The client of the API.
        states: Asks it what became of runs.
        name: The agent's name, which signs its log lines.
        logger: The agent's own log.
        outages: Told what does not work.
        start: Starts steps, for what need not be said at once.
        redact: Takes secrets out of what is told about a run.
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
        self._logger = logger
        self._outages = outages
        self._redact = redact
        self._log = LogWriter(
            client=client,
            name=name,
            logger=logger,
            outages=outages,
            start=start,
            redact=redact,
        )
        self.log = self._log.write
        self.flush = self._log.flush

    # -- Telling how it went ------------------------------------------------------

    def mark_failed(
        self, run_id: str, is_as_seen: IsAsSeen, message: str, log: str = ""
    ) -> Steps[bool]:
        """End a run as Failed, with a reason a person can act on.

        Args:
            run_id: The run.
            is_as_seen: Whether it is still as it was when this was decided, given what
                the API says of it now. If not, another process deals with it, and it is
                left alone.
            message: One line, for its state.
            log: What its log says; the same line, if empty.

        Returns:
            False if the run was not so any more.
        """
        failed = Failed(message=self._redact(message, run_id))
        return (
            yield from self._end(run_id, is_as_seen, failed, log or message, "ERROR")
        )

    def mark_cancelled(
        self, run_id: str, is_as_seen: IsAsSeen, message: str
    ) -> Steps[bool]:
        """End a run that was being cancelled as its task ended; see `mark_failed`."""
        cancelled = Cancelled(message=message)
        return (yield from self._end(run_id, is_as_seen, cancelled, message, "WARNING"))

    def _end(
        self,
        run_id: str,
        is_as_seen: IsAsSeen,
        state: State,
        log: str,
        level: str,
    ) -> Steps[bool]:
        """Say it until the API has heard it, or the run went on without us.

        The run is looked at before each attempt: in an outage the server may have it
        started again, and a run that is at work must not become Failed.
        """
        is_logged, version = False, 0

        def attempt() -> Steps[bool]:
            nonlocal is_logged, version
            now = yield from self._states.of(run_id)
            if now is None or not is_as_seen(now):
                self._logger.debug(
                    "Flow run %s is %s and has changed, so it is not made %s",
                    run_id,
                    now["state"] if now else "gone",
                    type(state).__name__,
                    extra=log_context(run_id),
                )
                return False
            if not is_logged:
                is_logged = True
                self._log.write_now(run_id, log, level)
            version = int(now.get("version") or 0)
            self._set_state(run_id, state)
            return True

        is_set = yield from retry_until_success(attempt, self._outages, STATES)
        if is_set:
            yield from retry_until_success(
                lambda: self._keep_other(run_id, version, state), self._outages, STATES
            )
        return is_set

    def _keep_other(self, run_id: str, version: int, state: State) -> Steps[None]:
        """Put back a state that was set in the moment between a look and our state.

        The server ignores versions: our state would hide that the flow has ended by
        itself, or that a person has started the run anew.
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
        self._logger.warning(
            "Flow run %s became %s at the moment at which this agent made it %s; the "
            "agent makes it %s again [state-restored]",
            run_id,
            overwritten.get("type"),
            kind,
            overwritten.get("type"),
            extra=log_context(run_id),
        )
        self._client.set_run_state(run_id, None, overwritten)

    def _set_state(self, run_id: str, state: State) -> None:
        try:
            self._client.set_run_state(run_id, None, state.serialize())
        except Exception as error:
            if _TAKEN not in str(error):
                raise
            self._logger.debug(
                "The API keeps flow run %s: %s",
                run_id,
                error,
                extra=log_context(run_id),
            )

    def heartbeats(self, run_ids: Iterable[str]) -> None:
        """Tell the API that runs which wait are being looked after."""
        try:
            self._client.send_heartbeats(run_ids)
        except Exception as error:
            self._outages.begin(HEARTBEATS, error)
        else:
            self._outages.end(HEARTBEATS)


class LogWriter:
    """Writes lines into the logs of runs, many with one request.

    In an outage lines are kept, the newest 2,000 of them, and written when it is over.
    A line that the API refuses is reported in the agent's log; the others are written.

    Args:
        client: The client of the API.
        name: Who signs the lines.
        logger: The agent's own log.
        outages: Told what does not work.
        start: Starts the steps that write.
        redact: Takes secrets out of lines.
    """

    def __init__(
        self,
        *,
        client: AgentClient,
        name: str,
        logger: logging.Logger,
        outages: OutageLog,
        start: Callable[[Steps[None]], None],
        redact: Redact = lambda text, run_id: redact_text(text),
    ) -> None:
        self._client = client
        self._name = name
        self._logger = logger
        self._outages = outages
        self._start = start
        self._redact = redact
        self._lock = threading.Lock()
        self._lines: List[Dict[str, Any]] = []
        self._is_collecting = False

    def write(self, run_id: str, message: str, level: str = "INFO") -> None:
        """Write a line into a run's log, soon.

        Args:
            run_id: The run.
            message: The line.
            level: DEBUG, INFO, WARNING, ERROR or CRITICAL.
        """
        self._keep(self._line(run_id, message, level))

    def write_now(self, run_id: str, message: str, level: str) -> None:
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
            "timestamp": pendulum.now("UTC").isoformat(),
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
        try:
            while self._has_lines():
                yield Pause(_COLLECT)
                yield from retry_until_success(
                    as_steps(self._write_collected), self._outages, LOGS
                )
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
            lines = self._taken(size)
            if not lines:
                return
            try:
                self._client.write_logs(lines)
            except Exception as error:
                if not self._client.blames(error):
                    self._put_back(lines)
                    raise
                if len(lines) == 1:
                    self._report(lines[0], error)
                else:
                    self._put_back(lines)
                    size = len(lines) // 2
            else:
                size = min(2 * size, _AT_ONCE)

    def _taken(self, size: int) -> List[Dict[str, Any]]:
        with self._lock:
            lines = self._lines[:size]
            del self._lines[:size]
        return lines

    def _put_back(self, lines: List[Dict[str, Any]]) -> None:
        with self._lock:
            self._lines[:0] = lines
            del self._lines[:-_KEPT]

    def _report(self, line: Mapping[str, Any], error: Exception) -> None:
        run_id = line["flow_run_id"]
        self._logger.warning(
            "Flow run %s: the Prefect API refuses the line %r for its log: %s. It is "
            "left out. [log-line-refused]",
            run_id,
            line["message"],
            reason(error),
            extra=log_context(run_id),
        )


def seconds_until_start(row: Mapping[str, Any]) -> float:
    """How long until a run is due, in seconds; negative if it is late.

    A run that comes back for the retry of a task is Running and due at once, and so is
    one whose start time cannot be read.
    """
    try:
        start: Any = pendulum.parse((row["serialized_state"] or {})["start_time"])
        return float((start - pendulum.now("UTC")).total_seconds())
    except (KeyError, TypeError, ValueError):
        return 0.0
