"""The whole agent on a simulated clock: `benchmarks.simulations` with small figures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")
sys.path.append(str(Path(__file__).parents[1]))

from benchmarks import simulations  # found by the line above
from benchmarks.simulated import World
from prefect_ecs_plugin.prefect_api.client import PAGE

pytestmark = pytest.mark.slow


def test_guarantee_1_and_2_runs_that_an_earlier_process_claimed_are_recovered() -> None:
    found = simulations.recover(600)

    assert (found.lost, found.doubled) == (0, 0)
    # Six pages of tasks that run and one of those that stopped, twice; the tasks are
    # described once.
    assert found.calls <= 20
    assert found.watched < 10
    assert found.launched < 60
    assert found.rows <= 600


def test_claimed_runs_are_read_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_ecs_plugin.prefect_api.client.PAGE", 50)

    found = simulations.recover(120)

    assert PAGE == 1000
    assert found.rows == 50
    assert (found.lost, found.doubled) == (0, 0)


@pytest.mark.parametrize(
    "service, runs, seconds", [("API", 100, 3600.0), ("AWS", 30, 600.0)]
)
def test_guarantee_2_an_outage_loses_no_run_and_is_logged_once(
    service: str, runs: int, seconds: float
) -> None:
    found = simulations.outage(service, runs, seconds, traces=False)

    assert (found.lost, found.doubled, found.failed) == (0, 0, 0)
    assert len(found.begun) == 1
    assert len(found.ended) == 1
    kind = found.ended[0].partition(":")[0]
    assert found.begun[0].startswith(kind)
    assert found.others == 0


def test_agents_share_runs_that_each_need_a_new_definition() -> None:
    found = simulations.register(120)

    assert (found.lost, found.doubled, found.failed) == (0, 0, 0)
    assert sum(found.launched) == 120
    assert min(found.launched) > 30
    assert max(found.most) <= 45  # 15 s of launches, and a window of 25
    assert found.last < 1.15 * found.floor


@pytest.mark.parametrize("found", [False, True])
def test_guarantee_1_and_2_tasks_that_hang_are_replaced_one_by_one(found: bool) -> None:
    hung = simulations.hang(120, found=found, each=40)

    assert (hung.hung, hung.lost, hung.alive) == (3, 0, 1)
    assert 1800.0 < hung.started < 1860.0


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"agents": 2},
        {"agents": 2, "locks_submitted": False, "api_latency": 0.05},
        {
            "agents": 2,
            "kills": [3.0, 14.1],
            "locks_submitted": False,
            "api_latency": 0.05,
        },
    ],
    ids=["one agent", "two", "two without locks", "two, killed"],
)
def test_limits_are_kept_and_free_slots_taken(options: Any) -> None:
    found = simulations.limit(60, most=5, **options)

    assert (found.lost, found.doubled, found.most) == (0, 0, 5)
    assert found.longest < 2.0
    assert found.told == 1


def test_three_limits_at_once_are_kept() -> None:
    found = simulations.limit_flows(100, 20)

    assert (found.lost, found.doubled, found.exceeded) == (0, 0, [])
    assert found.seconds < 1.2 * found.least


def test_watching_tasks_takes_few_calls_and_little_memory() -> None:
    found = simulations.watch(1000)

    assert found.bytes_each < 600
    assert found.calls[0] <= 5
    assert found.calls[1] <= 1


def test_a_simulated_world_restores_the_clock() -> None:
    import time

    before = time.monotonic
    with World().running():
        assert time.monotonic() == 0.0
    assert time.monotonic is before
