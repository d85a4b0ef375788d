"""A real agent's `/metrics`, against what the sandbox's API and AWS have seen."""

from __future__ import annotations

import socket
import sys
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Mapping, Tuple

import pytest
from deadlines import DEADLINE
from prefect import Flow
from prefect.engine.state import Success

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")
pytest.importorskip("prometheus_client", reason="the extra `metrics` is not installed")

from metric_samples import by_label, samples
from world import World, claim, eventually

from prefect_ecs_plugin.sandbox.aws import Fault, StartFailure

pytestmark = pytest.mark.slow

NO_ENI = StartFailure(
    stop_code="TaskFailedToStart",
    stopped_reason="Timeout waiting for network interface provisioning to complete.",
)

#: `prefect` where prometheus-client is not installed.
WITHOUT = """
import sys

sys.modules["prometheus_client"] = None

from prefect.cli import cli

cli()
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, locks_submitted=False, runs_tasks=False).running() as world:
        yield world


@pytest.fixture
def new_run(world: World) -> Callable[..., str]:
    with Flow("counted") as flow:
        pass
    flow_id = world.register(flow)
    return lambda **values: str(world.api.store.create_flow_run(flow_id, **values))


@pytest.fixture
def address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def get(url: str) -> Tuple[int, str, str]:
    """The status, the content type and the content; 0 if the agent does not answer."""
    try:
        with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
            kind = answer.headers["Content-Type"]
            return answer.status, kind, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()
    except OSError:
        return 0, "", ""


class Scraper:
    """Scrapes an agent."""

    def __init__(self, address: str) -> None:
        self._url = f"{address}/metrics"

    def text(self) -> str:
        return get(self._url)[2]

    def value(self, name: str) -> float:
        return samples(self.text())[(f"prefect_ecs_{name}", ())]

    def by_label(self, name: str) -> Dict[str, float]:
        return by_label(self.text(), f"prefect_ecs_{name}")

    def shows(self, name: str, expected: Mapping[str, float]) -> None:
        """Wait until it shows these values; those that are 0 are left out."""
        seen: Dict[str, float] = {}

        def is_shown() -> bool:
            nonlocal seen
            seen = self.by_label(name)
            return seen == expected

        assert eventually(is_shown), seen

    def aws_requests(self) -> Dict[str, float]:
        """All attempts, by service and action."""
        found: Counter[str] = Counter()
        for (name, labels), value in samples(self.text()).items():
            if name == "prefect_ecs_aws_requests_total":
                given = dict(labels)
                found[f"{given['service']}.{given['action']}"] += int(value)
        return dict(found)

    def results_of(self, action: str) -> Dict[str, float]:
        """An action's attempts by how they went."""
        return {
            dict(labels)["result"]: value
            for (name, labels), value in samples(self.text()).items()
            if name == "prefect_ecs_aws_requests_total"
            if dict(labels)["action"] == action and value
        }


def faulty_run_task(world: World, faults: List[Fault]) -> None:
    """Let RunTask go wrong as long as there are faults."""
    world.aws.fault = lambda operation, _: (
        faults.pop() if operation == "ecs.RunTask" and faults else None
    )


# -- Counts ------------------------------------------------------------------------


def test_launches_are_counted_exactly(
    world: World, new_run: Callable[..., str], address: str
) -> None:
    agent = Scraper(address)
    faulty_run_task(world, [Fault("ThrottlingException")] * 2)
    new_run()
    with world.quick_agent("--agent-address", address):
        agent.shows("launches_total", {"scheduled": 1})
        new_run()
        new_run(run_config={"type": "ECSRun", "cpu": "many", "labels": []})
        agent.shows("flow_runs_total", {"launched": 2, "launch_failed": 1})
        agent.shows("launches_total", {"scheduled": 2})
        agent.shows("task_definitions_total", {"registered": 1, "remembered": 1})
        assert agent.results_of("RunTask") == {"ok": 2, "throttled": 2}
        # One that is not there yet is looked for, so that it is registered once.
        assert agent.results_of("DescribeTaskDefinition") == {"refused": 1}
        assert agent.results_of("RegisterTaskDefinition") == {"ok": 1}
        assert agent.value("launch_delay_seconds_count") == 2
        assert agent.value("internal_errors_total") == 0


def test_every_request_is_counted(
    world: World, new_run: Callable[..., str], address: str
) -> None:
    """Those of botocore's own retries, too."""
    agent = Scraper(address)
    faults = [Fault(status=503)] * 2
    world.aws.fault = lambda operation, _: (
        faults.pop() if operation == "ec2.DescribeVpcs" and faults else None
    )
    new_run()
    with world.quick_agent("--no-watch", "--agent-address", address):
        agent.shows("launches_total", {"scheduled": 1})
        assert agent.results_of("DescribeVpcs") == {"ok": 1, "failed": 2}
        assert agent.aws_requests() == {
            "ec2.DescribeVpcs": 3,
            "ec2.DescribeSubnets": 1,
            "ecs.DescribeClusters": 1,
            "ecs.DescribeTaskDefinition": 1,
            "ecs.RegisterTaskDefinition": 1,
            "ecs.RunTask": 1,
        }
        assert agent.by_label("api_requests_total").keys() == {"ok"}
        world.api.stop()
        eventually(lambda: "failed" in agent.by_label("api_requests_total"))
        world.api.start()
        assert agent.by_label("api_requests_total")["failed"] > 0


def test_stopped_tasks_are_counted_exactly(
    world: World, new_run: Callable[..., str], address: str
) -> None:
    agent = Scraper(address)
    failures = [NO_ENI]
    world.aws.before_start = lambda _: failures.pop() if failures else None
    bad = new_run()
    with world.quick_agent("--agent-address", address):
        agent.shows("launches_total", {"scheduled": 1, "restart": 1})
        agent.shows("stopped_tasks_total", {"restarted": 1})
        good, cancelled = new_run(), new_run()
        agent.shows("tasks_in_flight", {"RUNNING": 3})
        world.client.set_flow_run_state(good, Success())
        for run_id in (good, bad):
            world.aws.finish(world.tasks_of(run_id)[-1].task_arn, exit_code=0)
        agent.shows("tasks_in_flight", {"RUNNING": 1})
        agent.shows("stopped_tasks_total", {"restarted": 1, "left": 1, "failed": 1})
        world.client.cancel_flow_run(cancelled)
        agent.shows("tasks_in_flight", {})
        assert agent.by_label("flow_runs_total") == {"launched": 4}
        assert agent.value("launch_delay_seconds_count") == 3


# -- Gauges ------------------------------------------------------------------------


def test_the_current_state_of_the_agent(
    world: World, new_run: Callable[..., str], address: str
) -> None:
    agent = Scraper(address)
    faults = [Fault(failures=[{"reason": "RESOURCE:MEMORY"}])] * 1_000_000
    faulty_run_task(world, faults)
    new_run()
    with world.quick_agent("--agent-address", address):
        agent.shows("flow_runs_waiting", {"capacity": 1})
        assert agent.value("flow_runs_submitted") == 1
        assert get(f"{address}/metrics")[1].startswith("text/plain; version=")
        faults.clear()
        agent.shows("flow_runs_waiting", {})
        agent.shows("flow_runs_total", {"launched": 1})
        assert agent.value("flow_runs_submitted") == 0
        assert agent.value("healthy") == 1
        before = agent.value("last_poll_timestamp_seconds")
        assert eventually(lambda: agent.value("last_poll_timestamp_seconds") > before)


# -- The address -------------------------------------------------------------------


def test_without_prometheus_client_the_agent_works_and_says_what_to_install(
    world: World, new_run: Callable[..., str], address: str
) -> None:
    run_id = new_run()
    command = [sys.executable, "-c", WITHOUT, "agent", "ecs", "start"]
    with world.child([*command, "--agent-address", address]):
        assert eventually(lambda: world.tasks_of(run_id))
        assert get(f"{address}/api/health")[0] == 200
        assert get(f"{address}/metrics") == (
            501,
            "text/plain; charset=utf-8",
            "This agent serves no metrics, because prometheus-client is not installed: "
            "pip install 'prefect-ecs-plugin[metrics]', and start it again. "
            "[no-metrics]\n",
        )


def test_runs_left_by_an_earlier_agent_are_shown(
    world: World, new_run: Callable[..., str], address: str
) -> None:
    """The run has 30 seconds to show its task, and no other agent watches it."""
    agent_id = world.client.register_agent(
        agent_type="ECSAgent", name="agent", labels=[]
    )
    claim(world.api.store, new_run(), agent_id, "gone")
    with world.agent("--agent-address", address):
        Scraper(address).shows("flow_runs_waiting", {"recovery": 1})
