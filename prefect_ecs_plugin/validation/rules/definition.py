"""What ECS refuses in a RegisterTaskDefinition request, wherever the task will run.

Where the documentation is vague, the words of ECS's own refusal are quoted.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, Iterable, Iterator, List, Mapping, Optional

from ..excerpt import quoted
from . import fargate, tags
from .problem import Problem, Request, Rule, apply
from .sizes import cpu_units, memory_mib
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

MAX_FAMILY = 255
MAX_CONTAINERS = 10
MAX_DEFINITION_BYTES = 64 * 1024

_API = "https://docs.aws.amazon.com/AmazonECS/latest/APIReference/"
_REGISTER = _API + "API_RegisterTaskDefinition.html"
_CONTAINER = _API + "API_ContainerDefinition.html"
_QUOTAS = (
    "https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-quotas.html"
)
_SIZE = "https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_definition_parameters.html#task_size"

_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}\Z")
_ROLE_ARN = re.compile(r"arn:[\w-]+:iam::\w+:role/\S+\Z", re.ASCII)
_SECRET_ROLE = (
    "secrets are fetched with the execution role: give executionRoleArn here, or "
    "--execution-role-arn to the agent"
)


def check_definition(
    definition: Mapping[str, Any],
    launch_type: Optional[str] = None,
    *,
    partial: bool = False,
) -> List[Problem]:
    """What ECS refuses in a RegisterTaskDefinition request.

    Args:
        definition: the request, or a part of it.
        launch_type: where the task will run ("FARGATE", "EC2" or "EXTERNAL"), if it
            is known; `requiresCompatibilities` of the definition counts besides.
        partial: more will be added before it is sent (an author's definition, to
            which the agent adds family, image and roles), so what is missing is no
            problem yet.
    """
    problems = apply(RULES, definition, partial=partial)
    if fargate.wanted(definition, launch_type):
        problems += apply(fargate.RULES, definition, partial=partial)
    return problems


def is_family(family: str) -> bool:
    """Whether `family` may name a family of task definitions."""
    return bool(_NAME.match(family))


def _family(definition: Request) -> Iterator[Problem]:
    family = text(definition, "family")
    if family is not None and not is_family(family):
        yield Problem(
            "family",
            f"{_short(family)} is no family: up to {MAX_FAMILY} letters, digits, "
            "hyphens and underscores",
        )


def _has_family(definition: Request) -> Iterator[Problem]:
    if definition.get("family") is None:
        yield Problem("family", "a task definition needs a family")


def _has_containers(definition: Request) -> Iterator[Problem]:
    if not definition.get("containerDefinitions"):
        yield Problem("containerDefinitions", "a task needs at least one container")


def _containers_few_enough(definition: Request) -> Iterator[Problem]:
    count = len(items(definition, "containerDefinitions"))
    if count > MAX_CONTAINERS:
        yield Problem(
            "containerDefinitions",
            f"{count} containers, and ECS takes at most {MAX_CONTAINERS}",
        )


def _small_enough(definition: Request) -> Iterator[Problem]:
    untagged = {key: value for key, value in definition.items() if key != "tags"}
    size = len(compact_json(untagged).encode("utf-8", "surrogatepass"))
    if size > MAX_DEFINITION_BYTES:
        yield Problem(
            "", f"{size} bytes of JSON, and ECS takes at most {MAX_DEFINITION_BYTES}"
        )


def _container_names(definition: Request) -> Iterator[Problem]:
    for entry in containers(definition):
        name = text(entry.value, "name")
        if name is not None and not _NAME.match(name):
            yield Problem(
                inside(entry.place, "name"),
                f"{_short(name)} is no container name: 1 to 255 letters, digits, "
                "hyphens and underscores",
            )


def _containers_have_names(definition: Request) -> Iterator[Problem]:
    # "Container.name should not be null or empty."
    for entry in containers(definition):
        if entry.value.get("name") is None:
            yield Problem(inside(entry.place, "name"), "a container needs a name")


def _container_names_once(definition: Request) -> Iterator[Problem]:
    for name, count in Counter(names(containers(definition))).items():
        if count > 1:
            yield Problem(
                "containerDefinitions", f"{count} containers are named {quoted(name)}"
            )


def _images(definition: Request) -> Iterator[Problem]:
    # "Container.image contains invalid characters."
    for entry in containers(definition):
        image = text(entry.value, "image")
        if image is not None and (not image or re.search(r"\s", image)):
            yield Problem(
                inside(entry.place, "image"),
                f"{_short(image)} is no image: REPOSITORY:TAG or REPOSITORY@DIGEST, "
                "without spaces",
            )


def _containers_have_images(definition: Request) -> Iterator[Problem]:
    # "Container.image should not be null or empty."
    for entry in containers(definition):
        if entry.value.get("image") is None:
            yield Problem(inside(entry.place, "image"), "a container needs an image")


def _an_essential_container(definition: Request) -> Iterator[Problem]:
    found = list(containers(definition))
    if found and all(entry.value.get("essential") is False for entry in found):
        yield Problem(
            "containerDefinitions", "at least one container must be essential"
        )


def _memory_somewhere(definition: Request) -> Iterator[Problem]:
    # "At least one of 'memory' or 'memoryReservation' must be specified."
    if definition.get("memory") is not None:
        return
    for entry in containers(definition):
        if not entry.value.get("memory") and not entry.value.get("memoryReservation"):
            yield Problem(
                entry.place,
                "give memory or memoryReservation in MiB here, or memory for the "
                "whole task",
            )


def _memory_reservation(definition: Request) -> Iterator[Problem]:
    for entry in containers(definition):
        memory = number(entry.value, "memory")
        reservation = number(entry.value, "memoryReservation")
        if memory and reservation and reservation > memory:
            yield Problem(
                inside(entry.place, "memoryReservation"),
                f"{reservation} MiB is more than the container's memory, {memory} MiB",
            )


def _memory_within_task(definition: Request) -> Iterator[Problem]:
    # "The 'memory' setting for container ... is greater than for the task."
    task = memory_mib(definition.get("memory"))
    for entry in containers(definition):
        memory = number(entry.value, "memory")
        if task is not None and memory is not None and memory > task:
            yield Problem(
                inside(entry.place, "memory"),
                f"{memory} MiB is more than the task's memory, {task} MiB",
            )


def _cpu_within_task(definition: Request) -> Iterator[Problem]:
    # "The sum of all container 'cpu' values cannot be greater than the value of
    # the task 'cpu'."
    task = cpu_units(definition.get("cpu"))
    total = sum(number(entry.value, "cpu") or 0 for entry in containers(definition))
    if task is not None and total > task:
        yield Problem(
            "cpu", f"the containers ask for {total} CPU units, the task has {task}"
        )


def _task_size(definition: Request) -> Iterator[Problem]:
    # "Invalid 'cpu' setting for task."
    yield from task_size(definition)


def task_size(sizes: Mapping[str, Any], place: str = "") -> Iterator[Problem]:
    """Task-level cpu and memory that ECS cannot read; `place` holds the two."""
    cpu, memory = sizes.get("cpu"), sizes.get("memory")
    if cpu is not None and cpu_units(cpu) is None:
        yield Problem(
            inside(place, "cpu"),
            f"{quoted(cpu)} is no cpu: CPU units such as 1024, or vCPUs such as "
            "'1 vCPU'",
        )
    if memory is not None and memory_mib(memory) is None:
        yield Problem(
            inside(place, "memory"),
            f"{quoted(memory)} is no memory: MiB such as 2048, or GB such as '2 GB'",
        )


def _secret_names_once(definition: Request) -> Iterator[Problem]:
    # "Duplicate secret names found: ... Each secret name must be unique."
    for entry in containers(definition):
        for name, count in Counter(names(entries(entry.value, "secrets"))).items():
            if count > 1:
                yield Problem(
                    inside(entry.place, "secrets"),
                    f"{count} secrets are named {quoted(name)}",
                )


def _secrets_or_environment(definition: Request) -> Iterator[Problem]:
    # "The secret name must be unique and not shared with any new or existing
    # environment variables set on the container"
    for entry in containers(definition):
        secret = set(names(entries(entry.value, "secrets")))
        for variable in entries(entry.value, "environment", entry.place):
            name = text(variable.value, "name")
            if name in secret:
                yield Problem(
                    inside(variable.place, "name"),
                    f"{name} is among the container's secrets too: keep one of the two",
                )


def _variables_have_names(definition: Request) -> Iterator[Problem]:
    yield from unnamed_variables(containers(definition))


def unnamed_variables(some: Iterable[Entry]) -> Iterator[Problem]:
    """The variables without a name of containers, or of their overrides."""
    # Not certain: ECS has been seen to drop such entries in silence.
    for entry in some:
        for variable in entries(entry.value, "environment", entry.place):
            if not variable.value.get("name"):
                yield Problem(
                    inside(variable.place, "name"),
                    "an environment variable needs a name",
                    certain=False,
                )


def _role_for_secrets(definition: Request) -> Iterator[Problem]:
    # "When you are specifying container secrets, you must specify a value for
    # 'executionRoleArn'."
    if definition.get("executionRoleArn"):
        return
    for entry in containers(definition):
        if items(entry.value, "secrets"):
            yield Problem(inside(entry.place, "secrets"), _SECRET_ROLE)


def _roles(definition: Request) -> Iterator[Problem]:
    yield from roles(definition)


def roles(parent: Mapping[str, Any], place: str = "") -> Iterator[Problem]:
    """Role ARNs that are none; `place` holds the two. "Role is not valid."."""
    for key in ("taskRoleArn", "executionRoleArn"):
        role = text(parent, key) or ""
        if role.startswith("arn:") and not _ROLE_ARN.match(role):
            yield Problem(
                inside(place, key),
                f"{quoted(role)} is no role: arn:aws:iam::ACCOUNT:role/NAME",
            )


def network_mode(definition: Mapping[str, Any]) -> Optional[str]:
    """The definition's network mode; None is Docker's default, bridge on Linux."""
    return text(definition, "networkMode")


def _ports(definition: Request) -> Iterator[Problem]:
    mode = network_mode(definition)
    for entry in containers(definition):
        for mapping in entries(entry.value, "portMappings", entry.place):
            yield from _port(mode, mapping)


def _port(mode: Optional[str], mapping: Entry) -> Iterator[Problem]:
    if mode == "none":
        yield Problem(mapping.place, "network mode none has no port mappings")
    # "When networkMode=awsvpc, the host ports and container ports in port mappings
    # must match."
    host = number(mapping.value, "hostPort")
    container = number(mapping.value, "containerPort")
    if mode in ("awsvpc", "host") and host and container and host != container:
        yield Problem(
            inside(mapping.place, "hostPort"),
            f"with network mode {mode} it is left out or equals containerPort, "
            f"{container}",
        )


# What a container cannot have with some network modes.
_NOT_WITH_MODE = {
    "links": ("awsvpc", "host", "none"),
    "extraHosts": ("awsvpc",),
    "hostname": ("awsvpc",),
}


def _mode_of_members(definition: Request) -> Iterator[Problem]:
    mode = network_mode(definition)
    for entry in containers(definition):
        for key, modes in _NOT_WITH_MODE.items():
            if mode in modes and entry.value.get(key):
                yield Problem(
                    inside(entry.place, key), f"cannot be used with network mode {mode}"
                )


# "Log driver awslogs requires options: awslogs-region, awslogs-group"
_AWSLOGS_NEEDS = ("awslogs-group", "awslogs-region")


def _awslogs_options(definition: Request) -> Iterator[Problem]:
    for entry in containers(definition):
        log = structure(entry.value, "logConfiguration")
        options = structure(log, "options")
        missing = [key for key in _AWSLOGS_NEEDS if options.get(key) is None]
        if log.get("logDriver") == "awslogs" and missing:
            yield Problem(
                inside(entry.place, "logConfiguration.options"),
                f"awslogs needs {' and '.join(missing)}",
            )


def _volumes(definition: Request) -> Iterator[Problem]:
    # "Unknown volume '...'."
    known = names(entries(definition, "volumes"))
    for entry in containers(definition):
        for mount in entries(entry.value, "mountPoints", entry.place):
            volume = text(mount.value, "sourceVolume")
            if volume is not None and volume not in known:
                yield Problem(
                    inside(mount.place, "sourceVolume"),
                    f"the definition has no volume {quoted(volume)}",
                )


def _dependencies(definition: Request) -> Iterator[Problem]:
    known = {text(entry.value, "name"): entry.value for entry in containers(definition)}
    for entry in containers(definition):
        for dependency in entries(entry.value, "dependsOn", entry.place):
            yield from _dependency(dependency, known)


def _dependency(entry: Entry, known: Mapping[Optional[str], Any]) -> Iterator[Problem]:
    name, condition = text(entry.value, "containerName"), entry.value.get("condition")
    if name is None:
        return
    if name not in known:
        yield Problem(
            inside(entry.place, "containerName"),
            f"the definition has no container {quoted(name)}",
        )
    # "A dependency container with SUCCESS or COMPLETE condition cannot be an
    # essential container"; a container is essential unless it says otherwise.
    elif (
        condition in ("SUCCESS", "COMPLETE")
        and known[name].get("essential") is not False
    ):
        yield Problem(
            inside(entry.place, "condition"),
            f"{condition} needs a container that is not essential, and "
            f"{quoted(name)} is",
        )


MAX_PLACEMENT_CONSTRAINTS = 10


def _placement_constraints(definition: Request) -> Iterator[Problem]:
    count = len(items(definition, "placementConstraints"))
    if count > MAX_PLACEMENT_CONSTRAINTS:
        yield Problem(
            "placementConstraints",
            f"{count} constraints, and at most {MAX_PLACEMENT_CONSTRAINTS} go",
        )


def _short(written: str) -> str:
    return repr(written if len(written) <= 80 else written[:77] + "...")


RULES = (
    Rule(_has_family, _REGISTER + "#ECS-RegisterTaskDefinition-request-family", True),
    Rule(_family, _REGISTER + "#ECS-RegisterTaskDefinition-request-family"),
    Rule(_has_containers, _REGISTER, whole=True),
    Rule(_containers_few_enough, _QUOTAS),
    Rule(_small_enough, _QUOTAS),
    Rule(tags.few_enough, tags.SOURCE),
    Rule(tags.each_key_once, tags.SOURCE),
    Rule(tags.keys, tags.SOURCE),
    Rule(tags.values, tags.SOURCE),
    Rule(_containers_have_names, _CONTAINER, whole=True),
    Rule(_container_names, _CONTAINER),
    Rule(_container_names_once, _CONTAINER),
    Rule(_containers_have_images, _CONTAINER, whole=True),
    Rule(_images, _CONTAINER),
    Rule(_an_essential_container, _CONTAINER, whole=True),
    Rule(_task_size, _SIZE),
    Rule(_memory_somewhere, _CONTAINER, whole=True),
    Rule(_memory_reservation, _CONTAINER),
    Rule(_memory_within_task, _CONTAINER),
    Rule(_cpu_within_task, _CONTAINER),
    Rule(_variables_have_names, _API + "API_KeyValuePair.html"),
    Rule(_secret_names_once, _API + "API_Secret.html"),
    Rule(_secrets_or_environment, _API + "API_Secret.html"),
    Rule(_role_for_secrets, _API + "API_Secret.html", whole=True),
    Rule(_roles, _REGISTER),
    Rule(_ports, _API + "API_PortMapping.html"),
    Rule(_mode_of_members, _CONTAINER),
    Rule(_awslogs_options, _API + "API_LogConfiguration.html", whole=True),
    Rule(_volumes, _API + "API_MountPoint.html", whole=True),
    Rule(_dependencies, _API + "API_ContainerDependency.html", whole=True),
    Rule(_placement_constraints, _REGISTER),
)
