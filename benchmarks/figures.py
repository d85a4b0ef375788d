"""What must be reached, beside what was measured. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from statistics import median
from typing import Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from .contender import OURS, THEIRS
from .limits import floor
from .measuring import Measurement, Wave

_MIB = 2.0**20

#: What must be reached: CPU per run times the floor, and times Prefect's own; what an
#: idle agent costs, peak memory and the start, times Prefect's own; seconds that a run
#: waits for an idle agent, median and worst.
_FLOORS, _CPU = 1.8, 0.28
_IDLE, _PEAK, _START = 1.2, 0.95, 1.1
_MEDIAN_WAIT, _WORST_WAIT = 1.2, 2.5

#: What the help may take, times Prefect's own.
_HELP = 1.03


@dataclass(frozen=True)
class Figure:
    """A line of the table.

    Attributes:
        scenario: Where it was measured.
        wanted: What must be reached.
        ours: What this agent reached.
        theirs: What Prefect's own agent did; empty if it was not asked.
        holds: Whether it is reached.
    """

    scenario: str
    wanted: str
    ours: str
    theirs: str
    holds: bool


class Results:
    """All measurements of one go; of repeated ones, the median counts."""

    def __init__(self) -> None:
        self.measurements: List[Measurement] = []
        self.help_seconds: Dict[str, List[float]] = {OURS: [], THEIRS: []}
        self.loop_seconds: List[float] = []

    def of(
        self, scenario: str, agent: str, runs: Optional[int] = None
    ) -> List[Measurement]:
        """An agent's measurements in a scenario, of one size or of all."""
        return [
            measurement
            for measurement in self.measurements
            if (measurement.scenario, measurement.agent) == (scenario, agent)
            and runs in (None, measurement.runs)
        ]

    def sizes(self, scenario: str) -> List[int]:
        """How many runs it was measured with."""
        return sorted({found.runs for found in self.of(scenario, OURS)})

    def median(
        self,
        scenario: str,
        agent: str,
        value: Callable[[Measurement], float],
        runs: Optional[int] = None,
    ) -> float:
        """The median of a value over the repetitions."""
        return median(value(found) for found in self.of(scenario, agent, runs))

    def floor_per_run(self, scenario: str, runs: int) -> float:
        """Seconds of CPU of the floor; 0.0 if it was not measured."""
        if not self.of(scenario, OURS, runs):
            return 0.0
        return self.median(scenario, OURS, lambda found: found.floor_per_run, runs)


def figures(results: Results) -> List[Figure]:
    """The lines for the scenarios that were measured."""
    return [line for table in _TABLES for line in table(results)]


def _burst(results: Results) -> Iterator[Figure]:
    ours, theirs = _last_waves(results, "burst")
    if not ours or not theirs:
        return
    limit = 1.15 * floor(ours[0].runs) + 2
    yield Figure(
        "burst",
        f"{ours[0].runs} launched, 0 failed, 0 duplicates",
        _outcome(ours),
        _outcome(theirs),
        all(_is_complete(wave) for wave in ours),
    )
    last = median(_last(wave) for wave in ours)
    yield Figure(
        "burst",
        f"the last starts within 1.15 x AWS's floor + 2 s = {limit:.2f} s",
        f"{last:.2f} s",
        f"{median(_last(wave) for wave in theirs):.2f} s, of those launched",
        last <= limit,
    )
    share = median(_throttled(wave) for wave in ours)
    yield Figure(
        "burst",
        "throttled answers under 1% of the calls to ECS",
        f"{share:.1%}",
        f"{median(_throttled(wave) for wave in theirs):.1%}",
        share < 0.01,
    )
    first = median(_first_twenty(wave) for wave in ours)
    yield Figure(
        "burst",
        "median delay of the first 20 under 1 s",
        f"{first:.2f} s",
        f"{median(_first_twenty(wave) for wave in theirs):.2f} s",
        first < 1.0,
    )


def _definitions(results: Results) -> Iterator[Figure]:
    ours, theirs = results.of("definitions", OURS), results.of("definitions", THEIRS)
    if not ours or not theirs:
        return
    cold, warm = ours[0].waves[0], ours[0].waves[-1]
    definitions = cold.ecs_calls.get("RegisterTaskDefinition", 0)
    yield Figure(
        "definitions",
        "cold: 1 register and at most 1 describe for each definition, 0 failed",
        f"{_calls(cold)}; {_outcome([cold])}",
        f"{_calls(theirs[0].waves[0])}; {_outcome([theirs[0].waves[0]])}",
        cold.ecs_calls.get("DescribeTaskDefinition", 0) <= definitions
        and _is_complete(cold),
    )
    yield Figure(
        "definitions",
        "warm: 1.00 calls to ECS to launch a run",
        f"{_calls_per_run(warm):.2f}",
        f"{_calls_per_run(theirs[0].waves[-1]):.2f} per run launched",
        _calls_per_run(warm) == 1.0 and _is_complete(warm),
    )


def _throughput(results: Results) -> Iterator[Figure]:
    cases = (("throughput", "latencies", 8.0), ("growth", "no latencies", 3.5))
    for scenario, what, factor in cases:
        if results.of(scenario, THEIRS):
            size = results.sizes(scenario)[-1]
            ours, theirs = (
                results.median(scenario, agent, _rate, size) for agent in (OURS, THEIRS)
            )
            yield Figure(
                scenario,
                f"throughput, {what}: at least {factor:g} x",
                f"{ours:.1f}/s: {ours / theirs:.1f} x",
                f"{theirs:.1f}/s",
                ours >= factor * theirs,
            )


def _cpu(results: Results) -> Iterator[Figure]:
    sizes = results.sizes("growth")
    if not sizes or not results.of("growth", THEIRS):
        return
    ours, theirs = (
        [results.median("growth", agent, _cpu_per_run, size) for size in sizes]
        for agent in (OURS, THEIRS)
    )
    floor = results.floor_per_run("growth", sizes[-1])
    yield Figure(
        "growth",
        f"CPU per run: at most {_FLOORS} x the floor of {floor * 1000:.1f} ms",
        f"{ours[-1] * 1000:.1f} ms: {ours[-1] / floor:.2f} x",
        f"{theirs[-1] * 1000:.1f} ms: {theirs[-1] / floor:.2f} x",
        ours[-1] <= _FLOORS * floor,
    )
    yield Figure(
        "growth",
        f"CPU per run: at most {_CPU} x Prefect's own",
        f"{ours[-1] / theirs[-1]:.2f} x",
        "1 x",
        ours[-1] <= _CPU * theirs[-1],
    )
    if len(sizes) > 1:
        yield Figure(
            "growth",
            f"CPU per run flat within 10% from {sizes[0]:,} to {sizes[-1]:,} runs",
            _row(f"{seconds * 1000:.1f}" for seconds in ours) + " ms",
            _row(f"{seconds * 1000:.1f}" for seconds in theirs) + " ms",
            ours[-1] <= 1.1 * ours[0],
        )


def _memory(results: Results) -> Iterator[Figure]:
    compared = [
        (
            name,
            _memory_of(results, name, OURS, size),
            _memory_of(results, name, THEIRS, size),
        )
        for name in dict.fromkeys(found.scenario for found in results.measurements)
        for size in results.sizes(name)
        if results.of(name, THEIRS, size)
    ]
    if compared:
        worst, ours, theirs = max(compared, key=lambda each: each[1] / each[2])
        yield Figure(
            "all of them",
            f"peak memory: at most {_PEAK} x in every scenario",
            f"{ours / _MIB:.1f} MiB: {ours / theirs:.2f} x at worst, in {worst}",
            f"{theirs / _MIB:.1f} MiB",
            ours <= _PEAK * theirs,
        )
    for long in results.of("memory", OURS)[:1]:
        theirs_waves = [found.waves for found in results.of("memory", THEIRS)[:1]]
        resident = [wave.memory / _MIB for wave in long.waves]
        runs = sum(wave.runs for wave in long.waves)
        yield Figure(
            "memory",
            f"memory flat over {runs:,} runs (2%)",
            _resident(long.waves) + f" MiB after each {long.runs:,}; "
            f"{_outcome(long.waves)}",
            "".join(f"{_resident(waves)} MiB" for waves in theirs_waves),
            resident[-1] <= 1.02 * resident[0],
        )


def _backlog(results: Results) -> Iterator[Figure]:
    ours, theirs = _last_waves(results, "backlog")
    if ours and theirs:
        yield Figure(
            "backlog",
            f"{ours[0].runs:,} runs wait for AWS's limits, none Failed",
            _outcome(ours),
            _outcome(theirs),
            all(map(_is_complete, ours)),
        )


def _capacity(results: Results) -> Iterator[Figure]:
    ours, theirs = _last_waves(results, "capacity")
    if ours and theirs:
        yield Figure(
            "capacity",
            "every run launched, none Failed",
            f"{_outcome(ours)}; the last after {_last(ours[0]):.0f} s",
            _outcome(theirs),
            all(_is_complete(wave) for wave in ours),
        )


def _idle(results: Results) -> Iterator[Figure]:
    measured = (
        ("CPU", "ms", lambda found: found.idle_cpu * 1000),
        ("bytes to and from the API", "KiB", lambda found: found.idle_bytes / 1024),
    )
    for scenario, (what, unit, value) in product(("idle", "idle-https"), measured):
        if results.of(scenario, OURS) and results.of(scenario, THEIRS):
            ours, theirs = _both(results, scenario, value)
            yield Figure(
                scenario,
                f"{what}: at most {_IDLE} x",
                f"{ours:.1f} {unit}: {ours / theirs:.2f} x",
                f"{theirs:.1f} {unit}",
                ours <= _IDLE * theirs,
            )


def _single(results: Results) -> Iterator[Figure]:
    ours, theirs = _last_waves(results, "single")
    if ours and theirs:
        measured = (
            ("median", _median_delay, _MEDIAN_WAIT),
            ("worst", _last, _WORST_WAIT),
        )
        for what, value, most in measured:
            own, other = (median(map(value, waves)) for waves in (ours, theirs))
            yield Figure(
                "single",
                f"{what} delay of a run started by hand: at most {most} s",
                f"{own:.2f} s: {own / other:.2f} x",
                f"{other:.2f} s",
                own <= most,
            )


def _start(results: Results) -> Iterator[Figure]:
    if results.of("start", OURS) and results.of("start", THEIRS):
        ours, theirs = _both(results, "start", lambda found: found.first_look)
        yield Figure(
            "start",
            f"from the command to the first look at the queue: at most {_START} x",
            f"{ours:.2f} s: {ours / theirs:.2f} x",
            f"{theirs:.2f} s",
            ours <= _START * theirs,
        )


def _help(results: Results) -> Iterator[Figure]:
    if results.help_seconds[OURS]:
        ours, theirs = (
            median(results.help_seconds[agent]) * 1000 for agent in (OURS, THEIRS)
        )
        yield Figure(
            "help",
            f"`prefect agent ecs start --help`: at most {_HELP} x",
            f"{ours:.0f} ms: {ours / theirs:.2f} x",
            f"{theirs:.0f} ms",
            ours <= _HELP * theirs,
        )


_TABLES = (
    _burst,
    _definitions,
    _throughput,
    _cpu,
    _memory,
    _backlog,
    _capacity,
    _idle,
    _single,
    _start,
    _help,
)


# What the lines are made of


def _last_waves(results: Results, scenario: str) -> Tuple[List[Wave], List[Wave]]:
    ours, theirs = (
        [found.waves[-1] for found in results.of(scenario, agent)]
        for agent in (OURS, THEIRS)
    )
    return ours, theirs


def _is_complete(wave: Wave) -> bool:
    return (wave.launched, wave.failed, wave.duplicates) == (wave.runs, 0, 0)


def _outcome(waves: Sequence[Wave]) -> str:
    """The worst of the repetitions, in words."""
    launched = min(wave.launched for wave in waves)
    failed = max(wave.failed for wave in waves)
    duplicates = max(wave.duplicates for wave in waves)
    return f"{launched:,} launched, {failed:,} failed, {duplicates:,} duplicates"


def _both(
    results: Results, scenario: str, value: Callable[[Measurement], float]
) -> Tuple[float, float]:
    ours, theirs = (results.median(scenario, agent, value) for agent in (OURS, THEIRS))
    return ours, theirs


def _median_delay(wave: Wave) -> float:
    return median(wave.delays)


def _resident(waves: Sequence[Wave]) -> str:
    return _row(f"{wave.memory / _MIB:.1f}" for wave in waves)


def _last(wave: Wave) -> float:
    return wave.delays[-1] if wave.delays else float("inf")


def _first_twenty(wave: Wave) -> float:
    return median(wave.delays[:20]) if wave.delays else float("inf")


def _throttled(wave: Wave) -> float:
    return wave.throttled / max(1, sum(wave.ecs_calls.values()))


def _calls_per_run(wave: Wave) -> float:
    return sum(_to_launch(wave).values()) / max(1, wave.launched)


def _to_launch(wave: Wave) -> Dict[str, int]:
    """The calls to ECS that launch; tasks are looked after 100 at a time."""
    return {
        name: count
        for name, count in wave.ecs_calls.items()
        if name not in ("DescribeTasks", "ListTasks", "StopTask")
    }


def _calls(wave: Wave) -> str:
    return ", ".join(
        f"{name} {count}" for name, count in sorted(_to_launch(wave).items())
    )


def _row(values: Iterable[str]) -> str:
    return " / ".join(values)


def _rate(measurement: Measurement) -> float:
    return median(wave.rate for wave in measurement.waves)


def _cpu_per_run(measurement: Measurement) -> float:
    return measurement.cpu_per_run


def _memory_of(results: Results, scenario: str, agent: str, runs: int) -> float:
    return results.median(scenario, agent, lambda found: found.peak_memory, runs)
