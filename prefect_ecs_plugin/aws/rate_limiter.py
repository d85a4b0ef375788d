"""Keeps AWS's request limits, so that AWS does not have to throttle.

Pure but for a lock; the clock and the timer are passed in. A `Limit` is a row of AWS's
table. A `Bucket` models it, and slows down when others in the account use its tokens.
The `RateLimiter` has launches queue for tokens, in the order of their priority.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Callable, Dict, List, Mapping, Optional, Tuple

from ..scheduling.steps import Cause


@dataclass(frozen=True)
class Limit:
    """A token bucket of AWS.

    Attributes:
        burst: How many requests it takes at once when it is full.
        rate: How many per second it takes in the long run.
    """

    burst: float
    rate: float


#: Per account and region. Categories that share a bucket share a row.
#: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/request-throttling.html
#: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/throttling.html
LIMITS: Mapping[str, Limit] = {
    "register": Limit(20, 1),
    "definitions": Limit(50, 20),
    "run": Limit(100, 40),
    "fargate": Limit(20, 20),
    "tasks": Limit(100, 20),
    "clusters": Limit(50, 20),
}

#: Which buckets a request takes a token from.
BUCKETS_OF: Mapping[str, Tuple[str, ...]] = {
    "RegisterTaskDefinition": ("register",),
    "DescribeTaskDefinition": ("definitions",),
    "RunTask on Fargate": ("run", "fargate"),
    "RunTask": ("run",),
    "StopTask": ("run",),
    "DescribeTasks": ("tasks",),
    "ListTasks": ("tasks",),
}

#: The part of a documented limit that is used: what is sent evenly does not arrive
#: evenly, and the bucket at AWS sees the arrivals.
_MARGIN = 0.95

#: Seconds: throttles that come closer together are one event.
_ONE_EVENT = 1.0

#: Seconds of success in which half the documented rate is won back. Ten agents that
#: share an account are throttled less the longer it is, and two are slower for it;
#: docs/scaling.md has the simulation.
_RECOVERY = 20.0

#: Seconds after which a granted ticket is stale: requests granted since have used their
#: tokens, or will use them at the same moment.
_STALE = 5.0

#: The error that adding up fractions of a token makes.
_ROUNDING = 1e-9

#: The slowest pace, as a part of the documented rate.
_SLOWEST = 1 / 64


def limits_for(launches_per_second: Optional[float]) -> Mapping[str, Limit]:
    """The limits to keep; RunTask's are the user's, where the user named a rate."""
    if launches_per_second is None:
        return LIMITS
    launches = Limit(max(1.0, launches_per_second), launches_per_second)
    return {**LIMITS, "run": launches, "fargate": launches}


class Bucket:
    """Tokens for one limit: additive increase, multiplicative decrease.

    Args:
        limit: What AWS documents.
        now: The time, in seconds; the bucket is full by then.
    """

    def __init__(self, limit: Limit, now: float) -> None:
        self._burst = max(1.0, limit.burst * _MARGIN)
        self._fastest = limit.rate * _MARGIN
        self.rate = self._fastest
        self._tokens = self._burst
        self._then = now
        self._throttled_at = -math.inf

    def seconds_to_token(self, now: float) -> float:
        """How long until there is a token; 0 if there is one."""
        self._refill(now)
        missing = 1.0 - self._tokens
        return missing / self.rate if missing > _ROUNDING else 0.0

    def take(self) -> None:
        """Take a token; there must be one."""
        self._tokens -= 1.0

    def throttled(self, now: float) -> None:
        """Empty the bucket, as AWS says it is, and halve the rate."""
        self._refill(now)
        self._tokens = min(self._tokens, 0.0)
        if now - self._throttled_at >= _ONE_EVENT:
            self._throttled_at = now
            self.rate = max(self.rate / 2, self._fastest * _SLOWEST)

    def succeeded(self) -> None:
        """Raise the rate, linearly in time: successes come at that rate."""
        step = self._fastest / (2 * _RECOVERY * self.rate)
        self.rate = min(self._fastest, self.rate + step)

    def _refill(self, now: float) -> None:
        grown = self._tokens + max(0.0, now - self._then) * self.rate
        self._tokens = min(self._burst, grown)
        self._then = max(self._then, now)


class RateLimitTicket(Future):  # type: ignore[type-arg]  # a subscript fails on Python 3.8
    """A request's place in the queue for a token; done when it has the token.

    Attributes:
        cause: What the wait is for.
        ahead: How many were waiting for the same tokens when it was taken.
        seconds: How long that takes at the pace of that moment.
        granted_at: When the token was given to it, by the limiter's clock.
    """

    cause = Cause.RATE_LIMIT
    ahead = 0
    seconds = 0.0
    granted_at = 0.0


#: The lower one of two goes first; compared number by number.
Priority = Tuple[float, ...]

#: An entry of a queue: its priority, its number among equals, the ticket.
_Entry = Tuple[Priority, int, RateLimitTicket]


class RateLimiter:
    """Lets requests through at the pace that AWS allows.

    Guarantees:

    * No more requests go out in any time than the buckets allow.
    * Of those that wait, the one with the lowest priority goes first.
    * An available token is never withheld while a request waits for it.

    Args:
        limits: The limits to keep.
        clock: Tells the time, in seconds.
        call_later: Calls a function after some seconds.
    """

    def __init__(
        self,
        limits: Mapping[str, Limit],
        clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], None],
    ) -> None:
        self._clock = clock
        self._call_later = call_later
        self._lock = threading.Lock()
        self._order = itertools.count()
        self._buckets = {name: Bucket(limits[name], clock()) for name in limits}
        self._queues: Dict[str, List[_Entry]] = {kind: [] for kind in BUCKETS_OF}
        self._awaited: Dict[str, bool] = dict.fromkeys(BUCKETS_OF, False)

    def ticket(self, kind: str, priority: Priority = ()) -> RateLimitTicket:
        """Queue for a request.

        Args:
            kind: A key of `BUCKETS_OF`.
            priority: The lower, the sooner; `RetryBudget.queue_priority`, for instance.

        Returns:
            A future that is done when the request may be sent.
        """
        ticket = RateLimitTicket()
        with self._lock:
            queue = self._queues[kind]
            ticket.ahead = len(queue)
            ticket.seconds = ticket.ahead / self.pace(kind)
            heapq.heappush(queue, (priority, next(self._order), ticket))
        self._let_through(kind)
        return ticket

    def is_stale(self, ticket: RateLimitTicket) -> bool:
        """Whether a ticket was granted too long ago to be used.

        After an outage that held up many requests with granted tickets, AWS would
        throttle them if all were sent at once.
        """
        return self._clock() - ticket.granted_at > _STALE

    def waiting(self, kind: str) -> int:
        """How many are queueing."""
        with self._lock:
            return len(self._queues[kind])

    def backlog(self, *kinds: str) -> float:
        """How many seconds it takes to send all requests that are queueing."""
        return sum(self.waiting(kind) / self.pace(kind) for kind in kinds)

    def launch_backlog(self) -> float:
        """How many seconds it takes to launch all runs that are queueing.

        Definitions are registered while tasks are started, so the longer one counts.
        """
        return max(
            self.backlog("RegisterTaskDefinition"),
            self.backlog("RunTask on Fargate", "RunTask"),
        )

    def throttled(self, kind: str) -> None:
        """AWS throttled a request of this kind nevertheless."""
        with self._lock:
            for bucket in self._buckets_of(kind):
                bucket.throttled(self._clock())

    def succeeded(self, kind: str) -> None:
        """AWS accepted a request of this kind."""
        with self._lock:
            for bucket in self._buckets_of(kind):
                bucket.succeeded()

    def pace(self, kind: str) -> float:
        """Requests per second in the long run, at present."""
        return min(bucket.rate for bucket in self._buckets_of(kind))

    def _let_through(self, kind: str) -> None:
        for ticket in self._granted(kind):
            if ticket.set_running_or_notify_cancel():
                ticket.set_result(None)

    def _granted(self, kind: str) -> List[RateLimitTicket]:
        """Take the tickets for which there are tokens; set a timer for the next."""
        granted: List[RateLimitTicket] = []
        with self._lock:
            queue, buckets = self._queues[kind], self._buckets_of(kind)
            _drop_cancelled(queue)
            while queue:
                seconds = max(
                    bucket.seconds_to_token(self._clock()) for bucket in buckets
                )
                if seconds > 0:
                    if not self._awaited[kind]:
                        self._awaited[kind] = True
                        self._call_later(seconds, lambda: self._on_token_due(kind))
                    break
                ticket = heapq.heappop(queue)[2]
                ticket.granted_at = self._clock()
                granted.append(ticket)
                for bucket in buckets:
                    bucket.take()
                _drop_cancelled(queue)
        return granted

    def _on_token_due(self, kind: str) -> None:
        with self._lock:
            self._awaited[kind] = False
        self._let_through(kind)

    def _buckets_of(self, kind: str) -> List[Bucket]:
        return [self._buckets[name] for name in BUCKETS_OF[kind]]


def _drop_cancelled(queue: List[_Entry]) -> None:
    while queue and queue[0][2].cancelled():
        heapq.heappop(queue)
