"""The line that begins an agent's log."""

from __future__ import annotations

from typing import Any, Dict, Optional

import pytest

from prefect_ecs_plugin.config.summary import (
    account_of,
    given_account,
    limits_in_words,
    line,
)
from prefect_ecs_plugin.limits import parse, vcpu_limits
from prefect_ecs_plugin.settings import AgentSettings, PrefectSettings

CLUSTER = "arn:aws:ecs:us-east-1:123456789012:cluster/flows"
ROLE = "arn:aws-cn:iam::210987654321:role/flows"
SPOT = [{"capacityProvider": "FARGATE_SPOT"}, {"capacityProvider": "FARGATE"}]


@pytest.mark.parametrize(
    "settings, where",
    [
        ({}, "cluster default in us-east-1, account unknown, launch type FARGATE"),
        (
            {"cluster": CLUSTER, "launch_type": "EC2"},
            "cluster flows in us-east-1, account 123456789012, launch type EC2",
        ),
        (
            {"run_task_kwargs": {"cluster": "k", "capacityProviderStrategy": SPOT}},
            "cluster k in us-east-1, account unknown, capacity providers FARGATE_SPOT, "
            "FARGATE",
        ),
        (
            {"run_task_kwargs": {"launchType": None}, "task_role_arn": ROLE},
            "cluster default in us-east-1, account 210987654321, the cluster's default "
            "capacity providers",
        ),
    ],
)
def test_the_whole_line(settings: Dict[str, Any], where: str) -> None:
    given = AgentSettings(**settings)
    prefect = PrefectSettings("server", "http://prefect:4200", labels=("a", "b"))
    start = "labels ['a', 'b'], API http://prefect:4200 (server), "
    shown = line(given, prefect, "us-east-1", given_account(given), None)
    assert shown == f"{start}{where}, no health address"
    shown = line(given, prefect, "us-east-1", given_account(given), "http://0.0.0.0:80")
    assert shown == f"{start}{where}, health at http://0.0.0.0:80"
    shown = line(given, prefect, "us-east-1", given_account(given), None, "total:5")
    assert shown == f"{start}{where}, limits total:5, no health address"


def test_limits_are_named_as_everywhere() -> None:
    assert limits_in_words([], follows_quota=False) == ""
    given = [parse("50"), parse("flow=etl:2"), *vcpu_limits("2.5")]
    assert limits_in_words(given, False) == "total:50, flow=etl:2, vcpus:2.5"
    assert limits_in_words(given[:1], True) == "total:50, vcpus:quota"


@pytest.mark.parametrize(
    "arn, account",
    [
        (None, None),
        ("", None),
        ("default", None),
        ("arn:aws:ecs:us-east-1:1:cluster/x", None),
        ("arn:aws:iam::aws:policy/x", None),
        (CLUSTER, "123456789012"),
        (ROLE, "210987654321"),
    ],
)
def test_the_account_of_an_arn(arn: Optional[str], account: Optional[str]) -> None:
    assert account_of([None, "x", arn]) == account


@pytest.mark.parametrize(
    "settings",
    [
        {"cluster": CLUSTER},
        {"run_task_kwargs": {"cluster": CLUSTER}},
        {"execution_role_arn": CLUSTER},
        {"task_role_arn": CLUSTER},
        {"task_definition": {"executionRoleArn": CLUSTER}},
        {"task_definition": {"taskRoleArn": CLUSTER}},
    ],
)
def test_where_the_account_is_found_without_asking(settings: Dict[str, Any]) -> None:
    assert given_account(AgentSettings(**settings)) == "123456789012"


def test_a_secret_may_be_in_another_account() -> None:
    secret = "arn:aws:ssm:us-east-1:123456789012:parameter/key"
    assert given_account(AgentSettings(api_key_secret_arn=secret)) is None
