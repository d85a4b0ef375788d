"""What `install` was asked for, checked and frozen. Pure."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Iterable, List, NamedTuple, Optional, Tuple
from urllib.parse import urlsplit

from ...aws.secret_arn import GET_SECRET, SecretARN
from ...errors import ConfigurationError
from ...validation import rules

#: Where the docs have the image pushed to, in the account's own registry.
IMAGE_REPOSITORY = "prefect-ecs-agent"

#: Seconds that the agent takes to finish its launches once it is told to stop.
SHUTDOWN_GRACE = 25.0

#: Seconds on top of that before ECS kills the agent.
_STOP_MARGIN = 5

#: The longest stopTimeout on Fargate.
#: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html
_MAX_STOP_TIMEOUT = 120

_ROLE = re.compile(r"arn:(aws[\w-]*):iam::(\d{12}):role/[\w+=,.@/-]+")
_KMS_KEY = re.compile(r"arn:aws[\w-]*:kms:[\w-]+:\d{12}:key/[\w-]+")
_CLUSTER = re.compile(
    r"(?:arn:(?P<partition>aws[\w-]*):ecs:(?P<region>[\w-]+):(?P<account>\d{12})"
    r":cluster/)?(?P<name>[A-Za-z0-9_-]{1,255})"
)
_FAMILY = re.compile(r"[A-Za-z0-9_*-]{1,255}")

#: What the value of an option looks like, and what to call it.
_FORMS = {
    "--region": (r"[a-z]{2,}(-[a-z]+)+-\d+", "region, such as eu-west-1"),
    "--image": (r"\S{1,255}", "image's name: it has no spaces"),
    "--flow-log-group": (
        r"[A-Za-z0-9_./#*-]{1,512}",
        "log group's name: letters, digits, . - _ / and #, and * for any of them",
    ),
    "--tenant-id": (r"[0-9A-Fa-f]{8}(-?[0-9A-Fa-f]{4}){3}-?[0-9A-Fa-f]{12}", "UUID"),
    "--api": (r"https?://[^/\s]+(/\S*)?", "http:// or https:// URL"),
}

#: Where nothing but the machine itself listens.
_OWN = ("localhost", "127.0.0.1", "::1", "0.0.0.0")


class Cluster(NamedTuple):
    """A cluster's name, and what its ARN says besides."""

    name: str
    partition: Optional[str] = None
    region: Optional[str] = None
    account: Optional[str] = None


DEFAULT_CLUSTER = Cluster("default")


@dataclass(frozen=True)
class Plan:
    """What to print.

    Attributes:
        name: The agent's, the service's and the task definition's.
        version: This plugin's.
        arguments: The options with which the agent is started, as typed.
        cluster: The cluster of the service and of the tasks it launches.
        backend: `cloud` or `server`.
        agent_address: Where the agent serves its health check.
        image: The agent's image; None for the one that the docs build.
        cpu: The agent's CPU units.
        memory: The agent's memory in MiB.
        stop_timeout: Seconds between SIGTERM and SIGKILL.
        vpc_id: Where the security group is made.
        subnets: The service's subnets; empty where they are asked for later.
        security_groups: The service's own; empty to make one.
        assign_public_ip: Whether the agent gets a public address.
        ports: Where the agent has to get through to.
        secret: The API key's; None where there is none yet, or none at all.
        execution_role_arn: The default for flow runs; None for the service's own.
        flow_roles: The roles that the agent may pass to tasks.
        families: Families of task definitions that it may run.
        log_groups: Where flow runs log.
        objects: `bucket/key` of the files it reads from S3.
        infers_network: Whether it looks for the default VPC.
        key_kms_key: The ARN of the KMS key that encrypts the API key's secret.
        log_kms_key: The ARN of the KMS key that encrypts the agent's own log.
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
    log_groups: Tuple[str, ...] = ()
    objects: Tuple[str, ...] = ()
    infers_network: bool = True
    key_kms_key: Optional[str] = None
    log_kms_key: Optional[str] = None

    @property
    def has_api_key(self) -> bool:
        """Prefect Cloud wants a key; a Prefect Server has none of its own."""
        return self.backend == "cloud" or self.secret is not None

    @property
    def makes_secret(self) -> bool:
        """Whether the key's secret is made here, for its value to be put in later."""
        return self.has_api_key and self.secret is None

    @property
    def keeps_key_in_parameter(self) -> bool:
        """Whether the key is in SSM's parameter store, not in Secrets Manager."""
        return self.secret is not None and self.secret.is_parameter

    @property
    def reads_key(self) -> str:
        """What an execution role has to be allowed for the key."""
        return self.secret.read_by_ecs if self.secret else GET_SECRET

    @property
    def makes_security_group(self) -> bool:
        """Whether the service gets a security group of its own."""
        return not self.security_groups

    @property
    def desired_count(self) -> int:
        """No agent starts before its key is there."""
        return 0 if self.makes_secret else 1

    @property
    def image_tag(self) -> str:
        """The tag that the docs give the image: this version, as a tag may spell it."""
        return self.version.replace("+", "-")

    @property
    def health_port(self) -> int:
        """The port of the health check."""
        return urlsplit(self.agent_address).port or 8080


def cluster(text: str) -> Cluster:
    """A cluster by its name or ARN.

    Raises:
        ConfigurationError: if it is neither.
    """
    match = _CLUSTER.fullmatch(text)
    if match is None:
        raise ConfigurationError(
            f"--cluster: {text!r} is neither a cluster's name nor its ARN."
        )
    return Cluster(**{**match.groupdict(), "name": match["name"]})


def checked(option: str, text: str) -> str:
    """The value of an option that becomes part of what is printed.

    Raises:
        ConfigurationError: if it is none.
    """
    pattern, wanted = _FORMS[option]
    if re.fullmatch(pattern, text):
        return text
    raise ConfigurationError(f"{option}: {text!r} is no {wanted}.")


def is_own(url: Optional[str]) -> bool:
    """Whether a URL leads each machine, and each task, to itself."""
    return urlsplit(url or "").hostname in _OWN


def role_arn(option: str, text: str) -> str:
    """A role's ARN; a policy cannot name a role in any other way.

    Raises:
        ConfigurationError: if it is something else.
    """
    if _ROLE.fullmatch(text):
        return text
    raise ConfigurationError(
        f"{option}: {text!r} is not a role's ARN, arn:aws:iam::123456789012:role/NAME."
    )


def kms_key_arn(option: str, text: str) -> str:
    """A KMS key's ARN; a policy cannot name a key by an alias.

    Raises:
        ConfigurationError: if it is something else.
    """
    if _KMS_KEY.fullmatch(text):
        return text
    raise ConfigurationError(
        f"{option}: {text!r} is not a key's ARN, "
        "arn:aws:kms:eu-west-1:123456789012:key/ID."
    )


def check_no_password(option: str, url: Optional[str]) -> None:
    """Refuse a URL whose password would stand in what is printed.

    Raises:
        ConfigurationError: which does not repeat it.
    """
    if "@" in urlsplit(url or "").netloc:
        raise ConfigurationError(
            f"{option}: its URL has a user or a password in it, which would stand in "
            "plain text in what is printed; keep the password in a secret, and name "
            "the server without it."
        )


def family_patterns(family: str) -> List[str]:
    """The task definitions that a family stands for, as IAM writes patterns.

    The agent registers `FAMILY-<16 hex digits>`; a run config may also name a
    definition of the family itself.

    Raises:
        ConfigurationError: if it cannot be a family.
    """
    if not _FAMILY.fullmatch(family):
        raise ConfigurationError(
            f"--family: {family!r} is not a family of task definitions: letters, "
            "digits, - and _, and * for any of them."
        )
    if "*" in family:
        return [f"{family}:*"]
    digest = "?" * 16
    stem = family[: rules.MAX_FAMILY - len(digest) - 1].rstrip("-_")
    return [f"{family}:*", f"{stem}-{digest}:*"]


def stop_timeout(shutdown_grace: float) -> int:
    """Seconds that ECS has to wait for an agent with this grace.

    Raises:
        ConfigurationError: if Fargate does not wait that long.
    """
    seconds = math.ceil(shutdown_grace) + _STOP_MARGIN
    if seconds > _MAX_STOP_TIMEOUT:
        longest = _MAX_STOP_TIMEOUT - _STOP_MARGIN
        raise ConfigurationError(
            f"--shutdown-grace: Fargate kills a task {_MAX_STOP_TIMEOUT} seconds after "
            f"SIGTERM; {longest} is the longest grace."
        )
    return max(seconds, 2)


def size(cpu: str, memory: str) -> Tuple[int, int]:
    """The agent's own size: CPU units and MiB that Fargate has.

    Raises:
        ConfigurationError: if it has not.
    """
    units, mib = rules.cpu_units(cpu), rules.memory_mib(memory)
    if units is None or mib is None or not rules.fits_fargate(units, mib):
        raise ConfigurationError(
            f"--cpu {cpu} --memory {memory}: Fargate has no such size; 256 goes with "
            "512, 1024 or 2048 MiB, 512 with 1024 to 4096 MiB."
        )
    return units, mib


def agent_address(text: str) -> str:
    """Where the agent serves its health check.

    Raises:
        ConfigurationError: if it has no port, or ECS could not ask there.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        port = None
    if port and parts.scheme == "http" and parts.hostname in ("127.0.0.1", "0.0.0.0"):
        return text
    raise ConfigurationError(
        f"--agent-address: {text!r} is not http://127.0.0.1:PORT, where ECS asks for "
        "the agent's health, nor http://0.0.0.0:PORT for others to ask too."
    )


def ports(urls: Iterable[Optional[str]]) -> Tuple[int, ...]:
    """The ports behind some URLs, and that of AWS and of Prefect Cloud.

    Raises:
        ConfigurationError: if a port is none.
    """
    found = {443}
    for url in urls:
        parts = urlsplit(url or "")
        try:
            port = parts.port
        except ValueError as error:
            raise ConfigurationError(f"{url}: {error}") from error
        if parts.scheme in ("http", "https"):
            found.add(port or {"http": 80, "https": 443}[parts.scheme])
    return tuple(sorted(found))


def s3_object(path: Optional[str]) -> List[str]:
    """`bucket/key` of a file on S3."""
    parts = urlsplit(path or "")
    return [f"{parts.netloc}{parts.path}"] if parts.scheme == "s3" else []
