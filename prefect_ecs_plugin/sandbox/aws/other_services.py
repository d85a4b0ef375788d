"""Moto: everything of AWS but ECS's tasks and their definitions.

Requests for EC2, S3, IAM, logs and the others go to moto as they are; ECS's own
modules ask it what they need to know (clusters, subnets, secrets) through the small
methods here. Moto keeps its state in plain dicts without locks, and for the whole
process, so everything goes through one lock and starts from nothing.

Moto makes no calls: it runs as a server application here, without patching any
client, so there is no request that it could pass through to the real AWS.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from io import BytesIO
from typing import (
    Any,
    Dict,
    Iterable,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
)
from urllib.parse import unquote_to_bytes

from ..http_server import Request, Response
from .responses import Refusal, bad_parameter, check_region
from .task import Task

ACCOUNT = "123456789012"

# What the sandbox serves. Moto has more services, but a request for one of them is
# probably a mistake.
SERVED = frozenset(
    {
        "autoscaling",
        "cloudformation",
        "ec2",
        "ecr",
        "ecs",
        "iam",
        "kms",
        "logs",
        "monitoring",
        "s3",
        "secretsmanager",
        "servicequotas",
        "ssm",
        "sts",
        "tagging",
    }
)


#: The vCPUs that Fargate and Fargate Spot may have, by the codes of their quotas:
#: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-quotas.html
VCPU_QUOTAS: Dict[str, float] = {"L-3032A538": 4000.0, "L-36FBB829": 4000.0}

#: Of these, services whose answer does not depend on the region.
GLOBAL = frozenset({"iam", "s3", "sts"})


class Moto:
    """Moto's backends and its WSGI application, behind one lock.

    Making one forgets everything that moto knew in this process.

    Attributes:
        made_up_secrets: Values by `valueFrom`, of secrets that moto cannot have.
    """

    def __init__(self) -> None:
        # Some 700 machine images that are not needed here; moto reads this when
        # its first EC2 backend is made.
        os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
        from moto.backends import get_backend
        from moto.moto_server.werkzeug_app import (
            DomainDispatcherApplication,
            create_backend_app,
        )

        self.lock = threading.RLock()
        self.made_up_secrets: Dict[str, str] = {}
        self._get_backend: Any = get_backend  # overloaded on every service's name
        self._application = DomainDispatcherApplication(create_backend_app)
        self.reset()

    def reset(self) -> None:
        """Forget everything: clusters, networks, buckets, secrets, logs."""
        with self.lock:
            self._get_backend("ec2").clear()  # moto would first make its networks anew
            self._get_backend("moto_api")["global"].reset()

    def respond(self, request: Request) -> Response:
        """Let moto respond to a request.

        Raises:
            NotImplementedError: It does not know the operation, or a part of it.
        """
        from werkzeug.test import run_wsgi_app

        with self.lock:
            content, status, headers = run_wsgi_app(
                self._application, _environ(request), buffered=True
            )
            body = b"".join(content)
        return Response(int(status.split()[0]), _kept(headers), body)

    def has_issued(self, access_key: str) -> bool:
        """Whether an access key comes from this account's own STS or IAM."""
        with self.lock:
            roles = self.backend("sts", "aws").assumed_roles
            return access_key in self.backend("iam", "aws").access_keys or any(
                role.access_key_id == access_key for role in roles
            )

    def backend(self, service: str, region: str) -> Any:
        """Moto's own object for one service in one region."""
        try:
            return self._get_backend(service)[ACCOUNT][region]
        except KeyError:
            raise Refusal(
                "UnrecognizedClientException", f"There is no region {region!r}."
            ) from None

    def make_bucket(self, name: str) -> None:
        """Create a bucket, unless S3 refuses its name."""
        from moto.s3.exceptions import S3ClientError

        with self.lock, suppress(S3ClientError):
            self.backend("s3", "aws").create_bucket(name, "us-east-1")


class OtherServices:
    """What ECS asks the rest of AWS in its region.

    Args:
        moto: Where that is kept.
        region: Which region this is about.
    """

    def __init__(self, moto: Moto, region: str) -> None:
        self._moto = moto
        self._region = region
        moto.backend("ecs", region)  # refuses a region that does not exist
        self._open_default_vpc()

    def _backend(self, service: str) -> Any:
        return self._moto.backend(service, self._region)

    # Clusters

    def create_default_cluster(self) -> None:
        """The cluster that the console makes for a new account."""
        with self._moto.lock:
            self._backend("ecs").create_cluster(
                "default", tags=[], capacity_providers=["FARGATE", "FARGATE_SPOT"]
            )

    def active_cluster(self, name: Optional[str]) -> Any:
        """Moto's cluster of that name or ARN; no name is `default`.

        Raises:
            Refusal: ClusterNotFoundException, also for an INACTIVE one;
                InvalidParameterException for another region's.
        """
        check_region(name, self._region)
        short = (name or "default").rpartition("/")[2]
        cluster = self._backend("ecs").clusters.get(short)
        if cluster is None or cluster.status != "ACTIVE":
            raise Refusal("ClusterNotFoundException", "Cluster not found.")
        return cluster

    def count_tasks(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        """Tell moto how many tasks its clusters have, for DescribeClusters."""
        for name, cluster in self._backend("ecs").clusters.items():
            count = counts.get(name, {})
            cluster.running_tasks_count = count.get("RUNNING", 0)
            cluster.pending_tasks_count = count.get("PENDING", 0)

    def show_definition(self, definition: Mapping[str, Any]) -> None:
        """Let moto's services know a task definition, which is ours otherwise."""
        from moto.ecs.models import TaskDefinition

        make: Any = TaskDefinition  # abstract, to a type checker
        ecs, revision = self._backend("ecs"), definition["revision"]
        family = ecs.task_definitions.setdefault(definition["family"], {})
        family[revision] = make(
            definition["family"],
            revision,
            definition["containerDefinitions"],
            account_id=ACCOUNT,
            region_name=self._region,
            network_mode=definition.get("networkMode"),
            requires_compatibilities=definition.get("requiresCompatibilities"),
            cpu=definition.get("cpu"),
            memory=definition.get("memory"),
        )

    def container_instances(self, cluster: str) -> List[Any]:
        """The ACTIVE container instances of a cluster."""
        found = self._backend("ecs").container_instances.get(cluster, {})
        return [instance for instance in found.values() if instance.status == "ACTIVE"]

    def occupy(self, instance: Any, needs: Mapping[str, int], leave: bool) -> None:
        """Take a task's CPU and memory from an instance, or give them back."""
        resources = {**needs, "PORTS": [], "PORTS_UDP": []}
        with self._moto.lock:
            self._backend("ecs").update_container_instance_resources(
                instance, resources, removing=leave
            )

    def leave(self, task: Task) -> None:
        """A stopped task leaves its instance."""
        if task.instance is not None:
            self.occupy(task.instance, task.needs, leave=True)

    # Networks

    def _open_default_vpc(self) -> None:
        """Give moto's default VPC an internet gateway, as AWS's has.

        https://docs.aws.amazon.com/vpc/latest/userguide/default-vpc.html
        """
        with self._moto.lock:
            ec2 = self._backend("ec2")
            vpc = ec2.get_default_vpc().id
            gateway = ec2.create_internet_gateway().id
            ec2.attach_internet_gateway(gateway, vpc)
            (table,) = ec2.describe_route_tables(filters={"vpc-id": [vpc]})
            ec2.create_route(table.id, "0.0.0.0/0", gateway_id=gateway)

    def check_network(
        self, subnets: Sequence[str], security_groups: Sequence[str]
    ) -> None:
        """Refuse subnets and groups that are not there, or not of one VPC."""
        ec2 = self._backend("ec2")
        known = _by_id(ec2.subnets)
        vpcs = {_vpc_of(known, "subnet", subnet) for subnet in subnets}
        if len(vpcs) > 1:
            raise bad_parameter("subnets must belong to the same VPC.")
        known = _by_id(ec2.groups)
        for group in security_groups:
            if _vpc_of(known, "security group", group) not in vpcs:
                raise bad_parameter(
                    f"Security group {group} does not appear to belong to the same "
                    "VPC as the input subnets.",
                )

    def availability_zone(self, subnet: str) -> str:
        """Where a subnet is."""
        for zone, subnets in self._backend("ec2").subnets.items():
            if subnet in subnets:
                return str(zone)
        return f"{self._region}a"

    # Secrets

    def secret(self, value_from: str) -> Optional[str]:
        """The value that a container's secret stands for, None if there is none.

        Args:
            value_from: As in a definition's `secrets`: the ARN of a secret, with
                `:json-key:version-stage:version-id` if wanted, or the ARN or name
                of a parameter.
        """
        if value_from in self._moto.made_up_secrets:
            return self._moto.made_up_secrets[value_from]
        is_arn = value_from.startswith("arn:")  # it may be of another region
        region = value_from.split(":")[3] if is_arn else self._region
        is_secret = ":secretsmanager:" in value_from
        with self._moto.lock, suppress(Refusal):  # there is no such region
            if is_secret:
                manager = self._moto.backend("secretsmanager", region)
                return _value_of_secret(manager, value_from)
            return _value_of_parameter(self._moto.backend("ssm", region), value_from)
        return None

    # Objects

    def s3_text(self, arn: str) -> Optional[str]:
        """The text of `arn:aws:s3:::bucket/key`, None if it is not there."""
        bucket, _, key = arn.partition(":::")[2].partition("/")
        with self._moto.lock:
            try:
                found = self._moto.backend("s3", "aws").get_object(bucket, key)
            except Exception:  # moto's error for a bucket that is not there
                return None
            return None if found is None else bytes(found.value).decode()

    # Logs

    def open_log(self, group: str, stream: str) -> None:
        """Make a log group and a stream in it, where they are not there yet.

        A group need not exist before, whatever `awslogs-create-group` says: the
        account whose template is tried here may have groups that the sandbox lacks.
        """
        logs = self._backend("logs")
        with self._moto.lock:
            if group not in logs.groups:
                logs.create_log_group(group, {})
            logs.ensure_log_stream(group, stream)

    def write_log(self, group: str, stream: str, line: str, at: float) -> None:
        """Write one line into a stream; `at` is in seconds."""
        event = {"timestamp": int(at * 1000), "message": line}
        with self._moto.lock:
            self._backend("logs").put_log_events(group, stream, [event])


def _by_id(nested: Mapping[str, Mapping[str, Any]]) -> Dict[str, Any]:
    """Moto keeps subnets by zone and security groups by VPC."""
    return {thing.id: thing for things in nested.values() for thing in things.values()}


def _vpc_of(known: Mapping[str, Any], kind: str, name: str) -> str:
    """The VPC of a subnet or group; ECS quotes EC2's own error where it has none."""
    if name in known:
        return str(known[name].vpc_id)
    words, code = {
        "subnet": (f"The subnet ID '{name}'", "InvalidSubnetID.NotFound"),
        "security group": (f"The security group '{name}'", "InvalidGroup.NotFound"),
    }[kind]
    raise bad_parameter(
        f"Error retrieving {kind} information for [{name}]: "
        f"{words} does not exist (ErrorCode: {code})",
    )


def _value_of_secret(manager: Any, value_from: str) -> Optional[str]:
    parts = value_from.split(":") + [""] * 3  # absent ones are empty
    key, stage, version = parts[7:10]
    name = _secret_name(manager, ":".join(parts[:7]))
    if name is None:
        return None
    try:
        text = manager.get_secret_value(name, version, stage)["SecretString"]
        return str(json.loads(text)[key]) if key else str(text)
    except Exception:  # moto's many ways to say that there is no such value
        return None


def _value_of_parameter(ssm: Any, value_from: str) -> Optional[str]:
    name = value_from.partition(":parameter")[2] or value_from
    parameter = ssm.get_parameter(name) or ssm.get_parameter(name.lstrip("/"))
    if parameter is None:
        return None
    return str(parameter.response_object(decrypt=True)["Value"])


def _secret_name(manager: Any, arn: str) -> Optional[str]:
    """The secret of an ARN; ECS takes it with or without the six random letters."""
    for name, secret in manager.secrets.items():
        if arn in (secret.arn, secret.arn[:-7]):
            return str(name)
    return None


def _environ(request: Request) -> Dict[str, Any]:
    environ: Dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(request.path).decode("latin-1"),
        "QUERY_STRING": request.query,
        "RAW_URI": request.target,
        "REQUEST_URI": request.target,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": request.headers.get("host", "").rpartition(":")[2] or "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(request.body or b""),
        "wsgi.errors": BytesIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in request.headers.items():
        key = name.upper().replace("-", "_")
        known = key in ("CONTENT_TYPE", "CONTENT_LENGTH")
        environ[key if known else f"HTTP_{key}"] = value
    environ["CONTENT_LENGTH"] = str(len(request.body or b""))
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    return environ


def _kept(headers: Iterable[Tuple[str, str]]) -> Dict[str, str]:
    """Moto's headers without those that the server writes itself, and without those
    that let pages of other origins read the response."""
    ours = ("server", "date", "connection", "transfer-encoding")
    return {
        name: value
        for name, value in headers
        if name.lower() not in ours and not name.lower().startswith("access-control-")
    }
