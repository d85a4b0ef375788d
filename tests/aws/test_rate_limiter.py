"""AWS's limits are kept, the order is kept, no request starves."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_ecs_plugin.aws.rate_limiter import (
    LIMITS,
    Bucket,
    Limit,
    RateLimiter,
    limits_for,
)
from prefect_ecs_plugin.scheduling.simulated_clock import Simulation

FARGATE = "RunTask on Fargate"


class Queue:
    """Requests that come at given times, and when the limiter lets each through."""

    def __init__(self, limits: Any = LIMITS) -> None:
        self.simulation = Simulation()
        self.limiter = RateLimiter(
            limits, lambda: self.simulation.now, self.simulation.dispatcher.call_later
        )
        self.sent: List[Tuple[float, int]] = []

    def ask(
        self, at: float, number: int, kind: str = FARGATE, priority: float = 0
    ) -> None:
        def now() -> None:
            turn = self.limiter.ticket(kind, (priority,))
            turn.add_done_callback(
                lambda _: self.sent.append((self.simulation.now, number))
            )

        self.simulation.dispatcher.call_later(at, now)

    def times(self) -> List[float]:
        self.simulation.run()
        return [time for time, _ in self.sent]


arrivals = st.lists(st.floats(0, 30), min_size=1, max_size=150).map(sorted)
limits = st.builds(Limit, st.floats(1, 50), st.floats(0.2, 50))


def assert_within(times: List[float], limit: Limit) -> None:
    """In no stretch of time more than the burst and what was refilled."""
    for first in range(len(times)):
        for last in range(first, len(times)):
            allowed = limit.burst + limit.rate * (times[last] - times[first])
            assert last - first + 1 <= allowed + 1e-6


@settings(max_examples=60, deadline=None)
@given(arrivals, limits)
def test_guarantee_4_a_limit_is_never_exceeded(
    times: List[float], limit: Limit
) -> None:
    queue = Queue({**LIMITS, "run": limit, "fargate": limit})
    for number, time in enumerate(times):
        queue.ask(time, number)
    assert_within(queue.times(), limit)


@settings(max_examples=60, deadline=None)
@given(arrivals, st.lists(st.floats(0, 30), max_size=10))
def test_guarantee_4_no_request_starves_even_when_aws_throttles(
    times: List[float], throttles: List[float]
) -> None:
    queue = Queue()
    for number, time in enumerate(times):
        queue.ask(time, number)
    for time in throttles:
        queue.simulation.dispatcher.call_later(
            time, lambda: queue.limiter.throttled(FARGATE)
        )
    assert len(queue.times()) == len(times)
    assert_within(queue.times(), LIMITS["fargate"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=80))
def test_order_is_kept_by_priority_then_by_arrival(priorities: List[int]) -> None:
    slow = Limit(1, 1)
    queue = Queue({**LIMITS, "run": slow, "fargate": slow})
    queue.ask(0, -1, priority=-1)
    for number, priority in enumerate(priorities):
        queue.ask(0.01, number, priority=priority)
    queue.simulation.run()
    order = [number for _, number in queue.sent[1:]]
    assert order == sorted(range(len(priorities)), key=lambda n: (priorities[n], n))


def test_a_burst_goes_out_at_once_and_the_rest_at_the_pace() -> None:
    queue = Queue()
    for number in range(200):
        queue.ask(0, number)
    times = queue.times()
    assert times[:19] == [0.0] * 19
    assert times[-1] == pytest.approx((200 - 19) / 19)


def test_a_token_that_is_there_is_not_withheld() -> None:
    queue = Queue()
    queue.ask(5, 0)
    assert queue.times() == [5.0]


def test_a_cancelled_turn_costs_no_token() -> None:
    slow = Limit(1, 1)
    queue = Queue({**LIMITS, "run": slow, "fargate": slow})
    queue.ask(0, 0)
    queue.simulation.run()
    unwanted = [queue.limiter.ticket(FARGATE) for _ in range(50)]
    for turn in unwanted:
        assert turn.cancel()
    queue.ask(0, 1)
    assert queue.times()[-1] < 2


def test_a_turn_knows_how_many_are_ahead_and_how_long_that_takes() -> None:
    queue = Queue()
    for number in range(58):
        queue.ask(0, number)
    queue.simulation.dispatcher.do_due()
    turn = queue.limiter.ticket(FARGATE)
    assert (turn.ahead, turn.seconds) == (39, pytest.approx(39 / 19))


def test_registrations_are_a_backlog_of_launches_too() -> None:
    queue = Queue()
    for _ in range(19 + 19):  # the first 19 need not wait
        queue.limiter.ticket("RegisterTaskDefinition")
    assert queue.limiter.launch_backlog() == pytest.approx(20)
    for _ in range(19 + 38):
        queue.limiter.ticket(FARGATE)
    assert queue.limiter.launch_backlog() == pytest.approx(20)
    for _ in range(19 * 30):
        queue.limiter.ticket(FARGATE)
    assert queue.limiter.launch_backlog() == pytest.approx(32)


def test_the_backlog_is_told_in_seconds() -> None:
    queue = Queue()
    for number in range(19 + 38):
        queue.ask(0, number)
    queue.simulation.dispatcher.do_due()
    assert queue.limiter.backlog(FARGATE, "RunTask") == pytest.approx(2)


# -- A bucket gives way and recovers -----------------------------------------------


def test_a_throttle_halves_the_pace_and_empties_the_bucket() -> None:
    bucket = Bucket(Limit(20, 20), 0)
    bucket.throttled(0)
    assert bucket.rate == pytest.approx(9.5)
    assert bucket.seconds_to_token(0) == pytest.approx(1 / 9.5)


def test_throttles_that_come_together_are_one_event() -> None:
    bucket = Bucket(Limit(20, 20), 0)
    for number in range(30):
        bucket.throttled(number / 100)
    assert bucket.rate == pytest.approx(9.5)


def test_the_pace_has_a_floor_and_a_ceiling() -> None:
    bucket = Bucket(Limit(20, 20), 0)
    for second in range(100):
        bucket.throttled(second)
    assert bucket.rate == pytest.approx(19 / 64)
    for _ in range(10_000):
        bucket.succeeded()
    assert bucket.rate == pytest.approx(19)


def test_the_pace_recovers_linearly_in_time() -> None:
    """Twenty seconds of success win back half the documented rate."""
    bucket = Bucket(Limit(20, 20), 0)
    bucket.throttled(0)
    seconds = 0.0
    while bucket.rate < 19:
        seconds += 1 / bucket.rate
        bucket.succeeded()
    assert seconds == pytest.approx(20, rel=0.1)


@pytest.mark.parametrize(
    "rate, expected",
    [(None, {}), (5.0, {"run": Limit(5, 5), "fargate": Limit(5, 5)})],
)
def test_launches_per_second_sets_another_limit_for_launches_alone(
    rate: Any, expected: Dict[str, Limit]
) -> None:
    assert limits_for(rate) == {**LIMITS, **expected}
