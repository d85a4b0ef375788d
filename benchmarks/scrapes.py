"""What Prometheus makes of scrapes: rates, sums and quantiles over time. Pure.

As little of it as the drawing of the dashboard needs, with PromQL's meaning.
https://prometheus.io/docs/prometheus/latest/querying/functions/
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

#: A sample's name and its labels.
Key = Tuple[str, Tuple[Tuple[str, str], ...]]


@dataclass
class Scrapes:
    """What was scraped, moment after moment.

    Attributes:
        seconds: When, from the first scrape on.
        samples: What was there.
    """

    seconds: List[float] = field(default_factory=list)
    samples: List[Mapping[Key, float]] = field(default_factory=list)

    def values(self, name: str, label: str) -> Dict[str, List[float]]:
        """A metric over time, summed by a label; values that are always 0 left out."""
        found: Dict[str, List[float]] = {}
        for at, samples in enumerate(self.samples):
            for (sample, labels), value in samples.items():
                if sample == name:
                    series = found.setdefault(dict(labels).get(label, ""), [])
                    series.extend([0.0] * (at + 1 - len(series)))
                    series[at] += value
        return {key: series for key, series in found.items() if any(series)}

    def rates(
        self, name: str, label: str, window: float
    ) -> Dict[str, List[Optional[float]]]:
        """How fast counters grew per second, over a window before each moment."""
        return {
            key: self._rate(series, window)
            for key, series in self.values(name, label).items()
        }

    def quantiles(self, name: str, part: float, window: float) -> List[Optional[float]]:
        """histogram_quantile of a histogram's rates."""
        buckets = {
            float(bound): self._rate(series, window)
            for bound, series in self.values(f"{name}_bucket", "le").items()
        }
        return [
            quantile(
                part, {bound: rates[at] or 0.0 for bound, rates in buckets.items()}
            )
            for at in range(len(self.seconds))
        ]

    def _rate(self, series: Sequence[float], window: float) -> List[Optional[float]]:
        rates: List[Optional[float]] = []
        for at, now in enumerate(self.seconds[: len(series)]):
            first = next(
                i for i, then in enumerate(self.seconds) if then >= now - window
            )
            passed = now - self.seconds[first]
            grown = series[at] - series[first]
            rates.append(grown / passed if passed else None)
        return rates


def quantile(part: float, buckets: Mapping[float, float]) -> Optional[float]:
    """The value that a part of all lies below, even spread in each bucket assumed.

    Args:
        part: 0.95 for the slowest twentieth.
        buckets: For each bound how many are at most that; the last is infinity.
    """
    total = buckets.get(math.inf, 0.0)
    if not total:
        return None
    below, low = 0.0, 0.0
    for bound, count in sorted(buckets.items()):
        if count >= part * total:
            if math.isinf(bound):
                return low
            return low + (bound - low) * (part * total - below) / (count - below)
        below, low = count, bound
    return low
