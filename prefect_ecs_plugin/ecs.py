"""Calls of ECS, at the pace that AWS allows and with errors that say what they mean."""

from __future__ import annotations

from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional

from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError

from . import rules
from .pacing import BUCKETS_OF, Pacer
from .retrying import Answer, Patience, Refused, Verdict, judge
from .waiting import Steps

#: What boto3.client("ecs") returns; boto3 makes its clients' classes at run time.
ECSClient = Any

#: What a whole answer has at least one of. botocore takes a body that it cannot
#: read for an answer without members.
_MEMBERS: Mapping[str, tuple] = {  # type: ignore[type-arg]  # Python 3.8
    "DescribeTaskDefinition": ("taskDefinition",),
    "RegisterTaskDefinition": ("taskDefinition",),
    "RunTask": ("tasks", "failures"),
    "StopTask": ("task",),
    "ListTasks": ("taskArns",),
    "DescribeTasks": ("tasks", "failures"),
}


#: How many tasks DescribeTasks takes.
#: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeTasks.html
DESCRIBED_AT_ONCE = 100

#: Seconds by which the clocks of the Prefect API and of AWS may differ.
_SKEW = 60.0


class ECS:
    """An ECS client whose calls are steps.

    Args:
        client: The client.
        pacer: Says when a call may be made.
    """

    def __init__(self, client: ECSClient, pacer: Pacer) -> None:
        self._client = client
        self._pacer = pacer
        client.meta.events.register("needs-retry.ecs", self._hear)

    def takes(self, operation: str, member: str) -> bool:
        """Whether this botocore knows a member of an operation's request."""
        shape = self._client.meta.service_model.operation_model(operation).input_shape
        return member in shape.members

    def _hear(self, response: Any, operation: Any, **_: Any) -> None:
        """Tell the pacer of throttles that botocore is about to retry by itself."""
        answer = Answer.from_response(response[1] if response else {})
        if judge(answer).verdict is Verdict.THROTTLED:
            kind = (
                "RunTask on Fargate" if operation.name == "RunTask" else operation.name
            )
            if kind in BUCKETS_OF:
                self._pacer.throttled(kind)

    def call(
        self,
        operation: str,
        request: Mapping[str, Any],
        patience: Optional[Patience] = None,
        region: Optional[str] = None,
    ) -> Steps[Dict[str, Any]]:
        """Make one call when its turn has come.

        The time spent queueing is not taken from a launch's patience: AWS's limits
        make a run wait, never fail.

        Args:
            operation: The action, such as `RunTask`.
            request: Its parameters.
            patience: The launch that the call is for.
            region: The region to call; None is the agent's own.

        Raises:
            Refused: if AWS did not do it, or did not say so.
        """
        kind = _kind(operation, request)
        turn = self._pacer.turn(kind, patience.place if patience else ())
        if patience:
            yield from patience.queue(turn)
        else:
            yield turn
        try:
            answer = getattr(self._client, xform_name(operation))(**request)
        except (ClientError, BotoCoreError) as error:
            refused = Refused(operation, answer_of(error))
            if refused.verdict is Verdict.THROTTLED:
                self._pacer.throttled(kind)
            raise refused from error
        if not any(member in answer for member in _MEMBERS[operation]):
            raise Refused(operation, Answer("IncompleteAnswer", "it says nothing"))
        self._pacer.succeeded(kind)
        return dict(answer)

    def tasks_of(self, run_id: str, cluster: str) -> Steps[List[Dict[str, Any]]]:
        """The tasks that were started for a run, the latest last.

        Stopped ones can be found for about an hour.

        Raises:
            Refused: if AWS does not say.
        """
        tasks = yield from self._tasks({"cluster": cluster, "startedBy": run_id})
        return sorted(tasks, key=lambda task: task["createdAt"])

    def tasks_without_run(self, cluster: str) -> Steps[List[Dict[str, Any]]]:
        """All tasks of a cluster that were started for nobody, in no order.

        Stopped ones can be found for about an hour.

        Raises:
            Refused: if AWS does not say.
        """
        tasks = yield from self._tasks({"cluster": cluster})
        return [task for task in tasks if not task.get("startedBy")]

    def _tasks(self, which: Mapping[str, str]) -> Steps[List[Dict[str, Any]]]:
        arns: List[str] = []
        for status in ("RUNNING", "STOPPED"):
            arns += yield from self._listed({**which, "desiredStatus": status})
        tasks: List[Dict[str, Any]] = []
        for some in batches(arns, DESCRIBED_AT_ONCE):
            request = {"cluster": which["cluster"], "tasks": some}
            answer = yield from self.call("DescribeTasks", request)
            tasks += answer.get("tasks", [])
        return tasks

    def _listed(self, request: Mapping[str, str]) -> Steps[List[str]]:
        """The ARNs of all pages."""
        answer = yield from self.call("ListTasks", request)
        arns: List[str] = answer["taskArns"]
        while answer.get("nextToken"):
            page = {**request, "nextToken": answer["nextToken"]}
            answer = yield from self.call("ListTasks", page)
            arns += answer["taskArns"]
        return arns


def region_of(arn: str) -> Optional[str]:
    """The region that an ARN names; None for what is no ARN, or has no region.

    Args:
        arn: Such as `arn:aws:ecs:eu-west-1:123456789012:cluster/prod`; a bare name is
            fine, too.
    """
    parts = arn.split(":", 5)
    return (parts[3] or None) if len(parts) == 6 and parts[0] == "arn" else None


def was_created_since(task: Mapping[str, Any], moment: float) -> bool:
    """Whether a described task belongs to a launch that began at a moment.

    Args:
        task: As DescribeTasks shows it.
        moment: Seconds since 1970, by the clock of the Prefect API.
    """
    return bool(task["createdAt"].timestamp() >= moment - _SKEW)


def batches(items: Iterable[str], size: int) -> Iterator[List[str]]:
    """The items in lists of at most so many."""
    some: List[str] = []
    for item in items:
        some.append(item)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some


def _kind(operation: str, request: Mapping[str, Any]) -> str:
    """Which of AWS's limits a request falls under; the tighter one when in doubt."""
    if operation == "RunTask" and rules.placed_on_fargate(request) is not False:
        return "RunTask on Fargate"
    return operation


def answer_of(error: Exception) -> Answer:
    """What an exception of a client says."""
    if not isinstance(error, ClientError):
        return Answer(type(error).__name__, str(error))
    return Answer.from_response(error.response, type(error).__name__)
