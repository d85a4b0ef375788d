"""`python -m benchmarks`: measure, print, and write docs/benchmarks.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Iterator, List, Sequence

from . import environments, report, single
from .contender import OURS, THEIRS, UNLIMITED, Contender
from .figures import Results, figures
from .limits import floor
from .measuring import Measurement, Wave, measure, time_help
from .plot import Curve, svg
from .scenarios import HELP, NAMES, SCENARIOS, Scenario
from .speed import loop_seconds

_DOCS = environments.ROOT / "docs"
_PLOT = "start-delays.svg"

#: All measurements of the last time.
_KEPT = environments.CACHE / "results.json"

#: How often the help is timed; its differences are of milliseconds.
_HELP_REPEATS = 21


def main() -> None:
    """Run what the command line asks for."""
    arguments = _arguments()
    names = arguments.scenarios or list(NAMES)
    prefect = environments.prepare()
    contenders = [
        Contender(OURS, prefect["plugin"], UNLIMITED),
        Contender(THEIRS, prefect["plain"]),
    ]
    results = _results_without(names) if arguments.update else Results()
    began = time.monotonic()
    for name in names:
        for _ in range(arguments.repeat):
            results.loop_seconds.append(loop_seconds())
            if name == HELP:
                _time_help(results, contenders, 3 if arguments.quick else _HELP_REPEATS)
            else:
                scenario = _scenario(name, arguments)
                for _ in range(scenario.pairs):
                    _measure_pair(results, scenario, contenders)
    results.measurements.sort(key=lambda found: NAMES.index(found.scenario))
    _keep(results)
    print(f"\n{time.monotonic() - began:.0f} s\n\n{_measured(results)}")
    if arguments.update or not (arguments.scenarios or arguments.quick):
        _write(results)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Puts this agent and Prefect's own through the same scenarios. "
        "With no arguments: through all, and writes docs/benchmarks.md.",
    )
    add = parser.add_argument
    add("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(NAMES))
    add("--quick", action="store_true", help="small sizes, to see that it works")
    add("--repeat", type=int, default=1, metavar="N", help="N pairs of each; medians")
    add("--runs", type=int, metavar="N", help="this size only")
    add(
        "--update",
        action="store_true",
        help="keep what was measured last of the other scenarios, and write the docs",
    )
    arguments = parser.parse_args()
    unknown = set(arguments.scenarios) - set(NAMES)
    if unknown:
        parser.error(f"no scenario {sorted(unknown)}; there are {', '.join(NAMES)}")
    if arguments.quick and arguments.update:
        parser.error("--quick measures too little for the docs")
    return arguments


def _scenario(name: str, arguments: argparse.Namespace) -> Scenario:
    """A scenario in the sizes that the command line asks for."""
    scenario = SCENARIOS[name]
    if arguments.quick:
        scenario = scenario.quick()
    if arguments.runs and any(scenario.runs):
        scenario = replace(scenario, runs=(arguments.runs,))
    return scenario


def _measure_pair(
    results: Results, scenario: Scenario, contenders: Sequence[Contender]
) -> None:
    """Each size, the two agents one after the other."""
    for runs in scenario.runs:
        for contender in contenders:
            began = time.monotonic()
            through = single.measure if scenario.agents else measure
            found = through(scenario, runs, contender)
            results.measurements.append(found)
            took = time.monotonic() - began
            said = [f"{scenario.name} {contender.name}", *_told(found), f"{took:.0f} s"]
            print(", ".join(said), flush=True)


def _told(found: Measurement) -> Iterator[str]:
    """What was measured, for those who wait."""
    if found.first_look:
        yield f"first look after {found.first_look:.2f} s"
    if found.idle_calls:
        cpu = found.idle_cpu * 1000
        yield f"idle: {found.idle_calls} calls, {found.idle_bytes} bytes, {cpu:.0f} ms"
    if found.waves:
        launched = sum(wave.launched for wave in found.waves)
        failed = sum(wave.failed for wave in found.waves)
        yield f"{launched} launched, {failed} failed"
    if found.cpu_per_run:
        yield f"{found.cpu_per_run * 1000:.2f} ms CPU per run"
        runs = sum(wave.runs for wave in found.waves)
        api = sum(wave.api_cpu for wave in found.waves) / runs * 1000
        aws = sum(wave.aws_cpu for wave in found.waves) / runs * 1000
        yield f"of the API {api:.2f} ms, of AWS {aws:.2f} ms"
    if found.floor_per_run:
        times = found.cpu_per_run / found.floor_per_run
        yield f"{times:.2f} x the floor of {found.floor_per_run * 1000:.2f} ms"
    yield f"{found.peak_memory / 2**20:.1f} MiB at most"


def _time_help(results: Results, contenders: Sequence[Contender], repeats: int) -> None:
    for _ in range(repeats):
        for contender in contenders:
            seconds = time_help(contender.prefect)
            results.help_seconds[contender.name].append(seconds)
    print(f"help: {repeats} pairs", flush=True)


def _measured(results: Results) -> str:
    circumstances = report.circumstances(
        str(date.today()),
        os.cpu_count() or 1,
        platform.python_version(),
        environments.versions(),
        results.loop_seconds,
    )
    return report.measured(figures(results), results, circumstances)


def _keep(results: Results) -> None:
    """Everything that was measured, for those who want to look closer."""
    measurements = [asdict(found) for found in results.measurements]
    content = {
        "measurements": measurements,
        "help_seconds": results.help_seconds,
        "loop_seconds": results.loop_seconds,
    }
    _KEPT.write_text(json.dumps(content, indent=1))
    print(f"\nAll measurements are in {_KEPT}.")


def _results_without(names: Sequence[str]) -> Results:
    """What was kept last of all scenarios but these."""
    if not _KEPT.exists():
        return Results()
    kept = json.loads(_KEPT.read_text())
    results = Results()
    results.loop_seconds = kept["loop_seconds"]
    if HELP not in names:
        results.help_seconds = kept["help_seconds"]
    for found in kept["measurements"]:
        if found["scenario"] not in names:
            waves = [
                Wave(**{**wave, "delays": tuple(wave["delays"])})
                for wave in found["waves"]
            ]
            results.measurements.append(Measurement(**{**found, "waves": tuple(waves)}))
    return results


def _write(results: Results) -> None:
    page = _DOCS / "benchmarks.md"
    page.write_text(
        report.page_with(page.read_text(encoding="utf-8"), _measured(results)),
        encoding="utf-8",
    )
    written: List[Path] = [page]
    if results.of("burst", OURS) and results.of("burst", THEIRS):
        written.append(_DOCS / _PLOT)
        written[-1].write_text(_plot(results), encoding="utf-8")
    print("Written:", ", ".join(str(path) for path in written))


def _plot(results: Results) -> str:
    """Each run's delay in the burst, in the order of their starts."""
    ours, theirs = (results.of("burst", agent)[0].waves[-1] for agent in (OURS, THEIRS))
    lost = f": {theirs.failed} of {theirs.runs} runs Failed" if theirs.failed else ""
    limit = [(float(runs), floor(runs)) for runs in range(1, ours.runs + 1)]
    return svg(
        f"{ours.runs} runs due at one moment: when each is started",
        "runs, in the order of their starts",
        "seconds from the scheduled start to the task",
        [
            Curve("AWS's documented limit", "c", limit, below=True),
            Curve("this agent", "a", list(enumerate(ours.delays, 1))),
            Curve(f"Prefect's own{lost}", "b", list(enumerate(theirs.delays, 1))),
        ],
    )


if __name__ == "__main__":
    main()
