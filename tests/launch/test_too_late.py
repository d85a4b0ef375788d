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
    "which, max_delay, waited, expected",
    [
        ((3700,), 3600, 0, True),
        ((3500,), 3600, 0, False),
        ((-5,), 3600, 0, False),
        ((3700,), 0, 0, False),
        # It waited for a worker or for its start in this agent.
        ((3700,), 3600, 200, False),
        ((3700,), 3600, 50, True),
        # An agent had claimed it, or a user has started it again.
        ((3700, "Scheduled", 3), 3600, 0, False),
        ((3700, "Scheduled", 2), 3600, 0, False),
        # It comes back for the retry of a task.
        ((3700, "Running"), 3600, 0, False),
        (None, 1, 0, False),
    ],
)
def test_which_runs_are_found_too_late(
    which: Any, max_delay: float, waited: float, expected: bool
) -> None:
    found = row(*which) if which else {"state": "Scheduled", "serialized_state": None}
    assert _is_too_late(found, max_delay, waited) is expected
