"""The quotas of Fargate's vCPUs, and how much of them is used in the account.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-quotas.html
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/monitoring-fargate-usage.html
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, Callable, Mapping, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from ..errors import PrefectECSError

#: The capacity provider's quota, and the class of its usage metric.
CODES: Mapping[str, str] = {"FARGATE": "L-3032A538", "FARGATE_SPOT": "L-36FBB829"}
_CLASSES: Mapping[str, str] = {
    "FARGATE": "Standard/OnDemand",
    "FARGATE_SPOT": "Standard/Spot",
}

#: Seconds of the usage metric that are read; its last value counts.
_WINDOW, _PERIOD = 900, 60

#: Makes a client for an AWS service.
ClientFactory = Callable[[str], Any]


class QuotaUnreadable(PrefectECSError):
    """A quota or its usage cannot be read."""


class Quota(NamedTuple):
    """A quota of vCPUs.

    Attributes:
        most: How many there may be.
        used: How many the account used some minutes ago.
    """

    most: float
    used: float


def read(client: ClientFactory, capacity: str) -> Quota:
    """The quota of a kind of capacity in the client's region.

    Args:
        client: Makes clients of Service Quotas and CloudWatch.
        capacity: `FARGATE` or `FARGATE_SPOT`.

    Raises:
        QuotaUnreadable: one line that names the permission, if one is missing.
    """
    try:
        quota = client("service-quotas").get_service_quota(
            ServiceCode="fargate", QuotaCode=CODES[capacity]
        )
        now = datetime.now(timezone.utc)
        usage = client("cloudwatch").get_metric_statistics(
            Namespace="AWS/Usage",
            MetricName="ResourceCount",
            Dimensions=[
                {"Name": "Service", "Value": "Fargate"},
                {"Name": "Type", "Value": "Resource"},
                {"Name": "Resource", "Value": "vCPU"},
                {"Name": "Class", "Value": _CLASSES[capacity]},
            ],
            StartTime=now - timedelta(seconds=_WINDOW),
            EndTime=now,
            Period=_PERIOD,
            Statistics=["Maximum"],
        )
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "error")
        name = getattr(error, "operation_name", "")
        raise QuotaUnreadable(
            f"The vCPU quota of {capacity} cannot be read, so it is no limit: {name} "
            f"answers {code}; grant the agent servicequotas:GetServiceQuota and "
            "cloudwatch:GetMetricStatistics",
            code="quota-unreadable",
        ) from error
    except BotoCoreError as error:
        raise QuotaUnreadable(
            f"The vCPU quota of {capacity} cannot be read, so it is no limit: {error}",
            code="quota-unreadable",
        ) from error
    points = sorted(usage["Datapoints"], key=lambda point: point["Timestamp"])
    used = float(points[-1]["Maximum"]) if points else 0.0
    return Quota(float(quota["Quota"]["Value"]), used)
