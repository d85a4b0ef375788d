"""The tasks of runs are found on a real client of the strict ECS, in few calls."""

from __future__ import annotations

from typing import Any, Callable, Dict, List

import pytest

from prefect_ecs_plugin.aws.ecs import ECS
from prefect_ecs_plugin.aws.network import default_subnets
from prefect_ecs_plugin.aws.rate_limiter import LIMITS, RateLimiter
from prefect_ecs_plugin.aws.retrying import AWSCallError
from prefect_ecs_plugin.flow_run import RUN_ID
from prefect_ecs_plugin.monitoring.poll_queue import Location
from prefect_ecs_plugin.monitoring.task_finder import FEW, TaskFinder
from prefect_ecs_plugin.scheduling.simulated_clock import Simulation


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
    """A task finder whose steps wait on a simulated clock."""

    def __init__(self, client: Any) -> None:
        self.simulation = Simulation()
        later = self.simulation.dispatcher.call_later
        pacer = RateLimiter(LIMITS, lambda: self.simulation.now, later)
        self.finder = TaskFinder(ECS(client, pacer))
        self.found: List[Any] = []

    def tasks_of(
        self, *run_ids: str, cluster: str = "default", untagged: bool = True
    ) -> List[Any]:
        """Ask for each run by itself, all at the same time."""

        def steps(run_id: str) -> Any:
            try:
                found = yield from self.finder.tasks_of(
                    [run_id], Location(cluster), untagged
                )
            except AWSCallError as refused:
                self.found.append((run_id, refused))
            else:
                arns = [task.arn for task in found.get(run_id, ())]
                self.found.append((run_id, arns))

        self.found = []
        for run_id in run_ids:
            self.simulation.dispatcher.start(steps(run_id))
        self.simulation.run()
        answers = dict(self.found)
        return [answers[run_id] for run_id in run_ids]


def test_each_run_gets_its_own_tasks_the_latest_last(own: Own) -> None:
    first, other, second = (own.run(run_id) for run_id in ("r1", "r2", "r1"))
    tagged = own.run("r1", startedBy="r1")
    own.start()  # this one runs no flow
    finder = Finder(own.client)
    assert finder.tasks_of("r1", "r2", "r3") == [[first, second, tagged], [other], []]
    assert finder.tasks_of("r1", "r2", untagged=False) == [[tagged], []]


def test_requests_at_the_same_time_share_one_listing(aws: Any, own: Own) -> None:
    arn = own.run("r1")
    finder = Finder(own.client)
    aws.calls.clear()
    assert finder.tasks_of("r1", "r2") == [[arn], []]
    assert dict(aws.calls) == {"ecs.ListTasks": 2, "ecs.DescribeTasks": 1}


def test_a_cluster_is_listed_for_each_request_and_only_new_tasks_described(
    aws: Any, own: Own
) -> None:
    finder = Finder(own.client)
    first = own.run("r1")
    assert finder.tasks_of("r1", "r2") == [[first], []]
    aws.calls.clear()
    assert finder.tasks_of("r1") == [[first]]
    assert dict(aws.calls) == {"ecs.ListTasks": 2}
    second = own.run("r2")
    aws.calls.clear()
    assert finder.tasks_of("r1", "r2") == [[first], [second]]
    assert dict(aws.calls) == {"ecs.ListTasks": 2, "ecs.DescribeTasks": 1}
    finder.finder.forget()
    aws.calls.clear()
    assert finder.tasks_of("r1") == [[first]]
    assert aws.calls["ecs.DescribeTasks"] == 1


def test_a_stopped_task_counts(own: Own) -> None:
    arn = own.run("r1")
    own.client.stop_task(task=arn)
    assert Finder(own.client).tasks_of("r1") == [[arn]]


@pytest.mark.parametrize("untagged", [False, True])
def test_many_runs_cost_one_listing_of_the_cluster(
    aws: Any, own: Own, untagged: bool
) -> None:
    runs = [f"r{number}" for number in range(120)]
    arns = [
        own.run(run_id, **({} if untagged else {"startedBy": run_id}))
        for run_id in runs
    ]
    aws.calls.clear()
    found = Finder(own.client).tasks_of(*runs, untagged=untagged)
    assert found == [[arn] for arn in arns]
    assert dict(aws.calls) == {"ecs.ListTasks": 3, "ecs.DescribeTasks": 2}


def test_tasks_of_few_runs_are_listed_run_by_run(aws: Any, own: Own) -> None:
    """A cluster may have thousands of tasks of others."""
    runs = [f"r{number}" for number in range(FEW)]
    arns = [own.run(run_id, startedBy=run_id) for run_id in runs]
    aws.calls.clear()
    found = Finder(own.client).tasks_of(*runs, untagged=False)
    assert found == [[arn] for arn in arns]
    assert dict(aws.calls) == {"ecs.ListTasks": 2 * FEW, "ecs.DescribeTasks": FEW}


def test_a_failure_reaches_each_request_and_the_next_one_lists_again(
    aws: Any, own: Own
) -> None:
    finder = Finder(own.client)
    for refused in finder.tasks_of("r1", "r2", cluster="absent"):
        assert "ClusterNotFound" in str(refused)
    own.client.create_cluster(clusterName="absent")
    assert finder.tasks_of("r1", cluster="absent") == [[]]
