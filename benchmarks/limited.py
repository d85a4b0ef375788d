"""The CPU that a limit costs an agent for a run.

    python -m benchmarks.limited                 800 runs, three pairs
    python -m benchmarks.limited --runs 200

Agents with and without a limit go through the scenario `growth` in turns, so that what
else the machine does meets both. The limit is not reached. CPU is user and system time
of the agent's process.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Dict, Tuple

from .before import compare
from .contender import UNLIMITED, Contender

#: The options of the two agents.
AGENTS: Dict[str, Tuple[str, ...]] = {
    "with": ("--limit", "100000"),
    "without": (),
}


def main() -> None:
    """Measure, and print each pair and the medians."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.limited", description="Compares CPU per run."
    )
    parser.add_argument("--runs", type=int, default=800, help="runs at once")
    parser.add_argument("--pairs", type=int, default=3, help="how often each")
    arguments = parser.parse_args()
    prefect = Path(sys.executable).with_name("prefect")
    agents = [
        Contender(name, prefect, (*UNLIMITED, *options))
        for name, options in AGENTS.items()
    ]
    compare(*agents, arguments.runs, arguments.pairs)


if __name__ == "__main__":
    main()
