"""One agent's counters and present state, as metrics for Prometheus.

    Counts, state of other modules -> metric families -> text, made anew at each scrape

The only module that needs prometheus-client, the extra `metrics`; it is imported when
an agent has an address to serve it at. Nothing is kept in prometheus-client's global
registry, so several agents in one process stay separate. docs/metrics.md has a row for
each family.
"""

from __future__ import annotations

import collections
import time
from importlib.metadata import version
from typing import Iterator, Mapping, Tuple, Union

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.utils import floatToGoString

from ..aws.rate_limiter import BUCKETS_OF, RateLimiter
from ..launch.launcher import Launcher
from ..observability.counters import AgentCounters, Counter, Histogram
from ..observability.health import Health
from ..scheduling.dispatcher import Dispatcher
from ..version import installed_version
from .watcher import Watcher

#: The first part of every name.
PREFIX = "prefect_ecs_"

#: The states of a task's life.
#: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-lifecycle-explanation.html
_STATUSES = (
    *("UNKNOWN", "PROVISIONING", "PENDING", "ACTIVATING", "RUNNING"),
    *("DEACTIVATING", "STOPPING", "DEPROVISIONING", "STOPPED"),
)

_Value = Union[int, float]


class Metrics:
    """The metrics of one agent.

    Args:
        counts: What it has counted.
        name: The agent's name.
        health: Whether it is well.
        dispatcher: Drives its launches.
        pacer: Keeps AWS's limits.
        launcher: Its launches.
        watcher: Its tasks in flight.
    """

    def __init__(
        self,
        *,
        counts: AgentCounters,
        name: str,
        health: Health,
        dispatcher: Dispatcher,
        pacer: RateLimiter,
        launcher: Launcher,
        watcher: Watcher,
    ) -> None:
        self._counts = counts
        self._name = name
        self._health = health
        self._dispatcher = dispatcher
        self._pacer = pacer
        self._launcher = launcher
        self._watcher = watcher
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._registry.register(self)

    def exposition(self, accept: str) -> Tuple[bytes, str]:
        """The metrics of this moment, and the type of their content.

        Args:
            accept: The Accept header: Prometheus' own text, or OpenMetrics.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def collect(self) -> Iterator[Metric]:
        """Called by the registry at each scrape."""
        yield from map(_counter, self._counts.counters)
        yield _histogram(self._counts.launch_delay)
        yield self._info()
        yield from self._how_it_is()
        yield from self._runs_and_tasks()
        yield from self._its_pace()

    def _info(self) -> Metric:
        facts = {
            "name": self._name,
            "version": installed_version(),
            "prefect_version": version("prefect"),
            "botocore_version": version("botocore"),
        }
        return InfoMetricFamily(
            f"{PREFIX}agent", "The agent's name and versions.", value=facts
        )

    def _how_it_is(self) -> Iterator[Metric]:
        yield _gauge(
            "healthy",
            "1 if the agent is well, as /api/health says; else 0.",
            float(self._health.problem() is None),
        )
        yield _gauge(
            "last_poll_timestamp_seconds",
            "When the queue of flow runs was last read; before that, the start.",
            time.time() - self._health.poll_age(),
        )
        yield _gauge(
            "slowest_step_seconds",
            "For how long the slowest worker has been busy with one step.",
            self._dispatcher.slowest(),
        )

    def _runs_and_tasks(self) -> Iterator[Metric]:
        yield _gauges(
            "flow_runs_waiting",
            "Flow runs that wait at present, by what for.",
            "cause",
            {cause.value: n for cause, n in self._dispatcher.waits().items()},
        )
        yield _gauge(
            "flow_runs_submitted",
            "Flow runs that are Submitted and have no task yet.",
            len(self._launcher.pending_run_ids),
        )
        yield _gauges(
            "tasks_in_flight",
            "Tasks that are looked after, by their last known status.",
            "status",
            self._tasks(),
        )

    def _tasks(self) -> Mapping[str, int]:
        seen = collections.Counter(
            watched.last_status or "UNKNOWN" for watched in self._watcher.in_flight()
        )
        return {**dict.fromkeys(_STATUSES, 0), **seen}

    def _its_pace(self) -> Iterator[Metric]:
        yield _gauges(
            "aws_requests_queued",
            "Requests to ECS that wait for their turn under AWS's limits.",
            "limit",
            {kind: self._pacer.waiting(kind) for kind in BUCKETS_OF},
        )
        yield _gauges(
            "aws_requests_allowed_per_second",
            "The rate of requests to ECS that the agent allows itself at present.",
            "limit",
            {kind: self._pacer.pace(kind) for kind in BUCKETS_OF},
        )


def _counter(counter: Counter) -> Metric:
    family = CounterMetricFamily(
        PREFIX + counter.name, counter.meaning, labels=counter.labels
    )
    for labels, value in counter.items().items():
        family.add_metric(labels, value)
    return family


def _histogram(histogram: Histogram) -> Metric:
    counts, total = histogram.cumulative()
    bounds = [*map(floatToGoString, histogram.bounds), "+Inf"]
    return HistogramMetricFamily(
        PREFIX + histogram.name,
        histogram.meaning,
        buckets=list(zip(bounds, counts)),
        sum_value=total,
    )


def _gauge(name: str, meaning: str, value: _Value) -> Metric:
    return GaugeMetricFamily(PREFIX + name, meaning, value=value)


def _gauges(
    name: str, meaning: str, label: str, values: Mapping[str, _Value]
) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, meaning, labels=[label])
    for value in values.items():
        family.add_metric([value[0]], value[1])
    return family
