"""The request limits of ECS, as token buckets: the sandbox's only table of them.

Amazon ECS API reference, "Request throttling": each category of calls has one
token bucket for an account and region, which the calls in it share. Fargate
limits launches besides. The agent has a table of its own, so that tests show a mistake
in either.
https://docs.aws.amazon.com/AmazonECS/latest/APIReference/request-throttling.html
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/throttling.html
"""

from __future__ import annotations

import threading
from typing import Callable, Dict, FrozenSet, List, Mapping, NamedTuple, Tuple


class Rate(NamedTuple):
    """A bucket's size, and how many tokens a second flow into it."""

    burst: float
    per_second: float


CATEGORIES: Tuple[Tuple[FrozenSet[str], Rate], ...] = (
    (frozenset({"RegisterTaskDefinition", "DeregisterTaskDefinition"}), Rate(20, 1)),
    (frozenset({"DeleteTaskDefinitions"}), Rate(5, 1)),
    (
        frozenset(
            {
                "DescribeTaskDefinition",
                "ListTaskDefinitions",
                "ListTaskDefinitionFamilies",
            }
        ),
        Rate(50, 20),
    ),
    (
        frozenset({"RunTask", "StartTask", "StopTask", "ExecuteCommand"}),
        Rate(100, 40),
    ),
    (frozenset({"DescribeTasks", "ListTasks"}), Rate(100, 20)),
    (frozenset({"DescribeClusters", "ListClusters"}), Rate(50, 20)),
    (frozenset({"TagResource", "UntagResource"}), Rate(20, 10)),
)
FARGATE_CALLS = Rate(20, 20)
FARGATE_TASKS: Mapping[str, Rate] = {
    "FARGATE": Rate(100, 20),
    "FARGATE_SPOT": Rate(100, 20),
}


class TokenBucket:
    """Full at first; gives what is asked for, or nothing."""

    def __init__(self, rate: Rate, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._tokens = float(rate.burst)
        self._seen = clock()

    def can_give(self, tokens: float = 1) -> bool:
        """Whether `take` with as many would do now."""
        now = self._clock()
        grown = self._tokens + (now - self._seen) * self._rate.per_second
        self._tokens, self._seen = min(self._rate.burst, grown), now
        return self._tokens >= tokens

    def take(self, tokens: float = 1) -> None:
        """Take as many out, `can_give` having said yes."""
        self._tokens -= tokens


class Limits:
    """All buckets of one account in one region.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._lock = threading.Lock()
        self._calls: Dict[str, TokenBucket] = {}
        for operations, rate in CATEGORIES:
            bucket = TokenBucket(rate, clock)
            self._calls.update(dict.fromkeys(operations, bucket))
        self._fargate_calls = TokenBucket(FARGATE_CALLS, clock)
        self._fargate_tasks = {
            provider: TokenBucket(rate, clock)
            for provider, rate in FARGATE_TASKS.items()
        }

    def allow_call(self, operation: str) -> bool:
        """Take the token of a call; False: it is one call too many."""
        bucket = self._calls.get(operation)
        return bucket is None or self._take([(bucket, 1)])

    def allow_launch(self, provider: str, tasks: int) -> bool:
        """Take the tokens of a launch on Fargate (FARGATE or FARGATE_SPOT)."""
        wanted = [(self._fargate_calls, 1), (self._fargate_tasks[provider], tasks)]
        return self._take(wanted)

    def _take(self, wanted: List[Tuple[TokenBucket, int]]) -> bool:
        """From every bucket or from none."""
        with self._lock:
            if not all(bucket.can_give(tokens) for bucket, tokens in wanted):
                return False
            for bucket, tokens in wanted:
                bucket.take(tokens)
            return True
