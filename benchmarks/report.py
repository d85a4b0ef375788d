"""The tables, for the terminal and for docs/benchmarks.md. Pure."""

from __future__ import annotations

from statistics import median
from typing import Iterable, List, Mapping, Sequence

from .contender import OURS, THEIRS
from .figures import Figure, Results
from .measuring import Measurement, Wave
from .speed import TURNS, TYPICAL

BEGIN = "<!-- measured: begin -->"
END = "<!-- measured: end -->"

_AGENTS = {OURS: "this agent", THEIRS: "Prefect's own"}
_MIB = 2.0**20


def page_with(page: str, measured: str) -> str:
    """The page with what stands between its markers replaced.

    Raises:
        ValueError: if it has no markers.
    """
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    if BEGIN not in page or END not in rest:
        raise ValueError(f"The page has no {BEGIN} ... {END} to write between.")
    return f"{before}{BEGIN}\n{measured}\n{END}{after}"


def measured(figures: Sequence[Figure], results: Results, circumstances: str) -> str:
    """What was measured, as Markdown."""
    parts = [circumstances, figures_table(figures), "### In full", details(results)]
    return "\n\n".join(parts)


def circumstances(
    date: str,
    cores: int,
    python: str,
    versions: Mapping[str, str],
    loop_seconds: Sequence[float],
) -> str:
    """Under what circumstances it was."""
    libraries = ", ".join(f"{name} {version}" for name, version in versions.items())
    fastest, slowest = (
        round(seconds * 1000) for seconds in (min(loop_seconds), max(loop_seconds))
    )
    loop = f"{fastest}" + (f" to {slowest}" if slowest > fastest else "")
    return (
        f"Measured on {date}: {cores} cores, Python {python}, {libraries}. A loop of "
        f"{TURNS:,} additions took {loop} ms of CPU, measured before each scenario; "
        f"{TYPICAL} is typical."
    )


def figures_table(figures: Iterable[Figure]) -> str:
    """What must be reached beside what was."""
    heads = ("scenario", "to be reached", "this agent", "Prefect's own", "holds")
    return table(
        heads,
        [
            (
                figure.scenario,
                figure.wanted,
                figure.ours,
                figure.theirs,
                "yes" if figure.holds else "**no**",
            )
            for figure in figures
        ],
    )


def details(results: Results) -> str:
    """One line for each scenario, size and agent."""
    heads = (
        *("scenario", "runs", "agent", "launched", "failed", "duplicates"),
        *("launches/s", "last start", "CPU per run", "times the floor"),
        "peak memory",
        *("ECS calls per run", "throttled", "API calls per run"),
    )
    lines = [
        _detail(
            results.of(scenario, agent, runs), results.floor_per_run(scenario, runs)
        )
        for scenario in dict.fromkeys(found.scenario for found in results.measurements)
        for runs in results.sizes(scenario)
        for agent in _AGENTS
        if runs and results.of(scenario, agent, runs)
    ]
    return table(heads, lines)


def _detail(repeated: Sequence[Measurement], floor: float) -> List[str]:
    """The medians over all waves of all repetitions."""
    one = repeated[0]
    waves = [wave for found in repeated for wave in found.waves]
    cpu = median(found.cpu_per_run for found in repeated)
    return [
        one.scenario,
        f"{one.runs:,}" + (f" x {len(one.waves)}" if len(one.waves) > 1 else ""),
        _AGENTS[one.agent],
        f"{median(wave.launched for wave in waves):,.0f}",
        f"{median(wave.failed for wave in waves):,.0f}",
        f"{median(wave.duplicates for wave in waves):,.0f}",
        f"{median(wave.rate for wave in waves):.1f}",
        f"{median(wave.delays[-1] for wave in waves if wave.delays):.1f} s"
        if any(wave.delays for wave in waves)
        else "",
        f"{cpu * 1000:.1f} ms",
        f"{cpu / floor:.1f}" if floor else "",
        f"{median(found.peak_memory for found in repeated) / _MIB:.1f} MiB",
        f"{_per_run(waves, [wave.ecs_calls for wave in waves]):.2f}",
        f"{median(wave.throttled for wave in waves):,.0f}",
        f"{_per_run(waves, [wave.api_calls for wave in waves]):.2f}",
    ]


def _per_run(waves: Sequence[Wave], calls: Sequence[Mapping[str, int]]) -> float:
    return sum(sum(of.values()) for of in calls) / sum(wave.runs for wave in waves)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
