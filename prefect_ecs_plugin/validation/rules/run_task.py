"""What ECS refuses in a RunTask request."""

from __future__ import annotations

import re
from functools import partial as with_arguments
from typing import Any, Iterator, List, Mapping, NamedTuple, Optional

from ..excerpt import quoted, shortened
from . import fargate, tags
from .definition import (
    MAX_PLACEMENT_CONSTRAINTS,
    roles,
    task_size,
    unnamed_variables,
)
from .request import (
    Part,
    Problem,
    Rule,
    apply,
    at_most,
    compact_json,
    each_once,
    in_range,
    required,
)

MAX_OVERRIDES = 8192
_MAX_COUNT = 10
_MAX_STARTED_BY = 128
_MAX_CLIENT_TOKEN = 64
_MAX_SUBNETS = 16
_MAX_SECURITY_GROUPS = 5
_MAX_PROVIDERS = 20
_MAX_WEIGHT = 1000
_MAX_BASE = 100000
_MAX_PLACEMENT_STRATEGIES = 5
_FARGATE_PROVIDERS = frozenset(("FARGATE", "FARGATE_SPOT"))

#: How many variables are named where they are too large.
_LARGEST = 3

_API = "https://docs.aws.amazon.com/AmazonECS/latest/APIReference/"
_RUN_TASK = _API + "API_RunTask.html"
_MEMBER = _RUN_TASK + "#ECS-RunTask-request-"
_OVERRIDE = _API + "API_ContainerOverride.html"

_STARTED_BY = re.compile(r"[A-Za-z0-9_/-]*\Z")
_CLIENT_TOKEN = re.compile(r"[!-~]*\Z")


def check_run_task(
    request: Mapping[str, Any],
    definition: Optional[Mapping[str, Any]] = None,
    *,
    partial: bool = False,
) -> List[Problem]:
    """What ECS refuses in a RunTask request.

    Args:
        request: The request, or a part of it.
        definition: The task definition that it runs, as it was registered or as
            ECS describes it; None where it is not known.
        partial: More will be added before it is sent (an author's `run_task_kwargs`),
            so what is missing is no problem yet.
    """
    part = Part("", request)
    problems = apply(RULES, part, partial=partial)
    if definition is not None:
        launch = LaunchRequest(part, Part("", definition))
        problems += apply(LAUNCH_RULES, launch, partial=partial)
    return problems


#: Keys of run_task kwargs that the agent sets by itself.
_RESERVED = {
    "taskDefinition": "name the definition with task_definition_arn of the ECSRun",
    "clientToken": "the agent makes one per flow run, so that no task starts twice",
}


def check_one_task(kwargs: Mapping[str, Any]) -> List[Problem]:
    """What run_task kwargs of an agent or a run cannot say: one run is one task."""
    problems = [
        Problem(key, f"cannot be given: {instead}", code="reserved-key")
        for key, instead in _RESERVED.items()
        if kwargs.get(key) is not None
    ]
    if kwargs.get("count") not in (None, 1, "1"):
        problems.append(
            Problem("count", "must be 1: a flow run is one task", code="one-task")
        )
    return problems


def placed_on_fargate(request: Mapping[str, Any]) -> Optional[bool]:
    """Whether a RunTask request asks for Fargate.

    Returns:
        True for the launch type FARGATE and for a strategy of nothing but FARGATE
        and FARGATE_SPOT, False for any other, None where the request leaves the
        choice to the cluster.
    """
    part = Part("", request)
    launch_type = part.text("launchType")
    if launch_type is not None:
        return launch_type == "FARGATE"
    providers = set(part.texts("capacityProviderStrategy", "capacityProvider"))
    return providers <= _FARGATE_PROVIDERS if providers else None


def overrides_length(overrides: Optional[Mapping[str, Any]]) -> int:
    """Characters of a request's `overrides`, as ECS counts them: JSON included."""
    return len(compact_json(overrides)) if overrides else 0


# --- rules about the request alone ---------------------------------------------


def _has_definition(request: Part) -> Iterator[Problem]:
    yield from required(request, "taskDefinition")


def _started_by(request: Part) -> Iterator[Problem]:
    started_by = request.text("startedBy") or ""
    if len(started_by) > _MAX_STARTED_BY or not _STARTED_BY.match(started_by):
        yield request.problem(
            "startedBy",
            f"invalid startedBy {quoted(started_by)}: use up to {_MAX_STARTED_BY} "
            "letters, digits, hyphens, slashes and underscores",
            code="invalid-started-by",
        )


def _client_token(request: Part) -> Iterator[Problem]:
    token = request.text("clientToken") or ""
    if len(token) > _MAX_CLIENT_TOKEN or not _CLIENT_TOKEN.match(token):
        yield request.problem(
            "clientToken",
            f"invalid clientToken {quoted(token)}: use up to {_MAX_CLIENT_TOKEN} "
            "visible ASCII characters, without spaces",
            code="invalid-client-token",
        )


def _propagate_tags(request: Part) -> Iterator[Problem]:
    if request.get("propagateTags") == "SERVICE":
        yield request.problem(
            "propagateTags",
            "the task belongs to no service: use TASK_DEFINITION",
            code="propagate-tags",
        )


def _group(request: Part) -> Iterator[Problem]:
    if (request.text("group") or "").startswith("service:"):
        yield request.problem(
            "group",
            "names that start with 'service:' are reserved for ECS services",
            code="reserved-group",
            certain=False,
        )


def _strategy(request: Part) -> Iterator[Problem]:
    key = "capacityProviderStrategy"
    strategy = request.parts(key)
    if request.text("launchType") and request.items(key):
        yield request.problem(
            "launchType",
            f"cannot be given together with {key}: keep one of the two",
            code="launch-type-and-strategy",
        )
    providers = set(request.texts(key, "capacityProvider"))
    if providers & _FARGATE_PROVIDERS and providers - _FARGATE_PROVIDERS:
        yield request.problem(
            key,
            "FARGATE and FARGATE_SPOT cannot be mixed with other capacity providers",
            code="mixed-providers",
        )
    for item in strategy:
        yield from in_range(item, "weight", 0, _MAX_WEIGHT)
        yield from in_range(item, "base", 0, _MAX_BASE)
    if len(strategy) > 1 and not any(item.number("weight") for item in strategy):
        yield request.problem(
            key,
            "at least one capacity provider needs a weight over 0",
            code="no-weight",
        )
    if sum(bool(item.number("base")) for item in strategy) > 1:
        yield request.problem(
            key, "only one capacity provider can have a base", code="several-bases"
        )


def _limits(request: Part) -> Iterator[Problem]:
    yield from in_range(request, "count", 1, _MAX_COUNT)
    yield from at_most(request, "capacityProviderStrategy", _MAX_PROVIDERS)
    yield from at_most(request, "placementConstraints", MAX_PLACEMENT_CONSTRAINTS)
    yield from at_most(request, "placementStrategy", _MAX_PLACEMENT_STRATEGIES)
    network = request.part("networkConfiguration").part("awsvpcConfiguration")
    yield from at_most(network, "subnets", _MAX_SUBNETS)
    yield from at_most(network, "securityGroups", _MAX_SECURITY_GROUPS)


def _has_subnets(request: Part) -> Iterator[Problem]:
    network = request.part("networkConfiguration")
    if network.get("awsvpcConfiguration") is not None:
        yield from required(network.part("awsvpcConfiguration"), "subnets")


def _only_on_fargate(request: Part) -> Iterator[Problem]:
    # "Assign public IP is not supported for this launch type." and "The platform
    # version must be null when specifying an EC2 launch type." Seen for EC2 and for
    # the provider of an Auto Scaling group; other providers may come to have it.
    if placed_on_fargate(request.value) is not False:
        return
    is_ec2 = request.text("launchType") == "EC2"
    network = request.part("networkConfiguration").part("awsvpcConfiguration")
    if network.get("assignPublicIp") == "ENABLED":
        yield network.problem(
            "assignPublicIp",
            "only Fargate gives tasks a public IP: use DISABLED, or leave it out",
            code="only-on-fargate",
            certain=is_ec2,
        )
    if request.get("platformVersion"):
        yield request.problem(
            "platformVersion",
            "only Fargate has platform versions: leave it out",
            code="only-on-fargate",
            certain=is_ec2,
        )


def _placement(request: Part) -> Iterator[Problem]:
    # "Placement constraints are not supported with FARGATE launch type."
    if placed_on_fargate(request.value):
        certain = request.text("launchType") == "FARGATE"
        for key in ("placementConstraints", "placementStrategy"):
            yield from fargate.not_on_fargate(request, key, certain)


def _overrides_short_enough(request: Part) -> Iterator[Problem]:
    length = overrides_length(request.part("overrides").value)
    if length <= MAX_OVERRIDES:
        return
    # The largest variables: users can do without these most easily.
    sizes = {
        (variable.text("name") or "?"): len(variable.text("value") or "")
        for override in _container_overrides(request)
        for variable in override.parts("environment")
    }
    largest = sorted(sizes, key=lambda name: -sizes[name])[:_LARGEST]
    named = ", ".join(f"{name} ({sizes[name]})" for name in largest)
    hint = f"the largest variables are {named}: " if largest else ""
    yield request.problem(
        "overrides",
        f"{length} characters of JSON; ECS accepts at most {MAX_OVERRIDES}; {hint}"
        "shorten them, or move variables into the task definition",
        code="overrides-size",
    )


def _overrides_have_names(request: Part) -> Iterator[Problem]:
    for override in _container_overrides(request):
        if override.value:
            yield from required(override, "name")


def _overrides(request: Part) -> Iterator[Problem]:
    overrides = request.part("overrides")
    yield from each_once(overrides, "containerOverrides", certain=False)
    yield from unnamed_variables(overrides.parts("containerOverrides"))
    yield from task_size(overrides)
    yield from roles(overrides, takes_names=False)
    cpu, memory = overrides.get("cpu"), overrides.get("memory")
    # One without the other goes with the definition's, see `_effective_size`.
    if placed_on_fargate(request.value) and cpu and memory:
        yield from fargate.size(cpu, memory, "overrides")


def _container_overrides(request: Part) -> List[Part]:
    return request.part("overrides").parts("containerOverrides")


RULES = (
    Rule(_has_definition, _RUN_TASK, whole=True),
    Rule(_limits, _RUN_TASK),
    Rule(_started_by, _MEMBER + "startedBy"),
    Rule(_client_token, _MEMBER + "clientToken"),
    Rule(_propagate_tags, _MEMBER + "propagateTags"),
    Rule(_group, _MEMBER + "group"),
    *tags.RULES,
    Rule(_strategy, _API + "API_CapacityProviderStrategyItem.html"),
    Rule(_has_subnets, _API + "API_AwsVpcConfiguration.html", whole=True),
    Rule(_only_on_fargate, _MEMBER + "platformVersion"),
    Rule(_placement, fargate.GUIDE),
    Rule(_overrides_short_enough, _MEMBER + "overrides"),
    Rule(_overrides_have_names, _OVERRIDE, whole=True),
    Rule(_overrides, _API + "API_TaskOverride.html"),
)


# --- rules about the request and the definition it runs ------------------------


class LaunchRequest(NamedTuple):
    """A RunTask request and the task definition that it runs."""

    request: Part
    definition: Part

    @property
    def chosen_by(self) -> str:
        """The member that says where the task runs."""
        by_type = self.request.text("launchType") is not None
        return "launchType" if by_type else "capacityProviderStrategy"


def _active(launch: LaunchRequest) -> Iterator[Problem]:
    # "TaskDefinition is inactive"
    status = launch.definition.text("status")
    if status in ("INACTIVE", "DELETE_IN_PROGRESS"):
        yield launch.request.problem(
            "taskDefinition",
            f"the task definition is {status}: register it again",
            code="inactive-definition",
        )


def _known_containers(launch: LaunchRequest) -> Iterator[Problem]:
    # "Override for container named ... is not a container in the TaskDefinition."
    known = launch.definition.texts("containerDefinitions")
    for override in _container_overrides(launch.request):
        name = override.text("name")
        if name is not None and name not in known:
            yield override.problem(
                "name",
                f"the task definition has no container {quoted(name)}, only "
                f"{shortened(', '.join(known)) or 'none'}",
                code="unknown-container",
            )


def _secrets(launch: LaunchRequest) -> Iterator[Problem]:
    # "The secret name must be unique and not shared with any new or existing
    # environment variables set on the container"
    secrets = {
        container.text("name"): container.texts("secrets")
        for container in launch.definition.parts("containerDefinitions")
    }
    for override in _container_overrides(launch.request):
        for variable in override.parts("environment"):
            name = variable.text("name")
            if name in secrets.get(override.text("name"), []):
                yield variable.problem(
                    "name",
                    f"{name} is a secret of the container in the task definition: a "
                    "variable cannot replace it",
                    code="secret-and-variable",
                )


def _has_network(launch: LaunchRequest) -> Iterator[Problem]:
    # "Network Configuration must be provided when networkMode 'awsvpc' is specified."
    network = launch.request.part("networkConfiguration")
    is_awsvpc = launch.definition.text("networkMode") == "awsvpc"
    if is_awsvpc and not network.get("awsvpcConfiguration"):
        yield network.problem(
            "",
            "network mode awsvpc of the task definition needs an awsvpcConfiguration "
            "with subnets",
            code="no-network",
        )


def _takes_no_network(
    launch: LaunchRequest, default: Optional[str] = None
) -> Iterator[Problem]:
    # "Network Configuration is not valid for the given networkMode of this task
    # definition."
    mode = launch.definition.text("networkMode") or default
    if mode not in (None, "awsvpc") and launch.request.get("networkConfiguration"):
        yield launch.request.problem(
            "networkConfiguration",
            f"cannot be used with the task definition's network mode {mode}, only with "
            "awsvpc",
            code="network-mode-conflict",
        )


def _compatible(launch: LaunchRequest) -> Iterator[Problem]:
    # "Task definition does not support launch_type FARGATE." ECS works out
    # `compatibilities` itself; a definition that requires FARGATE runs on EC2 too.
    launch_type = launch.request.text("launchType")
    supported = launch.definition.items("compatibilities")
    required = launch.definition.items("requiresCompatibilities")
    if launch_type and supported and launch_type not in supported:
        yield launch.request.problem(
            "launchType",
            f"the task definition does not support {launch_type}, only "
            f"{', '.join(map(str, supported))}",
            code="incompatible-launch-type",
        )
    on_fargate = placed_on_fargate(launch.request.value)
    if on_fargate and not supported and required and "FARGATE" not in required:
        yield launch.request.problem(
            launch.chosen_by,
            "the task definition requires the compatibility "
            f"{', '.join(map(str, required))}, not FARGATE",
            code="incompatible-launch-type",
            certain=False,
        )
    # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-anywhere.html
    if launch_type == "EXTERNAL" and launch.definition.text("networkMode") == "awsvpc":
        yield launch.request.problem(
            "launchType",
            "EXTERNAL does not support network mode awsvpc: use bridge, host or none",
            code="incompatible-launch-type",
        )


def _fit_for_fargate(launch: LaunchRequest) -> Iterator[Problem]:
    if placed_on_fargate(launch.request.value):
        for problem in apply(fargate.RULES, launch.definition, partial=False):
            yield problem.because_of(
                launch.chosen_by, "the task definition cannot run on Fargate"
            )


def _effective_size(launch: LaunchRequest) -> Iterator[Problem]:
    # Where the overrides have both, or neither, other rules check the pair.
    overrides = launch.request.part("overrides")
    given = [key for key in ("cpu", "memory") if overrides.get(key) is not None]
    if len(given) != 1 or not placed_on_fargate(launch.request.value):
        return
    cpu, memory = (
        (overrides if key in given else launch.definition).get(key)
        for key in ("cpu", "memory")
    )
    yield from fargate.size(cpu, memory, overrides.at(given[0]))


def _task_role_to_exec(launch: LaunchRequest) -> Iterator[Problem]:
    overrides = launch.request.part("overrides")
    role = launch.definition.get("taskRoleArn") or overrides.get("taskRoleArn")
    if launch.request.get("enableExecuteCommand") is True and not role:
        yield launch.request.problem(
            "enableExecuteCommand",
            "ECS Exec needs a task role: set taskRoleArn",
            code="no-task-role",
        )


LAUNCH_RULES = (
    Rule(_active, _API + "API_DeregisterTaskDefinition.html"),
    Rule(_known_containers, _OVERRIDE),
    Rule(_secrets, _API + "API_Secret.html"),
    Rule(_has_network, _MEMBER + "networkConfiguration", whole=True),
    Rule(_takes_no_network, _MEMBER + "networkConfiguration"),
    Rule(
        with_arguments(_takes_no_network, default="bridge"),
        _MEMBER + "networkConfiguration",
        whole=True,
    ),
    Rule(_compatible, _API + "API_TaskDefinition.html"),
    Rule(_fit_for_fargate, fargate.GUIDE, whole=True),
    Rule(_effective_size, fargate.GUIDE + "#fargate-tasks-size", whole=True),
    Rule(_task_role_to_exec, _MEMBER + "enableExecuteCommand", whole=True),
)
