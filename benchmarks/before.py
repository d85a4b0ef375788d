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
    found: Dict[str, List[float]] = {name: [] for name in prefect}
    for _ in range(arguments.pairs):
        for name, command in prefect.items():
            agent = Contender(name, command, UNLIMITED)
            measurement = measure(SCENARIOS["growth"], arguments.runs, agent)
            launched = sum(wave.launched for wave in measurement.waves)
            milliseconds = measurement.cpu_per_run * 1000
            found[name].append(milliseconds)
            print(
                f"{name}: {launched} launched, {milliseconds:.2f} ms of CPU per run, "
                f"{measurement.peak_memory / 2**20:.1f} MiB at most",
                flush=True,
            )
    now, before = (statistics.median(found[name]) for name in ("now", "before"))
    print(f"medians: {now:.2f} ms, before {before:.2f} ms: {now / before:.2f} x")


if __name__ == "__main__":
    main()
