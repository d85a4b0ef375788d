"""The execution role and the task role: there, and ECS's tasks may take them."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List

from ..rights import ECS_TASKS
from .asking import Refused
from .facts import CheckContext, Identity
from .findings import Finding, failed, ok
from .images import ECRImage
from .preview import LaunchPreview

_TRUST = (
    f"Let its trust policy allow sts:AssumeRole to the service {ECS_TASKS}; see "
    "https://docs.aws.amazon.com/AmazonECS/latest/developerguide/"
    "task_execution_IAM_role.html"
)


def execution_role(facts: CheckContext, launch: LaunchPreview) -> Iterator[Finding]:
    """Whether there is an execution role where ECS needs one to start the task.

    What Fargate and secrets need the requests' own check refuses already; on EC2 the
    instance's role may do instead.
    """
    role = launch.roles().get("executionRoleArn")
    reasons = _reasons(launch)
    if role:
        yield from _usable(facts, role)
    elif not reasons:
        yield ok("none is needed")
    elif launch.is_on_fargate is False and "secrets" not in reasons:
        yield ok(f"none; the container instances' role has to do for {reasons[0]}")
    else:
        yield failed(
            f"There is none, and ECS needs one for {' and '.join(reasons)}.",
            "Give --execution-role-arn, or executionRoleArn in the template.",
        )


def task_role(facts: CheckContext, launch: LaunchPreview) -> Iterator[Finding]:
    """Whether the role that the flow's code has can be taken."""
    role = launch.roles().get("taskRoleArn")
    if role:
        yield from _usable(facts, role)


def arn_of(role: str, identity: Identity) -> str:
    """A role's ARN; ECS takes a bare name, policies do not."""
    if role.startswith("arn:"):
        return role
    return f"arn:{identity.partition}:iam::{identity.account}:role/{role}"


def _reasons(launch: LaunchPreview) -> List[str]:
    found = {
        "the image in ECR": any(ECRImage.of(image) for image in launch.images()),
        "awslogs": bool(launch.logs()),
        "secrets": bool(launch.secrets()),
    }
    return [reason for reason, needed in found.items() if needed]


def _usable(facts: CheckContext, role: str) -> Iterator[Finding]:
    assert facts.aws is not None  # preflight asks only where it is known
    account = role.split(":")[4] if role.startswith("arn:") else ""
    if facts.identity and account and account != facts.identity.account:
        yield failed(
            f"{role} is of another account than the agent, {facts.identity.account}.",
            "Name a role of the agent's account.",
        )
        return
    try:
        answer = facts.aws.ask("iam", "get_role", RoleName=role.rpartition("/")[2])
    except Refused as error:
        if error.code != "NoSuchEntity":
            raise
        yield failed(f"There is no role {role}.", "Create it, or name another.")
        return
    found = answer["Role"]
    if role.startswith("arn:") and found["Arn"] != role:
        yield failed(f"There is no role {role}.", f"There is {found['Arn']}.")
    elif _trusts_tasks(found.get("AssumeRolePolicyDocument")):
        yield ok(role)
    else:
        yield failed(f"ECS tasks may not take {role}.", _TRUST)


def _trusts_tasks(policy: Any) -> bool:
    """Whether some statement lets tasks take the role; conditions are not judged."""
    if not isinstance(policy, dict):
        return False
    return any(
        statement.get("Effect") == "Allow"
        and ECS_TASKS in _services(statement)
        and any(_covers(action) for action in _listed(statement.get("Action")))
        for statement in _listed(policy.get("Statement"))
    )


def _services(statement: Dict[str, Any]) -> List[Any]:
    principal = statement.get("Principal")
    if not isinstance(principal, dict):
        return []
    return _listed(principal.get("Service"))


def _covers(action: str) -> bool:
    return str(action).lower() in ("*", "sts:*", "sts:assumerole")


def _listed(value: Any) -> List[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
