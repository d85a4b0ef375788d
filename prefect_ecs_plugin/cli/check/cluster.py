"""The cluster, and whether it has the capacity that the requests ask for."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping

from ..aws_client import (
    AWS,
    AWSRefusal,
    AWSUnavailable,
    InvalidCredentials,
    MissingPermission,
    names_of,
)
from .context import CheckContext, LaunchPreview
from .findings import Finding, depends, failed, ok, skipped, warning
from .identity import NEW_CREDENTIALS

_ENABLE_REGION = (
    "Check AWS_DEFAULT_REGION, and that the account has enabled the region."
)


def clusters(context: CheckContext) -> Iterator[Finding]:
    """Whether each cluster that runs are sent to exists and is ACTIVE."""
    for name in context.clusters():
        flows = [each.flow for each in context.launches if each.cluster == name]
        is_common = len(flows) == len(context.launches)
        finding = _active(context, context.known_aws, name)
        yield finding.of("", name, () if is_common else tuple(flows))


def _active(context: CheckContext, aws: AWS, name: str) -> Finding:
    arn = name.split(":")
    region = arn[3] if len(arn) > 5 else aws.region
    if region != aws.region:
        return failed(
            f"The cluster is in {region}, and the agent works in {aws.region}.",
            f"Set AWS_DEFAULT_REGION={region}, or name another with --cluster.",
            code="cluster-in-another-region",
        )
    try:
        status = _described(aws, name).get("status", "not there")
    except MissingPermission as error:
        return skipped(f"The cluster's status is unknown: {error}.", code=error.code)
    except InvalidCredentials as error:
        return failed(
            f"ECS in {aws.region} does not accept the credentials: {error}.",
            _ENABLE_REGION if context.identity else NEW_CREDENTIALS,
            code="invalid-credentials",
        )
    except AWSUnavailable as error:
        return failed(
            f"ECS cannot be used in {aws.region}: {error}.",
            "Check AWS_DEFAULT_REGION and the connection from here to AWS.",
            code=error.code,
        )
    if status == "ACTIVE":
        return ok(f"ACTIVE in {aws.region}")
    return failed(
        f"The cluster {name!r} is {status} in {aws.region}; {_others(aws)}.",
        "Create it, name another with --cluster, or set AWS_DEFAULT_REGION.",
        code="no-cluster",
    )


def _described(aws: AWS, name: str) -> Mapping[str, Any]:
    """The cluster; empty if it does not exist."""
    found = aws.ask("ecs", "describe_clusters", clusters=[name]).get("clusters")
    return dict(found[0]) if found else {}


def _others(aws: AWS) -> str:
    try:
        arns = aws.ask("ecs", "list_clusters").get("clusterArns", [])
    except AWSUnavailable:
        return "other clusters cannot be listed"
    names = sorted(arn.rpartition("/")[2] for arn in arns)
    return f"existing clusters: {', '.join(names) or 'none'}"


def capacity(context: CheckContext, launch: LaunchPreview) -> Iterator[Finding]:
    """Whether the cluster has the launch type or capacity providers of the request."""
    aws = context.known_aws
    try:
        cluster = _described(aws, launch.cluster)
    except AWSRefusal as error:
        yield skipped(f"The cluster cannot be described: {error}.", code=error.code)
        return
    if cluster.get("status") != "ACTIVE":
        yield depends("cluster")
        return
    strategy = launch.request.get("capacityProviderStrategy")
    launch_type = launch.request.get("launchType")
    default = cluster.get("defaultCapacityProviderStrategy")
    if strategy:
        yield _providers(aws, cluster, strategy)
    elif launch_type == "FARGATE":
        yield ok("FARGATE, available in every cluster")
    elif launch_type:
        yield _instances(cluster, str(launch_type))
    elif default:
        yield _providers(aws, cluster, default)
    else:  # ECS falls back to EC2
        yield _instances(cluster, "EC2, as the cluster has no default strategy")


def _providers(
    aws: AWS, cluster: Mapping[str, Any], strategy: List[Dict[str, Any]]
) -> Finding:
    names = names_of(list(strategy), "capacityProvider")
    known = list(cluster.get("capacityProviders") or [])
    short = {str(name).rpartition("/")[2] for name in known}
    missing = [name for name in names if name.rpartition("/")[2] not in short]
    if missing:
        return failed(
            f"The cluster does not have the capacity provider {', '.join(missing)}; it "
            f"has {', '.join(sorted(short)) or 'none'}.",
            "Add it with `aws ecs put-cluster-capacity-providers`, or change "
            "capacityProviderStrategy.",
            code="no-capacity-provider",
        )
    # AWS reserves the prefix for FARGATE and FARGATE_SPOT, which are always ACTIVE:
    # https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_CreateCapacityProvider.html
    own = [name for name in names if not name.startswith("FARGATE")]
    inactive = _inactive(aws, own)
    if inactive:
        return failed(
            f"The capacity provider {', '.join(inactive)} is not ACTIVE.",
            "Change capacityProviderStrategy.",
            code="capacity-provider-not-active",
        )
    return ok(f"capacity providers {', '.join(names)}")


def _inactive(aws: AWS, names: List[str]) -> List[str]:
    """Those that are known not to be ACTIVE; none if AWS does not say."""
    if not names:
        return []
    try:
        answer = aws.ask("ecs", "describe_capacity_providers", capacityProviders=names)
    except AWSUnavailable:
        return []
    found = answer.get("capacityProviders", [])
    return [each["name"] for each in found if each.get("status") != "ACTIVE"]


def _instances(cluster: Mapping[str, Any], launch_type: str) -> Finding:
    count = cluster.get("registeredContainerInstancesCount")
    if count is None:
        return warning(
            "ECS does not report the number of container instances.",
            code="instance-count-unknown",
        )
    if count:
        return ok(f"{launch_type}: {count} container instance{'s' * (count > 1)}")
    return failed(
        f"{launch_type}: the cluster has no container instances.",
        "Start some with the ECS agent on them, or use --launch-type FARGATE.",
        code="no-container-instances",
    )
