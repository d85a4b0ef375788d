"""Log lines and heartbeats reach a real API: many at once, and through outages."""

from __future__ import annotations

import logging
import uuid
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest
from codes import code_of, codes_of
from prefect.utilities.configuration import set_temporary_config

pytest.importorskip("graphql", reason="the sandbox needs its extra and Python 3.10")

from sandbox_prefect import new_flow

from prefect_ecs_plugin.observability.outage_log import OutageLog
from prefect_ecs_plugin.observability.redaction import Secrets
from prefect_ecs_plugin.prefect_api.client import AgentClient
from prefect_ecs_plugin.prefect_api.reporter import Reporter
from prefect_ecs_plugin.prefect_api.run_states import RunStates
from prefect_ecs_plugin.sandbox.prefect_api import Fault, PrefectAPI
from prefect_ecs_plugin.scheduling.simulated_clock import Simulation


class World:
    """An API with runs, and what writes to it on a simulated clock.

    Attributes:
        requests: The root field of each request, refused ones included.
        fault: Given the number of the request, its fault.
    """

    def __init__(self, api: PrefectAPI) -> None:
        self.store = api.store
        self.flow_id = new_flow(api.store)
        self.client = AgentClient(api_server=api.url)
        self.simulation = Simulation()
        dispatcher = self.simulation.dispatcher
        logger = logging.getLogger("agent")
        outages = OutageLog(logger, dispatcher.clock)
        shared: Dict[str, Any] = {
            "client": self.client,
            "name": "agent",
            "logger": logger,
            "outages": outages,
            "start": dispatcher.start,
        }
        self._shared = shared
        states = RunStates(self.client, outages, dispatcher.start)
        self.reporter = Reporter(states=states, **shared)
        self.requests: List[str] = []
        self.fault: Callable[[int], Optional[Fault]] = lambda number: None
        api.fault = self._hear

    def redacting(self, redact: Any) -> Reporter:
        """A reporter that takes secrets out."""
        shared = {**self._shared, "redact": redact}
        states = RunStates(self.client, shared["outages"], shared["start"])
        return Reporter(states=states, **shared)

    def _hear(self, operation: str, _: Dict[str, Any]) -> Optional[Fault]:
        self.requests.append(operation)
        return self.fault(len(self.requests))

    def runs(self, count: int) -> List[str]:
        return [self.store.create_flow_run(self.flow_id) for _ in range(count)]

    def lines(self, run_id: str) -> List[str]:
        return [line.message for line in self.store.logs(run_id)]


@pytest.fixture
def world() -> Iterator[World]:
    config = {"backend": "server", "cloud.api_key": None}
    with PrefectAPI() as api, set_temporary_config(config):
        yield World(api)


def warnings(caplog: pytest.LogCaptureFixture, level: int) -> List[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == level]


# -- Secrets -------------------------------------------------------------------------


def test_secrets_of_a_run_are_taken_out_of_what_is_told_about_it(world: World) -> None:
    secrets = Secrets()
    runs = world.runs(2)
    for run_id in runs:
        secrets.learn(run_id, {"env": {"A_TOKEN": f"token of {run_id}"}})
    reporter = world.redacting(secrets.redact_text)
    text = ", ".join(f"token of {run_id}" for run_id in runs)
    for run_id in runs:
        reporter.log(run_id, text)
        world.simulation.result_of(
            reporter.mark_failed(run_id, lambda now: now["state"] == "Scheduled", text)
        )
    world.simulation.run()
    first, second = runs
    for run_id, shown in (
        (first, f"***, token of {second}"),
        (second, f"token of {first}, ***"),
    ):
        assert world.lines(run_id) == [shown, shown]
        assert world.store.flow_run(run_id).state_message == shown


# -- Log lines -----------------------------------------------------------------------


def test_lines_are_written_with_one_request(world: World) -> None:
    (run_id,) = world.runs(1)
    for number in range(200):
        world.reporter.log(run_id, f"line {number}")
    world.simulation.run()
    assert world.lines(run_id) == [f"line {number}" for number in range(200)]
    assert world.requests == ["write_run_logs"]


@pytest.mark.parametrize("bad", [0, 77, 199])
def test_a_line_that_the_api_refuses_is_reported_and_the_others_are_written(
    world: World, caplog: pytest.LogCaptureFixture, bad: int
) -> None:
    good_run, bad_run = world.runs(2)
    for number in range(200):
        if number == bad:
            world.reporter.log(bad_run, "refused", level="LOUD")
        else:
            world.reporter.log(good_run, f"line {number}")
    world.simulation.run()
    expected = [f"line {number}" for number in range(200) if number != bad]
    assert world.lines(good_run) == expected
    assert world.lines(bad_run) == []
    (warning,) = warnings(caplog, logging.WARNING)
    assert code_of(warning) == "log-line-refused"
    assert bad_run in warning
    assert "refused" in warning
    assert "\n" not in warning
    assert len(world.requests) <= 25


def test_a_line_that_must_be_written_first_is_reported_if_refused(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    (run_id,) = world.runs(1)
    world.reporter.log_now(run_id, "refused", level="LOUD")
    (warning,) = warnings(caplog, logging.WARNING)
    assert code_of(warning) == "log-line-refused"
    assert run_id in warning
    assert world.requests == ["write_run_logs"]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=503),
        Fault(status=429, headers={"Retry-After": "1"}),
        Fault(status=401),
        Fault(drop_connection=True),
        Fault(body=b"<html>This is a proxy</html>"),
        Fault(body=b'{"errors": [{"extensions": {"code": "API_ERROR"}}]}'),
    ],
    ids=["503", "429", "401", "dropped", "proxy", "API_ERROR"],
)
def test_lines_are_kept_in_an_outage_and_not_split(
    world: World, caplog: pytest.LogCaptureFixture, fault: Fault
) -> None:
    caplog.set_level(logging.INFO)
    (run_id,) = world.runs(1)
    world.fault = lambda number: fault if number == 1 else None
    for number in range(150):
        world.reporter.log(run_id, f"line {number}")
    world.simulation.run()
    assert world.lines(run_id) == [f"line {number}" for number in range(150)]
    assert world.requests == ["write_run_logs"] * 2
    (error,) = warnings(caplog, logging.ERROR)
    limited = fault.status == 429
    assert code_of(error) == ("prefect-rate-limit" if limited else "logs-not-written")


def test_a_line_that_must_be_written_first_is_written_after_an_outage(
    world: World,
) -> None:
    (run_id,) = world.runs(1)
    world.fault = lambda number: Fault(status=503) if number <= 3 else None
    world.reporter.log_now(run_id, "why it failed", "ERROR")
    world.simulation.run()
    assert world.lines(run_id) == ["why it failed"]


def test_an_outage_of_an_hour_keeps_the_newest_2000_lines(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (run_id,) = world.runs(1)
    world.fault = lambda number: (
        Fault(status=503) if world.simulation.now < 3600 else None
    )
    for number in range(2500):
        world.reporter.log(run_id, f"line {number}")
    world.simulation.run()
    assert world.lines(run_id) == [f"line {number}" for number in range(500, 2500)]
    assert len(world.requests) < 3600 / 5
    assert codes_of(warnings(caplog, logging.ERROR)) == ["logs-not-written"]
    assert len([m for m in warnings(caplog, logging.INFO) if "over after" in m]) == 1


# -- Heartbeats ----------------------------------------------------------------------


def test_heartbeats_are_sent_fifty_with_one_request(world: World) -> None:
    runs = world.runs(120)
    world.reporter.heartbeats(runs)
    assert all(world.store.flow_run(run_id).heartbeat for run_id in runs)
    assert world.requests == ["update_flow_run_heartbeat"] * 3


def test_a_run_that_is_gone_costs_the_others_no_heartbeat(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    runs = world.runs(10)
    world.reporter.heartbeats([*runs[:5], str(uuid.uuid4()), "no id", *runs[5:]])
    assert all(world.store.flow_run(run_id).heartbeat for run_id in runs)
    assert world.requests == ["update_flow_run_heartbeat"]
    assert warnings(caplog, logging.ERROR) == []


def test_heartbeats_that_cannot_be_sent_are_told_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    runs = world.runs(2)
    world.fault = lambda number: Fault(status=503) if number <= 3 else None
    for _ in range(4):
        world.reporter.heartbeats(runs)
    assert codes_of(warnings(caplog, logging.ERROR)) == ["heartbeats-not-sent"]
    assert len([m for m in warnings(caplog, logging.INFO) if "over after" in m]) == 1
