"""Reads the samples of a `/metrics` page."""

from __future__ import annotations

from typing import Dict, Tuple

from prometheus_client.parser import text_string_to_metric_families

#: A sample's name and its labels.
Sample = Tuple[str, Tuple[Tuple[str, str], ...]]


def samples(text: str) -> Dict[Sample, float]:
    """The value of each sample of a page."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def by_label(text: str, name: str) -> Dict[str, float]:
    """The values of a metric with one label, those that are 0 left out."""
    return {
        labels[0][1]: value
        for (found, labels), value in samples(text).items()
        if found == name and value
    }
