"""Tasks of runs that Prefect's own agent started: found once for a whole cluster."""

from __future__ import annotations

from typing import Any, Callable, Dict, List

import pytest

from prefect_ecs_plugin.ecs import ECS
from prefect_ecs_plugin.flow_run import RUN_ID
from prefect_ecs_plugin.network import default_subnets
from prefect_ecs_plugin.pacing import LIMITS, Pacer
from prefect_ecs_plugin.retrying import Refused
from prefect_ecs_plugin.simulation import Simulation
from prefect_ecs_plugin.strays import Strays


class Own:
    """Starts tasks as Prefect's own agent does."""

    def __init__(self, client_of: Callable[..., Any]) -> None:
        self.client = client_of("ecs")
        self.subnets = list(default_subnets(client_of("ec2")))
        self.client.register_task_definition(
            family="prefect-own",
            networkMode="awsvpc",
            cpu="256",
            memory="512",
            requiresCompatibilities=["FARGATE"],
            containerDefinitions=[{"name": "flow", "image": "x"}],
        )

    def start(self, *environment: Dict[str, str], **request: str) -> str:
        """Start a task with variables, and return its ARN."""
        override = {"name": "flow", "environment": list(environment)}
        answer = self.client.run_task(
            taskDefinition="prefect-own",
            launchType="FARGATE",
            networkConfiguration={"awsvpcConfiguration": {"subnets": self.subnets}},
            overrides={"containerOverrides": [override]},
            **request,
        )
        return str(answer["tasks"][0]["taskArn"])

    def run(self, run_id: str, **request: str) -> str:
        """Start the task of a flow run."""
        run = {"name": RUN_ID, "value": run_id}
        return self.start({"name": "A", "value": "1"}, run, **request)


@pytest.fixture
def own(client_of: Callable[..., Any]) -> Own:
    return Own(client_of)


class Finder:
    """Strays whose steps wait on a simulated clock."""

    def __init__(self, client: Any) -> None:
        self.simulation = Simulation()
        later = self.simulation.dispatcher.call_later
        pacer = Pacer(LIMITS, lambda: self.simulation.now, later)
        self.strays = Strays(ECS(client, pacer))
        self.found: List[Any] = []

    def tasks_of(self, *run_ids: str, cluster: str = "default") -> List[Any]:
        def steps(run_id: str) -> Any:
            try:
                tasks = yield from self.strays.tasks_of(run_id, cluster)
            except Refused as refused:
                self.found.append(refused)
            else:
                self.found.append([task["taskArn"] for task in tasks])

        self.found = []
        for run_id in run_ids:
            self.simulation.dispatcher.start(steps(run_id))
        self.simulation.run()
        return self.found


def test_each_run_gets_its_own_tasks_the_latest_last(own: Own) -> None:
    first, other, second = (own.run(run_id) for run_id in ("r1", "r2", "r1"))
    own.run("r1", startedBy="r1")  # bears its run's id, so it is no stray
    own.start()  # and this one runs no flow
    assert Finder(own.client).tasks_of("r1", "r2", "r3") == [
        [first, second],
        [other],
        [],
    ]


def test_a_cluster_is_looked_at_once(aws: Any, own: Own) -> None:
    arn = own.run("r1")
    finder = Finder(own.client)
    aws.calls.clear()
    assert finder.tasks_of("r1", "r1", "r2") == [[arn], [arn], []]
    assert finder.tasks_of("r1") == [[arn]]
    assert dict(aws.calls) == {"ecs.ListTasks": 2, "ecs.DescribeTasks": 1}


def test_a_stopped_task_counts(own: Own) -> None:
    arn = own.run("r1")
    own.client.stop_task(task=arn)
    assert Finder(own.client).tasks_of("r1") == [[arn]]


def test_a_cluster_of_many_tasks(aws: Any, own: Own) -> None:
    arns = {f"r{number}": own.run(f"r{number}") for number in range(120)}
    aws.calls.clear()
    assert Finder(own.client).tasks_of(*arns) == [[arn] for arn in arns.values()]
    assert dict(aws.calls) == {"ecs.ListTasks": 3, "ecs.DescribeTasks": 2}


def test_what_fails_is_asked_again(aws: Any, own: Own) -> None:
    finder = Finder(own.client)
    (refused,) = finder.tasks_of("r1", cluster="absent")
    assert "ClusterNotFound" in str(refused)
    own.client.create_cluster(clusterName="absent")
    assert finder.tasks_of("r1", cluster="absent") == [[]]
