"""When a flow's schedule is next due, by Prefect's own classes."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Dict, List, Mapping, NamedTuple, Optional


class Event(NamedTuple):
    """A start that a schedule asks for, and what its clock adds to the run."""

    start: datetime
    parameters: Dict[str, Any]
    labels: Optional[List[str]]


def upcoming(schedule: Mapping[str, Any], after: datetime, count: int) -> List[Event]:
    """The next starts of a serialized schedule.

    Prefect is imported here and not above: the store does not need it otherwise.
    """
    import pendulum
    from prefect.serialization.schedule import ScheduleSchema

    events = (
        ScheduleSchema()
        .load(dict(schedule))
        .next(n=count, after=pendulum.instance(after), return_events=True)
    )
    return [
        Event(event.start_time, dict(event.parameter_defaults or {}), event.labels)
        for event in events
    ]
