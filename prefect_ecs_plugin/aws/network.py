"""The default subnets of a task: those of the default VPC."""

from __future__ import annotations

from typing import Any, List, Tuple

from botocore.exceptions import BotoCoreError, ClientError

from ..errors import ConfigurationError
from .ecs import answer_of
from .retrying import judge

_INSTEAD = "give a networkConfiguration with subnets in the file of --run-task-kwargs"


def default_subnets(ec2: Any) -> Tuple[str, ...]:
    """The subnets of the region's default VPC.

    Args:
        ec2: The EC2 client.

    Returns:
        Their ids, in EC2's order.

    Raises:
        ConfigurationError: if there is no default VPC, it has no subnets, or they
            cannot be read; it names the option that makes it unnecessary.
    """
    region = ec2.meta.region_name
    try:
        subnets = _subnets(ec2, _default_vpc(ec2))
    except (ClientError, BotoCoreError) as error:
        answer = answer_of(error)
        row = judge(answer)
        why = f"{row.cause} ({str(answer).rstrip('.')})"
        remedy = f"{row.remedy}, or " if row.remedy else ""
        raise ConfigurationError(
            f"Cannot read the default VPC of {region} because {why}; "
            f"{remedy}{_INSTEAD}."
        ) from error
    if not subnets:
        raise ConfigurationError(
            f"There is no default VPC with subnets in {region}; {_INSTEAD}."
        )
    return subnets


def _default_vpc(ec2: Any) -> List[str]:
    filters = [{"Name": "isDefault", "Values": ["true"]}]
    return [vpc["VpcId"] for vpc in ec2.describe_vpcs(Filters=filters)["Vpcs"]]


def _subnets(ec2: Any, vpc_ids: List[str]) -> Tuple[str, ...]:
    if not vpc_ids:
        return ()
    pages = ec2.get_paginator("describe_subnets").paginate(
        Filters=[{"Name": "vpc-id", "Values": vpc_ids}]
    )
    return tuple(subnet["SubnetId"] for page in pages for subnet in page["Subnets"])
