"""The calls that prune makes to ECS, well below AWS's limits.

The account's agents share these limits, and prune must not delay their runs. It uses at
most half of each rate, and nothing of the burst for registering.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, Iterator, List, Mapping, Set

from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError

from ...aws.ecs import DESCRIBED_AT_ONCE, answer_of, batches
from ...aws.rate_limiter import LIMITS, Bucket, Limit
from ...aws.retrying import AWSCallError, Verdict
from ...errors import PrefectECSError
from .owning import Definition

#: How many definitions one call deletes.
#: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeleteTaskDefinitions.html
DELETED_AT_ONCE = 10

#: Which of the rates in `rate_limiter.LIMITS` an operation falls under.
_LIMIT_OF: Mapping[str, str] = {
    "ListTaskDefinitions": "definitions",
    "DescribeTaskDefinition": "definitions",
    "DeregisterTaskDefinition": "register",
    "DeleteTaskDefinitions": "register",  # a bucket of its own, of the same rate
    "ListClusters": "clusters",
    "ListTasks": "tasks",
    "DescribeTasks": "tasks",
}

#: Maximum attempts of a call that AWS throttles; each halves the pace.
_ATTEMPTS = 10


class Refusal(PrefectECSError):
    """ECS refused a call."""


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
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._ecs = ecs
        self._clock = clock
        self._sleep = sleep
        self._buckets = {
            name: Bucket(Limit(1, limit.rate / 2), clock())
            for name, limit in LIMITS.items()
        }

    def definitions(self, status: str) -> List[str]:
        """The ARNs of all definitions that are ACTIVE, or INACTIVE."""
        return self._list("ListTaskDefinitions", "taskDefinitionArns", status=status)

    def described(self, arn: str) -> Definition:
        """One definition, with its tags."""
        return Definition.of(
            self._call("DescribeTaskDefinition", taskDefinition=arn, include=["TAGS"])
        )

    def used(self) -> Set[str]:
        """The ARNs of all definitions that tasks run with, in every cluster.

        Raises:
            Refusal: if any cluster's tasks cannot be seen.
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
                raise Refusal(
                    f"What {answer['failures'][0].get('arn')} runs with cannot be seen "
                    "yet, so nothing was touched; try again in a minute."
                )
            yield from answer["tasks"]

    def deregister(self, arn: str) -> None:
        """Make a definition INACTIVE: nothing can be started with it any more."""
        self._call("DeregisterTaskDefinition", taskDefinition=arn)

    def delete(self, arns: List[str]) -> List[str]:
        """Delete INACTIVE definitions, ten at most; what ECS says of those it kept."""
        answer = self._call("DeleteTaskDefinitions", taskDefinitions=arns)
        return [
            f"{failure.get('arn')}: {failure.get('reason')}"
            for failure in answer.get("failures") or []
        ]

    def _list(self, operation: str, member: str, **params: Any) -> List[str]:
        """All pages of a list."""
        found: List[str] = []
        more: Dict[str, str] = {}
        while True:
            answer = self._call(operation, **params, **more)
            found += answer[member]
            if not answer.get("nextToken"):
                return found
            more = {"nextToken": answer["nextToken"]}

    def _call(self, operation: str, **params: Any) -> Dict[str, Any]:
        """Make a call in its turn, and again when AWS says that it was too soon.

        Raises:
            Refusal: one line with AWS's own words.
        """
        bucket = self._buckets[_LIMIT_OF[operation]]
        for attempt in range(1, _ATTEMPTS + 1):
            self._wait_for(bucket)
            try:
                answer = getattr(self._ecs, xform_name(operation))(**params)
            except (ClientError, BotoCoreError) as error:
                refused = AWSCallError(operation, answer_of(error))
                is_throttled = refused.verdict is Verdict.THROTTLED
                if not is_throttled or attempt == _ATTEMPTS:
                    raise Refusal(f"ecs:{refused}") from error
                bucket.throttled(self._clock())
            else:
                bucket.succeeded()
                return dict(answer)
        raise AssertionError("the last attempt returns or raises")

    def _wait_for(self, bucket: Bucket) -> None:
        while True:
            seconds = bucket.seconds_to_token(self._clock())
            if seconds <= 0:
                bucket.take()
                return
            self._sleep(seconds)
