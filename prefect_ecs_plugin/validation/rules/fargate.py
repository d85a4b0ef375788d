"""What ECS also refuses in a task definition that is to run on Fargate.

ECS refuses the definition where it requires the compatibility FARGATE, and otherwise
the task that is launched on Fargate.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any, Iterator, Optional

from ..excerpt import quoted
from .request import Part, Problem, Rule, in_range
from .sizes import beyond_the_table, may_be_on_fargate, sizes_near

GUIDE = (
    "https://docs.aws.amazon.com/AmazonECS/latest/developerguide/"
    "fargate-tasks-services.html"
)
_EXECUTION_ROLE = (
    "https://docs.aws.amazon.com/AmazonECS/latest/developerguide/"
    "task_execution_IAM_role.html"
)

_LOG_DRIVERS = ("awslogs", "splunk", "awsfirelens")
MAX_STOP_TIMEOUT = 120

_PRIVATE_ECR = re.compile(r"\d{12}\.dkr[.-]ecr[.-]", re.IGNORECASE)

# Members that Fargate does not have. True: the refusal was observed. False: only the
# guide announces it.
_NOT_IN_CONTAINER = {
    "privileged": True,
    "disableNetworking": False,
    "dnsSearchDomains": False,
    "dnsServers": False,
    "dockerSecurityOptions": False,
}
_NOT_IN_LINUX_PARAMETERS = {
    "devices": True,
    "maxSwap": False,
    "sharedMemorySize": False,
    "swappiness": False,
    "tmpfs": False,
}


def required_by(definition: Part) -> bool:
    """Whether a definition requires the compatibility FARGATE."""
    return "FARGATE" in definition.items("requiresCompatibilities")


def not_on_fargate(part: Part, key: str, certain: bool = True) -> Iterator[Problem]:
    """A member that a request for Fargate cannot have; an empty structure counts."""
    if part.get(key) or part.get(key) == {}:
        yield part.problem(
            key, "Fargate does not support it", code="not-on-fargate", certain=certain
        )


def _network_mode(definition: Part, default: Optional[str] = None) -> Iterator[Problem]:
    # "Fargate only supports network mode 'awsvpc'."
    mode = definition.text("networkMode") or default
    if mode not in (None, "awsvpc"):
        yield definition.problem(
            "networkMode",
            f"Fargate needs network mode awsvpc, not {quoted(mode)}",
            code="fargate-network-mode",
        )


def _has_size(definition: Part) -> Iterator[Problem]:
    # "Fargate requires that 'cpu' be defined at the task level."
    for key, example in (("cpu", 1024), ("memory", 2048)):
        if definition.get(key) is None:
            yield definition.problem(
                key,
                f"Fargate needs {key} for the whole task, such as {example}",
                code="no-task-size",
            )


def _size(definition: Part) -> Iterator[Problem]:
    yield from size(definition.get("cpu"), definition.get("memory"), "memory")


def size(cpu: Any, memory: Any, place: str) -> Iterator[Problem]:
    """A readable cpu and memory that Fargate does not have, alone or together.

    Args:
        cpu: As it was written; None if it is not known.
        memory: Likewise.
        place: Where they are.
    """
    # "No Fargate configuration exists for given values."
    if may_be_on_fargate(cpu, memory):
        return
    given = {"cpu": cpu, "memory": memory}
    found = [f"{key} {each}" for key, each in given.items() if each is not None]
    yield Problem(
        place,
        f"Fargate has no task size with {' and '.join(found)}: {sizes_near(cpu)}",
        code="fargate-size",
        certain=not beyond_the_table(cpu, memory),
    )


def _unsupported_members(definition: Part) -> Iterator[Problem]:
    # "Tasks using the Fargate launch type do not support ipcMode.", and
    # "Fargate compatible task definitions do not support sourcePath".
    yield from not_on_fargate(definition, "placementConstraints")
    yield from not_on_fargate(definition, "ipcMode")
    if definition.get("pidMode") == "host":
        yield definition.problem(
            "pidMode", "Fargate supports 'task' only", code="not-on-fargate"
        )
    for volume in definition.parts("volumes"):
        yield from not_on_fargate(volume.part("host"), "sourcePath")
        yield from not_on_fargate(volume, "dockerVolumeConfiguration")
    for container in definition.parts("containerDefinitions"):
        for key, certain in _NOT_IN_CONTAINER.items():
            yield from not_on_fargate(container, key, certain)
        for key, certain in _NOT_IN_LINUX_PARAMETERS.items():
            yield from not_on_fargate(container.part("linuxParameters"), key, certain)
        for need in container.parts("resourceRequirements"):
            if need.get("type") == "GPU":
                yield need.problem("", "Fargate has no GPUs", code="not-on-fargate")


def _log_drivers(definition: Part) -> Iterator[Problem]:
    for container in definition.parts("containerDefinitions"):
        log = container.part("logConfiguration")
        driver = log.text("logDriver")
        if driver is not None and driver not in _LOG_DRIVERS:
            yield log.problem(
                "logDriver",
                f"Fargate has no {quoted(driver)}: use one of "
                f"{', '.join(_LOG_DRIVERS)}",
                code="fargate-log-driver",
            )


def _execution_role(definition: Part) -> Iterator[Problem]:
    # "Fargate requires task definition to have execution role ARN to support ECR
    # images." and "... to support log driver awslogs."
    if definition.get("executionRoleArn"):
        return
    for container in definition.parts("containerDefinitions"):
        if _PRIVATE_ECR.match(container.text("image") or ""):
            yield container.problem(
                "image",
                "Fargate needs an execution role for images in ECR: set "
                "executionRoleArn",
                code="no-execution-role",
            )
        if container.part("logConfiguration").get("logDriver") == "awslogs":
            yield container.problem(
                "logConfiguration",
                "Fargate needs an execution role for the log driver awslogs: set "
                "executionRoleArn",
                code="no-execution-role",
            )


def _limits(definition: Part) -> Iterator[Problem]:
    yield from in_range(definition.part("ephemeralStorage"), "sizeInGiB", 21, 200)
    for container in definition.parts("containerDefinitions"):
        yield from in_range(container, "stopTimeout", 0, MAX_STOP_TIMEOUT, False)


RULES = (
    Rule(_network_mode, GUIDE),
    Rule(partial(_network_mode, default="bridge"), GUIDE, whole=True),
    Rule(_has_size, GUIDE + "#fargate-tasks-size", whole=True),
    Rule(_size, GUIDE + "#fargate-tasks-size"),
    Rule(_unsupported_members, GUIDE),
    Rule(_log_drivers, GUIDE + "#fargate-tasks-logging"),
    Rule(_execution_role, _EXECUTION_ROLE, whole=True),
    Rule(_limits, GUIDE + "#fargate-tasks-storage"),
)
