"""Tasks that do not bear their run's id, because Prefect's own agent started them.

On the day on which this agent takes that one's place, the API gives it the same id, and
runs whose tasks are just starting look as if they had none. Their tasks tell which run
they run in their environment; so each task of the cluster is looked at, once, when
there is a run that seems to have none.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any, Dict, Iterable, List, Mapping, Optional

from .ecs import ECS
from .flow_run import RUN_ID
from .waiting import Steps

#: Tasks by the runs that they run, the latest last.
_Tasks = Dict[str, List[Mapping[str, Any]]]


class Strays:
    """Finds such tasks; whoever asks first for a cluster looks for all.

    Args:
        ecs: ECS, paced.
    """

    def __init__(self, ecs: ECS) -> None:
        self._ecs = ecs
        self._lock = threading.Lock()
        self._looked: Dict[str, Future[_Tasks]] = {}

    def tasks_of(self, run_id: str, cluster: str) -> Steps[List[Mapping[str, Any]]]:
        """The tasks that run a run and do not bear its id, the latest last.

        Raises:
            Refused: if AWS does not say.
        """
        with self._lock:
            promise = self._looked.get(cluster)
            if promise is None:
                self._looked[cluster] = Future()
        if promise is None:
            found = yield from self._look(cluster)
        else:
            yield promise
            found = promise.result()
        return found.get(run_id, [])

    def _look(self, cluster: str) -> Steps[_Tasks]:
        try:
            found = _by_run((yield from self._ecs.tasks_without_run(cluster)))
        except BaseException as error:
            with self._lock:
                promise = self._looked.pop(cluster)
            promise.set_exception(error)
            raise
        self._looked[cluster].set_result(found)
        return found


def _by_run(tasks: Iterable[Mapping[str, Any]]) -> _Tasks:
    found: _Tasks = {}
    for task in sorted(tasks, key=lambda task: task["createdAt"]):
        run_id = _run_id(task)
        if run_id:
            found.setdefault(run_id, []).append(task)
    return found


def _run_id(task: Mapping[str, Any]) -> Optional[str]:
    for container in (task.get("overrides") or {}).get("containerOverrides") or ():
        for variable in container.get("environment") or ():
            if variable.get("name") == RUN_ID:
                return str(variable.get("value"))
    return None
