"""What the agent may do, and what ECS may do for it: two tables of rights. Pure.

Each right names its resources as narrowly as AWS lets it:
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelasticcontainerservice.html
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence

from ..template import FLOW_RUN_ID
from .place import Place, Reference
from .plan import Plan, family_patterns

#: The definitions of runs whose template names no family: prefect-<image>-<digest>.
_OWN_FAMILIES = "prefect-*-" + "?" * 16 + ":*"

#: Who takes a role on: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-iam-roles.html
_TASKS = "ecs-tasks.amazonaws.com"

#: A task that a Prefect agent started for a flow run.
_IS_A_RUNS = {"StringLike": {f"aws:ResourceTag/{FLOW_RUN_ID}": "?*"}}


def document(statements: Sequence[Dict[str, Any]]) -> Dict[str, Any]:
    """Statements as an IAM policy."""
    return {"Version": "2012-10-17", "Statement": list(statements)}


def agent(plan: Plan, place: Place) -> Dict[str, Any]:
    """The policy of the agent's own role.

    It may launch, watch and stop tasks in its cluster, of its own families, with the
    roles it was told; everything else only where the plan needs it.
    """
    in_cluster = {"ArnLike": {"ecs:cluster": place.cluster_arn}}
    families = _families(plan, place)
    tasks = place.arn("ecs", f"task/{place.cluster}/*")
    creating = {"ecs:CreateAction": ["RunTask", "RegisterTaskDefinition"]}
    return document(
        [
            _allow("LaunchTasks", ["ecs:RunTask"], families, in_cluster),
            # AWS takes no narrower resource for these two; which roles a definition
            # may carry is a matter of iam:PassRole.
            _allow(
                "RegisterTaskDefinitions",
                ["ecs:DescribeTaskDefinition", "ecs:RegisterTaskDefinition"],
                ["*"],
            ),
            _allow(
                "TagWhatItCreates",
                ["ecs:TagResource"],
                [*families, tasks],
                {"StringEquals": creating},
            ),
            _allow("WatchTasks", ["ecs:DescribeTasks"], [tasks]),
            # Others' tasks in the cluster have no such tag.
            _allow("StopTasks", ["ecs:StopTask"], [tasks], _IS_A_RUNS),
            _allow("FindTasks", ["ecs:ListTasks"], ["*"], in_cluster),
            _allow("SeeCluster", ["ecs:DescribeClusters"], [place.cluster_arn]),
            *_passing_roles(plan, place),
            *_finding_network(plan),
            *_reading_logs(plan, place),
            *_reading_files(plan, place),
        ]
    )


def execution(plan: Plan, place: Place) -> Dict[str, Any]:
    """The policy of the execution role: with it ECS pulls images, logs, reads the key.

    Flow runs that name no execution role get this one too, so it pulls every image
    of the account's registry and writes to the flow runs' log groups.
    """
    groups = [place.log_group, *plan.log_groups]
    streams = [place.arn("logs", f"log-group:{group}:log-stream:*") for group in groups]
    repositories = Reference(
        f"arn:{place.partition}:ecr:*:{place.account}:repository/*"
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
            *_reading_key(plan, place),
        ]
    )


def trust(place: Place, *, by_ecs_itself: bool = False) -> Dict[str, Any]:
    """Who may take a role on: ECS tasks of its account.

    Args:
        place: Where the account is.
        by_ecs_itself: Whether it is an execution role, which ECS takes on before there
            is a task that it could name.
    """
    statement: Dict[str, Any] = {
        "Effect": "Allow",
        "Principal": {"Service": _TASKS},
        "Action": "sts:AssumeRole",
    }
    statement["Condition"] = {
        "StringEquals": {"aws:SourceAccount": Reference(place.account)}
    }
    if not by_ecs_itself:
        statement["Condition"]["ArnLike"] = {"aws:SourceArn": place.arn("ecs", "*")}
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


def _families(plan: Plan, place: Place) -> List[Reference]:
    patterns = [_OWN_FAMILIES]
    for family in plan.families:
        patterns += family_patterns(family)
    return [place.arn("ecs", f"task-definition/{name}") for name in patterns]


def _passing_roles(plan: Plan, place: Place) -> List[Dict[str, Any]]:
    own = [Reference(place.execution_role_arn)] if place.execution_role_arn else []
    roles = [*plan.flow_roles, *([] if plan.execution_role_arn else own)]
    if not roles:
        return []
    to_tasks = {"StringEquals": {"iam:PassedToService": _TASKS}}
    return [_allow("PassRolesToTasks", ["iam:PassRole"], roles, to_tasks)]


def _finding_network(plan: Plan) -> List[Dict[str, Any]]:
    if not plan.infers_network:
        return []
    return [
        _allow("FindDefaultVpc", ["ec2:DescribeSubnets", "ec2:DescribeVpcs"], ["*"])
    ]


def _reading_logs(plan: Plan, place: Place) -> List[Dict[str, Any]]:
    """For the last lines of a task that failed."""
    streams = [
        place.arn("logs", f"log-group:{group}:log-stream:*")
        for group in plan.log_groups
    ]
    return [_allow("ReadTaskLogs", ["logs:GetLogEvents"], streams)] if streams else []


def _reading_files(plan: Plan, place: Place) -> List[Dict[str, Any]]:
    objects = [Reference(f"arn:{place.partition}:s3:::{name}") for name in plan.objects]
    return [_allow("ReadTemplates", ["s3:GetObject"], objects)] if objects else []


def _reading_key(plan: Plan, place: Place) -> List[Dict[str, Any]]:
    if not plan.has_api_key:
        return []
    reading = [_allow("ReadApiKey", [plan.reads_key], [Reference(place.api_key_arn)])]
    if not plan.key_kms_key:
        return reading
    service = "ssm" if plan.keeps_key_in_parameter else "secretsmanager"
    through = Reference(f"{service}.{place.region}.amazonaws.com")
    condition = {"StringEquals": {"kms:ViaService": through}}
    decrypting = _allow("DecryptApiKey", ["kms:Decrypt"], [plan.key_kms_key], condition)
    return [*reading, decrypting]
