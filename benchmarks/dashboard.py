"""The dashboard's main panels, drawn from a real agent in the sandbox.

    python -m benchmarks.dashboard

The agent gets a trickle of runs, then a burst under AWS's limits, then one while others
in the account use up half of the limit, then one for which ECS has no capacity. The
benchmark scrapes the agent's `/metrics` each second and draws the panels into
docs/grafana-dashboard.svg. It takes four minutes.
"""

from __future__ import annotations

import itertools
import socket
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping

from prefect import Flow
from prometheus_client.parser import text_string_to_metric_families

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from world import World, eventually

from prefect_ecs_plugin.sandbox.aws import Fault, StartFailure
from prefect_ecs_plugin.sandbox.aws.lifecycle import Phases

from .panels import Mark, Panel, svg
from .scrapes import Scrapes

PICTURE = Path(__file__).parents[1] / "docs" / "grafana-dashboard.svg"

#: Seconds: over which rates are taken, and how long it all lasts.
_WINDOW, _LENGTH = 10.0, 210.0

#: Tasks that end with their run unfinished, and that do not start at first: one of so
#: many.
_DIES, _STUMBLES = 25, 30

#: Launches a second that others in the account leave to the agent.
_SHARE = 8

NO_CAPACITY = Fault(failures=[{"reason": "RESOURCE:MEMORY"}])
NO_ENI = StartFailure(
    stop_code="TaskFailedToStart",
    stopped_reason="Timeout waiting for network interface provisioning to complete.",
)

#: The story: when, what happens, how many runs become due, what is wrong until when.
BURST = Mark(15, "300 runs become due")
SHARED = Mark(75, "200 more, and others use most of AWS's limit for 30 s")
FULL = Mark(145, "60 more, and for 25 s ECS has no capacity")
_MARKS = (BURST, SHARED, FULL)
_SIZES = {BURST: 300, SHARED: 200, FULL: 60}


def main() -> None:
    """Run the story, scrape it, draw it."""
    draw(measured())


def draw(scrapes: Scrapes) -> None:
    """Write the picture."""
    title = "An agent on ECS: a run each second and three bursts, under AWS's limits"
    PICTURE.write_text(svg(title, scrapes.seconds, panels(scrapes), _MARKS))
    print(f"{PICTURE} is drawn.")


def measured() -> Scrapes:
    """What a real agent showed from one second to the next."""
    address = _free_address()
    phases = Phases(provisioning=2, pending=4, deactivating=1, deprovisioning=2)
    home = Path(tempfile.mkdtemp())
    world = World(
        home, runs_tasks=False, limits=True, task_seconds=25, phases=phases,
        latency=lambda operation: 0.4 if operation == "ecs.RunTask" else 0.05,
    )  # fmt: skip
    with world.running(), world.agent("--agent-address", address):
        story = _Story(world)
        eventually(lambda: _scrape(address))
        return _follow(story, address)


def _follow(story: _Story, address: str) -> Scrapes:
    scrapes = Scrapes()
    began = time.monotonic()
    for second in itertools.count():
        time.sleep(max(0.0, began + second - time.monotonic()))
        now = time.monotonic() - began
        if now > _LENGTH:
            return scrapes
        story.go_on(now)
        scrapes.samples.append(_scrape(address))
        scrapes.seconds.append(now)
    raise AssertionError("time has ended")


class _Story:
    """What happens to the agent.

    Args:
        world: Where it happens.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        with Flow("nightly") as flow:
            pass
        self._flow_id = world.register(flow)
        self._told = iter(_MARKS)
        self._next = next(self._told, None)
        self._launched = itertools.count(1)
        self._starts = itertools.count(1)
        world.api.subscribe(self._heard)
        world.aws.before_start = self._before_start

    def go_on(self, now: float) -> None:
        """What is due by now happens."""
        self._create(1)
        if self._next and now >= self._next.second:
            mark, self._next = self._next, next(self._told, None)
            self._world.aws.fault = _FAULTS[mark]() if mark in _FAULTS else None
            self._create(_SIZES[mark])

    def _create(self, count: int) -> None:
        for _ in range(count):
            self._world.api.store.create_flow_run(flow_id=self._flow_id)

    def _heard(self, event: Any) -> None:
        """A run succeeds once it is launched, but for one in 25, whose task dies."""
        launched = (event.message or "").startswith("Submitted for execution: ")
        if launched and next(self._launched) % _DIES:
            success = {"type": "Success", "message": "The flow has run."}
            self._world.api.store.set_flow_run_state(event.flow_run_id, success)

    def _before_start(self, task: Any) -> Any:
        return None if next(self._starts) % _STUMBLES else NO_ENI


class _Others:
    """Others in the account leave few launches a second to the agent, for a while."""

    def __init__(self, seconds: float = 30.0) -> None:
        self._until = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._second, self._left = 0, _SHARE

    def __call__(self, operation: str, params: Dict[str, Any]) -> Any:
        now = time.monotonic()
        if operation != "ecs.RunTask" or now > self._until:
            return None
        with self._lock:
            if int(now) != self._second:
                self._second, self._left = int(now), _SHARE
            self._left -= 1
            return Fault("ThrottlingException") if self._left < 0 else None


class _NoCapacity:
    """ECS has no capacity for a while."""

    def __init__(self, seconds: float = 25.0) -> None:
        self._until = time.monotonic() + seconds

    def __call__(self, operation: str, params: Dict[str, Any]) -> Any:
        is_over = time.monotonic() > self._until
        return None if is_over or operation != "ecs.RunTask" else NO_CAPACITY


_FAULTS: Mapping[Mark, Callable[[], Any]] = {SHARED: _Others, FULL: _NoCapacity}


# -- The panels --------------------------------------------------------------------


def panels(scrapes: Scrapes) -> List[Panel]:
    """The dashboard's main panels, with its titles."""
    rates = lambda name, label: scrapes.rates(name, label, _WINDOW)  # noqa: E731
    allowed = scrapes.values("prefect_ecs_aws_requests_allowed_per_second", "limit")
    delay = "prefect_ecs_launch_delay_seconds"
    wrong = rates("prefect_ecs_aws_requests_total", "result")
    return [
        Panel(
            "Launches",
            "per second",
            {
                **rates("prefect_ecs_launches_total", "reason"),
                "allowed on Fargate": allowed["RunTask on Fargate"],
            },
            dashed="allowed on Fargate",
        ),
        Panel(
            "Launch delay",
            "seconds",
            {
                "half": scrapes.quantiles(delay, 0.5, _WINDOW),
                "95 %": scrapes.quantiles(delay, 0.95, _WINDOW),
            },
        ),
        Panel(
            "Runs that wait, by cause",
            "runs",
            scrapes.values("prefect_ecs_flow_runs_waiting", "cause"),
            stacked=True,
        ),
        Panel(
            "Tasks in flight, by status",
            "tasks",
            scrapes.values("prefect_ecs_tasks_in_flight", "status"),
            stacked=True,
        ),
        Panel(
            "AWS requests that go wrong",
            "per second",
            {name: rate for name, rate in wrong.items() if name != "ok"},
        ),
        Panel(
            "Tasks that stop, by what was done",
            "per second",
            rates("prefect_ecs_stopped_tasks_total", "outcome"),
            stacked=True,
        ),
    ]


# -- Scraping ----------------------------------------------------------------------


def _free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def _scrape(address: str) -> Dict[Any, float]:
    """Every sample; none if the agent does not answer."""
    try:
        with urllib.request.urlopen(f"{address}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except OSError:
        return {}
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


if __name__ == "__main__":
    main()
