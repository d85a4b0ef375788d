"""The quotas of Fargate's vCPUs, and what they leave to runs."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone
from typing import Any, Callable, Iterator, List

import pytest

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from prefect_ecs_plugin.aws.fargate_quota import Quota, QuotaUnreadable, read
from prefect_ecs_plugin.launch.quotas import Quotas
from prefect_ecs_plugin.limits import of_vcpus
from prefect_ecs_plugin.observability.outage_log import OutageLog
from prefect_ecs_plugin.sandbox.aws import AWS, Fault, other_services


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[AWS]:
    monkeypatch.setitem(other_services.VCPU_QUOTAS, "L-36FBB829", 64.0)
    with AWS() as aws:
        yield aws


def use(aws: AWS, kind: str, vcpus: float, minutes: float) -> None:
    """Have CloudWatch show a use of some minutes ago."""
    dimensions = {"Service": "Fargate", "Type": "Resource", "Resource": "vCPU"}
    aws.client("cloudwatch").put_metric_data(
        Namespace="AWS/Usage",
        MetricData=[
            {
                "MetricName": "ResourceCount",
                "Dimensions": [
                    {"Name": name, "Value": value}
                    for name, value in {**dimensions, "Class": kind}.items()
                ],
                "Timestamp": datetime.now(timezone.utc) - timedelta(minutes=minutes),
                "Value": vcpus,
            }
        ],
    )


def test_a_quota_and_the_last_use_are_read_for_each_kind_of_capacity(aws: AWS) -> None:
    assert read(aws.client, "FARGATE") == Quota(4000, 0)
    use(aws, "Standard/OnDemand", 30, 8)
    use(aws, "Standard/OnDemand", 10, 3)
    use(aws, "Standard/Spot", 20, 3)
    assert read(aws.client, "FARGATE") == Quota(4000, 10)
    assert read(aws.client, "FARGATE_SPOT") == Quota(64, 20)


@pytest.mark.parametrize(
    "operation", ["servicequotas.GetServiceQuota", "monitoring.GetMetricStatistics"]
)
def test_a_missing_permission_is_named(aws: AWS, operation: str) -> None:
    denied = Fault(status=400, error_code="AccessDeniedException", message="no")
    aws.fault = lambda asked, _: denied if asked == operation else None
    with pytest.raises(QuotaUnreadable) as unreadable:
        read(aws.client, "FARGATE")
    assert unreadable.value.code == "quota-unreadable"
    assert operation.partition(".")[2] in str(unreadable.value)


def rounds(read: Callable[[str], Quota], taken: float, times: int = 1) -> Any:
    """The quotas after some rounds, and what the agent's log says."""
    logger, lines = logging.Logger("quotas"), []  # type: ignore[var-annotated]
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(  # type: ignore[method-assign]
        record.getMessage()
    )
    logger.addHandler(handler)
    outages = OutageLog(logger, lambda: 0.0)
    quotas = Quotas(read, lambda _: taken, outages, logger)
    watch = quotas.watch()
    for _ in range(3 * times):  # two reads and a pause
        wait = next(watch)
        if hasattr(wait, "exception"):
            wait.exception()
    return quotas.limits(), lines


@pytest.mark.parametrize(
    "used, taken, left",
    [(0, 0, 64), (20, 0, 44), (20, 8, 52), (20, 30, 64), (99, 0, 0)],
)
def test_what_others_use_is_left_to_them(
    used: float, taken: float, left: float
) -> None:
    limits, _ = rounds(lambda _: Quota(64, used), taken)
    assert limits == (of_vcpus(left, "FARGATE"), of_vcpus(left, "FARGATE_SPOT"))


def test_a_quota_that_may_not_be_read_is_no_limit_and_said_once() -> None:
    def denied(capacity: str) -> Quota:
        if capacity == "FARGATE":
            raise QuotaUnreadable("no permission", code="quota-unreadable")
        return Quota(64, 0)

    limits, lines = rounds(denied, 0, times=3)
    assert limits == (of_vcpus(64, "FARGATE_SPOT"),)
    assert lines == ["no permission [quota-unreadable]"]


def test_a_quota_that_is_not_answered_stays() -> None:
    answers: List[Any] = [Quota(64, 0), Quota(8, 0), OSError("gone"), Quota(32, 0)]

    def read_next(_: str) -> Quota:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Quota(*answer)

    limits, _ = rounds(read_next, 0, times=2)
    assert limits == (of_vcpus(64, "FARGATE"), of_vcpus(8, "FARGATE_SPOT"))
