"""What a container finds under its own link-local addresses, here on loopback.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4-fargate-response.html
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-iam-roles.html
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any, Dict, Iterable, Mapping, Optional, Tuple

from .. import access
from ..http_server import Response
from .container import task_role
from .task import Container, Task

PREFIXES = ("/v4/", "/v2/credentials/")


def respond(
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
