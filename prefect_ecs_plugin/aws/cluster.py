"""Whether tasks can be started in the agent's cluster."""

from __future__ import annotations

from typing import Any, Optional

from botocore.exceptions import BotoCoreError, ClientError


def trouble(ecs: Any, cluster: Optional[str]) -> Optional[str]:
    """A sentence about a cluster that does not exist or is not ACTIVE.

    Args:
        ecs: The ECS client.
        cluster: Its name or ARN; None for the account's `default`.

    Returns:
        None if it is ACTIVE, or cannot be seen from here.
    """
    name = cluster or "default"
    try:
        found = ecs.describe_clusters(clusters=[name])["clusters"]
    except (ClientError, BotoCoreError):
        return None  # launches work without the permission to describe clusters
    status = found[0].get("status") if found else "missing"
    if status == "ACTIVE":
        return None
    return (
        f"The cluster {name!r} is {status} in {ecs.meta.region_name}; runs for it fail "
        "until it is created or another one is named with --cluster. [no-cluster]"
    )
