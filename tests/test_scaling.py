"""Many agents on a simulated clock: what must hold whatever chance does.

The benchmarks are no part of the wheel, so they are found in the checkout; behind
everything else, so that the plugin is still the installed one.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("moto", reason="AWS's buckets are the sandbox's")
sys.path.append(str(Path(__file__).parents[1]))

from benchmarks import scaling  # found by the line above
from prefect_ecs_plugin.simulation import Simulation

RUNS = 600


@pytest.mark.parametrize("agents, accounts", [(1, 1), (2, 1), (10, 1), (10, 5)])
@pytest.mark.parametrize("attempts", [1, scaling.STANDARD])
def test_every_run_is_launched_exactly_once(
    agents: int, accounts: int, attempts: int
) -> None:
    course = scaling.simulate(RUNS, agents, accounts, attempts)

    assert (course.launched, course.failed, course.duplicates) == (RUNS, 0, 0)


def test_no_run_starts_before_awss_limits_allow_it() -> None:
    course = scaling.simulate(RUNS, 10)

    assert course.last >= course.floor > 0


def test_the_last_run_of_one_agent_starts_near_awss_floor() -> None:
    course = scaling.simulate(RUNS, 1)

    assert course.throttled == 0
    assert course.last <= 1.1 * course.floor + 1


def test_the_last_run_of_ten_agents_starts_near_awss_floor() -> None:
    course = scaling.simulate(4 * RUNS, 10)

    assert course.last <= 1.1 * course.floor + 1


def test_accounts_have_limits_of_their_own() -> None:
    course = scaling.simulate(RUNS, 5, accounts=5)

    assert course.throttled == 0
    assert course.last < scaling.floor(RUNS) / 4


def test_answers_that_are_lost_start_no_second_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scaling, "LOST", 0.3)

    course = scaling.simulate(RUNS, 2)

    assert (course.launched, course.failed, course.duplicates) == (RUNS, 0, 0)
    assert course.calls - course.throttled > 1.2 * RUNS


def test_without_client_tokens_they_would(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulation can tell: it is not blind to duplicates."""

    class Forgetful(dict):  # type: ignore[type-arg]  # a subscript fails on 3.8
        def __contains__(self, token: Any) -> bool:
            return False

    class Careless(scaling.Account):
        def __init__(self, simulation: Simulation, chance: random.Random) -> None:
            super().__init__(simulation, chance)
            self._tokens = Forgetful()

    monkeypatch.setattr(scaling, "LOST", 0.3)
    monkeypatch.setattr(scaling, "Account", Careless)

    assert scaling.simulate(RUNS, 2).duplicates > 0


def test_the_same_seed_gives_the_same_course() -> None:
    first, again = (scaling.simulate(RUNS, 3, seed=7) for _ in range(2))

    assert first == again
    assert first != scaling.simulate(RUNS, 3, seed=8)
