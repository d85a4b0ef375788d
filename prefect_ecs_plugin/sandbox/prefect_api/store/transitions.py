"""The states of runs: who may set them, what a run is like afterwards."""

from __future__ import annotations

import bisect
import json
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple

from ..errors import Refused
from ..states import (
    FINISHED,
    MAX_BYTES,
    RUNNING,
    SCHEDULED,
    simple,
    stored,
    without_context,
)
from ..tables import Row
from .core import Core

LOCK = timedelta(seconds=30)


class Transitions(Core):
    """From state to state.

    Args:
        locks_submitted: whether a run that became Submitted refuses to become so again
            for 30 seconds. One server process does that, in memory; with several
            replicas of the server there is no such guard.
        keeps_context: whether states are stored with their `context`; some APIs drop
            it.

    Attributes:
        keeps_context: as above; may be changed at any time.
        step_gap: seconds between the steps in which a flow run enters a state, see
            `steps`; 0 by default.
        between_steps: called between those steps, such as a `StepHold`.
    """

    def __init__(
        self, *, locks_submitted: bool = True, keeps_context: bool = True, **more: Any
    ) -> None:
        super().__init__(**more)
        self.locks_submitted = locks_submitted
        self.keeps_context = keeps_context
        self.step_gap = 0.0
        self.between_steps: Optional[BetweenSteps] = None
        self._locked_until: Dict[str, datetime] = {}
        self._queue = Queue()
        # Task runs whose state has a start time: the retries that are waiting.
        self._waiting: Dict[str, Row] = {}

    # ------------------------------------------------------------ flow runs

    def set_flow_run_states(
        self, states: List[Mapping[str, Any]], agent_id: Optional[str] = None
    ) -> Dict[str, Any]:
        """Each run enters the state given for it; `version` is not looked at.

        Each state is a change of its own, made in several steps (`steps`). A state that
        is refused leaves the others as they are asked for, those after it included.

        Args:
            states: mappings with flow_run_id and state.
            agent_id: the agent that asks; kept on runs that become Submitted.

        Raises:
            Refused: the first refusal, if there was one.
        """
        self._take_turns(
            [
                self._steps_of_flow_run(each["flow_run_id"], each["state"], agent_id)
                for each in states
            ]
        )
        return _succeeded([each["flow_run_id"] for each in states])

    def set_flow_run_state(
        self, flow_run_id: str, state: Mapping[str, Any], agent_id: Optional[str] = None
    ) -> None:
        """`set_flow_run_states` for one run."""
        self.set_flow_run_states(
            [{"flow_run_id": flow_run_id, "state": state}], agent_id
        )

    def cancel_flow_run(self, flow_run_id: str) -> Dict[str, Any]:
        """A run that runs is Cancelling; one that does not yet is Cancelled at once."""
        with self.transaction():
            before = self.row("flow_run", flow_run_id)["state"]
        if before in FINISHED:
            return {"state": before}
        if before in RUNNING:
            after = simple("Cancelling", "Flow run is being cancelled.")
        else:
            after = simple("Cancelled", "Flow run was cancelled.")
        self.set_flow_run_state(flow_run_id, after)
        return {"state": after["type"]}

    def update_flow_run_heartbeat(self, flow_run_id: str) -> None:
        """The run lives. The server answers before it looks whether there is one."""
        self._beat("flow_run", flow_run_id)

    def _steps_of_flow_run(
        self, run_id: str, state: Mapping[str, Any], agent_id: Optional[str]
    ) -> Iterator[StepDone]:
        """Makes one step after another, and stops between each two."""
        kind = self._check_flow_run_state(run_id, state)
        if kind == "Cancelled":
            self._cancel_task_runs(run_id, state)
        with self.transaction():
            submits = kind == "Submitted"
            by_agent = (
                agent_id if submits and agent_id in self.tables["agent"] else None
            )
            if submits:
                self._lock_submitted(run_id)
            self._enter("flow_run", self.row("flow_run", run_id), state, by_agent)
        if kind in RUNNING or submits:
            yield StepDone(run_id, kind, STATE)
            self.update_flow_run_heartbeat(run_id)
        if by_agent is not None:
            yield StepDone(run_id, kind, HEARTBEAT)
            self._set_agent(run_id, by_agent)

    def _check_flow_run_state(self, run_id: str, state: Mapping[str, Any]) -> str:
        """The state's type, if it is one that the run can enter."""
        with self.transaction():
            if self.tables["flow_run"].get(run_id) is None:
                raise Refused(f"State update failed for flow run ID {run_id}")
            _check_size(state)
            return str(stored(state, self.now())["type"])

    def _lock_submitted(self, run_id: str) -> None:
        now = self.clock()
        if self.locks_submitted and self._locked_until.get(run_id, now) > now:
            raise Refused("State update failed: this run has already been submitted.")
        self._locked_until[run_id] = now + LOCK

    def _cancel_task_runs(self, run_id: str, state: Mapping[str, Any]) -> None:
        """A flow run that is Cancelled leaves no task run that could go on."""
        with self.transaction():
            unfinished = [
                task_run["id"]
                for task_run in self.tables["task_run"].having("flow_run_id", [run_id])
                if task_run["state"] not in FINISHED
            ]
        for task_run_id in unfinished:
            with suppress(Refused):
                self._set_task_run_state(task_run_id, state)

    def _set_agent(self, run_id: str, agent_id: str) -> None:
        with self.transaction():
            run = self.tables["flow_run"].get(run_id)
            if run is not None:
                self.update("flow_run", run, agent_id=agent_id)

    # ------------------------------------------------------------ task runs

    def set_task_run_states(self, states: List[Mapping[str, Any]]) -> Dict[str, Any]:
        """Each task run enters the state given for it, as `set_flow_run_states`."""
        refusals = []
        for each in states:
            try:
                self._set_task_run_state(each["task_run_id"], each["state"])
            except Refused as refusal:
                refusals.append(refusal)
        if refusals:
            raise refusals[0]
        return _succeeded([each["task_run_id"] for each in states])

    def update_task_run_heartbeat(self, task_run_id: str) -> None:
        """The task run lives."""
        self._beat("task_run", task_run_id)

    def _set_task_run_state(self, task_run_id: str, state: Mapping[str, Any]) -> None:
        with self.transaction():
            task_run = self.tables["task_run"].get(task_run_id)
            if task_run is None:
                raise Refused(f"State update failed for task run ID {task_run_id}")
            _check_size(state)
            kept = stored(state, self.now())
            if kept["type"] in RUNNING:
                self._check_flow_run_runs(task_run)
            # What a task run was given once is there when it starts again.
            if not kept["cached_inputs"]:
                before = task_run["serialized_state"]
                kept["cached_inputs"] = before.get("cached_inputs") or {}
            self._enter("task_run", task_run, kept)
            if kept["type"] in RUNNING:
                self.update_task_run_heartbeat(task_run_id)

    def _check_flow_run_runs(self, task_run: Row) -> None:
        run = self.row("flow_run", task_run["flow_run_id"])
        if run["state"] != "Running":
            raise Refused(
                f"State update failed for task run ID {task_run['id']}: provided a "
                f"running state but associated flow run {run['id']} is not in a "
                "running state."
            )

    # ------------------------------------------------------------ both

    def _take_turns(self, changes: List[Iterator[StepDone]]) -> None:
        """The first step of all changes, then the second of all, and so on.

        Raises:
            Refused: the first refusal, after all other changes were made.
        """
        refusals = []
        while changes:
            going, done = [], []
            for change in changes:
                try:
                    done.append(next(change))
                except StopIteration:
                    continue
                except Refused as refusal:
                    refusals.append(refusal)
                else:
                    going.append(change)
            self._pause_after(done)
            changes = going
        if refusals:
            raise refusals[0]

    def _pause_after(self, done: List[StepDone]) -> None:
        if not done or self.in_transaction:  # then no one could see the difference
            return
        if self.step_gap > 0:
            time.sleep(self.step_gap)
        for each in done:
            if self.between_steps is not None:
                self.between_steps(each)

    def _beat(self, table: str, row_id: str) -> None:
        with self.transaction():
            row = self.tables[table].get(row_id)
            if row is not None:
                self.update(table, row, heartbeat=self.now())

    def _enter(
        self,
        table: str,
        run: Row,
        state: Mapping[str, Any],
        agent_id: Optional[str] = None,
    ) -> None:
        """The run is in that state from now on."""
        kept = stored(state, self.now())
        self._record(table, run, kept, version=run["version"] + 1)
        if table == "flow_run":
            self._tell_state(run, agent_id)

    def _record(
        self, table: str, run: Row, state: Mapping[str, Any], version: int
    ) -> None:
        if not self.keeps_context:
            state = without_context(state)
        now, kind = self.now(), state["type"]
        start = state.get("start_time") if kind in SCHEDULED else None
        common = {"version": version, "state": kind, "serialized_state": state}
        self.insert(
            f"{table}_state",
            tenant_id=run["tenant_id"],
            timestamp=now,
            start_time=start,
            message=state["message"],
            result=state["_result"],
            **{f"{table}_id": run["id"]},
            **common,
        )
        self.update(
            table,
            run,
            state_timestamp=now,
            state_start_time=start,
            state_message=state["message"],
            state_result=state["_result"],
            **common,
            **_times(run, kind, now),
        )
        self._index(table, run)

    def _index(self, table: str, run: Row) -> None:
        """Keeps what is due where it is found without looking at every run."""
        if table == "flow_run" and run["state"] == "Scheduled":
            self._queue.add(run["id"], run["state_start_time"])
        elif table == "flow_run":
            self._queue.remove(run["id"])
        elif run["state_start_time"] is not None:
            self._waiting[run["id"]] = run
        else:
            self._waiting.pop(run["id"], None)

    def delete(self, table: str, row: Row) -> None:
        super().delete(table, row)
        if table == "flow_run":
            self._queue.remove(row["id"])
            self._locked_until.pop(row["id"], None)
        elif table == "task_run":
            self._waiting.pop(row["id"], None)


def _times(run: Row, kind: str, now: str) -> Dict[str, Any]:
    """The first time it ran, and when it ended."""
    times: Dict[str, Any] = {"end_time": now if kind in FINISHED else None}
    if kind in RUNNING and run["start_time"] is None:
        times["start_time"] = now
    return times


def _succeeded(ids: List[str]) -> Dict[str, Any]:
    return {
        "states": [{"id": each, "status": "SUCCESS", "message": None} for each in ids]
    }


def _check_size(state: Any) -> None:
    # The length of str() is within a few per cent of JSON's, and far cheaper.
    if len(str(state)) > MAX_BYTES * 0.8 and len(json.dumps(state)) > MAX_BYTES:
        raise Refused("State payload is too large.")


_Entry = Tuple[str, int, str]


class Queue:
    """Ids by start time, then by when they came; none is looked at that is not due."""

    def __init__(self) -> None:
        self._entries: List[_Entry] = []
        self._by_id: Dict[str, _Entry] = {}
        self._count = 0

    def add(self, row_id: str, start_time: str) -> None:
        self.remove(row_id)
        self._count += 1
        entry = (start_time, self._count, row_id)
        self._by_id[row_id] = entry
        bisect.insort(self._entries, entry)

    def remove(self, row_id: str) -> None:
        entry = self._by_id.pop(row_id, None)
        if entry is not None:
            del self._entries[bisect.bisect_left(self._entries, entry)]

    def due(self, before: str) -> Iterator[str]:
        """The ids whose time is not after `before`, first first."""
        for start_time, _, row_id in self._entries:
            if start_time > before:
                return
            yield row_id


#: The state is stored, the heartbeat is not yet.
STATE = "state"
#: The heartbeat is stored, `agent_id` is not yet.
HEARTBEAT = "heartbeat"


@dataclass(frozen=True)
class StepDone:
    """One step of a flow run's new state is stored, and another one follows.

    Args:
        flow_run_id: the flow run.
        state: the new state, such as `Submitted`.
        step: what has just been stored: STATE or HEARTBEAT.
    """

    flow_run_id: str
    state: str
    step: str


# Called between two steps, in the thread of the request and outside every transaction;
# the next step follows when it returns.
BetweenSteps = Callable[[StepDone], None]


class StepHold:
    """Holds flow runs between two steps until they are released.

        with StepHold() as hold:
            store.between_steps = hold
            run_id = hold.wait()  # Submitted now, heartbeat and agent_id as before
        # released

    Args:
        after: the step after which runs are held, STATE or HEARTBEAT.
        state: only runs that enter this state are held.
    """

    def __init__(self, after: str = STATE, state: str = "Submitted") -> None:
        self._after = after
        self._state = state
        self._held: List[str] = []
        self._changed = threading.Condition()
        self._released = False

    def __enter__(self) -> StepHold:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __call__(self, done: StepDone) -> None:
        if (done.step, done.state) != (self._after, self._state):
            return
        with self._changed:
            self._held.append(done.flow_run_id)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._released)
            self._held.remove(done.flow_run_id)

    @property
    def held(self) -> List[str]:
        """The ids of the flow runs that are held now."""
        with self._changed:
            return list(self._held)

    def wait(self, seconds: float = 60.0) -> str:
        """The id of a flow run that is held, as soon as there is one.

        Args:
            seconds: how long to wait for it.

        Raises:
            TimeoutError: no run was held in that time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._held, seconds):
                raise TimeoutError(f"no flow run was held within {seconds} s")
            return self._held[0]

    def release(self) -> None:
        """Lets all runs go on, and holds none from now on."""
        with self._changed:
            self._released = True
            self._changed.notify_all()
