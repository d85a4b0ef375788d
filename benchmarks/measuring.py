"""One agent through one scenario."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, List, Mapping, Tuple

import requests.certs

from prefect_ecs_plugin.sandbox import environment

from .contender import OURS, Contender, RunningAgent
from .environments import CACHE
from .scenarios import Scenario
from .servers import API, AWS, serving

#: Nothing listens there.
_NOWHERE = "http://127.0.0.1:9"

_FLOOR_SCRIPT = Path(__file__).with_name("floor.py")
_FLOOR_WARM_UP = 20

#: Seconds until an agent that does not look at the queue is given up.
_START = 600.0


@dataclass(frozen=True)
class Wave:
    """What one batch of runs came to.

    Attributes:
        runs: How many there were.
        delays: Seconds from the runs' start to each launched one's task, in order.
        failed: How many runs ended Failed.
        duplicates: How many tasks were started beyond one for each run.
        cpu: Seconds of the agent's CPU.
        api_cpu: Seconds of the CPU of the Prefect API.
        aws_cpu: Seconds of the CPU of AWS.
        memory: Bytes the agent had resident at its end.
        ecs_calls: How often each operation of ECS was called.
        api_calls: How often each root field of the Prefect API was.
        throttled: How many calls AWS throttled.
        reasons: What failed runs failed of, and how many of each.
    """

    runs: int
    delays: Tuple[float, ...]
    failed: int = 0
    duplicates: int = 0
    cpu: float = 0.0
    api_cpu: float = 0.0
    aws_cpu: float = 0.0
    memory: int = 0
    ecs_calls: Mapping[str, int] = field(default_factory=dict)
    api_calls: Mapping[str, int] = field(default_factory=dict)
    throttled: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)

    @property
    def launched(self) -> int:
        """How many runs have a task."""
        return len(self.delays)

    @property
    def rate(self) -> float:
        """Launches per second, from the first task to the last."""
        if self.launched < 2:
            return 0.0
        return (self.launched - 1) / (self.delays[-1] - self.delays[0])


@dataclass(frozen=True)
class Measurement:
    """What one agent's way through a scenario came to.

    Attributes:
        scenario: Its name.
        agent: `ours` or `theirs`.
        runs: How many there were in each wave.
        waves: One for each batch of runs.
        total_cpu: Seconds, from start to stop.
        peak_memory: Bytes resident at most.
        first_look: Seconds from its start to its first look at the queue.
        idle_bytes: Bytes to and from the API while there was nothing to do.
        idle_calls: Calls to the API meanwhile.
        idle_cpu: Seconds of CPU meanwhile.
        floor: Seconds of CPU per run of the calls that the script `floor` makes, right
            after this agent: `run_task` and `claim`.
    """

    scenario: str
    agent: str
    runs: int
    waves: Tuple[Wave, ...]
    total_cpu: float = 0.0
    peak_memory: int = 0
    first_look: float = 0.0
    idle_bytes: int = 0
    idle_calls: int = 0
    idle_cpu: float = 0.0
    floor: Mapping[str, float] = field(default_factory=dict)

    @property
    def cpu_per_run(self) -> float:
        """Seconds, the agent's start not counted."""
        runs = sum(wave.runs for wave in self.waves)
        return sum(wave.cpu for wave in self.waves) / runs if runs else 0.0

    @property
    def floor_per_run(self) -> float:
        """Seconds of CPU of both calls; 0.0 if they were not measured."""
        return sum(self.floor.values())


def measure(
    scenario: Scenario,
    runs: int,
    contender: Contender,
    around: Callable[[RunningAgent], ContextManager[None]] = nullcontext,
) -> Measurement:
    """Put an agent through a scenario.

    Args:
        scenario: What happens.
        runs: How many runs come at once.
        contender: Which agent.
        around: Given the agent, what surrounds its runs, those to warm up left out.
    """
    log = log_of(scenario.name, str(runs), contender)
    with tempfile.TemporaryDirectory() as home, serving(
        scenario.latencies,
        scenario.limits,
        scenario.refused_for,
        counts_bytes=scenario.idle > 0,
        https=scenario.https,
    ) as (api, aws):
        variables = furnished(api.url(), aws.url(), aws.access_key(), home)
        if scenario.https:
            variables["REQUESTS_CA_BUNDLE"] = _trusted(api.certificate(), home)
        with contender.start(variables, log, not scenario.limits) as agent:
            stage = _Stage(agent, api, aws, log)
            found = stage.play(scenario, runs, contender.name, around)
        if scenario.floor and contender.name == OURS:
            floor = _floor(scenario, contender, (api, aws), variables)
            found = replace(found, floor=floor)
        return found


def _floor(
    scenario: Scenario,
    contender: Contender,
    servers: Tuple[API, AWS],
    variables: Mapping[str, str],
) -> Dict[str, float]:
    """What the script `floor` prints, given requests that the agent has sent."""
    api, aws = servers
    count = _FLOOR_WARM_UP + scenario.floor
    far = time.time() + 3600.0
    given = {
        "api": api.url(),
        "run_ids": api.create_runs(api.register(1), count, far),
        "warm_up": _FLOOR_WARM_UP,
        "run_task": aws.run_task(),
        "claim": api.claim(),
    }
    printed = subprocess.run(
        [str(contender.prefect.with_name("python")), str(_FLOOR_SCRIPT)],
        input=json.dumps(given),
        env=dict(variables),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: Dict[str, float] = json.loads(printed.stdout)
    return found


def _trusted(certificate: str, home: str) -> str:
    """A file with this certificate and all that are trusted anyway.

    Reading them is a good part of what a new connection costs.
    """
    bundle = Path(home) / "trusted.pem"
    usual = Path(requests.certs.where()).read_text(encoding="utf-8")
    bundle.write_text(f"{usual}\n{certificate}", encoding="utf-8")
    return str(bundle)


def log_of(scenario: str, part: str, contender: Contender) -> Path:
    """Where the output of an agent goes."""
    log = CACHE / "logs" / f"{scenario}-{part}-{contender.name}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    return log


def furnished(
    api_url: str, aws_url: str, access_key: Tuple[str, str], home: str
) -> Dict[str, str]:
    """The environment of an agent, whose home directory this fills."""
    environment.furnish(home)
    variables = environment.sandbox_environment(api_url, aws_url, access_key, home)
    variables.pop("PYTHONPATH", None)  # it could bring the plugin to both
    return variables


@dataclass(frozen=True)
class _Stage:
    agent: RunningAgent
    api: API
    aws: AWS
    log: Path

    def play(
        self,
        scenario: Scenario,
        runs: int,
        name: str,
        around: Callable[[RunningAgent], ContextManager[None]],
    ) -> Measurement:
        self._wait(self.api.first_look, _START)
        if not self.api.first_look():
            raise RuntimeError(f"{name} did not look at the queue; see {self.log}")
        first_look = self.api.first_look() - self.agent.started
        time.sleep(scenario.settled)
        idle = self._idle(scenario.idle)
        flow_ids = self.api.register(scenario.flows)
        if scenario.warm_up:
            self._wave(scenario, scenario.warm_up, flow_ids)
        with around(self.agent):
            waves = tuple(
                self._wave(scenario, runs, flow_ids)
                for _ in range(scenario.waves_of(runs))
            )
        self.agent.stop()
        return Measurement(
            scenario.name,
            name,
            runs,
            waves,
            self.agent.total_cpu,
            self.agent.peak_memory,
            first_look,
            *idle,
        )

    def _idle(self, seconds: float) -> Tuple[int, int, float]:
        """Bytes, calls to the API and CPU of an agent that has nothing to do."""
        size, cpu = self.api.bytes(), self.agent.cpu()
        calls = sum(self.api.calls().values())
        time.sleep(seconds)
        return (
            self.api.bytes() - size,
            sum(self.api.calls().values()) - calls,
            self.agent.cpu() - cpu,
        )

    def _wave(self, scenario: Scenario, runs: int, flow_ids: List[str]) -> Wave:
        before = self._counters()
        due = time.time() + scenario.ahead
        run_ids = set(self.api.create_runs(flow_ids, runs, due))
        wanted = before.ended + runs
        self._wait(lambda: self.api.ended() >= wanted, scenario.deadline)
        time.sleep(scenario.rest)
        after = self._counters()
        starts = [(run, at) for run, at in self.aws.starts() if run in run_ids]
        first = dict(sorted(starts, key=lambda start: -start[1]))
        failures = self.api.failures()
        reasons = Counter(failures[run] for run in run_ids & set(failures))
        return Wave(
            runs=runs,
            delays=tuple(sorted(at - due for at in first.values())),
            failed=sum(reasons.values()),
            duplicates=len(starts) - len(first),
            cpu=after.cpu - before.cpu,
            api_cpu=after.api_cpu - before.api_cpu,
            aws_cpu=after.aws_cpu - before.aws_cpu,
            memory=self.agent.memory(),
            ecs_calls=_of_ecs(after.aws_calls - before.aws_calls),
            api_calls=dict(after.api_calls - before.api_calls),
            throttled=after.throttled - before.throttled,
            reasons=dict(reasons),
        )

    def _counters(self) -> _Counters:
        return _Counters(
            self.api.ended(),
            self.agent.cpu(),
            self.api.cpu(),
            self.aws.cpu(),
            Counter(self.aws.calls()),
            Counter(self.api.calls()),
            self.aws.throttled(),
        )

    def _wait(self, check: Callable[[], Any], seconds: float) -> None:
        """Look until something is so, the agent has ended or the time is over."""
        deadline = time.monotonic() + seconds
        while not check():
            if self.agent.has_ended or time.monotonic() > deadline:
                return
            time.sleep(0.1)


@dataclass(frozen=True)
class _Counters:
    ended: int
    cpu: float
    api_cpu: float
    aws_cpu: float
    aws_calls: Counter[str]
    api_calls: Counter[str]
    throttled: int


def _of_ecs(calls: Mapping[str, int]) -> Dict[str, int]:
    """Without the service's name, and without other services."""
    prefix = "ecs."
    return {
        name[len(prefix) :]: count
        for name, count in calls.items()
        if name.startswith(prefix)
    }


def time_help(prefect: Path) -> float:
    """Seconds that `prefect agent ecs start --help` takes.

    Args:
        prefect: The command of one of the environments.
    """
    with tempfile.TemporaryDirectory() as home:
        variables = furnished(_NOWHERE, _NOWHERE, ("none", "none"), home)
        began = time.perf_counter()
        subprocess.run(
            [str(prefect), "agent", "ecs", "start", "--help"],
            env=variables,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return time.perf_counter() - began
