"""The IAM policies of the agent's role and of its execution role. Pure."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence

from ..permissions import AGENT, ECS_TASKS, Condition, On
from .placeholders import Placeholders, Reference
from .plan import Plan, family_patterns

#: The definitions of runs whose template names no family: prefect-<image>-<digest>.
_OWN_FAMILIES = "prefect-*-" + "?" * 16 + ":*"


def document(statements: Sequence[Dict[str, Any]]) -> Dict[str, Any]:
    """Statements as an IAM policy."""
    return {"Version": "2012-10-17", "Statement": list(statements)}


def agent(plan: Plan, names: Placeholders) -> Dict[str, Any]:
    """The policy of the agent's own role: `AGENT` as the plan needs it."""
    resources = _resources(plan, names)
    return document(
        [
            _allow(
                each.statement,
                [each.action],
                resources[each.on],
                _condition(each.condition, names),
            )
            for each in AGENT
            if resources[each.on]
        ]
    )


def execution(plan: Plan, names: Placeholders) -> Dict[str, Any]:
    """The policy of the execution role: ECS pulls images, writes logs, reads the key.

    Flow runs that name no execution role use this one too, so it allows all images of
    the account's registry and the flow runs' log groups.
    """
    streams = _streams(names, [names.log_group, *plan.log_groups])
    repositories = Reference(
        f"arn:{names.partition}:ecr:*:{names.account}:repository/*"
    )
    pulling = [
        "ecr:BatchCheckLayerAvailability",
        "ecr:BatchGetImage",
        "ecr:GetDownloadUrlForLayer",
    ]
    return document(
        [
            _allow("LogInToRegistry", ["ecr:GetAuthorizationToken"], ["*"]),
            _allow("PullImages", pulling, [repositories]),
            _allow("WriteLogs", ["logs:CreateLogStream", "logs:PutLogEvents"], streams),
            *_reading_key(plan, names),
        ]
    )


def trust(names: Placeholders, *, by_ecs_itself: bool = False) -> Dict[str, Any]:
    """The trust policy of a role, for ECS tasks of the account.

    Args:
        names: The format's placeholders.
        by_ecs_itself: Whether it is an execution role, which ECS assumes before the
            task exists.
    """
    statement: Dict[str, Any] = {
        "Effect": "Allow",
        "Principal": {"Service": ECS_TASKS},
        "Action": "sts:AssumeRole",
    }
    statement["Condition"] = {
        "StringEquals": {"aws:SourceAccount": Reference(names.account)}
    }
    if not by_ecs_itself:
        statement["Condition"]["ArnLike"] = {"aws:SourceArn": names.arn("ecs", "*")}
    return document([statement])


def _allow(
    sid: str,
    actions: Sequence[str],
    resources: Sequence[str],
    condition: Optional[Dict[str, Any]] = None,
) -> Dict[str, Any]:
    statement: Dict[str, Any] = {
        "Sid": sid,
        "Effect": "Allow",
        "Action": list(actions),
        "Resource": list(resources),
    }
    return {**statement, "Condition": condition} if condition else statement


def _resources(plan: Plan, names: Placeholders) -> Mapping[On, Sequence[str]]:
    """The resources of each permission; empty if the plan does not need it."""
    families = _families(plan, names)
    tasks = names.arn("ecs", f"task/{names.cluster}/*")
    return {
        On.LAUNCHED: families,
        On.REGISTERED: ["*"],
        On.DESCRIBED: ["*"],
        On.CREATED: [*families, tasks],
        On.TASKS: [tasks],
        On.LISTED: ["*"],
        On.CLUSTER: [names.cluster_arn],
        On.ROLES: _roles(plan, names),
        On.NETWORK: ["*"] if plan.infers_network else [],
        On.LOGS: _streams(names, plan.log_groups),
        On.FILES: [
            Reference(f"arn:{names.partition}:s3:::{name}") for name in plan.objects
        ],
    }


def _families(plan: Plan, names: Placeholders) -> List[Reference]:
    patterns = [_OWN_FAMILIES]
    for family in plan.families:
        patterns += family_patterns(family)
    return [names.arn("ecs", f"task-definition/{name}") for name in patterns]


def _roles(plan: Plan, names: Placeholders) -> List[str]:
    if plan.execution_role_arn or not names.execution_role_arn:
        return list(plan.flow_roles)
    return [*plan.flow_roles, Reference(names.execution_role_arn)]


def _streams(names: Placeholders, groups: Sequence[str]) -> List[Reference]:
    return [names.arn("logs", f"log-group:{group}:log-stream:*") for group in groups]


def _condition(
    condition: Optional[Condition], names: Placeholders
) -> Optional[Dict[str, Any]]:
    if condition is None:
        return None
    values = list(condition.values) or [names.cluster_arn]
    value = values if len(values) > 1 else values[0]
    return {condition.operator: {condition.key: value}}


def _reading_key(plan: Plan, names: Placeholders) -> List[Dict[str, Any]]:
    if not plan.has_api_key:
        return []
    reading = [_allow("ReadApiKey", [plan.reads_key], [Reference(names.api_key_arn)])]
    if not plan.key_kms_key:
        return reading
    service = "ssm" if plan.keeps_key_in_parameter else "secretsmanager"
    through = Reference(f"{service}.{names.region}.amazonaws.com")
    condition = {"StringEquals": {"kms:ViaService": through}}
    decrypting = _allow("DecryptApiKey", ["kms:Decrypt"], [plan.key_kms_key], condition)
    return [*reading, decrypting]
