"""Clusters, definitions and tasks of the sandbox's AWS belong to one region and one
cluster each: the region for which the request is signed."""

from __future__ import annotations

import os
from typing import Any, Dict, Iterator

import pytest
from sandbox_aws import (
    AWS,
    ONCE,
    content,
    definition,
    refusal,
    wait_for,
)

HOME, AWAY = "us-east-1", "eu-west-1"


def arn(region: str, resource: str) -> str:
    return f"arn:aws:ecs:{region}:123456789012:{resource}"


@pytest.fixture
def aws() -> Iterator[AWS]:
    with AWS(region=HOME, runs_tasks=False) as aws:
        for region in (HOME, AWAY):
            client = ecs(aws, region)
            client.create_cluster(clusterName="default")
            client.create_cluster(clusterName="other")
        yield aws


def ecs(aws: AWS, region: str) -> Any:
    return aws.client("ecs", region_name=region, config=ONCE)


def launch(aws: AWS, region: str, **members: Any) -> str:
    """Registers the definition and starts a task there; returns the task's ARN."""
    client = ecs(aws, region)
    client.register_task_definition(**definition())
    subnets = aws.client("ec2", region_name=region).describe_subnets()["Subnets"]
    network = {"awsvpcConfiguration": {"subnets": [subnets[0]["SubnetId"]]}}
    answer = client.run_task(
        taskDefinition="etl",
        launchType="FARGATE",
        networkConfiguration=network,
        **members,
    )
    assert answer["failures"] == []
    return str(answer["tasks"][0]["taskArn"])


def test_arns_carry_the_region(aws: AWS) -> None:
    task_arn = launch(aws, AWAY)
    (task,) = ecs(aws, AWAY).describe_tasks(tasks=[task_arn])["tasks"]
    assert task_arn.startswith(arn(AWAY, "task/default/"))
    assert task["clusterArn"] == arn(AWAY, "cluster/default")
    assert task["taskDefinitionArn"] == arn(AWAY, "task-definition/etl:1")
    assert task["availabilityZone"].startswith(AWAY)
    assert task["containers"][0]["containerArn"].startswith(arn(AWAY, "container/"))


def test_another_region_sees_nothing(aws: AWS) -> None:
    task_arn = launch(aws, HOME, startedBy="run-1", clientToken="token-1")
    away = ecs(aws, AWAY)
    task_id = task_arn.rpartition("/")[2]
    assert content(away.list_tasks(startedBy="run-1")) == {"taskArns": []}
    assert content(away.describe_tasks(tasks=[task_id])) == {
        "tasks": [],
        "failures": [
            {"arn": arn(AWAY, f"task/default/{task_id}"), "reason": "MISSING"}
        ],
    }
    assert refusal(away.stop_task, task=task_id)["Message"] == (
        "The referenced task was not found."
    )
    assert away.list_task_definitions()["taskDefinitionArns"] == []
    assert refusal(away.describe_task_definition, taskDefinition="etl")["Code"] == (
        "ClientException"
    )
    found = away.describe_clusters(clusters=["default"])["clusters"][0]
    assert (found["runningTasksCount"], found["pendingTasksCount"]) == (0, 0)
    # A clientToken means nothing there, so the same one starts a second task.
    assert launch(aws, AWAY, startedBy="run-1", clientToken="token-1") != task_arn
    assert ecs(aws, HOME).list_tasks(startedBy="run-1")["taskArns"] == [task_arn]


def test_a_region_that_is_left_keeps_its_tasks(aws: AWS) -> None:
    task_arn = launch(aws, HOME)
    launch(aws, AWAY)
    wait_for(aws, task_arn, "RUNNING")
    assert [task.task_arn.split(":")[3] for task in aws.tasks()] == [HOME, AWAY]
    ecs(aws, HOME).stop_task(task=task_arn)
    wait_for(aws, task_arn)


@pytest.mark.parametrize(
    "operation, params",
    [
        ("describe_tasks", {"tasks": [arn(HOME, "task/default/abc")]}),
        ("stop_task", {"task": arn(HOME, "task/default/abc")}),
        (
            "describe_tasks",
            {"cluster": arn(HOME, "cluster/default"), "tasks": ["abc"]},
        ),
        ("list_tasks", {"cluster": arn(HOME, "cluster/default")}),
        ("describe_clusters", {"clusters": [arn(HOME, "cluster/default")]}),
        (
            "describe_task_definition",
            {"taskDefinition": arn(HOME, "task-definition/etl:1")},
        ),
        ("run_task", {"taskDefinition": arn(HOME, "task-definition/etl:1")}),
        (
            "run_task",
            {"taskDefinition": "etl", "cluster": arn(HOME, "cluster/default")},
        ),
    ],
)
def test_an_arn_of_another_region_is_refused(
    aws: AWS, operation: str, params: Dict[str, Any]
) -> None:
    launch(aws, HOME)
    answer = refusal(getattr(ecs(aws, AWAY), operation), **params)
    assert answer == {
        "Code": "InvalidParameterException",
        "Message": "Invalid Region in ARN",
        "Status": 400,
    }


@pytest.mark.parametrize("asked", ["other", arn(HOME, "cluster/other")])
@pytest.mark.parametrize("operation", ["describe_tasks", "stop_task"])
def test_a_task_of_another_cluster(aws: AWS, operation: str, asked: str) -> None:
    """One such ARN fails the whole request, and the task is not stopped."""
    task_arn = launch(aws, HOME)
    own = launch(aws, HOME, cluster="other")
    params: Dict[str, Any] = {"task": task_arn}
    if operation == "describe_tasks":
        params = {"tasks": [own, task_arn]}
    answer = refusal(getattr(ecs(aws, HOME), operation), cluster=asked, **params)
    assert answer == {
        "Code": "InvalidParameterException",
        "Message": "Invalid identifier: Identifier is for cluster default. "
        "Your cluster is other",
        "Status": 400,
    }
    assert aws.task(task_arn).desired_status == "RUNNING"


def test_region_by_the_environment(aws: AWS, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an agent is started: the region is AWS_DEFAULT_REGION's."""
    import boto3

    launch(aws, HOME)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", aws.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", aws.secret_key)
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
    seen = {}
    for region in (HOME, AWAY):
        monkeypatch.setenv("AWS_DEFAULT_REGION", region)
        client = boto3.session.Session().client("ecs", endpoint_url=aws.url)
        seen[region] = len(client.list_tasks()["taskArns"])
    assert seen == {HOME: 1, AWAY: 0}
