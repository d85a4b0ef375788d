"""What ECS refuses in a RegisterTaskDefinition request, wherever the task will run.

Where the documentation is vague, the words of ECS's own refusal are quoted.
"""

from __future__ import annotations

import re
from typing import Any, Iterable, Iterator, List, Mapping, Optional

from ..excerpt import quoted
from . import fargate, tags
from .request import (
    Part,
    Problem,
    Rule,
    apply,
    at_most,
    compact_json,
    each_once,
    required,
)
from .sizes import cpu_units, memory_mib

MAX_FAMILY = 255
_MAX_CONTAINERS = 10
_MAX_BYTES = 64 * 1024
MAX_PLACEMENT_CONSTRAINTS = 10

_API = "https://docs.aws.amazon.com/AmazonECS/latest/APIReference/"
_REGISTER = _API + "API_RegisterTaskDefinition.html"
_CONTAINER = _API + "API_ContainerDefinition.html"
_SECRET = _API + "API_Secret.html"
_GUIDE = "https://docs.aws.amazon.com/AmazonECS/latest/developerguide/"
_SIZE = _GUIDE + "task_definition_parameters.html#task_size"

_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}\Z")
_ROLE_ARN = re.compile(r"arn:[\w-]+:iam::\w+:role/\S+\Z", re.ASCII)
#: https://docs.aws.amazon.com/IAM/latest/APIReference/API_Role.html
_ROLE_NAME = re.compile(r"[\w+=,.@/-]+\Z", re.ASCII)


def check_definition(
    definition: Mapping[str, Any],
    launch_type: Optional[str] = None,
    *,
    partial: bool = False,
) -> List[Problem]:
    """What ECS refuses in a RegisterTaskDefinition request.

    Args:
        definition: The request, or a part of it.
        launch_type: Where the task will run ("FARGATE", "EC2" or "EXTERNAL"), if it
            is known. The rules of Fargate also apply to a definition whose
            `requiresCompatibilities` has FARGATE.
        partial: More will be added before it is sent (an author's definition, to
            which the agent adds family, image and roles), so what is missing is no
            problem yet.
    """
    request = Part("", definition)
    problems = apply(RULES, request, partial=partial)
    if launch_type == "FARGATE" or fargate.required_by(request):
        problems += apply(fargate.RULES, request, partial=partial)
    return problems


# --- the definition as a whole ------------------------------------------------------


def _required_members(definition: Part) -> Iterator[Problem]:
    # "Container.name should not be null or empty.", and so for the image.
    yield from required(definition, "family", "containerDefinitions")
    for container in definition.parts("containerDefinitions"):
        yield from required(container, "name", "image")


def _family(definition: Part) -> Iterator[Problem]:
    family = definition.text("family")
    if family and not _NAME.match(family):
        yield definition.problem(
            "family",
            f"invalid family {quoted(family)}: use up to {MAX_FAMILY} letters, digits, "
            "hyphens and underscores",
            code="invalid-family",
        )


def _limits(definition: Part) -> Iterator[Problem]:
    yield from at_most(definition, "containerDefinitions", _MAX_CONTAINERS)
    yield from at_most(definition, "placementConstraints", MAX_PLACEMENT_CONSTRAINTS)
    untagged = {key: value for key, value in definition.value.items() if key != "tags"}
    size = len(compact_json(untagged).encode("utf-8", "surrogatepass"))
    if size > _MAX_BYTES:
        yield definition.problem(
            "",
            f"{size} bytes of JSON; ECS accepts at most {_MAX_BYTES}",
            code="definition-size",
        )


def task_size(task: Part) -> Iterator[Problem]:
    """A `cpu` and `memory` of a task or of its overrides that ECS cannot read."""
    # "Invalid 'cpu' setting for task."
    cpu, memory = task.get("cpu"), task.get("memory")
    if cpu is not None and cpu_units(cpu) is None:
        yield task.problem(
            "cpu",
            f"invalid cpu {quoted(cpu)}: use CPU units such as 1024, or vCPUs such as "
            "'1 vCPU'",
            code="invalid-cpu",
        )
    if memory is not None and memory_mib(memory) is None:
        yield task.problem(
            "memory",
            f"invalid memory {quoted(memory)}: use MiB such as 2048, or GB such as "
            "'2 GB'",
            code="invalid-memory",
        )


def roles(task: Part, takes_names: bool = True) -> Iterator[Problem]:
    """What cannot be the role of a task.

    Args:
        task: A definition, or the overrides of a task.
        takes_names: Whether AWS documents that a name is enough, as it does for
            definitions. Whether overrides take names is not known.
    """
    # "Role is not valid."
    for key in ("taskRoleArn", "executionRoleArn"):
        role = task.text(key)
        if not role or _ROLE_ARN.match(role):
            continue
        is_name = _ROLE_NAME.match(role) is not None
        if is_name and takes_names:
            continue
        lead = (
            f"{quoted(role)} is not an ARN"
            if is_name
            else f"invalid role {quoted(role)}"
        )
        yield task.problem(
            key,
            f"{lead}: use arn:aws:iam::ACCOUNT:role/NAME",
            code="invalid-role",
            certain=not is_name,
        )


# --- its containers -----------------------------------------------------------------


def _names_and_images(definition: Part) -> Iterator[Problem]:
    # "Container.image contains invalid characters."
    yield from each_once(definition, "containerDefinitions")
    for container in definition.parts("containerDefinitions"):
        name, image = container.text("name"), container.text("image")
        if name and not _NAME.match(name):
            yield container.problem(
                "name",
                f"invalid container name {quoted(name)}: use up to 255 letters, "
                "digits, hyphens and underscores",
                code="invalid-container-name",
            )
        if image is not None and (not image or re.search(r"\s", image)):
            yield container.problem(
                "image",
                f"invalid image {quoted(image)}: use REPOSITORY:TAG or "
                "REPOSITORY@DIGEST, without spaces",
                code="invalid-image",
            )


def _an_essential_container(definition: Part) -> Iterator[Problem]:
    found = definition.parts("containerDefinitions")
    if found and all(container.get("essential") is False for container in found):
        yield definition.problem(
            "containerDefinitions",
            "at least one container must be essential",
            code="no-essential-container",
        )


def _memory_somewhere(definition: Part) -> Iterator[Problem]:
    # "At least one of 'memory' or 'memoryReservation' must be specified."
    if definition.get("memory") is not None:
        return
    for container in definition.parts("containerDefinitions"):
        if not container.get("memory") and not container.get("memoryReservation"):
            yield container.problem(
                "",
                "set memory or memoryReservation (MiB) for this container, or memory "
                "for the whole task",
                code="no-memory",
            )


def _memory_within_limits(definition: Part) -> Iterator[Problem]:
    # "The 'memory' setting for container ... is greater than for the task."
    task = memory_mib(definition.get("memory"))
    for container in definition.parts("containerDefinitions"):
        memory = container.number("memory")
        reservation = container.number("memoryReservation")
        if memory and reservation and reservation > memory:
            yield container.problem(
                "memoryReservation",
                f"{reservation} MiB exceed the container's memory of {memory} MiB",
                code="container-memory",
            )
        if task is not None and memory is not None and memory > task:
            yield container.problem(
                "memory",
                f"{memory} MiB exceed the task's memory of {task} MiB",
                code="container-memory",
            )


def _cpu_within_task(definition: Part) -> Iterator[Problem]:
    # "The sum of all container 'cpu' values cannot be greater than the value of
    # the task 'cpu'."
    task = cpu_units(definition.get("cpu"))
    containers = definition.parts("containerDefinitions")
    total = sum(container.number("cpu") or 0 for container in containers)
    if task is not None and total > task:
        yield definition.problem(
            "cpu",
            f"the containers need {total} CPU units, but the task has {task}",
            code="container-cpu",
        )


def unnamed_variables(containers: Iterable[Part]) -> Iterator[Problem]:
    """Variables without a name in containers or in their overrides."""
    # Not certain: ECS has been seen to drop such entries without an error.
    for container in containers:
        for variable in container.parts("environment"):
            yield from required(variable, "name", certain=False)


def _secrets_and_variables(definition: Part) -> Iterator[Problem]:
    yield from unnamed_variables(definition.parts("containerDefinitions"))
    # "The secret name must be unique and not shared with any new or existing
    # environment variables set on the container"
    for container in definition.parts("containerDefinitions"):
        yield from each_once(container, "secrets")
        secrets = container.texts("secrets")
        for variable in container.parts("environment"):
            name = variable.text("name")
            if name in secrets:
                yield variable.problem(
                    "name",
                    f"{name} is also a secret of the container: keep one of the two",
                    code="secret-and-variable",
                )


def _role_for_secrets(definition: Part) -> Iterator[Problem]:
    # "When you are specifying container secrets, you must specify a value for
    # 'executionRoleArn'."
    if definition.get("executionRoleArn"):
        return
    for container in definition.parts("containerDefinitions"):
        if container.items("secrets"):
            yield container.problem(
                "secrets",
                "ECS reads secrets with the execution role: set executionRoleArn, or "
                "start the agent with --execution-role-arn",
                code="no-execution-role",
            )


# What a container cannot have with some network modes.
_NOT_WITH_MODE = {
    "links": ("awsvpc", "host", "none"),
    "extraHosts": ("awsvpc",),
    "hostname": ("awsvpc",),
    "portMappings": ("none",),
}


def _network_members(definition: Part) -> Iterator[Problem]:
    mode = definition.text("networkMode")
    for container in definition.parts("containerDefinitions"):
        for key, modes in _NOT_WITH_MODE.items():
            if mode in modes and container.get(key):
                yield container.problem(
                    key,
                    f"cannot be used with network mode {mode}",
                    code="network-mode-conflict",
                )


def _host_ports(definition: Part) -> Iterator[Problem]:
    # "When networkMode=awsvpc, the host ports and container ports in port mappings
    # must match."
    mode = definition.text("networkMode")
    if mode not in ("awsvpc", "host"):
        return
    for container in definition.parts("containerDefinitions"):
        for mapping in container.parts("portMappings"):
            host, inner = mapping.number("hostPort"), mapping.number("containerPort")
            if host and inner and host != inner:
                yield mapping.problem(
                    "hostPort",
                    f"with network mode {mode}, hostPort must be absent or equal to "
                    f"containerPort, {inner}",
                    code="host-port",
                )


def _awslogs_options(definition: Part) -> Iterator[Problem]:
    # "Log driver awslogs requires options: awslogs-region, awslogs-group"
    for container in definition.parts("containerDefinitions"):
        log = container.part("logConfiguration")
        options = log.part("options")
        needed = ("awslogs-group", "awslogs-region")
        missing = [key for key in needed if options.get(key) is None]
        if log.get("logDriver") == "awslogs" and missing:
            yield options.problem(
                "", f"awslogs needs {' and '.join(missing)}", code="awslogs-options"
            )


def _volumes(definition: Part) -> Iterator[Problem]:
    # "Unknown volume '...'."
    known = definition.texts("volumes")
    for container in definition.parts("containerDefinitions"):
        for mount in container.parts("mountPoints"):
            volume = mount.text("sourceVolume")
            if volume is not None and volume not in known:
                yield mount.problem(
                    "sourceVolume",
                    f"the task definition has no volume {quoted(volume)}",
                    code="unknown-volume",
                )


def _dependencies(definition: Part) -> Iterator[Problem]:
    # "A dependency container with SUCCESS or COMPLETE condition cannot be an
    # essential container"; a container is essential by default.
    containers = definition.parts("containerDefinitions")
    known = {container.text("name"): container for container in containers}
    for container in containers:
        for dependency in container.parts("dependsOn"):
            name, condition = (
                dependency.text("containerName"),
                dependency.get("condition"),
            )
            if name is None:
                continue
            if name not in known:
                yield dependency.problem(
                    "containerName",
                    f"the task definition has no container {quoted(name)}",
                    code="unknown-container",
                )
            elif (
                condition in ("SUCCESS", "COMPLETE")
                and known[name].get("essential") is not False
            ):
                yield dependency.problem(
                    "condition",
                    f"{condition} needs a container with essential: false, but "
                    f"{quoted(name)} is essential",
                    code="essential-dependency",
                )


RULES = (
    Rule(_required_members, _REGISTER, whole=True),
    Rule(_family, _REGISTER + "#ECS-RegisterTaskDefinition-request-family"),
    Rule(_limits, _GUIDE + "service-quotas.html"),
    *tags.RULES,
    Rule(_names_and_images, _CONTAINER),
    Rule(_an_essential_container, _CONTAINER, whole=True),
    Rule(task_size, _SIZE),
    Rule(_memory_somewhere, _CONTAINER, whole=True),
    Rule(_memory_within_limits, _CONTAINER),
    Rule(_cpu_within_task, _CONTAINER),
    Rule(_secrets_and_variables, _SECRET),
    Rule(_role_for_secrets, _SECRET, whole=True),
    Rule(roles, _REGISTER),
    Rule(_network_members, _CONTAINER),
    Rule(_host_ports, _API + "API_PortMapping.html"),
    Rule(_awslogs_options, _API + "API_LogConfiguration.html", whole=True),
    Rule(_volumes, _API + "API_MountPoint.html", whole=True),
    Rule(_dependencies, _API + "API_ContainerDependency.html", whole=True),
)
