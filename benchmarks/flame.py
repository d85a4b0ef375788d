"""`python -m benchmarks.flame`: where this agent's time goes, as a flame graph.

It records the agent in the scenario `growth` with py-spy (`pip install py-spy`), prints
a table of shares, and writes docs/images/flame.svg and the table in docs/benchmarks.md.

The samples are the stacks that hold Python's global lock: of an agent with many threads
nothing else says which of them runs. The time of the kernel, which sends and receives
without that lock, is not in it.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from . import environments, report, stacks
from .contender import OURS, UNLIMITED, Contender, RunningAgent
from .measuring import measure
from .scenarios import SCENARIOS

_DOCS = environments.ROOT / "docs"

#: Samples per second; more would slow the agent down.
_RATE = 150


def main() -> None:
    """Record, print and write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.flame", description="Draws docs/images/flame.svg."
    )
    parser.add_argument("--runs", type=int, default=6400, help="runs at once")
    parser.add_argument("--no-write", action="store_true", help="only print the table")
    arguments = parser.parse_args()
    py_spy = _py_spy()
    prefect = environments.prepare()
    recorded = environments.CACHE / "stacks.txt"

    @contextmanager
    def recording(agent: RunningAgent) -> Iterator[None]:
        with _recording(py_spy, agent.pid, recorded):
            yield

    agent = Contender(OURS, prefect["plugin"], UNLIMITED)
    measure(SCENARIOS["growth"], arguments.runs, agent, around=recording)
    found = stacks.parsed(recorded.read_text(encoding="utf-8"))
    rows = [[name, f"{share:.0%}"] for name, share in stacks.shares(found)]
    table = report.table(("what the agent does", "share"), rows)
    print(f"{sum(found.values()):,} samples\n\n{table}")
    if not arguments.no_write:
        title = f"Where the agent's time goes: {arguments.runs:,} runs due at once"
        image = _DOCS / "images" / "flame.svg"
        image.write_text(stacks.svg(title, found), encoding="utf-8")
        page = _DOCS / "benchmarks.md"
        text = page.read_text(encoding="utf-8")
        page.write_text(report.page_with(text, table, "flame"), encoding="utf-8")
        print(f"Written: {image}, {page}")


def _py_spy() -> str:
    """Where py-spy is; ends the program if it is nowhere."""
    beside = Path(sys.executable).with_name("py-spy")
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        sys.exit("py-spy is not installed; run: pip install py-spy")
    return found


@contextmanager
def _recording(py_spy: str, pid: int, output: Path) -> Iterator[None]:
    """Sample the stacks of a process; those that hold the global lock."""
    command = [py_spy, "record", "--gil", "--nolineno", "--format", "raw"]
    command += ["--rate", str(_RATE), "--pid", str(pid), "--output", str(output)]
    output.unlink(missing_ok=True)
    sampler = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        yield
    finally:
        sampler.send_signal(signal.SIGINT)
        _, errors = sampler.communicate()
    if not output.exists():
        sys.exit(f"py-spy recorded nothing: {errors.strip()}")


if __name__ == "__main__":
    main()
