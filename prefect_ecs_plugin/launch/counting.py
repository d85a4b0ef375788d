"""Counts the runs that are taken, as the API shows them.

Guarantees:

* A count that `fresh` or `after_claim` returns was asked for after the API had answered
  the claim of the run that it is for.
* Runs that are claimed together are counted with one query.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

from ..launch_record import latest_claim, version_of
from ..limits import Demand, Kind, Limit, Taken, totals
from ..lru import LeastRecentlyUsed
from ..prefect_api.client import AgentClient
from ..scheduling.steps import Pause, Steps, resolve
from .sizes import Size

#: Runs that were claimed and are about to be confirmed, at most; others count again.
_CLAIMS = 200

#: Seconds for which runs are collected that are counted again with one query.
_COLLECT = 0.02

#: Seconds after which all launch records are read again, and how many with one query.
_SIZED_AGAIN, _RECORDS_AT_ONCE = 60.0, 200


class Count(NamedTuple):
    """What the API shows as taken.

    Attributes:
        limits: The limits that it was asked for.
        taken: What the runs take, by their ids.
        used: How much of each limit they take.
        began: When it was asked, by the monotonic clock.
    """

    limits: Sequence[Limit]
    taken: Mapping[str, Demand]
    used: Sequence[float]
    began: float


class Counting:
    """Counts what is taken; threads may share it.

    Args:
        limits: Returns the limits that are valid now.
        client: The client of the API.
        start: Starts steps.
        clock: Tells the time, in seconds.
        agent_types: The types of agents whose runs count.

    Attributes:
        last: The last count.
    """

    def __init__(
        self,
        *,
        limits: Callable[[], Sequence[Limit]],
        client: AgentClient,
        start: Callable[[Steps[None]], object],
        clock: Callable[[], float],
        agent_types: Iterable[str],
    ) -> None:
        self._limits = limits
        self._client = client
        self._start = start
        self._clock = clock
        self._agent_types = tuple(agent_types)
        self.last: Optional[Count] = None
        self._sized: Mapping[Tuple[str, int], Size] = {}
        self._sized_at = -1e9
        self._lock = threading.Lock()
        self._after_claim: LeastRecentlyUsed[Count] = LeastRecentlyUsed(_CLAIMS)
        self._questions: List[Future[Count]] = []
        self._is_asking = False

    def vcpus_taken(self, capacity: str) -> float:
        """How many vCPUs of a kind of capacity runs have taken."""
        limit = Limit(Kind.VCPUS, capacity, 0)
        return self.read([limit]).used[0]

    def claiming(self, run_id: str) -> None:
        """A run is about to be claimed: no count so far shows that claim."""
        with self._lock:
            self._after_claim.remove(run_id)

    def count_claims(self, run_ids: Iterable[str]) -> None:
        """Count when runs have been claimed together, once for all of them.

        Args:
            run_ids: Those whose claims the API has just answered.
        """
        limits = self._limits()
        if not limits:
            return
        with suppress(Exception):  # each of them counts by itself then
            count = self.read(limits)
            with self._lock:
                for run_id in run_ids:
                    self._after_claim.set(run_id, count)

    def after_claim(self, run_id: str) -> Optional[Count]:
        """The count that `count_claims` made after the claim of a run, if it did."""
        with self._lock:
            count = self._after_claim.get(run_id)
            self._after_claim.remove(run_id)
        return count

    def fresh(self) -> Steps[Count]:
        """What is taken, counted from now on; one query for many runs."""
        answer: Future[Count] = Future()
        with self._lock:
            self._questions.append(answer)
            is_first, self._is_asking = not self._is_asking, True
        if is_first:
            self._start(self._ask())
        yield answer
        return answer.result()

    def _ask(self) -> Steps[None]:
        while True:
            yield Pause(_COLLECT)
            with self._lock:
                questions, self._questions = self._questions, []
                self._is_asking = bool(questions)
            if not questions:
                return
            counted: Future[Count] = Future()
            resolve(counted, lambda: self.read(self._limits()))
            for question in questions:
                resolve(question, counted.result)

    def read(self, limits: Sequence[Limit]) -> Count:
        """Count what the API shows as taken."""
        began = self._clock()
        rows = self._taken_rows(limits) if limits else []
        taken = {each.run_id: each for each in self._demands(limits, rows)}
        used = totals(limits, taken.values())
        count = self.last = Count(limits, taken, used, began)
        return count

    def ranked(self, limits: Sequence[Limit]) -> Steps[Sequence[Taken]]:
        """What the API shows as taken, with its ranks."""
        yield from ()
        rows = self._taken_rows(limits, ranks=True)
        return list(map(Taken, self._demands(limits, rows), map(_rank, rows)))

    def _taken_rows(
        self, limits: Sequence[Limit], ranks: bool = False
    ) -> List[Dict[str, Any]]:
        about = {limit.kind for limit in limits}
        return self._client.taken_runs(
            [condition(limit) for limit in limits],
            self._agent_types,
            flows=bool(about & {Kind.FLOW, Kind.PROJECT}),
            labels=Kind.LABEL in about,
            ranks=ranks,
        )

    def _demands(
        self, limits: Sequence[Limit], rows: Sequence[Mapping[str, Any]]
    ) -> List[Demand]:
        """What runs take, in the order of their rows."""
        if not any(limit.kind is Kind.VCPUS for limit in limits):
            last = self.last
            known = last.taken if last and last.limits == limits else {}
            return [known.get(row["id"]) or demand_of(row, Size()) for row in rows]
        sizes = self._sizes_of({row["id"]: version_of(row) for row in rows})
        return [demand_of(row, sizes[row["id"]]) for row in rows]

    def _sizes_of(self, versions: Mapping[str, int]) -> Mapping[str, Size]:
        """The sizes in the launch records of runs.

        A record is read again if its run's state has another version, and all of them
        once a minute: a run that goes on in another task keeps its version.

        Args:
            versions: The versions of the runs' states, by their ids.
        """
        now = self._clock()
        if now - self._sized_at > _SIZED_AGAIN:
            self._sized, self._sized_at = {}, now
        known, found = self._sized, {}
        new = [each for each in versions if (each, versions[each]) not in known]
        for start in range(0, len(new), _RECORDS_AT_ONCE):
            found.update(self._client.states_of(new[start : start + _RECORDS_AT_ONCE]))
        sizes = {
            run_id: known.get((run_id, version)) or _size_of(found.get(run_id))
            for run_id, version in versions.items()
        }
        self._sized = {(each, versions[each]): sizes[each] for each in versions}
        return sizes


def demand_of(row: Mapping[str, Any], size: Size) -> Demand:
    """What a run takes of limits, from its row and the size of its task."""
    flow = row.get("flow") or {}
    return Demand(
        run_id=str(row["id"]),
        flow=str(flow.get("name") or ""),
        project=str((flow.get("project") or {}).get("name") or ""),
        labels=frozenset(map(str, row.get("labels") or ())),
        units=size.units,
        capacity=size.capacity,
    )


def taken_demand(row: Mapping[str, Any]) -> Demand:
    """What a run takes that is taken, by its launch record."""
    return demand_of(row, _size_of(row if "serialized_state" in row else None))


def _size_of(row: Optional[Mapping[str, Any]]) -> Size:
    """The size in a run's launch record; nothing if it has none."""
    claim = latest_claim(row) if row else None
    record = claim.record if claim else None
    return Size(record.task_cpu, record.capacity) if record else Size()


def _rank(row: Mapping[str, Any]) -> Tuple[bool, str, str]:
    is_claim = row["state"] == "Submitted"
    return is_claim, row["state_timestamp"] if is_claim else "", row["id"]


def condition(limit: Limit) -> Mapping[str, Any]:
    """What the API has to compare to find the runs that a limit is about."""
    is_named = {"_eq": limit.name}
    conditions: Mapping[Kind, Mapping[str, Any]] = {
        Kind.FLOW: {"flow": {"name": is_named}},
        Kind.PROJECT: {"flow": {"project": {"name": is_named}}},
        Kind.LABEL: {"labels": {"_has_key": limit.name}},
    }
    return conditions.get(limit.kind, {})
