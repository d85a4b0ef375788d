"""Runs in the states that tests need, and their tasks."""

from __future__ import annotations

import os
from typing import Any, List

import pendulum
import pytest
from deadlines import DEADLINE

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from world import World, eventually

from prefect_ecs_plugin.sandbox.aws import Fault, StartFailure

NO_CAPACITY = Fault(failures=[{"arn": "i-1", "reason": "RESOURCE:CPU"}])
NO_ENI = StartFailure(
    stop_code="TaskFailedToStart",
    stopped_reason="Timeout waiting for network interface provisioning to complete.",
)


def now(**before: float) -> str:
    return str(pendulum.now("UTC").subtract(**before).isoformat())


def tasks_of(world: World, run_id: str, count: int) -> List[Any]:
    """The run's tasks, once there are so many."""
    eventually(lambda: len(world.tasks_of(run_id)) >= count)
    tasks = world.tasks_of(run_id)
    assert len(tasks) == count
    return tasks


def reaches(world: World, task: Any, status: str) -> bool:
    arn = task.task_arn
    return bool(eventually(lambda: world.aws.task(arn).last_status == status))


def set_state(world: World, run_id: str, kind: str, **more: Any) -> None:
    world.api.store.set_flow_run_state(run_id, {"type": kind, **more})


def comes_back(world: World, run_id: str, agent: str = "earlier") -> str:
    """Have a run wait for the retry of a task, which is due; the task run's id.

    Its flow ran once, launched by an agent of another name.
    """
    store = world.api.store
    agent_id = store.register_agent(type="ECSAgent", name=agent)
    store.set_flow_run_state(run_id, {"type": "Submitted"}, agent_id=agent_id)
    set_state(world, run_id, "Running")
    (task_run,) = store.task_runs(run_id)
    retry(world, task_run.id)
    return str(task_run.id)


def retry(world: World, task_run_id: str) -> None:
    retrying = {"type": "Retrying", "start_time": now(minutes=1), "run_count": 1}
    change = {"task_run_id": task_run_id, "state": retrying}
    world.api.store.set_task_run_states([change])


def task_run_state(world: World, run_id: str) -> Any:
    (task_run,) = world.api.store.task_runs(run_id)
    return task_run.state


def refuse(world: World, operation: str, fault: Fault) -> None:
    """Have an operation of AWS refused, such as `ecs.RunTask`."""
    world.aws.fault = lambda asked, _: fault if asked == operation else None


def kill(agent: Any, number: int) -> None:
    os.kill(agent._process.pid, number)
    agent._process.wait(timeout=DEADLINE)


def sent_tokens(world: World, run_id: str) -> List[str]:
    """The different clientTokens that were sent for a run, in their order."""
    sent = [
        request["clientToken"]
        for request in world.aws.sent("RunTask")
        if request.get("startedBy") == run_id  # a dying agent sends half of one
    ]
    return list(dict.fromkeys(sent))


def create_cluster(world: World, name: str, region: str) -> None:
    ecs = world.aws.client("ecs", region_name=region)
    ecs.create_cluster(clusterName=name)


def says(agent: Any, words: str) -> bool:
    """Whether an agent says something in its log, sooner or later."""
    return bool(eventually(lambda: any(words in line for line in agent.lines)))


def waits(agent: Any, run_id: str) -> bool:
    return says(agent, f"Flow run {run_id} waits")
