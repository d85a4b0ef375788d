"""Answers of the sandbox's Prefect API that are late, refused or lost, on order."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, Iterator, List, Optional

import pytest
import requests
from deadlines import DEADLINE
from sandbox_prefect import HTTP, Raw, new_flow, state_refused, state_set, until

from prefect_ecs_plugin.sandbox.prefect_api import Fault, PrefectAPI, RandomFaults

SUBMITTED = "State update failed: this run has already been submitted."
LONG = 3600.0  # longer than any test; an API that stops ends the wait


@pytest.fixture
def raw() -> Iterator[Raw]:
    with PrefectAPI() as api:
        yield Raw(api)


@pytest.fixture
def run_id(raw: Raw) -> str:
    return raw.api.store.create_flow_run(new_flow(raw.api.store))


def once(fault: Fault) -> Any:
    """A plan with one fault, for the first request that sets a state."""
    faults = [fault]
    return lambda operation, arguments: (
        faults.pop() if operation == "set_flow_run_states" and faults else None
    )


def submit_impatiently(raw: Raw, run_id: str) -> None:
    """Gives up waiting for the answer, as Prefect's client does after 15 s."""
    state = {"flow_run_id": run_id, "version": 1, "state": {"type": "Submitted"}}
    query = (
        "mutation($i:set_flow_run_states_input!)"
        "{set_flow_run_states(input:$i){states{id}}}"
    )
    body = {"query": query, "variables": {"i": {"states": [state]}}}
    with pytest.raises(requests.Timeout):
        HTTP.post(raw.api.url, json=body, timeout=(60, 0.05))


def test_an_answer_held_back_after_the_effect(raw: Raw, run_id: str) -> None:
    raw.api.fault = once(Fault(answer_delay=LONG))
    submit_impatiently(raw, run_id)
    until(lambda: raw.api.store.flow_run(run_id).state == "Submitted")
    again = raw.set_state(run_id, {"type": "Submitted"})
    assert again == state_refused(SUBMITTED)


def test_an_effect_that_is_as_late_as_its_answer(raw: Raw, run_id: str) -> None:
    raw.api.fault = once(Fault(delay=LONG))
    submit_impatiently(raw, run_id)
    assert raw.api.store.flow_run(run_id).state == "Scheduled"
    again = raw.set_state(run_id, {"type": "Submitted"})
    assert again == state_set(run_id)


@pytest.mark.parametrize("fault", [{"answer_delay": 0.001}, {"delay": 0.001}])
def test_a_late_answer_is_the_whole_answer(
    raw: Raw, run_id: str, fault: Dict[str, float]
) -> None:
    raw.api.fault = once(Fault(**fault))
    assert raw.set_state(run_id, {"type": "Submitted"}) == state_set(run_id)


@pytest.mark.parametrize(
    "fault, has_effect",
    [
        (Fault(answer_delay=LONG), True),
        (Fault(answer_delay=LONG, status=503, after_effect=True), True),
        (Fault(answer_delay=LONG, status=503), False),
        (Fault(delay=LONG), False),
        (Fault(delay=LONG, status=503, after_effect=True), False),
    ],
)
def test_an_api_that_stops_ends_the_wait(fault: Fault, has_effect: bool) -> None:
    asked: List[str] = []

    def plan(operation: str, arguments: Dict[str, Any]) -> Optional[Fault]:
        asked.append(operation)
        return fault

    with PrefectAPI() as api, ThreadPoolExecutor(1) as thread:
        run_id = api.store.create_flow_run(new_flow(api.store))
        api.fault = plan
        answer = thread.submit(Raw(api).set_state, run_id, {"type": "Running"})
        until(lambda: asked)
        if has_effect:
            until(lambda: api.store.flow_run(run_id).state == "Running")
        api.stop()
        with pytest.raises(requests.ConnectionError):
            answer.result(timeout=DEADLINE)
        state = api.store.flow_run(run_id).state
        assert state == ("Running" if has_effect else "Scheduled")


@pytest.mark.parametrize("after_effect", [False, True])
def test_429_with_retry_after(raw: Raw, run_id: str, after_effect: bool) -> None:
    raw.api.fault = lambda *_: Fault(
        status=429, headers={"Retry-After": "30"}, after_effect=after_effect
    )
    cancel = f'cancel_flow_run(input: {{flow_run_id: "{run_id}"}})'
    answer = HTTP.post(raw.api.url, json={"query": f"mutation {{{cancel} {{state}}}}"})
    assert (answer.status_code, answer.reason) == (429, "Too Many Requests")
    assert answer.headers["Retry-After"] == "30"
    assert answer.text == "429 Too Many Requests\n"
    state = raw.api.store.flow_run(run_id).state
    assert state == ("Cancelled" if after_effect else "Scheduled")


# ------------------------------------------------ at random


def draw(plan: RandomFaults, operation: str, times: int) -> List[bool]:
    return [plan(operation, {}) is not None for _ in range(times)]


def test_a_share_of_the_requests_drawn_with_a_seed() -> None:
    fault = Fault(answer_delay=16.0)
    plan = RandomFaults(0.3, fault, seed=5)
    drawn = draw(plan, "hello", 1000)
    expected = random.Random(5)
    assert drawn == [expected.random() < 0.3 for _ in range(1000)]
    assert plan.drawn == sum(drawn)
    assert draw(RandomFaults(0.3, fault, seed=5), "hello", 1000) == drawn
    assert draw(RandomFaults(0.3, fault, seed=6), "hello", 1000) != drawn


@pytest.mark.parametrize("share, drawn", [(0.0, 0), (1.0, 20)])
def test_none_and_all(share: float, drawn: int) -> None:
    assert sum(draw(RandomFaults(share, Fault(status=503)), "hello", 20)) == drawn


def test_only_these_operations() -> None:
    plan = RandomFaults(1.0, Fault(status=503), operations={"set_flow_run_states"})
    assert draw(plan, "hello", 3) == [False] * 3
    assert draw(plan, "set_flow_run_states", 3) == [True] * 3
    assert plan.drawn == 3


def test_over_http(raw: Raw) -> None:
    raw.api.fault = plan = RandomFaults(0.5, Fault(body=b"{}"), seed=1)
    answers = [raw.ask("{hello}")[1] for _ in range(20)]
    assert 0 < plan.drawn == answers.count({}) < 20
