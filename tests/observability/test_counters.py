"""What an agent counts: exactly, in any thread, and nothing twice."""

from __future__ import annotations

import socket
import threading
from typing import Any, List

import pytest
import requests
from deadlines import DEADLINE
from hypothesis import given
from hypothesis import strategies as st

from prefect_ecs_plugin.observability.counters import (
    AgentCounters,
    Answered,
    Counter,
    Histogram,
    Outcome,
)
from prefect_ecs_plugin.prefect_api import connections


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
    counts = AgentCounters()
    assert counts.flow_runs.items() == {
        ("launched",): 0,
        ("launch_failed",): 0,
        ("returned",): 0,
        ("left",): 0,
        ("not_taken",): 0,
        ("abandoned",): 0,
        ("too_late",): 0,
        ("over_limit",): 0,
    }
    assert counts.internal_errors.items() == {(): 0}
    assert counts.aws_requests.items() == {}


def test_the_first_of_a_kind_brings_its_siblings() -> None:
    counts = AgentCounters()
    counts.aws_requests.add("ecs", "RunTask", Answered.THROTTLED)
    assert counts.aws_requests.items() == {
        ("ecs", "RunTask", "ok"): 0,
        ("ecs", "RunTask", "refused"): 0,
        ("ecs", "RunTask", "throttled"): 1,
        ("ecs", "RunTask", "failed"): 0,
    }


def test_labels_are_plain_text() -> None:
    counts = AgentCounters()
    counts.flow_runs.add(Outcome.LAUNCHED)
    (labels,) = (labels for labels, n in counts.flow_runs.items().items() if n)
    assert [type(label) for label in labels] == [str]


def test_threads_lose_no_count() -> None:
    counter = Counter("things", "Things.", ("kind", "result"), Answered)
    histogram = Histogram("seconds", "Seconds.", (1, 2))

    def count() -> None:
        for number in range(2000):
            counter.add("kind", "ok")
            counter.add(f"kind {number % 7}", "bad")
            histogram.observe(number % 3 + 0.5)

    in_threads(count)
    items = dict(counter.items())
    assert items[("kind", "ok")] == 16000
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
    assert connections._result(status).value == result


def test_no_answer_of_the_api_is_counted_as_failed() -> None:
    counts = AgentCounters()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(requests.ConnectionError):
            connections.kept_session(counts.api_requests).get(url, timeout=DEADLINE)
    assert counts.api_requests["failed"] == 1
