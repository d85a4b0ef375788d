"""What ECS accepts: each rule with a request it refuses and a neighbour it accepts."""

from __future__ import annotations

import copy
from typing import Any, Dict, List, Mapping, NamedTuple, Optional

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefect_ecs_plugin.validation import rules
from prefect_ecs_plugin.validation.rules import Problem, definition, fargate, run_task

# No test fails because a machine is slow.
UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

ROLE = "arn:aws:iam::123456789012:role/execution"
SECRET = {"name": "KEY", "valueFrom": "arn:aws:ssm:us-east-1:123456789012:parameter/k"}
ECR = "123456789012.dkr.ecr.us-east-1.amazonaws.com/flows:1"


def container(**members: Any) -> Dict[str, Any]:
    return {"name": "flow", "image": "prefecthq/prefect:1.4.1", **members}


def a_definition(*containers: Mapping[str, Any], **members: Any) -> Dict[str, Any]:
    return {
        "family": "prefect",
        "networkMode": "awsvpc",
        "cpu": "1024",
        "memory": "2048",
        "containerDefinitions": list(containers or [container()]),
        **members,
    }


def without(request: Mapping[str, Any], *keys: str) -> Dict[str, Any]:
    return {key: value for key, value in request.items() if key not in keys}


def tag(key: str, value: str = "v") -> Dict[str, str]:
    return {"key": key, "value": value}


def tags(count: int) -> List[Dict[str, str]]:
    return [tag(f"k{number}") for number in range(count)]


FIRST = "containerDefinitions[0]"


class Case(NamedTuple):
    bad: Dict[str, Any]
    problems: List[Problem]
    good: Dict[str, Any]


# `container()` has no memory of its own: the task's is enough.
DEFINITIONS = {
    "a family is given": Case(
        without(a_definition(), "family"),
        [Problem("family", "a task definition needs a family")],
        a_definition(),
    ),
    "family characters": Case(
        a_definition(family="my flow"),
        [
            Problem(
                "family",
                "'my flow' is no family: up to 255 letters, digits, hyphens and "
                "underscores",
            )
        ],
        a_definition(family="My-flow_1"),
    ),
    "family length": Case(
        a_definition(family="f" * 256),
        [
            Problem(
                "family",
                f"'{'f' * 77}...' is no family: up to 255 letters, digits, hyphens "
                "and underscores",
            )
        ],
        a_definition(family="f" * 255),
    ),
    "containers are given": Case(
        a_definition(containerDefinitions=[]),
        [Problem("containerDefinitions", "a task needs at least one container")],
        a_definition(),
    ),
    "10 containers": Case(
        a_definition(*(container(name=f"c{number}") for number in range(11))),
        [Problem("containerDefinitions", "11 containers, and ECS takes at most 10")],
        a_definition(*(container(name=f"c{number}") for number in range(10))),
    ),
    "64 KiB": Case(
        a_definition(container(dockerLabels={"l": "x" * 65536})),
        [Problem("", "65707 bytes of JSON, and ECS takes at most 65536")],
        a_definition(
            container(dockerLabels={"l": "x" * (65536 - 65707 + 65536)}),
            tags=tags(50),
        ),
    ),
    "50 tags": Case(
        a_definition(tags=tags(51)),
        [Problem("tags", "51 tags, and ECS takes at most 50")],
        a_definition(tags=tags(50)),
    ),
    "each tag key once": Case(
        a_definition(tags=[tag("team"), tag("team", "w")]),
        [Problem("tags", "the key 'team' is given 2 times, not once")],
        a_definition(tags=[tag("team"), tag("Team", "w")]),
    ),
    "tag key given": Case(
        a_definition(tags=[{"value": "v"}]),
        [Problem("tags[0].key", "a tag needs a key of 1 to 128 characters")],
        a_definition(tags=[{"key": "k"}]),
    ),
    "tag key length": Case(
        a_definition(tags=[tag("k" * 129)]),
        [Problem("tags[0].key", "129 characters, and at most 128 go")],
        a_definition(tags=[tag("ké" * 64)]),
    ),
    "tag key characters": Case(
        a_definition(tags=[tag("a,b;c")]),
        [
            Problem(
                "tags[0].key",
                "',' ';' may not stand in a tag: letters, digits, spaces, _.:/=+-@",
            )
        ],
        a_definition(tags=[tag("prefect:flow-id _./=+-@ 東京")]),
    ),
    "tag key prefix": Case(
        a_definition(tags=[tag("AWS:x")]),
        [Problem("tags[0].key", "'AWS:x' starts with 'aws:', which AWS reserves")],
        a_definition(tags=[tag("my-aws:x")]),
    ),
    "tag value length": Case(
        a_definition(tags=[tag("k", "v" * 257)]),
        [Problem("tags[0].value", "257 characters, and at most 256 go")],
        a_definition(tags=[tag("k", "v" * 256)]),
    ),
    "tag value prefix": Case(
        a_definition(tags=[tag("k", "aws:v")]),
        [
            Problem(
                "tags[0].value",
                "'aws:v' starts with 'aws:', which AWS reserves",
                certain=False,
            )
        ],
        a_definition(tags=[tag("k", "")]),
    ),
    "a container has a name": Case(
        a_definition(without(container(), "name")),
        [Problem(f"{FIRST}.name", "a container needs a name")],
        a_definition(),
    ),
    "container name": Case(
        a_definition(container(name="a.b")),
        [
            Problem(
                f"{FIRST}.name",
                "'a.b' is no container name: 1 to 255 letters, digits, hyphens and "
                "underscores",
            )
        ],
        a_definition(container(name="a-b")),
    ),
    "container names once": Case(
        a_definition(container(), container()),
        [Problem("containerDefinitions", "2 containers are named 'flow'")],
        a_definition(container(), container(name="Flow")),
    ),
    "a container has an image": Case(
        a_definition(without(container(), "image")),
        [Problem(f"{FIRST}.image", "a container needs an image")],
        a_definition(),
    ),
    "image": Case(
        a_definition(container(image="prefect :1")),
        [
            Problem(
                f"{FIRST}.image",
                "'prefect :1' is no image: REPOSITORY:TAG or REPOSITORY@DIGEST, "
                "without spaces",
            )
        ],
        a_definition(container(image="localhost:5000/p@sha256:" + "0" * 64)),
    ),
    "one essential container": Case(
        a_definition(container(essential=False)),
        [Problem("containerDefinitions", "at least one container must be essential")],
        a_definition(container(essential=False), container(name="other")),
    ),
    "task cpu": Case(
        a_definition(cpu="one"),
        [
            Problem(
                "cpu",
                "'one' is no cpu: CPU units such as 1024, or vCPUs such as '1 vCPU'",
            )
        ],
        a_definition(cpu="1 vCPU"),
    ),
    "task memory": Case(
        a_definition(memory="2 GiB"),
        [
            Problem(
                "memory",
                "'2 GiB' is no memory: MiB such as 2048, or GB such as '2 GB'",
            )
        ],
        a_definition(memory="2GB"),
    ),
    "memory somewhere": Case(
        without(a_definition(container(), container(name="b", memory=1)), "memory"),
        [
            Problem(
                FIRST,
                "give memory or memoryReservation in MiB here, or memory for the "
                "whole task",
            )
        ],
        without(a_definition(container(memoryReservation=512)), "memory"),
    ),
    "memory over its reservation": Case(
        a_definition(container(memory=128, memoryReservation=256)),
        [
            Problem(
                f"{FIRST}.memoryReservation",
                "256 MiB is more than the container's memory, 128 MiB",
            )
        ],
        a_definition(container(memory=128, memoryReservation=128)),
    ),
    "memory within the task's": Case(
        a_definition(container(memory=4096), memory="2 GB"),
        [
            Problem(
                f"{FIRST}.memory", "4096 MiB is more than the task's memory, 2048 MiB"
            )
        ],
        # Several limits may add up to more than the task has: only a single one counts.
        a_definition(container(memory=2048), container(name="b", memory=2048)),
    ),
    "cpu within the task's": Case(
        a_definition(container(cpu=1000), container(name="b", cpu=25)),
        [Problem("cpu", "the containers ask for 1025 CPU units, the task has 1024")],
        a_definition(
            container(cpu=1000), container(name="b", cpu=24), container(name="c")
        ),
    ),
    "a variable has a name": Case(
        a_definition(container(environment=[{"value": "1"}])),
        [
            Problem(
                f"{FIRST}.environment[0].name",
                "an environment variable needs a name",
                certain=False,
            )
        ],
        # ECS takes a name twice.
        a_definition(
            container(
                environment=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]
            )
        ),
    ),
    "secret names once": Case(
        a_definition(container(secrets=[SECRET, SECRET]), executionRoleArn=ROLE),
        [Problem(f"{FIRST}.secrets", "2 secrets are named 'KEY'")],
        a_definition(
            container(secrets=[SECRET]),
            container(name="b", secrets=[SECRET]),
            executionRoleArn=ROLE,
        ),
    ),
    "environment or secrets": Case(
        a_definition(
            container(secrets=[SECRET], environment=[{"name": "KEY", "value": "1"}]),
            executionRoleArn=ROLE,
        ),
        [
            Problem(
                f"{FIRST}.environment[0].name",
                "KEY is among the container's secrets too: keep one of the two",
            )
        ],
        a_definition(
            container(secrets=[SECRET], environment=[{"name": "KEY2", "value": "1"}]),
            executionRoleArn=ROLE,
        ),
    ),
    "an execution role for secrets": Case(
        a_definition(container(secrets=[SECRET])),
        [
            Problem(
                f"{FIRST}.secrets",
                "secrets are fetched with the execution role: give executionRoleArn "
                "here, or --execution-role-arn to the agent",
            )
        ],
        a_definition(container(secrets=[SECRET]), executionRoleArn=ROLE),
    ),
    "role ARN": Case(
        a_definition(taskRoleArn="arn:aws:iam::123456789012:user/me"),
        [
            Problem(
                "taskRoleArn",
                "'arn:aws:iam::123456789012:user/me' is no role: "
                "arn:aws:iam::ACCOUNT:role/NAME",
            )
        ],
        a_definition(
            taskRoleArn="flows",
            executionRoleArn="arn:aws-us-gov:iam::123456789012:role/path/name",
        ),
    ),
    "host ports with awsvpc": Case(
        a_definition(container(portMappings=[{"containerPort": 80, "hostPort": 8080}])),
        [
            Problem(
                f"{FIRST}.portMappings[0].hostPort",
                "with network mode awsvpc it is left out or equals containerPort, 80",
            )
        ],
        a_definition(
            container(portMappings=[{"containerPort": 80, "hostPort": 8080}]),
            networkMode="bridge",
        ),
    ),
    "ports without a network": Case(
        a_definition(
            container(portMappings=[{"containerPort": 80}]), networkMode="none"
        ),
        [Problem(f"{FIRST}.portMappings[0]", "network mode none has no port mappings")],
        a_definition(container(portMappings=[{"containerPort": 80, "hostPort": 80}])),
    ),
    "links with awsvpc": Case(
        a_definition(container(links=["b"])),
        [Problem(f"{FIRST}.links", "cannot be used with network mode awsvpc")],
        without(a_definition(container(links=["b"])), "networkMode"),
    ),
    "hostname with awsvpc": Case(
        a_definition(container(hostname="h")),
        [Problem(f"{FIRST}.hostname", "cannot be used with network mode awsvpc")],
        a_definition(container(hostname="h"), networkMode="bridge"),
    ),
    "awslogs options": Case(
        a_definition(
            container(
                logConfiguration={
                    "logDriver": "awslogs",
                    "options": {"awslogs-group": "/flows"},
                }
            )
        ),
        [Problem(f"{FIRST}.logConfiguration.options", "awslogs needs awslogs-region")],
        a_definition(
            container(
                logConfiguration={
                    "logDriver": "awslogs",
                    "options": {"awslogs-group": "/f", "awslogs-region": "us-east-1"},
                }
            )
        ),
    ),
    "volumes exist": Case(
        a_definition(container(mountPoints=[{"sourceVolume": "data"}])),
        [
            Problem(
                f"{FIRST}.mountPoints[0].sourceVolume",
                "the definition has no volume 'data'",
            )
        ],
        a_definition(
            container(mountPoints=[{"sourceVolume": "data"}]),
            volumes=[{"name": "data"}],
        ),
    ),
    "dependencies exist": Case(
        a_definition(
            container(dependsOn=[{"containerName": "db", "condition": "START"}])
        ),
        [
            Problem(
                f"{FIRST}.dependsOn[0].containerName",
                "the definition has no container 'db'",
            )
        ],
        a_definition(
            container(dependsOn=[{"containerName": "db", "condition": "START"}]),
            container(name="db"),
        ),
    ),
    "dependencies that end": Case(
        a_definition(
            container(dependsOn=[{"containerName": "init", "condition": "SUCCESS"}]),
            container(name="init"),
        ),
        [
            Problem(
                f"{FIRST}.dependsOn[0].condition",
                "SUCCESS needs a container that is not essential, and 'init' is",
            )
        ],
        a_definition(
            container(dependsOn=[{"containerName": "init", "condition": "SUCCESS"}]),
            container(name="init", essential=False),
        ),
    ),
    "10 placement constraints": Case(
        a_definition(placementConstraints=[{"type": "memberOf"}] * 11),
        [Problem("placementConstraints", "11 constraints, and at most 10 go")],
        a_definition(placementConstraints=[{"type": "memberOf"}] * 10),
    ),
}


def on_fargate(*containers: Mapping[str, Any], **members: Any) -> Dict[str, Any]:
    return a_definition(*containers, requiresCompatibilities=["FARGATE"], **members)


def linux(**members: Any) -> Dict[str, Any]:
    return on_fargate(container(linuxParameters=members))


FARGATE_DEFINITIONS = {
    "awsvpc": Case(
        on_fargate(networkMode="bridge"),
        [Problem("networkMode", "Fargate needs awsvpc, this is 'bridge'")],
        on_fargate(),
    ),
    "not the default network mode": Case(
        without(on_fargate(), "networkMode"),
        [Problem("networkMode", "Fargate needs awsvpc, and the default is bridge")],
        without(a_definition(), "networkMode"),
    ),
    "cpu and memory given": Case(
        without(on_fargate(container(memory=512)), "cpu", "memory"),
        [
            Problem("cpu", "Fargate needs cpu for the whole task, such as 1024"),
            Problem("memory", "Fargate needs memory for the whole task, such as 2048"),
        ],
        without(a_definition(container(memory=512)), "cpu", "memory"),
    ),
    "a pair that Fargate has": Case(
        on_fargate(cpu="1024", memory="512"),
        [
            Problem(
                "memory",
                "Fargate has no task with cpu 1024 and memory 512: for cpu 1024 "
                "memory is 2048 to 8192 in steps of 1024",
            )
        ],
        on_fargate(cpu=".25 vCPU", memory="0.5 GB"),
    ),
    "a cpu that Fargate has": Case(
        on_fargate(cpu="1000", memory="2048"),
        [
            Problem(
                "memory",
                "Fargate has no task with cpu 1000 and memory 2048: cpu is one of "
                "256, 512, 1024, 2048, 4096, 8192, 16384",
            )
        ],
        a_definition(cpu="1000", memory="2048"),
    ),
    "a size that may be new": Case(
        on_fargate(cpu="32768", memory="245760"),
        [
            Problem(
                "memory",
                "Fargate has no task with cpu 32768 and memory 245760: cpu is one of "
                "256, 512, 1024, 2048, 4096, 8192, 16384",
                certain=False,
            )
        ],
        on_fargate(cpu="16384", memory="122880"),
    ),
    "not privileged": Case(
        on_fargate(container(privileged=True)),
        [Problem(f"{FIRST}.privileged", "Fargate does not have it")],
        on_fargate(container(privileged=False)),
    ),
    "no DNS servers": Case(
        on_fargate(container(dnsServers=["10.0.0.2"])),
        [Problem(f"{FIRST}.dnsServers", "Fargate does not have it", certain=False)],
        on_fargate(container(dnsServers=[])),
    ),
    "no devices": Case(
        linux(devices=[{"hostPath": "/dev/x"}]),
        [Problem(f"{FIRST}.linuxParameters.devices", "Fargate does not have it")],
        linux(initProcessEnabled=True),
    ),
    "no GPU": Case(
        on_fargate(container(resourceRequirements=[{"type": "GPU", "value": "1"}])),
        [Problem(f"{FIRST}.resourceRequirements[0]", "Fargate has no GPUs")],
        a_definition(container(resourceRequirements=[{"type": "GPU", "value": "1"}])),
    ),
    "log drivers": Case(
        on_fargate(container(logConfiguration={"logDriver": "json-file"})),
        [
            Problem(
                f"{FIRST}.logConfiguration.logDriver",
                "Fargate has no 'json-file', only awslogs, splunk, awsfirelens",
            )
        ],
        on_fargate(container(logConfiguration={"logDriver": "splunk"})),
    ),
    "an execution role for ECR": Case(
        on_fargate(container(image=ECR)),
        [
            Problem(
                f"{FIRST}.image",
                "an image in ECR on Fargate needs an execution role: executionRoleArn",
            )
        ],
        on_fargate(container(image=ECR), executionRoleArn=ROLE),
    ),
    "no execution role for public ECR": Case(
        on_fargate(container(image=ECR)),
        [
            Problem(
                f"{FIRST}.image",
                "an image in ECR on Fargate needs an execution role: executionRoleArn",
            )
        ],
        on_fargate(container(image="public.ecr.aws/docker/library/python:3")),
    ),
    "no host volumes": Case(
        on_fargate(volumes=[{"name": "v", "host": {"sourcePath": "/data"}}]),
        [Problem("volumes[0].host.sourcePath", "Fargate has no host to mount")],
        on_fargate(volumes=[{"name": "v", "host": {}}]),
    ),
    "no Docker volumes": Case(
        on_fargate(volumes=[{"name": "v", "dockerVolumeConfiguration": {}}]),
        [
            Problem(
                "volumes[0].dockerVolumeConfiguration", "Fargate has no Docker volumes"
            )
        ],
        on_fargate(
            volumes=[{"name": "v", "efsVolumeConfiguration": {"fileSystemId": "fs-1"}}]
        ),
    ),
    "no placement": Case(
        on_fargate(placementConstraints=[{"type": "memberOf"}]),
        [Problem("placementConstraints", "Fargate has no container instances")],
        on_fargate(placementConstraints=[]),
    ),
    "namespaces": Case(
        on_fargate(ipcMode="task", pidMode="host"),
        [
            Problem("ipcMode", "Fargate does not have it"),
            Problem("pidMode", "Fargate has no host to share, only 'task'"),
        ],
        on_fargate(pidMode="task"),
    ),
    "ephemeral storage": Case(
        on_fargate(ephemeralStorage={"sizeInGiB": 20}),
        [Problem("ephemeralStorage.sizeInGiB", "20 GiB, and Fargate has 21 to 200")],
        on_fargate(ephemeralStorage={"sizeInGiB": 21}),
    ),
    "ephemeral storage at most": Case(
        on_fargate(ephemeralStorage={"sizeInGiB": 201}),
        [Problem("ephemeralStorage.sizeInGiB", "201 GiB, and Fargate has 21 to 200")],
        on_fargate(ephemeralStorage={"sizeInGiB": 200}),
    ),
    "stop timeout": Case(
        on_fargate(container(stopTimeout=121)),
        [
            Problem(
                f"{FIRST}.stopTimeout",
                "121 s, and Fargate waits at most 120",
                certain=False,
            )
        ],
        on_fargate(container(stopTimeout=120)),
    ),
}

ALL_DEFINITIONS = {**DEFINITIONS, **FARGATE_DEFINITIONS}


@pytest.mark.parametrize("case", ALL_DEFINITIONS.values(), ids=ALL_DEFINITIONS.keys())
def test_definition(case: Case) -> None:
    assert rules.check_definition(case.bad) == case.problems
    assert rules.check_definition(case.good) == []


def test_awslogs_on_fargate_needs_an_execution_role() -> None:
    options = {"awslogs-group": "/flows", "awslogs-region": "us-east-1"}
    logged = container(logConfiguration={"logDriver": "awslogs", "options": options})
    assert rules.check_definition(on_fargate(logged)) == [
        Problem(
            f"{FIRST}.logConfiguration",
            "the log driver awslogs on Fargate needs an execution role: "
            "executionRoleArn",
        )
    ]
    assert rules.check_definition(on_fargate(logged, executionRoleArn=ROLE)) == []


def test_the_launch_type_counts_besides_the_definition() -> None:
    bridge = a_definition(networkMode="bridge")
    assert rules.check_definition(bridge, "EC2") == []
    assert rules.check_definition(bridge, "FARGATE") == [
        Problem("networkMode", "Fargate needs awsvpc, this is 'bridge'")
    ]


def test_what_an_author_leaves_to_the_agent_is_no_problem() -> None:
    written = {"requiresCompatibilities": ["FARGATE"], "containerDefinitions": [{}]}
    assert rules.check_definition(written, partial=True) == []
    assert rules.check_definition({}, "FARGATE", partial=True) == []
    assert rules.check_run_task({}, {}, partial=True) == []
    assert rules.check_run_task({"launchType": "FARGATE"}, {}, partial=True) == []


# --- RunTask --------------------------------------------------------------------


def a_request(**members: Any) -> Dict[str, Any]:
    return {"taskDefinition": "prefect:1", **members}


def awsvpc(**members: Any) -> Dict[str, Any]:
    return {"awsvpcConfiguration": {"subnets": ["subnet-1"], **members}}


def strategy(*providers: str, **members: int) -> List[Dict[str, Any]]:
    return [{"capacityProvider": name, "weight": 1, **members} for name in providers]


def overridden(**members: Any) -> Dict[str, Any]:
    return a_request(overrides={"containerOverrides": [{"name": "flow", **members}]})


NETWORK = "networkConfiguration.awsvpcConfiguration"
OVERRIDE = "overrides.containerOverrides[0]"

# {"containerOverrides":[{"name":"flow","command":[""]}]} has 55 characters.
LONGEST_COMMAND = rules.MAX_OVERRIDES - 55

REQUESTS = {
    "a definition is given": Case(
        {},
        [Problem("taskDefinition", "family:revision or the ARN of a definition")],
        a_request(),
    ),
    "count": Case(
        a_request(count=11),
        [Problem("count", "11 tasks, and one request starts 1 to 10")],
        a_request(count=10),
    ),
    "a count of none": Case(
        a_request(count=0),
        [Problem("count", "0 tasks, and one request starts 1 to 10")],
        a_request(count=1),
    ),
    "startedBy length": Case(
        a_request(startedBy="s" * 129),
        [
            Problem(
                "startedBy",
                "up to 128 letters, digits, hyphens, slashes and underscores",
            )
        ],
        a_request(startedBy="s" * 128),
    ),
    "startedBy characters": Case(
        a_request(startedBy="me@home"),
        [
            Problem(
                "startedBy",
                "up to 128 letters, digits, hyphens, slashes and underscores",
            )
        ],
        a_request(startedBy="0f6d7e0a-6e5b-4c5e-9a53-3d4f2f2f4d2a"),
    ),
    "clientToken length": Case(
        a_request(clientToken="t" * 65),
        [Problem("clientToken", "up to 64 visible ASCII characters, without spaces")],
        a_request(clientToken="t" * 64),
    ),
    "clientToken characters": Case(
        a_request(clientToken="a b"),
        [Problem("clientToken", "up to 64 visible ASCII characters, without spaces")],
        a_request(clientToken="!~"),
    ),
    "propagateTags": Case(
        a_request(propagateTags="SERVICE"),
        [Problem("propagateTags", "a task has no service, only TASK_DEFINITION")],
        a_request(propagateTags="TASK_DEFINITION"),
    ),
    "group": Case(
        a_request(group="service:x"),
        [Problem("group", "'service:' is kept for ECS's services", certain=False)],
        a_request(group="family:x"),
    ),
    "50 tags": Case(
        a_request(tags=tags(51)),
        [Problem("tags", "51 tags, and ECS takes at most 50")],
        a_request(tags=tags(50)),
    ),
    "each tag key once": Case(
        a_request(tags=[tag("k"), tag("k")]),
        [Problem("tags", "the key 'k' is given 2 times, not once")],
        a_request(tags=[tag("k"), tag("l")]),
    ),
    "tag key": Case(
        a_request(tags=[tag("")]),
        [Problem("tags[0].key", "a tag needs a key of 1 to 128 characters")],
        a_request(tags=[tag("k")]),
    ),
    "tag value": Case(
        a_request(tags=[tag("k", "a\nb")]),
        [
            Problem(
                "tags[0].value",
                "'\\n' may not stand in a tag: letters, digits, spaces, _.:/=+-@",
            )
        ],
        a_request(tags=[tag("k", "a b")]),
    ),
    "launch type or strategy": Case(
        a_request(launchType="FARGATE", capacityProviderStrategy=strategy("FARGATE")),
        [
            Problem(
                "launchType",
                "cannot be given together with capacityProviderStrategy: keep one of "
                "the two",
            )
        ],
        a_request(launchType="FARGATE", capacityProviderStrategy=[]),
    ),
    "20 providers": Case(
        a_request(capacityProviderStrategy=strategy(*(f"p{n}" for n in range(21)))),
        [
            Problem(
                "capacityProviderStrategy", "21 capacity providers, and at most 20 go"
            )
        ],
        a_request(capacityProviderStrategy=strategy(*(f"p{n}" for n in range(20)))),
    ),
    "one kind of provider": Case(
        a_request(capacityProviderStrategy=strategy("FARGATE_SPOT", "mine")),
        [
            Problem(
                "capacityProviderStrategy",
                "Fargate's capacity providers cannot be mixed with others",
            )
        ],
        a_request(capacityProviderStrategy=strategy("FARGATE_SPOT", "FARGATE")),
    ),
    "weights": Case(
        a_request(capacityProviderStrategy=strategy("mine", weight=1001)),
        [
            Problem(
                "capacityProviderStrategy[0].weight",
                "1001, and it goes from 0 to 1000",
            )
        ],
        a_request(capacityProviderStrategy=strategy("mine", weight=1000)),
    ),
    "some weight": Case(
        a_request(capacityProviderStrategy=strategy("a", "b", weight=0)),
        [
            Problem(
                "capacityProviderStrategy",
                "at least one provider needs a weight over 0",
            )
        ],
        a_request(capacityProviderStrategy=strategy("a", weight=0)),
    ),
    "one base": Case(
        a_request(capacityProviderStrategy=strategy("a", "b", base=1)),
        [
            Problem(
                "capacityProviderStrategy", "only one capacity provider can have a base"
            )
        ],
        a_request(
            capacityProviderStrategy=strategy("a", base=1) + strategy("b", base=0)
        ),
    ),
    "subnets": Case(
        a_request(networkConfiguration={"awsvpcConfiguration": {"subnets": []}}),
        [Problem(f"{NETWORK}.subnets", "0 subnets, and it takes 1 to 16")],
        a_request(networkConfiguration=awsvpc()),
    ),
    "16 subnets": Case(
        a_request(networkConfiguration=awsvpc(subnets=["subnet-1"] * 17)),
        [Problem(f"{NETWORK}.subnets", "17 subnets, and it takes 1 to 16")],
        a_request(networkConfiguration=awsvpc(subnets=["subnet-1"] * 16)),
    ),
    "5 security groups": Case(
        a_request(networkConfiguration=awsvpc(securityGroups=["sg-1"] * 6)),
        [Problem(f"{NETWORK}.securityGroups", "6 security groups, and at most 5 go")],
        a_request(networkConfiguration=awsvpc(securityGroups=["sg-1"] * 5)),
    ),
    "public IP on EC2": Case(
        a_request(
            launchType="EC2", networkConfiguration=awsvpc(assignPublicIp="ENABLED")
        ),
        [
            Problem(
                f"{NETWORK}.assignPublicIp",
                "only Fargate gives tasks a public IP: DISABLED, or leave it out",
            )
        ],
        a_request(
            launchType="EC2", networkConfiguration=awsvpc(assignPublicIp="DISABLED")
        ),
    ),
    "public IP elsewhere": Case(
        a_request(
            capacityProviderStrategy=strategy("mine"),
            networkConfiguration=awsvpc(assignPublicIp="ENABLED"),
        ),
        [
            Problem(
                f"{NETWORK}.assignPublicIp",
                "only Fargate gives tasks a public IP: DISABLED, or leave it out",
                certain=False,
            )
        ],
        a_request(
            capacityProviderStrategy=strategy("FARGATE_SPOT"),
            networkConfiguration=awsvpc(assignPublicIp="ENABLED"),
        ),
    ),
    "platform version": Case(
        a_request(launchType="EC2", platformVersion="LATEST"),
        [
            Problem(
                "platformVersion", "only Fargate has platform versions: leave it out"
            )
        ],
        a_request(launchType="FARGATE", platformVersion="1.4.0"),
    ),
    "placement on Fargate": Case(
        a_request(launchType="FARGATE", placementStrategy=[{"type": "random"}]),
        [
            Problem(
                "placementStrategy",
                "Fargate has no container instances to choose from: leave it out",
            )
        ],
        a_request(launchType="EC2", placementStrategy=[{"type": "random"}]),
    ),
    "5 placement strategies": Case(
        a_request(placementStrategy=[{"type": "random"}] * 6),
        [Problem("placementStrategy", "6, and at most 5 go")],
        a_request(placementStrategy=[{"type": "random"}] * 5),
    ),
    "8192 characters": Case(
        overridden(command=["x" * (LONGEST_COMMAND + 1)]),
        [
            Problem(
                "overrides",
                "8193 characters of JSON, and ECS takes at most 8192; shorten them",
            )
        ],
        overridden(command=["é" * LONGEST_COMMAND], memory=None),
    ),
    "8192 characters of variables": Case(
        overridden(
            environment=[
                {"name": name, "value": "x" * size}
                for name, size in (("A", 4000), ("B", 9), ("C", 3998), ("D", 41))
            ]
        ),
        [
            Problem(
                "overrides",
                "8200 characters of JSON, and ECS takes at most 8192; the largest "
                "variables are A (4000), C (3998), D (41): shorten them, or put them "
                "into the task definition",
            )
        ],
        overridden(environment=[{"name": "A", "value": "x" * 8000}]),
    ),
    "an override has a name": Case(
        a_request(overrides={"containerOverrides": [{"cpu": 1}]}),
        [Problem(f"{OVERRIDE}.name", "an override needs its container's name")],
        a_request(overrides={"containerOverrides": [{}]}),
    ),
    "an override a container": Case(
        a_request(
            overrides={"containerOverrides": [{"name": "flow"}, {"name": "flow"}]}
        ),
        [
            Problem(
                "overrides.containerOverrides[1]",
                "container 'flow' has an override already",
                certain=False,
            )
        ],
        a_request(overrides={"containerOverrides": [{"name": "flow"}, {"name": "b"}]}),
    ),
    "a variable has a name": Case(
        overridden(environment=[{"value": "1"}]),
        [
            Problem(
                f"{OVERRIDE}.environment[0].name",
                "an environment variable needs a name",
                certain=False,
            )
        ],
        overridden(environment=[{"name": "A", "value": ""}]),
    ),
    "override sizes": Case(
        a_request(overrides={"cpu": "2 cores"}),
        [
            Problem(
                "overrides.cpu",
                "'2 cores' is no cpu: CPU units such as 1024, or vCPUs such as "
                "'1 vCPU'",
            )
        ],
        a_request(overrides={"cpu": "2 vcpu"}),
    ),
    "override roles": Case(
        a_request(overrides={"taskRoleArn": "arn:aws:iam:role"}),
        [
            Problem(
                "overrides.taskRoleArn",
                "'arn:aws:iam:role' is no role: arn:aws:iam::ACCOUNT:role/NAME",
            )
        ],
        a_request(overrides={"taskRoleArn": ROLE}),
    ),
    "override pair": Case(
        a_request(launchType="FARGATE", overrides={"cpu": "256", "memory": "4096"}),
        [
            Problem(
                "overrides",
                "Fargate has no task with cpu 256 and memory 4096: for cpu 256 memory "
                "is one of 512, 1024, 2048",
            )
        ],
        a_request(launchType="EC2", overrides={"cpu": "256", "memory": "4096"}),
    ),
}


@pytest.mark.parametrize("case", REQUESTS.values(), ids=REQUESTS.keys())
def test_run_task(case: Case) -> None:
    assert rules.check_run_task(case.bad) == case.problems
    assert rules.check_run_task(case.good) == []


class Launch(NamedTuple):
    definition: Dict[str, Any]
    bad: Dict[str, Any]
    problems: List[Problem]
    good: Dict[str, Any]
    good_definition: Optional[Dict[str, Any]] = None


NETWORKED = a_request(networkConfiguration=awsvpc())
ON_FARGATE = {**NETWORKED, "launchType": "FARGATE"}
BRIDGE = a_definition(networkMode="bridge")
SECRETIVE = a_definition(container(secrets=[SECRET]), executionRoleArn=ROLE)

LAUNCHES = {
    "an active definition": Launch(
        a_definition(status="INACTIVE"),
        NETWORKED,
        [Problem("taskDefinition", "is INACTIVE: register it once more")],
        NETWORKED,
        a_definition(status="ACTIVE"),
    ),
    "containers that exist": Launch(
        BRIDGE,
        a_request(overrides={"containerOverrides": [{"name": "sidecar"}]}),
        [
            Problem(
                f"{OVERRIDE}.name",
                "the task definition has no container 'sidecar', only flow",
            )
        ],
        overridden(),
    ),
    "no variable over a secret": Launch(
        SECRETIVE,
        {**overridden(environment=[{"name": "KEY", "value": "1"}]), **NETWORKED},
        [
            Problem(
                f"{OVERRIDE}.environment[0].name",
                "KEY is a secret of the container in the task definition: a variable "
                "cannot replace it",
            )
        ],
        {**overridden(environment=[{"name": "KEY2", "value": "1"}]), **NETWORKED},
    ),
    "a network for awsvpc": Launch(
        a_definition(),
        a_request(networkConfiguration={}),
        [
            Problem(
                "networkConfiguration",
                "the task definition is awsvpc, so the task needs "
                "awsvpcConfiguration with its subnets",
            )
        ],
        NETWORKED,
    ),
    "no network for bridge": Launch(
        BRIDGE,
        NETWORKED,
        [
            Problem(
                "networkConfiguration",
                "only for awsvpc, and the task definition's network mode is bridge",
            )
        ],
        a_request(),
    ),
    "no network by default": Launch(
        without(BRIDGE, "networkMode"),
        NETWORKED,
        [
            Problem(
                "networkConfiguration",
                "only for awsvpc, and the task definition's network mode is bridge",
            )
        ],
        a_request(),
    ),
    "compatibilities": Launch(
        a_definition(compatibilities=["EC2"]),
        ON_FARGATE,
        [
            Problem(
                "launchType", "the task definition does not support FARGATE, only EC2"
            )
        ],
        ON_FARGATE,
        a_definition(compatibilities=["EC2", "FARGATE"]),
    ),
    # A definition that requires FARGATE runs on EC2 all the same.
    "required compatibilities": Launch(
        a_definition(requiresCompatibilities=["EC2"]),
        ON_FARGATE,
        [
            Problem(
                "launchType",
                "the task definition asks for the compatibility EC2, not FARGATE",
                certain=False,
            )
        ],
        {**NETWORKED, "launchType": "EC2"},
        a_definition(requiresCompatibilities=["FARGATE"]),
    ),
    "fit for Fargate": Launch(
        BRIDGE,
        a_request(capacityProviderStrategy=strategy("FARGATE_SPOT")),
        [
            Problem(
                "capacityProviderStrategy",
                "the task definition cannot run on Fargate: networkMode: Fargate "
                "needs awsvpc, this is 'bridge'",
            )
        ],
        a_request(capacityProviderStrategy=strategy("mine")),
    ),
    "fit for EXTERNAL": Launch(
        a_definition(),
        {**NETWORKED, "launchType": "EXTERNAL"},
        [Problem("launchType", "EXTERNAL has no awsvpc: bridge, host or none")],
        a_request(launchType="EXTERNAL"),
        BRIDGE,
    ),
    "the pair that the task gets": Launch(
        a_definition(),
        {**ON_FARGATE, "overrides": {"cpu": "4 vCPU"}},
        [
            Problem(
                "overrides.cpu",
                "Fargate has no task with cpu 4 vCPU and memory 2048: for cpu 4096 "
                "memory is 8192 to 30720 in steps of 1024",
            )
        ],
        {**ON_FARGATE, "overrides": {"memory": "4 GB"}},
    ),
    "a role for ECS Exec": Launch(
        BRIDGE,
        a_request(enableExecuteCommand=True),
        [Problem("enableExecuteCommand", "ECS Exec needs a task role: taskRoleArn")],
        a_request(enableExecuteCommand=True, overrides={"taskRoleArn": ROLE}),
    ),
}


@pytest.mark.parametrize("case", LAUNCHES.values(), ids=LAUNCHES.keys())
def test_run_task_of_a_definition(case: Launch) -> None:
    assert rules.check_run_task(case.bad, case.definition) == case.problems
    neighbour = case.good_definition or case.definition
    assert rules.check_run_task(case.good, neighbour) == []


# --- the tables themselves --------------------------------------------------------


def _asked_of() -> Dict[Any, List[Mapping[str, Any]]]:
    """Every rule with the bad requests of the tables above that it is asked about."""
    definitions = [case.bad for case in ALL_DEFINITIONS.values()]
    options = {"awslogs-group": "/flows", "awslogs-region": "us-east-1"}
    logged = container(logConfiguration={"logDriver": "awslogs", "options": options})
    definitions.append(on_fargate(logged))
    requests = [case.bad for case in REQUESTS.values()]
    launches = [
        {"request": case.bad, "definition": case.definition}
        for case in LAUNCHES.values()
    ]
    tables = (
        (definition.RULES, definitions),
        (fargate.RULES, definitions),
        (run_task.RULES, requests),
        (run_task.LAUNCH_RULES, launches),
    )
    return {(id(table), rule): asked for table, asked in tables for rule in table}


@pytest.mark.parametrize("rule, asked", [(k[1], v) for k, v in _asked_of().items()])
def test_every_rule_has_a_source_and_a_case(rule: Any, asked: List[Any]) -> None:
    assert rule.source.startswith("https://docs.aws.amazon.com/AmazonECS/latest/")
    assert any(list(rule.check(request)) for request in asked)


@pytest.mark.parametrize(
    "cpu, units",
    [
        (1024, 1024),
        ("1024", 1024),
        ("1 vCPU", 1024),
        (".5 vcpu", 512),
        ("0.25vCPU", 256),
        ("2 VCPU", 2048),
        ("1 cpu", None),
        ("", None),
        (None, None),
        (True, None),
        ("-1", None),
        ("0.3", None),
    ],
)
def test_cpu_units(cpu: Any, units: Optional[int]) -> None:
    assert rules.cpu_units(cpu) == units


@pytest.mark.parametrize(
    "memory, mib",
    [
        (2048, 2048),
        ("2048", 2048),
        ("2 GB", 2048),
        ("2GB", 2048),
        ("0.5gb", 512),
        ("2 MB", None),
        ("2G", None),
        (None, None),
    ],
)
def test_memory_mib(memory: Any, mib: Optional[int]) -> None:
    assert rules.memory_mib(memory) == mib


# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html
@pytest.mark.parametrize(
    "cpu, least, most, step, sizes",
    [
        (512, 1024, 4096, 1024, 4),
        (1024, 2048, 8192, 1024, 7),
        (2048, 4096, 16384, 1024, 13),
        (4096, 8192, 30720, 1024, 23),
        (8192, 16384, 61440, 4096, 12),
        (16384, 32768, 122880, 8192, 12),
    ],
)
def test_fargate_sizes(cpu: int, least: int, most: int, step: int, sizes: int) -> None:
    assert len(rules.FARGATE_SIZES[cpu]) == sizes
    assert rules.fits_fargate(cpu, least)
    assert rules.fits_fargate(cpu, f"{most // 1024} GB")
    assert not rules.fits_fargate(cpu, least - step)
    assert not rules.fits_fargate(cpu, least + step // 2)
    assert not rules.fits_fargate(cpu, most + step)


def test_the_smallest_fargate_size() -> None:
    assert rules.FARGATE_SIZES[256] == (512, 1024, 2048)


@pytest.mark.parametrize(
    "request_, placed",
    [
        ({}, None),
        ({"launchType": None, "capacityProviderStrategy": []}, None),
        ({"launchType": "FARGATE"}, True),
        ({"launchType": "EC2"}, False),
        ({"launchType": "EXTERNAL"}, False),
        ({"capacityProviderStrategy": strategy("FARGATE", "FARGATE_SPOT")}, True),
        ({"capacityProviderStrategy": strategy("mine")}, False),
    ],
)
def test_placed_on_fargate(request_: Dict[str, Any], placed: Optional[bool]) -> None:
    assert rules.placed_on_fargate(request_) is placed


@pytest.mark.parametrize(
    "overrides, length",
    [
        (None, 0),
        ({}, 0),
        ({"cpu": "256"}, 13),
        ({"cpu": "256", "memory": None}, 13),
        ({"cpu": "é"}, 11),
    ],
)
def test_overrides_length(overrides: Optional[Dict[str, Any]], length: int) -> None:
    assert rules.overrides_length(overrides) == length


def test_wrong_types_are_left_to_the_shapes() -> None:
    assert rules.check_run_task(a_request(tags=[tag(5)], count="two")) == []  # type: ignore[arg-type]  # a wrong type


def test_a_problem_reads_as_place_and_sentence() -> None:
    assert str(Problem("cpu", "too much")) == "cpu: too much"
    assert str(Problem("", "too much")) == "too much"


MEMBERS = [
    "options",
    "linuxParameters",
    "resourceRequirements",
    "host",
    "ephemeralStorage",
    "compatibilities",
    "executionRoleArn",
    "memoryReservation",
    "assignPublicIp",
    "family",
    "cpu",
    "memory",
    "tags",
    "volumes",
    "networkMode",
    "requiresCompatibilities",
    "name",
    "image",
    "key",
    "containerDefinitions",
    "environment",
    "secrets",
    "portMappings",
    "dependsOn",
    "links",
    "weight",
    "base",
    "logConfiguration",
    "launchType",
    "capacityProviderStrategy",
    "capacityProvider",
    "overrides",
    "containerOverrides",
    "networkConfiguration",
    "awsvpcConfiguration",
    "subnets",
    "count",
    "startedBy",
]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(MEMBERS), inner, max_size=5)
    ),
    max_leaves=12,
)
REQUEST = st.dictionaries(st.sampled_from(MEMBERS), ANYTHING, max_size=8)


@pytest.mark.parametrize("options", [None, 5, "x", ["awslogs-region"]])
def test_awslogs_options_of_a_wrong_type(options: Any) -> None:
    log = {"logDriver": "awslogs", "options": options}
    (problem,) = rules.check_definition(a_definition(container(logConfiguration=log)))
    assert problem.message == "awslogs needs awslogs-group and awslogs-region"


@UNTIMED
@given(REQUEST, REQUEST)
def test_rules_survive_any_types_and_change_nothing(
    definition_: Dict[str, Any], request_: Dict[str, Any]
) -> None:
    before = copy.deepcopy((definition_, request_))
    rules.check_definition(definition_, "FARGATE")
    rules.check_run_task(request_, definition_)
    assert repr((definition_, request_)) == repr(before)
