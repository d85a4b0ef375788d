"""Twenty good runs beside one whose run config would freeze the agent: the real agent
with its real pauses, on the sandbox's servers.

    python -m benchmarks.hostile                 all run configs
    python -m benchmarks.hostile "alias bomb"    these only
"""

from __future__ import annotations

import contextlib
import io
import socket
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any, Iterator, List, NamedTuple, Optional, Sequence

import psutil
from prefect import Flow

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from hostile import MIB, run_configs
from world import World, eventually

#: Good runs beside each hostile one.
GOOD = 20

#: Times that the good ones are launched alone: before all others and after.
ALONE = 3


class Seen(NamedTuple):
    """What was seen of an agent.

    Attributes:
        launched: Seconds until all good runs had a task.
        ended: Seconds until the hostile one was Failed; None if there was none.
        health: The longest answer of the health check, in seconds.
        memory: The most memory that the agent has taken, in MiB.
    """

    launched: float
    ended: Optional[float]
    health: float
    memory: float


class Watch:
    """Asks for an agent's health and memory, without a pause."""

    def __init__(self, address: str, process: psutil.Process) -> None:
        self._address = address
        self._process = process
        self._is_over = threading.Event()
        self.health = 0.0
        self.memory = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        threads = [
            threading.Thread(target=each, daemon=True)
            for each in (self._ask, self._weigh)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            for thread in threads:
                thread.join()

    def _ask(self) -> None:
        while not self._is_over.wait(0.05):
            began = time.monotonic()
            with urllib.request.urlopen(f"{self._address}/api/health") as answer:
                answer.read()
            self.health = max(self.health, time.monotonic() - began)

    def _weigh(self) -> None:
        while not self._is_over.wait(0.01):
            memory = self._process.memory_info().rss / MIB
            self.memory = max(self.memory, memory)


def measure(run_config: Optional[str]) -> Seen:
    """Launch good runs, beside a hostile one if one is named."""
    home = Path(tempfile.mkdtemp())
    world = World(home, forks=False, runs_tasks=False)
    with world.running():
        with contextlib.redirect_stdout(io.StringIO()):
            flow_id = world.register(Flow("hostile"))
        configs = run_configs(world)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"http://127.0.0.1:{free.getsockname()[1]}"
        with world.agent("--agent-address", address) as agent:
            warm = world.run(flow_id)
            eventually(lambda: world.tasks_of(warm))
            watch = Watch(address, psutil.Process(agent._process.pid))
            with watch.running():
                return _measured(world, flow_id, configs.get(run_config or ""), watch)


def _measured(world: World, flow_id: str, stored: Any, watch: Watch) -> Seen:
    began = time.monotonic()
    bad = [world.run_stored(flow_id, stored)] if stored else []
    good = [world.run(flow_id) for _ in range(GOOD)]
    eventually(lambda: all(map(world.tasks_of, good)))
    launched, ended = time.monotonic() - began, None
    if bad:
        eventually(lambda: world.states(bad) == ["Failed"])
        ended = time.monotonic() - began
    return Seen(launched, ended, watch.health, watch.memory)


def main(names: Sequence[str]) -> None:
    """Print the table."""
    print(f"{'beside':26} {'launched':>8} {'Failed':>8} {'health':>8} {'memory':>10}")
    alone = [_row("nothing", None) for _ in range(ALONE)]
    least = statistics.median(each.memory for each in alone)
    for name in names or _names():
        _row(name, least, name)
    for _ in range(ALONE):
        _row("nothing", least)


def _row(words: str, least: Optional[float], name: Optional[str] = None) -> Seen:
    seen = measure(name)
    ended = f"{seen.ended:.1f} s" if seen.ended is not None else "-"
    growth = seen.memory - (least if least is not None else seen.memory)
    print(
        f"{words:26} {seen.launched:6.1f} s {ended:>8} {seen.health:6.2f} s "
        f"{seen.memory:4.0f} ({growth:+4.0f}) MiB",
        flush=True,
    )
    return seen


def _names() -> List[str]:
    with World(Path(tempfile.mkdtemp()), runs_tasks=False).running() as world:
        return list(run_configs(world))


if __name__ == "__main__":
    main(sys.argv[1:])
