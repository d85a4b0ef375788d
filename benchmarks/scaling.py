"""100,000 runs due at one moment, over ten agents that share one account.

    python -m benchmarks.scaling            the table of docs/scaling.md
    python -m benchmarks.scaling --write    and into docs/scaling.md

The agent's real dispatcher, pacer, budget and table of answers, and the sandbox's
model of AWS's buckets, on a clock that jumps: nothing sleeps, and a seed gives the
same course again. Simulated is what lies between them: the network, with answers
that are lost although the task was started; botocore, which retries on its own;
and an ECS that knows a clientToken again.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from typing import Dict, List, Sequence, Tuple

from prefect_ecs_plugin.aws.rate_limiter import RateLimiter, limits_for
from prefect_ecs_plugin.aws.retrying import Answer, AWSCallError, RetryBudget, Verdict
from prefect_ecs_plugin.errors import LaunchError
from prefect_ecs_plugin.sandbox.aws.buckets import Limits
from prefect_ecs_plugin.scheduling.simulated_clock import Simulation
from prefect_ecs_plugin.scheduling.steps import Pause, Steps

from .environments import ROOT
from .limits import floor
from .report import page_with, table

#: Seconds that RunTask takes on average; a single call takes up to a quarter more
#: or less.
LATENCY = 0.4

#: The share of answers that are lost on their way back.
LOST = 0.001

#: botocore's attempts in its mode `standard`.
#: https://boto3.amazonaws.com/v1/documentation/api/latest/guide/retries.html
STANDARD = 3

#: Seconds from its start for which a run may be refused: the agent's default.
TIMEOUT = 1800.0

_KIND = "RunTask on Fargate"
_THROTTLED = Answer("ThrottlingException", "Rate exceeded", 400)
_RESET = Answer("ConnectionClosedError", "Connection was closed")


@dataclass(frozen=True)
class Course:
    """What a simulation came to.

    Attributes:
        runs: How many runs there were.
        agents: How many agents launched them.
        accounts: How many accounts (or regions) these shared evenly.
        attempts: How many botocore made before the agent heard of it.
        launched: How many runs have a task.
        failed: How many were given up.
        duplicates: How many tasks were started beyond one for each run.
        calls: How many requests AWS got.
        throttled: How many of them it refused.
        last: Seconds from the runs' start to the last task.
        finished: When each agent launched its last run, in seconds.
    """

    runs: int
    agents: int
    accounts: int
    attempts: int
    launched: int
    failed: int
    duplicates: int
    calls: int
    throttled: int
    last: float
    finished: Sequence[float]

    @property
    def floor(self) -> float:
        """Seconds that AWS's limits make the last run wait."""
        return floor(-(-self.runs // self.accounts))

    def line(self) -> List[str]:
        """As a line of the table."""
        return [
            f"{self.runs:,}",
            f"{self.agents}",
            f"{self.accounts}",
            f"{self.attempts}",
            f"{self.launched:,}",
            f"{self.failed}",
            f"{self.duplicates}",
            f"{self.throttled / self.calls:.1%}",
            f"{self.last:,.1f} s",
            f"{self.floor:,.1f} s",
            f"{self.last / self.floor:.3f}",
        ]


class Account:
    """ECS in one account and region, behind its documented limits.

    Attributes:
        tasks: The run of each task, and when the task was started.
    """

    def __init__(self, simulation: Simulation, chance: random.Random) -> None:
        self._simulation = simulation
        self._chance = chance
        self._limits = Limits(lambda: simulation.now)
        self._tokens: Dict[str, float] = {}
        self.tasks: List[str] = []
        self.calls = 0
        self.throttled = 0
        self.last = 0.0

    def run_task(self, token: str) -> Steps[None]:
        """One request and its answer.

        Raises:
            AWSCallError: as the agent would hear of it.
        """
        yield self._on_the_way()
        self.calls += 1
        allowed = self._limits.allow_call("RunTask")
        if not (allowed and self._limits.allow_launch("FARGATE", 1)):
            self.throttled += 1
            yield self._on_the_way()
            raise AWSCallError("RunTask", _THROTTLED)
        if token not in self._tokens:
            self._tokens[token] = self.last = self._simulation.now
            self.tasks.append(token)
        yield self._on_the_way()
        if self._chance.random() < LOST:
            raise AWSCallError("RunTask", _RESET)

    def _on_the_way(self) -> Pause:
        return Pause(LATENCY / 2 * self._chance.uniform(0.75, 1.25))


class Agent:
    """An agent's launches, from the moment that its runs are due."""

    def __init__(
        self,
        simulation: Simulation,
        account: Account,
        attempts: int,
        chance: random.Random,
    ) -> None:
        dispatcher = simulation.dispatcher
        self._attempts = attempts
        self._start = dispatcher.start
        self._clock = dispatcher.clock
        self._account = account
        self._chance = chance
        self._pacer = RateLimiter(
            limits_for(None), dispatcher.clock, dispatcher.call_later
        )
        self.failed = 0
        self.finished = 0.0

    def take(self, run_id: str) -> None:
        """Launch a run that is due now."""
        self._start(self._launch(run_id))

    def _launch(self, run_id: str) -> Steps[None]:
        budget = RetryBudget(0.0, TIMEOUT, self._clock, self._chance.random)
        try:
            yield from budget.attempts(lambda: self._call(run_id, budget))
        except LaunchError:
            self.failed += 1
        self.finished = self._clock()

    def _call(self, run_id: str, budget: RetryBudget) -> Steps[None]:
        """As `Submission._call`."""
        yield from budget.queue(self._pacer.ticket(_KIND, budget.queue_priority))
        try:
            yield from self._botocore(run_id)
        except AWSCallError as refused:
            if refused.verdict is Verdict.THROTTLED:
                self._pacer.throttled(_KIND)
            raise
        self._pacer.succeeded(_KIND)

    def _botocore(self, run_id: str) -> Steps[None]:
        """Some attempts with random pauses, of which the pacer hears nothing."""
        for attempt in range(self._attempts - 1):
            try:
                return (yield from self._account.run_task(run_id))
            except AWSCallError:
                yield Pause(min(20.0, self._chance.random() * 2**attempt))
        return (yield from self._account.run_task(run_id))


def simulate(
    runs: int, agents: int, accounts: int = 1, attempts: int = STANDARD, seed: int = 1
) -> Course:
    """Launch runs that are all due at the same moment.

    Args:
        runs: How many, dealt out to the agents evenly.
        agents: How many agents, dealt out to the accounts evenly.
        accounts: How many accounts or regions with limits of their own.
        attempts: How many botocore makes; 1: it does not retry.
        seed: Of everything that is left to chance.
    """
    chance = random.Random(seed)
    simulation = Simulation()
    clouds = [Account(simulation, chance) for _ in range(accounts)]
    crew = [
        Agent(simulation, clouds[number % accounts], attempts, chance)
        for number in range(agents)
    ]
    for number in range(runs):
        crew[number % agents].take(f"run-{number}")
    simulation.run()
    tasks = [run_id for cloud in clouds for run_id in cloud.tasks]
    return Course(
        runs=runs,
        agents=agents,
        accounts=accounts,
        attempts=attempts,
        launched=len(set(tasks)),
        failed=sum(agent.failed for agent in crew),
        duplicates=len(tasks) - len(set(tasks)),
        calls=sum(cloud.calls for cloud in clouds),
        throttled=sum(cloud.throttled for cloud in clouds),
        last=max(cloud.last for cloud in clouds),
        finished=[agent.finished for agent in crew],
    )


#: Runs, agents, accounts, attempts: the lines of the table.
CASES: Sequence[Tuple[int, int, int, int]] = (
    (2_000, 1, 1, STANDARD),
    (10_000, 2, 1, STANDARD),
    (10_000, 2, 1, 1),
    (100_000, 10, 1, STANDARD),
    (100_000, 10, 1, 1),
    (100_000, 10, 10, STANDARD),
)

HEADS = (
    *("runs", "agents", "accounts", "botocore's attempts"),
    *("launched", "failed", "duplicates", "throttled"),
    *("last start", "AWS's floor", "ratio"),
)


def main() -> None:
    """Print the table, and write it where that is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling",
        description="Simulates many agents, on a clock that jumps; a few minutes.",
    )
    parser.add_argument("--write", action="store_true", help="write docs/scaling.md")
    arguments = parser.parse_args()
    courses = table(HEADS, [simulate(*case).line() for case in CASES])
    print(courses)
    if arguments.write:
        page = ROOT / "docs" / "scaling.md"
        content = page_with(page.read_text(encoding="utf-8"), courses)
        page.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
