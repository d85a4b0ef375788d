"""Stopped tasks as DescribeTasks shows them."""

from __future__ import annotations

from typing import Any, Dict, Optional

ARN = "arn:aws:ecs:eu-west-1:123456789012:task/prod/0123abc"
GUIDE = "https://docs.aws.amazon.com/AmazonECS/latest/developerguide/"

FAILED_TO_START, EXITED = "TaskFailedToStart", "EssentialContainerExited"

OUT_OF_MEMORY = "OutOfMemoryError: Container killed due to memory usage"


def never_ran(
    stopped_reason: str,
    stop_code: str = FAILED_TO_START,
    container_reason: Optional[str] = None,
    **more: Any,
) -> Dict[str, Any]:
    """A task whose flow container was never created, as DescribeTasks shows it."""
    container: Dict[str, Any] = {"name": "flow", "lastStatus": "STOPPED"}
    if container_reason:
        container["reason"] = container_reason
    return {
        "taskArn": ARN,
        "lastStatus": "STOPPED",
        "desiredStatus": "STOPPED",
        "launchType": "FARGATE",
        "cpu": "1024",
        "memory": "2048",
        "stopCode": stop_code,
        "stoppedReason": stopped_reason,
        "containers": [container],
        **more,
    }


def ran(
    exit_code: Optional[int],
    stopped_reason: str = "Essential container in task exited",
    stop_code: str = EXITED,
    container_reason: Optional[str] = None,
    **more: Any,
) -> Dict[str, Any]:
    """A task that was RUNNING."""
    task = never_ran(stopped_reason, stop_code, container_reason, startedAt=1, **more)
    task["containers"][0]["runtimeId"] = "0123abc-1"
    if exit_code is not None:
        task["containers"][0]["exitCode"] = exit_code
    return task


PULL_TIMEOUT = never_ran("CannotPullContainerError: i/o timeout")
