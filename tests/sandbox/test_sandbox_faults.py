"""What AWS does wrong in the sandbox if a user asks for it."""

from __future__ import annotations

from typing import Iterator

import pytest
from sandbox_aws import ONCE, definition, run_request, wait_for

from prefect_ecs_plugin.sandbox import command
from prefect_ecs_plugin.sandbox.aws import AWS
from prefect_ecs_plugin.sandbox.faults import FAULTS
from prefect_ecs_plugin.sandbox.interruptions import INTERRUPTIONS


@pytest.fixture
def aws() -> Iterator[AWS]:
    with AWS(runs_tasks=False) as aws:
        yield aws


def test_the_command_offers_each_fault() -> None:
    assert list(command.FAULTS) == [*INTERRUPTIONS, *FAULTS]


def test_the_first_task_of_each_run_hangs(aws: AWS) -> None:
    FAULTS["stuck-start"](aws)
    ecs = aws.client("ecs", config=ONCE)
    ecs.register_task_definition(**definition())

    def started(run_id: str) -> str:
        answer = ecs.run_task(**run_request(aws, startedBy=run_id))
        return str(answer["tasks"][0]["taskArn"])

    first, other = started("a"), started("b")
    assert wait_for(aws, first, "PENDING")
    assert wait_for(aws, started("a"), "RUNNING")
    assert wait_for(aws, other, "PENDING")
    ecs.stop_task(task=first)
    assert wait_for(aws, first, "STOPPED").started_at is None
