"""Which tasks are in flight, and when each is to be looked at. Pure but for a lock.

Each cluster has a heap of its tasks, ordered by the time of their next look.
"""

from __future__ import annotations

import heapq
import math
import threading
from typing import Dict, Iterable, List, Mapping, NamedTuple, Optional

from ..aws.ecs import region_of
from ..launch_record import Launch
from ..observability.outage_log import OUTAGE

#: Seconds between two looks at a task that is starting or stopping. The run of a task
#: that fails to start has to be Failed within 30 s of its stop.
YOUNG = 5.0

#: Seconds between two looks at a RUNNING task, whose flow usually reports its end to
#: Prefect itself. 10,000 of them take 3.4 calls a second.
RUNNING = 30.0

#: Seconds until the look at a task that was asked to stop. It has to come within 5 s;
#: the rest is for the tasks that are due before it.
SOON = 2.0


class Location(NamedTuple):
    """Where tasks are that one call can describe.

    Attributes:
        cluster: The cluster's name or ARN.
        region: The AWS region; empty for the agent's own.
    """

    cluster: str
    region: str = ""

    def __str__(self) -> str:
        region = f" ({self.region})" if self.region else ""
        return f"in cluster {self.cluster}{region}"


class Watched:
    """A task in flight.

    Attributes:
        task_arn: The task.
        cluster: Its cluster's name or ARN, as it was launched with.
        flow_run_id: The run that it runs.
        launch: How the task was launched.
        last_status: Its last known `lastStatus`, empty until ECS has shown it.
        missing_since: Since when ECS has not known it, None if it does.
        due: When it is to be looked at next.
        is_ending: Whether it was asked to stop, so that it is looked at often.
        is_refused: Whether ECS refuses each request that names it.
        is_stopped: Whether its end is being dealt with.
        is_forgotten: Whether it is no longer watched.
        cancelled_since: When this agent first saw that its run is cancelled.
        is_stop_requested: Whether a StopTask request for it is under way.
        is_superseded: Whether its run was started anew.
    """

    __slots__ = (
        "cancelled_since",
        "cluster",
        "due",
        "flow_run_id",
        "is_ending",
        "is_forgotten",
        "is_refused",
        "is_stop_requested",
        "is_stopped",
        "is_superseded",
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
        self.is_ending = False
        self.is_refused = False
        self.is_stopped = False
        self.is_forgotten = False
        self.cancelled_since: Optional[float] = None
        self.is_stop_requested = False
        self.is_superseded = False

    def __lt__(self, other: Watched) -> bool:
        """Whether it is due before another; used by the heaps."""
        return self.due < other.due

    @property
    def location(self) -> Location:
        """Where it is described."""
        return Location(self.cluster, region_of(self.task_arn) or "")

    @property
    def has_started(self) -> bool:
        """Whether it has been seen RUNNING or later."""
        return self.last_status not in ("", "PROVISIONING", "PENDING", "ACTIVATING")

    @property
    def is_down(self) -> bool:
        """Whether it has been seen stopping, or was asked to stop."""
        return self.is_ending or (self.has_started and self.last_status != "RUNNING")

    @property
    def interval(self) -> float:
        """Seconds between two looks at it."""
        is_running = self.last_status == "RUNNING" and not self.is_ending
        return RUNNING if is_running or self.is_refused else YOUNG


class ClusterQueue:
    """The tasks of one cluster that wait for their next look.

    Attributes:
        tasks: How many are in flight, including those that are not in the queue
            because they are being looked at or their end is being dealt with.
        failures: How many looks in a row have failed.
        quiet_until: Until when no look is tried.
    """

    def __init__(self) -> None:
        self._together: List[Watched] = []
        self._alone: List[Watched] = []  # those that ECS refuses
        self.tasks = 0
        self.failures = 0
        self.quiet_until = -math.inf

    @property
    def due(self) -> float:
        """When the first look is due; infinite if there is none."""
        heap = self._first()
        return max(heap[0].due, self.quiet_until) if heap else math.inf

    def push(self, watched: Watched) -> None:
        """Add a task."""
        heapq.heappush(self._heap_of(watched), watched)

    def take(self, most: int) -> List[Watched]:
        """Take out the tasks that are due first; one that ECS refuses, alone."""
        heap = self._first()
        if heap is self._alone:
            return [heapq.heappop(heap)]
        taken: List[Watched] = []
        while _without_forgotten(heap) and len(taken) < most:
            taken.append(heapq.heappop(heap))
        return taken

    def has_new_due(self, watched: Watched) -> None:
        """Restore the order after the due time of a task has changed."""
        heapq.heapify(self._heap_of(watched))

    def _heap_of(self, watched: Watched) -> List[Watched]:
        return self._alone if watched.is_refused else self._together

    def _first(self) -> List[Watched]:
        """The heap whose first task is due first; an empty one if both are."""
        alone, together = map(_without_forgotten, (self._alone, self._together))
        return alone if alone and (not together or alone[0] < together[0]) else together


def _without_forgotten(heap: List[Watched]) -> List[Watched]:
    """The same heap, with a task at its top that is still watched."""
    while heap and heap[0].is_forgotten:
        heapq.heappop(heap)
    return heap


class PollQueue:
    """Tasks in flight, by the time of their next look.

    A look takes as many tasks of one cluster as fit into a call, even if they are not
    due yet: that costs nothing and saves a call later.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: Dict[str, Watched] = {}
        self._queues: Dict[Location, ClusterQueue] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def all(self) -> List[Watched]:
        """Every task in flight, including those whose end is being dealt with."""
        with self._lock:
            return list(self._tasks.values())

    def get(self, task_arn: str) -> Optional[Watched]:
        """A task in flight; None if it is not."""
        return self._tasks.get(task_arn)

    def add(self, watched: Watched, now: float) -> None:
        """Add a task, if it is not there yet."""
        with self._lock:
            if watched.task_arn in self._tasks:
                return
            self._tasks[watched.task_arn] = watched
            queue = self._queues.setdefault(watched.location, ClusterQueue())
            queue.tasks += 1
            watched.due = now + watched.interval
            queue.push(watched)

    def forget(self, task_arn: str) -> Optional[Location]:
        """Drop a task; its location if no other task is left there, else None."""
        with self._lock:
            watched = self._tasks.pop(task_arn, None)
            if watched is None:
                return None
            watched.is_forgotten = True
            location = watched.location
            queue = self._queues[location]
            queue.tasks -= 1
            if queue.tasks:
                return None
            del self._queues[location]
            return location

    def look_soon(self, task_arn: str, now: float) -> None:
        """Have a task looked at soon and then often, if it is in flight."""
        with self._lock:
            watched = self._tasks.get(task_arn)
            if watched is None:
                return
            watched.is_ending = True
            watched.due = min(watched.due, now + SOON)
            self._queues[watched.location].has_new_due(watched)

    def take(self, now: float, most: int) -> List[Watched]:
        """Take tasks of one location out for a look; none if none is due."""
        with self._lock:
            queue = min(self._queues.values(), key=lambda each: each.due, default=None)
            return [] if queue is None or queue.due > now else queue.take(most)

    def put_back(
        self,
        batch: Iterable[Watched],
        now: float,
        sooner: Optional[Mapping[str, float]] = None,
    ) -> None:
        """Have tasks of one location looked at again, each after its interval.

        Args:
            batch: The tasks.
            now: The present time.
            sooner: When to look at tasks that have less time than that, by their ARN.
        """
        dues: Dict[float, float] = {}  # equal times are one object: 24 bytes a task
        with self._lock:
            live = [watched for watched in batch if not watched.is_forgotten]
            queue = self._queues[live[0].location] if live else ClusterQueue()
            for watched in live:
                interval = watched.interval
                watched.due = dues.setdefault(interval, now + interval)
                if sooner:
                    watched.due = sooner.get(watched.task_arn, watched.due)
                queue.push(watched)

    def failed(self, location: Location, now: float) -> int:
        """Pause the looks at a location; returns its failures in a row."""
        with self._lock:
            queue = self._queues.get(location)
            if queue is None:
                return 0
            queue.failures += 1
            queue.quiet_until = now + OUTAGE.seconds(queue.failures, 1.0)
            return queue.failures

    def is_failing(self, location: Location) -> bool:
        """Whether the last look at a location failed."""
        with self._lock:
            queue = self._queues.get(location)
            return queue is not None and queue.failures > 0

    def succeeded(self, location: Location) -> None:
        """Reset the failures of a location."""
        with self._lock:
            if location in self._queues:
                self._queues[location].failures = 0

    def next_due(self) -> Optional[float]:
        """When the next look is due; None if there is nothing to look at."""
        with self._lock:
            due = min((each.due for each in self._queues.values()), default=math.inf)
            return None if math.isinf(due) else due
