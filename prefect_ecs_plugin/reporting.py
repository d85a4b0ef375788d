"""Everything the agent tells Prefect about a run.

Telling is housekeeping: it never costs a task that was launched. What must be said
(a run is taken, a run has failed) is said again until the API has heard it; what
need not (a log line, a heartbeat) is left out when it cannot be said.
"""

from __future__ import annotations

import logging
import threading
import uuid
from typing import Any, Callable, Dict, Iterable, List, Mapping

import pendulum
from prefect.engine.state import Cancelled, Failed, Scheduled, State, Submitted

from .agent_log import of_run
from .api import AgentClient, refuses_content
from .errors import reason
from .flow_run import HOLDER_KEY, LAUNCH_KEY, TAKEN, holder_of
from .masking import hidden
from .run_states import RunStates
from .troubles import Troubles, insist
from .waiting import Interrupted, Pause, Steps, at_once

#: Prefect's words for "somebody has submitted this run", from its API's state lock.
_TAKEN = "State update failed"

#: The types of state that wait for their start time.
_SCHEDULED = frozenset(("Scheduled", "Retrying", "Resume", "Paused"))

#: Seconds for which lines of many runs are collected into one request, and how many.
_COLLECT, _AT_ONCE = 0.25, 200

#: Lines kept while the API does not take any; the oldest are dropped.
_KEPT = 2000

#: Seconds ahead of which a run that was returned starts again: for 30 s the API
#: refuses that it becomes Submitted once more.
_RETURN_DELAY = 35

STATES = "The states of flow runs cannot be told to the Prefect API"
LOGS = "Lines cannot be written into the logs of flow runs"
HEARTBEATS = "The heartbeats of waiting flow runs cannot be sent"


class Reporter:
    """Talks to the Prefect API about flow runs.

    Args:
        client: The client of the API.
        states: Asks it what became of runs.
        name: The agent's name, which signs its log lines.
        logger: The agent's own log.
        troubles: Told what does not work.
        start: Starts steps, for what need not be said at once.
        hide: Takes secrets out of what is told.
    """

    def __init__(
        self,
        client: AgentClient,
        states: RunStates,
        name: str,
        logger: logging.Logger,
        troubles: Troubles,
        start: Callable[[Steps[None]], None],
        hide: Callable[[str], str] = hidden,
    ) -> None:
        self._client = client
        self._states = states
        self._logger = logger
        self._troubles = troubles
        self._hide = hide
        self._log = LogWriter(client, name, logger, troubles, start, hide)
        self._me = uuid.uuid4().hex
        self._submitted = Submitted(
            message="Submitted for execution", context={**TAKEN, HOLDER_KEY: self._me}
        ).serialize()
        self.log = self._log.write
        self.flush = self._log.flush

    # -- Taking a run, and giving it back -----------------------------------------

    def take(self, row: Mapping[str, Any], is_old: bool = False) -> Steps[bool]:
        """Mark a run Submitted, and the task runs whose retry is due.

        Args:
            row: The run as the API gave it.
            is_old: Whether that is so long ago that another agent may have taken it,
                and its flow may even have ended.

        Returns:
            Whether the run is ours. It is not if another agent was faster, or if
            it was cancelled meanwhile.
        """
        look = is_old

        def attempt() -> Steps[bool]:
            nonlocal look
            yield from ()
            look_first, look = look, True
            return self._try_to_take(row, look_first)

        return (yield from insist(attempt, self._troubles, STATES))

    def _try_to_take(self, row: Mapping[str, Any], look: bool) -> bool:
        if not look or self._is_free(row):
            try:
                self._submit(row)
                return True
            except Exception as error:
                if _TAKEN not in str(error):
                    raise
        return self._is_ours(row)

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

    def _is_free(self, row: Mapping[str, Any]) -> bool:
        """Whether a run is still in the state in which we saw it."""
        now = self._client.state_of(row["id"])
        return bool(
            now.get("version") == row.get("version")
            and now.get("state") == row.get("state")
        )

    def _is_ours(self, row: Mapping[str, Any]) -> bool:
        """The lost answer to our own request looks like another agent's success."""
        if self._is_held(self._client.state_of(row["id"])):
            return True
        self._logger.debug(
            "Flow run %s was taken by another agent",
            row["id"],
            extra=of_run(row["id"]),
        )
        return False

    def _is_held(self, now: Mapping[str, Any]) -> bool:
        """Whether a run is Submitted by this very process, as far as its state says.

        A state that does not say it was kept by an API that leaves context out.
        """
        return (
            now.get("state") == "Submitted"
            and now.get("agent_id") == self._client.agent_id
            and holder_of(now) in (None, self._me)
        )

    def give_back(self, run_id: str, launch: str) -> bool:
        """Return a run to the queue, for the next agent to launch it.

        Args:
            run_id: The run.
            launch: The name of its launch, which goes with it, so that a task that
                was started all the same is found by whoever takes the run.

        Returns:
            False if it stays as it is: the API could not be told, or the run is not
            Submitted any more, or another agent of this name has it in hand too. The
            next start of one finds it if it must.
        """
        state = Scheduled(
            message="Returned to the queue, because its agent was stopped",
            start_time=pendulum.now("UTC").add(seconds=_RETURN_DELAY),
            context={LAUNCH_KEY: launch},
        )
        try:
            if not self._is_held(self._client.state_of(run_id)):
                return False
            self._client.set_run_state(run_id, None, state.serialize())
        except Exception as error:
            self._logger.warning(
                "Flow run %s could not be returned to the queue; an agent of this "
                "name finds it when it starts: %s",
                run_id,
                error,
                extra=of_run(run_id),
            )
            return False
        return True

    # -- Telling how it went ------------------------------------------------------

    def mark_failed(
        self, seen: Mapping[str, Any], message: str, log: str = ""
    ) -> Steps[bool]:
        """End a run as Failed, with a reason a person can act on.

        Args:
            seen: What is known of the run: its id and state, perhaps its version. If
                it is not so any more, somebody else has spoken, and it is left alone.
            message: One line, for its state.
            log: What its log says; the same line, if empty.

        Returns:
            False if the run was not so any more.
        """
        failed = Failed(message=self._hide(message))
        return (yield from self._end(seen, failed, log or message, "ERROR"))

    def mark_cancelled(self, seen: Mapping[str, Any], message: str) -> Steps[bool]:
        """End a run that was being cancelled as its task ended; see `mark_failed`."""
        cancelled = Cancelled(message=message)
        return (yield from self._end(seen, cancelled, message, "WARNING"))

    def _end(
        self, seen: Mapping[str, Any], state: State, log: str, level: str
    ) -> Steps[bool]:
        """Say it until the API has heard it, or the run went on without us.

        The run is looked at before each attempt: in an outage the server may have it
        started again, and a run that is at work must not become Failed.
        """
        run_id = seen["id"]
        is_logged = False

        def attempt() -> Steps[bool]:
            nonlocal is_logged
            now = (yield from self._states.of(run_id)) or {}
            if any(now.get(key) != value for key, value in seen.items()):
                self._logger.debug(
                    "Flow run %s is %s by now, and is not made %s",
                    run_id,
                    now.get("state"),
                    type(state).__name__,
                    extra=of_run(run_id),
                )
                return False
            if not is_logged:
                is_logged = True
                self._log.write_now(run_id, log, level)
            self._set_state(run_id, state)
            return True

        return (yield from insist(attempt, self._troubles, STATES))

    def _set_state(self, run_id: str, state: State) -> None:
        try:
            self._client.set_run_state(run_id, None, state.serialize())
        except Exception as error:
            if _TAKEN not in str(error):
                raise
            self._logger.debug(
                "The API keeps flow run %s: %s", run_id, error, extra=of_run(run_id)
            )

    def heartbeats(self, run_ids: Iterable[str]) -> None:
        """Tell the API that runs which wait are being looked after."""
        try:
            self._client.send_heartbeats(run_ids)
        except Exception as error:
            self._troubles.begin(HEARTBEATS, error)
        else:
            self._troubles.end(HEARTBEATS)


class LogWriter:
    """Writes lines into the logs of runs, many with one request.

    In an outage lines are kept, the newest 2,000 of them, and written when it is over.
    A line that the API refuses is reported in the agent's log; the others are written.

    Args:
        client: The client of the API.
        name: Who signs the lines.
        logger: The agent's own log.
        troubles: Told what does not work.
        start: Starts the steps that write.
        hide: Takes secrets out of lines.
    """

    def __init__(
        self,
        client: AgentClient,
        name: str,
        logger: logging.Logger,
        troubles: Troubles,
        start: Callable[[Steps[None]], None],
        hide: Callable[[str], str] = hidden,
    ) -> None:
        self._client = client
        self._name = name
        self._logger = logger
        self._troubles = troubles
        self._start = start
        self._hide = hide
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
            if refuses_content(error):
                self._report(line, error)
            else:
                self._troubles.begin(LOGS, error)
                self._keep(line)

    def flush(self) -> None:
        """Write what has been collected, as far as the API takes it now."""
        try:
            self._write_collected()
        except Exception as error:
            self._troubles.begin(LOGS, error)

    def _line(self, run_id: str, message: str, level: str) -> Dict[str, Any]:
        return {
            "flow_run_id": run_id,
            "name": self._name,
            "timestamp": pendulum.now("UTC").isoformat(),
            "message": self._hide(message),
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
                yield from insist(at_once(self._write_collected), self._troubles, LOGS)
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
                if not refuses_content(error):
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
            "Flow run %s: the Prefect API refuses a line for its log: %s. The line: %s",
            run_id,
            reason(error),
            line["message"],
            extra=of_run(run_id),
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
