"""ARNs belong to one region, and ECS in another refuses them."""

from __future__ import annotations

from typing import Optional

from .answers import Refusal


def check_region(name: Optional[str], region: str) -> None:
    """Refuse the ARN of another region; short names belong to any.

    ECS's words, seen for task definitions at
    https://github.com/aws/amazon-ecs-cli/issues/821 and for clusters and services at
    https://github.com/aws-samples/ecs-bg-external-controller/issues/9. That tasks are
    refused alike is an assumption.

    Args:
        name: A name or an ARN; None is no ARN either.
        region: The region that is asked.

    Raises:
        Refusal: InvalidParameterException.
    """
    parts = (name or "").split(":")
    if parts[0] == "arn" and len(parts) > 3 and parts[3] != region:
        raise Refusal("InvalidParameterException", "Invalid Region in ARN")
