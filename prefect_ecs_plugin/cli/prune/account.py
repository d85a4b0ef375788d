"""The calls of prune to ECS and to the Prefect API.

The account's agents share ECS's rate limits, and prune must not delay their runs. It
uses at most half of each rate, and nothing of the burst for registering.
"""

from __future__ import annotations

import time
from typing import (
    Any,
    Callable,
    Dict,
    FrozenSet,
    Iterator,
    List,
    Mapping,
    Optional,
    Set,
)

import prefect
from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError

from ...aws.ecs import DESCRIBED_AT_ONCE, answer_of, batches
from ...aws.rate_limiter import LIMITS, Bucket, Limit
from ...aws.retrying import AWSCallError, RetryBudget, Verdict
from ...errors import PrefectECSError, reason
from ...observability.counters import AgentCounters
from ...prefect_api.client import AgentClient
from ...scheduling.steps import Pause, Steps, run_blocking
from .definitions import Definition

#: Maximum number of definitions in one call of DeleteTaskDefinitions.
#: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeleteTaskDefinitions.html
DELETED_AT_ONCE = 10

#: The name of each operation's rate in `rate_limiter.LIMITS`.
_LIMIT_OF: Mapping[str, str] = {
    "ListTaskDefinitions": "definitions",
    "DescribeTaskDefinition": "definitions",
    "DeregisterTaskDefinition": "register",
    "DeleteTaskDefinitions": "register",  # a bucket of its own, of the same rate
    "ListClusters": "clusters",
    "ListTasks": "tasks",
    "DescribeTasks": "tasks",
}

#: How long to retry a call that AWS throttles; each throttle halves the pace.
_RETRY_SECONDS = 1800.0


class Account:
    """Task definitions and tasks of one account in one region.

    Args:
        ecs: The ECS client.
        clock: A monotonic clock, in seconds.
        sleep: Sleeps for a number of seconds.
    """

    def __init__(
        self,
        ecs: Any,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._ecs = ecs
        self._clock = clock
        self._sleep = sleep
        self._buckets = {
            name: Bucket(Limit(1, limit.rate / 2), clock())
            for name, limit in LIMITS.items()
        }

    def definitions(self, status: str) -> List[str]:
        """The ARNs of all definitions with a status, ACTIVE or INACTIVE."""
        return self._list("ListTaskDefinitions", "taskDefinitionArns", status=status)

    def described(self, arn: str) -> Definition:
        """One definition, with its tags."""
        return Definition.of(
            self._call("DescribeTaskDefinition", taskDefinition=arn, include=["TAGS"])
        )

    def used(self) -> Set[str]:
        """The ARNs of all definitions that tasks run with, in every cluster.

        Raises:
            PrefectECSError: if ECS does not describe all tasks.
        """
        return {
            str(task["taskDefinitionArn"])
            for cluster in self._list("ListClusters", "clusterArns")
            for task in self._tasks(cluster)
        }

    def _tasks(self, cluster: str) -> Iterator[Dict[str, Any]]:
        arns = self._list("ListTasks", "taskArns", cluster=cluster)
        for some in batches(arns, DESCRIBED_AT_ONCE):
            answer = self._call("DescribeTasks", cluster=cluster, tasks=some)
            if answer.get("failures"):
                raise PrefectECSError(
                    f"ECS does not describe task {answer['failures'][0].get('arn')} "
                    "yet, so nothing was changed; try again in a minute.",
                    code="task-not-described",
                )
            yield from answer["tasks"]

    def deregister(self, arn: str) -> None:
        """Make a definition INACTIVE, so that no new task can run with it."""
        self._call("DeregisterTaskDefinition", taskDefinition=arn)

    def delete(self, arns: List[str]) -> List[str]:
        """Delete up to ten INACTIVE definitions; return ECS's reasons for the rest."""
        answer = self._call("DeleteTaskDefinitions", taskDefinitions=arns)
        return [
            f"{failure.get('arn')}: {failure.get('reason')}"
            for failure in answer.get("failures") or []
        ]

    def _list(self, operation: str, member: str, **params: Any) -> List[str]:
        found: List[str] = []
        more: Dict[str, str] = {}
        while True:
            answer = self._call(operation, **params, **more)
            found += answer[member]
            if not answer.get("nextToken"):
                return found
            more = {"nextToken": answer["nextToken"]}

    def _call(self, operation: str, **params: Any) -> Dict[str, Any]:
        """Make a call within the rate limit; retry it as the agent does.

        Raises:
            PrefectECSError: one line with AWS's answer.
        """
        budget = RetryBudget(0.0, _RETRY_SECONDS, self._clock)
        steps = budget.attempts(lambda: self._attempt(operation, params))
        return run_blocking(steps, self._sleep)

    def _attempt(
        self, operation: str, params: Mapping[str, Any]
    ) -> Steps[Dict[str, Any]]:
        bucket = self._buckets[_LIMIT_OF[operation]]
        while bucket.seconds_to_token(self._clock()) > 0:
            yield Pause(bucket.seconds_to_token(self._clock()))
        bucket.take()
        try:
            answer = getattr(self._ecs, xform_name(operation))(**params)
        except (ClientError, BotoCoreError) as error:
            refused = AWSCallError(operation, answer_of(error))
            if refused.verdict is Verdict.THROTTLED:
                bucket.throttled(self._clock())
            raise refused from error
        bucket.succeeded()
        return dict(answer)


def agent_name(given: Optional[str]) -> str:
    """The name of an agent that is started with the same option."""
    return str(given or prefect.config.cloud.agent.get("name", "agent"))


def pinned_definitions(warn: Callable[[str], object]) -> FrozenSet[str]:
    """The `task_definition_arn` of all registered flows; empty if the API fails.

    Args:
        warn: Prints a warning that the API failed.
    """
    query = {"query": {"flow(where: {archived: {_eq: false}})": {"run_config"}}}
    try:
        client = AgentClient(AgentCounters(), api_server=prefect.config.cloud.api)
        flows = client.graphql(query).data.flow
    except Exception as error:  # the client's own, requests', or no configuration
        warn(
            "The Prefect API does not list the flows that name a task definition, so "
            f"prune may remove such a definition: {reason(error)} "
            "[flows-not-listed]"
        )
        return frozenset()
    configs = [flow.get("run_config") for flow in flows]
    named = [
        config.get("task_definition_arn")
        for config in configs
        if isinstance(config, Mapping)
    ]
    return frozenset(str(each) for each in named if each)
