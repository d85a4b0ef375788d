"""Reads what the Prefect API and AWS know about a run.

AWS gets at most six calls: ListTasks for running and for stopped tasks, DescribeTasks,
DescribeTaskDefinition, GetLogEvents. What cannot be read is noted, and the rest is read
nevertheless.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any, Dict, List, Mapping, Optional, Sequence

from botocore.loaders import create_loader
from prefect.utilities.graphql import EnumValue, with_args

from ...aws.console_links import LogStream, log_stream, log_stream_in
from ...aws.container_logs import last_events, lines_of
from ...aws.ecs import DESCRIBED_AT_ONCE, cluster_of, region_of
from ...aws.session import AWSClients
from ...errors import ConfigurationError, PrefectECSError, with_code
from ...flow_run import FLOW_CONTAINER
from ...monitoring.decision import Task
from ...monitoring.poll_queue import Location
from ...observability.redaction import secrets_in
from ..aws_client import AWS, AWSRefusal, AWSUnavailable
from ..runs import PrefectAPI
from .seen import TASK_RUNS, Line, Seen, claims_of, moment, oldest_first

#: Seconds that a person waits for a connection to AWS, and for an answer.
_TIMEOUTS = {"connect_timeout": 4, "read_timeout": 10}

#: Of a run's states, of its task runs that agents claimed, of the agents, and of what
#: agents wrote into its log.
_STATES, _RESUMED, _AGENTS, _SAID = 500, 50, 200, 200

_CLAIMED = {"state": {"_eq": "Submitted"}}
_CLAIMS = with_args(
    "states", {"where": _CLAIMED, "order_by": {"version": EnumValue("asc")}}
)
_RUN = (
    *("id", "name", "state", "state_message", "state_start_time", "created"),
    *("scheduled_start_time", "start_time", "end_time", "heartbeat", "labels"),
    *("run_config", "times_resurrected"),
)
_RUN_FIELDS: Mapping[str, Any] = {
    **dict.fromkeys(_RUN, True),
    "flow": {"name": True, "version": True, "project": {"name"}},
    "agent": {"id", "name"},
    with_args(
        "states", {"order_by": {"version": EnumValue("desc")}, "limit": _STATES}
    ): {"state", "timestamp", "start_time", "message"},
    f"claims: {_CLAIMS}": {"serialized_state", "timestamp"},
    "resumed: "
    + with_args("task_runs", {"where": {"states": _CLAIMED}, "limit": _RESUMED}): {
        _CLAIMS: {"serialized_state", "timestamp"}
    },
    with_args(
        "task_runs",
        {"order_by": {"state_timestamp": EnumValue("desc")}, "limit": TASK_RUNS},
    ): {
        **dict.fromkeys(("map_index", "state", "state_message"), True),
        "state_timestamp": True,
        **dict.fromkeys(("start_time", "end_time", "state_start_time"), True),
        "task": {"name"},
    },
}
_LATEST_AGENTS = with_args(
    "agent", {"order_by": {"last_queried": EnumValue("desc")}, "limit": _AGENTS}
)
_LINE = {"timestamp", "level", "message"}


def read(api: PrefectAPI, run_id: str, log_lines: int) -> Seen:
    """Read all that is known about a run.

    Args:
        api: The Prefect API.
        run_id: The run.
        log_lines: How many lines of its log.

    Raises:
        PrefectECSError: if the Prefect API gives no usable answer.
    """
    where = {"where": {"id": {"_eq": run_id}}}
    query = {with_args("flow_run", where): _RUN_FIELDS, _LATEST_AGENTS: _AGENT}
    data = api.ask(query)
    if not data["flow_run"]:
        raise PrefectECSError(
            f"Flow run {run_id} was deleted meanwhile.", code="no-such-run"
        )
    row, agents = data["flow_run"][0], data["agent"]
    row["states"].reverse()  # those that were set last were asked for
    said, log = _log(api, run_id, agents, log_lines)
    secrets = [*api.secrets, *secrets_in(row.get("run_config"))]
    seen = Seen(time.time(), row, agents, said, log, secrets=secrets)
    place = place_of(seen)
    if place is None:
        return seen
    from_aws = _FromAWS(seen, place)
    from_aws.read(log_lines)
    return from_aws.seen()


_AGENT = {"id", "name", "labels", "last_queried"}


def _log(
    api: PrefectAPI, run_id: str, agents: Sequence[Mapping[str, Any]], count: int
) -> List[List[Line]]:
    """What agents wrote into a run's log, and what others wrote last."""
    names = sorted({str(each["name"]) for each in agents})
    latest = {"order_by": {"timestamp": EnumValue("desc")}}
    queries = [
        with_args(
            "log",
            {
                "where": {"flow_run_id": {"_eq": run_id}, "name": {whose: names}},
                **latest,
                "limit": limit,
            },
        )
        for whose, limit in (("_in", _SAID), ("_nin", count))
    ]
    data = api.ask({f"said: {queries[0]}": _LINE, f"log: {queries[1]}": _LINE})
    return [
        [
            Line(moment(each["timestamp"]) or 0.0, each["level"], each["message"])
            for each in reversed(data[name])
        ]
        for name in ("said", "log")
    ]


def place_of(seen: Seen) -> Optional[Location]:
    """Where the run's latest task is, or would be; None if no agent has taken it."""
    if seen.task_arn:
        return Location(cluster_of(seen.task_arn), region_of(seen.task_arn) or "")
    records = [claim.record for claim in claims_of(seen.row) if claim.record]
    return Location(records[-1].cluster, records[-1].region) if records else None


@dataclass
class _FromAWS:
    """Reads what AWS knows about a run's tasks."""

    known: Seen
    place: Location
    unseen: List[str] = field(default_factory=list)
    tasks: List[Task] = field(default_factory=list)
    were_listed: bool = False
    definition: Optional[Dict[str, Any]] = None
    container_log: Optional[List[str]] = None
    log_source: str = ""

    def read(self, log_lines: int) -> None:
        """Read everything, as far as AWS answers."""
        try:
            aws = AWS(aws_clients(self.place.region))
            self._read_tasks(aws)
            if self.tasks:
                self._read_definition(aws, str(self.tasks[-1]["taskDefinitionArn"]))
            if log_lines:
                self._read_log(aws, log_lines)
        except ConfigurationError as error:
            self.unseen.append(f"AWS was not asked about the run's task: {error}")

    def seen(self) -> Seen:
        """What is known now."""
        return replace(
            self.known,
            tasks=self.tasks,
            were_listed=self.were_listed,
            definition=self.definition,
            container_log=self.container_log,
            log_source=self.log_source,
            unseen=self.unseen,
        )

    def _read_tasks(self, aws: AWS) -> None:
        cluster: Dict[str, Any] = {"cluster": self.place.cluster}
        started_by = {**cluster, "startedBy": str(self.known.row["id"])}
        one_page = {"MaxItems": DESCRIBED_AT_ONCE}
        arns: List[str] = []
        were_listed = False
        try:
            for status in ("RUNNING", "STOPPED"):
                which = {**started_by, "desiredStatus": status}
                answer = aws.ask(
                    "ecs", "list_tasks", PaginationConfig=one_page, **which
                )
                arns += answer["taskArns"]
            were_listed = True
        except AWSUnavailable as error:
            self._note("ECS did not list the run's tasks", error)
            arns = [each.task_arn for each in self.known.said if each.task_arn]
        # A task that stops between the two lists is in both.
        arns = list(dict.fromkeys(arns))[-DESCRIBED_AT_ONCE:]
        try:
            if arns:
                which = {**cluster, "include": ["TAGS"]}
                answer = aws.ask("ecs", "describe_tasks", None, tasks=arns, **which)
                self.tasks = oldest_first(answer["tasks"])
            self.were_listed = were_listed
        except AWSUnavailable as error:
            self._note("ECS did not describe the run's tasks", error)

    def _read_definition(self, aws: AWS, arn: str) -> None:
        try:
            answer = aws.ask("ecs", "describe_task_definition", taskDefinition=arn)
            self.definition = answer["taskDefinition"]
        except AWSUnavailable as error:
            self._note("ECS did not describe the task definition", error)

    def _read_log(self, aws: AWS, count: int) -> None:
        stream = stream_of(self.seen())
        if stream is None:
            if self.definition:
                self.unseen.append(
                    "The container's own output is not in CloudWatch Logs: start the "
                    "agent with --flow-log-group, or give the container a "
                    "logConfiguration with awslogs."
                )
            return
        self.log_source = f"{stream.group} in CloudWatch Logs"
        request = last_events(stream, count)
        try:
            answer = aws.ask("logs", "get_log_events", stream.region, **request)
            self.container_log = lines_of(answer["events"])[-count:]
        except AWSRefusal as error:
            if error.aws_code == "ResourceNotFoundException":
                self.unseen.append(
                    f"The container wrote nothing: {stream.group} has no log stream "
                    f"{stream.name}."
                )
            else:
                self._note("The container's log was not read", error)
        except AWSUnavailable as error:
            self._note("The container's log was not read", error)

    def _note(self, what: str, error: AWSUnavailable) -> None:
        self.unseen.append(with_code(f"{what}: {error}.", error.code))


def aws_clients(region: str) -> AWSClients:
    """Clients for a region, or for that of this machine's settings.

    Raises:
        ConfigurationError: if there are no credentials, or no region.
    """
    clients = AWSClients(region_name=region or None, botocore_config=_TIMEOUTS)
    # The agent's own models leave out members of tasks that only people read.
    data_path = clients.session.get_config_variable("data_path")
    clients.session.register_component("data_loader", create_loader(data_path))
    return clients


def stream_of(seen: Seen, container: str = FLOW_CONTAINER) -> Optional[LogStream]:
    """The log stream of a container of a run's last task, if it is known.

    For a task that ECS has forgotten, the line that an agent wrote about its launch
    links to the log of the flow's container.
    """
    if seen.task_arn and seen.definition:
        return log_stream(seen.task_arn, seen.definition, container)
    if container != FLOW_CONTAINER:
        return None
    about = (each.message for each in reversed(seen.said) if each.task_arn)
    return next(filter(None, map(log_stream_in, about)), None)
