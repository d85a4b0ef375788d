"""The IAM policies of the agent's role and of its execution role. Pure."""

from __future__ import annotations

import re
from typing import Any, Dict, List, Mapping, Optional, Sequence

from ..permissions import AGENT, ECS_TASKS, QUOTAS, Condition, On
from .placeholders import Placeholders, Reference
from .plan import IMAGE_REPOSITORY, Plan, family_patterns

#: The definitions of runs whose template names no family: prefect-<image>-<digest>.
_OWN_FAMILIES = "prefect-*-" + "?" * 16 + ":*"

#: Images in ECR: account, region and repository.
#: https://docs.aws.amazon.com/AmazonECR/latest/userguide/Registries.html
_ECR_IMAGE = re.compile(
    r"(\d{12})\.dkr\.ecr(?:-fips)?\.([\w-]+)\.amazonaws\.com(?:\.cn)?/([^:@]+)"
)


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
    """The policy of the agent's execution role: ECS pulls the agent's image, writes its
    log and reads the key."""
    repositories = [Reference(arn) for arn in _repository(plan, names)]
    return _execution(plan, names, repositories, [names.log_group])


def flow_execution(plan: Plan, names: Placeholders) -> Dict[str, Any]:
    """The policy of the execution role of flow runs that name none: ECS pulls images of
    the account's registry, writes the flows' logs and reads the key."""
    repositories = [
        Reference(f"arn:{names.partition}:ecr:*:{names.account}:repository/{name}")
        for name in plan.flow_repositories
    ]
    return _execution(plan, names, repositories, _flow_log_groups(plan, names))


def _execution(
    plan: Plan,
    names: Placeholders,
    repositories: Sequence[str],
    log_groups: Sequence[str],
) -> Dict[str, Any]:
    logging = ["logs:CreateLogStream", "logs:PutLogEvents"]
    pulling = [
        "ecr:BatchCheckLayerAvailability",
        "ecr:BatchGetImage",
        "ecr:GetDownloadUrlForLayer",
    ]
    pulls = [
        _allow("LogInToRegistry", ["ecr:GetAuthorizationToken"], ["*"]),
        _allow("PullImages", pulling, repositories),
    ]
    return document(
        [
            *(pulls if repositories else []),
            _allow("WriteLogs", logging, _streams(names, log_groups)),
            *_reading_key(plan, names),
        ]
    )


def _repository(plan: Plan, names: Placeholders) -> List[str]:
    """The ARN of the repository of the agent's image, if it is in ECR."""
    if plan.image is None:
        return [names.arn("ecr", f"repository/{IMAGE_REPOSITORY}")]
    found = _ECR_IMAGE.match(plan.image)
    if found is None:
        return []
    account, region, repository = found.groups()
    return [f"arn:{names.partition}:ecr:{region}:{account}:repository/{repository}"]


def _flow_log_groups(plan: Plan, names: Placeholders) -> List[str]:
    return list(dict.fromkeys([names.flow_log_group, *plan.log_groups]))


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
        On.LOGS: _streams(names, _flow_log_groups(plan, names)),
        On.FILES: [
            Reference(f"arn:{names.partition}:s3:::{name}") for name in plan.objects
        ],
        On.QUOTAS: [
            names.arn("servicequotas", quota) for quota in QUOTAS if plan.follows_quota
        ],
        On.USAGE: ["*"] if plan.follows_quota else [],
        On.PRICES: ["*"] if plan.reads_prices else [],
    }


def _families(plan: Plan, names: Placeholders) -> List[Reference]:
    patterns = [_OWN_FAMILIES]
    for family in plan.families:
        patterns += family_patterns(family)
    return [names.arn("ecs", f"task-definition/{name}") for name in patterns]


def _roles(plan: Plan, names: Placeholders) -> List[str]:
    if not plan.makes_flow_role or not names.flow_execution_role_arn:
        return list(plan.flow_roles)
    return [*plan.flow_roles, Reference(names.flow_execution_role_arn)]


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
