"""Runs whose run config or template would freeze or end the agent, beside good ones."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, Dict, Iterator

import boto3
import pytest
from deadlines import DEADLINE
from prefect import Flow

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from world import World, eventually

from prefect_ecs_plugin.launch_record import read

pytestmark = pytest.mark.slow

MIB = 1024 * 1024


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, locks_submitted=False, runs_tasks=False).running() as world:
        yield world


@pytest.fixture
def flow_id(world: World) -> str:
    return world.register(Flow("hostile"))


def put(world: World, key: str, body: bytes) -> str:
    """Put a template on S3; its path."""
    s3 = boto3.client(
        "s3",
        endpoint_url=world.aws.url,
        region_name=world.aws.region,
        aws_access_key_id="sandbox",
        aws_secret_access_key="sandbox",
    )
    s3.create_bucket(Bucket="templates")
    s3.put_object(Bucket="templates", Key=key, Body=body)
    return f"s3://templates/{key}"


# -- Runs that end the agent -------------------------------------------------------


class Killer:
    """Kills the agent whenever it reads a certain template.

    Attributes:
        agent: The agent that is there now.
    """

    def __init__(self, world: World, key: str) -> None:
        self.agent: Any = None
        self._key = key
        world.aws.fault = self  # type: ignore[assignment]

    def __call__(self, operation: str, params: Dict[str, Any]) -> None:
        if operation == "s3.GetObject" and params.get("Key") == self._key:
            eventually(lambda: self.agent is not None)
            os.kill(self.agent._process.pid, signal.SIGKILL)


def run_until_killed(world: World, killer: Killer) -> None:
    killer.agent = None
    with world.quick_agent() as agent:
        killer.agent = agent
        agent._process.wait(timeout=DEADLINE)


def test_a_run_that_ends_the_agent_is_failed_after_three(
    world: World, flow_id: str
) -> None:
    path = put(world, "poison.yaml", b"cpu: 512\n")
    poison = world.run_stored(flow_id, {"type": "ECSRun", "task_definition_path": path})
    killer = Killer(world, "poison.yaml")
    for recoveries in range(3):
        run_until_killed(world, killer)
        record = read(world.api.store.flow_run(poison).serialized_state)
        assert record is not None
        assert record.recoveries == recoveries
    good = world.run(flow_id)
    killer.agent = None
    with world.quick_agent() as killer.agent:
        assert eventually(lambda: world.states([poison]) == ["Failed"])
        assert eventually(lambda: world.tasks_of(good))
    (line,) = world.log(poison, "ERROR")
    assert "3 agents in a row ended while they read it" in line
    assert world.tasks_of(poison) == []


def test_runs_beside_one_that_ends_the_agent_are_launched(
    world: World, flow_id: str
) -> None:
    """They wait with it in each agent, and are not taken for it."""
    slow = put(world, "slow.yaml", b"cpu: 512\n")
    path = put(world, "poison.yaml", b"cpu: 512\n")
    stored = {"type": "ECSRun", "task_definition_path": slow}
    others = [world.run_stored(flow_id, stored) for _ in range(3)]
    poison = world.run_stored(flow_id, {**stored, "task_definition_path": path})
    killer = Killer(world, "poison.yaml")
    for _ in range(3):
        run_until_killed(world, killer)
    killer.agent = None
    with world.quick_agent() as killer.agent:
        assert eventually(lambda: world.states([poison]) == ["Failed"])
        assert eventually(lambda: all(map(world.tasks_of, others)))
    assert [len(world.tasks_of(other)) for other in others] == [1, 1, 1]
