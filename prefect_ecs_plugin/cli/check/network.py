"""Subnets, security groups, and the way out of them."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping, Optional, Set

from .asking import AWS, Refused, names_of
from .facts import CheckContext
from .findings import Finding, failed, ok, warning
from .images import ECRImage, is_public
from .preview import LaunchPreview

#: Route targets through which a task without a public address can reach the internet,
#: or another network that the account's owner has connected.
_OUTWARD = (
    "NatGatewayId",
    "TransitGatewayId",
    "NetworkInterfaceId",
    "InstanceId",
    "VpcPeeringConnectionId",
    "LocalGatewayId",
    "CarrierGatewayId",
    "CoreNetworkArn",
)

_IN_FILE = "in networkConfiguration of the run-task kwargs"


def subnets(facts: CheckContext, launch: LaunchPreview) -> Iterator[Finding]:
    """Whether the subnets are there, all in one VPC."""
    if not launch.network:
        mode = launch.definition.get("networkMode", "bridge")
        yield ok(f"none are needed in network mode {mode}")
        return
    try:
        vpcs = _vpcs(_subnets(_aws(facts), launch))
    except Refused as error:
        if not error.code.startswith("InvalidSubnet"):
            raise
        yield failed(
            f"Some subnets are not there in {_aws(facts).region}: {error}.",
            f"Correct subnets {_IN_FILE}.",
        )
        return
    if len(vpcs) > 1:
        yield failed(
            f"The subnets are of several VPCs: {', '.join(sorted(vpcs))}.",
            f"A task can be in one only: correct subnets {_IN_FILE}.",
        )
    else:
        count = len(launch.network["subnets"])
        yield ok(f"{count} in {', '.join(vpcs)}")


def groups(facts: CheckContext, launch: LaunchPreview) -> Iterator[Finding]:
    """Whether the security groups are there, and in the subnets' VPC."""
    wanted = launch.network.get("securityGroups")
    if not wanted:
        if launch.network:
            yield ok("the VPC's default group")
        return
    try:
        answer = _aws(facts).ask("ec2", "describe_security_groups", GroupIds=wanted)
    except Refused as error:
        if not error.code.startswith("InvalidGroup"):
            raise
        yield failed(
            f"Some security groups are not there in {_aws(facts).region}: {error}.",
            f"Correct securityGroups {_IN_FILE}.",
        )
        return
    vpcs = _vpcs(_subnets(_aws(facts), launch))
    strangers = [
        group["GroupId"]
        for group in answer["SecurityGroups"]
        if group.get("VpcId") not in vpcs
    ]
    if strangers:
        yield failed(
            f"{', '.join(strangers)}: not in the subnets' VPC {', '.join(vpcs)}.",
            f"Correct securityGroups {_IN_FILE}.",
        )
    else:
        yield ok(", ".join(wanted))


def routes(facts: CheckContext, launch: LaunchPreview) -> Iterator[Finding]:
    """Whether a task could reach its image's registry and the Prefect API."""
    if not launch.network:
        return
    aws = _aws(facts)
    found = _subnets(aws, launch)
    has_address = launch.network.get("assignPublicIp") == "ENABLED"
    ways = {subnet["SubnetId"]: _way_out(aws, subnet) for subnet in found}
    closed = [
        subnet
        for subnet, way in ways.items()
        if way is None or (way.startswith("igw-") and not has_address)
    ]
    if not closed:
        yield ok(f"by {', '.join(sorted({str(way) for way in ways.values()}))}")
        return
    reason = "no default route"
    if all(ways[each] for each in closed):
        reason = "an internet gateway, but the task has no public IP"
    reason = f"{_some(sorted(closed))}: {reason}"
    yield _by_endpoints(aws, launch, next(iter(_vpcs(found))), reason)


def _some(names: List[str]) -> str:
    """The first of many names."""
    more = f" and {len(names) - 2} more" if len(names) > 3 else ""
    return ", ".join(names[:2] if more else names) + more


def _by_endpoints(aws: AWS, launch: LaunchPreview, vpc: str, reason: str) -> Finding:
    """What a closed subnet is good for: what it has endpoints for, and no more.

    https://docs.aws.amazon.com/AmazonECR/latest/userguide/vpc-endpoints.html
    """
    missing = sorted(_needed(launch) - _endpoints(aws, vpc))
    public = [image for image in launch.images() if is_public(image)]
    advice = (
        "Use subnets whose default route leads to a NAT gateway, or to an internet "
        "gateway with assignPublicIp: ENABLED (Fargate only)."
    )
    if launch.is_on_fargate is False:
        # The instance pulls the image and writes the logs, with its own address.
        return warning(f"{reason}; the task itself reaches the VPC only.", advice)
    if public:
        return failed(f"{reason}; {', '.join(public)} cannot be pulled.", advice)
    if missing:
        return failed(
            f"{reason}, and no VPC endpoint for {', '.join(missing)}.",
            f"{advice} Or make these endpoints in {vpc}.",
        )
    return warning(
        f"{reason}; the task reaches the VPC and its endpoints only.",
        "Make sure that the Prefect API and the image's registry can be reached so.",
    )


def _needed(launch: LaunchPreview) -> Set[str]:
    """The services that a Fargate task needs before its code runs."""
    needed = set()
    if any(ECRImage.of(image) for image in launch.images()):
        needed |= {"ecr.api", "ecr.dkr", "s3"}  # S3 has the layers
    if launch.logs():
        needed.add("logs")
    for container in launch.definition.get("containerDefinitions", []):
        for secret in container.get("secrets", []):
            is_parameter = ":secretsmanager:" not in secret.get("valueFrom", "")
            needed.add("ssm" if is_parameter else "secretsmanager")
    return needed


def _endpoints(aws: AWS, vpc: str) -> Set[str]:
    """The services that a VPC has endpoints for, such as `ecr.api`."""
    answer = aws.ask(
        "ec2", "describe_vpc_endpoints", Filters=[{"Name": "vpc-id", "Values": [vpc]}]
    )
    names = names_of(answer["VpcEndpoints"], "ServiceName")
    return {name.partition(f".{aws.region}.")[2] for name in names}


def _subnets(aws: AWS, launch: LaunchPreview) -> List[Dict[str, Any]]:
    wanted = list(launch.network.get("subnets", []))
    answer = aws.ask("ec2", "describe_subnets", SubnetIds=wanted)
    return list(answer["Subnets"])


def _vpcs(found: List[Dict[str, Any]]) -> Set[str]:
    return {str(subnet["VpcId"]) for subnet in found}


def _way_out(aws: AWS, subnet: Mapping[str, Any]) -> Optional[str]:
    """Where a subnet's default route leads: `igw-...`, `nat-...`; None if nowhere."""
    for route in _table(aws, subnet).get("Routes", []):
        is_default = route.get("DestinationCidrBlock") == "0.0.0.0/0"
        if is_default and route.get("State", "active") == "active":
            return _target(route)
    return None


def _table(aws: AWS, subnet: Mapping[str, Any]) -> Mapping[str, Any]:
    """The subnet's own route table, else the VPC's main one."""
    filters = [{"Name": "vpc-id", "Values": [subnet["VpcId"]]}]
    tables = aws.ask("ec2", "describe_route_tables", Filters=filters)["RouteTables"]
    own = ("SubnetId", subnet["SubnetId"])
    for key, value in (own, ("Main", True)):
        for table in tables:
            if any(each.get(key) == value for each in table.get("Associations", [])):
                return dict(table)
    return {}


def _target(route: Mapping[str, Any]) -> Optional[str]:
    for key in ("GatewayId", *_OUTWARD):
        if route.get(key) and route[key] != "local":
            return str(route[key])
    return None


def _aws(facts: CheckContext) -> AWS:
    assert facts.aws is not None  # preflight asks only where it is known
    return facts.aws
