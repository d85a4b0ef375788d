"""Links into the AWS console, for the people who read a flow run's log. Pure."""

from __future__ import annotations

import re
from typing import Any, Mapping, NamedTuple, Optional
from urllib.parse import quote, unquote

from ..flow_run import FLOW_CONTAINER

#: The console's host for each partition of AWS.
_HOSTS = {
    "aws": "console.aws.amazon.com",
    "aws-cn": "console.amazonaws.cn",
    "aws-us-gov": "console.amazonaws-us-gov.com",
}

#: A link as `log_url` makes it.
_LOG_URL = re.compile(
    r"region=(?P<region>[\w-]+)#logsV2:log-groups/log-group/(?P<group>[^/\s]+)"
    r"/log-events/(?P<stream>[^/\s]+)"
)


class TaskName(NamedTuple):
    """The parts of a task's ARN that a link needs."""

    partition: str
    region: str
    cluster: str
    task_id: str

    @classmethod
    def of(cls, task_arn: str) -> TaskName:
        """Take an ARN apart: `arn:aws:ecs:region:account:task/cluster/id`.

        The short ARN format has no cluster; then `default` is assumed.
        """
        _, partition, _, region, _, resource = task_arn.split(":", 5)
        _, *cluster, task_id = resource.split("/")
        return cls(partition, region, cluster[0] if cluster else "default", task_id)


def task_url(task_arn: str) -> str:
    """The task's page."""
    task = TaskName.of(task_arn)
    return (
        f"https://{_host(task)}/ecs/v2/clusters/{quote(task.cluster)}"
        f"/tasks/{task.task_id}?region={task.region}"
    )


class LogStream(NamedTuple):
    """Where a container's log is in CloudWatch Logs."""

    group: str
    name: str
    region: str


def log_url(task_arn: str, definition: Mapping[str, Any]) -> Optional[str]:
    """The log stream of the `flow` container, None where it does not use awslogs.

    Args:
        task_arn: The task's ARN.
        definition: Its definition, rendered or described.
    """
    stream = log_stream(task_arn, definition)
    if stream is None:
        return None
    return (
        f"https://{_host(TaskName.of(task_arn), stream.region)}/cloudwatch/home"
        f"?region={stream.region}#logsV2:"
        f"log-groups/log-group/{_twice_quoted(stream.group)}"
        f"/log-events/{_twice_quoted(stream.name)}"
    )


def log_stream_in(text: str) -> Optional[LogStream]:
    """The log stream that a text links to, as `log_url` does; None for none."""
    found = _LOG_URL.search(text)
    if found is None:
        return None
    group, name = (
        unquote(unquote(found[part].replace("$", "%"))) for part in ("group", "stream")
    )
    return LogStream(group, name, found["region"])


def log_stream(
    task_arn: str, definition: Mapping[str, Any], container: str = FLOW_CONTAINER
) -> Optional[LogStream]:
    """The log stream of a container; None where it does not use awslogs.

    Its name is `prefix/container/task-id`:
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/using_awslogs.html

    Args:
        task_arn: The task's ARN.
        definition: Its definition, rendered or described.
        container: The container's name.
    """
    options = awslogs_options(definition, container)
    if not options.get("awslogs-group") or not options.get("awslogs-stream-prefix"):
        return None
    task = TaskName.of(task_arn)
    return LogStream(
        options["awslogs-group"],
        f"{options['awslogs-stream-prefix']}/{container}/{task.task_id}",
        options.get("awslogs-region", task.region),
    )


def awslogs_options(
    definition: Mapping[str, Any], container: str = FLOW_CONTAINER
) -> Mapping[str, str]:
    """The options of a container's awslogs driver, empty where it has none."""
    for each in definition.get("containerDefinitions", []):
        logs = each.get("logConfiguration") or {}
        if each.get("name") == container:
            options: Mapping[str, str] = logs.get("options") or {}
            return options if logs.get("logDriver") == "awslogs" else {}
    return {}


def _host(task: TaskName, region: Optional[str] = None) -> str:
    return f"{region or task.region}.{_HOSTS.get(task.partition, _HOSTS['aws'])}"


def _twice_quoted(text: str) -> str:
    """Percent-quoted, and the percent sign itself as the console wants it: `$25`."""
    return quote(quote(text, safe=""), safe="").replace("%", "$")
