"""What ECS refuses besides in a task definition that is to run on Fargate.

Each of these turns the definition down when it asks for the compatibility, and the
task when it does not but is launched on Fargate all the same.
"""

from __future__ import annotations

import re
from typing import Any, Dict, Iterator, Mapping, Optional, Tuple

from ..excerpt import quoted
from .problem import Problem, Request, Rule
from .sizes import beyond_the_table, cpu_units, fits_fargate, memory_mib, sizes_near
from .values import Entry, containers, entries, inside, items, number, structure, text

_GUIDE = (
    "https://docs.aws.amazon.com/AmazonECS/latest/developerguide/"
    "fargate-tasks-services.html"
)
_EXECUTION_ROLE = (
    "https://docs.aws.amazon.com/AmazonECS/latest/developerguide/"
    "task_execution_IAM_role.html"
)

LOG_DRIVERS = ("awslogs", "splunk", "awsfirelens")
EPHEMERAL_STORAGE_GIB = (21, 200)
MAX_STOP_TIMEOUT = 120

_PRIVATE_ECR = re.compile(r"\d{12}\.dkr[.-]ecr[.-]", re.IGNORECASE)

# Members of a container that Fargate does not have, and whether the refusal has been
# seen (True) or is only promised by the guide (False).
_NOT_IN_CONTAINER: Dict[str, bool] = {
    "privileged": True,
    "disableNetworking": False,
    "dnsSearchDomains": False,
    "dnsServers": False,
    "dockerSecurityOptions": False,
}
_NOT_IN_LINUX_PARAMETERS: Dict[str, bool] = {
    "devices": True,
    "maxSwap": False,
    "sharedMemorySize": False,
    "swappiness": False,
    "tmpfs": False,
}


def wanted(definition: Mapping[str, Any], launch_type: Optional[str] = None) -> bool:
    """Whether the definition is to run on Fargate."""
    return launch_type == "FARGATE" or "FARGATE" in items(
        definition, "requiresCompatibilities"
    )


def _network_mode(definition: Request) -> Iterator[Problem]:
    # "Fargate only supports network mode 'awsvpc'."
    mode = text(definition, "networkMode")
    if mode is not None and mode != "awsvpc":
        yield Problem("networkMode", f"Fargate needs awsvpc, this is {quoted(mode)}")


def _has_network_mode(definition: Request) -> Iterator[Problem]:
    if definition.get("networkMode") is None:
        yield Problem("networkMode", "Fargate needs awsvpc, and the default is bridge")


def _has_size(definition: Request) -> Iterator[Problem]:
    # "Fargate requires that 'cpu' be defined at the task level."
    for key, example in (("cpu", 1024), ("memory", 2048)):
        if definition.get(key) is None:
            yield Problem(
                key, f"Fargate needs {key} for the whole task, such as {example}"
            )


def _size(definition: Request) -> Iterator[Problem]:
    yield from size(definition.get("cpu"), definition.get("memory"), "")


def size(cpu: Any, memory: Any, place: str) -> Iterator[Problem]:
    """A cpu and memory, both readable, that Fargate does not have together."""
    # "No Fargate configuration exists for given values."
    if cpu_units(cpu) is None or memory_mib(memory) is None:
        return
    if not fits_fargate(cpu, memory):
        yield Problem(
            place or "memory",
            f"Fargate has no task with cpu {cpu} and memory {memory}: "
            f"{sizes_near(cpu)}",
            certain=not beyond_the_table(cpu),
        )


def _container_members(definition: Request) -> Iterator[Problem]:
    for entry in containers(definition):
        yield from _not_on_fargate(entry, _NOT_IN_CONTAINER)
        linux = structure(entry.value, "linuxParameters")
        place = inside(entry.place, "linuxParameters")
        yield from _not_on_fargate(Entry(place, linux), _NOT_IN_LINUX_PARAMETERS)


def _not_on_fargate(entry: Entry, members: Mapping[str, bool]) -> Iterator[Problem]:
    for key, seen in members.items():
        if entry.value.get(key):
            yield Problem(inside(entry.place, key), "Fargate does not have it", seen)


def _gpus(definition: Request) -> Iterator[Problem]:
    for entry in containers(definition):
        for need in entries(entry.value, "resourceRequirements", entry.place):
            if need.value.get("type") == "GPU":
                yield Problem(need.place, "Fargate has no GPUs")


def _log_drivers(definition: Request) -> Iterator[Problem]:
    for entry in containers(definition):
        driver = text(structure(entry.value, "logConfiguration"), "logDriver")
        if driver is not None and driver not in LOG_DRIVERS:
            yield Problem(
                inside(entry.place, "logConfiguration.logDriver"),
                f"Fargate has no {quoted(driver)}, only {', '.join(LOG_DRIVERS)}",
            )


def _execution_role(definition: Request) -> Iterator[Problem]:
    if definition.get("executionRoleArn"):
        return
    for entry in containers(definition):
        for place, what in _needs_execution_role(entry):
            yield Problem(
                place, f"{what} on Fargate needs an execution role: executionRoleArn"
            )


def _needs_execution_role(entry: Entry) -> Iterator[Tuple[str, str]]:
    # "Fargate requires task definition to have execution role ARN to support ECR
    # images." and "... to support log driver awslogs."
    if _PRIVATE_ECR.match(text(entry.value, "image") or ""):
        yield inside(entry.place, "image"), "an image in ECR"
    if structure(entry.value, "logConfiguration").get("logDriver") == "awslogs":
        yield inside(entry.place, "logConfiguration"), "the log driver awslogs"


def _volumes(definition: Request) -> Iterator[Problem]:
    # "Fargate compatible task definitions do not support sourcePath"
    for volume in entries(definition, "volumes"):
        if structure(volume.value, "host").get("sourcePath"):
            yield Problem(
                inside(volume.place, "host.sourcePath"), "Fargate has no host to mount"
            )
        if volume.value.get("dockerVolumeConfiguration") is not None:
            yield Problem(
                inside(volume.place, "dockerVolumeConfiguration"),
                "Fargate has no Docker volumes",
            )


def _placement(definition: Request) -> Iterator[Problem]:
    if items(definition, "placementConstraints"):
        yield Problem("placementConstraints", "Fargate has no container instances")


def _namespaces(definition: Request) -> Iterator[Problem]:
    # "Tasks using the Fargate launch type do not support ipcMode."
    if definition.get("ipcMode") is not None:
        yield Problem("ipcMode", "Fargate does not have it")
    if definition.get("pidMode") == "host":
        yield Problem("pidMode", "Fargate has no host to share, only 'task'")


def _ephemeral_storage(definition: Request) -> Iterator[Problem]:
    low, high = EPHEMERAL_STORAGE_GIB
    gib = number(structure(definition, "ephemeralStorage"), "sizeInGiB")
    if gib is not None and not low <= gib <= high:
        yield Problem(
            "ephemeralStorage.sizeInGiB", f"{gib} GiB, and Fargate has {low} to {high}"
        )


def _stop_timeout(definition: Request) -> Iterator[Problem]:
    for entry in containers(definition):
        seconds = number(entry.value, "stopTimeout")
        if seconds is not None and seconds > MAX_STOP_TIMEOUT:
            yield Problem(
                inside(entry.place, "stopTimeout"),
                f"{seconds} s, and Fargate waits at most {MAX_STOP_TIMEOUT}",
                certain=False,
            )


RULES = (
    Rule(_has_network_mode, _GUIDE, whole=True),
    Rule(_network_mode, _GUIDE),
    Rule(_has_size, _GUIDE + "#fargate-tasks-size", whole=True),
    Rule(_size, _GUIDE + "#fargate-tasks-size"),
    Rule(_container_members, _GUIDE),
    Rule(_gpus, _GUIDE),
    Rule(_log_drivers, _GUIDE + "#fargate-tasks-logging"),
    Rule(_execution_role, _EXECUTION_ROLE, whole=True),
    Rule(_volumes, _GUIDE + "#fargate-tasks-storage"),
    Rule(_placement, _GUIDE),
    Rule(_namespaces, _GUIDE),
    Rule(_ephemeral_storage, _GUIDE + "#fargate-tasks-storage"),
    Rule(_stop_timeout, _GUIDE),
)
