"""Whether the agent's cluster can take tasks at all."""

from __future__ import annotations

from typing import Any, Optional

from botocore.exceptions import BotoCoreError, ClientError


def trouble(ecs: Any, cluster: Optional[str]) -> Optional[str]:
    """A sentence about a cluster that is not there or not ACTIVE.

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
        return None  # the right to look is not needed to launch
    status = found[0].get("status") if found else "not there"
    if status == "ACTIVE":
        return None
    return (
        f"The cluster {name!r} is {status} in {ecs.meta.region_name}; runs for it will "
        "fail until it is created, or another is named with --cluster."
    )
