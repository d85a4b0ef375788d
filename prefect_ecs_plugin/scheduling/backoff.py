"""How long to wait between two tries. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Exponential backoff with full jitter: any time from 0 to a doubling bound.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/

    Attributes:
        first: Seconds; the bound of the first pause.
        longest: Seconds; no bound is longer.
    """

    first: float
    longest: float

    def seconds(self, tries: int, random: float) -> float:
        """How long to wait after a number of tries, for a random number from 0 to 1."""
        return random * min(self.longest, self.first * 2.0 ** min(tries - 1, 32))
