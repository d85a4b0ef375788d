"""How long a run waits that a user starts by hand while its agent is idle."""

from __future__ import annotations

import random
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import List

from .contender import Contender
from .measuring import Measurement, Wave, furnished, log_of
from .scenarios import Scenario
from .servers import API, AWS, serving

#: Seconds: the longest pause between two looks at the queue, that of Prefect's own.
_LONGEST_PAUSE = 10.0

#: Both agents get their runs after the same pauses.
_SEED = 12


def measure(scenario: Scenario, runs: int, contender: Contender) -> Measurement:
    """Create runs one by one for several agents, each with a label of its own.

    Args:
        scenario: What happens; `settled` is how long an agent takes to be idle again.
        runs: How many runs there are for all agents together.
        contender: Which agent.

    Returns:
        One wave, whose delays count from the creation of a run to that of its task.
    """
    labels = [f"agent-{number}" for number in range(scenario.agents)]
    with ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory())
        api, aws = stack.enter_context(serving(scenario.latencies, scenario.limits))
        variables = furnished(api.url(), aws.url(), aws.access_key(), home)
        agents = []
        for label in labels:
            log = log_of(scenario.name, label, contender)
            agent = contender.start(variables, log, False, ("--label", label))
            agents.append(stack.enter_context(agent))
        (flow_id,) = api.register(1)
        desks = [_Desk(api, aws, flow_id, label, scenario.deadline) for label in labels]
        with ThreadPoolExecutor(scenario.agents) as threads:
            found = list(threads.map(_Desk.delays, desks, pauses(scenario, runs)))
        for agent in agents:
            agent.stop()
    delays = sorted(delay for some in found for delay in some)
    return Measurement(
        scenario.name,
        contender.name,
        runs,
        (Wave(runs, tuple(delays)),),
        peak_memory=max(agent.peak_memory for agent in agents),
    )


def pauses(scenario: Scenario, runs: int) -> List[List[float]]:
    """For each agent, the seconds from a run's task to the creation of the next run.

    Beyond the time that the agent takes to be idle they lie at random, one in each of
    as many equal parts of the longest pause as there are runs. So a few runs are enough
    to meet all moments between two looks at the queue.
    """
    chance = random.Random(_SEED)
    parts = [(part + chance.random()) / runs for part in range(runs)]
    chance.shuffle(parts)
    pauses = [scenario.settled + _LONGEST_PAUSE * part for part in parts]
    return [pauses[number :: scenario.agents] for number in range(scenario.agents)]


@dataclass(frozen=True)
class _Desk:
    """A user who starts runs for one agent."""

    api: API
    aws: AWS
    flow_id: str
    label: str
    deadline: float

    def delays(self, pauses: List[float]) -> List[float]:
        """Start a run after each pause. A first one, which does not count, shows that
        the agent has started."""
        self._delay()
        found = []
        for pause in pauses:
            time.sleep(pause)
            found.append(self._delay())
        return found

    def _delay(self) -> float:
        """Start a run, and wait for its task."""
        created = time.time()
        (run_id,) = self.api.create_runs([self.flow_id], 1, created, [self.label])
        while time.time() < created + self.deadline:
            for run, at in self.aws.starts():
                if run == run_id:
                    return at - created
            time.sleep(0.1)
        raise RuntimeError(f"The run of {self.label} was not launched.")
