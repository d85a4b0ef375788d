"""At its start, an agent recovers the runs that earlier agents of its name claimed.

    the API -> runs that were claimed and have not ended, with their launch records
    ECS     -> their tasks, where the record says that they were launched
               found: watched again
               none, and the run waits for its task: launched under the record's name,
               unless its heartbeat shows that another agent takes care of it, or the
               claim has no record: then Prefect's own agent may have made it

A crash between any two calls therefore loses nothing; and since the name of a launch
is its clientToken, nothing is started twice either.

A run may end the agent that reads it: with a template that takes all memory, say. The
launch record counts the agents that have ended so. From the second one on, such runs
are read one after the other, so that each is counted for itself, and after the third
the run is Failed.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
)

from ..aws.ecs import CLOCK_SKEW
from ..aws.retrying import AWSCallError, is_worth_waiting
from ..errors import LaunchError, without_code
from ..launch.claims import Claims
from ..launch.launcher import Launcher
from ..launch_record import (
    Launch,
    LaunchRecord,
    claimed_task_runs,
    heartbeat_of,
    latest_claim,
)
from ..observability.log_formats import log_context, log_full_error
from ..observability.outage_log import OutageLog, retry_until_success
from ..prefect_api.client import AgentClient
from ..prefect_api.run_states import RunStates
from ..scheduling.steps import Cause, Pause, Steps, as_steps
from .poll_queue import Location
from .task_finder import FoundTask, TaskFinder, TasksByRun

#: Seconds until a task that was started is certainly visible, and in which an agent of
#: the same name that is alive sends a heartbeat for each run that it launches.
SETTLE = 30.0

#: Seconds until a location that the agent may not read is read again.
_UNSEEN = 300.0

#: Seconds until recovering a run is tried again after an error of the agent's own.
_AFTER_ERROR = 30.0

#: How many agents may end while they read a run, before the run is Failed.
MAX_RECOVERIES = 3

#: Seconds after its claim by which a run has been read: its heartbeats go on then. The
#: agent sends them every 15 s, and reading takes 10 s at most.
READ_BY = 20.0

#: Seconds between two checks whether the previous run has been read.
_TURN = 0.2

#: Seconds after its claim in which the agent that launched a run may have ended before
#: it looked for late tasks of its earlier launches.
_YOUNG = 180.0

RUNS = (
    "The flow runs that agents of this name claimed before cannot be read "
    "[claimed-runs-unreadable]"
)
TASKS = (
    "The tasks of flow runs that were claimed before cannot be listed [tasks-unlisted]"
)

#: What is kept of a row: there may be 10,000.
_KEPT = ("id", "state", "version", "agent_id", "heartbeat", "claimed", "run_config")

#: Watches a task: its ARN, its cluster, its run, its launch.
WatchTask = Callable[[str, str, str, Launch], None]


@dataclass(frozen=True)
class _ClaimedRun:
    """A run that an agent of this name claimed before, and that has not ended.

    Attributes:
        id: The run.
        row: Its state, with the launch fields.
        record: Its launch; None if the claim has no record.
        claimed_at: When the API stored the claim, in seconds since 1970; 0 if unknown.
        resumed: Whether the run was Running when it was claimed.
        location: Where its task was launched.
        read_at: When the row was read, by the agent's clock.
    """

    id: str
    row: Mapping[str, Any]
    record: Optional[LaunchRecord]
    claimed_at: float
    resumed: bool
    location: Location
    read_at: float

    @property
    def waits_for_task(self) -> bool:
        """Whether its flow has not begun, as far as its state shows."""
        return self.row["state"] == "Submitted" or bool(claimed_task_runs(self.row))


class Recovery:
    """Recovers the runs that earlier agents of this name claimed.

    Args:
        client: The client of the Prefect API.
        states: Reads the states of runs from it.
        claims: Reads launch records.
        tasks: Finds the tasks of runs.
        launcher: Launches runs that have no task.
        watch: Watches tasks that exist.
        outages: Logs what fails.
        logger: The agent's own log.
        heartbeats: Sends heartbeats for runs whose task has not started.
        stop_late: Looks for late tasks of earlier launches of a run, given its launch
            and its task.
        start: Starts steps, given as `run_id` the run that they are for.
        clock: Tells the time, in seconds.
    """

    def __init__(
        self,
        *,
        client: AgentClient,
        states: RunStates,
        claims: Claims,
        tasks: TaskFinder,
        launcher: Launcher,
        watch: WatchTask,
        outages: OutageLog,
        logger: logging.Logger,
        heartbeats: Callable[[Iterable[str]], object],
        stop_late: Callable[[str, LaunchRecord, str], object],
        start: Callable[..., object],
        clock: Callable[[], float],
    ) -> None:
        self._client = client
        self._states = states
        self._claims = claims
        self._tasks = tasks
        self._launcher = launcher
        self._watch = watch
        self._outages = outages
        self._logger = logger
        self._heartbeats = heartbeats
        self._stop_late = stop_late
        self._start = start
        self._clock = clock
        self._lock = threading.Lock()
        self._searches = 0
        self._suspect: Optional[str] = None

    def recover(self) -> Steps[None]:
        """Find the runs, watch their tasks, and start recovering the others.

        Runs whose row names another agent are read separately, and so is each location:
        one that does not answer delays no other.
        """
        self._start(self._recover(self._client.resumed_runs), background=True)
        yield from self._recover(self._client.owned_runs)

    def _recover(self, ask: Callable[[], Iterator[Dict[str, Any]]]) -> Steps[None]:
        read = as_steps(lambda: self._claimed(ask()))
        claimed = yield from retry_until_success(read, self._outages, RUNS)
        if not claimed:
            return
        self._logger.info(
            "Looking after %d flow runs that agents of this name claimed before",
            len(claimed),
        )
        by_location: Dict[Location, List[_ClaimedRun]] = {}
        for run in claimed:
            by_location.setdefault(run.location, []).append(run)
        for location, runs in by_location.items():
            self._start(self._recover_in(location, runs), background=True)

    def _claimed(self, rows: Iterable[Mapping[str, Any]]) -> List[_ClaimedRun]:
        """Those of some runs that an agent of this name claimed."""
        claimed = []
        for row in rows:
            try:
                run = self._read(row)
            except Exception as error:  # one damaged row must not hide the others
                self._log_error(
                    "Flow run %s cannot be recovered, because its row cannot be read: "
                    "%s: %s [run-unreadable]",
                    str(row.get("id")),
                    error,
                )
                continue
            if run is not None:
                claimed.append(run)
        return claimed

    def _read(self, row: Mapping[str, Any]) -> Optional[_ClaimedRun]:
        claim = latest_claim(row)
        record = self._claims.latest(row)
        owner = record.agent_id if record else row.get("agent_id")
        if owner != self._client.agent_id:
            return None
        if record and record.holder == self._claims.holder:
            return None  # this very process has claimed it since it started
        if record:
            location = Location(record.cluster, record.region)
        else:  # where it would be launched now
            location = Location(self._launcher.cluster_of(row))
        return _ClaimedRun(
            id=row["id"],
            row={key: row[key] for key in _KEPT},
            record=record,
            claimed_at=claim.stored_at if claim else 0.0,
            resumed=bool(claim and claim.resumed),
            location=location,
            read_at=self._clock(),
        )

    def _log_error(self, message: str, run_id: str, error: Exception) -> None:
        about = log_context(run_id)
        kind, text = type(error).__name__, without_code(str(error))
        self._logger.error(message, run_id, kind, text, extra=about)
        log_full_error(self._logger, error, about)

    # -- Tasks -----------------------------------------------------------------------

    def _recover_in(
        self, location: Location, runs: Sequence[_ClaimedRun]
    ) -> Steps[None]:
        """Watch the tasks in a location; runs that have begun wait until it answers."""
        found = yield from self._watch_all(location, runs, self._recover_run)
        begun = [run for run in runs if not run.waits_for_task]
        while found is None and begun:
            yield Pause(_UNSEEN, cause=Cause.RECOVERY)
            found = yield from self._watch_all(location, begun)

    def _watch_all(
        self,
        location: Location,
        runs: Sequence[_ClaimedRun],
        otherwise: Optional[Callable[[_ClaimedRun], Steps[None]]] = None,
    ) -> Steps[Optional[TasksByRun]]:
        """Watch the tasks of runs in a location.

        Args:
            location: Where they were launched.
            runs: The runs.
            otherwise: What is started for a run that waits for its task and has none.

        Returns:
            The tasks; None if the agent may not list them.
        """
        with self._searching():
            found = yield from self._find([run.id for run in runs], location)
            starting = []
            for run in runs:
                try:
                    is_watched = self._watch_latest(run, (found or {}).get(run.id, ()))
                    if is_watched and run.waits_for_task:
                        starting.append(run.id)
                    elif run.waits_for_task and otherwise:
                        self._start(otherwise(run), run_id=run.id)
                except Exception as error:  # it must not hide the other runs
                    self._log_error(
                        "Flow run %s could not be recovered; if it does not continue, "
                        "set it to Scheduled: %s: %s [run-not-recovered]",
                        run.id,
                        error,
                    )
            self._heartbeats(starting)
            return found

    @contextmanager
    def _searching(self) -> Iterator[None]:
        """Keep what is known about tasks until the last search has ended."""
        with self._lock:
            self._searches += 1
        try:
            yield
        finally:
            with self._lock:
                self._searches -= 1
                if not self._searches:
                    self._tasks.forget()

    def _find(
        self, run_ids: Sequence[str], location: Location, untagged: bool = False
    ) -> Steps[Optional[TasksByRun]]:
        """The tasks of runs in a location; None if the agent may not list them."""
        try:
            return (
                yield from retry_until_success(
                    lambda: self._tasks.tasks_of(run_ids, location, untagged),
                    self._outages,
                    TASKS,
                    lambda error: not is_worth_waiting(error),
                )
            )
        except AWSCallError as error:
            if error.answer.code == "ClusterNotFoundException":
                return {}
            self._logger.warning(
                "%s in cluster %s may have tasks that the agent cannot see: %s "
                "[tasks-unlisted]",
                f"Flow run {run_ids[0]}" if len(run_ids) == 1 else "Flow runs",
                location.cluster,
                without_code(str(error)),
            )
            return None

    def _watch_latest(self, run: _ClaimedRun, tasks: Sequence[FoundTask]) -> bool:
        """Watch the latest task of a run's launch; False if it has none."""
        of_this_start = _of_this_start(tasks, run)
        if not of_this_start:
            return False
        task, record = of_this_start[-1], run.record
        self._logger.info(
            "Flow run %s: its task %s is watched",
            run.id,
            task.arn,
            extra=log_context(run.id, task.arn),
        )
        launch = Launch(
            attempt=record.attempt if record else 1,
            resumed=run.resumed,
            name=record.name if record else "",
        )
        self._watch(task.arn, run.location.cluster, run.id, launch)
        if record and time.time() - run.claimed_at < _YOUNG:
            self._stop_late(run.id, record, task.arn)
        return True

    # -- One run that has no task yet ----------------------------------------------

    def _recover_run(self, run: _ClaimedRun) -> Steps[None]:
        """Recover one run; an error of the agent's own does not lose it."""
        while True:
            try:
                if (yield from self._is_abandoned(run)):
                    yield from self._launch(run)
                return
            except Exception as error:
                self._log_error(
                    "Flow run %s could not be recovered; the agent tries again: "
                    "%s: %s [run-not-recovered]",
                    run.id,
                    error,
                )
                yield Pause(_AFTER_ERROR, cause=Cause.RECOVERY)

    def _is_abandoned(self, run: _ClaimedRun) -> Steps[bool]:
        """Wait to see whether a run has no task and no other process launches it.

        A task that appears meanwhile is watched.
        """
        heartbeat, is_abandoned = run.row["heartbeat"], False
        due, record = run.read_at + SETTLE, run.record
        with self._searching():
            while not is_abandoned:
                yield Pause(due - self._clock(), cause=Cause.RECOVERY)
                found = yield from self._find([run.id], run.location, record is None)
                if self._watch_latest(run, (found or {}).get(run.id, ())):
                    return False
                now = yield from self._states.of(run.id)
                if now is None or not _waits_as_before(run.row, now):
                    return False
                is_abandoned = record is None or now["heartbeat"] == heartbeat
                heartbeat, due = now["heartbeat"], self._clock() + SETTLE
                if found is None:
                    # Its token prevents a second task only where the first one is.
                    cluster = self._launcher.cluster_of(run.row)
                    if Location(cluster, self._launcher.region) != run.location:
                        is_abandoned, due = False, self._clock() + _UNSEEN
        return True

    def _launch(self, run: _ClaimedRun) -> Steps[None]:
        """Launch a run under the name that its record has."""
        record = run.record
        if record is None:
            # Prefect's own agent claimed it, and may still start a task for it. If it
            # does not, the API's Lazarus returns the run to the queue.
            self._logger.warning(
                "Flow run %s was claimed by Prefect's own agent, and no task of it can "
                "be found in cluster %s; this agent leaves it alone. If it stays "
                "Submitted, set it to Scheduled [claimed-by-prefects-agent]",
                run.id,
                run.location.cluster,
                extra=log_context(run.id),
            )
            return
        row = yield from self._claims.read_whole(run.id)
        if row is None:
            return
        was_read = heartbeat_of(row) > run.claimed_at + READ_BY
        recoveries = 0 if was_read else record.recoveries + 1
        if recoveries >= MAX_RECOVERIES:
            error = LaunchError(
                f"The run is not launched again, because {recoveries} agents in a row "
                "ended while they read it; check its run config and template, and why "
                "the agents ended.",
                code="ends-agents",
            )
            yield from self._launcher.fail(row, record, error)
            return
        while recoveries > 1 and not self._begins(run.id):
            yield Pause(_TURN, cause=Cause.RECOVERY)
        self._logger.info(
            "Flow run %s has no task; it is launched", run.id, extra=log_context(run.id)
        )
        renewed = self._launcher.record_of(row, record)
        try:
            counted = replace(renewed, recoveries=recoveries)
            yield from self._launcher.launch(row, counted)
        finally:
            self._launcher.being_read.discard(run.id)

    def _begins(self, run_id: str) -> bool:
        """Begin to read a run that may have ended agents, unless one is being read."""
        with self._lock:
            if self._suspect in self._launcher.being_read:
                return False
            self._suspect = run_id
            self._launcher.being_read.add(run_id)
            return True


def _waits_as_before(row: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a run still waits for the task of the same claim.

    One whose cancellation has begun meanwhile does: it has to be ended.
    """
    claimed, claimed_now = (
        {(each["id"], each["version"]) for each in claimed_task_runs(each_row)}
        for each_row in (row, now)
    )
    if claimed != claimed_now:
        return False
    if now["state"] == "Cancelling":
        return bool(claimed)
    return all(now[key] == row[key] for key in ("state", "version", "agent_id"))


def _of_this_start(tasks: Sequence[FoundTask], run: _ClaimedRun) -> Sequence[FoundTask]:
    """The tasks of the start that a run's record describes, the latest last.

    A run whose flow has begun has the latest task, however old it is. One that waits
    for its task may have older ones, of an earlier start or launch. The clocks of the
    API and of AWS may differ, but a task that seems older and has stopped does not
    count: if it is of this start after all, the launch's token leads to it.
    """
    if not run.waits_for_task:
        return tasks
    arns = [task.arn for task in tasks]
    if run.record and run.record.after in arns:
        tasks = tasks[arns.index(run.record.after) + 1 :]
    return [
        task
        for task in tasks
        if task.created_at >= run.claimed_at - (0 if task.has_stopped else CLOCK_SKEW)
    ]
