"""Asks ECS about the tasks in flight, and hands over those that stopped.

Guarantees:

* No call describes more than 100 tasks or tasks of two clusters; there are never two
  at once, and at most five begin in any second.
* While nothing is in flight nothing is called, and nothing wakes up.
* A task is handed over when it has STOPPED, or when ECS has not known it for a while,
  and again if dealing with it failed. It is in flight until that has succeeded.
* No failure ends the watch, and none in one cluster delays another. Each kind is logged
  once when it begins, and once when it is over.
* If ECS refuses a call because of one task, the call is halved until that task is
  found. It is logged once, and described alone from then on.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from concurrent.futures import Future, InvalidStateError
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from ..aws.ecs import DESCRIBED_AT_ONCE, ECS, answer_of
from ..aws.retrying import AWSCallError, Verdict
from ..errors import without_code
from ..launch_record import Launch
from ..observability.log_formats import log_context, log_full_error
from ..observability.outage_log import OutageLog
from ..scheduling.dispatcher import Dispatcher
from ..scheduling.steps import Pause, Steps
from .deadlines import Deadlines
from .poll_queue import Location, PollQueue, Watched

#: Seconds between the beginnings of two calls. ECS allows 20 a second, which others in
#: the account use too; 10,000 tasks take 21 s.
SPACING = 0.21

#: Seconds after which the watcher checks again at the latest what is due, while tasks
#: are in flight. Shorter than the time until any look that is added meanwhile.
TICK = 1.0

#: Seconds for which ECS may not know a task before it counts as gone. What has just
#: been launched may be MISSING at first; AWS says to ask for up to five minutes:
#: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RunTask.html
MISSING_GRACE = 300.0

#: Seconds until a task is handed over again after dealing with it has failed.
RETRY = 30.0

#: Throttles in a row that are not logged: others in the account have sent more, and
#: the rate limiter slows down for them.
TOLERATED_THROTTLES = 3

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

#: Tasks that have ended.
_Ended = List[Tuple[Watched, _Task]]

#: Deals with a task that has stopped: as described, or None if ECS does not know it.
Handler = Callable[[Watched, _Task], Steps[None]]

#: Called at each look with a task that is past its deadline, and the reason to stop it.
OnOverdue = Callable[[Watched, str], object]


class Watcher:
    """Watches tasks; `watch` are its steps, run by the dispatcher like any others.

    Args:
        ecs: ECS, rate-limited.
        dispatcher: Runs the steps that deal with stopped tasks; tells the time.
        on_stopped: Makes those steps. The task is in flight until they end; an
            exception in them is logged, and they are made again later.
        outages: Logs what fails.
        logger: The agent's own log.
        deadlines: How long tasks may take.
        on_overdue: See `OnOverdue`.
    """

    def __init__(
        self,
        *,
        ecs: ECS,
        dispatcher: Dispatcher,
        on_stopped: Handler,
        outages: OutageLog,
        logger: logging.Logger,
        deadlines: Deadlines = Deadlines(),  # noqa: B008  # a frozen value
        on_overdue: OnOverdue = lambda watched, reason: None,
    ) -> None:
        self._ecs = ecs
        self._dispatcher = dispatcher
        self._on_stopped = on_stopped
        self._outages = outages
        self._logger = logger
        self._deadlines = deadlines
        self._on_overdue = on_overdue
        self._queue = PollQueue()
        self._began = 0.0
        self._sooner: Dict[str, float] = {}  # of the present look, see `put_back`
        self._filled: Future[None] = Future()
        self._occupied: Future[None] = Future()

    # -- Called by the agent, from any thread -------------------------------------

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
            launch: How the task was launched.
        """
        watched = Watched(task_arn, cluster, flow_run_id, launch)
        self._queue.add(watched, self._dispatcher.clock())
        self._wake()

    def look_soon(self, task_arn: str) -> None:
        """Look at a task within 5 s, and then every 5 s until it is STOPPED.

        For tasks that were asked to stop. Nothing happens if the task is not watched.
        """
        self._queue.look_soon(task_arn, self._dispatcher.clock())

    def forget(self, task_arn: str) -> None:
        """Stop watching a task, if it was watched."""
        emptied = self._queue.forget(task_arn)
        if emptied is not None:  # an outage where no task is watched is over
            self._outages.end(SEEING, str(emptied))

    def get(self, task_arn: str) -> Optional[Watched]:
        """A watched task, also while its end is being dealt with; else None."""
        return self._queue.get(task_arn)

    def is_up(self, task_arn: str) -> bool:
        """Whether a task is visible, and was not stopping when last seen."""
        watched = self._queue.get(task_arn)
        if watched is None or watched.is_stopped or watched.is_down:
            return False
        return not self._queue.is_failing(watched.location)

    def in_flight(self) -> List[Watched]:
        """Every watched task, including those whose end is being dealt with."""
        return self._queue.all()

    def __len__(self) -> int:
        return len(self._queue)

    def until_occupied(self) -> Steps[None]:
        """Wait until a task is watched, for the one loop that has nothing to do before.

        It holds no timer, so an idle agent is not woken.
        """
        while not len(self):
            occupied: Future[None] = Future()
            self._occupied = occupied  # before the queue is read once more
            if not len(self):
                yield occupied

    # -- The watch ------------------------------------------------------------------

    def watch(self) -> Steps[None]:
        """Look at tasks when they are due, forever."""
        while True:
            now = self._dispatcher.clock()
            batch = self._queue.take(now, DESCRIBED_AT_ONCE)
            if batch:
                yield from self._look(batch)
                yield self._spacing()
                continue
            filled: Future[None] = Future()
            self._filled = filled  # before the queue is read once more
            due = self._queue.next_due()
            yield filled if due is None else Pause(min(TICK, due - now))

    def _wake(self) -> None:
        for awaited in (self._filled, self._occupied):
            with contextlib.suppress(InvalidStateError):  # it is awake
                awaited.set_result(None)

    def _spacing(self) -> Pause:
        """The rest of the time between the beginnings of two calls."""
        return Pause(self._began + SPACING - self._dispatcher.clock())

    def _look(self, batch: List[Watched]) -> Steps[None]:
        """Look at tasks of one location; hand over those that ended, keep the rest.

        No exception loses a task: each is put back or handed over.
        """
        ended: _Ended = []
        try:
            yield from self._describe(batch, ended)
        finally:
            for watched, _ in ended:
                watched.is_stopped = True
            rest = [watched for watched in batch if not watched.is_stopped]
            self._queue.put_back(rest, self._dispatcher.clock(), self._sooner)
            self._sooner = {}
            for watched, task in ended:
                self._dispatcher.start(
                    self._hand_over(watched, task), run_id=watched.flow_run_id
                )

    def _describe(self, batch: List[Watched], ended: _Ended) -> Steps[bool]:
        """Describe tasks of one location, in one call if ECS accepts that.

        Args:
            batch: The tasks.
            ended: Those that have ended are added to it.

        Returns:
            Whether ECS has answered; if not, it is useless to ask more now.
        """
        location = batch[0].location
        try:
            found = yield from self._call(location, batch)
        except Exception as raised:  # of any kind: the watch goes on
            error = raised
            if not isinstance(error, AWSCallError):
                error = AWSCallError("DescribeTasks", answer_of(error))
            if _is_about_content(error):
                return (yield from self._describe_halves(batch, error, ended))
            failures = self._queue.failed(location, self._dispatcher.clock())
            is_throttle = error.verdict is Verdict.THROTTLED
            if not is_throttle or failures > TOLERATED_THROTTLES:
                self._outages.begin(SEEING, error, str(location))
            if error.answer.code == "ClusterNotFoundException":  # its tasks are gone
                ended += self._ended(batch, {each.task_arn: None for each in batch})
            return False
        self._queue.succeeded(location)
        self._outages.end(SEEING, str(location))
        for watched in batch:
            watched.is_refused = False
        ended += self._ended(batch, found)
        return True

    def _describe_halves(
        self, batch: List[Watched], error: AWSCallError, ended: _Ended
    ) -> Steps[bool]:
        """Find out which task ECS refuses to describe; the others are described."""
        if len(batch) == 1:
            self._set_apart(batch[0], error)
            ended += self._ended(batch, {batch[0].task_arn: None})
            return True
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            yield self._spacing()
            if not (yield from self._describe(half, ended)):
                return False
        return True

    def _set_apart(self, watched: Watched, error: AWSCallError) -> None:
        """Have a task described alone from now on, and log so once."""
        if watched.is_refused:
            return
        watched.is_refused = True
        self._logger.warning(
            "Flow run %s: the agent cannot see how its task %s is doing; unless that "
            "changes, the task counts as gone in %.0f s: %s [task-unreadable]",
            watched.flow_run_id,
            watched.task_arn,
            MISSING_GRACE,
            without_code(str(error)),
            extra=log_context(watched.flow_run_id, watched.task_arn),
        )

    def _call(
        self, location: Location, batch: List[Watched]
    ) -> Steps[Dict[str, _Task]]:
        """Describe tasks; note when the call begins, which is after its last wait.

        Returns:
            What ECS says about each task, by ARN. Tasks that it does not mention are
            left out.
        """
        request = {
            "cluster": location.cluster,
            "tasks": [watched.task_arn for watched in batch],
        }
        call = self._ecs.call("DescribeTasks", request, region=location.region or None)
        try:
            while True:
                self._began = self._dispatcher.clock()
                yield next(call)
        except StopIteration as end:
            answer = end.value
        missing = {failure["arn"]: None for failure in answer.get("failures") or ()}
        return {**missing, **{task["taskArn"]: task for task in answer["tasks"]}}

    # -- What ECS said ----------------------------------------------------------------

    def _ended(self, batch: List[Watched], found: Mapping[str, _Task]) -> _Ended:
        """The tasks that have ended; the status of all is noted."""
        now = self._dispatcher.clock()
        return [
            (watched, found[watched.task_arn])
            for watched in batch
            if watched.task_arn in found
            and self._has_ended(watched, found[watched.task_arn], now)
        ]

    def _has_ended(self, watched: Watched, task: _Task, now: float) -> bool:
        if task is not None:
            watched.missing_since = None
            watched.last_status = sys.intern(str(task.get("lastStatus")))
            self._check_deadline(watched, task, now)
            return watched.last_status == "STOPPED"
        if watched.missing_since is None:
            watched.missing_since = now
        return now - watched.missing_since >= MISSING_GRACE

    def _check_deadline(
        self, watched: Watched, task: Mapping[str, Any], now: float
    ) -> None:
        """Find out whether a task has taken too long, or will before its next look."""
        left = self._deadlines.of(task) - time.time()
        if left > 0:
            if left < watched.interval:
                self._sooner[watched.task_arn] = now + left
            return
        reason = self._deadlines.reason_to_stop(task)
        if reason:
            self._on_overdue(watched, reason)

    def _hand_over(self, watched: Watched, task: _Task) -> Steps[None]:
        if watched.is_forgotten:
            return
        try:
            yield from self._on_stopped(watched, task)
        except Exception as error:  # the run would be lost without a word
            about = log_context(watched.flow_run_id, watched.task_arn)
            self._logger.error(
                "Flow run %s: the agent could not deal with its stopped task %s and "
                "tries again in %.0f s: %s: %s [stopped-task-not-handled]",
                watched.flow_run_id,
                watched.task_arn,
                RETRY,
                type(error).__name__,
                without_code(str(error)),
                extra=about,
            )
            log_full_error(self._logger, error, about)
            yield Pause(RETRY)
            watched.is_stopped = False
            self._queue.put_back([watched], self._dispatcher.clock())
            self._wake()
        else:
            self.forget(watched.task_arn)


def _is_about_content(error: AWSCallError) -> bool:
    """Whether another selection of tasks may get another answer."""
    return error.verdict is Verdict.FINAL and error.answer.code in _ABOUT_CONTENT
