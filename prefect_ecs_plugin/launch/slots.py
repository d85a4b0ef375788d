"""Keeps limits: which runs may be claimed, and which claims are given back.

An agent counts what is taken, claims what fits, and counts again before it launches
anything. `limits` decides; docs/limits.md says why no limit is exceeded, with several
agents too. A run that waits stays Scheduled and costs an agent a few hundred bytes.
"""

from __future__ import annotations

import itertools
import logging
import random
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from typing import (
    AbstractSet,
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    Optional,
    Sequence,
    Set,
    Tuple,
)

from ..launch_record import LaunchRecord
from ..limits import (
    Admission,
    Demand,
    Kind,
    Limit,
    Use,
    Verdict,
    admit,
    is_too_large,
    totals,
    verdict,
    waiting_line,
)
from ..observability.log_formats import log_context
from ..observability.outage_log import OutageLog, retry_until_success
from ..prefect_api.client import AgentClient
from ..prefect_api.reporter import seconds_until_start
from ..scheduling.poll_interval import WINDOW
from ..scheduling.steps import Pause, Steps, as_steps
from .claims import OVER_LIMIT
from .counting import Count, Counting, condition, demand_of
from .sizes import Size

#: Seconds between two looks while a run waits for a limit.
WAITING = 0.4

#: Seconds between two looks at least.
_LEAST = 0.05

#: Seconds for which a run still counts after the agent has seen that it has ended: its
#: container takes a moment to exit after the flow has told the API its end.
LINGER = 0.4

#: Seconds between two looks beyond the 25 runs that the queue shows, and between two
#: lists of all runs that wait there.
_LOOK_BEYOND, _LIST = 1.0, 10.0

#: Seconds between two such lists while no run waits, as far as the agent can see.
_SELDOM = 120.0

#: Seconds for which a run waits at least, and twice of it at most, before its log says
#: so. Other agents look into the log before they write.
_TELL = 3.0

#: Runs that the agent looks at beyond those 25 at each look, and in such a list.
_BEYOND, _LISTED = 100, 1000

#: Seconds after a count until the next one is made for the metrics alone, if that count
#: found something taken.
_RECOUNT = 60.0

#: Seconds for which a count is used again, if the limits in question stay half empty.
_REUSED = 5.0

#: Seconds between two counts of a claim that waits for others to be given back; for how
#: long one is not given back, because another agent may just claim the same run; and
#: how many counts there are at most.
_AGAIN, _HOLD, _COUNTS = 0.25, 1.0, 12

#: Seconds for which the API refuses that a run is claimed a second time.
_REFUSED = 31.0

COUNTING = (
    "The flow runs that are under way cannot be counted at the Prefect API "
    "[runs-not-counted]"
)

BEYOND = (
    "Flow runs behind those that wait for a limit cannot be read from the Prefect API "
    "[queue-unreadable]"
)


class OverLimit(Exception):
    """A run was claimed and may be above a limit; it is to be given back.

    Args:
        limit: The limit; None if the API does not count the claim yet.
    """

    def __init__(self, limit: Optional[Limit] = None) -> None:
        if limit:
            super().__init__(f"the limit {limit} is reached")
        else:
            super().__init__("the Prefect API does not count its claim yet")


@dataclass
class _Waiting:
    """A run that waits, or that is not due yet.

    Attributes:
        demand: What it takes.
        start: When it is due, in seconds since 1970.
        found: When the agent saw it first, by the monotonic clock.
        not_before: Until when it is not claimed, by the same clock.
        told_from: From when on its log says what it waits for.
        seen_free: The limits that had something free while the run waited for others.
    """

    demand: Demand
    start: float
    found: float
    not_before: float
    told_from: float
    seen_free: Set[Limit] = field(default_factory=set)


class Slots:
    """Decides which runs of the queue may be claimed now.

    `look` and what it calls is for one thread, the poller; the rest is for any.

    Args:
        limits: Returns the limits that are valid now.
        client: The client of the API.
        outages: Logs when the API cannot be asked.
        log: Writes a line into a run's log, soon.
        flush: Writes such lines now, so that other agents see them.
        logger: The agent's own log.
        counting: Counts what is taken.
        clock: Tells the time, in seconds.
        size_of: Says what the task of a run asks for, given its row.
    """

    def __init__(
        self,
        *,
        limits: Callable[[], Sequence[Limit]],
        client: AgentClient,
        outages: OutageLog,
        log: Callable[[str, str], object],
        flush: Callable[[], object],
        logger: logging.Logger,
        counting: Counting,
        clock: Callable[[], float],
        size_of: Callable[[Mapping[str, Any]], Size],
    ) -> None:
        self._limits = limits
        self._client = client
        self._outages = outages
        self._log = log
        self._flush = flush
        self._logger = logger
        self._counting = counting
        self._clock = clock
        self._size_of = size_of
        self._waiting: Dict[str, _Waiting] = {}
        self._told: Set[str] = set()
        self._counted: Mapping[str, Demand] = {}
        self._ended: Dict[str, Tuple[Demand, float]] = {}
        self._full: Sequence[Limit] = ()
        self._uses: Sequence[Use] = ()
        self._counted_at = self._listed_at = self._looked_at = -1e9
        self._has_hidden = False
        self._is_failing = False
        self._lock = threading.Lock()
        self._launching: Dict[str, _Waiting] = {}

    def uses(self) -> Sequence[Use]:
        """The use of each limit when it was counted last."""
        return self._uses

    def of_vcpus(self) -> Optional[Limit]:
        """A limit of vCPUs, if there is one."""
        limits = (each for each in self._limits() if each.kind is Kind.VCPUS)
        return next(limits, None)

    # -- The poller ------------------------------------------------------------------

    def more(self, seen: AbstractSet[str], labels: Iterable[str]) -> Set[str]:
        """Runs in the queue beyond the 25 that the API shows, if some of those wait.

        Args:
            seen: The runs that it shows.
            labels: The agent's.
        """
        if not self._limits():
            self._has_hidden = False
            return set()
        if not self._may_hide(seen):
            return set()
        self._looked_at = self._clock()
        try:
            rows = self._beyond(seen, labels)
        except Exception as error:
            self._outages.begin(BEYOND, error)
            return set()
        self._outages.end(BEYOND)
        limits = self._limits()
        for row in rows:
            if row["state"] == "Scheduled" and row["id"] not in self._waiting:
                self._keep(limits, row)
        return {row["id"] for row in rows}

    def _may_hide(self, seen: AbstractSet[str]) -> bool:
        """Whether it is time to look for runs that the API does not show.

        The API takes the first 75 runs of the queue, and leaves out those whose labels
        are not the agent's. So fewer than 25, or none, may be all that it shows while
        runs of other labels wait for a limit.
        """
        now = self._clock()
        if len(seen) < WINDOW and not self._has_hidden:
            for run_id in self._waiting.keys() - seen:
                del self._waiting[run_id]
            return now - self._looked_at >= (_LIST if self._waiting else _SELDOM)
        if now - self._looked_at < _LOOK_BEYOND:
            return False
        return self._has_hidden or not self._waiting.keys().isdisjoint(seen)

    def _beyond(
        self, seen: AbstractSet[str], labels: Iterable[str]
    ) -> List[Dict[str, Any]]:
        now = self._clock()
        if now - self._listed_at < _LIST:
            blocked = [condition(each) for each in self._full]
            return self._due(labels, blocked, _BEYOND)
        self._listed_at = now
        rows = self._due(labels, (), _LISTED)
        listed = {row["id"] for row in rows}
        self._has_hidden = len(seen) < WINDOW and not listed <= seen
        if len(rows) < _LISTED:
            for run_id in self._waiting.keys() - listed - seen:
                del self._waiting[run_id]
        return rows

    def _due(
        self, labels: Iterable[str], blocked: Iterable[Mapping[str, Any]], limit: int
    ) -> List[Dict[str, Any]]:
        more = ("run_config",) if self.of_vcpus() else ()
        return self._client.due_runs(labels, blocked, limit, more)

    def waiting(self) -> AbstractSet[str]:
        """The runs that wait, or that are not due yet, whose rows need not be read."""
        return self._waiting.keys()

    def look(
        self, rows: Sequence[Dict[str, Any]], window: AbstractSet[str] = frozenset()
    ) -> List[Dict[str, Any]]:
        """The rows of runs to launch now: those without limits, and those that may go.

        Args:
            rows: Rows of runs in the queue that the agent has not seen before.
            window: The runs that the API shows of the queue.
        """
        limits = self._limits()
        if not limits:
            return [*rows, *self._released()]
        free: List[Dict[str, Any]] = []
        fresh: Dict[str, Dict[str, Any]] = {}
        for row in rows:
            if row["state"] == "Scheduled" and self._keep(limits, row):
                fresh[row["id"]] = row
            else:
                free.append(row)
        try:
            admitted = self._limited(limits, self._due_now(window), fresh)
        except Exception as error:  # runs without limits go nevertheless
            self._outages.begin(COUNTING, error)
            self._is_failing = True
            return free
        self._outages.end(COUNTING)
        self._is_failing = False
        return [*free, *admitted]

    def _limited(
        self,
        limits: Sequence[Limit],
        due: Sequence[_Waiting],
        fresh: Mapping[str, Dict[str, Any]],
    ) -> List[Dict[str, Any]]:
        if due:
            return self._admitted(limits, due, fresh)
        is_old = self._clock() - self._counted_at > _RECOUNT
        if is_old and (not self._uses or any(use.used for use in self._uses)):
            self._decide(limits, [])
        return []

    def _released(self) -> List[Dict[str, Any]]:
        """Rows of runs that waited until the last limit was removed."""
        ids, self._full, self._uses = list(self._waiting), (), ()
        self._waiting.clear()
        return self._client.runs_to_take(ids)

    def _keep(self, limits: Sequence[Limit], row: Mapping[str, Any]) -> bool:
        """Keep a run among those that wait; False if no limit is about it."""
        size = self._size_of(row) if self.of_vcpus() else Size()
        demand = demand_of(row, size)
        if not any(limit.amount(demand) for limit in limits):
            return False
        now = self._clock()
        start = time.time() + seconds_until_start(row)
        told_from = now + _TELL + random.random() * _TELL  # one agent is the first
        kept = _Waiting(demand, start, now, now + _refused_for(row), told_from)
        self._waiting.setdefault(row["id"], kept)
        return True

    def _due_now(self, window: AbstractSet[str]) -> List[_Waiting]:
        """The runs that wait for a limit, the earliest start first.

        Of those that start at the same time, the ones that the API shows to all agents
        come first: agents that claim the same runs have nothing to give back.
        """

        def rank(each: _Waiting) -> Tuple[float, bool, str]:
            run_id = each.demand.run_id
            return each.start, run_id not in window, run_id

        due, now = time.time(), self._clock()
        return sorted(
            (
                each
                for each in self._waiting.values()
                if each.start <= due and each.not_before <= now
            ),
            key=rank,
        )

    def _admitted(
        self,
        limits: Sequence[Limit],
        due: Sequence[_Waiting],
        fresh: Mapping[str, Dict[str, Any]],
    ) -> List[Dict[str, Any]]:
        """The rows of runs that may go, read again unless they are fresh."""
        found = self._decide(limits, due)
        admitted = found.admitted[:WINDOW]  # as many as the agent takes at a look
        stale = [run_id for run_id in admitted if run_id not in fresh]
        rows = {row["id"]: row for row in self._client.runs_to_take(stale)}
        rows.update((each, fresh[each]) for each in admitted if each in fresh)
        for run_id in [each for each in rows if _refused_for(rows[each])]:
            # Another agent has given it back.
            until = self._clock() + _refused_for(rows.pop(run_id))
            self._waiting[run_id].not_before = until
            admitted.remove(run_id)
        with self._lock:
            for run_id in admitted:
                kept = self._waiting.pop(run_id)
                if run_id in rows:
                    self._launching[run_id] = kept
        self._told.intersection_update(self._waiting)
        self._tell(limits, found)
        return [rows[each] for each in admitted if each in rows]

    def _decide(self, limits: Sequence[Limit], due: Sequence[_Waiting]) -> Admission:
        demands = [each.demand for each in due]
        taken = self._count(limits, demands)
        self._counted_at = self._clock()
        found = admit(limits, taken, demands, self._patient(limits, due))
        self._full = [
            limit for limit, used in zip(limits, found.used) if used >= limit.most
        ]
        starts: Dict[Limit, List[float]] = {}
        for each in due:
            full = found.blocked.get(each.demand.run_id)
            if full:
                starts.setdefault(full[0], []).append(each.start)
                each.seen_free.intersection_update(limits)  # those valid now
                each.seen_free.update(set(limits).difference(full))
        admitted = set(found.admitted)
        taken += [demand for demand in demands if demand.run_id in admitted]
        self._uses = [
            Use(limit, used, len(waiting), min(waiting, default=None))
            for limit, used in zip(limits, totals(limits, taken))
            for waiting in [starts.get(limit, [])]
        ]
        return found

    def _patient(self, limits: Sequence[Limit], due: Sequence[_Waiting]) -> Set[str]:
        """The first run whose limits have all been free, but never all at once."""
        for each in due:
            own = {limit for limit in limits if limit.amount(each.demand)}
            if each.seen_free and own <= each.seen_free:
                return {each.demand.run_id}
        return set()

    def _count(self, limits: Sequence[Limit], due: Sequence[Demand]) -> List[Demand]:
        """What is taken, what is about to be claimed, and what has just ended.

        Far below all limits, the last count is used for some seconds.
        """
        with self._lock:
            launching = {key: each.demand for key, each in self._launching.items()}
        count, now = self._counting.last, self._clock()
        if count is None or not self._is_enough(
            count, limits, [*launching.values(), *due]
        ):
            count = self._counting.read(limits)
        counted = count.taken
        for run_id in self._counted.keys() - counted.keys():
            self._ended.setdefault(run_id, (self._counted[run_id], now + LINGER))
        self._ended = {
            run_id: each
            for run_id, each in self._ended.items()
            if run_id not in counted and each[1] > now
        }
        self._counted = counted
        lingering = {run_id: demand for run_id, (demand, _) in self._ended.items()}
        return list({**launching, **lingering, **counted}.values())

    def _is_enough(
        self, count: Count, limits: Sequence[Limit], more: Iterable[Demand]
    ) -> bool:
        """Whether a count is new enough, since it leaves so much free."""
        if count.limits != limits or self._clock() - count.began > _REUSED:
            return False
        needed = zip(limits, count.used, totals(limits, more))
        return all(
            not added or 2 * (used + added) <= limit.most
            for limit, used, added in needed
        )

    def pause(self, seconds: float) -> float:
        """How long to wait until the next look.

        Args:
            seconds: How long the agent would wait otherwise.
        """
        if not self._waiting or self._is_failing:
            return seconds
        now, due = self._clock(), time.time()
        starts = [each.start - due for each in self._waiting.values()]
        soonest = min(start if start > 0 else WAITING for start in starts)
        ends = [until - now for _, until in self._ended.values()]
        return min(seconds, soonest, *[max(_LEAST, each) for each in ends])

    def found(self, run_id: str) -> Optional[float]:
        """When a run was found that has waited, by the monotonic clock."""
        with self._lock:
            waited = self._launching.get(run_id)
        return waited.found if waited else None

    def has_waited(self, run_id: str) -> Steps[bool]:
        """Whether the log of a run says that it has waited for a limit."""
        messages = [waiting_line(each) for each in self._limits()]
        if not messages:
            return False
        ask = as_steps(lambda: self._client.runs_told([run_id], messages))
        return bool((yield from retry_until_success(ask, self._outages, COUNTING)))

    def done(self, run_id: str) -> None:
        """A run that was admitted has been claimed, or could not be."""
        with self._lock:
            self._launching.pop(run_id, None)

    # -- The logs of runs ------------------------------------------------------------

    def _tell(self, limits: Sequence[Limit], found: Admission) -> None:
        """Say once in a run's log which limit it waits for, whichever agent says it."""
        now = self._clock()
        new = {
            run_id: full[0]
            for run_id, full in found.blocked.items()
            if run_id not in self._told and self._waiting[run_id].told_from <= now
        }
        if not new:
            return
        try:
            messages = [waiting_line(limit) for limit in limits]
            told = self._client.runs_told(new, messages)
        except Exception as error:
            self._logger.debug("The logs of waiting runs cannot be read: %s", error)
            return
        for run_id in new.keys() - set(told):
            demand = self._waiting[run_id].demand
            too_large = is_too_large(limits, demand)
            if too_large:
                message = (
                    f"The run asks for {demand.vcpus:g} vCPUs and never starts while "
                    f"the limit {too_large} is valid; lower its cpu or raise "
                    "--max-vcpus [larger-than-limit]"
                )
                about = log_context(run_id)
                self._logger.warning("Flow run %s: %s", run_id, message, extra=about)
                self._log(run_id, message)
            else:
                self._log(run_id, waiting_line(new[run_id]))
        self._told.update(new)
        self._flush()

    # -- After a claim ---------------------------------------------------------------

    def claiming(self, run_id: str) -> None:
        """A run is about to be claimed."""
        self._counting.claiming(run_id)

    def confirm(self, row: Mapping[str, Any], record: LaunchRecord) -> Steps[None]:
        """Decide about a run that was claimed, by a count made after its claim.

        Args:
            row: The run as it was before the claim.
            record: The launch.

        Raises:
            OverLimit: if the run has to be given back, unless it has ended meanwhile.
        """
        demand = demand_of(row, Size(record.task_cpu, record.capacity))
        since = self._clock()
        count = self._counting.after_claim(demand.run_id)
        for counts in itertools.count(1):
            limits = self._limits()
            if not any(each.amount(demand) for each in limits):
                return
            if count is None or count.limits != limits:
                fresh = self._counting.fresh
                count = yield from retry_until_success(fresh, self._outages, COUNTING)
                if count.limits != limits:  # they have changed meanwhile
                    continue
            if demand.run_id not in count.taken:
                raise OverLimit
            exceeded = [
                limit
                for limit, used in zip(count.limits, count.used)
                if used > limit.most and limit.amount(demand)
            ]
            if not exceeded:
                return
            ranked = partial(self._counting.ranked, exceeded)
            taken = yield from retry_until_success(ranked, self._outages, COUNTING)
            found, limit = verdict(exceeded, taken, demand)
            if limit is None:
                return
            is_held = self._clock() - since < _HOLD
            if counts >= _COUNTS or (found is Verdict.BACK and not is_held):
                raise OverLimit(limit)
            yield Pause(_AGAIN)
            count = None


def _refused_for(row: Mapping[str, Any]) -> float:
    """Seconds for which the API refuses that a run is claimed again.

    An agent has just given it back; the API's clock may differ from this one.
    """
    state = row.get("serialized_state") or {}
    if state.get("message") != OVER_LIMIT or not row.get("state_timestamp"):
        return 0.0
    ago = -seconds_until_start(
        {"serialized_state": {"start_time": row["state_timestamp"]}}
    )
    return _REFUSED - min(max(ago, 0.0), _REFUSED)
