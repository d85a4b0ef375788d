"""The execution role and the task role: whether they exist and ECS may assume them."""

from __future__ import annotations

from typing import Any, Iterator, List

from ..aws_client import AWSRefusal
from ..permissions import ECS_TASKS
from .context import CheckContext, Identity, LaunchPreview
from .findings import Finding, failed, ok
from .images import ECRImage

_TRUST = (
    f"Let its trust policy allow sts:AssumeRole to the service {ECS_TASKS}; see "
    "https://docs.aws.amazon.com/AmazonECS/latest/developerguide/"
    "task_execution_IAM_role.html"
)


def execution_role(context: CheckContext, launch: LaunchPreview) -> Iterator[Finding]:
    """Whether there is an execution role, if ECS needs one to start the task.

    The check of the requests covers the needs of Fargate and of secrets. On EC2 the
    container instance's role can replace the execution role otherwise.
    """
    role = launch.roles().get("executionRoleArn")
    needed_for = {
        "the image in ECR": any(ECRImage.of(image) for image in launch.images()),
        "awslogs": bool(launch.logs()),
        "secrets": bool(launch.secrets()),
    }
    reasons = [reason for reason, is_needed in needed_for.items() if is_needed]
    if role:
        yield _usable(context, role)
    elif not reasons:
        yield ok("none is needed")
    elif launch.is_on_fargate is False and "secrets" not in reasons:
        yield ok(f"none; ECS uses the container instance's role for {reasons[0]}")
    else:
        yield failed(
            f"There is no execution role; ECS needs one for {' and '.join(reasons)}.",
            "Give --execution-role-arn, or executionRoleArn in the template.",
            code="no-execution-role",
        )


def task_role(context: CheckContext, launch: LaunchPreview) -> Iterator[Finding]:
    """Whether tasks may assume the role that the flow's code gets."""
    role = launch.roles().get("taskRoleArn")
    if role:
        yield _usable(context, role)


def arn_of(role: str, identity: Identity) -> str:
    """A role's ARN: ECS accepts the bare name, IAM's policies do not."""
    if role.startswith("arn:"):
        return role
    return f"arn:{identity.partition}:iam::{identity.account}:role/{role}"


def _usable(context: CheckContext, role: str) -> Finding:
    account = role.split(":")[4] if role.startswith("arn:") else ""
    if context.identity and account and account != context.identity.account:
        return failed(
            f"{role} belongs to another account than the agent, "
            f"{context.identity.account}.",
            "Name a role of the agent's account.",
            code="role-of-another-account",
        )
    try:
        answer = context.known_aws.ask(
            "iam", "get_role", RoleName=role.rpartition("/")[2]
        )
    except AWSRefusal as error:
        if error.aws_code != "NoSuchEntity":
            raise
        return failed(
            f"The role {role} does not exist.",
            "Create it, or name another.",
            code="role-not-found",
        )
    found = answer["Role"]
    if role.startswith("arn:") and found["Arn"] != role:
        return failed(
            f"The role {role} does not exist.",
            f"The role of that name is {found['Arn']}.",
            code="role-not-found",
        )
    if _trusts_tasks(found.get("AssumeRolePolicyDocument")):
        return ok(role)
    return failed(f"ECS tasks may not assume {role}.", _TRUST, code="role-not-trusting")


def _trusts_tasks(policy: Any) -> bool:
    """Whether a statement lets tasks assume the role; conditions are ignored."""
    if not isinstance(policy, dict):
        return False
    for statement in _listed(policy.get("Statement")):
        principal = statement.get("Principal")
        services = principal.get("Service") if isinstance(principal, dict) else None
        actions = {str(each).lower() for each in _listed(statement.get("Action"))}
        if (
            statement.get("Effect") == "Allow"
            and ECS_TASKS in _listed(services)
            and actions & {"*", "sts:*", "sts:assumerole"}
        ):
            return True
    return False


def _listed(value: Any) -> List[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
