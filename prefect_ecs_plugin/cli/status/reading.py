"""Reads which runs are due or under way, and the live tasks of their clusters."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Any, Dict, List, Mapping, Sequence

from prefect.utilities.graphql import EnumValue, with_args

from ...aws.ecs import DESCRIBED_AT_ONCE, batches
from ...errors import ConfigurationError, with_code
from ...launch_record import NEEDS_TASK, RESCHEDULED_STATES, latest_claim
from ...monitoring.decision import Task
from ...monitoring.poll_queue import Location
from ..check.aws_client import AWS, AWSUnavailable
from ..explain.reading import aws_clients
from ..explain.seen import Line, moment
from ..runs import PrefectAPI, as_id
from .overview import Seen

#: Runs and agents that are read at most, and runs that wait whose logs are read.
RUNS, _AGENTS, _WAITING = 5000, 100, 200

#: Tasks of one cluster that are read at most: 20 calls, of 20 per second that AWS
#: allows an account, agents included.
TASKS = 1000

#: The type of ECS agents at the API, Prefect's own included.
_TYPE = "ECSAgent"

_AGENT_FIELDS = {"id", "name", "labels", "last_queried"}
_LATEST_CLAIM = with_args(
    "states",
    {
        "where": {"state": {"_eq": "Submitted"}},
        "order_by": {"version": EnumValue("desc")},
        "limit": 1,
    },
)
_WAITING_TASK_RUNS = with_args(
    "task_runs",
    {
        "where": {"state": {"_in": sorted(RESCHEDULED_STATES)}},
        "order_by": {"state_start_time": EnumValue("asc")},
        "limit": 1,
    },
)
_TASK_RUNS_AT_WORK = with_args(
    "task_runs", {"where": {"state": {"_eq": "Running"}}, "limit": 1}
)
_RUN_FIELDS: Mapping[str, Any] = {
    **dict.fromkeys(
        (
            *("id", "name", "state", "state_timestamp", "state_start_time"),
            *("scheduled_start_time", "labels", "agent_id", "serialized_state"),
        ),
        True,
    ),
    "flow": {"name": True, "project": {"name"}},
    _LATEST_CLAIM: {"serialized_state", "timestamp"},
    f"waiting: {_WAITING_TASK_RUNS}": {
        **dict.fromkeys(("map_index", "state_start_time", "state_timestamp"), True),
        "task": {"name"},
    },
    f"at_work: {_TASK_RUNS_AT_WORK}": {"id"},
}


def read(api: PrefectAPI, clusters: Dict[str, AWS]) -> Seen:
    """Read everything.

    Args:
        api: The Prefect API.
        clusters: Clients of AWS by region; those that are made are added.

    Raises:
        PrefectECSError: if the Prefect API gives no usable answer.
    """
    now = time.time()
    due = {"_lte": datetime.fromtimestamp(now, timezone.utc).isoformat()}
    where = {
        "_and": [
            {
                "_or": [
                    {"state": {"_in": sorted(NEEDS_TASK)}},
                    {"state": {"_eq": "Scheduled"}, "state_start_time": due},
                ]
            },
            {
                "_or": [
                    {"agent_id": {"_is_null": True}},
                    {"agent": {"type": {"_eq": _TYPE}}},
                ]
            },
            api.of_tenant,
        ]
    }
    runs = with_args(
        "flow_run",
        {
            "where": where,
            "order_by": {"scheduled_start_time": EnumValue("asc")},
            "limit": RUNS,
        },
    )
    agents = with_args(
        "agent",
        {
            "where": {"type": {"_eq": _TYPE}, **api.of_tenant},
            "order_by": {"last_queried": EnumValue("desc")},
            "limit": _AGENTS,
        },
    )
    data = api.ask({runs: _RUN_FIELDS, agents: _AGENT_FIELDS})
    rows: List[Dict[str, Any]] = data["flow_run"]
    unseen: List[str] = []
    if len(rows) == RUNS:
        unseen.append(f"There are more than {RUNS} runs; the first {RUNS} are counted.")
    said = _said(api, rows, data["agent"])
    tasks = _tasks(rows, clusters, unseen)
    return Seen(now, rows, data["agent"], said, tasks, unseen)


def _said(
    api: PrefectAPI,
    rows: Sequence[Mapping[str, Any]],
    agents: Sequence[Mapping[str, Any]],
) -> Dict[str, Line]:
    """What agents wrote last about what runs wait for, by run."""
    wait = [row["id"] for row in rows if row["state"] in ("Scheduled", "Submitted")]
    if not wait:
        return {}
    where = {
        "flow_run_id": {"_in": wait[:_WAITING]},
        "name": {"_in": sorted({str(each["name"]) for each in agents})},
    }
    query = with_args(
        "log",
        {
            "where": where,
            "order_by": {"timestamp": EnumValue("asc")},
            "limit": 5 * _WAITING,
        },
    )
    data = api.ask({query: {"flow_run_id", "timestamp", "level", "message"}})
    return {
        each["flow_run_id"]: Line(
            moment(each["timestamp"]) or 0.0, each["level"], each["message"]
        )
        for each in data["log"]
        if each["message"].startswith("Waiting for ")
    }


def _tasks(
    rows: Sequence[Mapping[str, Any]], clusters: Dict[str, AWS], unseen: List[str]
) -> Dict[Location, List[Task]]:
    """The live tasks of runs, by cluster."""
    found: Dict[Location, List[Task]] = {}
    for location in sorted({*_locations(rows)}):
        try:
            if location.region not in clusters:
                clusters[location.region] = AWS(aws_clients(location.region))
            found[location] = _tasks_in(clusters[location.region], location, unseen)
        except ConfigurationError as error:
            unseen.append(f"ECS was not asked about tasks: {error}")
        except AWSUnavailable as error:
            what = f"ECS does not show the tasks of cluster {location.cluster}"
            unseen.append(with_code(f"{what}: {error}.", error.code))
    return found


def _locations(rows: Sequence[Mapping[str, Any]]) -> List[Location]:
    claims = [latest_claim(row) for row in rows if row["state"] in NEEDS_TASK]
    records = [claim.record for claim in claims if claim and claim.record]
    return [Location(record.cluster, record.region) for record in records]


def _tasks_in(aws: AWS, location: Location, unseen: List[str]) -> List[Task]:
    """The tasks of a cluster that were started for runs."""
    cluster: Dict[str, Any] = {"cluster": location.cluster}
    most = {"MaxItems": TASKS, "PageSize": DESCRIBED_AT_ONCE}
    arns = aws.ask_anew("ecs", "list_tasks", None, PaginationConfig=most, **cluster)[
        "taskArns"
    ]
    if len(arns) == TASKS:
        unseen.append(f"Of cluster {location.cluster}, {TASKS} tasks are counted.")
    tasks: List[Task] = []
    for some in batches(arns, DESCRIBED_AT_ONCE):
        answer = aws.ask_anew("ecs", "describe_tasks", None, tasks=some, **cluster)
        tasks += [task for task in answer["tasks"] if as_id(task.get("startedBy"))]
    return tasks
