"""RunTask and its company in the sandbox, without processes."""

from __future__ import annotations

import threading
from datetime import datetime
from typing import Any, Dict, Iterator, List

import pytest
from sandbox_aws import (
    ARN,
    AWS,
    ONCE,
    content,
    definition,
    ec2_cluster,
    flow_container,
    refusal,
    run_request,
    subnets,
    until,
    wait_for,
)

from prefect_ecs_plugin.sandbox.aws import Hold, StartFailure, TaskChanged, TaskView


class Clock:
    """A time of day that goes on when it is told to."""

    def __init__(self) -> None:
        self.time = 1_700_000_000.0

    def __call__(self) -> float:
        return self.time


CLOCK = Clock()


@pytest.fixture(scope="module")
def server() -> Iterator[AWS]:
    with AWS(runs_tasks=False, now=CLOCK) as aws:
        ecs = aws.client("ecs", config=ONCE)
        ecs.register_task_definition(**definition())
        bridge = definition(
            family="bridge", networkMode="bridge", requiresCompatibilities=["EC2"]
        )
        ecs.register_task_definition(**bridge)
        yield aws


@pytest.fixture
def aws(server: AWS) -> Iterator[AWS]:
    yield server
    server.before_start = None
    server.visible_after = 0.0


@pytest.fixture
def ecs(aws: AWS) -> Any:
    return aws.client("ecs", config=ONCE)


def launch(aws: AWS, **members: Any) -> str:
    """The ARN of a new task."""
    answer = aws.client("ecs", config=ONCE).run_task(**run_request(aws, **members))
    assert answer["failures"] == []
    return str(answer["tasks"][0]["taskArn"])


# RunTask


def test_a_new_task_as_ecs_shows_it(aws: AWS, ecs: Any) -> None:
    aws.before_start = lambda task: Hold()
    given = run_request(
        aws,
        startedBy="run-1",
        tags=[{"key": "a", "value": "b"}],
        overrides={
            "cpu": "512",
            "memory": "1024",
            "containerOverrides": [{"name": "flow", "command": ["x"]}],
        },
    )
    answer = content(ecs.run_task(**given))
    (task,) = answer["tasks"]
    task_id = task["taskArn"].rpartition("/")[2]
    (container,), (attachment,) = task["containers"], task["attachments"]
    details = {item["name"]: item["value"] for item in attachment.pop("details")}
    address = details["privateIPv4Address"]
    found = aws.client("ec2").describe_subnets(SubnetIds=[details["subnetId"]])
    assert details["subnetId"] == subnets(aws)[0]
    assert container.pop("containerArn").startswith(
        f"{ARN}container/default/{task_id}/"
    )
    assert answer == {
        "failures": [],
        "tasks": [
            {
                "attachments": [
                    {
                        "id": attachment["id"],
                        "type": "ElasticNetworkInterface",
                        "status": "PRECREATED",
                    }
                ],
                "attributes": [{"name": "ecs.cpu-architecture", "value": "x86_64"}],
                "availabilityZone": found["Subnets"][0]["AvailabilityZone"],
                "clusterArn": ARN + "cluster/default",
                "containers": [
                    {
                        "taskArn": ARN + f"task/default/{task_id}",
                        "name": "flow",
                        "image": "flow-image",
                        "lastStatus": "PENDING",
                        "networkBindings": [],
                        "networkInterfaces": [
                            {
                                "attachmentId": attachment["id"],
                                "privateIpv4Address": address,
                            }
                        ],
                        "healthStatus": "UNKNOWN",
                        "cpu": "0",
                    }
                ],
                "cpu": "512",
                "createdAt": task["createdAt"],
                "desiredStatus": "RUNNING",
                "enableExecuteCommand": False,
                "ephemeralStorage": {"sizeInGiB": 20},
                "group": "family:etl",
                "healthStatus": "UNKNOWN",
                "lastStatus": "PROVISIONING",
                "launchType": "FARGATE",
                "memory": "1024",
                "overrides": {
                    **given["overrides"],
                    "inferenceAcceleratorOverrides": [],
                },
                "platformFamily": "Linux",
                "platformVersion": "1.4.0",
                "startedBy": "run-1",
                "tags": [{"key": "a", "value": "b"}],
                "taskArn": ARN + f"task/default/{task_id}",
                "taskDefinitionArn": ARN + "task-definition/etl:1",
                "version": 1,
            }
        ],
    }


def unknown_subnet(aws: AWS) -> Dict[str, Any]:
    return {"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-0"]}}}


def unknown_group(aws: AWS) -> Dict[str, Any]:
    awsvpc = {"subnets": subnets(aws)[:1], "securityGroups": ["sg-0"]}
    return {"networkConfiguration": {"awsvpcConfiguration": awsvpc}}


def two_vpcs(aws: AWS) -> Dict[str, Any]:
    awsvpc = {"subnets": [subnets(aws)[0], other_vpc(aws)["subnet"]]}
    return {"networkConfiguration": {"awsvpcConfiguration": awsvpc}}


def group_of_another_vpc(aws: AWS) -> Dict[str, Any]:
    awsvpc = {
        "subnets": subnets(aws)[:1],
        "securityGroups": [other_vpc(aws)["security_group"]],
    }
    return {"networkConfiguration": {"awsvpcConfiguration": awsvpc}}


def other_vpc(aws: AWS) -> Dict[str, str]:
    ec2 = aws.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.0.0/24")["Subnet"]
    group = ec2.create_security_group(GroupName="g", Description="d", VpcId=vpc)
    return {"subnet": subnet["SubnetId"], "security_group": group["GroupId"]}


BAD_PARAMETER = "InvalidParameterException"

# (what is wrong, request members, code, part of the message)
REFUSED: List[Any] = [
    (
        "unknown cluster",
        {"cluster": "nowhere"},
        "ClusterNotFoundException",
        "Cluster not found.",
    ),
    (
        "unknown definition",
        {"taskDefinition": "nothing"},
        "ClientException",
        "TaskDefinition not found.",
    ),
    (
        "unknown revision",
        {"taskDefinition": "etl:77"},
        "ClientException",
        "TaskDefinition not found.",
    ),
    (
        "INACTIVE definition",
        {"taskDefinition": "inactive:1"},
        BAD_PARAMETER,
        "TaskDefinition is inactive",
    ),
    (
        "unknown subnet",
        unknown_subnet,
        BAD_PARAMETER,
        "Error retrieving subnet information for [subnet-0]: The subnet ID 'subnet-0' "
        "does not exist (ErrorCode: InvalidSubnetID.NotFound)",
    ),
    (
        "unknown security group",
        unknown_group,
        BAD_PARAMETER,
        "Error retrieving security group information for [sg-0]: The security group "
        "'sg-0' does not exist (ErrorCode: InvalidGroup.NotFound)",
    ),
    ("subnets of two VPCs", two_vpcs, BAD_PARAMETER, "same VPC"),
    ("a group of another VPC", group_of_another_vpc, BAD_PARAMETER, "same VPC"),
    (
        "no network",
        {"networkConfiguration": {}},
        BAD_PARAMETER,
        "Network Configuration must be provided",
    ),
    (
        "launch type and strategy",
        {"capacityProviderStrategy": [{"capacityProvider": "FARGATE"}]},
        BAD_PARAMETER,
        "both a launch type and capacity provider strategy",
    ),
    (
        "unknown capacity provider",
        {
            "launchType": None,
            "capacityProviderStrategy": [{"capacityProvider": "unknown"}],
        },
        BAD_PARAMETER,
        "cannot contain a capacity provider that is not associated with the cluster",
    ),
    (
        "no container instances",
        {"launchType": "EC2"},
        BAD_PARAMETER,
        "No Container Instances were found in your cluster.",
    ),
    (
        "Fargate with bridge",
        {"taskDefinition": "bridge", "networkConfiguration": None},
        BAD_PARAMETER,
        "launch_type FARGATE",
    ),
    (
        "override of a container that is not there",
        {"overrides": {"containerOverrides": [{"name": "x"}]}},
        BAD_PARAMETER,
        "Override for container named x",
    ),
    (
        "long overrides",
        {
            "overrides": {
                "containerOverrides": [{"name": "flow", "command": ["x" * 8192]}]
            }
        },
        BAD_PARAMETER,
        "8192",
    ),
    ("eleven tasks", {"count": 11}, BAD_PARAMETER, "count"),
    (
        "51 tags",
        {"tags": [{"key": str(number), "value": ""} for number in range(51)]},
        BAD_PARAMETER,
        "tags",
    ),
]


@pytest.mark.parametrize(
    "members, code, message",
    [row[1:] for row in REFUSED],
    ids=[row[0] for row in REFUSED],
)
def test_launch_that_ecs_refuses(
    aws: AWS, ecs: Any, members: Any, code: str, message: str
) -> None:
    if members == {"taskDefinition": "inactive:1"}:
        ecs.register_task_definition(**definition(family="inactive"))
        ecs.deregister_task_definition(taskDefinition="inactive:1")
    members = members(aws) if callable(members) else members
    request = run_request(aws, **members)
    request = {key: value for key, value in request.items() if value is not None}
    before = len(aws.tasks())
    answer = refusal(ecs.run_task, **request)
    assert (answer["Code"], answer["Status"]) == (code, 400)
    assert message in answer["Message"]
    assert len(aws.tasks()) == before


def test_inactive_cluster_is_not_found(aws: AWS, ecs: Any) -> None:
    ecs.create_cluster(clusterName="closed")
    ecs.delete_cluster(cluster="closed")
    answer = refusal(ecs.run_task, **run_request(aws, cluster="closed"))
    assert answer["Code"] == "ClusterNotFoundException"


def test_count_starts_as_many(aws: AWS, ecs: Any) -> None:
    answer = ecs.run_task(**run_request(aws, count=10))
    assert len({task["taskArn"] for task in answer["tasks"]}) == 10


def test_tags_come_from_the_request_the_definition_and_ecs(aws: AWS, ecs: Any) -> None:
    tags = [{"key": "team", "value": "data"}, {"key": "stage", "value": "test"}]
    ecs.register_task_definition(**definition(family="tagged", tags=tags))
    arn = launch(
        aws,
        taskDefinition="tagged",
        propagateTags="TASK_DEFINITION",
        enableECSManagedTags=True,
        tags=[{"key": "stage", "value": "prod"}],
    )
    described = ecs.describe_tasks(tasks=[arn], include=["TAGS"])["tasks"][0]
    assert described["tags"] == [
        {"key": "aws:ecs:clusterName", "value": "default"},
        {"key": "team", "value": "data"},
        {"key": "stage", "value": "prod"},
    ]
    assert ecs.describe_tasks(tasks=[arn])["tasks"][0]["tags"] == []
    ecs.tag_resource(resourceArn=arn, tags=[{"key": "new", "value": "1"}])
    assert {"key": "new", "value": "1"} in ecs.list_tags_for_resource(resourceArn=arn)[
        "tags"
    ]


# Capacity providers and instances


def test_weights_and_base(aws: AWS, ecs: Any) -> None:
    strategy = [
        {"capacityProvider": "FARGATE", "base": 2, "weight": 1},
        {"capacityProvider": "FARGATE_SPOT", "weight": 3},
    ]
    request = run_request(aws, capacityProviderStrategy=strategy, count=10)
    del request["launchType"]
    tasks = ecs.run_task(**request)["tasks"]
    providers = [task["capacityProviderName"] for task in tasks]
    assert providers.count("FARGATE") == 4
    assert providers.count("FARGATE_SPOT") == 6
    assert {task["launchType"] for task in tasks} == {"FARGATE"}


def test_the_clusters_default_strategy(aws: AWS, ecs: Any) -> None:
    ecs.create_cluster(
        clusterName="spot",
        capacityProviders=["FARGATE_SPOT"],
        defaultCapacityProviderStrategy=[{"capacityProvider": "FARGATE_SPOT"}],
    )
    request = run_request(aws, cluster="spot")
    del request["launchType"]
    (task,) = ecs.run_task(**request)["tasks"]
    assert task["capacityProviderName"] == "FARGATE_SPOT"
    assert task["clusterArn"] == ARN + "cluster/spot"
    assert task["taskArn"].startswith(ARN + "task/spot/")


def test_ec2_tasks_fill_their_instance_and_leave_it(aws: AWS, ecs: Any) -> None:
    instance = ec2_cluster(aws, "fleet")
    big = definition(
        family="big",
        networkMode="bridge",
        cpu="2048",
        memory="1024",
        requiresCompatibilities=["EC2"],
    )
    ecs.register_task_definition(**big)
    request = {"taskDefinition": "big", "cluster": "fleet", "launchType": "EC2"}
    first, _ = (ecs.run_task(**request)["tasks"][0] for _ in range(2))
    assert first["containerInstanceArn"] == instance
    assert (first["launchType"], first["attachments"]) == ("EC2", [])
    assert content(ecs.run_task(**request)) == {
        "tasks": [],
        "failures": [{"arn": instance, "reason": "RESOURCE:CPU"}],
    }
    ecs.stop_task(cluster="fleet", task=first["taskArn"])
    wait_for(aws, first["taskArn"])
    assert content(ecs.run_task(**request))["failures"] == []


def test_nothing_is_occupied_when_not_all_tasks_fit(aws: AWS, ecs: Any) -> None:
    instance = ec2_cluster(aws, "small")
    request = {"taskDefinition": "bridge", "cluster": "small", "launchType": "EC2"}
    override = {"overrides": {"cpu": "1500"}}
    answer = ecs.run_task(**request, **override, count=3)
    assert (answer["tasks"], len(answer["failures"])) == ([], 1)
    described = ecs.describe_container_instances(
        cluster="small", containerInstances=[instance]
    )["containerInstances"][0]["remainingResources"]
    assert {item["name"]: item["integerValue"] for item in described}["CPU"] == 4096


# clientToken


def test_same_token_and_request_is_the_same_task(aws: AWS, ecs: Any) -> None:
    request = run_request(aws, clientToken="token-1")
    first = ecs.run_task(**request)["tasks"][0]["taskArn"]
    again = ecs.run_task(**request)["tasks"]
    assert [task["taskArn"] for task in again] == [first]


def test_same_token_with_another_request_is_a_conflict(aws: AWS, ecs: Any) -> None:
    first = launch(aws, clientToken="token-2")
    other = run_request(aws, clientToken="token-2", startedBy="x")
    with pytest.raises(ecs.exceptions.ConflictException) as caught:
        ecs.run_task(**other)
    assert caught.value.response["resourceIds"] == [first]


def test_tokens_belong_to_their_cluster(aws: AWS, ecs: Any) -> None:
    ecs.create_cluster(clusterName="elsewhere", capacityProviders=["FARGATE"])
    first = launch(aws, clientToken="token-3")
    assert launch(aws, clientToken="token-3", cluster="elsewhere") != first
    by_arn = launch(aws, clientToken="token-3", cluster=ARN + "cluster/default")
    assert by_arn == first


def test_token_is_forgotten_after_a_day(aws: AWS) -> None:
    first = launch(aws, clientToken="token-4")
    CLOCK.time += 24 * 3600
    assert launch(aws, clientToken="token-4") == first
    CLOCK.time += 1
    assert launch(aws, clientToken="token-4") != first


def test_one_token_at_the_same_moment_is_one_task(aws: AWS) -> None:
    arns: List[str] = []
    threads = [
        threading.Thread(target=lambda: arns.append(launch(aws, clientToken="now")))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(arns), len(set(arns))) == (16, 1)


def test_a_refused_launch_leaves_its_token_free(aws: AWS, ecs: Any) -> None:
    refusal(ecs.run_task, **run_request(aws, clientToken="t-5", launchType="EC2"))
    launch(aws, clientToken="t-5")


# States


def test_a_task_passes_through_every_state(aws: AWS, ecs: Any) -> None:
    seen: List[TaskView] = []
    aws.subscribe(
        lambda event: (
            seen.append(event.task) if isinstance(event, TaskChanged) else None
        )
    )
    arn = launch(aws)
    wait_for(aws, arn, "RUNNING")
    ecs.stop_task(task=arn, reason="enough")
    wait_for(aws, arn)
    until(lambda: bool(seen) and seen[-1].last_status == "STOPPED")
    assert [task.last_status for task in seen if task.task_arn == arn] == [
        "PROVISIONING",
        "PENDING",
        "ACTIVATING",
        "RUNNING",
        "DEACTIVATING",
        "STOPPING",
        "DEPROVISIONING",
        "STOPPED",
    ]


def test_a_task_that_ran_and_was_stopped(aws: AWS, ecs: Any) -> None:
    arn = launch(aws)
    wait_for(aws, arn, "RUNNING")
    stopped = ecs.stop_task(task=arn.rpartition("/")[2], reason="enough")["task"]
    assert (stopped["desiredStatus"], stopped["stoppedReason"]) == ("STOPPED", "enough")
    wait_for(aws, arn)
    (task,) = ecs.describe_tasks(tasks=[arn])["tasks"]
    times = {key for key, value in task.items() if isinstance(value, datetime)}
    assert times == {
        "connectivityAt",
        "createdAt",
        "executionStoppedAt",
        "pullStartedAt",
        "pullStoppedAt",
        "startedAt",
        "stoppedAt",
        "stoppingAt",
    }
    chosen = ("lastStatus", "desiredStatus", "stopCode", "stoppedReason")
    assert {key: task[key] for key in chosen} == {
        "lastStatus": "STOPPED",
        "desiredStatus": "STOPPED",
        "stopCode": "UserInitiated",
        "stoppedReason": "enough",
    }
    assert task["attachments"][0]["status"] == "DELETED"
    (container,) = task["containers"]
    assert (container["lastStatus"], container["exitCode"]) == ("STOPPED", 143)


def test_stopping_twice_keeps_the_first_reason(aws: AWS, ecs: Any) -> None:
    arn = launch(aws)
    wait_for(aws, arn, "RUNNING")
    for reason in ("first", "second"):
        ecs.stop_task(task=arn, reason=reason)
    assert wait_for(aws, arn).stopped_reason == "first"
    assert ecs.stop_task(task=arn)["task"]["lastStatus"] == "STOPPED"


def test_stopping_a_task_that_is_not_there(ecs: Any) -> None:
    assert refusal(ecs.stop_task, task="0123456789abcdef") == {
        "Code": "InvalidParameterException",
        "Message": "The referenced task was not found.",
        "Status": 400,
    }


def test_a_task_that_fails_to_start(aws: AWS, ecs: Any) -> None:
    reason = "CannotPullContainerError: pull image manifest has been retried 5 time(s)"
    aws.before_start = lambda task: StartFailure(stopped_reason=reason)
    arn = launch(aws)
    wait_for(aws, arn)
    (task,) = ecs.describe_tasks(tasks=[arn])["tasks"]
    assert (task["stopCode"], task["stoppedReason"]) == ("TaskFailedToStart", reason)
    assert "startedAt" not in task
    assert "exitCode" not in task["containers"][0]


def test_a_task_held_pending(aws: AWS, ecs: Any) -> None:
    aws.before_start = lambda task: Hold()
    held, stopped = launch(aws), launch(aws)
    for arn in (held, stopped):
        wait_for(aws, arn, "PENDING")
    ecs.stop_task(task=stopped)
    task = wait_for(aws, stopped)
    assert (task.stop_code, task.exit_code) == ("UserInitiated", None)
    aws.release(held)
    wait_for(aws, held, "RUNNING")


def test_a_hold_that_ends_by_itself(aws: AWS) -> None:
    aws.before_start = lambda task: Hold(0.01)
    wait_for(aws, launch(aws), "RUNNING")


def test_spot_interruption(aws: AWS) -> None:
    arn = launch(aws)
    wait_for(aws, arn, "RUNNING")
    aws.interrupt(arn)
    task = wait_for(aws, arn)
    assert (task.stop_code, task.stopped_reason) == (
        "SpotInterruption",
        "Your Spot Task was interrupted.",
    )


def test_finish_ends_a_task_as_told(aws: AWS) -> None:
    arn = launch(aws)
    wait_for(aws, arn, "RUNNING")
    reason = "OutOfMemoryError: Container killed due to memory usage"
    aws.finish(arn, 137, reason)
    task = wait_for(aws, arn)
    assert (task.exit_code, task.container_reason) == (137, reason)
    assert (task.stop_code, task.stopped_reason) == (
        "EssentialContainerExited",
        "Essential container in task exited",
    )


def test_sidecars_stop_with_the_task(aws: AWS, ecs: Any) -> None:
    containers = [
        flow_container(),
        flow_container(name="sidecar", essential=False, command=["no-such-program"]),
    ]
    ecs.register_task_definition(
        **definition(family="two", containerDefinitions=containers)
    )
    arn = launch(aws, taskDefinition="two")
    wait_for(aws, arn, "RUNNING")
    aws.finish(arn, 1)
    wait_for(aws, arn)
    (task,) = ecs.describe_tasks(tasks=[arn])["tasks"]
    assert [
        (container["name"], container["lastStatus"], container["exitCode"])
        for container in task["containers"]
    ] == [("flow", "STOPPED", 1), ("sidecar", "STOPPED", 0)]


def test_unknown_tasks_are_a_mistake_of_the_test(aws: AWS) -> None:
    for act in (aws.task, aws.interrupt, aws.release, aws.finish):
        with pytest.raises(KeyError, match="There is no task arn:x"):
            act("arn:x")


# DescribeTasks and ListTasks


def test_describe_mixes_tasks_and_failures(aws: AWS, ecs: Any) -> None:
    arn = launch(aws)
    answer = ecs.describe_tasks(tasks=["missing", arn])
    assert [task["taskArn"] for task in answer["tasks"]] == [arn]
    assert answer["failures"] == [
        {"arn": ARN + "task/default/missing", "reason": "MISSING"}
    ]


@pytest.mark.parametrize("tasks", [[], ["x"] * 101])
def test_describe_takes_a_hundred(ecs: Any, tasks: List[str]) -> None:
    assert refusal(ecs.describe_tasks, tasks=tasks)["Code"] == BAD_PARAMETER


def test_describe_a_task_of_another_cluster(aws: AWS, ecs: Any) -> None:
    answer = refusal(ecs.describe_tasks, tasks=[ARN + "task/other/abc"])
    assert answer == {
        "Code": BAD_PARAMETER,
        "Message": "Invalid identifier: Identifier is for cluster other. "
        "Your cluster is default",
        "Status": 400,
    }


def test_a_new_task_is_missing_for_a_while(aws: AWS, ecs: Any) -> None:
    aws.visible_after = 10.0
    arn = launch(aws, startedBy="shy")
    failures = ecs.describe_tasks(tasks=[arn])["failures"]
    assert failures == [{"arn": arn, "reason": "MISSING"}]
    assert ecs.list_tasks(startedBy="shy")["taskArns"] == []
    CLOCK.time += 10.0
    assert ecs.list_tasks(startedBy="shy")["taskArns"] == [arn]


def test_a_stopped_task_is_forgotten_after_an_hour(aws: AWS, ecs: Any) -> None:
    arn = launch(aws)
    wait_for(aws, arn, "RUNNING")
    ecs.stop_task(task=arn)
    wait_for(aws, arn)
    CLOCK.time += 3600.0
    assert ecs.describe_tasks(tasks=[arn])["failures"] == []
    CLOCK.time += 1.0
    assert ecs.describe_tasks(tasks=[arn])["failures"] == [
        {"arn": arn, "reason": "MISSING"}
    ]


def test_list_filters(aws: AWS, ecs: Any) -> None:
    ecs.create_cluster(clusterName="lists", capacityProviders=["FARGATE"])
    ecs.register_task_definition(**definition(family="listed"))
    mine = launch(aws, cluster="lists", startedBy="me")
    other = launch(aws, cluster="lists", taskDefinition="listed")
    over = launch(aws, cluster="lists", startedBy="me")
    wait_for(aws, over, "RUNNING")
    ecs.stop_task(cluster="lists", task=over)

    def listed(**params: Any) -> Any:
        return ecs.list_tasks(cluster="lists", **params)["taskArns"]

    assert listed() == [mine, other]
    assert listed(startedBy="me") == [mine]
    assert listed(startedBy="me", desiredStatus="STOPPED") == [over]
    assert listed(family="listed") == [other]
    assert listed(launchType="EC2") == []
    assert listed(serviceName="web") == []


def test_list_by_started_by_and_nothing_else(ecs: Any) -> None:
    answer = refusal(ecs.list_tasks, startedBy="me", family="etl")
    assert answer["Code"] == BAD_PARAMETER


def test_list_comes_in_pages(aws: AWS, ecs: Any) -> None:
    ecs.create_cluster(clusterName="pages", capacityProviders=["FARGATE"])
    arns = [launch(aws, cluster="pages") for _ in range(5)]
    paginator = ecs.get_paginator("list_tasks")
    pages = paginator.paginate(cluster="pages", PaginationConfig={"PageSize": 2})
    assert [page["taskArns"] for page in pages] == [arns[:2], arns[2:4], arns[4:]]


def test_clusters_count_their_tasks(aws: AWS, ecs: Any) -> None:
    ecs.create_cluster(clusterName="counted", capacityProviders=["FARGATE"])
    wait_for(aws, launch(aws, cluster="counted"), "RUNNING")
    aws.before_start = lambda task: Hold()
    launch(aws, cluster="counted")
    (cluster,) = ecs.describe_clusters(clusters=["counted"])["clusters"]
    assert (cluster["runningTasksCount"], cluster["pendingTasksCount"]) == (1, 1)
