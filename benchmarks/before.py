"""The CPU that this checkout's agent takes for a run, beside another commit's.

    python -m benchmarks.before COMMIT              800 runs, three pairs
    python -m benchmarks.before COMMIT --runs 200

The two agents go through the scenario `growth` in turns, so that what else the machine
does meets both. CPU is user and system time of the agent's process.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Dict, List

from . import environments
from .contender import UNLIMITED, Contender
from .measuring import measure
from .scenarios import SCENARIOS


def main() -> None:
    """Measure, and print each pair and the medians."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.before", description="Compares CPU per run."
    )
    parser.add_argument("commit", help="a commit of this repository")
    parser.add_argument("--runs", type=int, default=800, help="runs at once")
    parser.add_argument("--pairs", type=int, default=3, help="how often each")
    arguments = parser.parse_args()
    prefect = environments.prepare_two(arguments.commit)
    agents = [Contender(name, prefect[name], UNLIMITED) for name in ("now", "before")]
    compare(*agents, arguments.runs, arguments.pairs)


def compare(one: Contender, other: Contender, runs: int, pairs: int) -> None:
    """Measure two agents in turn; print each run, and the medians of CPU per run."""
    found: Dict[str, List[float]] = {one.name: [], other.name: []}
    for _ in range(pairs):
        for agent in (one, other):
            measurement = measure(SCENARIOS["growth"], runs, agent)
            launched = sum(wave.launched for wave in measurement.waves)
            cpu = measurement.cpu_per_run * 1000
            found[agent.name].append(cpu)
            print(
                f"{agent.name}: {launched} launched, {cpu:.2f} ms of CPU per run, "
                f"{measurement.peak_memory / 2**20:.1f} MiB at most",
                flush=True,
            )
    first, second = map(statistics.median, found.values())
    print(
        f"medians: {first:.2f} ms, {other.name} {second:.2f} ms: {first / second:.2f} x"
    )


if __name__ == "__main__":
    main()
