"""What is measured, as a table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Dict, Tuple

from .servers import NO_LATENCY, Latencies


@dataclass(frozen=True)
class Scenario:
    """A situation in which both agents are put.

    Attributes:
        name: As given on the command line.
        title: What it is, for the table.
        runs: How many runs; several numbers: one measurement for each.
        flows: How many flows they are of, each with a definition of its own.
        latencies: How long answers take.
        limits: Whether AWS's documented limits hold. Where they do not, this agent
            is told so.
        ahead: Seconds from their creation to the start of the runs.
        waves: How often the same runs come; the next when the last are done.
        at_least: As many further waves as make up so many runs.
        warm_up: Runs before all others that are not counted, so that no first
            connection or registration is.
        rest: Seconds after each wave, in which its tasks end and are forgotten.
        refused_for: Seconds for which RunTask finds no capacity.
        floor: As many runs more are made through `floor` after the agent's end.
        settled: Seconds from the first look at the queue, after which an agent has
            become idle.
        idle: Seconds to be watched with nothing to do from then on.
        https: Whether the API is reached over HTTPS.
        agents: Several agents that are idle, for which runs are started one by one; see
            `single`.
        pairs: How often both agents are measured.
        deadline: Seconds after which an agent is stopped.
    """

    name: str
    title: str
    runs: Tuple[int, ...] = (0,)
    flows: int = 1
    latencies: Latencies = NO_LATENCY
    limits: bool = False
    ahead: float = 0.0
    waves: int = 1
    at_least: int = 0
    warm_up: int = 0
    rest: float = 0.0
    refused_for: float = 0.0
    floor: int = 0
    settled: float = 0.0
    idle: float = 0.0
    https: bool = False
    agents: int = 0
    pairs: int = 1
    deadline: float = 300.0

    def quick(self) -> Scenario:
        """The same, too small to judge by."""
        agents = min(self.agents, 2)
        most = agents or 20
        return replace(
            self,
            runs=tuple(sorted({min(runs, most) for runs in self.runs})),
            flows=min(self.flows, 5),
            ahead=min(self.ahead, 5.0),
            floor=min(self.floor, 20),
            settled=min(self.settled, 1.0),
            idle=min(self.idle, 5.0),
            agents=agents,
            pairs=1,
            refused_for=min(self.refused_for, 5.0),
            at_least=0,
            rest=0.0,
        )

    def waves_of(self, runs: int) -> int:
        """How many waves of so many runs there are."""
        return max(self.waves, -(-self.at_least // runs)) if runs else 0


#: How long `prefect agent ecs start --help` takes; it needs no servers.
HELP = "help"

_ALL = (
    Scenario(
        "burst",
        "200 runs of 20 flows due at one moment, AWS's documented limits",
        runs=(200,),
        flows=20,
        latencies=Latencies(),
        limits=True,
        ahead=15.0,
    ),
    Scenario(
        "throughput",
        "400 runs due at once, latencies, no limits",
        runs=(400,),
        latencies=Latencies(),
    ),
    Scenario(
        "definitions",
        "200 runs with 50 definitions, cold and then warm, AWS's documented limits",
        runs=(200,),
        flows=50,
        latencies=Latencies(),
        limits=True,
        waves=2,
    ),
    Scenario(
        "growth",
        "50, 200, 800 and 3,200 runs due at once, no latencies, no limits",
        runs=(50, 200, 800, 3200),
        flows=20,
        at_least=400,
        warm_up=60,
        floor=400,
    ),
    Scenario(
        "capacity",
        "40 runs while RunTask finds no capacity for 60 s",
        runs=(40,),
        latencies=Latencies(),
        limits=True,
        refused_for=60.0,
    ),
    Scenario(
        "backlog",
        "1,500 runs due at once, 75 s of work under AWS's documented limits",
        runs=(1500,),
        flows=20,
        latencies=Latencies(),
        limits=True,
    ),
    Scenario("idle", "60 s with nothing to do", settled=20.0, idle=60.0),
    Scenario(
        "idle-https",
        "60 s with nothing to do, the API over HTTPS",
        settled=20.0,
        idle=60.0,
        https=True,
    ),
    Scenario(
        "single",
        "20 runs that are started by hand, each for an idle agent, no latencies",
        runs=(20,),
        settled=16.0,
        agents=10,
    ),
    Scenario(
        "start", "from the command to the first look", latencies=Latencies(), pairs=7
    ),
    Scenario(
        "memory",
        "10,000 runs through one agent, no latencies, no limits",
        runs=(2000,),
        flows=20,
        waves=5,
        rest=15.0,
        deadline=900.0,
    ),
)

SCENARIOS: Dict[str, Scenario] = {scenario.name: scenario for scenario in _ALL}
NAMES: Tuple[str, ...] = (*SCENARIOS, HELP)
