"""What the agent's identity may do, as far as it may be asked."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple
from urllib.parse import urlsplit

from ..template import FLOW_RUN_ID
from .asking import AWS, NotAllowed, Refused, Unanswered
from .facts import Facts, Identity
from .findings import Finding, failed, ok, skipped, warning
from .rendering import Launch
from .roles import TASKS, arn_of


@dataclass(frozen=True)
class Right:
    """One thing that the agent has to be allowed.

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


def permissions(facts: Facts) -> Iterator[Finding]:
    """What the policies say, or what harmless calls say, or that nobody says."""
    assert facts.aws is not None  # preflight asks only where they are known
    assert facts.identity is not None
    rights = list(_rights(facts, facts.aws, facts.identity))
    try:
        source = _policy_source(facts.aws, facts.identity)
        answers = {each: simulated(facts.aws, source, each) for each in rights}
    except Unanswered as error:
        yield skipped(
            f"The policies cannot be asked: {error}. What reads is tried instead.",
            "Grant iam:SimulatePrincipalPolicy (and iam:GetRole) to whoever checks.",
        )
        answers = {each: _probed(facts.aws, each) for each in rights}
    yield from _told(answers)


def _told(answers: Mapping[Right, Optional[str]]) -> Iterator[Finding]:
    allowed = [right.title for right, answer in answers.items() if answer == ""]
    unknown = [right.title for right, answer in answers.items() if answer is None]
    if allowed:
        yield ok(_listed(allowed))
    for right, answer in answers.items():
        if answer:
            yield _denied(right, answer)
    if unknown:
        yield skipped(f"Not known: {_listed(unknown)}.")


def _listed(titles: List[str]) -> str:
    """Each once: several clusters have the same."""
    return ", ".join(dict.fromkeys(titles))


def _denied(right: Right, answer: str) -> Finding:
    status = failed if right.is_needed and answer != "depends" else warning
    reason = "may be denied, by a condition" if answer == "depends" else "is denied"
    return status(
        f"{right.action} on {right.resource} {reason}: {right.without}.",
        "Grant it to the agent's identity.",
        right.title,
    )


# -- Which rights ------------------------------------------------------------------


def _rights(facts: Facts, aws: AWS, identity: Identity) -> Iterator[Right]:
    where = f"{aws.region}:{identity.account}"
    partition = identity.partition
    found: Dict[str, Right] = {}
    for launch in facts.launches:
        for right in _of_launch(launch, f"arn:{partition}:ecs:{where}", identity):
            found.setdefault(f"{right.action} {right.resource}", right)
        for group in sorted(launch.logs()):
            stream = f"arn:{partition}:logs:{where}:log-group:{group}:log-stream:x"
            right = Right("logs:GetLogEvents", stream, "no logs of failed tasks", False)
            found.setdefault(f"{right.action} {right.resource}", right)
    yield from found.values()
    yield from _of_files(facts, partition)


def _of_launch(launch: Launch, ecs: str, identity: Identity) -> Iterator[Right]:
    cluster = launch.cluster.rpartition("/")[2]
    on_cluster = (("ecs:cluster", f"{ecs}:cluster/{cluster}"),)
    definition = f"{ecs}:task-definition/{launch.family}:1"
    task = f"{ecs}:task/{cluster}/{'0' * 32}"
    yield Right("ecs:RunTask", definition, "no run starts", True, on_cluster)
    if not launch.task_definition:
        yield Right("ecs:RegisterTaskDefinition", definition, "no run starts")
    yield Right(
        "ecs:DescribeTaskDefinition",
        "*",
        "definitions are registered anew at each start",
        bool(launch.task_definition),
    )
    yield Right("ecs:DescribeTasks", task, "tasks are not watched", False, on_cluster)
    instance = f"{ecs}:container-instance/{cluster}/{'0' * 32}"
    yield Right("ecs:ListTasks", instance, "tasks are not found", False, on_cluster)
    tagged = ((f"aws:ResourceTag/{FLOW_RUN_ID}", "a-run"), *on_cluster)
    yield Right("ecs:StopTask", task, "tasks are not stopped", False, tagged)
    creating = (("ecs:CreateAction", "RunTask"),)
    yield Right("ecs:TagResource", task, "tasks get no tags", False, creating)
    for role in launch.roles().values():
        passed = (("iam:PassedToService", TASKS),)
        arn = arn_of(role, identity)
        yield Right("iam:PassRole", arn, "no run starts", True, passed)


def _of_files(facts: Facts, partition: str) -> Iterator[Right]:
    for option in ("task_definition_path", "run_task_kwargs_path"):
        url = urlsplit(facts.options.get(option) or "")
        if url.scheme == "s3":
            yield Right(
                "s3:GetObject",
                f"arn:{partition}:s3:::{url.netloc}{url.path}",
                "the agent does not start",
            )


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


def simulated(aws: AWS, source: str, right: Right) -> Optional[str]:
    """`""` if it is allowed, `denied`, or `depends` on what is not known here."""
    context = [
        {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": "string"}
        for key, value in right.context
    ]
    answer = aws.ask(
        "iam",
        "simulate_principal_policy",
        PolicySourceArn=source,
        ActionNames=[right.action],
        ResourceArns=[right.resource],
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


def _probed(aws: AWS, right: Right) -> Optional[str]:
    """As `simulated`; None for what cannot be tried without doing it."""
    probe = _PROBES.get(right.action)
    if probe is None:
        return None
    try:
        probe(aws, dict(right.context).get("ecs:cluster", ""))
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


#: Questions about things that are not there: they change nothing, and AWS looks at
#: the rights first.
_PROBES: Mapping[str, Callable[[AWS, str], None]] = {
    "ecs:DescribeTasks": _describe_tasks,
    "ecs:ListTasks": _list_tasks,
    "ecs:DescribeTaskDefinition": _describe_task_definition,
}
