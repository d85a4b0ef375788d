"""The formats in AWS's own JSON: the policy and the task definition. Pure."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from typing import Any, Dict, List, Optional

from ...errors import ConfigurationError
from . import policy, service
from .parameters import DEFAULT_RETENTION
from .placeholders import Placeholders
from .plan import AS_THE_AGENT, IMAGE_REPOSITORY, Plan

#: What the user replaces in the output, because no option gave it.
_SUBNET, _SECURITY_GROUP = "SUBNET", "SECURITY_GROUP"
_FLOW_GROUP = "FLOW_SECURITY_GROUP"

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


def to_replace(plan: Plan) -> List[str]:
    """The words in the task definition and the commands that the user replaces."""
    return [
        word
        for word, is_used in (
            (_SUBNET, not plan.subnets),
            (_SECURITY_GROUP, plan.makes_security_group),
            (_FLOW_GROUP, plan.makes_flow_security_group),
        )
        if is_used
    ]


def commands(plan: Plan, account: AccountInfo) -> List[str]:
    """The commands that use the task definition, in their order."""
    names = _placeholders(plan, account)
    file = f"file://{plan.name}.json"
    subnets = plan.subnets or (_SUBNET,)
    groups = plan.security_groups or (_SECURITY_GROUP,)
    request = service.create_service(plan, subnets, groups)
    awsvpc = request["networkConfiguration"]["awsvpcConfiguration"]
    return [
        *_log_group(plan, names, names.log_group),
        *(
            _log_group(plan, names, names.flow_log_group)
            if plan.makes_flow_log_group
            else []
        ),
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
                "enable-ecs-managed-tags": "",
                "propagate-tags": request["propagateTags"],
                "tags": json.dumps(request["tags"]),
            },
        ),
        _command("cloudwatch put-metric-alarm", names, _alarm(plan, names)),
    ]


def _log_group(plan: Plan, names: Placeholders, group: str) -> List[str]:
    options = {"log-group-name": group, "tags": json.dumps(plan.tags)}
    if plan.log_kms_key:
        options["kms-key-id"] = plan.log_kms_key
    retention = {"log-group-name": group, "retention-in-days": str(DEFAULT_RETENTION)}
    return [
        _command("logs create-log-group", names, options),
        _command("logs put-retention-policy", names, retention),
    ]


def _alarm(plan: Plan, names: Placeholders) -> Dict[str, str]:
    options = {
        re.sub("([A-Z])", r"-\1", name).lower(): str(value)
        for name, value in service.alarm(plan).items()
    }
    dimensions = [
        {"Name": "ClusterName", "Value": names.cluster},
        {"Name": "ServiceName", "Value": plan.name},
    ]
    tags = [{"Key": key, "Value": value} for key, value in plan.tags.items()]
    options.update(
        {
            "threshold": "1",
            "dimensions": json.dumps(dimensions),
            "tags": json.dumps(tags),
        }
    )
    if plan.alarm_topic:
        options.update(
            {"alarm-actions": plan.alarm_topic, "ok-actions": plan.alarm_topic}
        )
    return options


def _command(name: str, names: Placeholders, options: Dict[str, str]) -> str:
    """A command; options without a value are switches."""
    words = [f"aws {name} --region {names.region}"]
    for option, value in options.items():
        words.append(f"--{option} {shlex.quote(value)}" if value else f"--{option}")
    return " \\\n  ".join(words)


def _placeholders(plan: Plan, account: AccountInfo) -> Placeholders:
    owner = (account.agent_role_arn or account.execution_role_arn or "").split(":")
    partition = plan.cluster.partition or (owner[1] if owner[1:] else "aws")
    network = plan.flow_network or AS_THE_AGENT
    subnets = network.subnets or plan.subnets or (_SUBNET,)
    has_ip = network.assign_public_ip
    if has_ip is None:
        has_ip = plan.assign_public_ip
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
        flow_execution_role_arn=account.execution_role_arn or "",
        log_group=f"/ecs/{plan.name}",
        flow_log_group=plan.flow_log_group_name,
        flow_subnets=",".join(subnets),
        flow_security_groups=",".join(network.security_groups or (_FLOW_GROUP,)),
        flow_public_ip="ENABLED" if has_ip else "DISABLED",
        api_key_arn=plan.secret.arn if plan.secret else "",
    )


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"
