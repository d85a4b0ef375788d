"""Runs whose run config or template would freeze or end the agent, beside good ones."""

from __future__ import annotations

import os
import signal
import socket
import urllib.request
from pathlib import Path
from typing import Any, Dict, Iterator

import psutil
import pytest
from deadlines import DEADLINE
from prefect import Flow

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from hostile import MIB, put, run_configs
from world import World, eventually

from prefect_ecs_plugin.config.configuration import DEFAULT_TASK_DEFINITION_PATH
from prefect_ecs_plugin.launch_record import read

pytestmark = pytest.mark.slow

TEMPLATE = Path(DEFAULT_TASK_DEFINITION_PATH).read_bytes()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, locks_submitted=False, runs_tasks=False).running() as world:
        yield world


@pytest.fixture
def flow_id(world: World) -> str:
    return world.register(Flow("hostile"))


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
    path = put(world, "poison.yaml", TEMPLATE)
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
    slow = put(world, "slow.yaml", TEMPLATE)
    path = put(world, "poison.yaml", TEMPLATE)
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


# -- Runs that would freeze it -----------------------------------------------------


def test_good_runs_are_launched_beside_those_that_would_freeze_the_agent(
    world: World, flow_id: str
) -> None:
    bad = [world.run_stored(flow_id, each) for each in run_configs(world).values()]
    good = [world.run(flow_id) for _ in range(20)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    with world.quick_agent("--agent-address", address) as agent:
        assert eventually(lambda: all(map(world.tasks_of, good)))
        assert eventually(lambda: set(world.states(bad)) == {"Failed"})
        with urllib.request.urlopen(f"{address}/api/health") as answer:
            assert answer.status == 200
        memory = psutil.Process(agent._process.pid).memory_info().rss
    for run_id in bad:
        (line,) = world.log(run_id, "ERROR")
        assert len(line) <= 600  # the sentence, and what says that it is one
        assert "k" * 500 not in line
    assert [len(world.tasks_of(run_id)) for run_id in good] == [1] * 20
    assert memory < 400 * MIB
