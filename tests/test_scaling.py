"""Many agents on a simulated clock: what must hold for every random seed.

The benchmarks are no part of the wheel, so they are found in the checkout; behind
everything else, so that the plugin is still the installed one.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any, List

import pytest

pytest.importorskip("moto", reason="AWS's buckets are the sandbox's")
sys.path.append(str(Path(__file__).parents[1]))

from benchmarks import scaling  # found by the line above
from prefect_ecs_plugin.aws.retrying import Answer, AWSCallError, RetryBudget
from prefect_ecs_plugin.sandbox.aws.buckets import Limits
from prefect_ecs_plugin.scheduling.simulated_clock import Simulation
from prefect_ecs_plugin.scheduling.steps import Pause, Steps

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


def test_each_account_has_its_own_limits() -> None:
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


def test_without_client_tokens_lost_answers_start_second_tasks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The simulation does notice duplicates."""

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


class Registering(scaling.Agent):
    """An agent whose runs need a new definition each, and that polls for them."""

    #: As the agent's own: runs in the API's window, and the seconds of launch backlog
    #: beyond which it stops polling.
    WINDOW, ENOUGH = 25, 15.0

    def __init__(self, limits: Limits, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._limits = limits
        self.taken = 0
        self.in_flight = 0
        self.most_in_flight = 0

    def poll(self, queue: List[str], since: float) -> Steps[None]:
        yield Pause(since)
        while queue:
            if self._pacer.launch_backlog() <= self.ENOUGH:
                for _ in range(min(self.WINDOW, len(queue))):
                    self.take(queue.pop(0))
            yield Pause(1.0)

    def _launch(self, run_id: str) -> Steps[None]:
        self.taken += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        budget = RetryBudget(0.0, scaling.TIMEOUT, self._clock, self._chance.random)
        yield from budget.attempts(lambda: self._register(budget))
        yield from super()._launch(run_id)
        self.in_flight -= 1

    def _register(self, budget: RetryBudget) -> Steps[None]:
        kind = "RegisterTaskDefinition"
        yield from budget.queue(self._pacer.ticket(kind, budget.queue_priority))
        yield Pause(0.2)
        if not self._limits.allow_call(kind):
            self._pacer.throttled(kind)
            raise AWSCallError(
                kind, Answer("ThrottlingException", "Rate exceeded", 400)
            )
        self._pacer.succeeded(kind)


def test_agents_with_many_definitions_to_register_share_the_runs() -> None:
    """A thousand definitions at one a second; the second agent comes 30 s later."""
    simulation, chance = Simulation(), random.Random(1)
    account = scaling.Account(simulation, chance)
    agents = [
        Registering(account._limits, simulation, account, scaling.STANDARD, chance)
        for _ in range(2)
    ]
    queue = [f"run-{number}" for number in range(1000)]
    for number, agent in enumerate(agents):
        simulation.dispatcher.start(agent.poll(queue, 30.0 * number))
    simulation.run()
    assert sorted(account.tasks) == sorted(f"run-{number}" for number in range(1000))
    assert [agent.failed for agent in agents] == [0, 0]
    assert min(agent.taken for agent in agents) > 300
    assert max(agent.most_in_flight for agent in agents) < 100


def test_the_same_seed_gives_the_same_course() -> None:
    first, again = (scaling.simulate(RUNS, 3, seed=7) for _ in range(2))

    assert first == again
    assert first != scaling.simulate(RUNS, 3, seed=8)
