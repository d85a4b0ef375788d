"""What ECS accepts: each rule with a request it refuses and a neighbour it accepts."""

from __future__ import annotations

import copy
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple

import pytest
from codes import raises_code
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from prefect_ecs_plugin.errors import RunConfigError
from prefect_ecs_plugin.validation import rules
from prefect_ecs_plugin.validation.rules import (
    Part,
    Problem,
    definition,
    fargate,
    run_task,
)

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


class Found(NamedTuple):
    """What a test asserts of a problem."""

    place: str
    code: str
    certain: bool = True


def found(problems: Iterable[Problem]) -> List[Found]:
    return [Found(each.place, each.code, each.certain) for each in problems]


class Case(NamedTuple):
    bad: Dict[str, Any]
    problems: List[Found]
    good: Dict[str, Any]


# `container()` has no memory of its own: the task's is enough.
DEFINITIONS = {
    "a family is given": Case(
        without(a_definition(), "family"),
        [Found("family", "missing-key")],
        a_definition(),
    ),
    "family characters": Case(
        a_definition(family="my flow"),
        [Found("family", "invalid-family")],
        a_definition(family="My-flow_1"),
    ),
    "family length": Case(
        a_definition(family="f" * 256),
        [Found("family", "invalid-family")],
        a_definition(family="f" * 255),
    ),
    "containers are given": Case(
        a_definition(containerDefinitions=[]),
        [Found("containerDefinitions", "missing-key")],
        a_definition(),
    ),
    "10 containers": Case(
        a_definition(*(container(name=f"c{number}") for number in range(11))),
        [Found("containerDefinitions", "too-many-entries")],
        a_definition(*(container(name=f"c{number}") for number in range(10))),
    ),
    "64 KiB": Case(
        a_definition(container(dockerLabels={"l": "x" * 65536})),
        [Found("", "definition-size")],
        a_definition(
            container(dockerLabels={"l": "x" * (65536 - 65707 + 65536)}),
            tags=tags(50),
        ),
    ),
    "50 tags": Case(
        a_definition(tags=tags(51)),
        [Found("tags", "too-many-entries")],
        a_definition(tags=tags(50)),
    ),
    "each tag key once": Case(
        a_definition(tags=[tag("team"), tag("team", "w")]),
        [Found("tags", "duplicate-entry")],
        a_definition(tags=[tag("team"), tag("Team", "w")]),
    ),
    "tag key given": Case(
        a_definition(tags=[{"value": "v"}]),
        [Found("tags[0].key", "missing-key")],
        a_definition(tags=[{"key": "k"}]),
    ),
    "tag key length": Case(
        a_definition(tags=[tag("k" * 129)]),
        [Found("tags[0].key", "tag-length")],
        a_definition(tags=[tag("ké" * 64)]),
    ),
    "tag key characters": Case(
        a_definition(tags=[tag("a,b;c")]),
        [Found("tags[0].key", "tag-characters")],
        a_definition(tags=[tag("prefect:flow-id _./=+-@ 東京")]),
    ),
    "tag key prefix": Case(
        a_definition(tags=[tag("AWS:x")]),
        [Found("tags[0].key", "tag-prefix")],
        a_definition(tags=[tag("my-aws:x")]),
    ),
    "tag value length": Case(
        a_definition(tags=[tag("k", "v" * 257)]),
        [Found("tags[0].value", "tag-length")],
        a_definition(tags=[tag("k", "v" * 256)]),
    ),
    "tag value prefix": Case(
        a_definition(tags=[tag("k", "aws:v")]),
        [Found("tags[0].value", "tag-prefix", certain=False)],
        a_definition(tags=[tag("k", "")]),
    ),
    "a container has a name": Case(
        a_definition(without(container(), "name")),
        [Found(f"{FIRST}.name", "missing-key")],
        a_definition(),
    ),
    "container name": Case(
        a_definition(container(name="a.b")),
        [Found(f"{FIRST}.name", "invalid-container-name")],
        a_definition(container(name="a-b")),
    ),
    "container names once": Case(
        a_definition(container(), container()),
        [Found("containerDefinitions", "duplicate-entry")],
        a_definition(container(), container(name="Flow")),
    ),
    "a container has an image": Case(
        a_definition(without(container(), "image")),
        [Found(f"{FIRST}.image", "missing-key")],
        a_definition(),
    ),
    "image": Case(
        a_definition(container(image="prefect :1")),
        [Found(f"{FIRST}.image", "invalid-image")],
        a_definition(container(image="localhost:5000/p@sha256:" + "0" * 64)),
    ),
    "one essential container": Case(
        a_definition(container(essential=False)),
        [Found("containerDefinitions", "no-essential-container")],
        a_definition(container(essential=False), container(name="other")),
    ),
    "task cpu": Case(
        a_definition(cpu="one"),
        [Found("cpu", "invalid-cpu")],
        a_definition(cpu="1 vCPU"),
    ),
    "task memory": Case(
        a_definition(memory="2 GiB"),
        [Found("memory", "invalid-memory")],
        a_definition(memory="2GB"),
    ),
    "memory somewhere": Case(
        without(a_definition(container(), container(name="b", memory=1)), "memory"),
        [Found(FIRST, "no-memory")],
        without(a_definition(container(memoryReservation=512)), "memory"),
    ),
    "memory over its reservation": Case(
        a_definition(container(memory=128, memoryReservation=256)),
        [Found(f"{FIRST}.memoryReservation", "container-memory")],
        a_definition(container(memory=128, memoryReservation=128)),
    ),
    "memory within the task's": Case(
        a_definition(container(memory=4096), memory="2 GB"),
        [Found(f"{FIRST}.memory", "container-memory")],
        # Several limits may add up to more than the task has: only a single one counts.
        a_definition(container(memory=2048), container(name="b", memory=2048)),
    ),
    "cpu within the task's": Case(
        a_definition(container(cpu=1000), container(name="b", cpu=25)),
        [Found("cpu", "container-cpu")],
        a_definition(
            container(cpu=1000), container(name="b", cpu=24), container(name="c")
        ),
    ),
    "a variable has a name": Case(
        a_definition(container(environment=[{"value": "1"}])),
        [Found(f"{FIRST}.environment[0].name", "missing-key", certain=False)],
        # ECS takes a name twice.
        a_definition(
            container(
                environment=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]
            )
        ),
    ),
    "secret names once": Case(
        a_definition(container(secrets=[SECRET, SECRET]), executionRoleArn=ROLE),
        [Found(f"{FIRST}.secrets", "duplicate-entry")],
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
        [Found(f"{FIRST}.environment[0].name", "secret-and-variable")],
        a_definition(
            container(secrets=[SECRET], environment=[{"name": "KEY2", "value": "1"}]),
            executionRoleArn=ROLE,
        ),
    ),
    "an execution role for secrets": Case(
        a_definition(container(secrets=[SECRET])),
        [Found(f"{FIRST}.secrets", "no-execution-role")],
        a_definition(container(secrets=[SECRET]), executionRoleArn=ROLE),
    ),
    "role ARN": Case(
        a_definition(taskRoleArn="arn:aws:iam::123456789012:user/me"),
        [Found("taskRoleArn", "invalid-role")],
        a_definition(
            taskRoleArn="flows",
            executionRoleArn="arn:aws-us-gov:iam::123456789012:role/path/name",
        ),
    ),
    "role name": Case(
        a_definition(executionRoleArn="my flows"),
        [Found("executionRoleArn", "invalid-role")],
        a_definition(executionRoleArn="team/my-flows"),
    ),
    "host ports with awsvpc": Case(
        a_definition(container(portMappings=[{"containerPort": 80, "hostPort": 8080}])),
        [Found(f"{FIRST}.portMappings[0].hostPort", "host-port")],
        a_definition(
            container(portMappings=[{"containerPort": 80, "hostPort": 8080}]),
            networkMode="bridge",
        ),
    ),
    "ports without a network": Case(
        a_definition(
            container(portMappings=[{"containerPort": 80}]), networkMode="none"
        ),
        [Found("containerDefinitions[0].portMappings", "network-mode-conflict")],
        a_definition(container(portMappings=[{"containerPort": 80, "hostPort": 80}])),
    ),
    "links with awsvpc": Case(
        a_definition(container(links=["b"])),
        [Found(f"{FIRST}.links", "network-mode-conflict")],
        without(a_definition(container(links=["b"])), "networkMode"),
    ),
    "hostname with awsvpc": Case(
        a_definition(container(hostname="h")),
        [Found(f"{FIRST}.hostname", "network-mode-conflict")],
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
        [Found(f"{FIRST}.logConfiguration.options", "awslogs-options")],
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
        [Found(f"{FIRST}.mountPoints[0].sourceVolume", "unknown-volume")],
        a_definition(
            container(mountPoints=[{"sourceVolume": "data"}]),
            volumes=[{"name": "data"}],
        ),
    ),
    "dependencies exist": Case(
        a_definition(
            container(dependsOn=[{"containerName": "db", "condition": "START"}])
        ),
        [Found(f"{FIRST}.dependsOn[0].containerName", "unknown-container")],
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
        [Found(f"{FIRST}.dependsOn[0].condition", "essential-dependency")],
        a_definition(
            container(dependsOn=[{"containerName": "init", "condition": "SUCCESS"}]),
            container(name="init", essential=False),
        ),
    ),
    "10 placement constraints": Case(
        a_definition(placementConstraints=[{"type": "memberOf"}] * 11),
        [Found("placementConstraints", "too-many-entries")],
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
        [Found("networkMode", "fargate-network-mode")],
        on_fargate(),
    ),
    "not the default network mode": Case(
        without(on_fargate(), "networkMode"),
        [Found("networkMode", "fargate-network-mode")],
        without(a_definition(), "networkMode"),
    ),
    "cpu and memory given": Case(
        without(on_fargate(container(memory=512)), "cpu", "memory"),
        [
            Found("cpu", "no-task-size"),
            Found("memory", "no-task-size"),
        ],
        without(a_definition(container(memory=512)), "cpu", "memory"),
    ),
    "a pair that Fargate has": Case(
        on_fargate(cpu="1024", memory="512"),
        [Found("memory", "fargate-size")],
        on_fargate(cpu=".25 vCPU", memory="0.5 GB"),
    ),
    "a cpu that Fargate has": Case(
        on_fargate(cpu="1000", memory="2048"),
        [Found("memory", "fargate-size")],
        a_definition(cpu="1000", memory="2048"),
    ),
    "a cpu alone": Case(
        without(on_fargate(container(memory=512), cpu="1000"), "memory"),
        [Found("memory", "no-task-size"), Found("memory", "fargate-size")],
        on_fargate(cpu="1024"),
    ),
    "a memory alone": Case(
        without(on_fargate(memory="300"), "cpu"),
        [Found("cpu", "no-task-size"), Found("memory", "fargate-size")],
        on_fargate(memory="3072"),
    ),
    "a memory alone that may be new": Case(
        without(on_fargate(memory="245760"), "cpu"),
        [Found("cpu", "no-task-size"), Found("memory", "fargate-size", certain=False)],
        on_fargate(memory="3072"),
    ),
    "a size that may be new": Case(
        on_fargate(cpu="32768", memory="245760"),
        [Found("memory", "fargate-size", certain=False)],
        on_fargate(cpu="16384", memory="122880"),
    ),
    "not privileged": Case(
        on_fargate(container(privileged=True)),
        [Found(f"{FIRST}.privileged", "not-on-fargate")],
        on_fargate(container(privileged=False)),
    ),
    "no DNS servers": Case(
        on_fargate(container(dnsServers=["10.0.0.2"])),
        [Found(f"{FIRST}.dnsServers", "not-on-fargate", certain=False)],
        on_fargate(container(dnsServers=[])),
    ),
    "no devices": Case(
        linux(devices=[{"hostPath": "/dev/x"}]),
        [Found(f"{FIRST}.linuxParameters.devices", "not-on-fargate")],
        linux(initProcessEnabled=True),
    ),
    "no GPU": Case(
        on_fargate(container(resourceRequirements=[{"type": "GPU", "value": "1"}])),
        [Found(f"{FIRST}.resourceRequirements[0]", "not-on-fargate")],
        a_definition(container(resourceRequirements=[{"type": "GPU", "value": "1"}])),
    ),
    "log drivers": Case(
        on_fargate(container(logConfiguration={"logDriver": "json-file"})),
        [Found(f"{FIRST}.logConfiguration.logDriver", "fargate-log-driver")],
        on_fargate(container(logConfiguration={"logDriver": "splunk"})),
    ),
    "an execution role for ECR": Case(
        on_fargate(container(image=ECR)),
        [Found(f"{FIRST}.image", "no-execution-role")],
        on_fargate(container(image=ECR), executionRoleArn=ROLE),
    ),
    "no execution role for public ECR": Case(
        on_fargate(container(image=ECR)),
        [Found(f"{FIRST}.image", "no-execution-role")],
        on_fargate(container(image="public.ecr.aws/docker/library/python:3")),
    ),
    "no host volumes": Case(
        on_fargate(volumes=[{"name": "v", "host": {"sourcePath": "/data"}}]),
        [Found("volumes[0].host.sourcePath", "not-on-fargate")],
        on_fargate(volumes=[{"name": "v", "host": {}}]),
    ),
    "no Docker volumes": Case(
        on_fargate(volumes=[{"name": "v", "dockerVolumeConfiguration": {}}]),
        [Found("volumes[0].dockerVolumeConfiguration", "not-on-fargate")],
        on_fargate(
            volumes=[{"name": "v", "efsVolumeConfiguration": {"fileSystemId": "fs-1"}}]
        ),
    ),
    "no placement": Case(
        on_fargate(placementConstraints=[{"type": "memberOf"}]),
        [Found("placementConstraints", "not-on-fargate")],
        on_fargate(placementConstraints=[]),
    ),
    "namespaces": Case(
        on_fargate(ipcMode="task", pidMode="host"),
        [
            Found("ipcMode", "not-on-fargate"),
            Found("pidMode", "not-on-fargate"),
        ],
        on_fargate(pidMode="task"),
    ),
    "ephemeral storage": Case(
        on_fargate(ephemeralStorage={"sizeInGiB": 20}),
        [Found("ephemeralStorage.sizeInGiB", "out-of-range")],
        on_fargate(ephemeralStorage={"sizeInGiB": 21}),
    ),
    "ephemeral storage at most": Case(
        on_fargate(ephemeralStorage={"sizeInGiB": 201}),
        [Found("ephemeralStorage.sizeInGiB", "out-of-range")],
        on_fargate(ephemeralStorage={"sizeInGiB": 200}),
    ),
    "stop timeout": Case(
        on_fargate(container(stopTimeout=121)),
        [Found(f"{FIRST}.stopTimeout", "out-of-range", certain=False)],
        on_fargate(container(stopTimeout=120)),
    ),
}

ALL_DEFINITIONS = {**DEFINITIONS, **FARGATE_DEFINITIONS}


@pytest.mark.parametrize("case", ALL_DEFINITIONS.values(), ids=ALL_DEFINITIONS.keys())
def test_definition(case: Case) -> None:
    assert found(rules.check_definition(case.bad)) == case.problems
    assert rules.check_definition(case.good) == []


def test_awslogs_on_fargate_needs_an_execution_role() -> None:
    options = {"awslogs-group": "/flows", "awslogs-region": "us-east-1"}
    logged = container(logConfiguration={"logDriver": "awslogs", "options": options})
    assert found(rules.check_definition(on_fargate(logged))) == [
        Found(f"{FIRST}.logConfiguration", "no-execution-role")
    ]
    assert rules.check_definition(on_fargate(logged, executionRoleArn=ROLE)) == []


def test_fargate_rules_apply_by_launch_type_as_well() -> None:
    bridge = a_definition(networkMode="bridge")
    assert rules.check_definition(bridge, "EC2") == []
    assert found(rules.check_definition(bridge, "FARGATE")) == [
        Found("networkMode", "fargate-network-mode")
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
        [Found("taskDefinition", "missing-key")],
        a_request(),
    ),
    "count": Case(
        a_request(count=11),
        [Found("count", "out-of-range")],
        a_request(count=10),
    ),
    "a count of none": Case(
        a_request(count=0),
        [Found("count", "out-of-range")],
        a_request(count=1),
    ),
    "startedBy length": Case(
        a_request(startedBy="s" * 129),
        [Found("startedBy", "invalid-started-by")],
        a_request(startedBy="s" * 128),
    ),
    "startedBy characters": Case(
        a_request(startedBy="me@home"),
        [Found("startedBy", "invalid-started-by")],
        a_request(startedBy="0f6d7e0a-6e5b-4c5e-9a53-3d4f2f2f4d2a"),
    ),
    "clientToken length": Case(
        a_request(clientToken="t" * 65),
        [Found("clientToken", "invalid-client-token")],
        a_request(clientToken="t" * 64),
    ),
    "clientToken characters": Case(
        a_request(clientToken="a b"),
        [Found("clientToken", "invalid-client-token")],
        a_request(clientToken="!~"),
    ),
    "propagateTags": Case(
        a_request(propagateTags="SERVICE"),
        [Found("propagateTags", "propagate-tags")],
        a_request(propagateTags="TASK_DEFINITION"),
    ),
    "group": Case(
        a_request(group="service:x"),
        [Found("group", "reserved-group", certain=False)],
        a_request(group="family:x"),
    ),
    "50 tags": Case(
        a_request(tags=tags(51)),
        [Found("tags", "too-many-entries")],
        a_request(tags=tags(50)),
    ),
    "each tag key once": Case(
        a_request(tags=[tag("k"), tag("k")]),
        [Found("tags", "duplicate-entry")],
        a_request(tags=[tag("k"), tag("l")]),
    ),
    "tag key": Case(
        a_request(tags=[tag("")]),
        [Found("tags[0].key", "missing-key")],
        a_request(tags=[tag("k")]),
    ),
    "tag value": Case(
        a_request(tags=[tag("k", "a\nb")]),
        [Found("tags[0].value", "tag-characters")],
        a_request(tags=[tag("k", "a b")]),
    ),
    "launch type or strategy": Case(
        a_request(launchType="FARGATE", capacityProviderStrategy=strategy("FARGATE")),
        [Found("launchType", "launch-type-and-strategy")],
        a_request(launchType="FARGATE", capacityProviderStrategy=[]),
    ),
    "20 providers": Case(
        a_request(capacityProviderStrategy=strategy(*(f"p{n}" for n in range(21)))),
        [Found("capacityProviderStrategy", "too-many-entries")],
        a_request(capacityProviderStrategy=strategy(*(f"p{n}" for n in range(20)))),
    ),
    "one kind of provider": Case(
        a_request(capacityProviderStrategy=strategy("FARGATE_SPOT", "mine")),
        [Found("capacityProviderStrategy", "mixed-providers")],
        a_request(capacityProviderStrategy=strategy("FARGATE_SPOT", "FARGATE")),
    ),
    "weights": Case(
        a_request(capacityProviderStrategy=strategy("mine", weight=1001)),
        [Found("capacityProviderStrategy[0].weight", "out-of-range")],
        a_request(capacityProviderStrategy=strategy("mine", weight=1000)),
    ),
    "some weight": Case(
        a_request(capacityProviderStrategy=strategy("a", "b", weight=0)),
        [Found("capacityProviderStrategy", "no-weight")],
        a_request(capacityProviderStrategy=strategy("a", weight=0)),
    ),
    "one base": Case(
        a_request(capacityProviderStrategy=strategy("a", "b", base=1)),
        [Found("capacityProviderStrategy", "several-bases")],
        a_request(
            capacityProviderStrategy=strategy("a", base=1) + strategy("b", base=0)
        ),
    ),
    "subnets": Case(
        a_request(networkConfiguration={"awsvpcConfiguration": {"subnets": []}}),
        [Found(f"{NETWORK}.subnets", "missing-key")],
        a_request(networkConfiguration=awsvpc()),
    ),
    "16 subnets": Case(
        a_request(networkConfiguration=awsvpc(subnets=["subnet-1"] * 17)),
        [Found(f"{NETWORK}.subnets", "too-many-entries")],
        a_request(networkConfiguration=awsvpc(subnets=["subnet-1"] * 16)),
    ),
    "5 security groups": Case(
        a_request(networkConfiguration=awsvpc(securityGroups=["sg-1"] * 6)),
        [Found(f"{NETWORK}.securityGroups", "too-many-entries")],
        a_request(networkConfiguration=awsvpc(securityGroups=["sg-1"] * 5)),
    ),
    "public IP on EC2": Case(
        a_request(
            launchType="EC2", networkConfiguration=awsvpc(assignPublicIp="ENABLED")
        ),
        [Found(f"{NETWORK}.assignPublicIp", "only-on-fargate")],
        a_request(
            launchType="EC2", networkConfiguration=awsvpc(assignPublicIp="DISABLED")
        ),
    ),
    "public IP elsewhere": Case(
        a_request(
            capacityProviderStrategy=strategy("mine"),
            networkConfiguration=awsvpc(assignPublicIp="ENABLED"),
        ),
        [Found(f"{NETWORK}.assignPublicIp", "only-on-fargate", certain=False)],
        a_request(
            capacityProviderStrategy=strategy("FARGATE_SPOT"),
            networkConfiguration=awsvpc(assignPublicIp="ENABLED"),
        ),
    ),
    "platform version": Case(
        a_request(launchType="EC2", platformVersion="LATEST"),
        [Found("platformVersion", "only-on-fargate")],
        a_request(launchType="FARGATE", platformVersion="1.4.0"),
    ),
    "placement on Fargate": Case(
        a_request(launchType="FARGATE", placementStrategy=[{"type": "random"}]),
        [Found("placementStrategy", "not-on-fargate")],
        a_request(launchType="EC2", placementStrategy=[{"type": "random"}]),
    ),
    "10 placement constraints": Case(
        a_request(placementConstraints=[{"type": "memberOf"}] * 11),
        [Found("placementConstraints", "too-many-entries")],
        a_request(placementConstraints=[{"type": "memberOf"}] * 10),
    ),
    "5 placement strategies": Case(
        a_request(placementStrategy=[{"type": "random"}] * 6),
        [Found("placementStrategy", "too-many-entries")],
        a_request(placementStrategy=[{"type": "random"}] * 5),
    ),
    "8192 characters": Case(
        overridden(command=["x" * (LONGEST_COMMAND + 1)]),
        [Found("overrides", "overrides-size")],
        overridden(command=["é" * LONGEST_COMMAND], memory=None),
    ),
    "8192 characters of variables": Case(
        overridden(
            environment=[
                {"name": name, "value": "x" * size}
                for name, size in (("A", 4000), ("B", 9), ("C", 3998), ("D", 41))
            ]
        ),
        [Found("overrides", "overrides-size")],
        overridden(environment=[{"name": "A", "value": "x" * 8000}]),
    ),
    "an override has a name": Case(
        a_request(overrides={"containerOverrides": [{"cpu": 1}]}),
        [Found(f"{OVERRIDE}.name", "missing-key")],
        a_request(overrides={"containerOverrides": [{}]}),
    ),
    "an override a container": Case(
        a_request(
            overrides={"containerOverrides": [{"name": "flow"}, {"name": "flow"}]}
        ),
        [Found("overrides.containerOverrides", "duplicate-entry", certain=False)],
        a_request(overrides={"containerOverrides": [{"name": "flow"}, {"name": "b"}]}),
    ),
    "a variable has a name": Case(
        overridden(environment=[{"value": "1"}]),
        [Found(f"{OVERRIDE}.environment[0].name", "missing-key", certain=False)],
        overridden(environment=[{"name": "A", "value": ""}]),
    ),
    "override sizes": Case(
        a_request(overrides={"cpu": "2 cores"}),
        [Found("overrides.cpu", "invalid-cpu")],
        a_request(overrides={"cpu": "2 vcpu"}),
    ),
    "override roles": Case(
        a_request(overrides={"taskRoleArn": "arn:aws:iam:role"}),
        [Found("overrides.taskRoleArn", "invalid-role")],
        a_request(overrides={"taskRoleArn": ROLE}),
    ),
    "override roles by name": Case(
        a_request(overrides={"executionRoleArn": "flows"}),
        [Found("overrides.executionRoleArn", "invalid-role", certain=False)],
        a_request(overrides={"executionRoleArn": ""}),
    ),
    "override pair": Case(
        a_request(launchType="FARGATE", overrides={"cpu": "256", "memory": "4096"}),
        [Found("overrides", "fargate-size")],
        a_request(launchType="EC2", overrides={"cpu": "256", "memory": "4096"}),
    ),
}


@pytest.mark.parametrize("case", REQUESTS.values(), ids=REQUESTS.keys())
def test_run_task(case: Case) -> None:
    assert found(rules.check_run_task(case.bad)) == case.problems
    assert rules.check_run_task(case.good) == []


class Launch(NamedTuple):
    definition: Dict[str, Any]
    bad: Dict[str, Any]
    problems: List[Found]
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
        [Found("taskDefinition", "inactive-definition")],
        NETWORKED,
        a_definition(status="ACTIVE"),
    ),
    "containers that exist": Launch(
        BRIDGE,
        a_request(overrides={"containerOverrides": [{"name": "sidecar"}]}),
        [Found(f"{OVERRIDE}.name", "unknown-container")],
        overridden(),
    ),
    "no variable over a secret": Launch(
        SECRETIVE,
        {**overridden(environment=[{"name": "KEY", "value": "1"}]), **NETWORKED},
        [Found(f"{OVERRIDE}.environment[0].name", "secret-and-variable")],
        {**overridden(environment=[{"name": "KEY2", "value": "1"}]), **NETWORKED},
    ),
    "a network for awsvpc": Launch(
        a_definition(),
        a_request(networkConfiguration={}),
        [Found("networkConfiguration", "no-network")],
        NETWORKED,
    ),
    "no network for bridge": Launch(
        BRIDGE,
        NETWORKED,
        [Found("networkConfiguration", "network-mode-conflict")],
        a_request(),
    ),
    "no network by default": Launch(
        without(BRIDGE, "networkMode"),
        NETWORKED,
        [Found("networkConfiguration", "network-mode-conflict")],
        a_request(),
    ),
    "compatibilities": Launch(
        a_definition(compatibilities=["EC2"]),
        ON_FARGATE,
        [Found("launchType", "incompatible-launch-type")],
        ON_FARGATE,
        a_definition(compatibilities=["EC2", "FARGATE"]),
    ),
    # A definition that requires FARGATE runs on EC2 all the same.
    "required compatibilities": Launch(
        a_definition(requiresCompatibilities=["EC2"]),
        ON_FARGATE,
        [Found("launchType", "incompatible-launch-type", certain=False)],
        {**NETWORKED, "launchType": "EC2"},
        a_definition(requiresCompatibilities=["FARGATE"]),
    ),
    "fit for Fargate": Launch(
        BRIDGE,
        a_request(capacityProviderStrategy=strategy("FARGATE_SPOT")),
        [Found("capacityProviderStrategy", "fargate-network-mode")],
        a_request(capacityProviderStrategy=strategy("mine")),
    ),
    "fit for EXTERNAL": Launch(
        a_definition(),
        {**NETWORKED, "launchType": "EXTERNAL"},
        [Found("launchType", "incompatible-launch-type")],
        a_request(launchType="EXTERNAL"),
        BRIDGE,
    ),
    "the pair that the task gets": Launch(
        a_definition(),
        {**ON_FARGATE, "overrides": {"cpu": "4 vCPU"}},
        [Found("overrides.cpu", "fargate-size")],
        {**ON_FARGATE, "overrides": {"memory": "4 GB"}},
    ),
    "a role for ECS Exec": Launch(
        BRIDGE,
        a_request(enableExecuteCommand=True),
        [Found("enableExecuteCommand", "no-task-role")],
        a_request(enableExecuteCommand=True, overrides={"taskRoleArn": ROLE}),
    ),
}


@pytest.mark.parametrize("case", LAUNCHES.values(), ids=LAUNCHES.keys())
def test_run_task_of_a_definition(case: Launch) -> None:
    assert found(rules.check_run_task(case.bad, case.definition)) == case.problems
    neighbour = case.good_definition or case.definition
    assert rules.check_run_task(case.good, neighbour) == []


# --- the tables themselves --------------------------------------------------------


def _asked_of() -> Dict[Any, List[Any]]:
    """Every rule with the bad requests of the tables above that it is asked about."""
    options = {"awslogs-group": "/flows", "awslogs-region": "us-east-1"}
    logged = container(logConfiguration={"logDriver": "awslogs", "options": options})
    definitions = [case.bad for case in ALL_DEFINITIONS.values()]
    bad = [Part("", each) for each in (*definitions, on_fargate(logged))]
    requests = [Part("", case.bad) for case in REQUESTS.values()]
    launches = [
        run_task.LaunchRequest(Part("", case.bad), Part("", case.definition))
        for case in LAUNCHES.values()
    ]
    tables = (
        (definition.RULES, bad),
        (fargate.RULES, bad),
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


def test_wrong_types_are_left_to_coercion() -> None:
    assert rules.check_run_task(a_request(tags=[tag(5)], count="two")) == []  # type: ignore[arg-type]  # a wrong type


def test_a_problem_reads_as_place_sentence_and_code() -> None:
    problem = Problem("cpu", "too much", code="container-cpu")
    assert str(problem) == "cpu: too much [container-cpu]"
    assert str(problem.within("task")) == "task.cpu: too much [container-cpu]"
    assert str(problem.because_of("here", "so")) == (
        "here: so: cpu: too much [container-cpu]"
    )
    whole = Problem("", "too much", code="container-cpu")
    assert str(whole) == "too much [container-cpu]"
    assert whole.within("task").place == "task"


def test_what_ecs_is_certain_to_refuse_is_raised_with_all_codes() -> None:
    unsure = Problem("cpu", "is odd", code="invalid-cpu", certain=False)
    problems = [
        unsure,
        Problem("memory", "is wrong", code="invalid-memory"),
        Problem("", "So is all of it.", code="definition-size"),
    ]
    assert rules.raise_certain([unsure], RunConfigError) == [unsure]
    with raises_code("definition-size", RunConfigError) as error:
        rules.raise_certain(problems, RunConfigError, "ECSRun: ")
    assert str(error.value) == (
        "ECSRun: memory: is wrong [invalid-memory]; So is all of it. [definition-size]"
    )


def test_many_problems_are_one_line_that_counts_the_others() -> None:
    problems = [
        Problem(f"tags[{number}].key", "x" * 100, code="tag-prefix")
        for number in range(10_000)
    ]
    with raises_code("tag-prefix", RunConfigError) as error:
        rules.raise_certain(problems, RunConfigError)
    assert "; and 9997 more" in str(error.value)
    assert len(error.value.message) <= 500


@pytest.mark.parametrize(
    "request_, values",
    [
        (overridden(command=["x" * (LONGEST_COMMAND + 1)]), ["8193", "8192"]),
        (
            overridden(
                environment=[
                    {"name": name, "value": "x" * size}
                    for name, size in (("A", 4000), ("B", 9), ("C", 3998), ("D", 41))
                ]
            ),
            ["8200", "8192", "A (4000), C (3998), D (41)"],
        ),
        (a_request(count=11), ["11", "1-10"]),
        (a_request(tags=[tag("a,b;c")]), ["',' ';'"]),
        (
            a_request(launchType="FARGATE", overrides={"cpu": "256", "memory": "4096"}),
            ["256", "4096", "512, 1024, 2048"],
        ),
        (
            a_request(launchType="FARGATE", overrides={"cpu": 4096, "memory": 512}),
            ["8192 to 30720 in steps of 1024"],
        ),
    ],
)
def test_a_message_has_the_values_that_matter(
    request_: Dict[str, Any], values: List[str]
) -> None:
    (problem,) = rules.check_run_task(request_)
    assert all(value in problem.message for value in values), problem


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
    assert problem.code == "awslogs-options"
    assert "awslogs-group and awslogs-region" in problem.message


@UNTIMED
@given(REQUEST, REQUEST)
def test_rules_survive_any_types_and_change_nothing(
    definition_: Dict[str, Any], request_: Dict[str, Any]
) -> None:
    before = copy.deepcopy((definition_, request_))
    rules.check_definition(definition_, "FARGATE")
    rules.check_run_task(request_, definition_)
    assert repr((definition_, request_)) == repr(before)


# -- More memory ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "cpu, memory, most, size",
    [
        ("256", "512", 8192, (256, 1024)),
        ("256", "1024", 8192, (256, 2048)),
        ("256", "2048", 8192, (512, 4096)),
        (".25 vCPU", "2 GB", 8192, (512, 4096)),
        ("1024", "3072", 8192, (1024, 6144)),
        ("1024", "8192", 122880, (2048, 16384)),
        ("4096", "30720", 122880, (8192, 61440)),
        # The largest size up to the cap.
        ("1024", "3072", 6000, (1024, 5120)),
        ("256", "2048", 3072, (512, 3072)),
        ("256", "512", 1024, (256, 1024)),
        # None is larger.
        ("256", "512", 1023, None),
        ("256", "512", 512, None),
        ("16384", "122880", 200000, None),
        (None, "512", 8192, None),
        ("256", None, 8192, None),
    ],
)
def test_sizes_with_more_memory(
    cpu: Any, memory: Any, most: int, size: Optional[Tuple[int, int]]
) -> None:
    assert rules.more_memory(cpu, memory, most) == size


FARGATE_PAIRS = [
    (cpu, memory) for cpu, sizes in rules.FARGATE_SIZES.items() for memory in sizes
]


@given(st.sampled_from(FARGATE_PAIRS), st.integers(1, 130_000))
@example((16384, 57344), 61440)  # only a size with less cpu has as much
def test_a_size_with_more_memory_fits_fargate_and_the_cap(
    pair: Tuple[int, int], most: int
) -> None:
    larger = rules.more_memory(*pair, most)
    sizes = [memory for cpu, memory in FARGATE_PAIRS if cpu >= pair[0]]
    if larger is None:
        assert not any(pair[1] < memory <= most for memory in sizes)
        return
    assert rules.fits_fargate(*larger)
    assert pair[0] <= larger[0]
    assert pair[1] < larger[1] <= most
    doubles = [memory for memory in sizes if 2 * pair[1] <= memory <= most]
    assert larger[1] >= 2 * pair[1] or not doubles
