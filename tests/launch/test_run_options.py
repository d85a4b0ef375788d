"""Options of the agent that a run sets for itself."""

from __future__ import annotations

from typing import Any, Dict, Optional

import pytest
from codes import raises_code

from prefect_ecs_plugin import ECSRun
from prefect_ecs_plugin.errors import RunConfigError
from prefect_ecs_plugin.launch.run_options import RunOptions, check_memory, read

WISH, MOST = "PREFECT_ECS_ON_INTERRUPTION", "PREFECT_ECS_MAX_MEMORY"


@pytest.mark.parametrize(
    "env, options",
    [
        (None, RunOptions()),
        ({"A": "b"}, RunOptions()),
        ({WISH: "resume"}, RunOptions("resume")),
        ({WISH: "resume-all", MOST: "8192"}, RunOptions("resume-all", 8192)),
        ({WISH: "fail", MOST: 8192}, RunOptions("fail", 8192)),
        ({MOST: "8 GB"}, RunOptions(None, 8192)),
        ({WISH: None, MOST: None}, RunOptions()),
    ],
)
def test_what_a_run_asks_for(
    env: Optional[Dict[str, Any]], options: RunOptions
) -> None:
    assert read(ECSRun(env=env)) == options


@pytest.mark.parametrize(
    "env",
    [
        *({WISH: value} for value in ("", "Resume", "never", True, 1)),
        *({MOST: value} for value in ("", "lots", "0", "-1", "1.5", True, "1 TB")),
    ],
)
def test_what_cannot_be_read_is_an_error(env: Dict[str, Any]) -> None:
    with raises_code("invalid-run-option", RunConfigError) as raised:
        read(ECSRun(env=env))
    assert next(iter(env)) in str(raised.value)


@pytest.mark.parametrize(
    "run_config, merged, definition, is_right",
    [
        ({}, {}, {}, True),
        ({}, {}, {"memory": "4096"}, True),
        ({}, {}, {"memory": "8192"}, False),
        ({"memory": 4096, "cpu": 1024}, {}, {"memory": "8192"}, True),
        ({"memory": "8 GB", "cpu": 1024}, {}, {"memory": "512"}, False),
        ({}, {"overrides": {"memory": "512"}}, {"memory": "8192"}, True),
        ({}, {"overrides": {"memory": "8192"}}, {"memory": "512"}, False),
    ],
)
def test_a_cap_is_not_below_what_the_run_asks_for(
    run_config: Dict[str, Any],
    merged: Dict[str, Any],
    definition: Dict[str, Any],
    is_right: bool,
) -> None:
    run = ECSRun(env={MOST: "4096"}, **run_config)
    if is_right:
        check_memory(run, merged, definition)
        return
    with raises_code("invalid-run-option"):
        check_memory(run, merged, definition)
