"""`prefect agent ecs logs`: what a container of a run's task has written."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Optional

import click

from ..errors import PrefectECSError
from ..flow_run import FLOW_CONTAINER
from .click_types import NamedCommand, one_line_errors
from .runs import RunName, run_argument

if TYPE_CHECKING:
    from ..aws.console_links import LogStream
    from .aws_client import AWS
    from .explain.seen import Seen

#: Seconds between two looks at a log, and at its task. AWS allows 25 GetLogEvents per
#: second: https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/cloudwatch_limits_cwl.html
PAUSE, LOOKS = 2.0, 5

HELP = """\
Print what a flow run's container has written, from CloudWatch Logs.

RUN is the id, the name or the URL of a flow run. Its last task counts. The container
has to use the log driver awslogs. Secrets are masked, and control characters are `?`.

\b
  prefect agent ecs logs curious-otter
  prefect agent ecs logs curious-otter --follow
  prefect agent ecs logs curious-otter --container proxy
"""


@click.command("logs", cls=NamedCommand, help=HELP)
@run_argument
@click.option(
    "--follow", "-f", is_flag=True, help="Go on until the task has stopped, or Ctrl-C."
)
@click.option(
    "--container",
    default=FLOW_CONTAINER,
    show_default=True,
    metavar="NAME",
    help="The container.",
)
def logs(name: RunName, follow: bool, container: str) -> None:
    with one_line_errors():
        from ..observability.redaction import LONGEST_TEXT, redact_lines
        from .aws_client import AWS
        from .explain import reading
        from .explain.account import secrets_of
        from .runs import PrefectAPI
        from .terminal import printable

        api = PrefectAPI()
        seen = reading.read(api, api.find(name), log_lines=0)
        stream = stream_of(seen, container)
        aws, secrets = AWS(reading.aws_clients(stream.region)), secrets_of(seen)
        arn = seen.task_arn
        for page in pages(aws, stream, arn if follow else "", time.sleep):
            for line in redact_lines(page, secrets, LONGEST_TEXT):
                click.echo(printable(line))


def stream_of(seen: Seen, container: str) -> LogStream:
    """Where a container's log is.

    Raises:
        PrefectECSError: if there is no task, no such container, or no awslogs.
    """
    from .explain import reading

    run = seen.row["name"]
    if not seen.task_arn:
        raise PrefectECSError(
            f"Flow run {run} has no task, as far as the Prefect API and ECS show; "
            f"`prefect agent ecs explain {seen.row['id']}` says more.",
            code="no-task",
        )
    definition = seen.definition or {}
    names = [
        str(each.get("name")) for each in definition.get("containerDefinitions", ())
    ]
    if names and container not in names:
        raise PrefectECSError(
            f"The task of flow run {run} has no container {container!r}; it has "
            f"{', '.join(names)}.",
            code="no-such-container",
        )
    stream = reading.stream_of(seen, container)
    if stream is None and seen.definition is None:
        reason = " ".join(seen.unseen) or "ECS has forgotten it."
        raise PrefectECSError(
            f"Where task {seen.task_arn} logs is not known: {reason}",
            code="log-not-known",
        )
    if stream is None:
        raise PrefectECSError(
            f"The container {container!r} of flow run {run} does not log to CloudWatch "
            "Logs: start the agent with --flow-log-group, or give the container a "
            "logConfiguration with awslogs and awslogs-stream-prefix in the template.",
            code="no-awslogs",
        )
    return stream


def pages(
    aws: AWS, stream: LogStream, followed: str, sleep: Callable[[float], object]
) -> Iterator[List[str]]:
    """All lines of a log stream, and those to come while a task goes on.

    Args:
        aws: Reads the log.
        stream: Where it is.
        followed: The task's ARN; empty for the lines that are there now.
        sleep: Sleeps for a number of seconds.

    Raises:
        PrefectECSError: if AWS does not show them.
    """
    token: Optional[str] = None
    looks = 0
    is_over = not followed
    while True:
        events, latest = _page(aws, stream, token, may_be_missing=bool(followed))
        yield events
        if latest and latest != token:
            token = latest
            continue
        if is_over:
            return
        if looks % LOOKS == 0:  # what it wrote last is read after it has stopped
            is_over = _has_stopped(aws, followed)
        looks += 1
        sleep(PAUSE)


def _page(
    aws: AWS, stream: LogStream, token: Optional[str], may_be_missing: bool
) -> tuple[List[str], Optional[str]]:
    """The lines after a token, and the token of the next page; the same at the end."""
    from ..aws.container_logs import lines_of
    from .aws_client import AWSRefusal, AWSUnavailable

    request: Dict[str, Any] = {
        "logGroupName": stream.group,
        "logStreamName": stream.name,
        "startFromHead": True,
        **({"nextToken": token} if token else {}),
    }
    try:
        answer = aws.ask_anew("logs", "get_log_events", stream.region, **request)
    except AWSRefusal as error:
        if error.aws_code != "ResourceNotFoundException":
            raise _unreadable(stream, error) from error
        if may_be_missing:  # the container has not written anything yet
            return [], None
        raise PrefectECSError(
            f"The container has written nothing: log group {stream.group} has no "
            f"stream {stream.name}, or there is no such group.",
            code="no-log-stream",
        ) from error
    except AWSUnavailable as error:
        raise _unreadable(stream, error) from error
    return lines_of(answer["events"]), answer["nextForwardToken"]


def _unreadable(stream: LogStream, error: Exception) -> PrefectECSError:
    return PrefectECSError(
        f"The log stream {stream.name} of {stream.group} cannot be read: {error}.",
        code=str(getattr(error, "code", "")),
    )


def _has_stopped(aws: AWS, task_arn: str) -> bool:
    """Whether a task has stopped, or ECS does not know it any more."""
    from ..aws.ecs import cluster_of, region_of
    from .aws_client import AWSUnavailable

    which = {"cluster": cluster_of(task_arn), "tasks": [task_arn]}
    try:
        region = region_of(task_arn)
        tasks = aws.ask_anew("ecs", "describe_tasks", region, **which)["tasks"]
    except AWSUnavailable:  # the log may be readable nevertheless
        return False
    return all(task.get("lastStatus") == "STOPPED" for task in tasks)
