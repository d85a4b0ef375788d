"""What an agent does when it starts about the runs that it had in hand before.

    the API -> runs that this agent's id took and that have not ended
    ECS     -> their tasks
               found: looked after again
               none, and the run is Submitted: launched, under the launch's own name,
               unless its heartbeat shows that another agent has it in hand, or its
               state that Prefect's own agent took it

A crash between any two calls therefore loses nothing; and since the name of a launch
is its clientToken, it starts nothing twice either.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, Callable, Dict, Mapping, Optional, Sequence

import pendulum

from .agent_log import of_run
from .api import AgentClient
from .counting import Counts
from .ecs import ECS, was_created_since
from .flow_run import FlowRun, was_taken_here
from .launching import DEFAULT_CLUSTER, Launcher
from .retrying import WORTH_WAITING, Refused
from .run_states import RunStates
from .strays import Strays
from .task_state import Launch
from .troubles import Troubles, insist
from .waiting import Cause, Pause, Steps, at_once

#: Seconds until a task that was started shows itself for certain, and in which an agent
#: of the same name that is alive sends a heartbeat for each run that it has in hand.
SETTLE = 30.0

RUNS = "The flow runs that this agent had in hand cannot be read"
TASKS = "The tasks of flow runs that this agent had in hand cannot be listed"

#: Looks after a task: its ARN, its cluster, its run, its launch.
WatchTask = Callable[[str, str, str, Launch], None]

#: Finds the tasks of a run in a cluster.
TasksOf = Callable[[str, str], Steps[Sequence[Mapping[str, Any]]]]


class Recovery:
    """Finds runs that an earlier agent of this name left behind.

    Args:
        client: The client of the Prefect API.
        states: Asks it what became of runs.
        ecs: ECS, paced.
        launcher: Launches runs that have no task.
        watch: Looks after tasks that are there.
        troubles: Told what does not work.
        logger: The agent's own log.
        start: Starts the steps for each run.
        counts: Told which runs wait.
    """

    def __init__(
        self,
        client: AgentClient,
        states: RunStates,
        ecs: ECS,
        launcher: Launcher,
        watch: WatchTask,
        troubles: Troubles,
        logger: logging.Logger,
        start: Callable[..., None],
        counts: Optional[Counts] = None,
    ) -> None:
        self._waits = (counts or Counts()).waits
        self._client = client
        self._states = states
        self._ecs = ecs
        self._strays = Strays(ecs)
        self._launcher = launcher
        self._watch = watch
        self._troubles = troubles
        self._logger = logger
        self._start = start

    def recover(self) -> Steps[None]:
        """Find the runs, and start looking after each."""

        rows = yield from insist(
            at_once(self._client.runs_in_hand), self._troubles, RUNS
        )
        if rows:
            self._logger.info(
                "Looking after %d flow runs that an agent of this name had in hand",
                len(rows),
            )
        for row in rows:
            self._start(self._recover_run(row), run_id=row["id"])

    def _recover_run(self, row: Dict[str, Any]) -> Steps[None]:
        if (yield from self._found(row)) or row["state"] != "Submitted":
            return
        if not was_taken_here(row):
            yield from self._waits.of(row["id"], self._recover_stray(row))
        elif (yield from self._waits.of(row["id"], self._is_left(row))):
            self._logger.info(
                "Flow run %s has no task; it is launched",
                row["id"],
                extra=of_run(row["id"]),
            )
            yield from self._launcher.launch(row, _as_it_was_taken(row))

    def _is_left(self, row: Mapping[str, Any]) -> Steps[bool]:
        """Whether a run has no task even after a while, and nobody looks after it."""
        heartbeat, is_looked_after = row["heartbeat"], True
        while is_looked_after:
            yield Pause(SETTLE, cause=Cause.RECOVERY)
            if (yield from self._found(row)):
                return False
            now = yield from self._states.of(row["id"])
            if now is None or not _is_unchanged(row, now):
                return False
            is_looked_after = now["heartbeat"] != heartbeat
            heartbeat = now["heartbeat"]
        return True

    def _found(self, row: Mapping[str, Any]) -> Steps[bool]:
        """Whether a run has a task; if so, it is looked after."""
        cluster = self._cluster(row)
        tasks = yield from self._tasks(self._ecs.tasks_of, row["id"], cluster)
        return self._look_after(tasks, row, cluster)

    def _recover_stray(self, row: Mapping[str, Any]) -> Steps[None]:
        """Prefect's own agent took this run, and may have started a task for it.

        If it did not, the API's Lazarus returns the run to the queue by itself.
        """
        yield Pause(SETTLE, cause=Cause.RECOVERY)
        cluster = self._cluster(row)
        tasks = yield from self._tasks(self._strays.tasks_of, row["id"], cluster)
        if not self._look_after(tasks, row, cluster):
            self._logger.warning(
                "Flow run %s was taken by an agent of Prefect's own, and no task of it "
                "can be found in cluster %s; it is left alone. If it stays Submitted, "
                "set it to Scheduled",
                row["id"],
                cluster,
                extra=of_run(row["id"]),
            )

    def _look_after(
        self, tasks: Sequence[Mapping[str, Any]], row: Mapping[str, Any], cluster: str
    ) -> bool:
        mine = [task for task in tasks if _is_of_this_launch(task, row)]
        if not mine:
            return False
        flow_run = _as_it_was_taken(row)
        resumed = row["state"] != "Submitted"
        launch = Launch(len(mine), resumed, flow_run.launch_name)
        task_arn = mine[-1]["taskArn"]
        self._logger.info(
            "Flow run %s: its task %s is looked after",
            row["id"],
            task_arn,
            extra=of_run(row["id"], task_arn),
        )
        self._watch(task_arn, cluster, row["id"], launch)
        return True

    def _cluster(self, row: Mapping[str, Any]) -> str:
        try:
            return self._launcher.cluster_of(row)
        except Exception:  # a damaged run config; launching says so, in the run's log
            return DEFAULT_CLUSTER

    def _tasks(
        self, tasks_of: TasksOf, run_id: str, cluster: str
    ) -> Steps[Sequence[Mapping[str, Any]]]:
        try:
            return (
                yield from insist(
                    lambda: tasks_of(run_id, cluster),
                    self._troubles,
                    TASKS,
                    _is_final,
                )
            )
        except Refused as refused:
            self._logger.warning(
                "Flow run %s may have a task that the agent cannot see: %s",
                run_id,
                refused,
                extra=of_run(run_id),
            )
            return []


def _is_unchanged(row: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    return all(now[key] == row[key] for key in ("state", "version", "agent_id"))


def _is_final(error: Exception) -> bool:
    return isinstance(error, Refused) and error.verdict not in WORTH_WAITING


def _is_of_this_launch(task: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """A task from before the run was taken belongs to an earlier launch of it."""
    if row["state"] != "Submitted":
        return True
    taken: Any = pendulum.parse(row["state_timestamp"])
    return was_created_since(task, taken.timestamp())


def _as_it_was_taken(row: Mapping[str, Any]) -> FlowRun:
    """The run in the state in which it was taken: the one before Submitted.

    Each change of state adds one to the version, and a Submitted state holds the
    one before it.
    """
    flow_run = FlowRun.from_api(row)
    if row["state"] != "Submitted":
        return flow_run
    before = {**row, "serialized_state": row["serialized_state"].get("state") or {}}
    return replace(FlowRun.from_api(before), version=flow_run.version - 1)
