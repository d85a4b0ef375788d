"""What a container runs and with which environment: the definition under the overrides,
as ECS combines them. And what it finds at its link-local addresses, which are on
loopback here.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4-fargate-response.html
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-iam-roles.html
"""

from __future__ import annotations

import json
import shlex
from datetime import datetime, timedelta, timezone
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple

from .. import access
from ..http_server import Response
from .task import Container, Task


def command(container: Container) -> List[str]:
    """The words of the command: entryPoint, then the override's command, else the
    definition's. Empty where only the image would know."""
    entry_point = container.definition.get("entryPoint") or []
    words = container.override.get("command") or container.definition.get("command")
    return [*entry_point, *(words or [])]


def environment(
    container: Container,
    brought: Mapping[str, str],
    files: Iterable[Mapping[str, str]] = (),
    secrets: Optional[Mapping[str, str]] = None,
) -> Dict[str, str]:
    """The effective environment.

    Args:
        container: Its definition and override.
        brought: What is there before: the image's own, and ECS's.
        files: The contents of `environmentFiles`; an earlier one wins.
        secrets: The values of `secrets`.
    """
    effective = dict(brought)
    for file in reversed(list(files)):
        effective.update(file)
    effective.update(_pairs(container.definition))
    effective.update(secrets or {})
    effective.update(_pairs(container.override))
    return effective


def injected(task: Task, container: Container, url: str) -> Dict[str, str]:
    """What ECS puts into every container, and what keeps it on this machine.

    In AWS the task's credentials and metadata are at link-local addresses; here
    they are on loopback. Without the rest a flow's own boto3 would look for the
    user's profiles, or ask the machine it runs on for credentials.
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4-fargate.html
    """
    found = {
        "ECS_CONTAINER_METADATA_URI_V4": f"{url}/v4/{container.token}",
        "AWS_EXECUTION_ENV": "AWS_ECS_FARGATE" if task.on_fargate else "AWS_ECS_EC2",
        "AWS_REGION": task.region,
        "AWS_DEFAULT_REGION": task.region,
        "AWS_ENDPOINT_URL": url,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    if task_role(task):
        uri = f"{url}/v2/credentials/{container.token}"
        found["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = uri
    return found


def task_role(task: Task) -> Optional[str]:
    """The role that the task's own calls to AWS have."""
    overrides = task.request.get("overrides", {})
    role = overrides.get("taskRoleArn") or task.definition.get("taskRoleArn")
    return None if role is None else str(role)


def secrets_of(
    container: Container, find: Callable[[str], Optional[str]]
) -> Tuple[Dict[str, str], List[str]]:
    """The values of a container's secrets, and those that could not be found."""
    values, missing = {}, []
    for secret in container.definition.get("secrets") or []:
        value = find(secret["valueFrom"])
        if value is None:
            missing.append(secret["valueFrom"])
        else:
            values[secret["name"]] = value
    return values, missing


def files_of(
    container: Container, find: Callable[[str], Optional[str]]
) -> Tuple[List[Dict[str, str]], List[str]]:
    """The contents of a container's environmentFiles, and those not found.

    The override's files come before the definition's, and the first one wins.
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/use-environment-file.html
    """
    entries = [
        *(container.override.get("environmentFiles") or []),
        *(container.definition.get("environmentFiles") or []),
    ]
    texts = [(entry["value"], find(entry["value"])) for entry in entries]
    missing = [name for name, text in texts if text is None]
    return [_parse(text) for _, text in texts if text is not None], missing


def awslogs(task: Task, container: Container) -> Optional[Tuple[str, str]]:
    """Log group and stream of a container that logs to CloudWatch.

    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/using_awslogs.html
    """
    configuration = container.definition.get("logConfiguration") or {}
    options = configuration.get("options") or {}
    if configuration.get("logDriver") != "awslogs" or "awslogs-group" not in options:
        return None
    prefix = options.get("awslogs-stream-prefix")
    stream = f"{prefix}/{container.name}/{task.id}" if prefix else container.id
    return options["awslogs-group"], stream


def show(words: List[str]) -> str:
    """The command as one would type it."""
    return " ".join(map(shlex.quote, words))


def _pairs(part: Mapping[str, Any]) -> Dict[str, str]:
    return {
        entry["name"]: entry.get("value", "") for entry in part.get("environment") or []
    }


def _parse(text: str) -> Dict[str, str]:
    """VARIABLE=VALUE lines; blank ones and those that begin with # do not count."""
    lines = (line.strip() for line in text.splitlines())
    pairs = (line.partition("=") for line in lines if line and line[0] != "#")
    return {name: value for name, sign, value in pairs if sign}


METADATA_PREFIXES = ("/v4/", "/v2/credentials/")


def metadata_response(
    path: str, tasks: Iterable[Task], credentials: Mapping[str, str]
) -> Response:
    """Respond to a container that asks about itself.

    Args:
        path: `/v4/TOKEN`, `/v4/TOKEN/task` or `/v2/credentials/TOKEN`.
        tasks: All tasks there are.
        credentials: AccessKeyId and SecretAccessKey for tasks that have a role.
    """
    words = path.strip("/").split("/")
    token = words[2] if words[0] == "v2" else words[1]
    found = _find(token, tasks)
    content = _content(words, *found, credentials) if found else None
    if content is None:
        return Response(404, body=b"not found")
    headers = {"Content-Type": "application/json"}
    return Response(200, headers, json.dumps(content).encode())


def _find(token: str, tasks: Iterable[Task]) -> Optional[Tuple[Task, Container]]:
    for task in tasks:
        for container in task.containers.values():
            if access.same(token, container.token):
                return task, container
    return None


def _content(
    words: Iterable[str],
    task: Task,
    container: Container,
    credentials: Mapping[str, str],
) -> Optional[Dict[str, Any]]:
    version, _, *rest = words
    if version == "v2":
        return _credentials(task, credentials)
    if not rest:
        return _container(task, container)
    return _task(task) if rest[0] in ("task", "taskWithTags") else None


def _task(task: Task) -> Dict[str, Any]:
    definition = task.definition
    return {
        "Cluster": task.cluster_arn,
        "TaskARN": task.arn,
        "Family": definition["family"],
        "Revision": str(definition["revision"]),
        "DesiredStatus": task.desired_status,
        "KnownStatus": task.last_status,
        "LaunchType": task.launch_type,
        "AvailabilityZone": task.availability_zone,
        "TaskTags": {tag["key"]: tag["value"] for tag in task.tags},
        "Containers": [_container(task, each) for each in task.containers.values()],
    }


def _container(task: Task, container: Container) -> Dict[str, Any]:
    return {
        "DockerId": container.id,
        "Name": container.name,
        "Image": container.definition["image"],
        "DesiredStatus": task.desired_status,
        "KnownStatus": container.last_status,
        "Labels": {
            "com.amazonaws.ecs.cluster": task.cluster_arn,
            "com.amazonaws.ecs.container-name": container.name,
            "com.amazonaws.ecs.task-arn": task.arn,
            "com.amazonaws.ecs.task-definition-family": task.definition["family"],
            "com.amazonaws.ecs.task-definition-version": str(
                task.definition["revision"]
            ),
        },
    }


def _credentials(
    task: Task, credentials: Mapping[str, str]
) -> Optional[Dict[str, Any]]:
    """Credentials that open nothing but the sandbox; None for a task without role."""
    role = task_role(task)
    if role is None:
        return None
    expiration = datetime.now(timezone.utc) + timedelta(hours=6)
    return {
        "RoleArn": role,
        **credentials,
        "Token": "sandbox",
        "Expiration": expiration.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
