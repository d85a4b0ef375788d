"""What one agent counts, with or without the extra `metrics`. Pure, but for locks.

`monitoring.metrics` exposes the counters to Prometheus. Labels take few values; a run's
id is never one of them.
"""

from __future__ import annotations

import bisect
import enum
import itertools
import threading
from typing import Dict, Iterable, Mapping, Optional, Sequence, Tuple

#: The values of a counter's labels, in their order.
Labels = Tuple[str, ...]

#: Flows that a counter shows by name; tasks of further ones count for `OTHER`.
MOST_FLOWS, OTHER = 100, "other"

#: Seconds: from an agent with nothing to do to `--launch-timeout`'s half hour.
DELAY_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)

#: Seconds: from a pull that takes none to a run of a day.
PHASE_BUCKETS = (1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 14400, 86400)


class Outcome(str, enum.Enum):
    """What became of a flow run on its way to a task."""

    LAUNCHED = "launched"
    LAUNCH_FAILED = "launch_failed"
    RETURNED = "returned"
    LEFT = "left"
    NOT_TAKEN = "not_taken"
    ABANDONED = "abandoned"
    TOO_LATE = "too_late"
    OVER_LIMIT = "over_limit"


class Reason(str, enum.Enum):
    """Why a task was launched."""

    SCHEDULED = "scheduled"
    RETRY = "retry"
    RESTART = "restart"


class Source(str, enum.Enum):
    """Where a launch got its task definition from."""

    REGISTERED = "registered"
    FOUND = "found"
    REMEMBERED = "remembered"


class Answered(str, enum.Enum):
    """How one attempt of a request went."""

    OK = "ok"
    REFUSED = "refused"
    THROTTLED = "throttled"
    FAILED = "failed"


class Ending(str, enum.Enum):
    """What was done about the flow run of a task that has stopped."""

    LEFT = "left"
    RESTARTED = "restarted"
    RESUMED = "resumed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Phase(str, enum.Enum):
    """A phase in the life of a task."""

    WAITING = "waiting"
    PROVISIONING = "provisioning"
    PULL = "pull"
    START = "start"
    RUN = "run"


class Counter:
    """How often something has happened, or how much; it only grows. Threads share it.

    Args:
        name: Its name for Prometheus, without `prefect_ecs_` and `_total`.
        meaning: One sentence.
        labels: The names of its labels.
        known: All values of its last label. What has not happened yet is shown as
            0, so that a rate sees it when it happens first.
        most: How many different labels it may have; further ones count as `OTHER`.
            None for any number.
    """

    def __init__(
        self,
        name: str,
        meaning: str,
        labels: Sequence[str] = (),
        known: Iterable[enum.Enum] = (),
        most: Optional[int] = None,
    ) -> None:
        self.name, self.meaning, self.labels = name, meaning, tuple(labels)
        self._known = tuple(each.value for each in known)
        self._most = most
        self._lock = threading.Lock()
        self._values: Dict[Labels, float] = {}
        if len(labels) < 2:
            self._start_at_zero(())

    def add(self, *labels: str, amount: float = 1) -> None:
        """Count one more, or some more.

        Args:
            labels: The labels' values, in the order of their names.
            amount: How much.
        """
        with self._lock:
            if labels not in self._values:
                if self._most is not None and len(self._values) >= self._most:
                    labels = (OTHER,) * len(labels)
                self._start_at_zero(labels[:-1])
            self._values[labels] = self._values.get(labels, 0) + amount

    def __getitem__(self, label: str) -> float:
        """How often it has happened with this value of its one label."""
        return self._values.get((label,), 0)

    def items(self) -> Mapping[Labels, float]:
        """How often it has happened with each of its labels' values."""
        with self._lock:
            return dict(self._values)

    def _start_at_zero(self, first: Labels) -> None:
        """Show all values of the last label after those of the first ones."""
        rows = [(*first, value) for value in self._known] if self.labels else [()]
        self._values.update(dict.fromkeys(rows, 0))


class Histogram:
    """How long something took, in buckets. Threads may share it.

    Args:
        name: Its name for Prometheus, without `prefect_ecs_`.
        meaning: One sentence.
        bounds: The largest value of each bucket, ascending, all but the last
            bucket's, which is for larger values.
    """

    def __init__(self, name: str, meaning: str, bounds: Sequence[float]) -> None:
        self.name, self.meaning, self.bounds = name, meaning, tuple(bounds)
        self._lock = threading.Lock()
        self._buckets = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        bucket = bisect.bisect_left(self.bounds, value)
        with self._lock:
            self._buckets[bucket] += 1
            self._sum += value

    def cumulative(self) -> Tuple[Sequence[int], float]:
        """How many values were at most each bound, how many in all; and their sum."""
        with self._lock:
            return list(itertools.accumulate(self._buckets)), self._sum


class AgentCounters:
    """All that one agent counts.

    Attributes:
        counters: All counters, in the order in which `metrics` exposes them.
        launch_delay: See its meaning, as for the counters.
        task_phases: A histogram for each phase of tasks.
    """

    def __init__(self) -> None:
        self.flow_runs = Counter(
            "flow_runs",
            "Flow runs on their way to a task, by how that ended.",
            ["outcome"],
            Outcome,
        )
        self.launches = Counter(
            "launches",
            "Tasks that ECS has accepted, by why they were launched.",
            ["reason"],
            Reason,
        )
        self.task_definitions = Counter(
            "task_definitions",
            "Task definitions that launches needed, by where they came from.",
            ["source"],
            Source,
        )
        self.stopped_tasks = Counter(
            "stopped_tasks",
            "Tasks that have stopped, by what was done about their flow run.",
            ["outcome"],
            Ending,
        )
        self.task_vcpu_seconds = Counter(
            "task_vcpu_seconds",
            "vCPU seconds of tasks that have stopped, as Fargate bills them.",
            ["flow"],
            most=MOST_FLOWS,
        )
        self.task_gb_seconds = Counter(
            "task_gb_seconds",
            "GB seconds of memory of tasks that have stopped, as Fargate bills them.",
            ["flow"],
            most=MOST_FLOWS,
        )
        self.task_dollars = Counter(
            "task_dollars",
            "Dollars that tasks on Fargate cost which have stopped, where known.",
            ["flow"],
            most=MOST_FLOWS,
        )
        self.aws_requests = Counter(
            "aws_requests",
            "Requests to AWS, each attempt of botocore's by itself.",
            ["service", "action", "result"],
            Answered,
        )
        self.api_requests = Counter(
            "api_requests", "Requests to the Prefect API.", ["result"], Answered
        )
        self.internal_errors = Counter(
            "internal_errors",
            "Errors inside the agent that aborted a launch or restarted a loop.",
        )
        self.counters = [
            each for each in vars(self).values() if isinstance(each, Counter)
        ]
        self.launch_delay = Histogram(
            "launch_delay_seconds",
            "From a flow run's scheduled start to ECS's acceptance of its task.",
            DELAY_BUCKETS,
        )
        self.task_phases = {
            phase: Histogram(
                "task_phase_seconds",
                "How long the phases of tasks that have stopped took.",
                PHASE_BUCKETS,
            )
            for phase in Phase
        }
