"""One agent's counters and current state, as metrics for Prometheus.

They are built at each scrape from the counters and the other components. The only
module that needs prometheus-client, the extra `metrics`; it is imported when an agent
has an address to serve them at. The registry is the agent's own, so several agents in
one process stay separate. docs/metrics.md has a row for each metric.
"""

from __future__ import annotations

import collections
import time
from importlib.metadata import version
from typing import Callable, Iterator, Mapping, Sequence, Tuple

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
from ..limits import Use
from ..observability.counters import AgentCounters, Counter, Histogram, Labels
from ..observability.health import Health
from ..scheduling.dispatcher import Dispatcher
from ..version import installed_version
from .watcher import Watcher

#: The first part of every name.
PREFIX = "prefect_ecs_"

#: The values of `lastStatus`, before ECS has shown the task included.
#: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-lifecycle-explanation.html
_STATUSES = (
    *("UNKNOWN", "PROVISIONING", "PENDING", "ACTIVATING", "RUNNING"),
    *("DEACTIVATING", "STOPPING", "DEPROVISIONING", "STOPPED"),
)


class Metrics:
    """The metrics of one agent.

    Args:
        counts: What it has counted.
        name: The agent's name.
        health: Whether it is healthy.
        dispatcher: Runs its launches.
        pacer: Limits the rate of its requests to AWS.
        launcher: Its launches.
        watcher: Its tasks in flight.
        limits: Returns the use of its limits.
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
        limits: Callable[[], Sequence[Use]] = tuple,
    ) -> None:
        self._counts = counts
        self._name = name
        self._health = health
        self._dispatcher = dispatcher
        self._pacer = pacer
        self._launcher = launcher
        self._watcher = watcher
        self._limits = limits
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._registry.register(self)

    def exposition(self, accept: str) -> Tuple[bytes, str]:
        """The current metrics, and their content type.

        Args:
            accept: The Accept header: Prometheus' text format, or OpenMetrics.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def collect(self) -> Iterator[Metric]:
        """Called by the registry at each scrape."""
        yield from map(_counter, self._counts.counters)
        yield _histogram({(): self._counts.launch_delay})
        yield _histogram(
            {(phase.value,): each for phase, each in self._counts.task_phases.items()},
            "phase",
        )
        versions = {
            "name": self._name,
            "version": installed_version(),
            "prefect_version": version("prefect"),
            "botocore_version": version("botocore"),
        }
        yield InfoMetricFamily(
            f"{PREFIX}agent", "The agent's name and versions.", value=versions
        )
        yield _gauge(
            "healthy",
            "1 if the agent is healthy, as /api/health says; else 0.",
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
        yield _gauge(
            "flow_runs_submitted",
            "Flow runs that are Submitted and have no task yet.",
            len(self._launcher.pending_run_ids),
        )
        yield _gauges(
            "flow_runs_waiting",
            "Flow runs that wait at present, by what for.",
            "cause",
            {cause.value: n for cause, n in self._dispatcher.waits().items()},
        )
        yield from self._limit_gauges()
        in_flight = self._watcher.in_flight()
        seen = collections.Counter(each.last_status or "UNKNOWN" for each in in_flight)
        yield _gauges(
            "tasks_in_flight",
            "Tasks that are watched, by their last known status.",
            "status",
            {**dict.fromkeys(_STATUSES, 0), **seen},
        )
        yield _gauges(
            "aws_requests_queued",
            "Requests to ECS that wait for a slot under AWS's rate limits.",
            "limit",
            {kind: self._pacer.waiting(kind) for kind in BUCKETS_OF},
        )
        yield _gauges(
            "aws_requests_allowed_per_second",
            "The rate of requests to ECS that the agent allows itself at present.",
            "limit",
            {kind: self._pacer.pace(kind) for kind in BUCKETS_OF},
        )

    def _limit_gauges(self) -> Iterator[Metric]:
        uses = {use.limit.what: use for use in self._limits()}
        yield _gauges(
            "limit",
            "How many runs, or vCPUs, a limit allows at once.",
            "limit",
            {what: use.limit.most for what, use in uses.items()},
        )
        yield _gauges(
            "limit_used",
            "How many runs, or vCPUs, are taken of a limit, by all agents.",
            "limit",
            {what: use.used for what, use in uses.items()},
        )
        yield _gauges(
            "limit_waiting",
            "Flow runs that wait for a limit, as far as this agent has seen.",
            "limit",
            {what: use.waiting for what, use in uses.items()},
        )


def _counter(counter: Counter) -> Metric:
    family = CounterMetricFamily(
        PREFIX + counter.name, counter.meaning, labels=counter.labels
    )
    for labels, value in counter.items().items():
        family.add_metric(labels, value)
    return family


def _histogram(histograms: Mapping[Labels, Histogram], *names: str) -> Metric:
    """One metric of histograms that differ by their labels."""
    first = next(iter(histograms.values()))
    family = HistogramMetricFamily(PREFIX + first.name, first.meaning, labels=names)
    bounds = [*map(floatToGoString, first.bounds), "+Inf"]
    for labels, histogram in histograms.items():
        counts, total = histogram.cumulative()
        family.add_metric(labels, list(zip(bounds, counts)), total)
    return family


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, meaning, value=value)


def _gauges(name: str, meaning: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, meaning, labels=[label])
    for label_value, value in values.items():
        family.add_metric([label_value], value)
    return family
