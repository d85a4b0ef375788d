"""The agent's health, and outages that are logged when they begin and end."""

from __future__ import annotations

import logging
from typing import List, Optional

import pytest
from codes import code_of

from prefect_ecs_plugin.aws.retrying import Answer, AWSCallError
from prefect_ecs_plugin.errors import RateLimited
from prefect_ecs_plugin.observability.health import Health
from prefect_ecs_plugin.observability.outage_log import OutageLog, retry_until_success
from prefect_ecs_plugin.scheduling.simulated_clock import Simulation
from prefect_ecs_plugin.scheduling.steps import Steps


class Agent:
    """What a health check asks of an agent."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slowest = 0.0
        self.reason: Optional[str] = None
        self.health = Health(
            slowest_step=lambda: self.slowest,
            reasons=[lambda: self.reason],
            clock=lambda: self.now,
        )


def test_an_agent_that_has_just_polled_is_well() -> None:
    agent = Agent()
    agent.now = 119
    assert agent.health.problem() is None


@pytest.mark.parametrize(
    "now, slowest, reason, problem",
    [
        (121, 0, None, "the queue was last read 121 s ago [queue-not-read]"),
        (0, 301, None, "a worker has been stuck for 301 s [worker-stuck]"),
        (0, 0, "there are no AWS credentials", "there are no AWS credentials"),
    ],
)
def test_what_keeps_it_from_its_work_is_named(
    now: float, slowest: float, reason: Optional[str], problem: str
) -> None:
    agent = Agent()
    agent.now, agent.slowest, agent.reason = now, slowest, reason
    assert agent.health.problem() == problem


def test_a_look_into_the_queue_makes_it_well_again() -> None:
    agent = Agent()
    agent.now = 1000
    agent.health.has_polled()
    assert agent.health.problem() is None


def test_an_outage_is_told_once_and_once_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    simulation = Simulation()
    outages = OutageLog(logging.getLogger("agent"), lambda: simulation.now)
    answers: List[object] = [OSError("refused\nand more"), OSError("refused"), "ok"]

    def attempt() -> Steps[object]:
        yield from ()
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert (
        simulation.result_of(
            retry_until_success(attempt, outages, "It fails [it-fails]")
        )
        == "ok"
    )
    assert [record.getMessage() for record in caplog.records] == [
        "It fails: refused. The agent tries again. [it-fails]",
        "It fails: over after 3 s.",
    ]


@pytest.mark.parametrize(
    "asked, pauses", [(None, [1, 2, 4]), (3.0, [3, 3, 4]), (600.0, [600, 600, 600])]
)
def test_no_attempt_comes_sooner_than_the_other_side_asks(
    asked: Optional[float], pauses: List[float]
) -> None:
    class Busy(Exception):
        retry_after = asked

    simulation = Simulation()
    outages = OutageLog(logging.getLogger("agent"), lambda: simulation.now)
    attempts: List[float] = []

    def attempt() -> Steps[None]:
        yield from ()
        attempts.append(simulation.now)
        if len(attempts) < 4:
            raise Busy("429")

    simulation.result_of(retry_until_success(attempt, outages, "It fails"))
    assert [b - a for a, b in zip(attempts, attempts[1:])] == pauses


def test_an_outage_in_several_places_is_told_once_and_over_when_all_are_well(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    outages = OutageLog(logging.getLogger("agent"), lambda: 0.0)
    for place in ("in a", "in b", "in a"):
        outages.begin("It fails", "because", place)
    for place in ("in a", "in c"):
        outages.end("It fails", place)
    (begun,) = caplog.messages
    assert begun.startswith("It fails in a: because. ")
    for _ in range(2):
        outages.end("It fails", "in b")
    assert caplog.messages[1:] == ["It fails: over after 0 s."]


def test_what_aws_refuses_is_told_once_for_each_cause(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outages = OutageLog(logging.getLogger("agent"))
    for code in ("ServerException", "AccessDenied", "ServiceUnavailable"):
        outages.begin("It fails", AWSCallError("ListTasks", Answer(code)))
    told = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(told) == 2


@pytest.mark.parametrize(
    "kind, reason, code",
    [
        ("It fails", "because", "outage"),
        ("It fails [it-fails]", "because", "it-fails"),
        ("It fails [it-fails]", RateLimited(3), "prefect-rate-limit"),
    ],
)
def test_a_line_ends_with_the_code_of_its_reason_or_its_kind(
    caplog: pytest.LogCaptureFixture, kind: str, reason: object, code: str
) -> None:
    OutageLog(logging.getLogger("agent")).begin(kind, reason, "in a")
    (line,) = caplog.messages
    assert code_of(line) == code
    assert line.startswith("It fails in a: ")
    assert line.count("[") == 1


class Outages:
    """OutageLog of which those with an OSError are a service's outage."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        self.caplog = caplog
        self.now = 0.0
        self.log = OutageLog(
            logging.getLogger("agent"),
            lambda: self.now,
            lambda reason: "API" if isinstance(reason, OSError) else "",
        )

    def fails(self, *kinds: str) -> None:
        for kind in kinds:
            self.log.begin(kind, OSError("refused"))

    def told(self) -> List[str]:
        ending = ". The agent tries again. [outage]"
        messages = [each.replace(ending, "") for each in self._lines()]
        self.caplog.clear()
        return messages

    def _lines(self) -> List[str]:
        return [record.getMessage() for record in self.caplog.records]


def test_kinds_that_fail_because_of_one_service_are_one_outage(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outages = Outages(caplog)
    outages.fails("Reading", "Writing", "Reading", "Claiming")
    assert outages.told() == ["Reading: refused"]
    outages.log.end("Writing")
    assert outages.told() == ["Reading: over after 0 s."]
    outages.log.end("Reading")
    outages.log.end("Claiming")
    assert outages.told() == []


def test_a_kind_that_goes_on_failing_after_an_outage_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outages = Outages(caplog)
    outages.fails("Reading", "Writing")
    outages.log.end("Reading")
    assert outages.told() == ["Reading: refused", "Reading: over after 0 s."]
    outages.fails("Writing")  # sent before it was over
    assert outages.told() == []
    outages.now = 5.0
    outages.fails("Writing", "Writing")
    assert outages.told() == ["Writing: refused"]
    outages.log.end("Writing")
    assert outages.told() == ["Writing: over after 5 s."]


def test_what_is_refused_during_an_outage_is_told_for_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outages = Outages(caplog)
    outages.fails("Reading", "Writing")
    outages.log.begin("Writing", "not allowed")
    assert outages.told() == ["Reading: refused", "Writing: not allowed"]
    outages.log.end("Writing")
    assert sorted(outages.told()) == [
        "Reading: over after 0 s.",
        "Writing: over after 0 s.",
    ]


def test_what_is_final_is_not_attempted_again() -> None:
    outages = OutageLog(logging.getLogger("agent"))

    def attempt() -> Steps[None]:
        yield from ()
        raise ValueError("never")

    with pytest.raises(ValueError, match="never"):
        Simulation().result_of(
            retry_until_success(attempt, outages, "It", lambda _: True)
        )
