"""Asks ECS how the tasks in flight are doing, and hands over those that stopped.

Guarantees:

* No call describes more than 100 tasks or tasks of two clusters; there are never two
  at once, and at most five begin in any second.
* Where nothing is in flight nothing is called, and nothing wakes up.
* A task is handed over when it has STOPPED, or when ECS has not known it for a while,
  and again if dealing with it failed. It is in flight until that has succeeded.
* No failure ends the watch, and none in one cluster holds up another. Each kind is
  told once, and once more when it is over.
* A task because of which ECS refuses a whole call is found by halving the call, told
  once, and described alone from then on. The others of the call are described.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from concurrent.futures import Future, InvalidStateError
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from ...aws.ecs import DESCRIBED_AT_ONCE, ECS, answer_of
from ...aws.retrying import AWSCallError, Verdict
from ...launch_record import Launch
from ...observability.log_formats import log_context
from ...observability.outage_log import OutageLog
from ...scheduling.dispatcher import Dispatcher
from ...scheduling.steps import Pause, Steps, Wait
from .poll_queue import Place, PollQueue, Watched

#: Seconds between the beginnings of two calls. ECS allows 20 a second, which others
#: in the account use too; 10,000 tasks are seen in 21 s.
SPACING = 0.21

#: Seconds after which the watch looks what is due at the latest, while tasks are in
#: flight. Shorter than the time until any look that is added meanwhile.
TICK = 1.0

#: Seconds for which ECS may not know a task before it counts as gone. What has just
#: been launched may be MISSING at first; AWS says to ask for up to five minutes:
#: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RunTask.html
MISSING_GRACE = 300.0

#: Seconds until a task is handed over again after dealing with it has failed.
RETRY = 30.0

#: Throttles in a row that are no trouble: others in the account have asked more, and
#: the pacer gives way to them.
GIVES_WAY = 3

#: Final answers that are about what a request names, and so perhaps about one of its
#: tasks: "Identifier is for cluster X. Your cluster is Y".
_ABOUT_CONTENT = frozenset(
    {
        "ClientException",
        "InvalidParameterException",
        "ParamValidationError",
        "SerializationException",
        "ValidationException",
    }
)

SEEING = "The agent cannot see how its tasks are doing [tasks-unreadable]"

#: A task as described; None for one that ECS does not know.
_Task = Optional[Mapping[str, Any]]

#: Tasks by their ARN.
_Found = Dict[str, _Task]

#: Deals with a task that has stopped: as described, or None if ECS has lost it.
Handler = Callable[[Watched, _Task], Steps[None]]


class Watcher:
    """Watches tasks; `watch` are its steps, driven by the dispatcher like any others.

    Args:
        ecs: ECS, paced.
        dispatcher: Drives the steps that deal with stopped tasks; tells the time.
        on_stopped: Makes those steps. The task is in flight until they end; an
            exception that they let out is logged, and they are made again later.
        troubles: Told what does not work.
        logger: The agent's own log.
    """

    def __init__(
        self,
        *,
        ecs: ECS,
        dispatcher: Dispatcher,
        on_stopped: Handler,
        troubles: OutageLog,
        logger: logging.Logger,
    ) -> None:
        self._ecs = ecs
        self._dispatcher = dispatcher
        self._on_stopped = on_stopped
        self._troubles = troubles
        self._logger = logger
        self._queue = PollQueue()
        self._began = 0.0
        self._filled: Future[None] = Future()

    # -- What the agent calls, from any thread ------------------------------------

    def add(
        self,
        task_arn: str,
        cluster: str,
        flow_run_id: str,
        launch: Launch = Launch(),  # noqa: B008  # a frozen value
    ) -> None:
        """Watch a task from now on; one that is watched already stays as it is.

        Args:
            task_arn: The task. Its region is the one in this ARN.
            cluster: The cluster's name or ARN.
            flow_run_id: The run that it runs.
            launch: How it came to be.
        """
        watched = Watched(task_arn, cluster, flow_run_id, launch)
        self._queue.add(watched, self._dispatcher.clock())
        self._queue_is_filled()

    def look_soon(self, task_arn: str) -> None:
        """Look at a task within 5 s, and then every 5 s until it is STOPPED.

        Made for tasks that were asked to stop. Nothing happens if the task is not
        watched.
        """
        self._queue.look_soon(task_arn, self._dispatcher.clock())

    def forget(self, task_arn: str) -> None:
        """Watch a task no longer, if it was watched."""
        place = self._queue.forget(task_arn)
        if place is not None:  # what is not looked at is no trouble
            self._troubles.end(SEEING, _words(place))

    def is_watched(self, task_arn: str) -> bool:
        """Whether a task is watched; one whose end is being dealt with is."""
        return self._queue.get(task_arn) is not None

    def is_up(self, task_arn: str) -> bool:
        """Whether a task can be seen, and was not on its way down when last seen."""
        watched = self._queue.get(task_arn)
        if watched is None or watched.is_stopped or watched.is_down:
            return False
        return not self._queue.is_failing(watched.place)

    def in_flight(self) -> List[Watched]:
        """Every watched task, those whose end is being dealt with included."""
        return self._queue.all()

    def __len__(self) -> int:
        return len(self._queue)

    # -- The watch ------------------------------------------------------------------

    def watch(self) -> Steps[None]:
        """Look at tasks when they are due, for ever."""
        while True:
            now = self._dispatcher.clock()
            batch = self._queue.take(now, DESCRIBED_AT_ONCE)
            if batch:
                yield from self._look(batch)
                yield self._spacing()
            else:
                yield self._until_due(now)

    def _until_due(self, now: float) -> Wait:
        """A tick; longer only while no task waits for a look."""
        filled: Future[None] = Future()
        self._filled = filled  # before looking whether there is a task
        due = self._queue.next_due()
        return filled if due is None else Pause(min(TICK, due - now))

    def _queue_is_filled(self) -> None:
        with contextlib.suppress(InvalidStateError):  # it was known already
            self._filled.set_result(None)

    def _spacing(self) -> Pause:
        """What is left of the distance between the beginnings of two calls."""
        return Pause(self._began + SPACING - self._dispatcher.clock())

    def _look(self, batch: List[Watched]) -> Steps[None]:
        """Look at tasks of one place; then hand over what is over, put back the rest.

        No exception loses a task: each is put back or handed over.
        """
        over: List[Tuple[Watched, _Task]] = []
        try:
            yield from self._describe(batch, over)
        finally:
            for watched, _ in over:
                watched.is_stopped = True
            rest = [watched for watched in batch if not watched.is_stopped]
            self._queue.put_back(rest, self._dispatcher.clock())
            for watched, task in over:
                self._dispatcher.start(
                    self._hand_over(watched, task), run_id=watched.flow_run_id
                )

    def _describe(
        self, batch: List[Watched], over: List[Tuple[Watched, _Task]]
    ) -> Steps[bool]:
        """Describe tasks of one place, in one call if ECS takes them in one.

        Args:
            batch: The tasks.
            over: Those that are over are added to it, as described.

        Returns:
            Whether ECS has answered; if not, there is no use in asking more now.
        """
        place = batch[0].place
        try:
            found = yield from self._call(place, batch)
        except Exception as error:  # of any kind: the watch goes on
            refused = _refusal(error)
            if _is_about_content(refused):
                return (yield from self._describe_halves(batch, refused, over))
            over += self._give_way(place, batch, refused)
            return False
        self._queue.succeeded(place)
        self._troubles.end(SEEING, _words(place))
        for watched in batch:
            watched.is_refused = False
        over += self._over(batch, found)
        return True

    def _describe_halves(
        self,
        batch: List[Watched],
        refused: AWSCallError,
        over: List[Tuple[Watched, _Task]],
    ) -> Steps[bool]:
        """Find out which task ECS refuses to describe; the others are described."""
        if len(batch) == 1:
            self._set_apart(batch[0], refused)
            over += self._over(batch, {batch[0].task_arn: None})
            return True
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            yield self._spacing()
            if not (yield from self._describe(half, over)):
                return False
        return True

    def _set_apart(self, watched: Watched, refused: AWSCallError) -> None:
        """Have a task described alone from now on, and say so once."""
        if watched.is_refused:
            return
        watched.is_refused = True
        self._logger.warning(
            "Flow run %s: the agent cannot see how its task %s is doing; unless that "
            "changes, the task counts as gone in %.0f s: %s",
            watched.flow_run_id,
            watched.task_arn,
            MISSING_GRACE,
            refused,
            extra=log_context(watched.flow_run_id, watched.task_arn),
        )

    def _call(self, place: Place, batch: List[Watched]) -> Steps[_Found]:
        """Make one call, and note when it begins, which is after its last wait."""
        request = {
            "cluster": place.cluster,
            "tasks": [watched.task_arn for watched in batch],
        }
        call = self._ecs.call("DescribeTasks", request, region=place.region)
        try:
            while True:
                self._began = self._dispatcher.clock()
                yield next(call)
        except StopIteration as end:
            return _found(end.value)

    def _give_way(
        self, place: Place, batch: List[Watched], refused: AWSCallError
    ) -> List[Tuple[Watched, _Task]]:
        """Leave a place alone for a while; the tasks that are over all the same."""
        failures = self._queue.failed(place, self._dispatcher.clock())
        if refused.verdict is not Verdict.THROTTLED or failures > GIVES_WAY:
            self._troubles.begin(SEEING, refused, _words(place))
        if refused.answer.code == "ClusterNotFoundException":  # so are its tasks
            return self._over(batch, dict.fromkeys(each.task_arn for each in batch))
        return []

    # -- What was seen ----------------------------------------------------------------

    def _over(self, batch: List[Watched], found: _Found) -> List[Tuple[Watched, _Task]]:
        """The tasks that are over, as described; what is known of all is kept."""
        now = self._dispatcher.clock()
        return [
            (watched, found[watched.task_arn])
            for watched in batch
            if watched.task_arn in found
            and self._is_over(watched, found[watched.task_arn], now)
        ]

    def _is_over(self, watched: Watched, task: _Task, now: float) -> bool:
        if task is not None:
            watched.missing_since = None
            watched.last_status = sys.intern(str(task.get("lastStatus")))
            return watched.last_status == "STOPPED"
        if watched.missing_since is None:
            watched.missing_since = now
        return now - watched.missing_since >= MISSING_GRACE

    def _hand_over(self, watched: Watched, task: _Task) -> Steps[None]:
        if watched.is_forgotten:
            return
        try:
            yield from self._on_stopped(watched, task)
        except Exception as error:  # the run would be lost in silence
            about = log_context(watched.flow_run_id, watched.task_arn)
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
            self._queue.put_back([watched], self._dispatcher.clock())
            self._queue_is_filled()
        else:
            self.forget(watched.task_arn)


def _found(answer: Mapping[str, Any]) -> _Found:
    """What ECS says of each task; one of which it says nothing is left out."""
    missing = {failure["arn"]: None for failure in answer.get("failures") or ()}
    return {**missing, **{task["taskArn"]: task for task in answer["tasks"]}}


def _words(place: Place) -> str:
    region = f" ({place.region})" if place.region else ""
    return f"in cluster {place.cluster}{region}"


def _is_about_content(refused: AWSCallError) -> bool:
    """Whether another selection of tasks may get another answer."""
    return refused.verdict is Verdict.FINAL and refused.answer.code in _ABOUT_CONTENT


def _refusal(error: Exception) -> AWSCallError:
    """What an answer means that could not be read, or never came."""
    if isinstance(error, AWSCallError):
        return error
    return AWSCallError("DescribeTasks", answer_of(error))
