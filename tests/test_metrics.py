"""`/metrics` shows what has happened, and docs/metrics.md says what it means."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, Dict, List, Tuple

import pytest

pytest.importorskip("prometheus_client", reason="the extra `metrics` is not installed")

from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as open_metrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from prefect_ecs_plugin import __version__
from prefect_ecs_plugin.counting import Counts
from prefect_ecs_plugin.health import Health
from prefect_ecs_plugin.metrics import Metrics
from prefect_ecs_plugin.pacing import LIMITS, Pacer
from prefect_ecs_plugin.simulation import Simulation

#: A sample's name and its labels.
Sample = Tuple[str, Tuple[Tuple[str, str], ...]]


def samples(text: str) -> Dict[Sample, float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def by_label(text: str, name: str) -> Dict[str, float]:
    """The values of a metric with one label, those that are 0 left out."""
    return {
        labels[0][1]: value
        for (found, labels), value in samples(text).items()
        if found == name and value
    }


class Rooms:
    """An agent's rooms, as far as its metrics ask them."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.counts = Counts()
        self.problem: List[str] = []
        self.simulation = Simulation()
        self.tasks = [SimpleNamespace(last_status=s) for s in ("RUNNING", "", "NEW")]
        health = Health(
            lambda: 0.0, [lambda: next(iter(self.problem), None)], lambda: self.now
        )
        self.pacer = Pacer(LIMITS, lambda: 0.0, lambda seconds, action: None)
        launcher: Any = SimpleNamespace(under_way={"a", "b"})
        watcher: Any = SimpleNamespace(in_flight=lambda: self.tasks)
        self.metrics = Metrics(
            self.counts,
            "my-agent",
            health,
            self.simulation.dispatcher,
            self.pacer,
            launcher,
            watcher,
        )

    def scrape(self, accept: str = "") -> str:
        return self.metrics.exposition(accept)[0].decode()


# -- The exposition ----------------------------------------------------------------


def test_gauges_are_how_the_rooms_are_at_the_scrape() -> None:
    rooms = Rooms()
    for _ in range(22):
        rooms.pacer.turn("RunTask on Fargate")
    text = rooms.scrape()
    assert by_label(text, "prefect_ecs_tasks_in_flight") == {
        "RUNNING": 1,
        "UNKNOWN": 1,
        "NEW": 1,
    }
    assert by_label(text, "prefect_ecs_aws_requests_queued") == {
        "RunTask on Fargate": 3
    }
    seen = samples(text)
    assert seen[("prefect_ecs_flow_runs_submitted", ())] == 2
    assert seen[("prefect_ecs_healthy", ())] == 1
    rooms.problem.append("there are no AWS credentials")
    assert samples(rooms.scrape())[("prefect_ecs_healthy", ())] == 0


def test_the_last_poll_is_a_moment() -> None:
    rooms = Rooms()
    rooms.now += 40
    polled = samples(rooms.scrape())[("prefect_ecs_last_poll_timestamp_seconds", ())]
    assert polled == pytest.approx(time.time() - 40, abs=5)


def test_it_says_who_it_is() -> None:
    (labels,) = (
        dict(labels)
        for name, labels in samples(Rooms().scrape())
        if name == "prefect_ecs_agent_info"
    )
    assert labels["name"] == "my-agent"
    assert labels["version"] == __version__
    assert set(labels) == {"name", "version", "prefect_version", "botocore_version"}


def test_a_histogram_is_cumulative() -> None:
    rooms = Rooms()
    for seconds in (0.05, 0.1, 3, 3, 9999):
        rooms.counts.launch_delay.observe(seconds)
    name = "prefect_ecs_launch_delay_seconds"
    seen = samples(rooms.scrape())
    buckets = {
        labels[0][1]: value
        for (found, labels), value in seen.items()
        if found == f"{name}_bucket"
    }
    assert buckets == {
        **{"0.1": 2, "0.25": 2, "0.5": 2, "1.0": 2, "2.5": 2, "5.0": 4, "10.0": 4},
        **{"30.0": 4, "60.0": 4, "120.0": 4, "300.0": 4, "600.0": 4, "1800.0": 4},
        "+Inf": 5,
    }
    assert seen[(f"{name}_count", ())] == 5
    assert seen[(f"{name}_sum", ())] == pytest.approx(10005.15)


def test_it_speaks_open_metrics_to_those_who_ask_for_it() -> None:
    rooms = Rooms()
    accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
    content, kind = rooms.metrics.exposition(accept)
    assert kind.startswith("application/openmetrics-text")
    names = {family.name for family in open_metrics_families(content.decode())}
    assert {"prefect_ecs_flow_runs", "prefect_ecs_launch_delay_seconds"} <= names


def test_agents_in_one_process_do_not_meet() -> None:
    one, other = Rooms(), Rooms()
    one.counts.launches.add("scheduled")
    name = "prefect_ecs_launches_total"
    assert by_label(one.scrape(), name) == {"scheduled": 1}
    assert by_label(other.scrape(), name) == {}
