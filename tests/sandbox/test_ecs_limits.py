"""The sandbox's own tables of what ECS refuses, compared with the agent's rules.

The two are written independently of each other. A request that one of them refuses and
the other does not shows a mistake in one of them, unless it stands in `DIFFERENT`.
"""

from __future__ import annotations

import copy
import re
from typing import Any, Dict, List, Mapping, Tuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefect_ecs_plugin.sandbox.aws import ecs_limits
from prefect_ecs_plugin.sandbox.aws.ecs_limits import Limit
from prefect_ecs_plugin.validation import rules

Request = Dict[str, Any]
#: Where a value goes, and the value; None: the member is left out.
Change = Tuple[str, Any]

ROLE = "arn:aws:iam::123456789012:role/execution"
SECRET = {"name": "KEY", "valueFrom": "arn:aws:ssm:us-east-1:123456789012:parameter/k"}
VARIABLE = {"name": "KEY", "value": "1"}
ECR = "123456789012.dkr.ecr.us-east-1.amazonaws.com/flows:1"
LOGS = {"awslogs-group": "g", "awslogs-region": "r"}


def tags(*keys: str, value: str = "v") -> List[Dict[str, str]]:
    return [{"key": key, "value": value} for key in keys]


def numbered(count: int, **members: Any) -> List[Dict[str, Any]]:
    return [{"name": f"c{number}", "image": "i", **members} for number in range(count)]


DEFINITION: Request = {
    "family": "etl",
    "networkMode": "awsvpc",
    "cpu": "1024",
    "memory": "2048",
    "requiresCompatibilities": ["FARGATE"],
    "executionRoleArn": ROLE,
    "containerDefinitions": [
        {"name": "flow", "image": "i"},
        {"name": "side", "image": "i", "essential": False},
    ],
}
REQUEST: Request = {
    "taskDefinition": "etl",
    "launchType": "FARGATE",
    "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
}

# "flow" is the first container of the definition.
TAGS: List[Change] = [
    ("tags", tags(*map(str, range(51)))),
    ("tags", tags(*map(str, range(50)))),
    ("tags", tags("a", "a")),
    ("tags", tags("")),
    ("tags", tags("aws:a")),
    ("tags", tags("k" * 129)),
    ("tags", tags("a,b")),
    ("tags", tags("a", value="v" * 257)),
    ("tags", tags("a", value="v" * 256)),
    ("tags", tags("a", value="\n")),
    ("tags", [{"value": "v"}, {"value": "v"}]),
]
SIZES: List[Change] = [
    *(("cpu", size) for size in ("256", "1 vCPU", ".5vcpu", "1024.5", "x", "", None)),
    *(("memory", size) for size in ("512", "2 GB", "3gb", "1 GiB", "512.0", "", None)),
]
ROLES: List[Change] = [
    ("executionRoleArn", None),
    ("taskRoleArn", "name"),
    ("taskRoleArn", ROLE),
    ("taskRoleArn", "arn:aws:iam::123456789012:user/me"),
    ("executionRoleArn", "arn:aws:s3:::bucket"),
]
DEFINITION_CHANGES: List[Change] = [
    *TAGS,
    *SIZES,
    *ROLES,
    *(("networkMode", mode) for mode in ("bridge", "host", "none", None)),
    ("requiresCompatibilities", None),
    ("requiresCompatibilities", ["EC2", "FARGATE"]),
    *(("family", family) for family in ("", "a b", "f" * 255, "f" * 256)),
    ("containerDefinitions", []),
    ("containerDefinitions", numbered(10)),
    ("containerDefinitions", numbered(11)),
    ("containerDefinitions", numbered(2, essential=False)),
    ("containerDefinitions", [*numbered(1), *numbered(1)]),
    ("flow.dockerLabels", {"l": "x" * 65536}),
    ("flow.dockerLabels", {"l": "x" * 65000}),
    *(("flow.name", name) for name in (None, "", "a.b", "side")),
    *(("flow.image", image) for image in (None, "", "a b", "a:1", ECR)),
    *(("flow.cpu", cpu) for cpu in (1, 1024, 1025)),
    *(("flow.memory", mib) for mib in (1, 256, 2048, 2049)),
    *(("flow.memoryReservation", mib) for mib in (1, 256, 257)),
    ("flow.essential", False),
    ("flow.secrets", [SECRET]),
    ("flow.secrets", [SECRET, SECRET]),
    ("flow.environment", [VARIABLE]),
    ("flow.environment", [VARIABLE, VARIABLE]),
    ("flow.environment", [{"value": "1"}]),
    ("flow.portMappings", [{"containerPort": 80}]),
    ("flow.portMappings", [{"containerPort": 80, "hostPort": 80}]),
    ("flow.portMappings", [{"containerPort": 80, "hostPort": 81}]),
    ("flow.links", ["side"]),
    ("flow.extraHosts", [{"hostname": "h", "ipAddress": "10.0.0.1"}]),
    ("flow.hostname", "h"),
    ("flow.logConfiguration", {"logDriver": "awslogs", "options": LOGS}),
    ("flow.logConfiguration", {"logDriver": "awslogs", "options": {}}),
    ("flow.logConfiguration", {"logDriver": "json-file"}),
    ("flow.mountPoints", [{"sourceVolume": "v", "containerPath": "/v"}]),
    ("flow.mountPoints", [{"sourceVolume": "", "containerPath": "/v"}]),
    ("volumes", [{"name": "v"}]),
    ("volumes", [{"name": "v", "host": {"sourcePath": "/v"}}]),
    ("volumes", [{"name": "v", "dockerVolumeConfiguration": {"scope": "task"}}]),
    ("flow.dependsOn", [{"containerName": "side", "condition": "SUCCESS"}]),
    ("flow.dependsOn", [{"containerName": "flow", "condition": "COMPLETE"}]),
    ("flow.dependsOn", [{"containerName": "flow", "condition": "START"}]),
    ("flow.dependsOn", [{"containerName": "no", "condition": "START"}]),
    ("flow.dependsOn", [{"containerName": "", "condition": "START"}]),
    ("placementConstraints", [{"type": "memberOf", "expression": "e"}]),
    ("placementConstraints", [{"type": "memberOf", "expression": "e"}] * 11),
    ("flow.privileged", True),
    ("flow.dnsServers", ["10.0.0.2"]),
    ("flow.stopTimeout", 121),
    ("flow.linuxParameters", {"devices": [{"hostPath": "/dev/x"}]}),
    ("flow.linuxParameters", {"initProcessEnabled": True}),
    ("flow.resourceRequirements", [{"type": "GPU", "value": "1"}]),
    ("ipcMode", "task"),
    *(("pidMode", mode) for mode in ("task", "host")),
    *(("ephemeralStorage", {"sizeInGiB": gib}) for gib in (20, 21, 200, 201)),
]

OVERRIDES = "overrides."
FLOW = "overrides.containerOverrides"
AWSVPC = "networkConfiguration.awsvpcConfiguration."
STRATEGY = "capacityProviderStrategy"
SPOT = {"capacityProvider": "FARGATE_SPOT"}
FARGATE = {"capacityProvider": "FARGATE"}
EC2 = {"capacityProvider": "mine"}
RUN_TASK_CHANGES: List[Change] = [
    *TAGS,
    *((OVERRIDES + key, size) for key, size in SIZES if size is not None),
    *((OVERRIDES + key, role) for key, role in ROLES if role is not None),
    *(("launchType", kind) for kind in ("EC2", "EXTERNAL", None)),
    *(("count", count) for count in (0, 1, 10, 11)),
    *(("startedBy", text) for text in ("a/b_c-1", "a b", "s" * 128, "s" * 129)),
    *(("clientToken", text) for text in ("~", "a b", "t" * 64, "t" * 65)),
    *(("propagateTags", kind) for kind in ("SERVICE", "TASK_DEFINITION")),
    (STRATEGY, [FARGATE, {**SPOT, "weight": 1}]),
    (STRATEGY, [FARGATE, SPOT]),
    (STRATEGY, [EC2]),
    (STRATEGY, [EC2] * 21),
    (STRATEGY, [EC2, {**SPOT, "weight": 1}]),
    (STRATEGY, [{**SPOT, "weight": 1001}]),
    (STRATEGY, [{**SPOT, "weight": -1}]),
    (STRATEGY, [{**SPOT, "base": 100_001}]),
    (STRATEGY, [{**SPOT, "base": 1, "weight": 1}, {**FARGATE, "base": 1}]),
    (AWSVPC + "subnets", []),
    (AWSVPC + "subnets", ["s"] * 16),
    (AWSVPC + "subnets", ["s"] * 17),
    (AWSVPC + "securityGroups", ["g"] * 5),
    (AWSVPC + "securityGroups", ["g"] * 6),
    (AWSVPC + "assignPublicIp", "ENABLED"),
    (AWSVPC + "assignPublicIp", "DISABLED"),
    ("networkConfiguration", None),
    ("networkConfiguration", {}),
    ("platformVersion", "1.4.0"),
    ("placementConstraints", [{"type": "distinctInstance"}]),
    ("placementConstraints", [{"type": "distinctInstance"}] * 11),
    ("placementStrategy", [{"type": "random"}]),
    ("placementStrategy", [{"type": "random"}] * 6),
    (FLOW, [{"name": "flow", "command": ["x" * 8192]}]),
    (FLOW, [{"name": "flow", "command": ["x" * 8000]}]),
    (FLOW, [{}]),
    (FLOW, [{"command": ["x"]}]),
    (FLOW, [{"name": "no"}]),
    (FLOW, [{"name": "flow", "environment": [VARIABLE]}]),
    (FLOW, [{"name": "flow", "environment": [{"value": "1"}]}]),
    ("enableExecuteCommand", True),
    ("enableExecuteCommand", False),
]

#: What one of the two refuses and the other does not, and why.
DIFFERENT = [
    # AWS may have larger sizes since; the agent only warns, the sandbox has the table.
    ("No Fargate configuration exists", "32768"),
]


def changed(base: Mapping[str, Any], *changes: Change) -> Request:
    """A request with changes made one after the other."""
    request = copy.deepcopy(dict(base))
    for path, value in changes:
        *parents, key = path.split(".")
        place: Any = request
        for parent in parents:
            if parent == "flow":  # the first container, if there is one
                place = next(iter(place["containerDefinitions"]), {})
            else:
                place = place.setdefault(parent, {})
        if value is None:
            place.pop(key, None)
        else:
            place[key] = copy.deepcopy(value)
    return request


def described(definition: Request) -> Request:
    """The definition as DescribeTaskDefinition shows it."""
    compatible = ecs_limits.compatibilities(definition)
    return {**definition, "compatibilities": compatible}


def is_certain(problems: List[rules.Problem]) -> bool:
    return any(problem.certain for problem in problems)


def several(changes: List[Change]) -> st.SearchStrategy[List[Change]]:
    return st.lists(st.sampled_from(changes), min_size=1, max_size=4)


MANY = settings(
    deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow]
)


def agree(refusal: Any, problems: List[rules.Problem]) -> None:
    assert (refusal is not None) == is_certain(problems), (refusal, problems)


@pytest.mark.parametrize("change", DEFINITION_CHANGES, ids=repr)
def test_a_definition_is_refused_by_both_or_neither(change: Change) -> None:
    for base in (DEFINITION, changed(DEFINITION, ("requiresCompatibilities", None))):
        request = changed(base, change)
        agree(ecs_limits.definition_refusal(request), rules.check_definition(request))


@MANY
@given(several(DEFINITION_CHANGES))
def test_definitions_are_refused_by_both_or_neither(changes: List[Change]) -> None:
    request = changed(DEFINITION, *changes)
    agree(ecs_limits.definition_refusal(request), rules.check_definition(request))


@pytest.mark.parametrize("change", RUN_TASK_CHANGES, ids=repr)
def test_a_launch_is_refused_by_both_or_neither(change: Change) -> None:
    definition = described(DEFINITION)
    for base in (REQUEST, changed(REQUEST, ("launchType", None))):
        request = changed(base, change)
        agree(
            ecs_limits.run_task_refusal(request, definition),
            rules.check_run_task(request, definition),
        )


@MANY
@given(several(RUN_TASK_CHANGES), several(DEFINITION_CHANGES))
def test_launches_are_refused_by_both_or_neither(
    changes: List[Change], of_definition: List[Change]
) -> None:
    definition = changed(DEFINITION, *of_definition)
    if ecs_limits.definition_refusal(definition):
        definition = DEFINITION
    definition, request = described(definition), changed(REQUEST, *changes)
    agree(
        ecs_limits.run_task_refusal(request, definition),
        rules.check_run_task(request, definition),
    )


@pytest.mark.parametrize("text, cpu", DIFFERENT)
def test_a_difference_on_purpose(text: str, cpu: str) -> None:
    request = changed(DEFINITION, ("cpu", cpu), ("memory", "245760"))
    assert text in str(ecs_limits.definition_refusal(request))
    (problem,) = rules.check_definition(request)
    assert not problem.certain


# The tables themselves

FURTHER = [  # what no single change shows
    [("networkMode", "none"), ("flow.portMappings", [{"containerPort": 80}])],
    [("executionRoleArn", None), ("flow.secrets", [SECRET])],
    [("executionRoleArn", None), ("flow.image", ECR)],
    [("flow.secrets", [SECRET]), ("flow.environment", [VARIABLE])],
    [("flow.memory", 256), ("flow.memoryReservation", 257)],
    [("memory", None), ("requiresCompatibilities", None)],
    [("flow.cpu", 2000)],
]
FURTHER_LAUNCHES = [
    [("launchType", None), (STRATEGY, [FARGATE, SPOT])],
    [("launchType", None), (STRATEGY, [EC2] * 21)],
    [("launchType", None), (STRATEGY, [EC2, {**SPOT, "weight": 1}])],
    [("launchType", None), (STRATEGY, [{**SPOT, "weight": 1001}])],
    [("launchType", None), (STRATEGY, [{**SPOT, "base": 100_001}])],
    [
        ("launchType", None),
        (STRATEGY, [{**SPOT, "base": 1, "weight": 1}, {**FARGATE, "base": 1}]),
    ],
    [("launchType", "EC2"), (AWSVPC + "assignPublicIp", "ENABLED")],
    [("launchType", "EC2"), ("platformVersion", "1.4.0")],
    [
        ("launchType", "EC2"),
        ("placementConstraints", [{"type": "distinctInstance"}] * 11),
    ],
    [("launchType", "EC2"), ("placementStrategy", [{"type": "random"}] * 6)],
]


def refusals() -> List[str]:
    definitions = [[change] for change in DEFINITION_CHANGES] + FURTHER
    launches = [[change] for change in RUN_TASK_CHANGES] + FURTHER_LAUNCHES
    bridge = changed(DEFINITION, ("networkMode", "bridge"))
    secret = described(changed(DEFINITION, ("flow.secrets", [SECRET])))
    variable = (FLOW, [{"name": "flow", "environment": [VARIABLE]}])
    found = [
        *(ecs_limits.definition_refusal(changed(DEFINITION, *c)) for c in definitions),
        *(
            ecs_limits.run_task_refusal(changed(REQUEST, *c), described(DEFINITION))
            for c in launches
        ),
        ecs_limits.run_task_refusal(REQUEST, described(bridge)),
        ecs_limits.run_task_refusal(changed(REQUEST, variable), secret),
    ]
    return [refusal for refusal in found if refusal is not None]


LIMITS: List[Limit] = [
    *ecs_limits.DEFINITION_LIMITS,
    *ecs_limits.CONTAINER_LIMITS,
    *ecs_limits.FARGATE_LIMITS,
    *ecs_limits.FARGATE_CONTAINER_LIMITS,
    *ecs_limits.RUN_TASK_LIMITS,
    *ecs_limits.LAUNCH_LIMITS,
]


def test_every_limit_refuses_something_above() -> None:
    met = refusals()
    texts = {limit.text for limit in LIMITS}
    patterns = {text: re.sub(r"\\{\w*\\}", ".*", re.escape(text)) for text in texts}
    unmet = {
        text
        for text, pattern in patterns.items()
        if not any(re.fullmatch(pattern, each) for each in met)
    }
    assert unmet == set()


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.text[:40])
def test_every_limit_has_its_source(limit: Limit) -> None:
    assert limit.source.startswith("https://docs.aws.amazon.com/AmazonECS/latest/")
    assert limit.seen == "" or limit.seen.count("#") == 1
