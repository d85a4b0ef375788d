"""What an agent was started with, in the one line that begins its log (pure)."""

from __future__ import annotations

import re
from typing import Any, Iterable, Mapping, Optional

from .. import kwargs
from ..limits import QUOTA, Kind, Limit
from ..settings import AgentSettings, PrefectSettings

#: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html
_ACCOUNT = re.compile(r"arn:[\w-]+:(?:ecs|iam):[\w-]*:(\d{12}):", re.ASCII)


def account_of(arns: Iterable[Optional[str]]) -> Optional[str]:
    """The account of the first ARN of ECS or IAM among several values.

    RunTask takes a cluster and roles of the caller's own account only.

    Args:
        arns: ARNs, names, or None.
    """
    found = (_ACCOUNT.match(each or "") for each in arns)
    return next((match[1] for match in found if match), None)


def given_account(settings: AgentSettings) -> Optional[str]:
    """The account, if the agent's options, its kwargs or its template have an ARN."""
    merged, template = kwargs.agent_level(settings), settings.task_definition
    return account_of(
        (
            merged.get("cluster"),
            settings.execution_role_arn,
            settings.task_role_arn,
            template.get("executionRoleArn"),
            template.get("taskRoleArn"),
        )
    )


def line(
    settings: AgentSettings,
    prefect: PrefectSettings,
    region: str,
    account: Optional[str],
    address: Optional[str],
    limits: str = "",
) -> str:
    """One line that says what an agent is connected to.

    Args:
        settings: The agent's defaults.
        prefect: Its API and its labels.
        region: The AWS region.
        account: The AWS account; None if it is not known.
        address: Where the agent can be asked for its health; None for nowhere.
        limits: Its limits, as `limits_in_words` has them.
    """
    merged = kwargs.agent_level(settings)
    cluster = str(merged.get("cluster") or "default").rpartition("/")[2]
    return (
        f"labels {list(prefect.labels)}, API {prefect.api} ({prefect.backend}), "
        f"cluster {cluster} in {region}, account {account or 'unknown'}, "
        f"{_placement(merged)}, {f'limits {limits}, ' if limits else ''}"
        + (f"health at {address}" if address else "no health address")
    )


def limits_in_words(limits: Iterable[Limit], follows_quota: bool) -> str:
    """Limits in one line, empty for none.

    Args:
        limits: The limits of the options and of the file.
        follows_quota: Whether AWS's quotas of vCPUs are limits too.
    """
    quota = [f"{Kind.VCPUS.value}:{QUOTA}"] if follows_quota else []
    return ", ".join([*map(str, limits), *quota])


def _placement(merged: Mapping[str, Any]) -> str:
    strategy = merged.get("capacityProviderStrategy")
    if strategy:
        providers = (str(each.get("capacityProvider")) for each in strategy)
        return f"capacity providers {', '.join(providers)}"
    if "launchType" in merged:
        return f"launch type {merged['launchType']}"
    return "the cluster's default capacity providers"
