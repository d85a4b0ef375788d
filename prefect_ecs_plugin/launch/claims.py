"""Claims runs for launches and returns them to the queue.

Guarantees:

* A claim writes the launch record into the states that mark the run taken: into the
  flow run's, or, for a run that comes back for a task retry, into those of all its due
  task runs with one mutation.
* When an answer is lost or refuses the claim, the run is read again: its launch record
  says which launch holds it (`launch_record.standing`). The first claim of a run goes
  with those of others, and later ones alone: a run whose claim the API refuses holds up
  no other.
* Only the process that holds a run returns it to the queue. The launch record stays in
  the run's state, so that the next agent finds a task that was started nevertheless.
"""

from __future__ import annotations

import functools
import itertools
import logging
import time
import uuid
from contextlib import suppress
from typing import Any, Callable, Dict, Mapping, Optional, Sequence

import pendulum
from prefect.engine.state import Scheduled, Submitted

from ..errors import without_code
from ..launch_record import (
    RESCHEDULED_STATES,
    LaunchRecord,
    Standing,
    claimed_task_runs,
    heartbeat_of,
    holds,
    is_damaged,
    latest_claim,
    launch_of,
    records_of,
    standing,
    version_of,
)
from ..observability.log_formats import log_context
from ..observability.outage_log import OutageLog, retry_until_success
from ..prefect_api.client import AgentClient
from ..prefect_api.run_states import READING, RunStates
from ..scheduling.backoff import Backoff
from ..scheduling.steps import Cause, Pause, Steps, as_steps

#: What the API says when it refuses a claim because of an earlier one.
_REFUSED = "State update failed"

#: Between two reads of a run while it is not clear which launch claimed it. The API
#: refuses a second claim for 30 s, so it is clear after that.
_UNCLEAR = Backoff(1.0, 8.0)

#: How often such a run is read; about a minute.
_LOOKS = 10

#: Seconds ahead of which a run that was returned starts again: for 30 s the API
#: refuses that it becomes Submitted once more.
_RETURN_DELAY = 35

#: Seconds without a heartbeat after which a run counts as having neither agent nor
#: container; as for the server's Lazarus.
_ALIVE = 600.0

#: Sets a run's state, given its id, its version and the state.
_SetState = Callable[[str, Optional[int], Mapping[str, Any]], Steps[None]]

#: The messages of the states in which a run is returned to the queue.
_STOPPED = "Returned to the queue, because its agent was stopped"
OVER_LIMIT = "Returned to the queue, because a limit is reached"

RETURNING = "Flow runs cannot be returned to the queue [run-not-returned]"

CLAIMING = "Flow runs cannot be claimed at the Prefect API [runs-not-claimed]"


class Claims:
    """Claims runs at the Prefect API.

    Args:
        client: The client of the API.
        states: Asks the API what became of runs.
        outages: Logs when the API cannot be asked.
        logger: The agent's own log.

    Attributes:
        holder: What names this process in launch records.
    """

    def __init__(
        self,
        *,
        client: AgentClient,
        states: RunStates,
        outages: OutageLog,
        logger: logging.Logger,
    ) -> None:
        self._client = client
        self._states = states
        self._outages = outages
        self._logger = logger
        self.holder = uuid.uuid4().hex

    def claim(
        self, row: Mapping[str, Any], record: LaunchRecord, is_old: bool = False
    ) -> Steps[bool]:
        """Mark a run as taken by a launch.

        Args:
            row: The run as the API gave it; its `task_runs` are those to resume.
            record: The launch.
            is_old: Whether the row was read so long ago that another agent may have
                taken the run meanwhile, and its flow may even have ended.

        Returns:
            Whether the launch holds the run.
        """
        is_resumed = row.get("state") == "Running"
        look = is_old or is_resumed  # the API locks flow runs, not task runs
        set_state = self._states.set

        def attempt() -> Steps[Standing]:
            nonlocal look, set_state
            now = Standing.UNCHANGED
            if look:
                now = yield from self._standing(row, record)
            if now is not Standing.UNCHANGED:
                return now
            send, look, set_state = set_state, True, self._set_alone
            return (yield from self._submit(row, record, send))

        for looks in itertools.count(1):
            now = yield from retry_until_success(attempt, self._outages, CLAIMING)
            if now is Standing.HELD:
                return True
            if now is Standing.LOST or looks > _LOOKS:
                break
            yield Pause(_UNCLEAR.seconds(looks, 1.0), cause=Cause.OUTAGE)
        if now is Standing.LOST:
            self._logger.debug(
                "Flow run %s is not launched: another agent took it, or its state has "
                "changed",
                row["id"],
                extra=log_context(row["id"]),
            )
        else:
            self._logger.warning(
                "Flow run %s is not launched: the Prefect API keeps refusing the claim "
                "and shows no other agent's; if it stays Submitted, set it to "
                "Scheduled [claim-refused]",
                row["id"],
                extra=log_context(row["id"]),
            )
        return False

    def is_claimed_for_others(
        self, row: Mapping[str, Any], now: Mapping[str, Any]
    ) -> bool:
        """Whether a run that comes back for a task retry has been claimed already.

        That launch's task runs all that is due when it starts. An agent that launches
        it sends heartbeats; without those an old claim does not count.

        Args:
            row: The run as the queue gave it, with the task runs that are due.
            now: The run with the fields of `AgentClient.states_of`.
        """
        due = {each["id"] for each in row.get("task_runs") or ()}
        others = {each["id"] for each in claimed_task_runs(now)} - due
        claim = latest_claim(now)
        if not (others and claim and claim.record):
            return False
        return time.time() - max(claim.stored_at, heartbeat_of(now)) < _ALIVE

    def _submit(
        self, row: Mapping[str, Any], record: LaunchRecord, set_state: _SetState
    ) -> Steps[Standing]:
        """Send the claim; read the run again if that does not settle it."""
        try:
            yield from self._send(row, record, set_state)
        except Exception as error:
            if _REFUSED not in str(error):
                raise
        else:
            if row.get("state") != "Running":
                return Standing.HELD
        return (yield from self._standing(row, record))

    def _standing(
        self, row: Mapping[str, Any], record: LaunchRecord
    ) -> Steps[Standing]:
        now = yield from self.read(row["id"])
        found = standing(row, now, record)
        if found is Standing.UNCHANGED and row.get("state") == "Running":
            assert now is not None  # it is unchanged
            seen = {each["id"]: version_of(each) for each in row.get("task_runs") or ()}
            if (
                self.is_claimed_for_others(row, now)
                or self._client.task_run_versions(seen) != seen
            ):
                return Standing.LOST
        if found is Standing.LOST and now and self._is_own(now, record):
            self._logger.warning(
                "Flow run %s is not launched, although this agent claimed it: it has "
                "changed since it was read and is %s; if it stays so, set it to "
                "Scheduled [claimed-run-changed]",
                row["id"],
                now.get("state"),
                extra=log_context(row["id"]),
            )
        return found

    def _is_own(self, now: Mapping[str, Any], record: LaunchRecord) -> bool:
        """Whether a run waits for a task that this very process was to launch."""
        claim = latest_claim(now)
        waits = now.get("state") == "Submitted" or bool(claimed_task_runs(now))
        return bool(
            waits
            and claim
            and claim.record
            and claim.record.holder == record.holder
            and claim.record.name == record.name
        )

    def read(self, run_id: str) -> Steps[Optional[Mapping[str, Any]]]:
        """Read a run, as soon as the API answers; None if it is gone."""
        return (
            yield from retry_until_success(
                lambda: self._states.of(run_id), self._outages, READING
            )
        )

    def read_whole(self, run_id: str) -> Steps[Optional[Mapping[str, Any]]]:
        """As `read`, with all that a launch needs, see `AgentClient.row`."""
        ask = as_steps(lambda: self._client.row(run_id))
        return (yield from retry_until_success(ask, self._outages, READING))

    def _send(
        self, row: Mapping[str, Any], record: LaunchRecord, set_state: _SetState
    ) -> Steps[None]:
        claimed = {**_submitted(), "context": dict(record.to_context())}
        state = row.get("serialized_state") or {}
        if row.get("state") != "Running":
            yield from set_state(
                row["id"], row.get("version"), {**claimed, "state": _unclaimed(state)}
            )
        changes = [
            _change(task_run, {**claimed, "state": _unclaimed(_state(task_run))})
            for task_run in row.get("task_runs") or ()
            if _unclaimed(_state(task_run)).get("type") in RESCHEDULED_STATES
        ]
        if changes:
            self._client.set_task_states(changes)

    def _set_alone(
        self, run_id: str, version: Optional[int], state: Mapping[str, Any]
    ) -> Steps[None]:
        yield from ()
        self._client.set_run_state(run_id, version, state)

    # -- Who holds a run -----------------------------------------------------------

    def held(
        self, row: Mapping[str, Any], record: LaunchRecord, may_run: bool = False
    ) -> Steps[Optional[Mapping[str, Any]]]:
        """Read a run again, and say whether a launch still holds it.

        Args:
            row: The run as it was before it was claimed.
            record: The launch.
            may_run: Whether it may have become Running since.

        Returns:
            The run as it is now if the launch holds it and its state is that of the
            claim; else None.
        """
        now = yield from self.read(row["id"])
        expected = {"Running" if row.get("state") == "Running" else "Submitted"}
        if may_run:
            expected.add("Running")
        is_held = now and now["state"] in expected and holds(row, now, record)
        return now if is_held else None

    def read_idle(self, run_id: str) -> Steps[Optional[Mapping[str, Any]]]:
        """Read a run; None if it is gone, or one of its task runs is not over."""

        def attempt() -> Steps[Optional[Mapping[str, Any]]]:
            now = yield from self._states.of(run_id)
            is_idle = now and not self._client.has_unfinished_task_runs(run_id)
            return now if is_idle else None

        return (yield from retry_until_success(attempt, self._outages, READING))

    # -- Returning a run to the queue ------------------------------------------------

    def requeue(self, row: Mapping[str, Any], record: LaunchRecord) -> bool:
        """Return a run to the queue, for the next agent to launch it.

        Args:
            row: The run as it was before it was claimed.
            record: The launch. It goes with the run, so that a task that was started
                after all is found by the agent that claims the run next.

        Returns:
            False if the run stays as it is: the API did not answer, or the launch does
            not hold the run any more. If it still needs a task, the next agent that
            starts finds it.
        """
        run_id = row["id"]
        try:
            now = self._client.row(run_id)
            if now is None or standing(row, now, record) is not Standing.HELD:
                return False
            if now["state"] == "Cancelling":  # the next start ends it
                return False
            start = pendulum.now("UTC").add(seconds=_RETURN_DELAY)
            self._return(row, now, record, _STOPPED, start)
        except Exception as error:
            self._logger.warning(
                "Flow run %s could not be returned to the queue; an agent of this "
                "name finds it when it starts: %s [run-not-returned]",
                run_id,
                without_code(str(error)),
                extra=log_context(run_id),
            )
            return False
        return True

    def give_back(self, row: Mapping[str, Any], record: LaunchRecord) -> Steps[bool]:
        """Return a run that is above a limit to the queue, to its place there.

        Args:
            row: The run as it was before it was claimed.
            record: The launch, see `requeue`.

        Returns:
            False if the launch does not hold the run any more.
        """

        def attempt() -> Steps[bool]:
            yield from ()
            now = self._client.row(row["id"])
            if now is None or now["state"] != "Submitted":
                return False
            if standing(row, now, record) is not Standing.HELD:
                return False
            self._return(row, now, record, OVER_LIMIT, _start_time(row))
            return True

        return (yield from retry_until_success(attempt, self._outages, RETURNING))

    def _return(
        self,
        row: Mapping[str, Any],
        now: Mapping[str, Any],
        record: LaunchRecord,
        message: str,
        start: Any,
    ) -> None:
        context = dict(record.to_context())
        if now["state"] == "Submitted":
            state = Scheduled(message=message, start_time=start, context=context)
            self._client.set_run_state(row["id"], None, state.serialize())
        changes = [
            _change(task_run, _with_context(_unclaimed(_state(task_run)), context))
            for task_run in now.get("task_runs") or ()
        ]
        if changes:
            self._client.set_task_states(changes)

    def earlier_launch(self, row: Mapping[str, Any]) -> Steps[Optional[LaunchRecord]]:
        """The latest launch of a run that was started anew since; None for all others.

        Args:
            row: The run as the queue gave it.
        """
        if row.get("state") != "Scheduled" or not was_claimed_before(row):
            return None
        now = yield from self.read(row["id"])
        claim = latest_claim(now) if now else None
        record = claim.record if claim else None
        is_returned = record is not None and record.name == launch_of(row).name
        return None if is_returned else record

    def earlier_records(self, run_id: str, name: str) -> Steps[Sequence[LaunchRecord]]:
        """The records of a run's other launches, as far as the API shows them.

        Args:
            run_id: The run.
            name: The launch whose record is left out.
        """
        ask = as_steps(lambda: self._client.claims_of(run_id))
        claims = yield from retry_until_success(ask, self._outages, READING)
        return [each for each in records_of(claims or {}) if each.name != name]

    def is_superseded(self, run_id: str, name: str, attempt: int) -> Steps[bool]:
        """Whether a run was claimed for another launch, or another start, since.

        Args:
            run_id: The run.
            name: The launch's name.
            attempt: Its start.
        """
        now = yield from self.read(run_id)
        claim = latest_claim(now) if now else None
        later = claim.record if claim else None
        return later is not None and not later.is_same_start(name, attempt)

    # -- What was read ---------------------------------------------------------------

    def latest(self, row: Mapping[str, Any]) -> Optional[LaunchRecord]:
        """The record of a run's latest claim; None if it has none that can be used."""
        if is_damaged(row.get("serialized_state")):
            self._logger.debug(
                "The launch record of flow run %s cannot be read; it is ignored",
                row["id"],
                extra=log_context(row["id"]),
            )
        claim = latest_claim(row)
        return claim.record if claim else None


@functools.lru_cache(maxsize=1)
def _submitted() -> Mapping[str, Any]:
    """The state of a claim, without a context; serialized once, since that is slow."""
    state: Mapping[str, Any] = Submitted(message="Submitted for execution").serialize()
    return state


def was_claimed_before(row: Mapping[str, Any]) -> bool:
    """Whether a run in the queue may have been claimed before.

    The first Scheduled state has version 1.
    """
    return version_of(row) > 1


def _start_time(row: Mapping[str, Any]) -> Any:
    """When a run was due before it was claimed; now, if that cannot be read."""
    with suppress(KeyError, TypeError, ValueError):
        return pendulum.parse(_unclaimed(row["serialized_state"])["start_time"])
    return pendulum.now("UTC")


def _state(task_run: Mapping[str, Any]) -> Mapping[str, Any]:
    return task_run.get("serialized_state") or {}


def _unclaimed(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state that a claim was put upon."""
    while state.get("type") == "Submitted" and isinstance(state.get("state"), Mapping):
        state = state["state"]
    return state


def _change(task_run: Mapping[str, Any], state: Mapping[str, Any]) -> Dict[str, Any]:
    return {
        "task_run_id": task_run["id"],
        "version": task_run.get("version"),
        "state": state,
    }


def _with_context(
    state: Mapping[str, Any], context: Mapping[str, Any]
) -> Mapping[str, Any]:
    return {**state, "context": {**(state.get("context") or {}), **context}}
