"""What the agent's identity may do, as far as it may be asked."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
)
from urllib.parse import urlsplit

from ...config.configuration import infers_network
from .. import rights
from ..rights import On, Right
from .asking import AWS, NotAllowed, Refused, Unanswered
from .facts import CheckContext, Identity
from .findings import Finding, failed, ok, skipped, warning
from .preview import LaunchPreview
from .roles import arn_of


@dataclass(frozen=True)
class Need:
    """A right of the agent's on one thing.

    Attributes:
        action: Such as `ecs:RunTask`.
        resource: The ARN of what it is done to.
        without: What happens without it.
        is_needed: Whether runs fail without it.
        context: Condition keys of the request, by which policies may be narrowed.
    """

    action: str
    resource: str
    without: str
    is_needed: bool = True
    context: Tuple[Tuple[str, str], ...] = ()

    @property
    def title(self) -> str:
        """The action, and the role for the one that is asked for several."""
        if self.action != "iam:PassRole":
            return self.action
        return f"{self.action} {self.resource.rpartition('/')[2]}"


def permissions(facts: CheckContext) -> Iterator[Finding]:
    """What the policies say, or what harmless calls say, or that it is not known."""
    assert facts.aws is not None  # preflight asks only where they are known
    assert facts.identity is not None
    needs = list(_needs(facts, facts.identity, facts.aws.region))
    try:
        source = _policy_source(facts.aws, facts.identity)
        answers = {each: simulated(facts.aws, source, each) for each in needs}
    except Unanswered as error:
        yield skipped(
            f"The policies cannot be asked: {error}. What reads is tried instead.",
            "Grant the identity that runs the check iam:SimulatePrincipalPolicy and "
            "iam:GetRole.",
        )
        answers = {each: _probed(facts.aws, each) for each in needs}
    yield from _told(answers)


def _told(answers: Mapping[Need, Optional[str]]) -> Iterator[Finding]:
    allowed = [need.title for need, answer in answers.items() if answer == ""]
    unknown = [need.title for need, answer in answers.items() if answer is None]
    if allowed:
        yield ok(_listed(allowed))
    for need, answer in answers.items():
        if answer:
            yield _denied(need, answer)
    if unknown:
        yield skipped(f"Not known: {_listed(unknown)}.")


def _listed(titles: List[str]) -> str:
    """Each once: several clusters have the same."""
    return ", ".join(dict.fromkeys(titles))


def _denied(need: Need, answer: str) -> Finding:
    status = failed if need.is_needed and answer != "depends" else warning
    reason = "may be denied, by a condition" if answer == "depends" else "is denied"
    return status(
        f"{need.action} on {need.resource} {reason}: {need.without}.",
        "Grant it to the agent's identity.",
        need.title,
    )


# -- Which rights ------------------------------------------------------------------


def _needs(facts: CheckContext, identity: Identity, region: str) -> Iterator[Need]:
    """`rights.AGENT` on everything that runs would use, each once."""
    found: Dict[Tuple[str, str], Need] = {}
    for launch in facts.launches:
        resources = _resources(launch, identity, region)
        cluster = resources[On.CLUSTER][0]
        for right in rights.AGENT:
            for resource in resources.get(right.on, ()):
                need = _need(right, resource, cluster, launch)
                known = found.setdefault((need.action, need.resource), need)
                if need.is_needed and not known.is_needed:
                    found[need.action, need.resource] = need
    yield from found.values()
    yield from _of_agent(facts, identity.partition)


def _resources(
    launch: LaunchPreview, identity: Identity, region: str
) -> Mapping[On, Sequence[str]]:
    """Examples of what a run would use: ARNs that `rights.AGENT` is granted on."""
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


def _need(right: Right, resource: str, cluster: str, launch: LaunchPreview) -> Need:
    context = [("ecs:cluster", cluster)]
    condition = right.condition
    if condition is not None and condition.values:
        example = condition.example or condition.values[0]
        context.insert(0, (condition.key, example))
    describes_its_own = right.on is On.DESCRIBED and launch.task_definition
    return Need(
        right.action,
        resource,
        right.without,
        right.is_needed or bool(describes_its_own),
        tuple(context),
    )


def _of_agent(facts: CheckContext, partition: str) -> Iterator[Need]:
    """What the agent itself uses at its start."""
    settings = facts.settings
    urls = [
        urlsplit(facts.options.get(option) or "")
        for option in ("task_definition_path", "run_task_kwargs_path")
    ]
    resources = {
        On.NETWORK: ["*"] if settings and infers_network(settings) else [],
        On.FILES: [
            f"arn:{partition}:s3:::{url.netloc}{url.path}"
            for url in urls
            if url.scheme == "s3"
        ],
    }
    for right in rights.AGENT:
        for resource in resources.get(right.on, ()):
            yield Need(right.action, resource, right.without, right.is_needed)


# -- Asking the policies -----------------------------------------------------------


def _policy_source(aws: AWS, identity: Identity) -> str:
    """The user's or role's own ARN.

    A session of a role is known by another ARN, that lacks the role's path:
    arn:aws:sts::ACCOUNT:assumed-role/NAME/SESSION.

    Raises:
        Unanswered: if policies cannot be asked about such an identity.
    """
    kind, _, rest = identity.arn.split(":", 5)[5].partition("/")
    if kind == "user":
        return f"arn:{identity.partition}:iam::{identity.account}:user/{rest}"
    if kind == "assumed-role":
        name = rest.partition("/")[0]
        return str(aws.ask("iam", "get_role", RoleName=name)["Role"]["Arn"])
    raise Unanswered(f"{identity.arn} is neither a user nor a role")


def simulated(aws: AWS, source: str, need: Need) -> Optional[str]:
    """`""` if it is allowed, `denied`, or `depends` on what is not known here."""
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
        raise Unanswered("it answers nothing")
    if all(result["EvalDecision"] == "allowed" for result in results):
        return ""
    depends = any(result.get("MissingContextValues") for result in results)
    explicit = any(result["EvalDecision"] == "explicitDeny" for result in results)
    return "depends" if depends and not explicit else "denied"


# -- Trying what reads ---------------------------------------------------------------


def _probed(aws: AWS, need: Need) -> Optional[str]:
    """As `simulated`; None for what cannot be tried without doing it."""
    probe = _PROBES.get(need.action)
    if probe is None:
        return None
    try:
        probe(aws, dict(need.context).get("ecs:cluster", ""))
    except NotAllowed:
        return "denied"
    except Refused:
        return ""  # AWS looked for what is not there, so it was allowed to
    except Unanswered:
        return None
    return ""


def _describe_tasks(aws: AWS, cluster: str) -> None:
    aws.ask("ecs", "describe_tasks", cluster=cluster, tasks=[uuid.UUID(int=0).hex])


def _list_tasks(aws: AWS, cluster: str) -> None:
    aws.ask("ecs", "list_tasks", cluster=cluster, startedBy="prefect-ecs-plugin-check")


def _describe_task_definition(aws: AWS, cluster: str) -> None:
    name = "prefect-ecs-plugin-check:1"
    aws.ask("ecs", "describe_task_definition", taskDefinition=name)


def _describe_clusters(aws: AWS, cluster: str) -> None:
    aws.ask("ecs", "describe_clusters", clusters=[cluster])


def _describe_vpcs(aws: AWS, cluster: str) -> None:
    aws.ask("ec2", "describe_vpcs", Filters=_NOT_THERE)


def _describe_subnets(aws: AWS, cluster: str) -> None:
    aws.ask("ec2", "describe_subnets", Filters=_NOT_THERE)


_NOT_THERE = [{"Name": "vpc-id", "Values": ["vpc-00000000000000000"]}]

#: Questions that change nothing, most about things that are not there: AWS looks at the
#: rights first.
_PROBES: Mapping[str, Callable[[AWS, str], None]] = {
    "ecs:DescribeTasks": _describe_tasks,
    "ecs:ListTasks": _list_tasks,
    "ecs:DescribeTaskDefinition": _describe_task_definition,
    "ecs:DescribeClusters": _describe_clusters,
    "ec2:DescribeVpcs": _describe_vpcs,
    "ec2:DescribeSubnets": _describe_subnets,
}
