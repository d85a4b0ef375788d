"""Links into the AWS console, for the people who read a flow run's log. Pure."""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Optional
from urllib.parse import quote

from ..flow_run import FLOW_CONTAINER

#: The console's host for each partition of AWS.
_HOSTS = {
    "aws": "console.aws.amazon.com",
    "aws-cn": "console.amazonaws.cn",
    "aws-us-gov": "console.amazonaws-us-gov.com",
}


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


def log_url(task_arn: str, definition: Mapping[str, Any]) -> Optional[str]:
    """The log stream of the `flow` container, None where it does not use awslogs.

    Args:
        task_arn: The task's ARN.
        definition: Its definition, rendered or described.
    """
    task, options = TaskName.of(task_arn), awslogs_options(definition)
    stream = log_stream(task_arn, definition)
    if stream is None:
        return None
    region = options.get("awslogs-region", task.region)
    return (
        f"https://{_host(task, region)}/cloudwatch/home?region={region}#logsV2:"
        f"log-groups/log-group/{_twice_quoted(options['awslogs-group'])}"
        f"/log-events/{_twice_quoted(stream)}"
    )


def log_stream(task_arn: str, definition: Mapping[str, Any]) -> Optional[str]:
    """The stream's name: `prefix/container/task-id`.

    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/using_awslogs.html
    """
    options = awslogs_options(definition)
    if not options.get("awslogs-group") or not options.get("awslogs-stream-prefix"):
        return None
    task_id = TaskName.of(task_arn).task_id
    return f"{options['awslogs-stream-prefix']}/{FLOW_CONTAINER}/{task_id}"


def awslogs_options(definition: Mapping[str, Any]) -> Mapping[str, str]:
    """The options of the `flow` container's awslogs driver, empty where it has none."""
    for container in definition.get("containerDefinitions", []):
        logs = container.get("logConfiguration") or {}
        if container.get("name") == FLOW_CONTAINER:
            options: Mapping[str, str] = logs.get("options") or {}
            return options if logs.get("logDriver") == "awslogs" else {}
    return {}


def _host(task: TaskName, region: Optional[str] = None) -> str:
    return f"{region or task.region}.{_HOSTS.get(task.partition, _HOSTS['aws'])}"


def _twice_quoted(text: str) -> str:
    """Percent-quoted, and the percent sign itself as the console wants it: `$25`."""
    return quote(quote(text, safe=""), safe="").replace("%", "$")
