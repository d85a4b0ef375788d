"""Subnets, security groups, and internet egress."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping, Optional, Set

from ..aws_client import AWS, AWSRefusal, names_of
from .context import CheckContext, LaunchPreview
from .findings import Finding, failed, ok, warning
from .images import ECRImage, is_public

#: Route targets through which a task without a public address can reach the internet,
#: or another network that the account's owner has connected.
_EGRESS = (
    "NatGatewayId",
    "TransitGatewayId",
    "NetworkInterfaceId",
    "InstanceId",
    "VpcPeeringConnectionId",
    "LocalGatewayId",
    "CarrierGatewayId",
    "CoreNetworkArn",
)

_CORRECT = "Correct {} in networkConfiguration of the run-task kwargs."


def subnets(context: CheckContext, launch: LaunchPreview) -> Iterator[Finding]:
    """Whether the subnets exist, all in one VPC."""
    aws = context.known_aws
    if not launch.network:
        mode = launch.definition.get("networkMode", "bridge")
        yield ok(f"none are needed in network mode {mode}")
        return
    try:
        vpcs = _vpcs(_subnets(aws, launch))
    except AWSRefusal as error:
        if not error.aws_code.startswith("InvalidSubnet"):
            raise
        yield failed(
            f"Some subnets do not exist in {aws.region}: {error}.",
            _CORRECT.format("subnets"),
            code="subnet-not-found",
        )
        return
    if len(vpcs) > 1:
        yield failed(
            f"The subnets belong to several VPCs: {', '.join(sorted(vpcs))}; a task "
            "can use only one.",
            _CORRECT.format("subnets"),
            code="several-vpcs",
        )
    else:
        yield ok(f"{len(launch.network['subnets'])} in {', '.join(vpcs)}")


def groups(context: CheckContext, launch: LaunchPreview) -> Iterator[Finding]:
    """Whether the security groups exist, in the subnets' VPC."""
    aws = context.known_aws
    wanted = launch.network.get("securityGroups")
    if not wanted:
        if launch.network:
            yield ok("the VPC's default group")
        return
    try:
        answer = aws.ask("ec2", "describe_security_groups", GroupIds=wanted)
    except AWSRefusal as error:
        if not error.aws_code.startswith("InvalidGroup"):
            raise
        yield failed(
            f"Some security groups do not exist in {aws.region}: {error}.",
            _CORRECT.format("securityGroups"),
            code="security-group-not-found",
        )
        return
    vpcs = _vpcs(_subnets(aws, launch))
    outside = [
        group["GroupId"]
        for group in answer["SecurityGroups"]
        if group.get("VpcId") not in vpcs
    ]
    if outside:
        yield failed(
            f"Security groups outside the subnets' VPC {', '.join(vpcs)}: "
            f"{', '.join(outside)}.",
            _CORRECT.format("securityGroups"),
            code="security-group-of-other-vpc",
        )
    else:
        yield ok(", ".join(wanted))


def egress(context: CheckContext, launch: LaunchPreview) -> Iterator[Finding]:
    """Whether a task could reach its image's registry and the Prefect API."""
    if not launch.network:
        return
    aws = context.known_aws
    found = _subnets(aws, launch)
    has_address = launch.network.get("assignPublicIp") == "ENABLED"
    targets = {subnet["SubnetId"]: _default_route(aws, subnet) for subnet in found}
    closed = [
        subnet
        for subnet, target in targets.items()
        if target is None or (target.startswith("igw-") and not has_address)
    ]
    if not closed:
        yield ok(f"by {', '.join(sorted({str(each) for each in targets.values()}))}")
        return
    reason = "no default route"
    if all(targets[each] for each in closed):
        reason = "an internet gateway, but the task has no public IP"
    # Many subnets would fill the screen.
    more = f" and {len(closed) - 2} more" if len(closed) > 3 else ""
    names = ", ".join(sorted(closed)[: 2 if more else None]) + more
    yield _with_endpoints(aws, launch, next(iter(_vpcs(found))), f"{names}: {reason}")


def _with_endpoints(aws: AWS, launch: LaunchPreview, vpc: str, reason: str) -> Finding:
    """From a subnet without internet egress, a task reaches the VPC's endpoints only.

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
        return warning(
            f"{reason}; the task reaches addresses inside the VPC only.",
            advice,
            code="no-internet-egress-on-ec2",
        )
    if public:
        return failed(
            f"{reason}; ECS cannot pull {', '.join(public)}.",
            advice,
            code="no-internet-egress",
        )
    if missing:
        return failed(
            f"{reason}, and the VPC has no endpoint for {', '.join(missing)}.",
            f"{advice} Or create these endpoints in {vpc}.",
            code="no-vpc-endpoint",
        )
    return warning(
        f"{reason}; the task reaches the VPC and its endpoints only.",
        "Make sure that it can reach the Prefect API and the image's registry.",
        code="vpc-endpoints-only",
    )


def _needed(launch: LaunchPreview) -> Set[str]:
    """The services that a Fargate task needs before its code runs."""
    needed = set()
    if any(ECRImage.of(image) for image in launch.images()):
        needed |= {"ecr.api", "ecr.dkr", "s3"}  # S3 has the layers
    if launch.logs():
        needed.add("logs")
    for value_from in launch.secrets():
        is_secret = ":secretsmanager:" in value_from
        needed.add("secretsmanager" if is_secret else "ssm")
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
    return list(aws.ask("ec2", "describe_subnets", SubnetIds=wanted)["Subnets"])


def _vpcs(found: List[Dict[str, Any]]) -> Set[str]:
    return {str(subnet["VpcId"]) for subnet in found}


def _default_route(aws: AWS, subnet: Mapping[str, Any]) -> Optional[str]:
    """The default route's target: `igw-...`, `nat-...`; None without such a route."""
    for route in _table(aws, subnet).get("Routes", []):
        is_default = route.get("DestinationCidrBlock") == "0.0.0.0/0"
        if is_default and route.get("State", "active") == "active":
            return _target(route)
    return None


def _table(aws: AWS, subnet: Mapping[str, Any]) -> Mapping[str, Any]:
    """The subnet's own route table, else the VPC's main one."""
    filters = [{"Name": "vpc-id", "Values": [subnet["VpcId"]]}]
    tables = aws.ask("ec2", "describe_route_tables", Filters=filters)["RouteTables"]
    for key, value in (("SubnetId", subnet["SubnetId"]), ("Main", True)):
        for table in tables:
            if any(each.get(key) == value for each in table.get("Associations", [])):
                return dict(table)
    return {}


def _target(route: Mapping[str, Any]) -> Optional[str]:
    for key in ("GatewayId", *_EGRESS):
        if route.get(key) and route[key] != "local":
            return str(route[key])
    return None
