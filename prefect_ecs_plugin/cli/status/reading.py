"""Reads which runs are due or under way, and the live tasks of their clusters."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Any, Callable, Dict, Iterable, List, Mapping, Sequence, Tuple

from prefect.utilities.graphql import EnumValue, with_args

from ...aws.ecs import DESCRIBED_AT_ONCE, batches
from ...errors import ConfigurationError, with_code
from ...launch_record import NEEDS_TASK, RESCHEDULED_STATES, latest_claim
from ...monitoring.decision import Task
from ...monitoring.poll_queue import Location
from ...prefect_api.client import CLAIM_FIELDS, FLOW_NAMES, LATEST_CLAIM
from ..aws_client import AWS, AWSUnavailable
from ..explain.reading import aws_clients
from ..explain.seen import Line, moment
from ..runs import PrefectAPI
from .overview import WAITING, Seen

#: Runs and agents that are read at most, and runs that wait whose logs are read.
RUNS, _AGENTS, LOGS = 5000, 100, 1000

#: Tasks of one cluster that are read at most: 20 calls. AWS allows an account 20 per
#: second, those of its agents included.
TASKS = 1000

#: The type of ECS agents at the API, Prefect's own included.
_TYPE = "ECSAgent"

_AGENT_FIELDS = {"id", "name", "labels", "last_queried"}
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
    "flow": FLOW_NAMES,
    LATEST_CLAIM: CLAIM_FIELDS,
    f"waiting: {_WAITING_TASK_RUNS}": {
        **dict.fromkeys(("map_index", "state_start_time", "state_timestamp"), True),
        "task": {"name"},
    },
    f"at_work: {_TASK_RUNS_AT_WORK}": {"id"},
}


def read(api: PrefectAPI, clusters: Clusters) -> Seen:
    """Read everything.

    Args:
        api: The Prefect API.
        clusters: Reads tasks.

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
    said = _said(api, rows, data["agent"], unseen)
    tasks = clusters.tasks(_locations(rows), unseen)
    return Seen(now, rows, data["agent"], said, tasks, unseen)


def _said(
    api: PrefectAPI,
    rows: Sequence[Mapping[str, Any]],
    agents: Sequence[Mapping[str, Any]],
    unseen: List[str],
) -> Dict[str, Line]:
    """What agents wrote last about what runs wait for, by run."""
    wait = [row["id"] for row in rows if row["state"] in ("Scheduled", "Submitted")]
    if not wait:
        return {}
    if len(wait) > LOGS:
        unseen.append(f"What runs wait for is read of the first {LOGS} only.")
    where = {
        "flow_run_id": {"_in": wait[:LOGS]},
        "name": {"_in": sorted({str(each["name"]) for each in agents})},
        "message": {"_like": f"{WAITING}%"},
    }
    query = with_args(
        "log",
        {
            "where": where,
            "order_by": {"timestamp": EnumValue("desc")},
            "limit": 5 * LOGS,
        },
    )
    data = api.ask({query: {"flow_run_id", "timestamp", "level", "message"}})
    return {
        each["flow_run_id"]: Line(
            moment(each["timestamp"]) or 0.0, each["level"], each["message"]
        )
        for each in reversed(data["log"])
    }


class Clusters:
    """Reads the live tasks of clusters, with one call a second for each at most.

    Args:
        clock: A monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._clients: Dict[str, AWS] = {}
        self._known: Dict[Location, Tuple[float, List[Task]]] = {}

    def tasks(
        self, locations: Iterable[Location], unseen: List[str]
    ) -> Dict[Location, List[Task]]:
        """The live tasks of runs, by cluster.

        Args:
            locations: The clusters.
            unseen: What cannot be read is added.
        """
        found: Dict[Location, List[Task]] = {}
        for location in sorted({*locations}):
            try:
                found[location] = self._tasks_in(location)
            except ConfigurationError as error:
                unseen.append(f"ECS was not asked about tasks: {error}")
                continue
            except AWSUnavailable as error:
                what = f"ECS does not show the tasks of cluster {location.cluster}"
                unseen.append(with_code(f"{what}: {error}.", error.code))
                continue
            if len(found[location]) == TASKS:
                unseen.append(f"Of cluster {location.cluster}, {TASKS} tasks are read.")
        return found

    def _tasks_in(self, location: Location) -> List[Task]:
        until, known = self._known.get(location, (0.0, []))
        begin = self._clock()
        if begin < until:
            return known
        if location.region not in self._clients:
            self._clients[location.region] = AWS(aws_clients(location.region))
        aws = self._clients[location.region]
        cluster: Dict[str, Any] = {"cluster": location.cluster}
        most = {"MaxItems": TASKS, "PageSize": DESCRIBED_AT_ONCE}
        listed = aws.ask_anew("ecs", "list_tasks", PaginationConfig=most, **cluster)
        pages = list(batches(listed["taskArns"], DESCRIBED_AT_ONCE))
        tasks: List[Task] = []
        for some in pages:
            answer = aws.ask_anew("ecs", "describe_tasks", None, tasks=some, **cluster)
            tasks += answer["tasks"]
        self._known[location] = begin + 2 * len(pages), tasks
        return tasks


def _locations(rows: Sequence[Mapping[str, Any]]) -> List[Location]:
    claims = [latest_claim(row) for row in rows if row["state"] in NEEDS_TASK]
    records = [claim.record for claim in claims if claim and claim.record]
    return [Location(record.cluster, record.region) for record in records]
