"""Rows, the clock and the lock: what all rules of the store stand on."""

from __future__ import annotations

import logging
import threading
import uuid
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Callable, Deque, Iterator, List, Optional, Union

from ..errors import Refused
from ..schema import COLUMNS
from ..tables import BELONGING, RELATIONS, Row, Tables
from ..times import moment, text


@dataclass(frozen=True)
class StateChanged:
    """A flow run entered a state.

    Attributes:
        flow_run_id, flow_run_name, flow_name: which run.
        state: the state's class in Prefect, such as `Submitted`.
        message: the state's message.
        version: the run's version from now on.
        timestamp: when, in UTC.
        agent_id: the agent that submitted the run, if one did.
    """

    flow_run_id: str
    flow_run_name: str
    flow_name: str
    state: str
    message: Optional[str]
    version: int
    timestamp: datetime
    agent_id: Optional[str]


@dataclass(frozen=True)
class LogWritten:
    """A line was added to a flow run's log.

    Attributes:
        flow_run_id, task_run_id: whose line it is; task_run_id is None for the run's.
        timestamp: the line's own time, in UTC.
        level: DEBUG, INFO, WARNING, ERROR or CRITICAL.
        name: the logger.
        message: the line.
    """

    flow_run_id: str
    task_run_id: Optional[str]
    timestamp: datetime
    level: str
    name: Optional[str]
    message: str


Event = Union[StateChanged, LogWritten]
Subscriber = Callable[[Event], None]


Clock = Callable[[], datetime]
_log = logging.getLogger(__name__)


def utc_now() -> datetime:
    return datetime.now(timezone.utc)


class Core:
    """Rows that change in transactions, and subscribers who are told afterwards.

    Args:
        clock: gives the time; passed in so that rules about time can be tried.

    Attributes:
        tenant_id: the tenant of whatever is made without naming one.
    """

    tenant_id: str

    def __init__(self, *, clock: Clock = utc_now) -> None:
        self.clock = clock
        self.tables = Tables()
        self._lock = threading.RLock()
        self._depth = 0
        self._owner: Optional[int] = None
        self._subscribers: List[Subscriber] = []
        self._outbox: Deque[Event] = deque()
        self._delivery = threading.Lock()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Exclude other readers and writers; subscribers get the events at the end."""
        with self._lock:
            self._depth += 1
            self._owner = threading.get_ident()
            try:
                yield
            finally:
                self._depth -= 1
                outermost = self._depth == 0
                if outermost:
                    self._owner = None
        if outermost and self._outbox:
            self._deliver()

    @property
    def in_transaction(self) -> bool:
        """Whether this thread is inside a transaction."""
        return self._owner == threading.get_ident()

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Calls back with every event, in order, one at a time, outside the lock.

        Args:
            callback: is given StateChanged and LogWritten values, in whichever thread
                changed something; what it raises is logged and changes nothing.

        Returns:
            Ends the subscription.
        """
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    def now(self) -> str:
        return text(self.clock())

    def row(self, table: str, row_id: Optional[str]) -> Row:
        """The row with that id.

        Raises:
            Refused: there is none.
        """
        row = self.tables[table].get(row_id)
        if row is None:
            what = table.replace("_", " ").capitalize()
            raise Refused(f"{what} {row_id} not found.")
        return row

    def insert(self, table: str, **values: Any) -> Row:
        """Adds a row; columns that are not given are null."""
        now = self.now()
        row = {**dict.fromkeys(COLUMNS[table]), "created": now, "updated": now}
        row.update(values, id=values.get("id") or str(uuid.uuid4()))
        if len(row) != len(COLUMNS[table]):
            raise KeyError(f"{table} has no {row.keys() - set(COLUMNS[table])}")
        return self.tables[table].insert(row)

    def update(self, table: str, row: Row, **changes: Any) -> None:
        self.tables[table].update(row, {"updated": self.now(), **changes})

    def _update_by_id(self, table: str, row_id: str, **changes: Any) -> None:
        with self.transaction():
            self.update(table, self.row(table, row_id), **changes)

    def delete(self, table: str, row: Row) -> None:
        """Removes a row and all that belongs to it."""
        for relation in (*RELATIONS[table].values(), *BELONGING.get(table, ())):
            if relation.many:
                for child in self.tables.related(row, relation):
                    if self.tables[relation.table].get(child["id"]):
                        self.delete(relation.table, child)
        self.tables[table].delete(row)

    # -------------------------------------------------------------- events

    def _tell_state(self, run: Row, agent_id: Optional[str] = None) -> None:
        """`agent_id`: the agent that submits the run, before the row says it."""
        if not self._subscribers:
            return
        flow = self.tables["flow"].get(run["flow_id"]) or {}
        self._outbox.append(
            StateChanged(
                flow_run_id=run["id"],
                flow_run_name=run["name"],
                flow_name=flow.get("name", ""),
                state=run["state"],
                message=run["state_message"],
                version=run["version"],
                timestamp=moment(run["state_timestamp"]),
                agent_id=agent_id or run["agent_id"],
            )
        )

    def _tell_log(self, log: Row) -> None:
        if not self._subscribers:
            return
        self._outbox.append(
            LogWritten(
                flow_run_id=log["flow_run_id"],
                task_run_id=log["task_run_id"],
                timestamp=moment(log["timestamp"]),
                level=log["level"],
                name=log["name"],
                message=log["message"],
            )
        )

    def _deliver(self) -> None:
        """Deliver events. If another thread is delivering, leave them to that thread.

        The loop checks again after releasing the lock, so no event is left over.
        """
        while self._outbox and self._delivery.acquire(blocking=False):
            try:
                while self._outbox:
                    event = self._outbox.popleft()
                    for callback in list(self._subscribers):
                        try:
                            callback(event)
                        except Exception:
                            _log.exception("a subscriber failed on %s", event)
            finally:
                self._delivery.release()
