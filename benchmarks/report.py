"""The tables, for the terminal and for docs/benchmarks.md. Pure."""

from __future__ import annotations

from statistics import median
from typing import Any, Dict, Iterable, Mapping, Sequence

from .contender import OURS, THEIRS
from .figures import Figure, Results
from .measuring import Measurement, Wave
from .speed import TURNS, TYPICAL

_AGENTS = {OURS: "this agent", THEIRS: "Prefect's own"}
_MIB = 2.0**20

_HEADS = (
    *("scenario", "runs", "agent", "launched", "failed", "duplicates"),
    *("launches/s", "last start", "CPU per run", "times the floor", "peak memory"),
    *("ECS calls per run", "throttled", "API calls per run"),
)


def page_with(page: str, content: str, name: str = "measured") -> str:
    """The page with what stands between two markers replaced.

    Args:
        page: The page, in Markdown.
        content: What comes between the markers.
        name: The markers are `<!-- name: begin -->` and `<!-- name: end -->`.

    Raises:
        ValueError: if it has no such markers.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    if begin not in page or end not in rest:
        raise ValueError(f"The page has no {begin} ... {end} to write between.")
    return f"{before}{begin}\n{content}\n{end}{after}"


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
    lines = [
        _detail(
            results.of(scenario, agent, runs), results.floor_per_run(scenario, runs)
        )
        for scenario in dict.fromkeys(found.scenario for found in results.measurements)
        for runs in results.sizes(scenario)
        for agent in _AGENTS
        if results.of(scenario, agent, runs)
    ]
    return table(_HEADS, [[line.get(head, "") for head in _HEADS] for line in lines])


def _detail(repeated: Sequence[Measurement], floor: float) -> Dict[str, str]:
    """The medians over all waves of all repetitions, by the column's head."""
    one = repeated[0]
    waves = [wave for found in repeated for wave in found.waves]
    line = {
        "scenario": one.scenario,
        "agent": _AGENTS[one.agent],
        "peak memory": f"{_median(repeated, 'peak_memory') / _MIB:.1f} MiB",
    }
    if waves:
        line["runs"] = f"{one.runs:,}" + (
            f" x {len(one.waves)}" if len(one.waves) > 1 else ""
        )
        line.update(
            (name, f"{_median(waves, name):,.0f}")
            for name in ("launched", "failed", "duplicates")
        )
    if any(wave.delays for wave in waves):
        last = median(wave.delays[-1] for wave in waves if wave.delays)
        line["last start"] = f"{last:.1f} s"
    cpu = _median(repeated, "cpu_per_run")
    if cpu:  # of runs that came together
        line["launches/s"] = f"{_median(waves, 'rate'):.1f}"
        line["throttled"] = f"{_median(waves, 'throttled'):,.0f}"
        line["CPU per run"] = f"{cpu * 1000:.1f} ms"
        line["ECS calls per run"] = f"{_per_run(waves, 'ecs_calls'):.2f}"
        line["API calls per run"] = f"{_per_run(waves, 'api_calls'):.2f}"
    if floor:
        line["times the floor"] = f"{cpu / floor:.1f}"
    return line


def _median(found: Sequence[Any], name: str) -> float:
    """Of an attribute of measurements or of waves."""
    return median(getattr(each, name) for each in found)


def _per_run(waves: Sequence[Wave], calls: str) -> float:
    """How many calls there were for a run, in all waves."""
    made = sum(sum(getattr(wave, calls).values()) for wave in waves)
    return made / sum(wave.runs for wave in waves)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
