"""Finds the tasks of runs that an earlier agent launched, in few calls.

A few runs are asked about one by one, by their `startedBy`. For many, all tasks of the
cluster are listed once: 10,000 tasks take about 200 calls. That also finds tasks that
Prefect's own agent started: they have no `startedBy`, but name their run in their
environment. A cluster that is listed again costs about half: only tasks that were not
there before are described.

Guarantee: which tasks there are was read after the question was put.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Set, Tuple

from ..aws.ecs import ECS
from ..flow_run import RUN_ID
from ..scheduling.steps import Pause, Steps

#: Runs up to which each is asked about by itself.
FEW = 20

#: Seconds for which questions are collected.
_COLLECT = 0.5


class Place(NamedTuple):
    """Where tasks are.

    Attributes:
        cluster: The cluster's name or ARN.
        region: The AWS region; empty for the agent's own.
    """

    cluster: str
    region: str = ""


class FoundTask(NamedTuple):
    """What recovery needs to know of a task.

    Attributes:
        arn: The task.
        created_at: When it was created, in seconds since 1970 by AWS's clock.
        has_stopped: Whether it had stopped when it was first seen.
    """

    arn: str
    created_at: float
    has_stopped: bool = False


class _Known(NamedTuple):
    """What is remembered of a task, so that it is described once.

    Attributes:
        run_id: Its run, or who else started it.
        task: As it was when it was described.
    """

    run_id: str
    task: FoundTask


#: Tasks by the runs that they run, the latest last.
TasksByRun = Dict[str, List[FoundTask]]

#: Runs to ask about, and where their answer is awaited.
_Questions = Tuple[Set[str], "Future[TasksByRun]"]


class TaskFinder:
    """Finds tasks by their runs.

    Args:
        ecs: ECS, paced.
    """

    def __init__(self, ecs: ECS) -> None:
        self._ecs = ecs
        self._lock = threading.Lock()
        self._questions: Dict[Tuple[Place, bool], List[_Questions]] = {}
        self._known: Dict[Place, Dict[str, _Known]] = {}

    def tasks_of(
        self, run_ids: Iterable[str], place: Place, untagged: bool = False
    ) -> Steps[TasksByRun]:
        """The tasks of runs, stopped ones of the last hour included.

        Questions about the same place that come at about the same time are answered
        together.

        Args:
            run_ids: The runs.
            place: Where to look.
            untagged: Whether to find tasks without `startedBy` too, which takes a look
                at all tasks of the cluster.

        Raises:
            AWSCallError: if AWS does not say.
        """
        answer: Future[TasksByRun] = Future()
        key = (place, untagged)
        with self._lock:
            waiting = self._questions.setdefault(key, [])
            waiting.append((set(run_ids), answer))
            is_first = len(waiting) == 1
        if not is_first:
            yield answer
            return answer.result()
        try:
            yield Pause(_COLLECT)
        finally:
            with self._lock:
                questions = self._questions.pop(key)
        try:
            wanted = set().union(*(run_ids for run_ids, _ in questions))
            found = yield from self._find(wanted, place, untagged)
        except BaseException as error:
            for _, each in questions[1:]:
                each.set_exception(error)
            raise
        for _, each in questions[1:]:
            each.set_result(found)
        return found

    def forget(self) -> None:
        """Drop what is known of tasks, some 500 bytes each; it costs calls alone."""
        self._known.clear()

    def _find(
        self, run_ids: Set[str], place: Place, untagged: bool
    ) -> Steps[TasksByRun]:
        found: List[Tuple[str, FoundTask]] = []
        if untagged or len(run_ids) > FEW:
            known = yield from self._ecs.tasks_in(
                place.cluster,
                place.region or None,
                _known,
                self._known.get(place, {}),
            )
            self._known[place] = known
            found += [
                (each.run_id, each.task)
                for each in known.values()
                if each.run_id in run_ids
            ]
        else:
            for run_id in sorted(run_ids):
                tasks = yield from self._ecs.tasks_of(
                    run_id, place.cluster, place.region or None
                )
                found += [(run_id, _found(task)) for task in tasks]
        by_run: TasksByRun = {}
        for run_id, task in sorted(found, key=lambda pair: pair[1].created_at):
            by_run.setdefault(run_id, []).append(task)
        return by_run


def _known(task: Mapping[str, Any]) -> _Known:
    """What matters of a described task: there may be 10,000."""
    run_id = task.get("startedBy") or _run_in_environment(task) or ""
    return _Known(run_id, _found(task))


def _found(task: Mapping[str, Any]) -> FoundTask:
    return FoundTask(
        arn=str(task["taskArn"]),
        created_at=float(task["createdAt"].timestamp()),
        has_stopped=task.get("lastStatus") == "STOPPED",
    )


def _run_in_environment(task: Mapping[str, Any]) -> Optional[str]:
    for container in (task.get("overrides") or {}).get("containerOverrides") or ():
        for variable in container.get("environment") or ():
            if variable.get("name") == RUN_ID:
                return str(variable.get("value"))
    return None
