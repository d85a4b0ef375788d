"""What an agent does at its start about runs that agents of its name claimed before.

    the API -> runs that were claimed and have not ended, with their launch records
    ECS     -> their tasks, where the record says that they were launched
               found: watched again
               none, and the run waits for its task: launched under the record's name,
               unless its heartbeat shows that another agent looks after it, or the
               claim has no record: then Prefect's own agent may have made it

A crash between any two calls therefore loses nothing; and since the name of a launch
is its clientToken, it starts nothing twice either.

A run may make the agent end whenever it is read: a template that takes all memory, say.
The launch record counts the agents that have ended so. From the second one on, such
runs are read one after the other, so that each is counted for itself, and after the
third the run is Failed.
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
from ..errors import LaunchError
from ..launch.claims import Claims
from ..launch.launcher import Launcher
from ..launch_record import (
    Launch,
    LaunchRecord,
    claimed_task_runs,
    heartbeat_of,
    latest_claim,
)
from ..observability.log_formats import log_context
from ..observability.outage_log import OutageLog, retry_until_success
from ..prefect_api.client import AgentClient
from ..prefect_api.run_states import READING, RunStates
from ..scheduling.steps import Cause, Pause, Steps, as_steps
from .task_finder import FoundTask, Place, TaskFinder, TasksByRun

#: Seconds until a task that was started shows itself for certain, and in which an agent
#: of the same name that is alive sends a heartbeat for each run that it launches.
SETTLE = 30.0

#: Seconds until a place that the agent may not look at is looked at again.
_UNSEEN = 300.0

#: Seconds until recovering a run is tried again after an error of the agent's own.
_AFTER_ERROR = 30.0

#: Agents that end while a run is read, before the run is Failed.
MAX_RECOVERIES = 3

#: Seconds after its claim by which a run has been read: its heartbeats go on then. The
#: agent sends them every 15 s, and reading takes 10 s at most.
READ_BY = 20.0

#: Seconds between two looks whether the run before has been read.
_TURN = 0.2

#: Seconds since its claim in which the agent that launched a run may have ended before
#: it looked for late tasks of its earlier launches.
_YOUNG = 180.0

RUNS = (
    "The flow runs that agents of this name claimed before cannot be read "
    "[claimed-runs-unreadable]"
)
TASKS = "The tasks of flow runs that were claimed before cannot be listed"

#: What is kept of a row: there may be 10,000.
_KEPT = ("id", "state", "version", "agent_id", "heartbeat", "claimed", "run_config")

#: Watches a task: its ARN, its cluster, its run, its launch.
WatchTask = Callable[[str, str, str, Launch], None]


@dataclass(frozen=True)
class _Owned:
    """A run that agents of this name claimed before, and that has not ended.

    Attributes:
        id: The run.
        row: Its state, with the launch fields.
        record: Its launch; None if the claim has no record.
        claimed_at: When the API stored the claim, in seconds since 1970; 0 if unknown.
        resumed: Whether the run was Running when it was claimed.
        place: Where its task was launched.
        read_at: When the row was read, by the agent's clock.
    """

    id: str
    row: Mapping[str, Any]
    record: Optional[LaunchRecord]
    claimed_at: float
    resumed: bool
    place: Place
    read_at: float

    @property
    def waits_for_task(self) -> bool:
        """Whether its flow has not begun, as far as its state tells."""
        return self.row["state"] == "Submitted" or bool(claimed_task_runs(self.row))


class Recovery:
    """Finds runs that earlier agents of this name left behind.

    Args:
        client: The client of the Prefect API.
        states: Asks it what became of runs.
        claims: Reads launch records.
        tasks: Finds the tasks of runs.
        launcher: Launches runs that have no task.
        watch: Watches tasks that are there.
        outages: Told what does not work.
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
        self._unsettled = 0
        self._suspect: Optional[str] = None
        self._suspecting = threading.Lock()

    def recover(self) -> Steps[None]:
        """Find the runs, watch their tasks, and start looking after the others.

        Runs whose row names another agent are asked for apart, and each place is looked
        at apart: one that does not answer holds up no other.
        """
        self._start(self._recover(self._client.resumed_runs), background=True)
        yield from self._recover(self._client.owned_runs)

    def _recover(self, ask: Callable[[], Iterator[Dict[str, Any]]]) -> Steps[None]:
        read = as_steps(lambda: self._owned(ask()))
        owned = yield from retry_until_success(read, self._outages, RUNS)
        if not owned:
            return
        self._logger.info(
            "Looking after %d flow runs that agents of this name claimed before",
            len(owned),
        )
        by_place: Dict[Place, List[_Owned]] = {}
        for run in owned:
            by_place.setdefault(run.place, []).append(run)
        for place, runs in by_place.items():
            self._start(self._recover_in(place, runs), background=True)

    def _recover_in(self, place: Place, runs: Sequence[_Owned]) -> Steps[None]:
        """Watch the tasks in a place; runs that have begun wait until they are seen."""
        found = yield from self._watch_all(place, runs, self._recover_run)
        begun = [run for run in runs if not run.waits_for_task]
        while found is None and begun:
            yield Pause(_UNSEEN, cause=Cause.RECOVERY)
            found = yield from self._watch_all(place, begun)

    def _watch_all(
        self,
        place: Place,
        runs: Sequence[_Owned],
        otherwise: Optional[Callable[[_Owned], Steps[None]]] = None,
    ) -> Steps[Optional[TasksByRun]]:
        """Watch the tasks of runs in a place; the tasks, None if they may not be seen.

        Args:
            place: Where they were launched.
            runs: The runs.
            otherwise: What is started for a run that waits for its task and has none.
        """
        with self._settling():
            found = yield from self._found([run.id for run in runs], place)
            starting = []
            for run in runs:
                with self._each(run):
                    is_watched = self._watch_latest(run, (found or {}).get(run.id, ()))
                    if is_watched and run.waits_for_task:
                        starting.append(run.id)
                    elif run.waits_for_task and otherwise:
                        self._start(otherwise(run), run_id=run.id)
            self._heartbeats(starting)
            return found

    @contextmanager
    def _each(self, run: _Owned) -> Iterator[None]:
        """Report an error about one run; it must not hide the others."""
        try:
            yield
        except Exception as error:
            about = log_context(run.id)
            self._logger.error(
                "Flow run %s could not be recovered; if it does not go on, set it to "
                "Scheduled: %s: %s",
                run.id,
                type(error).__name__,
                error,
                extra=about,
            )
            self._logger.debug("The error in full", exc_info=error, extra=about)

    @contextmanager
    def _settling(self) -> Iterator[None]:
        """While anything is in this block, what is known of tasks is kept."""
        with self._lock:
            self._unsettled += 1
        try:
            yield
        finally:
            with self._lock:
                self._unsettled -= 1
                if not self._unsettled:
                    self._tasks.forget()

    def _owned(self, rows: Iterable[Mapping[str, Any]]) -> List[_Owned]:
        """Those of some runs that agents of this name claimed."""
        owned = []
        for row in rows:
            try:
                run = self._read(row)
            except Exception as error:  # one damaged row must not hide the others
                self._logger.error(
                    "Flow run %s cannot be recovered, because its row cannot be read: "
                    "%s: %s",
                    row.get("id"),
                    type(error).__name__,
                    error,
                    extra=log_context(str(row.get("id"))),
                )
                continue
            if run is not None:
                owned.append(run)
        return owned

    def _read(self, row: Mapping[str, Any]) -> Optional[_Owned]:
        claim = latest_claim(row)
        record = self._claims.latest(row)
        owner = record.agent_id if record else row.get("agent_id")
        if owner != self._client.agent_id:
            return None
        return _Owned(
            id=row["id"],
            row={key: row[key] for key in _KEPT},
            record=record,
            claimed_at=claim.stored_at if claim else 0.0,
            resumed=bool(claim and claim.resumed),
            place=self._place(row, record),
            read_at=self._clock(),
        )

    def _is_launched_there(self, run: _Owned) -> bool:
        """Whether a launch now goes where the record's did: the token holds there."""
        now = self._launcher.cluster_of(run.row), self._launcher.region
        return now == (run.place.cluster, run.place.region)

    def _place(self, row: Mapping[str, Any], record: Optional[LaunchRecord]) -> Place:
        """Where the run was launched; without a record, where it would be now."""
        if record:
            return Place(record.cluster, record.region)
        return Place(self._launcher.cluster_of(row))

    # -- One run that has no task yet ----------------------------------------------

    def _recover_run(self, run: _Owned) -> Steps[None]:
        """Recover one run; an error of the agent's own does not lose it."""
        while True:
            try:
                if (yield from self._is_left(run)):
                    yield from self._launch_left(run)
                return
            except Exception as error:
                about = log_context(run.id)
                self._logger.error(
                    "Flow run %s could not be recovered; it is tried again in %.0f s: "
                    "%s: %s",
                    run.id,
                    _AFTER_ERROR,
                    type(error).__name__,
                    error,
                    extra=about,
                )
                self._logger.debug("The error in full", exc_info=error, extra=about)
                yield Pause(_AFTER_ERROR, cause=Cause.RECOVERY)

    def _is_left(self, run: _Owned) -> Steps[bool]:
        """Whether a run has no task and no other process looks after it, after a while.

        A task that shows itself meanwhile is watched.
        """
        heartbeat, is_left = run.row["heartbeat"], False
        due = run.read_at + SETTLE
        with self._settling():
            while not is_left:
                yield Pause(due - self._clock(), cause=Cause.RECOVERY)
                found = yield from self._found([run.id], run.place, run.record is None)
                if self._watch_latest(run, (found or {}).get(run.id, ())):
                    return False
                now = yield from self._states.of(run.id)
                if now is None or not _waits_as_before(run.row, now):
                    return False
                is_left = run.record is None or now["heartbeat"] == heartbeat
                heartbeat, due = now["heartbeat"], self._clock() + SETTLE
                if found is None and not self._is_launched_there(run):
                    is_left, due = False, self._clock() + _UNSEEN
        return True

    def _launch_left(self, run: _Owned) -> Steps[None]:
        if run.record:
            yield from self._launch(run, run.record)
        else:
            self._tell_of_foreign_claim(run)

    def _launch(self, run: _Owned, record: LaunchRecord) -> Steps[None]:
        ask = as_steps(lambda: self._client.row(run.id))
        row = yield from retry_until_success(ask, self._outages, READING)
        if row is None:
            return
        recoveries = 0 if _was_read(run, row) else record.recoveries + 1
        if recoveries >= MAX_RECOVERIES:
            yield from self._launcher.fail(row, record, _fatal(recoveries))
            return
        if recoveries > 1:
            yield from self._alone(run.id)
        self._logger.info(
            "Flow run %s has no task; it is launched", run.id, extra=log_context(run.id)
        )
        renewed = self._launcher.record_of(row, record)
        counted = replace(renewed, recoveries=recoveries)
        try:
            yield from self._launcher.launch(row, counted)
        finally:
            self._launcher.being_read.discard(run.id)

    def _alone(self, run_id: str) -> Steps[None]:
        """Wait until no other run is read that may have ended earlier agents."""
        while not self._begins(run_id):
            yield Pause(_TURN, cause=Cause.RECOVERY)

    def _begins(self, run_id: str) -> bool:
        with self._suspecting:
            if self._suspect in self._launcher.being_read:
                return False
            self._suspect = run_id
            self._launcher.being_read.add(run_id)
            return True

    def _tell_of_foreign_claim(self, run: _Owned) -> None:
        """Prefect's own agent claimed this run, and may still start a task for it.

        If it does not, the API's Lazarus returns the run to the queue by itself.
        """
        self._logger.warning(
            "Flow run %s was taken by an agent of Prefect's own, and no task of it can "
            "be found in cluster %s; it is left alone. If it stays Submitted, set it "
            "to Scheduled",
            run.id,
            run.place.cluster,
            extra=log_context(run.id),
        )

    # -- Tasks -----------------------------------------------------------------------

    def _watch_latest(self, run: _Owned, tasks: Sequence[FoundTask]) -> bool:
        """Watch the latest task of a run's launch; False if it has none."""
        mine = _of_this_start(tasks, run)
        if not mine:
            return False
        task, record = mine[-1], run.record
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
        self._watch(task.arn, run.place.cluster, run.id, launch)
        if record and time.time() - run.claimed_at < _YOUNG:
            self._stop_late(run.id, record, task.arn)
        return True

    def _found(
        self, run_ids: Sequence[str], place: Place, untagged: bool = False
    ) -> Steps[Optional[TasksByRun]]:
        """The tasks of runs in a place; None if the agent may not see them."""
        try:
            return (
                yield from retry_until_success(
                    lambda: self._tasks.tasks_of(run_ids, place, untagged),
                    self._outages,
                    TASKS,
                    lambda error: not is_worth_waiting(error),
                )
            )
        except AWSCallError as refused:
            if refused.answer.code == "ClusterNotFoundException":
                return {}
            self._logger.warning(
                "%s in cluster %s may have tasks that the agent cannot see: %s",
                f"Flow run {run_ids[0]}" if len(run_ids) == 1 else "Flow runs",
                place.cluster,
                refused,
            )
            return None


def _waits_as_before(row: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a run still waits for the task of the same claim.

    One that has begun to be cancelled meanwhile does: it has to be ended.
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


def _was_read(run: _Owned, row: Mapping[str, Any]) -> bool:
    """Whether the agent that claimed a run was alive when it had read it."""
    return heartbeat_of(row) > run.claimed_at + READ_BY


def _fatal(recoveries: int) -> LaunchError:
    return LaunchError(
        f"The run is not launched again, because {recoveries} agents in a row ended "
        "while they read it; look at its run config and template, and at why the "
        "agents ended."
    )


def _of_this_start(tasks: Sequence[FoundTask], run: _Owned) -> Sequence[FoundTask]:
    """The tasks of the start that a run's record tells of, the latest last.

    A run whose flow has begun has the latest task whatever its age. One that waits for
    its task may have older ones, of an earlier start or launch. The clocks of the API
    and of AWS may differ, but one that seems older and has stopped does not count: if
    it is of this start all the same, the launch's token leads to it.
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
