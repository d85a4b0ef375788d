"""Finds the tasks of runs that an earlier agent launched, in few calls.

The tasks of a few runs are listed by their `startedBy`, run by run. For many runs, all
tasks of the cluster are listed once: 10,000 tasks take about 200 calls. That also finds
tasks that Prefect's own agent started: they have no `startedBy`, but name their run in
their environment. Listing a cluster again costs about half: only new tasks are
described.

Guarantee: the tasks are listed after the caller has asked.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Set, Tuple

from ..aws.ecs import ECS
from ..flow_run import RUN_ID
from ..scheduling.steps import Pause, Steps
from .poll_queue import Location

#: Up to so many runs, the tasks of each are listed separately.
FEW = 20

#: Seconds for which requests are collected.
_COLLECT = 0.5


class FoundTask(NamedTuple):
    """What recovery needs to know about a task: there may be 10,000.

    Attributes:
        arn: The task.
        run_id: Its run, or what else started it.
        created_at: When it was created, in seconds since 1970 by AWS's clock.
        has_stopped: Whether it had stopped when it was first seen.
    """

    arn: str
    run_id: str
    created_at: float
    has_stopped: bool


#: Tasks by their run, the latest last.
TasksByRun = Dict[str, List[FoundTask]]

#: Runs whose tasks a caller wants, and the future that it waits for.
_Request = Tuple[Set[str], "Future[TasksByRun]"]


class TaskFinder:
    """Finds tasks by their runs.

    Args:
        ecs: ECS, rate-limited.
    """

    def __init__(self, ecs: ECS) -> None:
        self._ecs = ecs
        self._lock = threading.Lock()
        self._requests: Dict[Tuple[Location, bool], List[_Request]] = {}
        self._known: Dict[Location, Dict[str, FoundTask]] = {}

    def tasks_of(
        self, run_ids: Iterable[str], location: Location, untagged: bool = False
    ) -> Steps[TasksByRun]:
        """The tasks of runs, including those that stopped within the last hour.

        Requests for the same location that come at about the same time are answered
        together.

        Args:
            run_ids: The runs.
            location: Where to look.
            untagged: Whether to find tasks without `startedBy` too, for which all tasks
                of the cluster are listed.

        Raises:
            AWSCallError: if AWS does not list them.
        """
        answer: Future[TasksByRun] = Future()
        key = (location, untagged)
        with self._lock:
            waiting = self._requests.setdefault(key, [])
            waiting.append((set(run_ids), answer))
            is_first = len(waiting) == 1
        if not is_first:
            yield answer
            return answer.result()
        try:
            yield Pause(_COLLECT)
        finally:
            with self._lock:
                requests = self._requests.pop(key)
        try:
            wanted = set().union(*(run_ids for run_ids, _ in requests))
            found = yield from self._find(wanted, location, untagged)
        except BaseException as error:
            for _, each in requests[1:]:
                each.set_exception(error)
            raise
        for _, each in requests[1:]:
            each.set_result(found)
        return found

    def forget(self) -> None:
        """Drop what is known about tasks, some 500 bytes each."""
        self._known.clear()

    def _find(
        self, run_ids: Set[str], location: Location, untagged: bool
    ) -> Steps[TasksByRun]:
        region = location.region or None
        found: List[FoundTask] = []
        if untagged or len(run_ids) > FEW:
            known = yield from self._ecs.tasks_in(
                location.cluster, region, _found, self._known.get(location, {})
            )
            self._known[location] = known
            found += [each for each in known.values() if each.run_id in run_ids]
        else:
            for run_id in sorted(run_ids):
                tasks = yield from self._ecs.tasks_of(run_id, location.cluster, region)
                found += map(_found, tasks)
        by_run: TasksByRun = {}
        for task in sorted(found, key=lambda each: each.created_at):
            by_run.setdefault(task.run_id, []).append(task)
        return by_run


def _found(task: Mapping[str, Any]) -> FoundTask:
    return FoundTask(
        arn=str(task["taskArn"]),
        run_id=task.get("startedBy") or _run_in_environment(task) or "",
        created_at=float(task["createdAt"].timestamp()),
        has_stopped=task.get("lastStatus") == "STOPPED",
    )


def _run_in_environment(task: Mapping[str, Any]) -> Optional[str]:
    for container in (task.get("overrides") or {}).get("containerOverrides") or ():
        for variable in container.get("environment") or ():
            if variable.get("name") == RUN_ID:
                return str(variable.get("value"))
    return None
