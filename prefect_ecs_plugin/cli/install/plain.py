"""The formats in AWS's own JSON: the policy and the task definition. Pure."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any, Dict, List, Optional

from ...errors import ConfigurationError
from . import policy, service
from .placeholders import Placeholders
from .plan import IMAGE_REPOSITORY, Plan

#: Domains of partitions with another domain than amazonaws.com.
_DNS_SUFFIXES = {"aws-cn": "amazonaws.com.cn"}


@dataclass(frozen=True)
class AccountInfo:
    """The account's properties, as far as options give them.

    Attributes:
        region: The region.
        agent_role_arn: The agent's role.
        execution_role_arn: The agent's execution role.
    """

    region: Optional[str] = None
    agent_role_arn: Optional[str] = None
    execution_role_arn: Optional[str] = None


def agent_policy(plan: Plan, account: AccountInfo) -> str:
    """The agent role's policy; `*` stands for an account or region not given."""
    return _json(policy.agent(plan, _placeholders(plan, account)))


def task_definition(plan: Plan, account: AccountInfo) -> str:
    """The input of `aws ecs register-task-definition --cli-input-json`.

    Raises:
        ConfigurationError: if the region, a role or the key's secret is missing, as
            this format creates none.
    """
    for missing, option in (
        (not account.region, "--region"),
        (not account.agent_role_arn, "--agent-role-arn"),
        (not account.execution_role_arn, "--agent-execution-role-arn"),
        (plan.makes_secret, "--api-key-secret-arn"),
    ):
        if missing:
            raise ConfigurationError(
                f"--format task-definition requires {option}: it contains the task "
                "definition only. The formats cloudformation and terraform contain all "
                "resources.",
                code="missing-option",
            )
    return _json(service.task_definition(plan, _placeholders(plan, account)))


def commands(plan: Plan, account: AccountInfo) -> List[str]:
    """The commands that use the task definition, in their order."""
    names = _placeholders(plan, account)
    file = f"file://{plan.name}.json"
    subnets = plan.subnets or ("SUBNET",)
    groups = plan.security_groups or ("SECURITY_GROUP",)
    request = service.create_service(plan, subnets, groups)
    awsvpc = request["networkConfiguration"]["awsvpcConfiguration"]
    log_group = {"log-group-name": names.log_group}
    if plan.log_kms_key:
        log_group["kms-key-id"] = plan.log_kms_key
    return [
        _command("logs create-log-group", names, log_group),
        _command("ecs register-task-definition", names, {"cli-input-json": file}),
        _command(
            "ecs create-service",
            names,
            {
                "cluster": names.cluster,
                "service-name": plan.name,
                "task-definition": plan.name,
                "desired-count": "1",
                "launch-type": request["launchType"],
                "deployment-configuration": json.dumps(service.DEPLOYMENT),
                "network-configuration": json.dumps({"awsvpcConfiguration": awsvpc}),
            },
        ),
    ]


def _command(name: str, names: Placeholders, options: Dict[str, str]) -> str:
    words = [f"aws {name} --region {names.region}"]
    words += [f"--{option} {shlex.quote(value)}" for option, value in options.items()]
    return " \\\n  ".join(words)


def _placeholders(plan: Plan, account: AccountInfo) -> Placeholders:
    owner = (account.agent_role_arn or account.execution_role_arn or "").split(":")
    partition = plan.cluster.partition or (owner[1] if owner[1:] else "aws")
    number = plan.cluster.account or (owner[4] if owner[1:] else "*")
    region = account.region or "*"
    suffix = _DNS_SUFFIXES.get(partition, "amazonaws.com")
    registry = f"{number}.dkr.ecr.{region}.{suffix}"
    return Placeholders(
        partition=partition,
        region=region,
        account=number,
        cluster=plan.cluster.name,
        image=plan.image or f"{registry}/{IMAGE_REPOSITORY}:{plan.image_tag}",
        cpu=str(plan.cpu),
        memory=str(plan.memory),
        agent_role_arn=account.agent_role_arn or "",
        execution_role_arn=account.execution_role_arn or "",
        log_group=f"/ecs/{plan.name}",
        api_key_arn=plan.secret.arn if plan.secret else "",
    )


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"
