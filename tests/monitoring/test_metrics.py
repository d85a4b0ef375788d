"""`/metrics` shows what has happened, and docs/metrics.md says what it means."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict, List, Set, Tuple

import pytest
import yaml

pytest.importorskip("prometheus_client", reason="the extra `metrics` is not installed")

from metric_samples import by_label, samples
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as open_metrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from prefect_ecs_plugin import __version__
from prefect_ecs_plugin.aws.rate_limiter import BUCKETS_OF, LIMITS, RateLimiter
from prefect_ecs_plugin.limits import Kind, Limit, Use
from prefect_ecs_plugin.monitoring.metrics import Metrics
from prefect_ecs_plugin.observability.counters import (
    DELAY_BUCKETS,
    MOST_FLOWS,
    OTHER,
    PHASE_BUCKETS,
    AgentCounters,
    Answered,
    Counter,
    Ending,
    Outcome,
    Phase,
    Reason,
    Source,
)
from prefect_ecs_plugin.observability.health import Health
from prefect_ecs_plugin.scheduling.simulated_clock import Simulation
from prefect_ecs_plugin.scheduling.steps import Cause, Pause, Steps, Wait


class Agent:
    """The parts of an agent that its metrics read."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.counts = AgentCounters()
        self.problem: List[str] = []
        self.simulation = Simulation()
        self.tasks = [SimpleNamespace(last_status=s) for s in ("RUNNING", "", "NEW")]
        health = Health(
            slowest_step=lambda: 0.0,
            reasons=[lambda: next(iter(self.problem), None)],
            clock=lambda: self.now,
        )
        self.pacer = RateLimiter(LIMITS, lambda: 0.0, lambda seconds, action: None)
        launcher: Any = SimpleNamespace(pending_run_ids={"a", "b"})
        watcher: Any = SimpleNamespace(in_flight=lambda: self.tasks)
        self.metrics = Metrics(
            counts=self.counts,
            name="my-agent",
            health=health,
            dispatcher=self.simulation.dispatcher,
            pacer=self.pacer,
            launcher=launcher,
            watcher=watcher,
            limits=lambda: [Use(Limit(Kind.FLOW, "etl", 2.0), 1.0, 3, 0.0)],
        )

    def scrape(self, accept: str = "") -> str:
        return self.metrics.exposition(accept)[0].decode()


def iter_steps(*waits: Wait) -> Steps[None]:
    yield from waits


# -- The exposition ----------------------------------------------------------------


def test_gauges_show_the_state_at_the_scrape() -> None:
    agent = Agent()
    for _ in range(22):
        agent.pacer.ticket("RunTask on Fargate")
    dispatcher = agent.simulation.dispatcher
    dispatcher.start(iter_steps(Pause(9, cause=Cause.CAPACITY)), run_id="a")
    dispatcher.start(iter_steps(Pause(9)), background=True)
    text = agent.scrape()
    assert by_label(text, "prefect_ecs_flow_runs_waiting") == {"capacity": 1}
    assert by_label(text, "prefect_ecs_tasks_in_flight") == {
        "RUNNING": 1,
        "UNKNOWN": 1,
        "NEW": 1,
    }
    assert by_label(text, "prefect_ecs_aws_requests_queued") == {
        "RunTask on Fargate": 3
    }
    assert by_label(text, "prefect_ecs_limit") == {"flow=etl": 2}
    assert by_label(text, "prefect_ecs_limit_used") == {"flow=etl": 1}
    assert by_label(text, "prefect_ecs_limit_waiting") == {"flow=etl": 3}
    seen = samples(text)
    assert seen[("prefect_ecs_flow_runs_submitted", ())] == 2
    assert seen[("prefect_ecs_healthy", ())] == 1
    agent.problem.append("there are no AWS credentials")
    assert samples(agent.scrape())[("prefect_ecs_healthy", ())] == 0


def test_the_last_poll_is_a_timestamp() -> None:
    agent = Agent()
    agent.now += 40
    before = time.time()
    polled = samples(agent.scrape())[("prefect_ecs_last_poll_timestamp_seconds", ())]
    assert before - 41 < polled < time.time() - 39


def test_the_agents_name_and_versions_are_shown() -> None:
    (labels,) = (
        dict(labels)
        for name, labels in samples(Agent().scrape())
        if name == "prefect_ecs_agent_info"
    )
    assert labels["name"] == "my-agent"
    assert labels["version"] == __version__
    assert set(labels) == {"name", "version", "prefect_version", "botocore_version"}


def test_a_histogram_is_cumulative() -> None:
    agent = Agent()
    for seconds in (0.05, 0.1, 3, 3, 9999):
        agent.counts.launch_delay.observe(seconds)
    name = "prefect_ecs_launch_delay_seconds"
    seen = samples(agent.scrape())
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


def of_flows(counts: AgentCounters) -> Tuple[Counter, ...]:
    return counts.task_vcpu_seconds, counts.task_gb_seconds, counts.task_dollars


def test_costs_are_counted_by_flow_up_to_a_hundred_flows() -> None:
    agent = Agent()
    for n in range(MOST_FLOWS + 5):
        for counter in of_flows(agent.counts):
            counter.add(f"flow-{n}", amount=0.5)
            counter.add("flow-0", amount=0.25)
    for counter in of_flows(agent.counts):
        seen = by_label(agent.scrape(), f"prefect_ecs_{counter.name}_total")
        assert len(seen) == MOST_FLOWS + 1
        assert seen["flow-99"] == 0.5
        assert seen[OTHER] == 2.5
        assert sum(seen.values()) == 0.75 * (MOST_FLOWS + 5)


def test_phases_are_histograms_of_one_metric() -> None:
    agent = Agent()
    agent.counts.task_phases[Phase.PULL].observe(45)
    agent.counts.task_phases[Phase.RUN].observe(3)
    seen = samples(agent.scrape())
    name = "prefect_ecs_task_phase_seconds"
    sums = {phase: seen[(f"{name}_sum", (("phase", phase.value),))] for phase in Phase}
    assert sums == {**dict.fromkeys(Phase, 0), Phase.PULL: 45, Phase.RUN: 3}
    bucket = (("le", "60.0"), ("phase", "pull"))
    assert seen[(f"{name}_bucket", bucket)] == 1


def test_open_metrics_are_served_on_request() -> None:
    agent = Agent()
    accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
    content, kind = agent.metrics.exposition(accept)
    assert kind.startswith("application/openmetrics-text")
    names = {family.name for family in open_metrics_families(content.decode())}
    assert {"prefect_ecs_flow_runs", "prefect_ecs_launch_delay_seconds"} <= names


def test_agents_in_one_process_have_separate_metrics() -> None:
    one, other = Agent(), Agent()
    one.counts.launches.add("scheduled")
    name = "prefect_ecs_launches_total"
    assert by_label(one.scrape(), name) == {"scheduled": 1}
    assert by_label(other.scrape(), name) == {}


# -- What the docs say -------------------------------------------------------------

DOCS = Path(__file__).parents[2] / "docs"

needs_docs = pytest.mark.skipif(not DOCS.exists(), reason="the docs are not installed")


def exposed() -> str:
    """A scrape with at least one sample of everything."""
    agent = Agent()
    agent.counts.aws_requests.add("ecs", "RunTask", "ok")
    for counter in of_flows(agent.counts):
        counter.add("etl", amount=0.5)
    return agent.scrape()


def page() -> str:
    return (DOCS / "metrics.md").read_text(encoding="utf-8")


def table(heading: str) -> List[List[str]]:
    """The cells of the first table under a heading, without the backticks."""
    text = page().split(heading)[1].split("\n\n|")[1].split("\n\n")[0]
    rows = [line.strip("|").split("|") for line in f"|{text}".splitlines()[2:]]
    return [[cell.strip(" |`") for cell in row] for row in rows]


@needs_docs
@pytest.mark.skipif(sys.platform != "linux", reason="process_* is there on Linux only")
def test_the_docs_have_a_row_for_each_metric_and_no_other() -> None:
    shown = {}
    for family in text_string_to_metric_families(exposed()):
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels}
        shown[name] = (family.type, labels - {"le"})
    documented = {
        name: (kind, set(filter(None, labels.replace("`", "").split(", "))))
        for name, kind, labels, _ in table("## All metrics")
    }
    assert documented == shown


@needs_docs
def test_the_docs_list_every_value_of_the_labels() -> None:
    documented: Dict[str, List[str]] = {}
    label = ""
    for name, value, _ in table("### Values of the labels"):
        label = name.replace("`", "") or label
        documented.setdefault(label, []).append(value)
    assert documented == {
        label: [member.value for member in members]
        for label, members in {
            "outcome of flow_runs": Outcome,
            "reason": Reason,
            "outcome of stopped_tasks": Ending,
            "phase": Phase,
            "source": Source,
            "result": Answered,
            "cause": Cause,
        }.items()
    }
    limits = page().split("`limit` is one of")[1].split("## ")[0]
    assert set(re.findall(r"`([^`]+)`", limits)) == set(BUCKETS_OF)


@needs_docs
def test_the_docs_list_the_buckets() -> None:
    assert DELAY_BUCKETS[:8] == (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
    assert DELAY_BUCKETS[8:] == tuple(60 * n for n in (1, 2, 5, 10, 30))
    buckets = "0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30 s and 1, 2, 5, 10, 30 minutes"
    assert buckets in " ".join(page().split())
    assert PHASE_BUCKETS[:6] == (1, 2.5, 5, 10, 20, 30)
    assert PHASE_BUCKETS[6:11] == tuple(60 * n for n in (1, 2, 5, 10, 30))
    assert PHASE_BUCKETS[11:] == tuple(3600 * n for n in (1, 4, 24))
    buckets = "1, 2.5, 5, 10, 20, 30 s, 1, 2, 5, 10, 30 minutes and 1, 4, 24 hours"
    assert buckets in " ".join(page().split())


def alerts() -> List[Dict[str, Any]]:
    (text,) = [
        block
        for block in re.findall(r"```yaml\n(.*?)```", page(), re.DOTALL)
        if block.startswith("groups:")
    ]
    (group,) = yaml.safe_load(text)["groups"]
    rules: List[Dict[str, Any]] = group["rules"]
    return rules


def panels() -> List[Dict[str, Any]]:
    text = (DOCS / "grafana-dashboard.json").read_text(encoding="utf-8")
    found: List[Dict[str, Any]] = json.loads(text)["panels"]
    return found


def expressions() -> Dict[str, str]:
    """Every PromQL expression of the docs, by where it is."""
    if not DOCS.exists():
        return {}
    found = {rule["alert"]: rule["expr"] for rule in alerts()}
    for panel in panels():
        for target in panel["targets"]:
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    return found


@pytest.mark.parametrize("where", expressions())
def test_queries_in_the_docs_use_only_existing_metrics(where: str) -> None:
    expression = expressions()[where]
    values: Dict[str, Dict[str, Set[str]]] = {}
    for name, labels in samples(exposed()):
        known = values.setdefault(name, {})
        for label, value in labels:
            known.setdefault(label, set()).add(value)
    asked = re.findall(
        r"\b((?:prefect_ecs|process|python)_\w+)(\{[^}]*\})?", expression
    )
    assert asked or "up{" in expression
    for name, selector in asked:
        assert name in values
        for label, operator, value in re.findall(r'(\w+)(=~|!=|=)"([^"]*)"', selector):
            if label != "instance":
                assert operator != "=~"
                assert value in values[name][label]
    by = {
        label
        for labels in re.findall(r"\bby \(([^)]*)\)", expression)
        for label in labels.split(", ")
    }
    of_asked = {label for name, _ in asked for label in values[name]}
    assert by <= {*of_asked, "instance"}
    assert expression.count("(") == expression.count(")")


@needs_docs
def test_the_dashboard_can_be_imported() -> None:
    text = (DOCS / "grafana-dashboard.json").read_text(encoding="utf-8")
    board = json.loads(text)
    (source,) = board["__inputs"]
    assert (source["name"], source["pluginId"]) == ("DS_PROMETHEUS", "prometheus")
    assert (board["uid"], board["id"]) == ("prefect-ecs-agents", None)
    assert board["schemaVersion"] >= 36
    kinds = {each["id"] for each in board["__requires"] if each["type"] == "panel"}
    assert kinds == {panel["type"] for panel in board["panels"]}
    ours = {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}
    for panel in board["panels"]:
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"] == ours
        assert [target["datasource"] for target in panel["targets"]] == (
            [ours] * len(panel["targets"])
        )
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert {label["name"] for label in board["templating"]["list"]} == {"instance"}


def test_no_panel_overlaps_another() -> None:
    taken: Dict[Tuple[int, int], str] = {}
    for panel in panels() if DOCS.exists() else []:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]


@needs_docs
def test_the_dashboard_shows_every_metric_of_our_own() -> None:
    shown = {
        name
        for panel in panels()
        for target in panel["targets"]
        for name in re.findall(r"prefect_ecs_\w+", target["expr"])
    }
    ours = {
        row[0] + ("_bucket" if row[1] == "histogram" else "")
        for row in table("## All metrics")
        if row[0].startswith("prefect_ecs_")
    }
    assert ours - shown == {
        "prefect_ecs_flow_runs_submitted",  # the waiting ones and those at ECS
        "prefect_ecs_internal_errors_total",  # an alert
    }
