"""Calls ECS at the rate that AWS allows; its errors say why, and what to do."""

from __future__ import annotations

import http.client
import threading
from types import MappingProxyType
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    TypeVar,
)

import urllib3.exceptions
from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError

from ..errors import ConfigurationError
from ..scheduling.steps import Steps
from ..validation import rules
from .rate_limiter import BUCKETS_OF, RateLimiter
from .retrying import (
    UNUSABLE_REGION,
    Answer,
    AWSCallError,
    RetryBudget,
    Verdict,
    classify,
)

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

#: Failed connections that botocore lets out as they are: it wraps most of what the
#: layers below it raise, but not all. TLS errors are OSErrors.
_CONNECTION_ERRORS = (
    OSError,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
)

#: What a client raises when a call fails; RuntimeError is that of credentials that
#: cannot be refreshed.
CALL_ERRORS = (ClientError, BotoCoreError, RuntimeError, *_CONNECTION_ERRORS)

#: What is kept of a described task.
Kept = TypeVar("Kept")

#: Steps run after a request's ticket was granted and right before it is sent.
BeforeSend = Callable[[], Steps[None]]

#: How many tasks DescribeTasks takes.
#: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeTasks.html
DESCRIBED_AT_ONCE = 100

#: Seconds by which the clocks of the Prefect API and of AWS may differ.
CLOCK_SKEW = 60.0


class _Endpoint(NamedTuple):
    """ECS in one region; AWS limits the rate of requests per account and region."""

    client: ECSClient
    limiter: RateLimiter


class ECS:
    """Calls ECS in any region; each call is steps that wait for the rate limiter.

    Args:
        client: The client of the agent's own region.
        limiter: Says when a call may be made there.
        client_in: Makes a client for another region; None if there is no need.
        new_limiter: Makes the limiter for another region.
    """

    def __init__(
        self,
        client: ECSClient,
        limiter: RateLimiter,
        *,
        client_in: Optional[Callable[[str], ECSClient]] = None,
        new_limiter: Optional[Callable[[], RateLimiter]] = None,
    ) -> None:
        self._own = _Endpoint(client, limiter)
        self._client_in = client_in
        self._new_limiter = new_limiter
        self._lock = threading.Lock()
        self._others: Dict[str, _Endpoint] = {}
        _observe_throttles(self._own)

    def call(
        self,
        operation: str,
        request: Mapping[str, Any],
        budget: Optional[RetryBudget] = None,
        before_send: Optional[BeforeSend] = None,
        region: Optional[str] = None,
    ) -> Steps[Dict[str, Any]]:
        """Make one call when the rate limiter allows it.

        The time spent queueing is not taken from a launch's budget: AWS's limits
        make a run wait, never fail.

        Args:
            operation: The action, such as `RunTask`.
            request: Its parameters.
            budget: The launch that the call is for.
            before_send: Run after the ticket was granted, right before the request is
                sent; what it raises is raised here, and nothing is sent. If it takes
                so long that the ticket is stale, the request queues again.
            region: The region to call; None is the agent's own.

        Raises:
            AWSCallError: if AWS did not do it, or did not say so.
        """
        endpoint = self._endpoint(operation, region)
        kind = _kind(operation, request)
        while True:
            ticket = endpoint.limiter.ticket(
                kind, budget.queue_priority if budget else ()
            )
            if budget:
                yield from budget.queue(ticket)
            else:
                yield ticket
            if before_send is None:
                break
            yield from before_send()
            if not endpoint.limiter.is_stale(ticket):
                break
        try:
            answer = getattr(endpoint.client, xform_name(operation))(**request)
        except CALL_ERRORS as error:
            refused = AWSCallError(operation, answer_of(error))
            if refused.verdict is Verdict.THROTTLED:
                endpoint.limiter.throttled(kind)
            raise refused from error
        if not any(member in answer for member in _MEMBERS[operation]):
            raise AWSCallError(operation, Answer("IncompleteAnswer", "it says nothing"))
        endpoint.limiter.succeeded(kind)
        return dict(answer)

    def stop_task(self, task_arn: str, cluster: str, reason: str) -> Steps[None]:
        """Stop a task, in the region that its ARN names.

        Args:
            task_arn: The task.
            cluster: Its cluster's name or ARN.
            reason: Why; ECS keeps it as the task's stoppedReason.

        Raises:
            AWSCallError: if AWS did not do it, or did not say so.
        """
        request = {"cluster": cluster, "task": task_arn, "reason": reason}
        yield from self.call("StopTask", request, region=region_of(task_arn))

    def tasks_of(
        self, run_id: str, cluster: str, region: Optional[str] = None
    ) -> Steps[List[Dict[str, Any]]]:
        """The tasks that were started for a run, the latest last.

        Stopped ones can be found for about an hour.

        Args:
            run_id: The flow run's id, which its tasks have as `startedBy`.
            cluster: The cluster's name or ARN.
            region: The cluster's region; None is the agent's own.

        Raises:
            AWSCallError: if AWS does not say.
        """
        tasks: Dict[str, Dict[str, Any]] = yield from self.tasks_in(
            cluster, region, dict, started_by=run_id
        )
        return sorted(tasks.values(), key=lambda task: task["createdAt"])

    def tasks_in(
        self,
        cluster: str,
        region: Optional[str],
        read: Callable[[Mapping[str, Any]], Kept],
        known: Mapping[str, Kept] = MappingProxyType({}),
        started_by: str = "",
    ) -> Steps[Dict[str, Kept]]:
        """What `read` keeps of all tasks of a cluster, running and stopped.

        Stopped ones can be found for about an hour. A hundred tasks cost one call to
        list them, and one to describe them if they are not known.

        Args:
            cluster: The cluster's name or ARN.
            region: Its region; None is the agent's own.
            read: Returns what is kept of a described task.
            known: What was kept of tasks before; they are not described again.
            started_by: Only tasks with this `startedBy`; empty for all.

        Returns:
            What is kept of each task, by its ARN.

        Raises:
            AWSCallError: if AWS does not say.
        """
        which = {
            "cluster": cluster,
            **({"startedBy": started_by} if started_by else {}),
        }
        arns: List[str] = []
        for status in ("RUNNING", "STOPPED"):
            arns += yield from self._listed({**which, "desiredStatus": status}, region)
        kept = {arn: known[arn] for arn in arns if arn in known}
        # A task that stops between the two lists is in both.
        new = (arn for arn in dict.fromkeys(arns) if arn not in known)
        for some in batches(new, DESCRIBED_AT_ONCE):
            request = {"cluster": cluster, "tasks": some}
            answer = yield from self.call("DescribeTasks", request, region=region)
            for task in answer.get("tasks", []):
                kept[task["taskArn"]] = read(task)
        return kept

    def _listed(
        self, request: Mapping[str, str], region: Optional[str]
    ) -> Steps[List[str]]:
        """The ARNs of all pages, which have 100 each where nothing else is asked."""
        answer = yield from self.call("ListTasks", request, region=region)
        arns: List[str] = answer["taskArns"]
        while answer.get("nextToken"):
            page = {**request, "nextToken": answer["nextToken"]}
            answer = yield from self.call("ListTasks", page, region=region)
            arns += answer["taskArns"]
        return arns

    def _endpoint(self, operation: str, region: Optional[str]) -> _Endpoint:
        """The client and the limiter of a region, made on first need."""
        own = self._own
        if not region or region == own.client.meta.region_name:
            return own
        with self._lock:
            if region not in self._others:
                self._others[region] = self._new_endpoint(operation, region)
            return self._others[region]

    def _new_endpoint(self, operation: str, region: str) -> _Endpoint:
        if self._client_in is None or self._new_limiter is None:
            raise AWSCallError(operation, Answer(UNUSABLE_REGION, region))
        try:
            client = self._client_in(region)
        except ConfigurationError as error:
            answer = Answer(UNUSABLE_REGION, f"{region}: {error.message}")
            raise AWSCallError(operation, answer) from error
        endpoint = _Endpoint(client, self._new_limiter())
        _observe_throttles(endpoint)
        return endpoint


def _observe_throttles(endpoint: _Endpoint) -> None:
    """Tell a limiter of throttles that botocore is about to retry by itself."""

    def observe(response: Any, operation: Any, **_: Any) -> None:
        parsed = response[1] if response else {}
        if "Error" not in parsed:  # botocore asks after every answer
            return
        if classify(Answer.from_response(parsed)).verdict is Verdict.THROTTLED:
            kind = (
                "RunTask on Fargate" if operation.name == "RunTask" else operation.name
            )
            if kind in BUCKETS_OF:
                endpoint.limiter.throttled(kind)

    endpoint.client.meta.events.register("needs-retry.ecs", observe)


def region_of(arn: str) -> Optional[str]:
    """The region that an ARN names; None for what is not an ARN, or has no region.

    Args:
        arn: Such as `arn:aws:ecs:eu-west-1:123456789012:cluster/prod`; a bare name is
            fine, too.
    """
    parts = arn.split(":", 5)
    return (parts[3] or None) if len(parts) == 6 and parts[0] == "arn" else None


def cluster_of(task_arn: str) -> str:
    """The cluster that a task's ARN names; `default` for one of the short format."""
    parts = task_arn.split("/")
    return parts[1] if len(parts) == 3 else "default"


def belongs_to_launch(task: Mapping[str, Any], moment: float) -> bool:
    """Whether a described task was started by a launch that began at a moment.

    The clocks may differ, so a task that seems a little older counts, unless it has
    stopped: that is more likely the task of an earlier launch.

    Args:
        task: As DescribeTasks shows it.
        moment: Seconds since 1970, by the clock of the Prefect API.
    """
    created = task["createdAt"].timestamp()
    skew = 0.0 if task.get("lastStatus") == "STOPPED" else CLOCK_SKEW
    return bool(created >= moment - skew)


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
    if isinstance(error, ClientError):
        return Answer.from_response(error.response, type(error).__name__)
    name, message = type(error).__name__, str(error)
    if isinstance(error, _CONNECTION_ERRORS) and not isinstance(error, BotoCoreError):
        return Answer("ConnectionError", f"{name}: {message}")
    return Answer(name, message)
