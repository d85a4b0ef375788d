"""The formats that AWS takes as they are: the policy, the task definition. Pure."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any, Dict, List, Optional

from ...errors import ConfigurationError
from . import policy, service
from .placeholders import Placeholders
from .plan import IMAGE_REPOSITORY, Plan

#: Domains of partitions that are not AWS's first.
_DNS_SUFFIXES = {"aws-cn": "amazonaws.com.cn"}


@dataclass(frozen=True)
class AccountInfo:
    """What the options say of the account.

    Attributes:
        region: The region, None if not given.
        agent_role_arn: The role of the agent.
        execution_role_arn: The role with which ECS starts it.
    """

    region: Optional[str] = None
    agent_role_arn: Optional[str] = None
    execution_role_arn: Optional[str] = None


def agent_policy(plan: Plan, account: AccountInfo) -> str:
    """The agent role's policy; `*` stands for an account or region not given."""
    return _json(policy.agent(plan, _placeholders(plan, account)))


def task_definition(plan: Plan, account: AccountInfo) -> str:
    """What `aws ecs register-task-definition --cli-input-json` takes.

    Raises:
        ConfigurationError: if the region, a role or the key's secret is not known:
            nothing is made here, so everything has to be there.
    """
    for missing, option in (
        (not account.region, "--region"),
        (not account.agent_role_arn, "--agent-role-arn"),
        (not account.execution_role_arn, "--agent-execution-role-arn"),
        (plan.makes_secret, "--api-key-secret-arn"),
    ):
        if missing:
            raise ConfigurationError(
                f"--format task-definition needs {option}: it makes nothing but the "
                "definition. The formats cloudformation and terraform make the rest."
            )
    return _json(service.task_definition(plan, _placeholders(plan, account)))


def commands(plan: Plan, account: AccountInfo) -> List[str]:
    """What is run with the task definition, in this order."""
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
