"""Asks ECS how the tasks in flight are doing, and hands over those that stopped.

Guarantees:

* No call describes more than 100 tasks or tasks of two clusters; there are never two
  at once, and at most five begin in any second.
* Where nothing is in flight nothing is called, and nothing wakes up.
* A task is handed over when it has STOPPED, or when ECS has not known it for a while,
  and again if dealing with it failed. It is in flight until that has succeeded.
* No failure ends the watch, and none in one cluster holds up another. Each kind is
  told once, and once more when it is over.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
from concurrent.futures import Future, InvalidStateError
from typing import Any, Callable, Dict, List, Mapping, Optional

from ..agent_log import of_run
from ..dispatcher import Dispatcher
from ..ecs import DESCRIBED_AT_ONCE, ECS, answer_of
from ..retrying import Refused, Verdict
from ..task_state import Launch
from ..troubles import Troubles
from ..waiting import Pause, Result, Steps, overheard
from .roster import Roster, Watched

#: Seconds between the beginnings of two calls. ECS allows 20 a second, which others
#: in the account use too; 10,000 tasks are seen in 21 s.
SPACING = 0.21

#: Seconds for which ECS may not know a task before it counts as gone. What has just
#: been launched may be MISSING at first; AWS says to ask for up to five minutes:
#: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RunTask.html
MISSING_GRACE = 300.0

#: Seconds until a task is handed over again after dealing with it has failed.
RETRY = 30.0

#: Throttles in a row that are no trouble: others in the account have asked more, and
#: the pacer gives way to them.
GIVES_WAY = 3

SEEING = "The agent cannot see how its tasks are doing"

#: Tasks as described, by their ARN; None for one that ECS does not know.
_Found = Dict[str, Optional[Mapping[str, Any]]]

#: Deals with a task that has stopped: as described, or None if ECS has lost it.
Handler = Callable[[Watched, Optional[Mapping[str, Any]]], Steps[None]]


class Watcher:
    """Watches tasks; `watch` are its steps, driven by the dispatcher like any others.

    Args:
        ecs: ECS, paced.
        dispatcher: Drives the steps that deal with stopped tasks; tells the time.
        on_stopped: Makes those steps. The task is in flight until they end; an
            exception that they let out is logged, and they are made again later.
        troubles: Told what does not work.
        logger: The agent's own log.
        missing_grace: Seconds for which ECS may not know a task.
    """

    def __init__(
        self,
        ecs: ECS,
        dispatcher: Dispatcher,
        on_stopped: Handler,
        troubles: Troubles,
        logger: logging.Logger,
        missing_grace: float = MISSING_GRACE,
    ) -> None:
        self._ecs = ecs
        self._dispatcher = dispatcher
        self._on_stopped = on_stopped
        self._troubles = troubles
        self._logger = logger
        self._missing_grace = missing_grace
        self._roster = Roster()
        self._began = 0.0
        self._alarm: Future[None] = Future()
        self._stopped = False

    # -- What the agent calls, from any thread ------------------------------------

    def add(
        self,
        task_arn: str,
        cluster: str,
        flow_run_id: str,
        launch: Launch = Launch(),  # noqa: B008  # a frozen value
        at_once: bool = False,
    ) -> None:
        """Watch a task from now on; one that is watched already stays as it is.

        Args:
            task_arn: The task.
            cluster: The cluster's name or ARN.
            flow_run_id: The run that it runs.
            launch: How it came to be.
            at_once: Look at it as soon as possible, as at one of unknown age.
        """
        watched = Watched(task_arn, cluster, flow_run_id, launch)
        if self._roster.add(watched, self._dispatcher.clock(), at_once):
            _ring(self._alarm)

    def look_soon(self, task_arn: str) -> None:
        """To be replaced."""

    def forget(self, task_arn: str) -> None:
        """Watch a task no longer, if it was watched."""
        cluster = self._roster.forget(task_arn)
        if cluster is not None:  # what nobody looks at is no trouble
            self._troubles.end(SEEING, _place(cluster))

    def in_flight(self) -> List[Watched]:
        """Every watched task, those whose end is being dealt with included."""
        return self._roster.all()

    def __len__(self) -> int:
        return len(self._roster)

    def stop(self) -> None:
        """End the watch; a call under way is finished first."""
        self._stopped = True
        _ring(self._alarm)

    # -- The watch ------------------------------------------------------------------

    def watch(self) -> Steps[None]:
        """Look at tasks when they are due, until `stop`."""
        while True:
            alarm = self._set_alarm()
            if self._stopped:
                return
            due = self._roster.next_due()
            now = self._dispatcher.clock()
            if due is not None and due <= now:
                yield from self._look(now)
                continue
            if due is not None:
                self._dispatcher.call_later(due - now, functools.partial(_ring, alarm))
            yield alarm

    def _set_alarm(self) -> Future[None]:
        """What ends the next wait. It is set before looking whether to wait."""
        self._alarm = Future()
        return self._alarm

    def _look(self, now: float) -> Steps[None]:
        """Make one call, and keep the distance to the next."""
        batch = self._roster.take(now, DESCRIBED_AT_ONCE)
        if batch:
            yield from self._describe(batch)
            yield Pause(self._began + SPACING - self._dispatcher.clock())

    def _describe(self, batch: List[Watched]) -> Steps[None]:
        cluster = batch[0].cluster
        request = {"cluster": cluster, "tasks": [each.task_arn for each in batch]}
        call = self._ecs.call("DescribeTasks", request)
        try:
            found = _found((yield from self._timed(call)))
        except Exception as error:  # of any kind: the watch goes on
            self._give_way(batch, _refusal(error))
        else:
            self._roster.succeeded(cluster)
            self._troubles.end(SEEING, _place(cluster))
            self._sort(batch, found)

    def _timed(self, call: Steps[Result]) -> Steps[Result]:
        """A call's own steps; it begins when it waits no more."""
        self._begin()
        return overheard(call, lambda wait: None, self._begin)

    def _begin(self) -> None:
        self._began = self._dispatcher.clock()

    def _give_way(self, batch: List[Watched], refused: Refused) -> None:
        """Leave a cluster alone for a while."""
        now, cluster = self._dispatcher.clock(), batch[0].cluster
        failures = self._roster.failed(cluster, now)
        if refused.verdict is not Verdict.THROTTLED or failures > GIVES_WAY:
            self._troubles.begin(SEEING, refused, _place(cluster))
        if refused.answer.code == "ClusterNotFoundException":  # so are its tasks
            self._sort(batch, dict.fromkeys(watched.task_arn for watched in batch))
            return
        for watched in batch:
            self._roster.put_back(watched, now)

    # -- What was seen ----------------------------------------------------------------

    def _sort(self, batch: List[Watched], found: _Found) -> None:
        """Hand over what is over; look at the others again."""
        now = self._dispatcher.clock()
        for watched in batch:
            task = found.get(watched.task_arn)
            if watched.task_arn in found and self._is_over(watched, task, now):
                watched.is_stopped = True
                self._dispatcher.start(
                    self._hand_over(watched, task), run_id=watched.flow_run_id
                )
            else:
                self._roster.put_back(watched, now)

    def _is_over(
        self, watched: Watched, task: Optional[Mapping[str, Any]], now: float
    ) -> bool:
        if task is not None:
            watched.missing_since = None
            watched.last_status = sys.intern(str(task.get("lastStatus")))
            return watched.last_status == "STOPPED"
        if watched.missing_since is None:
            watched.missing_since = now
        return now - watched.missing_since >= self._missing_grace

    def _hand_over(
        self, watched: Watched, task: Optional[Mapping[str, Any]]
    ) -> Steps[None]:
        if watched.is_forgotten:
            return
        try:
            yield from self._on_stopped(watched, task)
        except Exception as error:  # the run would be lost in silence
            about = of_run(watched.flow_run_id, watched.task_arn)
            self._logger.error(
                "Flow run %s: its stopped task %s could not be dealt with, next try in "
                "%.0f s: %s: %s",
                watched.flow_run_id,
                watched.task_arn,
                RETRY,
                type(error).__name__,
                error,
                extra=about,
            )
            self._logger.debug("The error in full", exc_info=error, extra=about)
            yield Pause(RETRY)
            watched.is_stopped = False
            self._roster.put_back(watched, self._dispatcher.clock())
            _ring(self._alarm)
        else:
            self.forget(watched.task_arn)


def _found(answer: Mapping[str, Any]) -> _Found:
    """What ECS says of each task; one of which it says nothing is left out."""
    missing = {failure["arn"]: None for failure in answer.get("failures") or ()}
    return {**missing, **{task["taskArn"]: task for task in answer["tasks"]}}


def _place(cluster: str) -> str:
    return f"in cluster {cluster}"


def _refusal(error: Exception) -> Refused:
    """What an answer means that could not be read, or never came."""
    if isinstance(error, Refused):
        return error
    return Refused("DescribeTasks", answer_of(error))


def _ring(alarm: Future[None]) -> None:
    with contextlib.suppress(InvalidStateError):  # it rang already
        alarm.set_result(None)
