"""What is done about tasks after their launch.

Watcher -> a stopped task -> task_state.judge -> started again, Failed, or left
the API -> a cancelled run -> its task is stopped
"""

from __future__ import annotations

import logging
import random
from contextlib import suppress
from typing import (
    Any,
    Callable,
    Dict,
    List,
    Mapping,
    Optional,
    Sequence,
    Set,
    Tuple,
)

from ..aws.ecs import ECS, region_of
from ..aws.retrying import AWSCallError, RetryBudget
from ..errors import PrefectECSError
from ..launch.claims import Claims
from ..launch.launcher import Launcher, Started
from ..launch.other_tasks import STARTED_ANEW
from ..launch_record import (
    Launch,
    LaunchRecord,
    claimed_task_runs,
    situation,
    unchanged_since,
)
from ..observability.counters import AgentCounters, Ending
from ..observability.log_formats import log_context
from ..observability.outage_log import OutageLog, retry_until_success
from ..prefect_api.client import AgentClient
from ..prefect_api.reporter import Reporter
from ..prefect_api.run_states import READING, RunStates
from ..scheduling.dispatcher import Dispatcher
from ..scheduling.steps import Cause, Pause, Steps, as_steps
from ..submission import Submission
from . import task_state
from .task_state import Explanation, Judgement, Run, Verdict
from .watcher import Watched, Watcher

#: Reads the last lines that the `flow` container of a task wrote.
ReadLog = Callable[[str, Mapping[str, Any]], Sequence[str]]

#: Seconds between two questions for cancelled runs.
_CANCEL_INTERVAL = 5.0

#: Seconds between two looks whether it is known which task of a run is the latest.
_SETTLING = 1.0

#: How a verdict is counted.
_ENDINGS: Mapping[Verdict, Ending] = {
    Verdict.LEAVE: Ending.LEFT,
    Verdict.RELAUNCH: Ending.RESTARTED,
    Verdict.FAIL: Ending.FAILED,
    Verdict.CANCEL: Ending.CANCELLED,
}


class Supervisor:
    """Looks after tasks from their start to their end.

    Args:
        client: The client of the Prefect API.
        states: Asks it what became of runs.
        claims: Reads launch records.
        ecs: ECS, paced.
        submission: Knows the definitions of tasks.
        launcher: Starts a task again.
        reporter: Tells Prefect.
        outages: Told what does not work.
        logger: The agent's own log.
        read_log: Reads what a container wrote.
        dispatcher: Drives the steps that deal with stopped tasks; tells the time.
        secrets_of: The secrets that are known of a run, given its id.
        forget: Told the id of a run whose last task has been dealt with.
        start_attempts: How often a task that never ran is started at most.
        cancel_grace: Seconds that a cancelled flow has to end by itself.
        counts: Counts what is done.

    Attributes:
        watcher: Watches the tasks.
    """

    def __init__(
        self,
        *,
        client: AgentClient,
        states: RunStates,
        claims: Claims,
        ecs: ECS,
        submission: Submission,
        launcher: Launcher,
        reporter: Reporter,
        outages: OutageLog,
        logger: logging.Logger,
        read_log: ReadLog,
        dispatcher: Dispatcher,
        start_attempts: int,
        cancel_grace: float,
        counts: Optional[AgentCounters] = None,
        secrets_of: Callable[[str], Sequence[str]] = lambda run_id: (),
        forget: Callable[[str], object] = lambda run_id: None,
    ) -> None:
        self._client = client
        self._secrets_of = secrets_of
        self._forget = forget
        self._states = states
        self._claims = claims
        self._ecs = ecs
        self._submission = submission
        self._launcher = launcher
        self._reporter = reporter
        self._outages = outages
        self._logger = logger
        self._read_log = read_log
        self._clock = dispatcher.clock
        self._start = dispatcher.start
        self._start_attempts = start_attempts
        self._cancel_grace = cancel_grace
        self._counts = counts or AgentCounters()
        self._latest: Dict[str, str] = {}  # the last known task by its run
        self._unsettled: Set[Tuple[str, str]] = set()  # and of which it is not known
        self._superseded: Set[str] = set()  # tasks whose run was started anew
        self._resumed: Set[str] = set()  # tasks that go on with a Running run
        self._starting: Set[str] = set()
        self._restarting: Set[str] = set()
        self._cancelled_since: Dict[str, float] = {}
        self._stop_requested: Set[str] = set()
        self.watcher = Watcher(
            ecs=ecs,
            dispatcher=dispatcher,
            on_stopped=self.on_stopped,
            troubles=outages,
            logger=logger,
        )

    def watch(self, task: Started) -> None:
        """Look after a task that was launched.

        It is the latest one of its run, unless it is late or the run has another: then
        the API tells. If the run was started anew meanwhile, the task is stopped.
        """
        self._add(task.arn, task.cluster, task.run_id, task.launch)
        latest = self._latest.setdefault(task.run_id, task.arn)
        if task.is_late or latest != task.arn:
            self._unsettled.add((task.run_id, task.arn))
            self._start(self._settle(task))

    def _settle(self, task: Started) -> Steps[None]:
        """Find out which task is the latest of a run; until then none is stopped."""
        run_id, launch = task.run_id, task.launch
        try:
            is_superseded = yield from self._claims.is_superseded(
                run_id, launch.name, launch.attempt
            )
            if not is_superseded:
                self._latest[run_id] = task.arn
            elif not task.was_listed:  # or it may be the task of the later launch
                self._superseded.add(task.arn)
            latest = self._latest.get(run_id, "")
            if latest in self._superseded or not self.watcher.is_watched(latest):
                self._forget_latest(run_id)
        finally:
            self._unsettled.discard((run_id, task.arn))

    def _is_unsettled(self, run_id: str) -> bool:
        return any(run_id == other for other, _ in tuple(self._unsettled))

    def _forget_latest(self, run_id: str) -> None:
        self._latest.pop(run_id, None)
        self._forget(run_id)

    def watch_found(
        self, task_arn: str, cluster: str, run_id: str, launch: Launch
    ) -> None:
        """Look after a task that was found; the run may have a later one by now."""
        if run_id not in self._launcher.pending_run_ids:
            self._latest.setdefault(run_id, task_arn)
        self._starting.add(run_id)  # it may have been starting for long
        self._add(task_arn, cluster, run_id, launch)

    def _add(self, task_arn: str, cluster: str, run_id: str, launch: Launch) -> None:
        if launch.resumed:
            self._resumed.add(task_arn)
        self.watcher.add(task_arn, cluster, run_id, launch)

    def restarting(self) -> Set[str]:
        """Runs whose task is about to be started again."""
        return set(self._restarting)

    def slow_starters(self) -> Set[str]:
        """Runs that need a heartbeat because their task has not started.

        A run whose launch was its first has had a heartbeat when it was claimed, so it
        is among them only if its task had not started when this was asked before. A
        resumed one always is: the server's Lazarus takes it for dead sooner. Those
        whose task ECS has not shown are not among them: their task may not exist.
        """
        starting = {
            watched.flow_run_id: watched.launch.resumed
            for watched in self.watcher.in_flight()
            if watched.last_status and not watched.has_started
        }
        slow = {
            run_id
            for run_id, is_resumed in starting.items()
            if is_resumed or run_id in self._starting
        }
        self._starting = set(starting)
        return slow

    # -- A task has stopped -------------------------------------------------------

    def on_stopped(
        self, watched: Watched, task: Optional[Mapping[str, Any]]
    ) -> Steps[None]:
        """Decide what a stopped task means, and do it.

        Args:
            watched: The task.
            task: As described; None if ECS does not know it any more.
        """
        while self._is_unsettled(watched.flow_run_id):
            yield Pause(_SETTLING)
        is_done = False
        while not is_done:
            judgement, row = yield from self._judged(watched, task)
            self._logger.debug(
                "Task %s has stopped: %s (%s)",
                watched.task_arn,
                judgement.verdict.value,
                judgement.why,
                extra=log_context(watched.flow_run_id, watched.task_arn),
            )
            is_done = yield from self._act(watched, task, judgement, row)
        self._counts.stopped_tasks.add(_ENDINGS[judgement.verdict])
        run_id = watched.flow_run_id
        if self._is_latest(watched) and not self._is_unsettled(run_id):
            self._forget_latest(run_id)
        self._resumed.discard(watched.task_arn)

    def is_at_work(self, run_id: str) -> bool:
        """Whether a run has a watched task that has not stopped, nor is on its way."""
        return self.watcher.is_up(self._latest.get(run_id, ""))

    def is_watched(self, run_id: str) -> bool:
        """Whether a task of the run has not been dealt with yet."""
        return run_id in self._latest

    def _act(
        self,
        watched: Watched,
        task: Optional[Mapping[str, Any]],
        judgement: Judgement,
        row: Mapping[str, Any],
    ) -> Steps[bool]:
        """Do what a judgement says; False if the run has changed since."""
        run_id, is_as_judged = watched.flow_run_id, unchanged_since(row)
        if judgement.verdict is Verdict.RELAUNCH:
            yield from self._relaunch(watched, task, judgement, row)
        elif judgement.verdict is Verdict.FAIL:
            told = yield from self._explained(watched, task, judgement)
            self._logger.error(
                "Flow run %s has failed: %s",
                watched.flow_run_id,
                told.message,
                extra=log_context(watched.flow_run_id, watched.task_arn),
            )
            return (
                yield from self._reporter.mark_failed(
                    run_id, is_as_judged, told.message, told.log
                )
            )
        elif judgement.verdict is Verdict.CANCEL:
            message = "The run was cancelled, and its task has ended."
            return (
                yield from self._reporter.mark_cancelled(run_id, is_as_judged, message)
            )
        return True

    def _judged(
        self, watched: Watched, task: Optional[Mapping[str, Any]]
    ) -> Steps[Tuple[Judgement, Mapping[str, Any]]]:
        """Judge at the second look what the first one could not; with what the API says
        of the run."""
        confirmed = False
        while True:
            row = (yield from self._states.of(watched.flow_run_id)) or {"state": "gone"}
            judgement = task_state.judge(
                task,
                self._run(watched, row),
                watched.launch,
                self._start_attempts,
                confirmed,
            )
            if judgement.verdict is not Verdict.LOOK_AGAIN:
                return judgement, row
            yield Pause(task_state.GRACE)
            confirmed = True

    def _run(self, watched: Watched, row: Mapping[str, Any]) -> Run:
        """What the API says of a task's run."""
        task_run_states = [each["state"] for each in row.get("task_runs") or ()]
        return Run(
            state=row["state"],
            waits=task_state.waits(task_run_states),
            taken_over=self._is_taken_over(watched, row),
            version=row.get("version"),
            is_claimed=bool(claimed_task_runs(row)),
        )

    def _is_taken_over(self, watched: Watched, row: Mapping[str, Any]) -> bool:
        """Whether the run was launched again, or is being launched again just now."""
        is_launched_now = (
            watched.flow_run_id in self._launcher.pending_run_ids
            or watched.flow_run_id in self._restarting
        )
        if is_launched_now or not self._is_latest(watched):
            return True
        record, launch = self._claims.latest(row), watched.launch
        if record:
            return not record.is_same_start(launch.name, launch.attempt)
        agent_id = row.get("agent_id")  # an API that drops the context tells no more
        return bool(agent_id) and agent_id != self._client.agent_id

    def _is_latest(self, watched: Watched) -> bool:
        """Whether this agent knows no later task of the run."""
        latest = self._latest.get(watched.flow_run_id)
        return latest is None or latest == watched.task_arn

    def _explained(
        self,
        watched: Watched,
        task: Optional[Mapping[str, Any]],
        judgement: Judgement,
    ) -> Steps[Explanation]:
        definition = yield from self._definition(task)
        lines: Sequence[str] = ()
        if judgement.started and definition:
            lines = self._read_log(watched.task_arn, definition)
        return task_state.explain(
            watched.task_arn,
            task,
            definition,
            judgement,
            lines,
            self._secrets_of(watched.flow_run_id),
        )

    def _definition(
        self, task: Optional[Mapping[str, Any]]
    ) -> Steps[Optional[Mapping[str, Any]]]:
        """The task's definition, if it can be read at once; the words do without."""
        name = (task or {}).get("taskDefinitionArn")
        if not name:
            return None
        patience = RetryBudget(0.0, 0.0, lambda: 0.0)
        with suppress(PrefectECSError):
            definition: Mapping[str, Any] = yield from self._submission.described(
                name, patience
            )
            return definition
        return None

    def _relaunch(
        self,
        watched: Watched,
        task: Optional[Mapping[str, Any]],
        judgement: Judgement,
        judged: Mapping[str, Any],
    ) -> Steps[None]:
        """Start the task of a run again, unless something has happened to the run."""
        run_id, launch = watched.flow_run_id, watched.launch
        told = yield from self._explained(watched, task, judgement)
        about = log_context(run_id, watched.task_arn)
        self._logger.warning("Flow run %s: %s", run_id, told.message, extra=about)
        self._reporter.log(run_id, told.log, "WARNING")
        row = yield from self._row_after_pause(run_id, launch.attempt)
        if row is None or not _is_as_judged(row, judged):
            self._logger.debug(
                "Flow run %s is not launched again: its state has changed since",
                run_id,
                extra=about,
            )
            return
        again = LaunchRecord(launch.name, launch.attempt + 1, after=watched.task_arn)
        record = self._launcher.record_of(row, again)
        yield from self._launcher.launch(row, record)

    def _row_after_pause(
        self, run_id: str, attempt: int
    ) -> Steps[Optional[Dict[str, Any]]]:
        seconds = task_state.RELAUNCH_BACKOFF.seconds(attempt, random.random())
        self._restarting.add(run_id)
        try:
            yield Pause(seconds, cause=Cause.RESTART)
            ask = as_steps(lambda: self._client.row(run_id))
            return (yield from retry_until_success(ask, self._outages, READING))
        finally:
            self._restarting.discard(run_id)

    # -- A run is cancelled -------------------------------------------------------

    def watch_cancellations(self) -> Steps[None]:
        """Stop the tasks of cancelled runs; asks nothing while no task is in flight.

        The server does not tell the agent when a run is cancelled.
        """
        while True:
            yield Pause(_CANCEL_INTERVAL)
            for watched, reason in self._to_stop():
                self._stop_requested.add(watched.task_arn)
                steps = self._stop(
                    watched.task_arn, watched.cluster, watched.flow_run_id, reason
                )
                self._start(steps)

    def _to_stop(self) -> List[Tuple[Watched, str]]:
        """The tasks that must not go on, each with the reason.

        Noted per task: a run that was cancelled may have been restarted since, and
        have another task. The time of a cancellation is that at which it was seen.
        """
        tasks = [each for each in self.watcher.in_flight() if not each.is_stopped]
        arns = {watched.task_arn for watched in tasks}
        self._stop_requested &= arns
        self._superseded &= arns
        for gone in set(self._cancelled_since) - arns:
            del self._cancelled_since[gone]
        rows = self._cancelled({watched.flow_run_id for watched in tasks})
        if rows is None:
            return []
        found = []
        for watched in tasks:
            reason = self._reason_to_stop(watched, rows.get(watched.flow_run_id))
            is_asked = watched.is_ending or watched.task_arn in self._stop_requested
            if reason and not is_asked:
                found.append((watched, reason))
        return found

    def _reason_to_stop(
        self, watched: Watched, cancelled: Optional[Mapping[str, Any]]
    ) -> str:
        if self._is_unsettled(watched.flow_run_id):
            return ""
        latest = self._latest.get(watched.flow_run_id)
        is_replaced = latest not in (None, watched.task_arn)
        if is_replaced and latest not in self._resumed:
            return STARTED_ANEW
        if watched.task_arn in self._superseded:
            return STARTED_ANEW
        if cancelled is None:
            self._cancelled_since.pop(watched.task_arn, None)
            return ""
        since = self._cancelled_since.setdefault(watched.task_arn, self._clock())
        never_ran = cancelled["state"] == "Cancelled" and not cancelled["start_time"]
        if never_ran or self._clock() - since >= self._cancel_grace:
            return task_state.CANCELLED
        return ""

    def _cancelled(self, run_ids: Set[str]) -> Optional[Dict[str, Dict[str, Any]]]:
        """The cancelled ones of some runs; None if the API does not tell."""
        if not run_ids:
            return {}
        try:
            rows = self._client.cancelled_of(sorted(run_ids))
        except Exception as error:
            self._outages.begin(READING, error)
            return None
        self._outages.end(READING)
        return rows

    def _stop(
        self, task_arn: str, cluster: str, run_id: str, reason: str
    ) -> Steps[None]:
        """Stop a task; it is asked for once, and looked at soon after."""
        request = {
            "cluster": cluster,
            "task": task_arn,
            "reason": reason,
        }
        about = log_context(run_id, task_arn)
        is_stopped = False
        try:
            yield from self._ecs.call("StopTask", request, region=region_of(task_arn))
            is_stopped = True
        except AWSCallError as refused:  # the next round tries again
            self._logger.warning(
                "Flow run %s: its task %s cannot be stopped (%s): %s",
                run_id,
                task_arn,
                reason,
                refused,
                extra=about,
            )
            return
        finally:
            if not is_stopped:
                self._stop_requested.discard(task_arn)
        self.watcher.look_soon(task_arn)
        self._logger.info(
            "Flow run %s: its task %s is stopped: %s",
            run_id,
            task_arn,
            reason,
            extra=about,
        )


def _is_as_judged(row: Mapping[str, Any], judged: Mapping[str, Any]) -> bool:
    """Whether nothing has happened to a run since its task was judged.

    Args:
        row: The run, as `AgentClient.row` has it: without task runs that wait.
        judged: The run when its task was judged.
    """
    then = situation(judged)
    return situation(row)._replace(waits=then.waits) == then
