"""Helpers for tests of the sandbox's AWS; moto allows one AWS per process."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import pytest

pytest.importorskip("moto", reason="needs the sandbox extra")
pytest.importorskip("flask", reason="needs the sandbox extra")

from botocore.config import Config
from botocore.exceptions import ClientError
from deadlines import DEADLINE

from prefect_ecs_plugin.sandbox.aws import AWS, TaskView

#: One attempt, so that a refusal is seen at once and counted once.
ONCE = Config(retries={"total_max_attempts": 1}, max_pool_connections=32)

ARN = "arn:aws:ecs:us-east-1:123456789012:"


def flow_container(**members: Any) -> Dict[str, Any]:
    """A container `flow` that does nothing."""
    return {"name": "flow", "image": "flow-image", "command": ["true"], **members}


def definition(**members: Any) -> Dict[str, Any]:
    """A definition that Fargate takes."""
    return {
        "family": "etl",
        "networkMode": "awsvpc",
        "cpu": "256",
        "memory": "512",
        "requiresCompatibilities": ["FARGATE"],
        "containerDefinitions": [flow_container()],
        **members,
    }


def run_request(aws: AWS, **members: Any) -> Dict[str, Any]:
    """A RunTask request for it."""
    return {
        "taskDefinition": "etl",
        "launchType": "FARGATE",
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": subnets(aws)[:1]}},
        **members,
    }


def subnets(aws: AWS) -> List[str]:
    """The default VPC's subnets."""
    found = aws.client("ec2").describe_subnets()["Subnets"]
    return sorted(subnet["SubnetId"] for subnet in found)


def ec2_cluster(aws: AWS, name: str) -> Any:
    """A cluster with one container instance: 4096 CPU units, 7482 MiB."""
    ecs, ec2 = aws.client("ecs"), aws.client("ec2")
    ecs.create_cluster(clusterName=name)
    started = ec2.run_instances(ImageId="ami-12345678", MinCount=1, MaxCount=1)
    instance = started["Instances"][0]["InstanceId"]
    identity = {"instanceId": instance, "region": "us-east-1"}
    return ecs.register_container_instance(
        cluster=name, instanceIdentityDocument=json.dumps(identity)
    )["containerInstance"]["containerInstanceArn"]


def run_command(aws: AWS, script: str, **container: Any) -> TaskView:
    """Run a shell script as a task's `flow` container and return the task's start."""
    ecs = aws.client("ecs", config=ONCE)
    command = ["/bin/sh", "-c", script]
    ecs.register_task_definition(
        **definition(
            containerDefinitions=[flow_container(command=command, **container)]
        )
    )
    answer = ecs.run_task(**run_request(aws))
    return aws.task(answer["tasks"][0]["taskArn"])


def wait_for(
    aws: AWS, task_arn: str, status: str = "STOPPED", seconds: float = DEADLINE
) -> TaskView:
    """The task, once it has that status."""
    until(lambda: aws.task(task_arn).last_status == status, seconds, aws, task_arn)
    return aws.task(task_arn)


def until(
    condition: Callable[[], bool],
    seconds: float = DEADLINE,
    aws: Optional[AWS] = None,
    task_arn: str = "",
) -> None:
    """Poll until it is true; fail when it takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not yet true; {aws.task(task_arn) if aws else ''}")
        time.sleep(0.005)


def refusal(call: Callable[..., Any], **params: Any) -> Dict[str, Any]:
    """Code, message and HTTP status with which a call is refused."""
    with pytest.raises(ClientError) as caught:
        call(**params)
    answer = caught.value.response
    return {**answer["Error"], "Status": answer["ResponseMetadata"]["HTTPStatusCode"]}


def content(answer: Dict[str, Any]) -> Dict[str, Any]:
    """An answer without what botocore adds."""
    return {key: value for key, value in answer.items() if key != "ResponseMetadata"}


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # A zombie is waiting for its new parent to reap it.
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile, or no /proc
        return Path("/proc/self").exists()
    return status.rpartition(")")[2].split()[0] == "Z"
