"""The default subnets of a task: those of the default VPC."""

from __future__ import annotations

from typing import Any, Tuple

from botocore.exceptions import BotoCoreError, ClientError

from ..errors import ConfigurationError
from .ecs import answer_of
from .retrying import classify


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
        subnets = _subnets(ec2)
    except (ClientError, BotoCoreError) as error:
        answer = answer_of(error)
        row = classify(answer)
        why = f"{row.cause} ({str(answer).rstrip('.')})"
        remedy = f"{row.remedy}, or " if row.remedy else ""
        raise ConfigurationError(
            f"Cannot read the default VPC of {region} because {why}; {remedy}give a "
            "networkConfiguration with subnets in the file of --run-task-kwargs.",
            code=row.code,
        ) from error
    if not subnets:
        raise ConfigurationError(
            f"There is no default VPC with subnets in {region}; give a "
            "networkConfiguration with subnets in the file of --run-task-kwargs.",
            code="no-default-vpc",
        )
    return subnets


def _subnets(ec2: Any) -> Tuple[str, ...]:
    filters = [{"Name": "isDefault", "Values": ["true"]}]
    vpc_ids = [vpc["VpcId"] for vpc in ec2.describe_vpcs(Filters=filters)["Vpcs"]]
    if not vpc_ids:
        return ()
    pages = ec2.get_paginator("describe_subnets").paginate(
        Filters=[{"Name": "vpc-id", "Values": vpc_ids}]
    )
    return tuple(subnet["SubnetId"] for page in pages for subnet in page["Subnets"])
