"""`prefect agent ecs exec`: a command in the container of a run's task.

AWS's session-manager-plugin makes the connection, as it does for the AWS CLI:
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-exec-run.html
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Tuple

import click

from ..errors import PrefectECSError
from ..flow_run import FLOW_CONTAINER
from .click_types import NamedCommand, one_line_errors
from .runs import RunName, run_argument

if TYPE_CHECKING:
    from ..monitoring.decision import Task
    from .explain.seen import Seen

PLUGIN = "session-manager-plugin"

_INSTALL = (
    "https://docs.aws.amazon.com/systems-manager/latest/userguide/"
    "session-manager-working-with-install-plugin.html"
)

#: What a task needs for ECS Exec:
#: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-exec.html
_ENABLE = (
    "set enableExecuteCommand: true in the file of --run-task-kwargs or in the run "
    "config's run_task_kwargs, with a task role that may open ssmmessages channels, "
    "and start the run again"
)

HELP = """\
Run a command in the container of a flow run's task, with ECS Exec.

RUN is the id, the name or the URL of a flow run whose task is RUNNING. Without a
COMMAND it is a shell.

\b
  prefect agent ecs exec curious-otter
  prefect agent ecs exec curious-otter -- ps aux

The task needs enableExecuteCommand and a task role that may open ssmmessages channels;
this machine needs AWS's session-manager-plugin and the permission ecs:ExecuteCommand.
The command says what is missing.
"""


@click.command("exec", cls=NamedCommand, help=HELP)
@run_argument
@click.argument("command", nargs=-1)
@click.option(
    "--container",
    default=FLOW_CONTAINER,
    show_default=True,
    metavar="NAME",
    help="The container.",
)
def exec(  # the group finds a command under its name
    name: RunName, command: Tuple[str, ...], container: str
) -> None:
    with one_line_errors():
        from .explain import reading
        from .runs import PrefectAPI

        api = PrefectAPI()
        seen = reading.read(api, api.find(name), log_lines=0)
        task = ready_task(seen, container)
        plugin = shutil.which(PLUGIN)
        if plugin is None:
            raise PrefectECSError(
                f"There is no {PLUGIN} on this machine's PATH; install it: {_INSTALL}",
                code="no-session-manager-plugin",
            )
        arguments = session(task, container, shlex.join(command) or "/bin/sh")
        sys.stdout.flush()
        try:  # the plugin takes this process's place, its terminal and its signals
            os.execv(plugin, [plugin, *arguments])
        except OSError as error:
            raise PrefectECSError(
                f"{plugin} cannot be run: {error.strerror}. "
                f"Install it again: {_INSTALL}",
                code="session-manager-plugin-broken",
            ) from error


def ready_task(seen: Seen, container: str) -> Task:
    """The run's task, if a command can be executed in its container.

    Raises:
        PrefectECSError: with what is missing.
    """
    task, run = seen.task, seen.row["name"]
    if task is None:
        reason = " ".join(seen.unseen) or "ECS shows none."
        raise PrefectECSError(
            f"Flow run {run} has no task in which a command could run: {reason}",
            code="no-task",
        )
    where = f"The task of flow run {run}"
    if task.get("lastStatus") != "RUNNING":
        raise PrefectECSError(
            f"{where} is {task.get('lastStatus')}; a command needs a task that is "
            "RUNNING.",
            code="task-not-running",
        )
    names = {str(each.get("name")): each for each in task.get("containers") or ()}
    if container not in names:
        raise PrefectECSError(
            f"{where} has no container {container!r}; it has {', '.join(names)}.",
            code="no-such-container",
        )
    if not task.get("enableExecuteCommand"):
        raise PrefectECSError(
            f"{where} was started without enableExecuteCommand: {_ENABLE}.",
            code="exec-not-enabled",
        )
    if "STOPPED" in _agents_states(names[container]):
        raise PrefectECSError(
            f"{where} has no running ExecuteCommandAgent: check that its task role may "
            "ssmmessages:CreateControlChannel, CreateDataChannel, OpenControlChannel "
            "and OpenDataChannel, and that its subnets reach that service.",
            code="exec-agent-stopped",
        )
    return task


def _agents_states(container: Mapping[str, Any]) -> List[str]:
    agents = container.get("managedAgents") or ()
    return [
        str(each.get("lastStatus"))
        for each in agents
        if each.get("name") == "ExecuteCommandAgent"
    ]


def session(task: Task, container: str, command: str) -> List[str]:
    """Start a session and return the plugin's arguments.

    Raises:
        PrefectECSError: if AWS does not start one.
    """
    from ..aws.ecs import cluster_of, region_of
    from .aws_client import AWS, AWSUnavailable
    from .explain.reading import aws_clients

    arn = str(task["taskArn"])
    region, cluster = region_of(arn) or "", cluster_of(arn)
    request: Dict[str, Any] = {
        "cluster": cluster,
        "task": arn,
        "container": container,
        "command": command,
        "interactive": True,
    }
    clients = aws_clients(region)
    try:
        answer = AWS(clients).ask_anew("ecs", "execute_command", None, **request)
    except AWSUnavailable as error:
        raise PrefectECSError(
            f"ECS does not execute the command: {error}.", code=error.code
        ) from error
    runtime = next(
        str(each.get("runtimeId"))
        for each in task["containers"]
        if each.get("name") == container
    )
    target = f"ecs:{cluster}_{arn.rpartition('/')[2]}_{runtime}"
    return [
        json.dumps(answer["session"]),
        clients.region_name,
        "StartSession",
        os.environ.get("AWS_PROFILE", ""),
        json.dumps({"Target": target}),
        str(clients("ecs").meta.endpoint_url),
    ]
