"""The permissions of the agent's identity, as far as AWS reports them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple
from urllib.parse import urlsplit

from botocore import xform_name

from ...config.configuration import infers_network
from ...limits import QUOTA
from ..aws_client import AWS, AWSRefusal, AWSUnavailable, MissingPermission
from ..permissions import AGENT, QUOTAS, On, Permission
from .context import CheckContext, Identity, LaunchPreview
from .findings import Finding, failed, ok, skipped, warning
from .roles import arn_of


@dataclass(frozen=True)
class Need:
    """A permission that the agent needs on one resource.

    Attributes:
        action: Such as `ecs:RunTask`.
        resource: The resource's ARN.
        without: The consequence if it is missing.
        is_needed: Whether runs fail without it.
        context: Condition keys of the request, which policies may refer to.
    """

    action: str
    resource: str
    without: str
    is_needed: bool = True
    context: Tuple[Tuple[str, str], ...] = ()

    @property
    def title(self) -> str:
        """The action; for iam:PassRole with the role, as there may be several."""
        if self.action != "iam:PassRole":
            return self.action
        return f"{self.action} {self.resource.rpartition('/')[2]}"


def permissions(context: CheckContext) -> Iterator[Finding]:
    """Ask IAM to simulate the policies; if it may not, try harmless calls."""
    aws, identity = context.known_aws, context.known_identity
    needs = list(_needs(context, identity, aws.region))
    try:
        source = _policy_source(aws, identity)
        answers = {each: simulated(aws, source, each) for each in needs}
    except AWSUnavailable as error:
        yield skipped(
            f"IAM does not simulate the policies: {error}. Harmless calls are tried "
            "instead.",
            "Grant the identity that runs the check iam:SimulatePrincipalPolicy and "
            "iam:GetRole.",
            code="policies-not-simulated",
        )
        answers = {each: _probed(aws, each) for each in needs}
    yield from _report(answers)


def _report(answers: Mapping[Need, Optional[str]]) -> Iterator[Finding]:
    # Several clusters have the same titles.
    allowed = dict.fromkeys(need.title for need in answers if answers[need] == "")
    unknown = dict.fromkeys(need.title for need in answers if answers[need] is None)
    if allowed:
        yield ok(", ".join(allowed))
    for need, answer in answers.items():
        if answer == "depends":
            yield warning(
                f"A condition may deny {need.action} on {need.resource}; without it, "
                f"{need.without}.",
                "Check the policies of the agent's identity.",
                need.title,
                code="permission-maybe-missing",
            )
        elif answer:
            status = failed if need.is_needed else warning
            yield status(
                f"Missing IAM permission {need.action} on {need.resource}: "
                f"{need.without}.",
                "Grant it to the agent's identity.",
                need.title,
                code="missing-permission",
            )
    if unknown:
        yield skipped(f"Unknown: {', '.join(unknown)}.", code="permission-unknown")


# -- The permissions that runs need ------------------------------------------------


def _needs(context: CheckContext, identity: Identity, region: str) -> Iterator[Need]:
    """`AGENT` on all resources that runs would use, each once."""
    found: Dict[Tuple[str, str], Need] = {}
    for launch in context.launches:
        resources = _resources(launch, identity, region)
        cluster = resources[On.CLUSTER][0]
        for permission in AGENT:
            for resource in resources.get(permission.on, ()):
                need = _need(permission, resource, cluster, launch)
                known = found.setdefault((need.action, need.resource), need)
                if need.is_needed and not known.is_needed:
                    found[need.action, need.resource] = need
    yield from found.values()
    yield from _of_agent(context, identity, region)


def _resources(
    launch: LaunchPreview, identity: Identity, region: str
) -> Mapping[On, Sequence[str]]:
    """Examples of the resources that a run would use, as ARNs."""
    where = f"{region}:{identity.account}"
    ecs = f"arn:{identity.partition}:ecs:{where}"
    logs = f"arn:{identity.partition}:logs:{where}"
    cluster = launch.cluster.rpartition("/")[2]
    definition = f"{ecs}:task-definition/{launch.family}:1"
    task = f"{ecs}:task/{cluster}/{'0' * 32}"
    return {
        On.LAUNCHED: [definition],
        On.REGISTERED: [] if launch.task_definition else [definition],
        On.DESCRIBED: ["*"],
        On.CREATED: [task],
        On.TASKS: [task],
        On.LISTED: [f"{ecs}:container-instance/{cluster}/{'0' * 32}"],
        On.CLUSTER: [f"{ecs}:cluster/{cluster}"],
        On.ROLES: [arn_of(role, identity) for role in launch.roles().values()],
        On.LOGS: [
            f"{logs}:log-group:{group}:log-stream:x" for group in sorted(launch.logs())
        ],
    }


def _need(
    permission: Permission, resource: str, cluster: str, launch: LaunchPreview
) -> Need:
    context = [("ecs:cluster", cluster)]
    condition = permission.condition
    if condition is not None and condition.values:
        context.insert(0, (condition.key, condition.example or condition.values[0]))
    # A run that names a registered definition fails if the agent cannot describe it.
    describes_its_own = permission.on is On.DESCRIBED and launch.task_definition
    return Need(
        permission.action,
        resource,
        permission.without,
        permission.is_needed or bool(describes_its_own),
        tuple(context),
    )


def _of_agent(context: CheckContext, identity: Identity, region: str) -> Iterator[Need]:
    """The permissions that the agent itself needs, by its options."""
    settings, options = context.settings, context.options
    partition = identity.partition
    urls = [
        urlsplit(options.get(option) or "")
        for option in ("task_definition_path", "run_task_kwargs_path", "limits_path")
    ]
    follows_quota = options.get("max_vcpus") == QUOTA
    quotas = f"arn:{partition}:servicequotas:{region}:{identity.account}"
    resources = {
        On.NETWORK: ["*"] if settings and infers_network(settings) else [],
        On.FILES: [
            f"arn:{partition}:s3:::{url.netloc}{url.path}"
            for url in urls
            if url.scheme == "s3"
        ],
        On.QUOTAS: [f"{quotas}:{quota}" for quota in QUOTAS if follows_quota],
        On.USAGE: ["*"] if follows_quota else [],
        On.PRICES: ["*"] if options.get("prices") == "aws" else [],
    }
    for each in AGENT:
        for resource in resources.get(each.on, ()):
            yield Need(each.action, resource, each.without, each.is_needed)


# -- Simulating the policies -------------------------------------------------------


def _policy_source(aws: AWS, identity: Identity) -> str:
    """The ARN of the user or role.

    A role's session has another ARN, without the role's path:
    arn:aws:sts::ACCOUNT:assumed-role/NAME/SESSION.

    Raises:
        AWSUnavailable: if IAM cannot simulate the policies of such an identity.
    """
    kind, _, rest = identity.arn.split(":", 5)[5].partition("/")
    if kind == "user":
        return f"arn:{identity.partition}:iam::{identity.account}:user/{rest}"
    if kind == "assumed-role":
        name = rest.partition("/")[0]
        return str(aws.ask("iam", "get_role", RoleName=name)["Role"]["Arn"])
    raise AWSUnavailable(
        f"{identity.arn} is neither a user nor a role", code="neither-user-nor-role"
    )


def simulated(aws: AWS, source: str, need: Need) -> Optional[str]:
    """`""` if allowed, `denied`, or `depends` if a condition's value is unknown."""
    context = [
        {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": "string"}
        for key, value in need.context
    ]
    answer = aws.ask(
        "iam",
        "simulate_principal_policy",
        PolicySourceArn=source,
        ActionNames=[need.action],
        ResourceArns=[need.resource],
        ContextEntries=context,
    )
    results: List[Dict[str, Any]] = answer.get("EvaluationResults", [])
    if not results:
        raise AWSUnavailable("IAM's answer is empty", code="empty-answer")
    if all(result["EvalDecision"] == "allowed" for result in results):
        return ""
    depends = any(result.get("MissingContextValues") for result in results)
    explicit = any(result["EvalDecision"] == "explicitDeny" for result in results)
    return "depends" if depends and not explicit else "denied"


# -- Trying calls that only read ----------------------------------------------------


def _probed(aws: AWS, need: Need) -> Optional[str]:
    """As `simulated`; None for an action that is not tried."""
    cluster = dict(need.context).get("ecs:cluster", "")
    no_vpc = {"Filters": [{"Name": "vpc-id", "Values": ["vpc-00000000000000000"]}]}
    # Most name resources that do not exist: AWS checks the permission first.
    calls: Mapping[str, Mapping[str, Any]] = {
        "ecs:DescribeTasks": {"cluster": cluster, "tasks": [uuid.UUID(int=0).hex]},
        "ecs:ListTasks": {"cluster": cluster, "startedBy": "prefect-ecs-plugin-check"},
        "ecs:DescribeTaskDefinition": {"taskDefinition": "prefect-ecs-plugin-check:1"},
        "ecs:DescribeClusters": {"clusters": [cluster]},
        "ec2:DescribeVpcs": no_vpc,
        "ec2:DescribeSubnets": no_vpc,
    }
    if need.action not in calls:
        return None
    service, _, operation = need.action.partition(":")
    try:
        aws.ask(service, xform_name(operation), **calls[need.action])
    except MissingPermission:
        return "denied"
    except AWSRefusal:
        return ""  # AWS looked for the resource, so the call was allowed
    except AWSUnavailable:
        return None
    return ""
