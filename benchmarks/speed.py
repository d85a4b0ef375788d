"""How fast this machine runs Python now: the time of a fixed loop."""

from __future__ import annotations

import time

#: Turns of the loop.
TURNS = 1_000_000

#: What it takes on servers and laptops of the years 2020 to 2025.
TYPICAL = "25 to 60 ms"

_REPEATS = 5


def loop_seconds() -> float:
    """Seconds of CPU that the loop takes, the best of five."""
    return min(_once() for _ in range(_REPEATS))


def _once() -> float:
    began = time.process_time()
    total = 0
    for number in range(TURNS):
        total += number % 7
    return time.process_time() - began
