"""Frozen pictures of rows, for those who read the store from Python."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Dict, List, Mapping, Optional, Type, TypeVar

from ..tables import Row
from ..times import moment


@dataclass(frozen=True)
class FlowRun:
    """A flow run as it was when it was read; times are in UTC."""

    id: str
    name: str
    flow_id: str
    flow_name: str
    agent_id: Optional[str]
    version: int
    labels: List[str]
    parameters: Dict[str, Any]
    context: Dict[str, Any]
    run_config: Optional[Mapping[str, Any]]
    state: str
    state_message: Optional[str]
    serialized_state: Mapping[str, Any]
    state_timestamp: datetime
    state_start_time: Optional[datetime]
    scheduled_start_time: datetime
    start_time: Optional[datetime]
    end_time: Optional[datetime]
    heartbeat: Optional[datetime]
    times_resurrected: int
    auto_scheduled: bool


@dataclass(frozen=True)
class TaskRun:
    """A task run as it was when it was read."""

    id: str
    name: Optional[str]
    flow_run_id: str
    task_id: str
    task_slug: str
    map_index: int
    version: int
    state: str
    state_message: Optional[str]
    serialized_state: Mapping[str, Any]
    state_start_time: Optional[datetime]
    heartbeat: Optional[datetime]


@dataclass(frozen=True)
class State:
    """A state that a flow run was in."""

    state: str
    message: Optional[str]
    version: int
    timestamp: datetime
    start_time: Optional[datetime]
    serialized_state: Mapping[str, Any]


@dataclass(frozen=True)
class Log:
    """A line of a flow run's log."""

    flow_run_id: str
    task_run_id: Optional[str]
    timestamp: datetime
    level: str
    name: Optional[str]
    message: str


@dataclass(frozen=True)
class Agent:
    """An agent that has registered."""

    id: str
    type: str
    name: Optional[str]
    labels: List[str]
    agent_config_id: Optional[str]
    core_version: Optional[str]
    last_queried: Optional[datetime]


View = TypeVar("View", FlowRun, TaskRun, State, Log, Agent)
_TIMES = {
    *("state_timestamp", "state_start_time", "scheduled_start_time", "start_time"),
    *("end_time", "heartbeat", "timestamp", "last_queried"),
}
_FIELDS = {
    view: tuple(field.name for field in fields(view))
    for view in (FlowRun, TaskRun, State, Log, Agent)
}


def view(kind: Type[View], row: Row, **more: Any) -> View:
    """A frozen picture of a row, with what other rows add to it."""
    values = dict(more)
    for name in _FIELDS[kind]:
        if name not in more:
            value = row[name]
            values[name] = moment(value) if value and name in _TIMES else value
    return kind(**values)
