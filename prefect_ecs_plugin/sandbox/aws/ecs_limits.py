"""What RegisterTaskDefinition and RunTask refuse, as tables.

The tables are made from AWS's documentation and from refusals that people have
published. They share nothing with `prefect_ecs_plugin.validation`, so that they can
judge what the agent sends. A request is refused for the first row that it breaks, as
ECS does (https://github.com/boto/boto3/issues/3283). Types, enumerations and required
members are checked before, with botocore's model of ECS.

What the documentation calls invalid but ECS was never seen to refuse has no row, such
as `dnsServers` on Fargate: a request that ECS accepts must not fail here.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from decimal import Decimal
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
)

Map = Mapping[str, Any]

API = "https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_"
GUIDE = "https://docs.aws.amazon.com/AmazonECS/latest/developerguide/"
REGISTER = API + "RegisterTaskDefinition.html"
RUN_TASK = API + "RunTask.html"
CONTAINER = API + "ContainerDefinition.html"
DEPENDENCY = API + "ContainerDependency.html"
OVERRIDE = API + "ContainerOverride.html"
PORT = API + "PortMapping.html"
SECRET = API + "Secret.html"
STRATEGY = API + "CapacityProviderStrategyItem.html"
TASK_OVERRIDE = API + "TaskOverride.html"
VPC = API + "AwsVpcConfiguration.html"
QUOTAS = GUIDE + "service-quotas.html"
FARGATE = GUIDE + "fargate-tasks-services.html"
EXECUTION_ROLE = GUIDE + "task_execution_IAM_role.html"


class Limit(NamedTuple):
    """One thing that ECS refuses.

    Attributes:
        text: ECS's message; {} is what `broken` returns, {name} the container's name.
        source: The page that documents the limit.
        broken: Returns something falsy if the request keeps the limit.
        seen: Where the message was seen, as OWNER/REPOSITORY#NUMBER of GitHub; empty
            if AWS's words are not known and these are assumed.
    """

    text: str
    source: str
    broken: Callable[..., Any]
    seen: str = ""


NO_CPU = ("Invalid 'cpu' setting for task.", "oranmoshai/ecsServiceRestart#2")
NO_MEMORY = "Invalid 'memory' setting for task."
NO_ROLE = ("Role is not valid", "fabfuel/ecs-deploy#231")
NO_SIZE = (
    "No Fargate configuration exists for given values: {}. See the Amazon ECS "
    "documentation for the valid values.",
    "aws-games/cloud-game-development-toolkit#737",
)
NOT_UNIQUE = (
    "The secret name must be unique and not shared with any new or existing "
    "environment variables set on the container, such as '{}'.",
    "dagster-io/dagster#11622",
)

FARGATE_PROVIDERS = frozenset({"FARGATE", "FARGATE_SPOT"})

# CPU units -> MiB, from "Task CPU and memory" in FARGATE.
FARGATE_MEMORY: Dict[int, Sequence[int]] = {
    256: (512, 1024, 2048),
    512: range(1024, 4 * 1024 + 1, 1024),
    1024: range(2 * 1024, 8 * 1024 + 1, 1024),
    2048: range(4 * 1024, 16 * 1024 + 1, 1024),
    4096: range(8 * 1024, 30 * 1024 + 1, 1024),
    8192: range(16 * 1024, 60 * 1024 + 1, 4 * 1024),
    16384: range(32 * 1024, 120 * 1024 + 1, 8 * 1024),
}

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,255}")
# https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateRole.html
_ROLE = re.compile(r"arn:[^:\s]+:iam::[^:\s]+:role/[!-~]+")
_PRIVATE_ECR = re.compile(r"\d{12}\.dkr[.-]ecr[.-]", re.IGNORECASE)
_STARTED_BY = re.compile(r"[a-zA-Z0-9/_-]{0,128}")
_CLIENT_TOKEN = re.compile(r"[\x21-\x7e]{0,64}")


def cpu_units(size: Optional[str]) -> Optional[int]:
    """CPU units of `1024`, `1 vCPU` or `.5 vcpu`; None if ECS cannot read it.

    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_definition_parameters.html#task_size
    """
    return _amount(size, "vcpu")


def memory_mib(size: Optional[str]) -> Optional[int]:
    """MiB of `2048`, `2 GB` or `0.5gb`; None if ECS cannot read it."""
    return _amount(size, "gb")


def _amount(size: Optional[str], unit: str) -> Optional[int]:
    pattern = rf"\s*(\d+\.?\d*|\.\d+)\s*({unit})?\s*"
    match = re.fullmatch(pattern, size or "", re.IGNORECASE)
    if match is None:
        return None
    amount = Decimal(match[1]) * (1024 if match[2] else 1)
    return int(amount) if amount == int(amount) else None


def _no_fargate_size(task: Map) -> Optional[str]:
    units, mib = cpu_units(task.get("cpu")), memory_mib(task.get("memory"))
    if units is None or mib is None or mib in FARGATE_MEMORY.get(units, ()):
        return None
    return f"{units} CPU, {mib} memory"


def _names(entries: Iterable[Map]) -> List[Any]:
    return [entry.get("name") for entry in entries]


def _repeated(values: Iterable[Any]) -> Any:
    return next((value for value, count in Counter(values).items() if count > 1), None)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _invalid_role(roles: Map) -> bool:
    """Whether one of the two is a malformed ARN; a name alone is allowed."""
    given = (roles.get(key, "") for key in ("taskRoleArn", "executionRoleArn"))
    return any(arn.startswith("arn:") and not _ROLE.fullmatch(arn) for arn in given)


def _unreadable(task: Map, key: str, read: Callable[[str], Optional[int]]) -> bool:
    return key in task and read(task[key]) is None


# Limits of both requests


def _at_most(most: int, source: str, *path: str) -> Limit:
    """A limit of the length of a list."""

    def broken(request: Map) -> bool:
        found: Any = request
        for key in path:
            found = found.get(key, {})
        return len(found) > most

    text = f"{path[-1]} can have at most {most} items."
    return Limit(text, source, broken, "opensearch-project/opensearch-migrations#1430")


def _bad_tag(text: str, most: int) -> bool:
    # The model's pattern is ([\p{L}\p{Z}\p{N}_.:/=+\-@]*).
    return len(text) > most or any(
        char not in "_.:/=+-@" and unicodedata.category(char)[0] not in "LZN"
        for char in text
    )


def _repeated_tag(request: Map) -> Any:
    return _repeated(tag.get("key") for tag in request.get("tags", ()))


def _invalid_tag(request: Map) -> Optional[str]:
    for tag in request.get("tags", ()):
        key, value = tag.get("key", ""), tag.get("value", "")
        reserved = key.lower().startswith("aws:")
        if not key or reserved or _bad_tag(key, 128) or _bad_tag(value, 256):
            return f"{key}={value}"
    return None


TAG_LIMITS = (
    _at_most(50, API + "Tag.html", "tags"),
    Limit("Duplicate tag keys found: {}.", API + "Tag.html", _repeated_tag),
    Limit("Invalid tag: {}", API + "Tag.html", _invalid_tag),
)


# RegisterTaskDefinition


def _too_long(definition: Map) -> Optional[int]:
    untagged = {key: value for key, value in definition.items() if key != "tags"}
    size = len(_json(untagged).encode("utf-8", "surrogatepass"))
    return size if size > 65536 else None


def _without_essential(definition: Map) -> bool:
    containers = definition["containerDefinitions"]
    return not any(container.get("essential", True) for container in containers)


def _too_much_cpu(definition: Map) -> bool:
    task = cpu_units(definition.get("cpu"))
    wanted = sum(each.get("cpu", 0) for each in definition["containerDefinitions"])
    return task is not None and wanted > task


DEFINITION_LIMITS = (
    Limit(
        "Family can not be blank.",
        REGISTER,
        lambda definition: not definition["family"],
        "aws-actions/amazon-ecs-deploy-task-definition#630",
    ),
    Limit(
        "Family contains invalid characters.",
        REGISTER,
        lambda definition: not _NAME.fullmatch(definition["family"]),
        "aws/amazon-ecs-cli#37",
    ),
    Limit(
        "Container list cannot be empty.",
        REGISTER,
        lambda definition: not definition["containerDefinitions"],
        "awsdocs/aws-cloudformation-user-guide#454",
    ),
    Limit(
        "Too many containers.",
        QUOTAS,
        lambda definition: len(definition["containerDefinitions"]) > 10,
        "aws/amazon-ecs-cli#184",
    ),
    Limit(
        "Actual length: '{}'. Max allowed length is '65536' bytes.",
        QUOTAS,
        _too_long,
        "awsdocs/amazon-ecs-developer-guide#149",
    ),
    *TAG_LIMITS,
    _at_most(10, REGISTER, "placementConstraints"),
    Limit(
        "Duplicate container name found: {}.",
        CONTAINER,
        lambda definition: _repeated(_names(definition["containerDefinitions"])),
    ),
    Limit(
        "All tasks must have at least one essential container.",
        CONTAINER,
        _without_essential,
    ),
    Limit(NO_CPU[0], REGISTER, lambda d: _unreadable(d, "cpu", cpu_units), NO_CPU[1]),
    Limit(NO_MEMORY, REGISTER, lambda d: _unreadable(d, "memory", memory_mib)),
    Limit(
        "The sum of all container 'cpu' values cannot be greater than the value of the "
        "task 'cpu'.",
        CONTAINER,
        _too_much_cpu,
        "klothoplatform/klotho#892",
    ),
    Limit(NO_ROLE[0], REGISTER, _invalid_role, NO_ROLE[1]),
)


# Each container of a definition


def _no_memory(container: Map, definition: Map) -> bool:
    own = container.get("memory") or container.get("memoryReservation")
    return "memory" not in definition and not own


def _more_reserved(container: Map, _: Map) -> bool:
    memory = container.get("memory")
    return bool(memory) and container.get("memoryReservation", 0) > memory


def _too_much_memory(container: Map, definition: Map) -> bool:
    task = memory_mib(definition.get("memory"))
    return task is not None and container.get("memory", 0) > task


def _shared_secret(container: Map, _: Map) -> Any:
    secrets = _names(container.get("secrets", ()))
    variables = _names(container.get("environment", ()))
    return next((name for name in variables if name in secrets), None)


def _no_role_for_secrets(container: Map, definition: Map) -> bool:
    return bool(container.get("secrets")) and not definition.get("executionRoleArn")


def _differing_port(container: Map, definition: Map) -> Optional[str]:
    mode = definition.get("networkMode")
    pairs = (
        (port.get("hostPort"), port.get("containerPort"))
        for port in container.get("portMappings", ())
    )
    differ = any(host and inner and host != inner for host, inner in pairs)
    return mode if differ and mode in ("awsvpc", "host") else None


def _in_mode(key: str, *modes: str) -> Callable[[Map, Map], Optional[str]]:
    """A member that a container cannot have in these network modes."""

    def broken(container: Map, definition: Map) -> Optional[str]:
        mode = definition.get("networkMode")
        return mode if container.get(key) and mode in modes else None

    return broken


def _missing_log_options(container: Map, _: Map) -> Optional[str]:
    log = container.get("logConfiguration", {})
    if log.get("logDriver") != "awslogs":
        return None
    needed = ("awslogs-region", "awslogs-group")
    return ", ".join(key for key in needed if key not in log.get("options", {}))


def _unknown_volume(container: Map, definition: Map) -> Any:
    known = _names(definition.get("volumes", ()))
    mounts = container.get("mountPoints", ())
    used = (mount["sourceVolume"] for mount in mounts if "sourceVolume" in mount)
    return next((f"'{volume}'" for volume in used if volume not in known), None)


def _unknown_dependency(container: Map, definition: Map) -> Any:
    known = _names(definition["containerDefinitions"])
    wanted = (other["containerName"] for other in container.get("dependsOn", ()))
    return next((f"'{name}'" for name in wanted if name not in known), None)


def _essential_dependency(container: Map, definition: Map) -> bool:
    containers = definition["containerDefinitions"]
    essential = _names(each for each in containers if each.get("essential", True))
    return any(
        other["condition"] in ("SUCCESS", "COMPLETE")
        and other["containerName"] in essential
        for other in container.get("dependsOn", ())
    )


CONTAINER_LIMITS = (
    Limit(
        "Container.name should not be null or empty.",
        CONTAINER,
        lambda container, _: not container.get("name"),
        "hashicorp/terraform#2888",
    ),
    Limit(
        "Container.name contains invalid characters.",
        CONTAINER,
        lambda container, _: not _NAME.fullmatch(container["name"]),
        "hashicorp/terraform-provider-aws#5950",
    ),
    Limit(
        "Container.image should not be null or empty.",
        CONTAINER,
        lambda container, _: not container.get("image"),
        "aws/aws-cli#5924",
    ),
    Limit(
        "Container.image contains invalid characters.",
        CONTAINER,
        lambda container, _: re.search(r"\s", container["image"]),
    ),
    Limit(
        "Invalid setting for container '{name}'. At least one of 'memory' or "
        "'memoryReservation' must be specified.",
        CONTAINER,
        _no_memory,
        "aws/aws-cli#4453",
    ),
    Limit(
        "Invalid setting for container '{name}'. 'memory' must be greater than "
        "'memoryReservation'.",
        CONTAINER,
        _more_reserved,
    ),
    Limit(
        "The 'memory' setting for container '{name}' is greater than for the task.",
        CONTAINER,
        _too_much_memory,
    ),
    Limit(
        "Duplicate secret names found: {}. Each secret name must be unique.",
        SECRET,
        lambda container, _: _repeated(_names(container.get("secrets", ()))),
        "CircleCI-Public/aws-ecs-orb#190",
    ),
    Limit(NOT_UNIQUE[0], SECRET, _shared_secret, NOT_UNIQUE[1]),
    Limit(
        "When you are specifying container secrets, you must specify a value for "
        "'executionRoleArn'.",
        EXECUTION_ROLE,
        _no_role_for_secrets,
    ),
    Limit(
        "Port mappings are not supported when networkMode={}.",
        PORT,
        _in_mode("portMappings", "none"),
    ),
    Limit(
        "When networkMode={}, the host ports and container ports in port mappings must "
        "match.",
        PORT,
        _differing_port,
        "klothoplatform/klotho#892",
    ),
    Limit(
        "Links are not supported when networkMode={}.",
        CONTAINER,
        _in_mode("links", "awsvpc", "host", "none"),
        "aws-observability/aws-otel-collector#1359",
    ),
    Limit(
        "Extra hosts are not supported when networkMode={}.",
        CONTAINER,
        _in_mode("extraHosts", "awsvpc"),
    ),
    Limit(
        "hostname is not supported on container when networkMode={}.",
        CONTAINER,
        _in_mode("hostname", "awsvpc"),
        "labd/ecs-deplojo#26",
    ),
    Limit(
        "Log driver awslogs requires options: {}",
        API + "LogConfiguration.html",
        _missing_log_options,
        "klothoplatform/klotho#892",
    ),
    Limit("Unknown volume {}.", API + "MountPoint.html", _unknown_volume),
    Limit(
        "Cannot depend on container + {} because it does not exist",
        DEPENDENCY,
        _unknown_dependency,
        "dagster-io/dagster#6926",
    ),
    Limit(
        "A dependency container with SUCCESS or COMPLETE condition cannot be an "
        "essential container",
        DEPENDENCY,
        _essential_dependency,
        "boto/boto3#2436",
    ),
)


# A definition that is to run on Fargate, and each of its containers


def _unsupported_in_task(definition: Map) -> Optional[str]:
    for volume in definition.get("volumes", ()):
        if volume.get("host", {}).get("sourcePath"):
            return "sourcePath"
        if "dockerVolumeConfiguration" in volume:
            return "dockerVolumeConfiguration"
    key = "placementConstraints"
    return key if definition.get(key) else None


def _unsupported_in_container(container: Map, _: Map) -> Optional[str]:
    needs = container.get("resourceRequirements", ())
    driver = container.get("logConfiguration", {}).get("logDriver", "awslogs")
    members = {
        "privileged": container.get("privileged"),
        "devices": container.get("linuxParameters", {}).get("devices"),
        "GPU": any(need["type"] == "GPU" for need in needs),
        f"log driver {driver}": driver not in ("awslogs", "splunk", "awsfirelens"),
    }
    return next((name for name, given in members.items() if given), None)


def _unsupported_namespace(definition: Map) -> Optional[str]:
    if "ipcMode" in definition:
        return "ipcMode"
    return "pidMode" if definition.get("pidMode") == "host" else None


def _wrong_storage(definition: Map) -> bool:
    gib = definition.get("ephemeralStorage", {}).get("sizeInGiB", 21)
    return not 21 <= gib <= 200


def _needs_execution_role(container: Map, definition: Map) -> Optional[str]:
    if definition.get("executionRoleArn"):
        return None
    if _PRIVATE_ECR.match(container["image"]):
        return "ECR images"
    driver = container.get("logConfiguration", {}).get("logDriver")
    return "log driver awslogs" if driver == "awslogs" else None


FARGATE_LIMITS = (
    Limit(
        "Fargate only supports network mode ‘awsvpc’.",
        FARGATE,
        lambda definition: definition.get("networkMode") != "awsvpc",
        "aws/amazon-ecs-cli#1145",
    ),
    Limit(
        "Fargate requires that '{}' be defined at the task level.",
        FARGATE + "#fargate-tasks-size",
        lambda d: next((key for key in ("cpu", "memory") if key not in d), None),
        "klothoplatform/klotho#892",
    ),
    Limit(NO_SIZE[0], FARGATE + "#fargate-tasks-size", _no_fargate_size, NO_SIZE[1]),
    Limit(
        "Fargate compatible task definitions do not support {}",
        FARGATE,
        _unsupported_in_task,
        "cloudposse/terraform-aws-ecs-alb-service-task#174",
    ),
    Limit(
        "Tasks using the Fargate launch type do not support {}.",
        FARGATE,
        _unsupported_namespace,
        "cn-terraform/terraform-aws-ecs-fargate#2",
    ),
    Limit(
        "Invalid 'ephemeralStorage' setting for task: 21 to 200 GiB are allowed.",
        API + "EphemeralStorage.html",
        _wrong_storage,
    ),
)
FARGATE_CONTAINER_LIMITS = (
    Limit(
        "Fargate compatible task definitions do not support {}",
        FARGATE,
        _unsupported_in_container,
        "cloudposse/terraform-aws-ecs-alb-service-task#174",
    ),
    Limit(
        "Fargate requires task definition to have execution role ARN to support {}.",
        EXECUTION_ROLE,
        _needs_execution_role,
        "virtual-kubelet/virtual-kubelet#193",
    ),
)


def definition_refusal(request: Map) -> Optional[str]:
    """The message with which RegisterTaskDefinition refuses a request, or None."""
    refusal = _first(DEFINITION_LIMITS, CONTAINER_LIMITS, request)
    if refusal is None and "FARGATE" in request.get("requiresCompatibilities", ()):
        return _fargate_refusal(request)
    return refusal


def compatibilities(definition: Map) -> List[str]:
    """Where ECS finds that a definition can run, whatever it asks for.

    https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_TaskDefinition.html
    """
    # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-anywhere.html
    external = [] if definition.get("networkMode") == "awsvpc" else ["EXTERNAL"]
    fargate = [] if _fargate_refusal(definition) else ["FARGATE"]
    return [*external, "EC2", *fargate]


def _fargate_refusal(definition: Map) -> Optional[str]:
    return _first(FARGATE_LIMITS, FARGATE_CONTAINER_LIMITS, definition)


def _first(
    limits: Sequence[Limit], container_limits: Sequence[Limit], definition: Map
) -> Optional[str]:
    refusal = _broken(limits, definition)
    for container in definition["containerDefinitions"]:
        refusal = refusal or _broken(container_limits, container, definition)
    return refusal


def _broken(limits: Sequence[Limit], *requests: Map) -> Optional[str]:
    for limit in limits:
        value = limit.broken(*requests)
        if value:
            return limit.text.format(value, name=requests[0].get("name"))
    return None


# RunTask


def _strategy(request: Map) -> List[Map]:
    return list(request.get("capacityProviderStrategy", ()))


def _overrides(request: Map) -> Map:
    return dict(request.get("overrides", {}))


def _container_overrides(request: Map) -> List[Map]:
    return [each for each in _overrides(request).get("containerOverrides", ()) if each]


def _awsvpc(request: Map) -> Map:
    network = request.get("networkConfiguration", {})
    return dict(network.get("awsvpcConfiguration", {}))


def _launch_type(request: Map) -> Optional[str]:
    """EC2, FARGATE, ...; None where the cluster or an Auto Scaling group decides."""
    if "launchType" in request:
        return str(request["launchType"])
    providers = {item["capacityProvider"] for item in _strategy(request)}
    return "FARGATE" if providers and providers <= FARGATE_PROVIDERS else None


def _is_mixed(request: Map) -> bool:
    providers = (item["capacityProvider"] for item in _strategy(request))
    return len({provider in FARGATE_PROVIDERS for provider in providers}) > 1


def _outside(key: str, most: int) -> Callable[[Map], bool]:
    return lambda request: any(
        not 0 <= item.get(key, 0) <= most for item in _strategy(request)
    )


def _without_weight(request: Map) -> bool:
    weights = [item.get("weight", 0) for item in _strategy(request)]
    return len(weights) > 1 and not any(weights)


def _with(launch_type: str, key: str) -> Callable[[Map], Any]:
    """A member that this launch type does not have."""
    return lambda request: request.get("launchType") == launch_type and request.get(key)


def _public_ip_on_ec2(request: Map) -> bool:
    public = _awsvpc(request).get("assignPublicIp") == "ENABLED"
    return public and request.get("launchType") == "EC2"


RUN_TASK_LIMITS = (
    Limit(
        "count must be between 1 and 10.",
        RUN_TASK,
        lambda request: not 1 <= request.get("count", 1) <= 10,
    ),
    Limit(
        "startedBy can have at most 128 letters, digits, hyphens, slashes, underscores",
        RUN_TASK,
        lambda request: not _STARTED_BY.fullmatch(request.get("startedBy", "")),
    ),
    Limit(
        "clientToken must have at most 64 ASCII characters in the range of 33-126",
        RUN_TASK,
        lambda request: not _CLIENT_TOKEN.fullmatch(request.get("clientToken", "")),
    ),
    Limit(
        "The SERVICE option of propagateTags is not supported when running a task.",
        RUN_TASK,
        lambda request: request.get("propagateTags") == "SERVICE",
    ),
    *TAG_LIMITS,
    Limit(
        "Specifying both a launch type and capacity provider strategy is not "
        "supported. Remove one and try again.",
        RUN_TASK,
        lambda request: "launchType" in request and _strategy(request),
        "terraform-linters/tflint-ruleset-aws#349",
    ),
    _at_most(20, RUN_TASK, "capacityProviderStrategy"),
    Limit(
        "A capacity provider strategy cannot contain a mix of capacity providers using "
        "Auto Scaling groups and Fargate providers.",
        GUIDE + "cluster-capacity-providers.html",
        _is_mixed,
    ),
    Limit("weight must be between 0 and 1000.", STRATEGY, _outside("weight", 1000)),
    Limit("base must be between 0 and 100000.", STRATEGY, _outside("base", 100000)),
    Limit(
        "There are no capacity providers with a weight value greater than zero defined "
        "in the capacity provider strategy.",
        STRATEGY,
        _without_weight,
        "terraform-aws-modules/terraform-aws-ecs#27",
    ),
    Limit(
        "Only one capacity provider in a capacity provider strategy can have a base.",
        STRATEGY,
        lambda request: sum(item.get("base", 0) > 0 for item in _strategy(request)) > 1,
    ),
    Limit("subnets can not be empty.", VPC, lambda r: _awsvpc(r).get("subnets") == []),
    _at_most(16, VPC, "networkConfiguration", "awsvpcConfiguration", "subnets"),
    _at_most(5, VPC, "networkConfiguration", "awsvpcConfiguration", "securityGroups"),
    Limit(
        "Assign public IP is not supported for this launch type.",
        VPC,
        _public_ip_on_ec2,
        "aws/amazon-ecs-cli#627",
    ),
    Limit(
        "The platform version must be null when specifying an EC2 launch type.",
        RUN_TASK,
        _with("EC2", "platformVersion"),
        "aws/amazon-ecs-cli#1047",
    ),
    Limit(
        "Placement constraints are not supported with FARGATE launch type.",
        FARGATE,
        _with("FARGATE", "placementConstraints"),
        "GetSimpl/cloudlift#138",
    ),
    Limit(
        "Placement strategies are not supported with FARGATE launch type.",
        FARGATE,
        _with("FARGATE", "placementStrategy"),
    ),
    _at_most(10, RUN_TASK, "placementConstraints"),
    _at_most(5, RUN_TASK, "placementStrategy"),
    Limit(
        "Container Overrides length must be at most 8192",
        RUN_TASK,
        lambda request: len(_json(_overrides(request))) > 8192,
        "convox/rack#1906",
    ),
    Limit(
        "Container override name should not be null or empty.",
        OVERRIDE,
        lambda request: not all(_names(_container_overrides(request))),
    ),
    Limit(
        NO_CPU[0],
        TASK_OVERRIDE,
        lambda request: _unreadable(_overrides(request), "cpu", cpu_units),
        NO_CPU[1],
    ),
    Limit(
        NO_MEMORY,
        TASK_OVERRIDE,
        lambda request: _unreadable(_overrides(request), "memory", memory_mib),
    ),
    Limit(
        NO_ROLE[0],
        TASK_OVERRIDE,
        lambda request: _invalid_role(_overrides(request)),
        NO_ROLE[1],
    ),
)


# RunTask with the definition that it names, as ECS describes it


def _unknown_container(request: Map, definition: Map) -> Any:
    known = _names(definition["containerDefinitions"])
    named = _names(_container_overrides(request))
    return next((name for name in named if name not in known), None)


def _overridden_secret(request: Map, definition: Map) -> Any:
    containers = {each["name"]: each for each in definition["containerDefinitions"]}
    for override in _container_overrides(request):
        secrets = containers[override["name"]].get("secrets", ())
        shared = _shared_secret({**override, "secrets": secrets}, definition)
        if shared is not None:
            return shared
    return None


def _no_network(request: Map, definition: Map) -> bool:
    return definition.get("networkMode") == "awsvpc" and not _awsvpc(request)


def _network_without_awsvpc(request: Map, definition: Map) -> bool:
    given = bool(request.get("networkConfiguration"))
    return given and definition.get("networkMode") != "awsvpc"


def _unsupported_launch_type(request: Map, definition: Map) -> Optional[str]:
    launch_type = _launch_type(request)
    return None if launch_type in definition["compatibilities"] else launch_type


def _no_overridden_size(request: Map, definition: Map) -> Optional[str]:
    on_fargate = _launch_type(request) == "FARGATE"
    effective = {**definition, **_overrides(request)}
    return _no_fargate_size(effective) if on_fargate else None


def _no_role_for_exec(request: Map, definition: Map) -> bool:
    role = definition.get("taskRoleArn") or _overrides(request).get("taskRoleArn")
    return request.get("enableExecuteCommand", False) and not role


LAUNCH_LIMITS = (
    Limit(
        "Override for container named {} is not a container in the TaskDefinition.",
        OVERRIDE,
        _unknown_container,
        "azavea/django-ecsmanage#21",
    ),
    Limit(NOT_UNIQUE[0], SECRET, _overridden_secret, NOT_UNIQUE[1]),
    Limit(
        "Network Configuration must be provided when networkMode 'awsvpc' is "
        "specified.",
        RUN_TASK,
        _no_network,
        "fabfuel/ecs-deploy#133",
    ),
    Limit(
        "Network Configuration is not valid for the given networkMode of this task "
        "definition.",
        RUN_TASK,
        _network_without_awsvpc,
        "muya/amazon-ecs-run-task#7",
    ),
    Limit(
        "Task definition does not support launch_type {}.",
        API + "TaskDefinition.html",
        _unsupported_launch_type,
        "oranmoshai/ecsServiceRestart#2",
    ),
    Limit(NO_SIZE[0], FARGATE + "#fargate-tasks-size", _no_overridden_size, NO_SIZE[1]),
    Limit(
        "The task couldn't be started because a valid taskRoleArn is not being used. "
        "Specify a valid task role in your task definition and try again.",
        # For services ECS's words are nearly these: aws/aws-toolkit-jetbrains#3649.
        GUIDE + "ecs-exec.html",
        _no_role_for_exec,
    ),
)


def run_task_refusal(request: Map, definition: Map) -> Optional[str]:
    """The message with which RunTask refuses a request, or None.

    Args:
        request: The request, of the types that botocore's model has.
        definition: The definition that it runs, as DescribeTaskDefinition shows it.
    """
    refusal = _broken(RUN_TASK_LIMITS, request)
    return refusal or _broken(LAUNCH_LIMITS, request, definition)
