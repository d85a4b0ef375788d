"""What subscribers are told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Callable, Optional, Union


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
