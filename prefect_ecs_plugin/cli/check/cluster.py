"""The cluster, and whether it has what the requests ask for."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping

from .asking import AWS, NotAllowed, NotKnown, Refused, Unanswered, names_of
from .facts import CheckContext
from .findings import Finding, failed, ok, skipped, warning
from .identity import NEW_CREDENTIALS
from .preview import LaunchPreview

_FARGATE = ("FARGATE", "FARGATE_SPOT")

_ENABLE_REGION = (
    "Check AWS_DEFAULT_REGION, and that the account has enabled the region."
)


def clusters(facts: CheckContext) -> Iterator[Finding]:
    """Whether each cluster that runs are sent to is there and ACTIVE."""
    assert facts.aws is not None  # preflight asks only where it is known
    for name in facts.clusters():
        yield _active(facts, facts.aws, name).of("", name)


def _active(facts: CheckContext, aws: AWS, name: str) -> Finding:
    arn = name.split(":")
    region = arn[3] if len(arn) > 5 else aws.region
    if region != aws.region:
        return failed(
            f"The cluster is in {region}, and the agent works in {aws.region}.",
            f"Set AWS_DEFAULT_REGION={region}, or name another with --cluster.",
        )
    try:
        found = _described(aws, name)
    except NotAllowed as error:
        return skipped(f"Whether it is ACTIVE cannot be seen: {error}.")
    except NotKnown as error:
        return failed(
            f"ECS in {aws.region} does not accept the credentials: {error}.",
            _ENABLE_REGION if facts.identity else NEW_CREDENTIALS,
        )
    except Unanswered as error:
        return failed(
            f"ECS cannot be used in {aws.region}: {error}.",
            "Check AWS_DEFAULT_REGION and the way from here to AWS.",
        )
    status = found.get("status", "not there")
    if status == "ACTIVE":
        return ok(f"ACTIVE in {aws.region}")
    return failed(
        f"The cluster {name!r} is {status} in {aws.region}; {_others(aws)}.",
        "Create it, name another with --cluster, or set AWS_DEFAULT_REGION.",
    )


def _described(aws: AWS, name: str) -> Mapping[str, Any]:
    """The cluster, empty where there is none."""
    found = aws.ask("ecs", "describe_clusters", clusters=[name]).get("clusters")
    return dict(found[0]) if found else {}


def _others(aws: AWS) -> str:
    try:
        arns = aws.ask("ecs", "list_clusters").get("clusterArns", [])
    except Unanswered:
        return "which there are cannot be seen"
    names = sorted(arn.rpartition("/")[2] for arn in arns)
    if not names:
        return "there is none at all"
    return f"there {'is' if len(names) == 1 else 'are'} {', '.join(names)}"


def capacity(facts: CheckContext, launch: LaunchPreview) -> Iterator[Finding]:
    """Whether tasks would have somewhere to run."""
    assert facts.aws is not None  # preflight asks only where it is known
    try:
        cluster = _described(facts.aws, launch.cluster)
    except Refused as error:
        cluster = {}
        yield skipped(f"The cluster cannot be described: {error}.")
        return
    if cluster.get("status") != "ACTIVE":
        yield skipped("There is no cluster to look into.")
        return
    strategy = launch.request.get("capacityProviderStrategy")
    launch_type = launch.request.get("launchType")
    if strategy:
        yield _providers(facts.aws, cluster, strategy)
    elif launch_type == "FARGATE":
        yield ok("FARGATE, which every cluster takes")
    elif launch_type:
        yield _instances(cluster, str(launch_type))
    else:
        yield from _by_default(facts.aws, cluster)


def _by_default(aws: AWS, cluster: Mapping[str, Any]) -> Iterator[Finding]:
    """Without a strategy of its own, ECS takes a cluster's tasks for EC2's."""
    default = cluster.get("defaultCapacityProviderStrategy")
    if default:
        yield _providers(aws, cluster, default)
    else:
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
            f"The cluster has no capacity provider {', '.join(missing)}, only "
            f"{', '.join(sorted(short)) or 'none'}.",
            "Add it with `aws ecs put-cluster-capacity-providers`, or change "
            "capacityProviderStrategy.",
        )
    inactive = _inactive(aws, [name for name in names if name not in _FARGATE])
    if inactive:
        return failed(
            f"The capacity provider {', '.join(inactive)} is not ACTIVE.",
            "Change capacityProviderStrategy.",
        )
    return ok(f"capacity providers {', '.join(names)}")


def _inactive(aws: AWS, names: List[str]) -> List[str]:
    """Those that are known not to be ACTIVE; it is no more than an extra."""
    if not names:
        return []
    try:
        answer = aws.ask("ecs", "describe_capacity_providers", capacityProviders=names)
    except Unanswered:
        return []
    found = answer.get("capacityProviders", [])
    return [each["name"] for each in found if each.get("status") != "ACTIVE"]


def _instances(cluster: Mapping[str, Any], launch_type: str) -> Finding:
    count = cluster.get("registeredContainerInstancesCount")
    if count is None:
        return warning("ECS does not say how many container instances there are.")
    if count:
        plural = "s" if count > 1 else ""
        return ok(f"{launch_type}: {count} container instance{plural}")
    return failed(
        f"{launch_type}: the cluster has no container instances.",
        "Start some with the ECS agent on them, or use --launch-type FARGATE.",
    )
