"""What an agent counts: exactly, in any thread, and nothing twice."""

from __future__ import annotations

import logging
import socket
import threading
import time
from concurrent.futures import Future
from typing import Any, Dict, List

import pendulum
import pytest
import requests
from deadlines import DEADLINE
from hypothesis import given
from hypothesis import strategies as st

from prefect_ecs_plugin import api
from prefect_ecs_plugin.counting import Answered, Counter, Counts, Histogram, Outcome
from prefect_ecs_plugin.definitions import DefinitionMemory
from prefect_ecs_plugin.launching import Launcher
from prefect_ecs_plugin.pacing import LIMITS, Pacer
from prefect_ecs_plugin.retrying import (
    _CAUSES,
    WORTH_WAITING,
    Answer,
    Patience,
    Refused,
)
from prefect_ecs_plugin.settings import AgentSettings
from prefect_ecs_plugin.simulation import Simulation
from prefect_ecs_plugin.troubles import Troubles, insist
from prefect_ecs_plugin.waiting import Cause, Pause, Steps


def in_threads(action: Any, threads: int = 8) -> None:
    """Run the same thing in several threads that begin together."""
    barrier = threading.Barrier(threads)

    def run() -> None:
        barrier.wait()
        action()

    started = [threading.Thread(target=run) for _ in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


# -- Counters ----------------------------------------------------------------------


def test_what_has_not_happened_is_zero() -> None:
    counts = Counts()
    assert counts.flow_runs.items() == {
        ("launched",): 0,
        ("launch_failed",): 0,
        ("returned",): 0,
        ("left",): 0,
        ("not_taken",): 0,
    }
    assert counts.internal_errors.items() == {(): 0}
    assert counts.aws_requests.items() == {}


def test_the_first_of_a_kind_brings_its_siblings() -> None:
    counts = Counts()
    counts.aws_requests.add("ecs", "RunTask", Answered.THROTTLED)
    assert counts.aws_requests.items() == {
        ("ecs", "RunTask", "ok"): 0,
        ("ecs", "RunTask", "refused"): 0,
        ("ecs", "RunTask", "throttled"): 1,
        ("ecs", "RunTask", "failed"): 0,
    }


def test_labels_are_plain_text() -> None:
    counts = Counts()
    counts.flow_runs.add(Outcome.LAUNCHED)
    (labels,) = (labels for labels, n in counts.flow_runs.items().items() if n)
    assert [type(label) for label in labels] == [str]


def test_threads_lose_no_count() -> None:
    counter = Counter("things", "Things.", ("kind", "result"), ["good"])
    histogram = Histogram("seconds", "Seconds.", (1, 2))

    def count() -> None:
        for number in range(2000):
            counter.add("kind", "good")
            counter.add(f"kind {number % 7}", "bad")
            histogram.observe(number % 3 + 0.5)

    in_threads(count)
    items = dict(counter.items())
    assert items[("kind", "good")] == 16000
    assert sum(n for (_, result), n in items.items() if result == "bad") == 16000
    buckets, total = histogram.cumulative()
    assert buckets == [5336, 10672, 16000]
    assert total == 5336 * 0.5 + 5336 * 1.5 + 5328 * 2.5


# -- Histograms --------------------------------------------------------------------


@given(
    st.lists(st.floats(0, 1000), max_size=50),
    st.lists(st.floats(0, 1000), min_size=1, max_size=8, unique=True).map(sorted),
)
def test_a_buckets_count_is_that_of_all_values_up_to_its_bound(
    values: List[float], bounds: List[float]
) -> None:
    histogram = Histogram("seconds", "Seconds.", bounds)
    for value in values:
        histogram.observe(value)
    buckets, total = histogram.cumulative()
    expected = [sum(value <= bound for value in values) for bound in bounds]
    assert buckets == [*expected, len(values)]
    assert total == pytest.approx(sum(values))
    assert buckets == sorted(buckets)


# -- Waiting runs ------------------------------------------------------------------


def waiting(counts: Counts) -> Dict[Cause, int]:
    """The causes for which somebody waits."""
    return {cause: n for cause, n in counts.waits.by_cause().items() if n}


def test_a_run_is_counted_while_it_waits_and_no_longer() -> None:
    simulation, counts = Simulation(), Counts()
    seen: List[Dict[Cause, int]] = []

    def look() -> None:
        seen.append(waiting(counts))

    def steps() -> Steps[str]:
        look()
        yield Pause(5, cause=Cause.NOT_DUE)
        look()
        yield Pause(5, cause=Cause.CAPACITY)
        return "done"

    simulation.dispatcher.call_later(2, look)
    simulation.dispatcher.call_later(7, look)
    assert simulation.result_of(counts.waits.of("run", steps())) == "done"
    look()
    assert seen == [{}, {Cause.NOT_DUE: 1}, {}, {Cause.CAPACITY: 1}, {}]


def test_steps_inside_steps_of_the_same_run_are_counted_once() -> None:
    counts = Counts()

    def inner() -> Steps[None]:
        yield Pause(5, cause=Cause.CAPACITY)

    def outer() -> Steps[None]:
        yield from counts.waits.of("run", inner())
        yield Pause(5, cause=Cause.RESTART)

    steps = counts.waits.of("run", outer())
    next(steps)
    assert waiting(counts) == {Cause.CAPACITY: 1}
    next(steps)
    assert waiting(counts) == {Cause.RESTART: 1}
    assert next(steps, None) is None
    assert waiting(counts) == {}


def test_a_run_that_is_interrupted_waits_no_longer() -> None:
    simulation, counts = Simulation(), Counts()

    def steps() -> Steps[None]:
        yield Pause(5, cause=Cause.NOT_DUE)

    simulation.dispatcher.start(counts.waits.of("run", steps()))
    assert waiting(counts) == {Cause.NOT_DUE: 1}
    simulation.dispatcher.interrupt()
    assert waiting(counts) == {}


def test_a_run_that_is_not_due_yet_waits_for_its_start() -> None:
    counts = Counts()
    nothing: Any = None
    launcher = Launcher(
        AgentSettings(),
        *(nothing,) * 4,
        logger=logging.getLogger("agent"),
        timeout=0,
        counts=counts,
    )
    start = pendulum.now("UTC").add(seconds=9).isoformat()
    row = {"id": "run", "serialized_state": {"start_time": start}}
    steps = launcher.take_and_launch(row, time.monotonic())
    next(steps)
    assert waiting(counts) == {Cause.NOT_DUE: 1}


def _after(answer: Answer) -> Any:
    """The first wait of a launch that got an answer."""
    patience = Patience(0, 3600, lambda: 0.0, lambda: 0.5)

    def attempt() -> Steps[None]:
        yield from ()
        raise Refused("RunTask", answer)

    return next(patience.attempts(attempt))


def _outage() -> Any:
    def attempt() -> Steps[None]:
        yield from ()
        raise OSError("refused")

    return next(insist(attempt, Troubles(logging.getLogger("agent")), "It fails"))


def _turn() -> Any:
    return Pacer(LIMITS, lambda: 0.0, lambda seconds, action: None).turn("RunTask")


@pytest.mark.parametrize(
    "wait, cause",
    [
        (lambda: _after(Answer("ThrottlingException", "")), Cause.RATE_LIMIT),
        (lambda: _after(Answer("ServerException", "")), Cause.OUTAGE),
        (lambda: _after(Answer("failures", "RESOURCE:MEMORY")), Cause.CAPACITY),
        (
            lambda: _after(
                Answer(
                    "ClientException",
                    "Too many concurrent attempts to create a new revision",
                )
            ),
            Cause.DEFINITION,
        ),
        (_outage, Cause.OUTAGE),
        (_turn, Cause.RATE_LIMIT),
        (lambda: DefinitionMemory().claim("family")[0], Cause.DEFINITION),
        (lambda: Pause(1), Cause.OTHER),
        (Future, Cause.OTHER),
    ],
)
def test_every_wait_has_its_cause(wait: Any, cause: Cause) -> None:
    counts = Counts()
    made = wait()

    def steps() -> Steps[None]:
        yield made

    waits = counts.waits.of("run", steps())
    next(waits)
    assert waiting(counts) == {cause: 1}


def test_every_verdict_worth_waiting_for_has_a_cause() -> None:
    assert set(_CAUSES) == WORTH_WAITING


# -- Requests to the Prefect API ---------------------------------------------------


@pytest.mark.parametrize(
    "status, result",
    [
        (200, "ok"),
        (304, "ok"),
        (400, "refused"),
        (401, "refused"),
        (429, "throttled"),
        (503, "failed"),
    ],
)
def test_an_answer_of_the_api_is_counted_by_its_status(
    status: int, result: str
) -> None:
    assert api._result(status).value == result


def test_no_answer_of_the_api_is_counted_as_failed() -> None:
    counts = Counts()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(requests.ConnectionError):
            api._session(counts.api_requests).get(url, timeout=DEADLINE)
    assert counts.api_requests["failed"] == 1
