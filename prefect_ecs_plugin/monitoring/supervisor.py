"""Follows tasks from their launch to their end.

A stopped task (from the watcher) -> `decide` -> its run is launched again, made Failed
or left. A cancelled run (from the API) -> its task is stopped.
"""

from __future__ import annotations

import logging
import random
from contextlib import suppress
from dataclasses import replace
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

from ..aws.ecs import ECS
from ..aws.retrying import AWSCallError, RetryBudget
from ..errors import PrefectECSError
from ..launch.claims import Claims
from ..launch.launcher import Launcher, Started
from ..launch.other_tasks import STARTED_ANEW
from ..launch_record import (
    Launch,
    LaunchRecord,
    claimed_task_runs,
    unchanged_since,
)
from ..observability.counters import AgentCounters, Ending
from ..observability.log_formats import log_context
from ..observability.outage_log import OutageLog
from ..prefect_api.client import AgentClient
from ..prefect_api.reporter import Reporter
from ..prefect_api.run_states import READING, RunStates
from ..scheduling.dispatcher import Dispatcher
from ..scheduling.steps import Cause, Pause, Steps
from ..submission import Submission
from . import costs, phases
from .deadlines import Deadlines, was_ended_by_stop
from .decision import (
    CANCELLED,
    GRACE,
    RELAUNCH_BACKOFF,
    Decision,
    Run,
    Task,
    Verdict,
    decide,
    is_unchanged,
    waits,
)
from .explanation import Explanation, explain
from .poll_queue import Watched
from .resumer import Resumer, StoppedTask
from .watcher import Watcher

#: Reads the last lines that the `flow` container of a task wrote.
ReadLog = Callable[[str, Mapping[str, Any]], Sequence[str]]

#: Seconds between two queries for cancelled runs.
_CANCEL_INTERVAL = 5.0

#: Seconds between two checks whether it is known which task of a run is the latest.
_SETTLING = 1.0

#: How a verdict is counted.
_ENDINGS: Mapping[Verdict, Ending] = {
    Verdict.LEAVE: Ending.LEFT,
    Verdict.RELAUNCH: Ending.RESTARTED,
    Verdict.RESUME: Ending.RESUMED,
    Verdict.FAIL: Ending.FAILED,
    Verdict.CANCEL: Ending.CANCELLED,
}


class Supervisor:
    """Follows tasks from their start to their end.

    Args:
        client: The client of the Prefect API.
        states: Reads the states of runs from it.
        claims: Reads launch records.
        ecs: ECS, rate-limited.
        submission: Knows the definitions of tasks.
        launcher: Launches a run again.
        resumer: Has interrupted runs go on.
        reporter: Reports to Prefect.
        outages: Logs what fails.
        logger: The agent's own log.
        read_log: Reads what a container wrote.
        dispatcher: Runs the steps that deal with stopped tasks; tells the time.
        secrets_of: The known secrets of a run, given its id.
        forget: Called with the id of a run whose last task has been dealt with.
        start_attempts: How often a task that never ran is started at most.
        cancel_grace: Seconds that a cancelled flow has to end by itself.
        deadlines: How long tasks may take.
        counts: Counts what is done.
        prices_of: The prices of a region.

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
        resumer: Resumer,
        reporter: Reporter,
        outages: OutageLog,
        logger: logging.Logger,
        read_log: ReadLog,
        dispatcher: Dispatcher,
        start_attempts: int,
        cancel_grace: float,
        deadlines: Deadlines = Deadlines(),  # noqa: B008  # a frozen value
        counts: Optional[AgentCounters] = None,
        secrets_of: Callable[[str], Sequence[str]] = lambda run_id: (),
        forget: Callable[[str], object] = lambda run_id: None,
        prices_of: costs.PricesOf = lambda region: None,
    ) -> None:
        self._client = client
        self._secrets_of = secrets_of
        self._forget = forget
        self._states = states
        self._claims = claims
        self._ecs = ecs
        self._submission = submission
        self._launcher = launcher
        self._resumer = resumer
        self._reporter = reporter
        self._outages = outages
        self._logger = logger
        self._read_log = read_log
        self._clock = dispatcher.clock
        self._start = dispatcher.start
        self._start_attempts = start_attempts
        self._cancel_grace = cancel_grace
        self._counts = counts or AgentCounters()
        self._prices_of = prices_of
        self._latest: Dict[str, str] = {}  # the latest known task, by run
        self._unsettled: Set[Tuple[str, str]] = set()  # runs and tasks to be settled
        self._starting: Set[str] = set()
        self._restarting: Set[str] = set()
        self.watcher = Watcher(
            ecs=ecs,
            dispatcher=dispatcher,
            on_stopped=self.on_stopped,
            outages=outages,
            logger=logger,
            deadlines=deadlines,
            on_overdue=self._stop_once,
        )

    def watch(self, task: Started) -> None:
        """Follow a task that was launched.

        It counts as the latest one of its run, unless it is late or the run has
        another one: then the API decides. If the run was started anew meanwhile, the
        task is stopped.
        """
        self.watcher.add(task.arn, task.cluster, task.run_id, task.launch)
        latest = self._latest.setdefault(task.run_id, task.arn)
        if task.is_late or latest != task.arn:
            self._unsettled.add((task.run_id, task.arn))
            self._start(self._settle(task))

    def _settle(self, task: Started) -> Steps[None]:
        """Find out which task of a run is the latest; until then none is stopped."""
        run_id, launch = task.run_id, task.launch
        try:
            is_superseded = yield from self._claims.is_superseded(
                run_id, launch.name, launch.attempt
            )
            if not is_superseded:
                self._latest[run_id] = task.arn
            elif not task.was_listed:  # or it may be the task of the later launch
                superseded = self.watcher.get(task.arn)
                if superseded:
                    superseded.is_superseded = True
            latest = self.watcher.get(self._latest.get(run_id, ""))
            if latest is None or latest.is_superseded:
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
        """Follow a task that was found; the run may have a later one by now."""
        if run_id not in self._launcher.pending_run_ids:
            self._latest.setdefault(run_id, task_arn)
        self._starting.add(run_id)  # it may have been starting for a long time
        self.watcher.add(task_arn, cluster, run_id, launch)

    def is_at_work(self, run_id: str) -> bool:
        """Whether a run has a watched task that is neither stopped nor stopping."""
        return self.watcher.is_up(self._latest.get(run_id, ""))

    def is_watched(self, run_id: str) -> bool:
        """Whether a task of the run has not been dealt with yet."""
        return run_id in self._latest

    def restarting(self) -> Set[str]:
        """Runs whose task is about to be started again."""
        return set(self._restarting)

    def slow_starters(self) -> Set[str]:
        """Runs that need a heartbeat because their task has not started.

        A first launch sent a heartbeat when it claimed its run, so such a run is
        included only if its task had not started at the previous call either. A
        resumed run is always included: the server's Lazarus takes it for dead sooner.
        Runs whose task ECS has not shown are left out: their task may not exist.
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

    def on_stopped(self, watched: Watched, task: Optional[Task]) -> Steps[None]:
        """Decide what a stopped task means, and do it.

        Args:
            watched: The task.
            task: As described; None if ECS does not know it any more.
        """
        run_id = watched.flow_run_id
        while self._is_unsettled(run_id):
            yield Pause(_SETTLING)
        is_done = is_told = False
        while not is_done:
            decision, row = yield from self._decide(watched, task)
            if task and not is_told:
                is_told = True
                self._tell_phases(watched, task, row)
            if decision.verdict is Verdict.RESUME:
                decision = yield from self._resume(watched, task, decision, row)
            self._logger.debug(
                "Task %s has stopped: %s (%s)",
                watched.task_arn,
                decision.verdict.value,
                decision.why,
                extra=log_context(run_id, watched.task_arn),
            )
            is_done = yield from self._act(watched, task, decision, row)
        self._tell_memory(row)
        self._counts.stopped_tasks.add(_ENDINGS[decision.verdict])
        if self._is_latest(watched) and not self._is_unsettled(run_id):
            self._forget_latest(run_id)

    def _tell_memory(self, row: Mapping[str, Any]) -> None:
        """Say which size sufficed at last, if a task of a run lacked memory before."""
        record = self._claims.latest(row) if row["state"] == "Success" else None
        if record and record.memory:
            self._reporter.log(
                row["id"],
                f"The run has succeeded with {record.memory} MiB of memory; let it "
                f"start so: ECSRun(cpu={record.cpu}, memory={record.memory})",
            )

    def _tell_phases(
        self, watched: Watched, task: Task, row: Mapping[str, Any]
    ) -> None:
        """Say how long each phase of a task took and what it used, and count that."""
        taken = phases.of_task(task, row, watched.launch)
        for phase, seconds in taken.items():
            self._counts.task_phases[phase].observe(seconds)
        flow = row.get("flow") or {}
        cost = costs.cost_of(task, self._prices_of)
        if cost:
            self._count_cost(flow.get("name") or "unknown", cost)
        line = phases.line(task, taken, costs.sentence(cost) if cost else "")
        if line:
            run_id, project = watched.flow_run_id, flow.get("project") or {}
            about = log_context(
                run_id,
                watched.task_arn,
                flow=flow.get("name"),
                project=project.get("name"),
                labels=row.get("labels"),
            )
            self._reporter.log(run_id, line)
            self._logger.info("Flow run %s: %s", run_id, line, extra=about)

    def _count_cost(self, flow: str, cost: costs.Cost) -> None:
        counts = self._counts
        counts.task_vcpu_seconds.add(flow, amount=cost.vcpu_hours * 3600)
        counts.task_gb_seconds.add(flow, amount=cost.gb_hours * 3600)
        counts.task_dollars.add(flow, amount=cost.dollars or 0.0)

    def _decide(
        self, watched: Watched, task: Optional[Task]
    ) -> Steps[Tuple[Decision, Mapping[str, Any]]]:
        """Decide, if need be at a second look; returns the run as the API has it too.

        The first look leaves some cases open, see `Verdict.LOOK_AGAIN`.
        """
        confirmed = False
        while True:
            row = (yield from self._states.of(watched.flow_run_id)) or {"state": "gone"}
            task_run_states = [each["state"] for each in row.get("task_runs") or ()]
            run = Run(
                state=row["state"],
                waits=waits(task_run_states),
                taken_over=self._is_taken_over(watched, row),
                is_claimed=bool(claimed_task_runs(row)),
                was_ended_by_stop=was_ended_by_stop(task, row),
            )
            decision = decide(
                task, run, watched.launch, self._start_attempts, confirmed
            )
            if decision.verdict is not Verdict.LOOK_AGAIN:
                return decision, row
            yield Pause(GRACE)
            confirmed = True

    def _is_taken_over(self, watched: Watched, row: Mapping[str, Any]) -> bool:
        """Whether the run was launched again, or is being launched again just now."""
        run_id, launch = watched.flow_run_id, watched.launch
        if run_id in self._launcher.pending_run_ids or run_id in self._restarting:
            return True
        if not self._is_latest(watched):
            return True
        record = self._claims.latest(row)
        if record:
            return not record.is_same_start(launch.name, launch.attempt)
        agent_id = row.get("agent_id")  # an API that drops the context tells no more
        return bool(agent_id) and agent_id != self._client.agent_id

    def _is_latest(self, watched: Watched) -> bool:
        """Whether this agent knows no later task of the run."""
        latest = self._latest.get(watched.flow_run_id)
        return latest is None or latest == watched.task_arn

    def _act(
        self,
        watched: Watched,
        task: Optional[Task],
        decision: Decision,
        row: Mapping[str, Any],
    ) -> Steps[bool]:
        """Carry out a decision; False if the run has changed since."""
        run_id, is_unchanged = watched.flow_run_id, unchanged_since(row)
        if decision.verdict is Verdict.LOOK_AGAIN:
            return False
        if decision.verdict is Verdict.RELAUNCH:
            yield from self._relaunch(watched, task, decision, row)
        elif decision.verdict is Verdict.FAIL:
            explanation = yield from self._explain(watched, task, decision)
            self._logger.error(
                "Flow run %s has failed: %s",
                run_id,
                explanation.message,
                extra=log_context(run_id, watched.task_arn),
            )
            return (
                yield from self._reporter.mark_failed(
                    run_id, is_unchanged, explanation.message, explanation.log
                )
            )
        elif decision.verdict is Verdict.CANCEL:
            message = "The run was cancelled, and its task has ended."
            return (
                yield from self._reporter.mark_cancelled(run_id, is_unchanged, message)
            )
        return True

    def _explain(
        self, watched: Watched, task: Optional[Task], decision: Decision
    ) -> Steps[Explanation]:
        """Explain a decision, with the task's definition if it can be read at once."""
        definition = yield from self._definition_of(task)
        lines: Sequence[str] = ()
        if decision.started and definition:
            lines = self._read_log(watched.task_arn, definition)
        secrets = self._secrets_of(watched.flow_run_id)
        return explain(watched.task_arn, task, definition, decision, lines, secrets)

    def _definition_of(
        self, task: Optional[Task]
    ) -> Steps[Optional[Mapping[str, Any]]]:
        """A task's definition; None if it cannot be read at once."""
        name = (task or {}).get("taskDefinitionArn")
        if name:
            only_once = RetryBudget(0.0, 0.0, lambda: 0.0)
            with suppress(PrefectECSError):
                found: Mapping[str, Any]
                found = yield from self._submission.described(name, only_once)
                return found
        return None

    def _resume(
        self,
        watched: Watched,
        task: Optional[Task],
        decision: Decision,
        row: Mapping[str, Any],
    ) -> Steps[Decision]:
        """Have a run go on in another task, and tell people; see `Resumer.resume`."""
        definition = yield from self._definition_of(task)
        stopped = StoppedTask(watched.task_arn, task or {}, definition, decision, row)
        decision = yield from self._resumer.resume(stopped)
        if decision.verdict is Verdict.RESUME:
            yield from self._warn(watched, task, decision)
        return decision

    def _warn(
        self, watched: Watched, task: Optional[Task], decision: Decision
    ) -> Steps[None]:
        """Explain a decision in the agent's log and in the run's."""
        run_id = watched.flow_run_id
        explanation = yield from self._explain(watched, task, decision)
        about = log_context(run_id, watched.task_arn)
        self._logger.warning(
            "Flow run %s: %s", run_id, explanation.message, extra=about
        )
        self._reporter.log(run_id, explanation.log, "WARNING")

    def _relaunch(
        self,
        watched: Watched,
        task: Optional[Task],
        decision: Decision,
        seen: Mapping[str, Any],
    ) -> Steps[None]:
        """Launch a run again after a pause, unless the run has changed by then."""
        run_id, launch = watched.flow_run_id, watched.launch
        yield from self._warn(watched, task, decision)
        self._restarting.add(run_id)
        try:
            seconds = RELAUNCH_BACKOFF.seconds(launch.attempt, random.random())
            yield Pause(seconds, cause=Cause.RESTART)
            row = yield from self._claims.read_whole(run_id)
        finally:
            self._restarting.discard(run_id)
        if row is None or not is_unchanged(row, seen):
            self._logger.debug(
                "Flow run %s is not launched again: its state has changed since",
                run_id,
                extra=log_context(run_id, watched.task_arn),
            )
            return
        latest = self._claims.latest(row)
        again = LaunchRecord(
            launch.name,
            launch.attempt + 1,
            after=watched.task_arn,
            **(latest.carried() if latest else {}),
        )
        is_last = again.attempt == decision.limit
        if is_last and decision.stop_reason.is_about_spot:
            falls_back = self._launcher.may_fall_back(row, again)
            again = replace(again, on_demand=again.on_demand or falls_back)
        record = self._launcher.record_of(row, again)
        yield from self._launcher.launch(row, record, is_counted=True)

    # -- A run is cancelled -------------------------------------------------------

    def watch_cancellations(self) -> Steps[None]:
        """Stop the tasks of cancelled runs; sends nothing while no task is in flight.

        The server does not notify the agent when a run is cancelled.
        """
        while True:
            yield from self.watcher.until_occupied()
            yield Pause(_CANCEL_INTERVAL)
            for watched, reason in self._to_stop():
                self._stop_once(watched, reason)

    def _to_stop(self) -> List[Tuple[Watched, str]]:
        """The tasks that have to be stopped, each with the reason.

        Cancellations are kept per task, with the time at which this agent saw them: a
        cancelled run may have been restarted since, and have another task.
        """
        tasks = [each for each in self.watcher.in_flight() if not each.is_stopped]
        rows = self._cancelled({watched.flow_run_id for watched in tasks})
        if rows is None:
            return []
        found = []
        for watched in tasks:
            reason = self._reason_to_stop(watched, rows.get(watched.flow_run_id))
            if reason:
                found.append((watched, reason))
        return found

    def _cancelled(self, run_ids: Set[str]) -> Optional[Dict[str, Dict[str, Any]]]:
        """The cancelled ones among some runs; None if the API does not answer."""
        if not run_ids:
            return {}
        try:
            rows = self._client.cancelled_of(sorted(run_ids))
        except Exception as error:
            self._outages.begin(READING, error)
            return None
        self._outages.end(READING)
        return rows

    def _reason_to_stop(
        self, watched: Watched, cancelled: Optional[Mapping[str, Any]]
    ) -> str:
        if self._is_unsettled(watched.flow_run_id):
            return ""
        if watched.is_superseded:
            return STARTED_ANEW
        if not self._is_latest(watched):
            latest = self.watcher.get(self._latest.get(watched.flow_run_id, ""))
            if not (latest and latest.launch.resumed):
                return STARTED_ANEW
        if cancelled is None:
            watched.cancelled_since = None
            return ""
        if watched.cancelled_since is None:
            watched.cancelled_since = self._clock()
        seconds = self._clock() - watched.cancelled_since
        never_ran = cancelled["state"] == "Cancelled" and not cancelled["start_time"]
        return CANCELLED if never_ran or seconds >= self._cancel_grace else ""

    def _stop_once(self, watched: Watched, reason: str) -> None:
        """Stop a task, unless it was asked to stop already."""
        if not watched.is_ending and not watched.is_stop_requested:
            watched.is_stop_requested = True
            self._start(self._stop(watched, reason))

    def _stop(self, watched: Watched, reason: str) -> Steps[None]:
        """Stop a task with one request, and have the watcher look at it soon."""
        run_id, task_arn = watched.flow_run_id, watched.task_arn
        about = log_context(run_id, task_arn)
        is_stopped = False
        try:
            yield from self._ecs.stop_task(task_arn, watched.cluster, reason)
            is_stopped = True
        except AWSCallError as error:  # the next round tries again
            self._logger.warning(
                "Flow run %s: its task %s cannot be stopped (%s): %s",
                run_id,
                task_arn,
                reason,
                error,
                extra=about,
            )
            return
        finally:
            if not is_stopped:
                watched.is_stop_requested = False
        self.watcher.look_soon(task_arn)
        self._logger.info(
            "Flow run %s: its task %s is stopped: %s",
            run_id,
            task_arn,
            reason,
            extra=about,
        )
