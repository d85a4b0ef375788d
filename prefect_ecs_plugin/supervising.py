"""What is done about tasks after their launch.

Watcher -> a stopped task -> task_state.judge -> started again, Failed, or left
the API -> a cancelled run -> its task is stopped
"""

from __future__ import annotations

import logging
import random
from contextlib import suppress
from dataclasses import replace
from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Set, Tuple

import pendulum

from . import task_state
from .agent_log import of_run
from .api import AgentClient
from .counting import Counts, Ending
from .ecs import ECS
from .errors import PrefectECSError
from .flow_run import FlowRun
from .launching import Launcher
from .reporting import Reporter
from .retrying import Patience, Refused
from .run_states import READING, RunStates
from .submission import Submission
from .task_state import Explanation, Judgement, Launch, Run, Verdict
from .troubles import Troubles, insist
from .waiting import Cause, Pause, Steps, at_once
from .watcher import Watched, Watcher

#: Reads the last lines that the `flow` container of a task wrote.
ReadLog = Callable[[str, Mapping[str, Any]], Sequence[str]]

#: Seconds between two questions for cancelled runs.
_CANCEL_INTERVAL = 5.0

#: Seconds: how much further back a question reaches than it has to.
_OVERLAP = 60.0

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
        ecs: ECS, paced.
        submission: Knows the definitions of tasks.
        launcher: Starts a task again.
        reporter: Tells Prefect.
        troubles: Told what does not work.
        logger: The agent's own log.
        read_log: Reads what a container wrote.
        start_attempts: How often a task that never ran is started at most.
        cancel_grace: Seconds that a cancelled flow has to end by itself.
        counts: Counts what is done.

    Attributes:
        watcher: Set once, by whoever makes both.
    """

    watcher: Watcher

    def __init__(
        self,
        client: AgentClient,
        states: RunStates,
        ecs: ECS,
        submission: Submission,
        launcher: Launcher,
        reporter: Reporter,
        troubles: Troubles,
        logger: logging.Logger,
        read_log: ReadLog,
        start_attempts: int,
        cancel_grace: float,
        counts: Optional[Counts] = None,
    ) -> None:
        self._client = client
        self._states = states
        self._ecs = ecs
        self._submission = submission
        self._launcher = launcher
        self._reporter = reporter
        self._troubles = troubles
        self._logger = logger
        self._read_log = read_log
        self._start_attempts = start_attempts
        self._cancel_grace = cancel_grace
        self._counts = counts or Counts()
        self._latest: Dict[str, str] = {}
        self._starting: Set[str] = set()

    def watch(self, task_arn: str, cluster: str, run_id: str, launch: Launch) -> None:
        """Look after a task from now on."""
        self._latest[run_id] = task_arn
        self.watcher.add(task_arn, cluster, run_id, launch)

    def slow_starters(self) -> Set[str]:
        """Runs whose task has not started, and had not when this was last asked.

        Those whose task ECS has not shown are not among them: nobody knows whether
        somebody has to start them again.
        """
        starting = {
            watched.flow_run_id
            for watched in self.watcher.in_flight()
            if watched.last_status and not watched.has_started
        }
        slow, self._starting = starting & self._starting, starting
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
        is_done = False
        while not is_done:
            judgement, run = yield from self._judged(watched, task)
            self._logger.debug(
                "Task %s has stopped: %s (%s)",
                watched.task_arn,
                judgement.verdict.value,
                judgement.why,
                extra=of_run(watched.flow_run_id, watched.task_arn),
            )
            is_done = yield from self._act(watched, task, judgement, run)
        self._counts.stopped_tasks.add(_ENDINGS[judgement.verdict])
        if self._latest.get(watched.flow_run_id) == watched.task_arn:
            del self._latest[watched.flow_run_id]

    def _act(
        self,
        watched: Watched,
        task: Optional[Mapping[str, Any]],
        judgement: Judgement,
        run: Run,
    ) -> Steps[bool]:
        """Do what a judgement says; False if the run has another state by now."""
        seen = {"id": watched.flow_run_id, "state": run.state, "version": run.version}
        if judgement.verdict is Verdict.RELAUNCH:
            yield from self._relaunch(watched, task, judgement)
        elif judgement.verdict is Verdict.FAIL:
            told = yield from self._explained(watched, task, judgement)
            self._logger.error(
                "Flow run %s has failed: %s",
                watched.flow_run_id,
                told.message,
                extra=of_run(watched.flow_run_id, watched.task_arn),
            )
            return (yield from self._reporter.mark_failed(seen, told.message, told.log))
        elif judgement.verdict is Verdict.CANCEL:
            message = "The run was cancelled, and its task has ended."
            return (yield from self._reporter.mark_cancelled(seen, message))
        return True

    def _judged(
        self, watched: Watched, task: Optional[Mapping[str, Any]]
    ) -> Steps[Tuple[Judgement, Run]]:
        """Judge at the second look what the first one could not."""
        confirmed = False
        while True:
            run = yield from self._run(watched)
            judgement = task_state.judge(
                task, run, watched.launch, self._start_attempts, confirmed
            )
            if judgement.verdict is not Verdict.LOOK_AGAIN:
                return judgement, run
            yield Pause(task_state.GRACE)
            confirmed = True

    def _run(self, watched: Watched) -> Steps[Run]:
        """What the API says of a task's run, as soon as it says anything."""
        row = (yield from self._states.of(watched.flow_run_id)) or {"state": "gone"}
        task_run_states = [each["state"] for each in row.get("task_runs") or ()]
        return Run(
            state=row["state"],
            waits=task_state.waits(task_run_states),
            taken_over=self._is_taken_over(watched, row),
            version=row.get("version"),
        )

    def _is_taken_over(self, watched: Watched, row: Mapping[str, Any]) -> bool:
        """Whether the run was launched again, or is being launched again just now."""
        run_id, agent_id = watched.flow_run_id, row.get("agent_id")
        return (
            self._latest.get(run_id, watched.task_arn) != watched.task_arn
            or run_id in self._launcher.under_way
            or (bool(agent_id) and agent_id != self._client.agent_id)
        )

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
        return task_state.explain(watched.task_arn, task, definition, judgement, lines)

    def _definition(
        self, task: Optional[Mapping[str, Any]]
    ) -> Steps[Optional[Mapping[str, Any]]]:
        """The task's definition, if it can be read at once; the words do without."""
        name = (task or {}).get("taskDefinitionArn")
        if not name:
            return None
        patience = Patience(0.0, 0.0, lambda: 0.0)
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
    ) -> Steps[None]:
        run_id, launch = watched.flow_run_id, watched.launch
        told = yield from self._explained(watched, task, judgement)
        about = of_run(run_id, watched.task_arn)
        self._logger.warning("Flow run %s: %s", run_id, told.message, extra=about)
        self._reporter.log(run_id, told.log, "WARNING")
        steps = self._still_submitted_later(run_id, launch.attempt)
        row = yield from self._counts.waits.of(run_id, steps)
        if row:
            flow_run = replace(
                FlowRun.from_api(row),
                launch=launch.name or FlowRun.from_api(row).launch_name,
                attempt=launch.attempt + 1,
            )
            yield from self._launcher.launch(row, flow_run)

    def _still_submitted_later(
        self, run_id: str, attempt: int
    ) -> Steps[Optional[Dict[str, Any]]]:
        seconds = task_state.RELAUNCH_BACKOFF.seconds(attempt, random.random())
        self._launcher.under_way.add(run_id)
        try:
            yield Pause(seconds, cause=Cause.RESTART)
            return (yield from self._still_submitted(run_id))
        finally:
            self._launcher.under_way.discard(run_id)

    def _still_submitted(self, run_id: str) -> Steps[Optional[Dict[str, Any]]]:
        """The row of a run that nothing has happened to; else None."""

        ask = at_once(lambda: self._client.row(run_id))
        row = yield from insist(ask, self._troubles, READING)
        return row if row and row["state"] in ("Submitted", "Running") else None

    # -- A run is cancelled -------------------------------------------------------

    def watch_cancellations(self) -> Steps[None]:
        """Stop the tasks of cancelled runs; asks nothing while no task is in flight.

        The server tells nobody when a run is cancelled.
        """
        seen: Dict[str, float] = {}
        while True:
            yield Pause(_CANCEL_INTERVAL)
            tasks = {
                watched.flow_run_id: watched
                for watched in self.watcher.in_flight()
                if not watched.is_stopped
            }
            for run_id in set(seen).difference(tasks):
                del seen[run_id]
            for run_id in self._to_stop(self._cancelled(tasks), seen):
                yield from self._stop(tasks[run_id])

    def _cancelled(self, tasks: Mapping[str, Watched]) -> Dict[str, Dict[str, Any]]:
        """The cancelled runs among those that have a task."""
        if not tasks:
            return {}
        back = self._cancel_grace + _CANCEL_INTERVAL + _OVERLAP
        try:
            rows = self._client.cancelled_since(
                pendulum.now("UTC").subtract(seconds=back)
            )
        except Exception as error:
            self._troubles.begin(READING, error)
            return {}
        self._troubles.end(READING)
        return {run_id: row for run_id, row in rows.items() if run_id in tasks}

    def _to_stop(
        self, cancelled: Mapping[str, Mapping[str, Any]], seen: Dict[str, float]
    ) -> Set[str]:
        """Those whose flow never started, and those that had their time to end."""
        now = pendulum.now("UTC").timestamp()
        never_ran = {
            run_id
            for run_id, row in cancelled.items()
            if row["state"] == "Cancelled" and not row.get("start_time")
        }
        for run_id in cancelled:
            seen.setdefault(run_id, now)
        over = {
            run_id
            for run_id, since in seen.items()
            if now - since >= self._cancel_grace
        }
        return never_ran | over

    def _stop(self, watched: Watched) -> Steps[None]:
        request = {
            "cluster": watched.cluster,
            "task": watched.task_arn,
            "reason": "The flow run was cancelled",
        }
        about = of_run(watched.flow_run_id, watched.task_arn)
        try:
            yield from self._ecs.call("StopTask", request)
        except Refused as refused:  # the next round tries again
            self._logger.warning(
                "Flow run %s was cancelled, and its task %s cannot be stopped: %s",
                watched.flow_run_id,
                watched.task_arn,
                refused,
                extra=about,
            )
        else:
            self._logger.info(
                "Flow run %s was cancelled; its task %s is stopped",
                watched.flow_run_id,
                watched.task_arn,
                extra=about,
            )
