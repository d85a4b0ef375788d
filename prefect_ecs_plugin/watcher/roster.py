"""Which tasks are in flight, and when each is to be looked at. Pure but for a lock."""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import Deque, Dict, List, Optional

from ..task_state import Launch
from ..troubles import OUTAGE

#: Seconds between two looks at a task that is on its way up or down. One that fails
#: to start is to be seen, judged and told about within 30 s of its stop.
YOUNG = 5.0

#: Seconds between two looks at a RUNNING task, which mostly tells Prefect its end
#: itself. 10,000 of them take 3.4 calls a second.
RUNNING = 30.0


class Watched:
    """A task in flight.

    Attributes:
        task_arn: The task.
        cluster: Its cluster's name or ARN, as it was launched with.
        flow_run_id: The run that it runs.
        launch: How it came to be.
        last_status: Its last known `lastStatus`, empty until ECS has shown it.
        missing_since: Since when ECS has not known it, None if it does.
        due: When it is to be looked at next.
        is_stopped: Whether its end is being dealt with.
        is_forgotten: Whether nobody wants to know about it any more.
    """

    __slots__ = (
        "cluster",
        "due",
        "flow_run_id",
        "is_forgotten",
        "is_stopped",
        "last_status",
        "launch",
        "missing_since",
        "task_arn",
    )

    def __init__(
        self, task_arn: str, cluster: str, flow_run_id: str, launch: Launch
    ) -> None:
        self.task_arn = task_arn
        self.cluster = cluster
        self.flow_run_id = flow_run_id
        self.launch = launch
        self.last_status = ""
        self.missing_since: Optional[float] = None
        self.due = 0.0
        self.is_stopped = False
        self.is_forgotten = False

    @property
    def has_started(self) -> bool:
        """Whether it has been seen RUNNING, or on its way down from there."""
        return self.last_status not in ("", "PROVISIONING", "PENDING", "ACTIVATING")

    @property
    def interval(self) -> float:
        """Seconds between two looks at it."""
        return RUNNING if self.last_status == "RUNNING" else YOUNG


class _Line:
    """The tasks of one cluster. Each queue has one interval, so it is in due order.

    Attributes:
        tasks: How many there are, those included that are out for a look.
        failures: How often in a row they could not be looked at.
        quiet_until: Until when nobody tries.
    """

    def __init__(self) -> None:
        self._queues: Dict[float, Deque[Watched]] = {YOUNG: deque(), RUNNING: deque()}
        self.tasks = 0
        self.failures = 0
        self.quiet_until = -math.inf

    def append(self, watched: Watched) -> None:
        self._queues[watched.interval].append(watched)

    def push(self, watched: Watched) -> None:
        self._queues[watched.interval].appendleft(watched)

    @property
    def due(self) -> float:
        """When its first task is to be looked at; infinite if it has none."""
        first = self._first()
        return max(first[0].due, self.quiet_until) if first else math.inf

    def take(self, most: int) -> List[Watched]:
        """Take out the tasks that are due first."""
        taken: List[Watched] = []
        first = self._first()
        while first and len(taken) < most:
            taken.append(first.popleft())
            first = self._first()
        return taken

    def _first(self) -> Optional[Deque[Watched]]:
        """The queue whose head is due first; forgotten heads are dropped."""
        queues = [queue for queue in self._queues.values() if _without_forgotten(queue)]
        return min(queues, key=lambda queue: queue[0].due) if queues else None


def _without_forgotten(queue: Deque[Watched]) -> Deque[Watched]:
    while queue and queue[0].is_forgotten:
        queue.popleft()
    return queue


class Roster:
    """Tasks in flight, by the time of their next look.

    A look takes as many tasks of one cluster as fit into a call, also some that are
    not due yet: that costs nothing and saves a call later.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: Dict[str, Watched] = {}
        self._lines: Dict[str, _Line] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def all(self) -> List[Watched]:
        """Every task in flight, those whose end is being dealt with included."""
        with self._lock:
            return list(self._tasks.values())

    def add(self, watched: Watched, now: float, at_once: bool) -> bool:
        """Add a task that is not there yet; True if it is now the first one due."""
        with self._lock:
            if watched.task_arn in self._tasks:
                return False
            self._tasks[watched.task_arn] = watched
            line = self._lines.setdefault(watched.cluster, _Line())
            line.tasks += 1
            watched.due = now if at_once else now + YOUNG
            before = self._next_due()
            (line.push if at_once else line.append)(watched)
            return watched.due < before

    def forget(self, task_arn: str) -> Optional[str]:
        """Drop a task, if it is there; its cluster, if that was the last one in it."""
        with self._lock:
            watched = self._tasks.pop(task_arn, None)
            if watched is None:
                return None
            watched.is_forgotten = True
            line = self._lines[watched.cluster]
            line.tasks -= 1
            if line.tasks:
                return None
            del self._lines[watched.cluster]
            return watched.cluster

    def take(self, now: float, most: int) -> List[Watched]:
        """Take tasks of one cluster out for a look; none if none is due."""
        with self._lock:
            line = min(self._lines.values(), key=lambda line: line.due, default=None)
            if line is None or line.due > now:
                return []
            return line.take(most)

    def put_back(self, watched: Watched, now: float) -> None:
        """Have a task looked at again after its interval."""
        with self._lock:
            if not watched.is_forgotten:
                watched.due = now + watched.interval
                self._lines[watched.cluster].append(watched)

    def failed(self, cluster: str, now: float) -> int:
        """Leave a cluster's tasks alone for a while; how many failures in a row."""
        with self._lock:
            line = self._lines.get(cluster)
            if line is None:
                return 0
            line.failures += 1
            line.quiet_until = now + OUTAGE.seconds(line.failures, 1.0)
            return line.failures

    def succeeded(self, cluster: str) -> None:
        """The next failure is the first one again."""
        with self._lock:
            if cluster in self._lines:
                self._lines[cluster].failures = 0

    def next_due(self) -> Optional[float]:
        """When there is something to look at next; None if there is nothing."""
        with self._lock:
            due = self._next_due()
            return None if math.isinf(due) else due

    def _next_due(self) -> float:
        return min((line.due for line in self._lines.values()), default=math.inf)
