"""The other tasks of a run that is launched: one run has one live task.

a run comes back for a task retry   its latest task may still be running, or another
                                    launch has claimed the run: then it is not launched
a run was started anew              the tasks of its earlier launches are stopped,
                                    whichever agent launched them; they are listed
                                    again later, because an earlier RunTask may still
                                    have been on its way
"""

from __future__ import annotations

import logging
from typing import Any, Callable, Mapping, NamedTuple, Optional, Sequence, Tuple

from ..aws.ecs import ECS, cluster_of, region_of
from ..aws.retrying import AWSCallError, is_worth_waiting
from ..launch_record import LaunchRecord, latest_claim, was_started_anew
from ..observability.log_formats import log_context
from ..observability.outage_log import OutageLog, retry_until_success
from ..scheduling.steps import Pause, Steps
from .claims import Claims

SEEING = "Other tasks of flow runs cannot be listed [other-tasks-unlisted]"
STOPPING = "Tasks of earlier launches cannot be stopped [earlier-tasks-not-stopped]"

#: Why a task that is not the latest of its run is stopped; its stoppedReason at ECS.
STARTED_ANEW = "The flow run was started anew and has another task"

#: Seconds from a launch until tasks of earlier launches are listed again, and from then
#: until they are listed for the last time. By then, a RunTask that was on its way has
#: been answered, and ListTasks shows its task.
_LATE = (3.0, 12.0)

#: Seconds for which a region other than the agent's is asked, if it does not answer.
_OTHER_REGION = 120.0


class EarlierTasks(NamedTuple):
    """Where tasks of earlier launches of a run are.

    Attributes:
        cluster: Their cluster's name or ARN.
        region: Their region; empty for the agent's own.
        last: The ARN of the last one, None if none can be seen.
        is_over: Whether none can come after it: later ones are of the launch itself.
    """

    cluster: str
    region: str
    last: Optional[str]
    is_over: bool = False


class OtherTasks:
    """Finds and stops the other tasks of a run that is launched.

    Args:
        claims: Reads launch records.
        ecs: ECS, paced.
        outages: Logs when ECS cannot be asked.
        logger: The agent's own log.
        start: Starts steps that nothing waits for.
        is_at_work: Whether the agent watches a task of a run that has not stopped.
        look_soon: Makes the watcher describe a task soon.
        region: The agent's own region.
        clock: Tells the time, in seconds.
    """

    def __init__(
        self,
        *,
        claims: Claims,
        ecs: ECS,
        outages: OutageLog,
        logger: logging.Logger,
        start: Callable[[Steps[None]], None],
        is_at_work: Callable[[str], bool],
        look_soon: Callable[[str], object],
        region: str,
        clock: Callable[[], float],
    ) -> None:
        self._claims = claims
        self._ecs = ecs
        self._outages = outages
        self._logger = logger
        self._start = start
        self._is_at_work = is_at_work
        self._look_soon = look_soon
        self._region = region
        self._clock = clock

    def has_task(
        self, row: Mapping[str, Any], now: Optional[Mapping[str, Any]]
    ) -> Steps[bool]:
        """Whether a run that comes back for a task retry has a task, or will have one.

        A task of an agent that writes no launch record is not found.

        Args:
            row: The run as the queue gave it.
            now: The run with the fields of `AgentClient.states_of`; None if it is gone.
        """
        if self._is_at_work(row["id"]):
            return True
        claim = latest_claim(now) if now else None
        if now is None or claim is None or claim.record is None:
            return False
        if self._claims.is_claimed_for_others(row, now):
            return True
        record = claim.record
        tasks = yield from self._tasks(row["id"], record.cluster, record.region)
        return bool(_at_work(tasks or ()))

    def earlier(self, row: Mapping[str, Any]) -> Steps[Optional[EarlierTasks]]:
        """The tasks of earlier launches of a run that was started anew.

        Args:
            row: The run as the queue gave it.

        Returns:
            None if the run was not launched before, or its tasks cannot be listed.
        """
        record = yield from self._claims.earlier_launch(row)
        if record is None:
            return None
        tasks = yield from self._tasks(row["id"], record.cluster, record.region)
        if tasks is None:
            return None
        last = str(tasks[-1]["taskArn"]) if tasks else None
        return EarlierTasks(record.cluster, record.region, last)

    def _tasks(
        self, run_id: str, cluster: str, region: str
    ) -> Steps[Optional[Sequence[Mapping[str, Any]]]]:
        """The tasks of a run where a launch of it put them; None if not to be seen."""
        try:
            return (
                yield from retry_until_success(
                    lambda: self._ecs.tasks_of(run_id, cluster, region or None),
                    self._outages,
                    SEEING,
                    self._is_final(region),
                )
            )
        except AWSCallError as refused:
            self._logger.warning(
                "Flow run %s is launched again, but the agent cannot list or stop a "
                "task of its earlier launch in cluster %s: %s",
                run_id,
                cluster,
                refused,
                extra=log_context(run_id),
            )
            return None

    def _is_final(self, region: str) -> Callable[[Exception], bool]:
        """Whether to stop asking a region after an error.

        The agent's own region is asked until it answers: without it, no task is started
        either. Another region may never answer.
        """
        until = self._clock() + _OTHER_REGION
        is_own = region in ("", self._region)

        def is_final(error: Exception) -> bool:
            is_over = not is_own and self._clock() > until
            return is_over or not is_worth_waiting(error)

        return is_final

    # -- Stopping --------------------------------------------------------------------

    def stop(self, run_id: str, earlier: EarlierTasks) -> Steps[None]:
        """Stop the tasks of earlier launches that are running.

        They are listed again, since one may have started meanwhile.

        Args:
            run_id: The run.
            earlier: What `earlier` returned.
        """
        tasks = yield from self._tasks(run_id, earlier.cluster, earlier.region)
        arns = [str(task["taskArn"]) for task in tasks or ()]
        if tasks and earlier.is_over:
            tasks = tasks[: arns.index(earlier.last) + 1 if earlier.last in arns else 0]
        for task_arn in _at_work(tasks or ()):
            yield from self._stop(run_id, task_arn, earlier.cluster)

    def stop_late(self, run_id: str, record: LaunchRecord, task_arn: str) -> None:
        """Look for tasks of earlier launches again after a while, and stop them.

        Args:
            run_id: The run.
            record: The run's launch.
            task_arn: The task that was started; it is kept.
        """
        if was_started_anew(run_id, record):
            self._start(self._stop_late(run_id, record, task_arn))

    def _stop_late(
        self, run_id: str, record: LaunchRecord, task_arn: str
    ) -> Steps[None]:
        earlier = yield from self._claims.earlier_records(run_id, record.name)
        places = {(each.cluster, each.region) for each in earlier}
        for seconds in _LATE:
            yield Pause(seconds)
            for cluster, region in places:
                tasks = yield from self._tasks(run_id, cluster, region)
                others = [arn for arn in _at_work(tasks or ()) if arn != task_arn]
                if not others or (
                    yield from self._claims.is_superseded(
                        run_id, record.name, record.attempt
                    )
                ):
                    continue  # one of them may be the task of the later launch
                for arn in others:
                    yield from self._stop(run_id, arn, cluster)

    def _stop(self, run_id: str, task_arn: str, cluster: str) -> Steps[None]:
        about = log_context(run_id, task_arn)
        try:
            yield from retry_until_success(
                lambda: self._ecs.stop_task(task_arn, cluster, STARTED_ANEW),
                self._outages,
                STOPPING,
                self._is_final(region_of(task_arn) or ""),
            )
        except AWSCallError as refused:
            self._logger.warning(
                "Flow run %s was started anew, but the agent cannot stop its earlier "
                "task %s; stop it by hand: %s",
                run_id,
                task_arn,
                refused,
                extra=about,
            )
            return
        self._look_soon(task_arn)
        self._logger.info(
            "Flow run %s: its task %s is stopped: %s",
            run_id,
            task_arn,
            STARTED_ANEW,
            extra=about,
        )


def up_to(task_arn: str) -> EarlierTasks:
    """A task of an earlier start or launch, and those of the run before it."""
    region = region_of(task_arn) or ""
    return EarlierTasks(cluster_of(task_arn), region, task_arn, is_over=True)


def _at_work(tasks: Sequence[Mapping[str, Any]]) -> Tuple[str, ...]:
    """The ARNs of the tasks that have not been asked to stop."""
    return tuple(
        str(task["taskArn"]) for task in tasks if task.get("desiredStatus") != "STOPPED"
    )
