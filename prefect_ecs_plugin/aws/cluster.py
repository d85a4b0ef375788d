"""The agent's cluster: its ARN, and whether tasks can be started in it."""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

from .ecs import CALL_ERRORS


class Cluster(NamedTuple):
    """What ECS says about a cluster.

    Attributes:
        arn: Its ARN, which ECS also makes for one that does not exist; None if the
            cluster cannot be described.
        problem: A sentence about one that does not exist or is not ACTIVE; None if it
            is ACTIVE, or cannot be described.
    """

    arn: Optional[str] = None
    problem: Optional[str] = None


def describe(ecs: Any, cluster: Optional[str]) -> Cluster:
    """Describe a cluster.

    Args:
        ecs: The ECS client.
        cluster: Its name or ARN; None for the account's `default`.
    """
    name = cluster or "default"
    try:
        answer = ecs.describe_clusters(clusters=[name])
    except CALL_ERRORS:
        answer = {}  # launches work without the permission to describe clusters
    if "clusters" not in answer:
        return Cluster()
    found = answer["clusters"]
    status = found[0].get("status") if found else "missing"
    if status == "ACTIVE":
        return Cluster(found[0].get("clusterArn"))
    arns = [each.get("clusterArn") for each in found]
    arns += [each.get("arn") for each in answer.get("failures", ())]
    return Cluster(
        arns[0] if arns else None,
        f"The cluster {name!r} is {status} in {ecs.meta.region_name}; runs for it fail "
        "until it is created or another one is named with --cluster. [no-cluster]",
    )
