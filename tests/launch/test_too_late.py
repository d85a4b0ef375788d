"""Which runs are found too late to be launched, as a table."""

from __future__ import annotations

from typing import Any, Dict

import pendulum
import pytest

from prefect_ecs_plugin.launch.launcher import _is_too_late


def row(late: float, state: str = "Scheduled", version: int = 1) -> Dict[str, Any]:
    start = pendulum.now("UTC").subtract(seconds=late).isoformat()
    return {
        "state": state,
        "version": version,
        "serialized_state": {"type": state, "start_time": start},
    }


@pytest.mark.parametrize(
    "row, max_delay, waited, expected",
    [
        (row(3700), 3600, 0, True),
        (row(3500), 3600, 0, False),
        (row(-5), 3600, 0, False),
        (row(3700), 0, 0, False),
        # It waited for a worker or for its start in this agent.
        (row(3700), 3600, 200, False),
        (row(3700), 3600, 50, True),
        # An agent had claimed it, or a user has started it again.
        (row(3700, version=3), 3600, 0, False),
        (row(3700, version=2), 3600, 0, False),
        # It comes back for the retry of a task.
        (row(3700, "Running"), 3600, 0, False),
        ({"state": "Scheduled", "serialized_state": None}, 1, 0, False),
    ],
)
def test_which_runs_are_found_too_late(
    row: Dict[str, Any], max_delay: float, waited: float, expected: bool
) -> None:
    assert _is_too_late(row, max_delay, waited) is expected
