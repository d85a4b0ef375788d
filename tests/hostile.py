"""Run configs that would freeze the agent, or take all its memory."""

from __future__ import annotations

import os
from typing import Any, Dict

import boto3
import pytest

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from world import World
from yaml_bombs import bomb

MIB = 1024 * 1024


def put(world: World, key: str, body: bytes) -> str:
    """Put a template on S3; its path."""
    s3 = boto3.client(
        "s3",
        endpoint_url=world.aws.url,
        region_name=world.aws.region,
        aws_access_key_id=world.aws.access_key,
        aws_secret_access_key=world.aws.secret_key,
    )
    s3.create_bucket(Bucket="templates")
    s3.put_object(Bucket="templates", Key=key, Body=body)
    return f"s3://templates/{key}"


def run_configs(world: World) -> Dict[str, Dict[str, Any]]:
    """Run configs by what is wrong with them; each run is Failed with one line."""
    pipe = world.home / "pipe.yaml"
    os.mkfifo(pipe)
    paths = {
        "alias bomb": put(world, "bomb.yaml", bomb().encode()),
        "template of 50 MiB": put(world, "long.yaml", b"#" * 50 * MIB),
        "500,000 levels": put(world, "deep.yaml", b"a: " + b"[" * 500_000),
        "a number of 1 MB": put(world, "number.yaml", b"cpu: 1" + b":1" * 500_000),
        "300,000 values": put(world, "wide.yaml", b"a: [" + b"{}," * 300_000 + b"]"),
        "a pipe": f"agent://{pipe}",
        "/dev/zero": "agent:///dev/zero",
        "metadata address": "http://169.254.169.254/latest/meta-data",
        "loopback address": "http://localhost:1/template.yaml",
    }
    kwargs = {
        "key of 6,000 characters": {"k" * 6000: 1},
        "key of 6,000 backslashes": {"\\" * 6000: 1},
        "9,000 keys": {f"key{index}": 1 for index in range(9_000)},
    }
    return {
        **{
            name: {"type": "ECSRun", "task_definition_path": path}
            for name, path in paths.items()
        },
        **{
            name: {"type": "ECSRun", "run_task_kwargs": each}
            for name, each in kwargs.items()
        },
    }
