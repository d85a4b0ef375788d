"""The options of `install`, checked and frozen. Pure."""

from __future__ import annotations

import math
import re
import textwrap
from dataclasses import dataclass
from typing import Dict, Iterable, List, NamedTuple, Optional, Tuple
from urllib.parse import urlsplit

from ...aws.secret_arn import GET_SECRET, SecretARN
from ...errors import ConfigurationError
from ...template import AGENT_TAG
from ...validation import rules
from ...validation.rules.fargate import MAX_STOP_TIMEOUT

#: The image's repository in the account's own registry, as the docs build it.
IMAGE_REPOSITORY = "prefect-ecs-agent"

#: Seconds between the end of the agent's shutdown grace and SIGKILL.
_STOP_MARGIN = 5

_CLUSTER = re.compile(
    r"(?:arn:(?P<partition>aws[\w-]*):ecs:(?P<region>[\w-]+):(?P<account>\d{12})"
    r":cluster/)?(?P<name>[A-Za-z0-9_-]{1,255})"
)
_KMS_KEY = (
    r"arn:aws[\w-]*:kms:[\w-]+:\d{12}:key/[\w-]+",
    "the ARN of a KMS key, such as arn:aws:kms:eu-west-1:123456789012:key/ID; a policy "
    "cannot name a key by its alias",
)
_ROLE = (
    r"arn:(aws[\w-]*):iam::(\d{12}):role/[\w+=,.@/-]+",
    "the ARN of a role, such as arn:aws:iam::123456789012:role/NAME",
)

#: The valid values of an option as a pattern, and in words. Options that are not listed
#: here name a role.
_FORMS = {
    "--region": (r"[a-z]{2,}(-[a-z]+)+-\d+", "a region, such as eu-west-1"),
    "--cluster": (_CLUSTER.pattern, "the name or the ARN of a cluster"),
    # https://github.com/distribution/reference
    "--image": (
        r"[A-Za-z0-9][\w.-]*(:\d+(?=/))?(/[a-z0-9][a-z0-9._-]*)*"
        r"(:\w[\w.-]{0,127})?(@sha256:[0-9a-f]{64})?",
        "an image: REPOSITORY:TAG or REPOSITORY@sha256: with 64 hex digits",
    ),
    "--family": (
        r"[A-Za-z0-9_*-]{1,255}",
        "a family of task definitions: letters, digits, - and _, and * as a wildcard",
    ),
    "--read-log-group": (
        r"[A-Za-z0-9_./#*-]{1,512}",
        "a log group: letters, digits, . - _ / and #, and * as a wildcard",
    ),
    "--flow-repository": (
        r"[a-z0-9*][a-z0-9._/*-]{0,255}",
        "a repository of ECR: small letters, digits, . - _ and /, and * as a wildcard",
    ),
    "--alarm-topic": (
        r"arn:aws[\w-]*:sns:[\w-]+:\d{12}:[\w.-]{1,256}",
        "the ARN of an SNS topic, such as arn:aws:sns:eu-west-1:123456789012:NAME",
    ),
    # https://docs.aws.amazon.com/tag-editor/latest/userguide/best-practices-and-strats.html
    "--tag": (
        r"(?!aws:)[\w .:/+@-]{1,128}=[\w .:/=+@-]{0,256}",
        "a tag KEY=VALUE of at most 128 and 256 letters, digits, spaces and . : / + - "
        "_ @; keys that begin with aws: are AWS's own",
    ),
    "--tenant-id": (r"[0-9A-Fa-f]{8}(-?[0-9A-Fa-f]{4}){3}-?[0-9A-Fa-f]{12}", "a UUID"),
    "--api": (r"https?://[^/\s]+(/\S*)?", "an http:// or https:// URL"),
    "--agent-address": (
        r"http://(127\.0\.0\.1|0\.0\.0\.0):\d{1,5}(/\S*)?",
        "http://127.0.0.1:PORT, for ECS's health check, or http://0.0.0.0:PORT, for "
        "clients on other machines too",
    ),
    "--api-key-kms-key": _KMS_KEY,
    "--log-kms-key": _KMS_KEY,
}

#: Hosts at which a machine reaches itself.
_LOOPBACK = ("localhost", "127.0.0.1", "::1", "0.0.0.0")


class Cluster(NamedTuple):
    """A cluster's name, and the other parts of its ARN."""

    name: str
    partition: Optional[str] = None
    region: Optional[str] = None
    account: Optional[str] = None


DEFAULT_CLUSTER = Cluster("default")


class FlowNetwork(NamedTuple):
    """The network that the service gives to flow runs.

    Attributes:
        subnets: Their subnets; empty for the agent's.
        security_groups: Their security groups; empty to create one.
        assign_public_ip: Whether they get a public IP address; None: as the agent.
    """

    subnets: Tuple[str, ...] = ()
    security_groups: Tuple[str, ...] = ()
    assign_public_ip: Optional[bool] = None


AS_THE_AGENT = FlowNetwork()


@dataclass(frozen=True)
class Plan:
    """The service to print.

    Attributes:
        name: The name of the agent, the service and the task definition.
        version: The plugin's version.
        arguments: The agent's further command-line arguments.
        cluster: The cluster of the service and of the tasks it launches.
        backend: `cloud` or `server`.
        agent_address: The URL of the agent's health check.
        image: The agent's image; None for the image that the docs build.
        cpu: The agent's CPU units.
        memory: The agent's memory in MiB.
        stop_timeout: Seconds between SIGTERM and SIGKILL.
        vpc_id: The VPC of the security group.
        subnets: The service's subnets; empty to make them a required parameter.
        security_groups: The service's security groups; empty to create one.
        assign_public_ip: Whether the agent gets a public IP address.
        ports: The ports to which the agent opens connections.
        secret: The API key's secret; None if it does not exist yet or is not needed.
        execution_role_arn: The default for flow runs; None for the service's own.
        flow_roles: The roles that the agent may pass to tasks.
        families: The families of task definitions that it may run.
        flow_network: The network of flow runs; None if the agent's own files or the
            default VPC are their network.
        flow_log_group: The log group of flow runs without one; None to create it.
        log_groups: Further log groups of flow runs.
        flow_repositories: The account's repositories with the images of flows.
        objects: `bucket/key` of the files that it reads from S3.
        infers_network: Whether it looks for the default VPC.
        follows_quota: Whether it reads AWS's quotas of vCPUs.
        reads_prices: Whether it reads AWS's Price List.
        key_kms_key: The ARN of the KMS key that encrypts the API key's secret.
        log_kms_key: The ARN of the KMS key that encrypts the new log groups.
        log_format: The format of the agent's own log.
        alarm_topic: The ARN of the SNS topic that is told of the alarm.
        own_tags: The user's tags for all resources.
    """

    name: str
    version: str
    arguments: Tuple[str, ...] = ()
    cluster: Cluster = DEFAULT_CLUSTER
    backend: str = "cloud"
    agent_address: str = "http://127.0.0.1:8080"
    image: Optional[str] = None
    cpu: int = 256
    memory: int = 512
    stop_timeout: int = 30
    vpc_id: Optional[str] = None
    subnets: Tuple[str, ...] = ()
    security_groups: Tuple[str, ...] = ()
    assign_public_ip: bool = True
    ports: Tuple[int, ...] = (443,)
    secret: Optional[SecretARN] = None
    execution_role_arn: Optional[str] = None
    flow_roles: Tuple[str, ...] = ()
    families: Tuple[str, ...] = ()
    flow_network: Optional[FlowNetwork] = AS_THE_AGENT
    flow_log_group: Optional[str] = None
    log_groups: Tuple[str, ...] = ()
    flow_repositories: Tuple[str, ...] = ("*",)
    objects: Tuple[str, ...] = ()
    infers_network: bool = True
    follows_quota: bool = False
    reads_prices: bool = False
    key_kms_key: Optional[str] = None
    log_kms_key: Optional[str] = None
    log_format: str = "json"
    alarm_topic: Optional[str] = None
    own_tags: Tuple[Tuple[str, str], ...] = ()

    @property
    def has_api_key(self) -> bool:
        """Prefect Cloud requires an API key; a Prefect Server has none."""
        return self.backend == "cloud" or self.secret is not None

    @property
    def makes_secret(self) -> bool:
        """Whether to create the API key's secret, without a value."""
        return self.has_api_key and self.secret is None

    @property
    def keeps_key_in_parameter(self) -> bool:
        """Whether the API key is in SSM's parameter store, not in Secrets Manager."""
        return self.secret is not None and self.secret.is_parameter

    @property
    def reads_key(self) -> str:
        """The permission that an execution role needs to read the key."""
        return self.secret.read_by_ecs if self.secret else GET_SECRET

    @property
    def makes_security_group(self) -> bool:
        """Whether to create a security group for the service."""
        return not self.security_groups

    @property
    def makes_flow_security_group(self) -> bool:
        """Whether to create a security group for flow runs."""
        return self.flow_network is not None and not self.flow_network.security_groups

    @property
    def makes_flow_role(self) -> bool:
        """Whether to create an execution role for flow runs."""
        return not self.execution_role_arn

    @property
    def makes_flow_log_group(self) -> bool:
        """Whether to create a log group for flow runs."""
        return not self.flow_log_group

    @property
    def flow_log_group_name(self) -> str:
        """The log group of flow runs: `/ecs/prefect-flows` for `prefect-agent`."""
        stem = re.sub("(?<=.)-agent$", "", self.name)
        return self.flow_log_group or f"/ecs/{stem}-flows"

    @property
    def tags(self) -> Dict[str, str]:
        """The tags of all resources."""
        return {AGENT_TAG: self.name, **dict(self.own_tags)}

    @property
    def flows_in_words(self) -> str:
        """Where flow runs run and write their log, for the head of the output."""
        network = self.flow_network
        if network is None:
            where = "Flows run where their run-task kwargs say."
        else:
            subnets = "their own subnets" if network.subnets else "the agent's subnets"
            groups = "with the security groups of --flow-security-groups"
            if self.makes_flow_security_group:
                groups = "with a new security group: nothing in, everything out"
            where = f"Flows run in {subnets}, {groups}."
        return f"{where} Their log is in {self.flow_log_group_name}."

    @property
    def desired_count(self) -> int:
        """No agent can start before its API key is stored."""
        return 0 if self.makes_secret else 1

    @property
    def image_tag(self) -> str:
        """The tag that the docs give the image: the version, as a tag can spell it."""
        return self.version.replace("+", "-")

    @property
    def health_port(self) -> int:
        """The port of the health check."""
        return urlsplit(self.agent_address).port or 8080


def checked(option: str, text: str) -> str:
    """The value of an option that becomes part of the output.

    Args:
        option: The option, or the origin of a role's ARN.
        text: Its value.

    Raises:
        ConfigurationError: if the value does not have the option's form.
    """
    pattern, wanted = _FORMS.get(option, _ROLE)
    if re.fullmatch(pattern, text):
        return text
    raise ConfigurationError(
        f"{option}: {text!r} is not {wanted}.", code="invalid-option-value"
    )


def comment(text: str) -> str:
    """A sentence as the comment of a template."""
    return textwrap.fill(text, 88, initial_indent="# ", subsequent_indent="# ")


def cluster(text: str) -> Cluster:
    """Parse a cluster's name or ARN.

    Raises:
        ConfigurationError: if it is neither.
    """
    match = _CLUSTER.fullmatch(checked("--cluster", text))
    assert match is not None
    return Cluster(**{**match.groupdict(), "name": match["name"]})


def is_loopback(url: Optional[str]) -> bool:
    """Whether a URL leads each machine, and each task, to itself."""
    return urlsplit(url or "").hostname in _LOOPBACK


def check_no_password(option: str, url: Optional[str]) -> None:
    """Refuse a URL that contains a password, because the output would contain it.

    Raises:
        ConfigurationError: without the URL.
    """
    if "@" in urlsplit(url or "").netloc:
        raise ConfigurationError(
            f"{option}: the URL contains a user name or a password, which the output "
            "would show in plain text; store the password in a secret, and give the "
            "URL without it.",
            code="password-in-url",
        )


def family_patterns(family: str) -> List[str]:
    """The task definitions of a family, as IAM's patterns.

    The agent registers `FAMILY-<16 hex digits>`; a run config may also name a
    definition of the family itself.

    Raises:
        ConfigurationError: if it cannot be a family.
    """
    checked("--family", family)
    if "*" in family:
        return [f"{family}:*"]
    digest = "?" * 16
    stem = family[: rules.MAX_FAMILY - len(digest) - 1].rstrip("-_")
    return [f"{family}:*", f"{stem}-{digest}:*"]


def stop_timeout(shutdown_grace: float) -> int:
    """The seconds between SIGTERM and SIGKILL for an agent with this grace.

    Raises:
        ConfigurationError: if it exceeds Fargate's limit.
    """
    seconds = math.ceil(shutdown_grace) + _STOP_MARGIN
    if seconds > MAX_STOP_TIMEOUT:
        longest = MAX_STOP_TIMEOUT - _STOP_MARGIN
        raise ConfigurationError(
            f"--shutdown-grace: Fargate kills a task {MAX_STOP_TIMEOUT} seconds after "
            f"SIGTERM; the longest possible grace is {longest} seconds.",
            code="shutdown-grace-too-long",
        )
    return max(seconds, 2)


def size(cpu: str, memory: str) -> Tuple[int, int]:
    """The agent's CPU units and MiB.

    Raises:
        ConfigurationError: if Fargate does not have this size.
    """
    units, mib = rules.cpu_units(cpu), rules.memory_mib(memory)
    if units is None or mib is None or not rules.fits_fargate(units, mib):
        raise ConfigurationError(
            f"--cpu {cpu} --memory {memory}: Fargate does not have this size; 256 goes "
            "with 512, 1024 or 2048 MiB, 512 with 1024 to 4096 MiB.",
            code="fargate-size",
        )
    return units, mib


def ports(urls: Iterable[Optional[str]]) -> Tuple[int, ...]:
    """The ports of some URLs, and that of AWS and Prefect Cloud.

    Raises:
        ConfigurationError: if a port is not valid.
    """
    found = {443}
    for url in urls:
        parts = urlsplit(url or "")
        try:
            port = parts.port
        except ValueError as error:
            raise ConfigurationError(f"{url}: {error}", code="invalid-url") from error
        if parts.scheme in ("http", "https"):
            found.add(port or {"http": 80, "https": 443}[parts.scheme])
    return tuple(sorted(found))


def s3_object(path: Optional[str]) -> List[str]:
    """`bucket/key` of a file on S3; empty for any other path."""
    parts = urlsplit(path or "")
    return [f"{parts.netloc}{parts.path}"] if parts.scheme == "s3" else []
