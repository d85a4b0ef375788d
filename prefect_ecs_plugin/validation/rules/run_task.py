"""What ECS refuses in a RunTask request."""

from __future__ import annotations

import re
from typing import Any, Iterator, List, Mapping, NamedTuple, Optional, Set

from ..excerpt import quoted, shortened
from . import fargate, tags
from .definition import (
    MAX_PLACEMENT_CONSTRAINTS,
    network_mode,
    roles,
    task_size,
    unnamed_variables,
)
from .problem import Problem, Request, Rule, apply
from .values import (
    Entry,
    compact_json,
    containers,
    entries,
    inside,
    items,
    names,
    number,
    structure,
    text,
)

MAX_OVERRIDES = 8192
MAX_COUNT = 10
MAX_STARTED_BY = 128
MAX_CLIENT_TOKEN = 64
MAX_SUBNETS = 16
MAX_SECURITY_GROUPS = 5
MAX_PROVIDERS = 20
MAX_WEIGHT = 1000
MAX_BASE = 100000

#: How many variables are named where they are too large.
_LARGEST = 3
MAX_PLACEMENT_STRATEGIES = 5
FARGATE_PROVIDERS = frozenset(("FARGATE", "FARGATE_SPOT"))

_API = "https://docs.aws.amazon.com/AmazonECS/latest/APIReference/"
_RUN_TASK = _API + "API_RunTask.html"
_NETWORK = _API + "API_AwsVpcConfiguration.html"
_OVERRIDE = _API + "API_ContainerOverride.html"
_STRATEGY = _API + "API_CapacityProviderStrategyItem.html"
_GUIDE = (
    "https://docs.aws.amazon.com/AmazonECS/latest/developerguide/"
    "fargate-tasks-services.html"
)

_STARTED_BY = re.compile(r"[A-Za-z0-9_/-]*\Z")
_CLIENT_TOKEN = re.compile(r"[!-~]*\Z")
_NETWORK_PLACE = "networkConfiguration.awsvpcConfiguration"


def check_run_task(
    request: Mapping[str, Any],
    definition: Optional[Mapping[str, Any]] = None,
    *,
    partial: bool = False,
) -> List[Problem]:
    """What ECS refuses in a RunTask request.

    Args:
        request: the request, or a part of it.
        definition: the task definition that it runs, as it was registered or as
            ECS describes it; None where it is not known.
        partial: more will be added before it is sent (an author's `run_task_kwargs`),
            so what is missing is no problem yet.
    """
    problems = apply(RULES, request, partial=partial)
    if definition is not None:
        launch = {"request": request, "definition": definition}
        problems += apply(LAUNCH_RULES, launch, partial=partial)
    return problems


def placed_on_fargate(request: Mapping[str, Any]) -> Optional[bool]:
    """Whether a RunTask request asks for Fargate.

    Returns:
        True for the launch type FARGATE and for a strategy of nothing but FARGATE
        and FARGATE_SPOT, False for any other, None where the request leaves the
        choice to the cluster.
    """
    launch_type = text(request, "launchType")
    if launch_type is not None:
        return launch_type == "FARGATE"
    providers = _providers(request)
    return providers <= FARGATE_PROVIDERS if providers else None


def overrides_length(overrides: Optional[Mapping[str, Any]]) -> int:
    """Characters of a request's `overrides`, as ECS counts them: JSON included."""
    return len(compact_json(overrides)) if overrides else 0


def _providers(request: Mapping[str, Any]) -> Set[str]:
    strategy = entries(request, "capacityProviderStrategy")
    named = (text(item.value, "capacityProvider") for item in strategy)
    return {name for name in named if name is not None}


# --- rules about the request alone ---------------------------------------------


def _has_definition(request: Request) -> Iterator[Problem]:
    if not request.get("taskDefinition"):
        yield Problem("taskDefinition", "family:revision or the ARN of a definition")


def _count(request: Request) -> Iterator[Problem]:
    count = number(request, "count")
    if count is not None and not 1 <= count <= MAX_COUNT:
        yield Problem(
            "count", f"{count} tasks, and one request starts 1 to {MAX_COUNT}"
        )


def _started_by(request: Request) -> Iterator[Problem]:
    started_by = text(request, "startedBy") or ""
    if len(started_by) > MAX_STARTED_BY or not _STARTED_BY.match(started_by):
        yield Problem(
            "startedBy",
            f"up to {MAX_STARTED_BY} letters, digits, hyphens, slashes and underscores",
        )


def _client_token(request: Request) -> Iterator[Problem]:
    token = text(request, "clientToken") or ""
    if len(token) > MAX_CLIENT_TOKEN or not _CLIENT_TOKEN.match(token):
        yield Problem(
            "clientToken",
            f"up to {MAX_CLIENT_TOKEN} visible ASCII characters, without spaces",
        )


def _propagate_tags(request: Request) -> Iterator[Problem]:
    if request.get("propagateTags") == "SERVICE":
        yield Problem("propagateTags", "a task has no service, only TASK_DEFINITION")


def _group(request: Request) -> Iterator[Problem]:
    if (text(request, "group") or "").startswith("service:"):
        yield Problem("group", "'service:' is kept for ECS's services", certain=False)


def _one_placement(request: Request) -> Iterator[Problem]:
    if text(request, "launchType") and items(request, "capacityProviderStrategy"):
        yield Problem(
            "launchType",
            "cannot be given together with capacityProviderStrategy: keep one of the "
            "two",
        )


def _providers_few_enough(request: Request) -> Iterator[Problem]:
    count = len(items(request, "capacityProviderStrategy"))
    if count > MAX_PROVIDERS:
        yield Problem(
            "capacityProviderStrategy",
            f"{count} capacity providers, and at most {MAX_PROVIDERS} go",
        )


def _one_kind_of_provider(request: Request) -> Iterator[Problem]:
    providers = _providers(request)
    if providers & FARGATE_PROVIDERS and providers - FARGATE_PROVIDERS:
        yield Problem(
            "capacityProviderStrategy",
            "Fargate's capacity providers cannot be mixed with others",
        )


def _weights(request: Request) -> Iterator[Problem]:
    strategy = list(entries(request, "capacityProviderStrategy"))
    for item in strategy:
        yield from _within(item, "weight", MAX_WEIGHT)
        yield from _within(item, "base", MAX_BASE)
    weights = [number(item.value, "weight") or 0 for item in strategy]
    if len(strategy) > 1 and not any(weights):
        yield Problem(
            "capacityProviderStrategy", "at least one provider needs a weight over 0"
        )


def _within(item: Entry, key: str, most: int) -> Iterator[Problem]:
    value = number(item.value, key)
    if value is not None and not 0 <= value <= most:
        yield Problem(inside(item.place, key), f"{value}, and it goes from 0 to {most}")


def _one_base(request: Request) -> Iterator[Problem]:
    strategy = entries(request, "capacityProviderStrategy")
    if sum(bool(number(item.value, "base")) for item in strategy) > 1:
        yield Problem(
            "capacityProviderStrategy", "only one capacity provider can have a base"
        )


def _subnets(request: Request) -> Iterator[Problem]:
    configuration = structure(request, "networkConfiguration")
    if configuration.get("awsvpcConfiguration") is None:
        return
    awsvpc = structure(configuration, "awsvpcConfiguration")
    count = len(items(awsvpc, "subnets"))
    if not 1 <= count <= MAX_SUBNETS:
        yield Problem(
            f"{_NETWORK_PLACE}.subnets",
            f"{count} subnets, and it takes 1 to {MAX_SUBNETS}",
        )


def _security_groups(request: Request) -> Iterator[Problem]:
    awsvpc = structure(
        structure(request, "networkConfiguration"), "awsvpcConfiguration"
    )
    count = len(items(awsvpc, "securityGroups"))
    if count > MAX_SECURITY_GROUPS:
        yield Problem(
            f"{_NETWORK_PLACE}.securityGroups",
            f"{count} security groups, and at most {MAX_SECURITY_GROUPS} go",
        )


def _public_ip(request: Request) -> Iterator[Problem]:
    # "Assign public IP is not supported for this launch type." Seen for EC2 and for
    # the provider of an Auto Scaling group; other providers may come to have it.
    awsvpc = structure(
        structure(request, "networkConfiguration"), "awsvpcConfiguration"
    )
    if (
        awsvpc.get("assignPublicIp") != "ENABLED"
        or placed_on_fargate(request) is not False
    ):
        return
    yield Problem(
        f"{_NETWORK_PLACE}.assignPublicIp",
        "only Fargate gives tasks a public IP: DISABLED, or leave it out",
        certain=text(request, "launchType") == "EC2",
    )


def _platform_version(request: Request) -> Iterator[Problem]:
    # "The platform version must be null when specifying an EC2 launch type."
    if request.get("platformVersion") and placed_on_fargate(request) is False:
        yield Problem(
            "platformVersion",
            "only Fargate has platform versions: leave it out",
            certain=text(request, "launchType") == "EC2",
        )


def _placement(request: Request) -> Iterator[Problem]:
    # "Placement constraints are not supported with FARGATE launch type."
    if not placed_on_fargate(request):
        return
    for key in ("placementConstraints", "placementStrategy"):
        if items(request, key):
            yield Problem(
                key,
                "Fargate has no container instances to choose from: leave it out",
                certain=text(request, "launchType") == "FARGATE",
            )


def _placement_few_enough(request: Request) -> Iterator[Problem]:
    for key, most in (
        ("placementConstraints", MAX_PLACEMENT_CONSTRAINTS),
        ("placementStrategy", MAX_PLACEMENT_STRATEGIES),
    ):
        count = len(items(request, key))
        if count > most:
            yield Problem(key, f"{count}, and at most {most} go")


def _overrides_short_enough(request: Request) -> Iterator[Problem]:
    length = overrides_length(structure(request, "overrides"))
    if length > MAX_OVERRIDES:
        yield Problem(
            "overrides",
            f"{length} characters of JSON, and ECS takes at most {MAX_OVERRIDES}; "
            + _what_to_shorten(request),
        )


def _what_to_shorten(request: Request) -> str:
    """The largest variables, since these are what a person can do without."""
    sizes = {
        (text(variable.value, "name") or "?"): len(text(variable.value, "value") or "")
        for entry in _container_overrides(request)
        for variable in entries(entry.value, "environment", entry.place)
    }
    largest = sorted(sizes, key=lambda name: -sizes[name])[:_LARGEST]
    if not largest:
        return "shorten them"
    named = ", ".join(f"{name} ({sizes[name]})" for name in largest)
    return (
        f"the largest variables are {named}: shorten them, or put them into the task "
        "definition"
    )


def _overrides_have_names(request: Request) -> Iterator[Problem]:
    for entry in _container_overrides(request):
        if entry.value and not entry.value.get("name"):
            yield Problem(
                inside(entry.place, "name"), "an override needs its container's name"
            )


def _overrides_once(request: Request) -> Iterator[Problem]:
    seen: Set[str] = set()
    for entry in _container_overrides(request):
        name = text(entry.value, "name")
        if name is not None and name in seen:
            yield Problem(
                entry.place, f"container {quoted(name)} has an override already", False
            )
        seen.update([name] if name is not None else [])


def _variables_have_names(request: Request) -> Iterator[Problem]:
    yield from unnamed_variables(_container_overrides(request))


def _override_sizes(request: Request) -> Iterator[Problem]:
    yield from task_size(structure(request, "overrides"), "overrides")


def _override_roles(request: Request) -> Iterator[Problem]:
    yield from roles(structure(request, "overrides"), "overrides")


def _override_fargate_size(request: Request) -> Iterator[Problem]:
    overrides = structure(request, "overrides")
    if placed_on_fargate(request):
        yield from fargate.size(
            overrides.get("cpu"), overrides.get("memory"), "overrides"
        )


def _container_overrides(request: Request) -> Iterator[Entry]:
    overrides = structure(request, "overrides")
    yield from entries(overrides, "containerOverrides", "overrides")


RULES = (
    Rule(_has_definition, _RUN_TASK, whole=True),
    Rule(_count, _RUN_TASK + "#ECS-RunTask-request-count"),
    Rule(_started_by, _RUN_TASK + "#ECS-RunTask-request-startedBy"),
    Rule(_client_token, _RUN_TASK + "#ECS-RunTask-request-clientToken"),
    Rule(_propagate_tags, _RUN_TASK + "#ECS-RunTask-request-propagateTags"),
    Rule(_group, _RUN_TASK + "#ECS-RunTask-request-group"),
    Rule(tags.few_enough, tags.SOURCE),
    Rule(tags.each_key_once, tags.SOURCE),
    Rule(tags.keys, tags.SOURCE),
    Rule(tags.values, tags.SOURCE),
    Rule(_one_placement, _RUN_TASK + "#ECS-RunTask-request-launchType"),
    Rule(_providers_few_enough, _STRATEGY),
    Rule(_one_kind_of_provider, _STRATEGY),
    Rule(_weights, _STRATEGY),
    Rule(_one_base, _STRATEGY),
    Rule(_subnets, _NETWORK, whole=True),
    Rule(_security_groups, _NETWORK),
    Rule(_public_ip, _NETWORK),
    Rule(_platform_version, _RUN_TASK + "#ECS-RunTask-request-platformVersion"),
    Rule(_placement, _GUIDE),
    Rule(_placement_few_enough, _RUN_TASK),
    Rule(_overrides_short_enough, _RUN_TASK + "#ECS-RunTask-request-overrides"),
    Rule(_overrides_have_names, _OVERRIDE, whole=True),
    Rule(_overrides_once, _OVERRIDE),
    Rule(_variables_have_names, _API + "API_KeyValuePair.html"),
    Rule(_override_sizes, _API + "API_TaskOverride.html"),
    Rule(_override_roles, _API + "API_TaskOverride.html"),
    Rule(_override_fargate_size, _GUIDE + "#fargate-tasks-size"),
)


# --- rules about the request and the definition it runs ------------------------


class _Launch(NamedTuple):
    request: Mapping[str, Any]
    definition: Mapping[str, Any]

    @property
    def chosen_by(self) -> str:
        """The member that says where the task runs."""
        by_type = text(self.request, "launchType") is not None
        return "launchType" if by_type else "capacityProviderStrategy"


def _launch(both: Request) -> _Launch:
    return _Launch(structure(both, "request"), structure(both, "definition"))


def _active(both: Request) -> Iterator[Problem]:
    # "TaskDefinition is inactive"
    status = text(_launch(both).definition, "status")
    if status in ("INACTIVE", "DELETE_IN_PROGRESS"):
        yield Problem("taskDefinition", f"is {status}: register it once more")


def _known_containers(both: Request) -> Iterator[Problem]:
    # "Override for container named ... is not a container in the TaskDefinition."
    launch = _launch(both)
    known = names(containers(launch.definition))
    for entry in _container_overrides(launch.request):
        name = text(entry.value, "name")
        if name is not None and name not in known:
            yield Problem(
                inside(entry.place, "name"),
                f"the task definition has no container {quoted(name)}, only "
                f"{shortened(', '.join(known)) or 'none'}",
            )


def _secrets(both: Request) -> Iterator[Problem]:
    # "The secret name must be unique and not shared with any new or existing
    # environment variables set on the container"
    launch = _launch(both)
    secret = {
        text(entry.value, "name"): names(entries(entry.value, "secrets"))
        for entry in containers(launch.definition)
    }
    for entry in _container_overrides(launch.request):
        taken = secret.get(text(entry.value, "name"), [])
        for variable in entries(entry.value, "environment", entry.place):
            name = text(variable.value, "name")
            if name in taken:
                yield Problem(
                    inside(variable.place, "name"),
                    f"{name} is a secret of the container in the task definition: a "
                    "variable cannot replace it",
                )


def _network_given(both: Request) -> Iterator[Problem]:
    # "Network Configuration must be provided when networkMode 'awsvpc' is specified."
    launch = _launch(both)
    given = structure(launch.request, "networkConfiguration")
    if network_mode(launch.definition) == "awsvpc" and not given.get(
        "awsvpcConfiguration"
    ):
        yield Problem(
            "networkConfiguration",
            "the task definition is awsvpc, so the task needs "
            "awsvpcConfiguration with its subnets",
        )


def _network_wanted(both: Request) -> Iterator[Problem]:
    launch = _launch(both)
    mode = network_mode(launch.definition)
    if mode is not None:
        yield from _no_network_with(mode, launch)


def _network_wanted_by_default(both: Request) -> Iterator[Problem]:
    launch = _launch(both)
    if network_mode(launch.definition) is None:
        yield from _no_network_with("bridge", launch)


def _no_network_with(mode: str, launch: _Launch) -> Iterator[Problem]:
    # "Network Configuration is not valid for the given networkMode of this task
    # definition."
    if launch.request.get("networkConfiguration") and mode != "awsvpc":
        yield Problem(
            "networkConfiguration",
            f"only for awsvpc, and the task definition's network mode is {mode}",
        )


def _compatible(both: Request) -> Iterator[Problem]:
    # "Task definition does not support launch_type FARGATE." ECS works out
    # `compatibilities` itself; a definition that requires FARGATE runs on EC2 too.
    launch = _launch(both)
    launch_type = text(launch.request, "launchType")
    compatible = items(launch.definition, "compatibilities")
    if launch_type and compatible and launch_type not in compatible:
        yield Problem(
            "launchType",
            f"the task definition does not support {launch_type}, only "
            f"{', '.join(map(str, compatible))}",
        )


def _requires(both: Request) -> Iterator[Problem]:
    launch = _launch(both)
    required = items(launch.definition, "requiresCompatibilities")
    if items(launch.definition, "compatibilities") or not required:
        return
    if placed_on_fargate(launch.request) and "FARGATE" not in required:
        yield Problem(
            launch.chosen_by,
            "the task definition asks for the compatibility "
            f"{', '.join(map(str, required))}, not FARGATE",
            certain=False,
        )


def _fit_for_fargate(both: Request) -> Iterator[Problem]:
    launch = _launch(both)
    if not placed_on_fargate(launch.request):
        return
    for problem in apply(fargate.RULES, launch.definition, partial=False):
        yield Problem(
            launch.chosen_by,
            f"the task definition cannot run on Fargate: {problem}",
            problem.certain,
        )


def _fit_for_external(both: Request) -> Iterator[Problem]:
    # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-anywhere.html
    launch = _launch(both)
    external = text(launch.request, "launchType") == "EXTERNAL"
    if external and network_mode(launch.definition) == "awsvpc":
        yield Problem("launchType", "EXTERNAL has no awsvpc: bridge, host or none")


def _effective_size(both: Request) -> Iterator[Problem]:
    launch = _launch(both)
    overrides = structure(launch.request, "overrides")
    given = [key for key in ("cpu", "memory") if overrides.get(key) is not None]
    # Both given are judged without the definition.
    if len(given) != 1 or not placed_on_fargate(launch.request):
        return
    cpu, memory = (
        overrides.get(key, launch.definition.get(key)) for key in ("cpu", "memory")
    )
    yield from fargate.size(cpu, memory, f"overrides.{given[0]}")


def _task_role_to_exec(both: Request) -> Iterator[Problem]:
    launch = _launch(both)
    given = (launch.definition, structure(launch.request, "overrides"))
    if launch.request.get("enableExecuteCommand") is True and not any(
        parent.get("taskRoleArn") for parent in given
    ):
        yield Problem("enableExecuteCommand", "ECS Exec needs a task role: taskRoleArn")


LAUNCH_RULES = (
    Rule(_active, _API + "API_DeregisterTaskDefinition.html"),
    Rule(_known_containers, _OVERRIDE),
    Rule(_secrets, _API + "API_Secret.html"),
    Rule(_network_given, _RUN_TASK + "#ECS-RunTask-request-networkConfiguration", True),
    Rule(_network_wanted, _RUN_TASK + "#ECS-RunTask-request-networkConfiguration"),
    Rule(
        _network_wanted_by_default,
        _RUN_TASK + "#ECS-RunTask-request-networkConfiguration",
        whole=True,
    ),
    Rule(_compatible, _API + "API_TaskDefinition.html"),
    Rule(_requires, _API + "API_TaskDefinition.html"),
    Rule(_fit_for_fargate, _GUIDE, whole=True),
    Rule(_fit_for_external, _API + "API_TaskDefinition.html"),
    Rule(_effective_size, _GUIDE + "#fargate-tasks-size", whole=True),
    Rule(
        _task_role_to_exec,
        _RUN_TASK + "#ECS-RunTask-request-enableExecuteCommand",
        whole=True,
    ),
)
