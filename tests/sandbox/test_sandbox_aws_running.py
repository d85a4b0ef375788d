"""Tasks of the sandbox that really run, and what must never happen when they do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
from sandbox_aws import (
    AWS,
    ONCE,
    definition,
    flow_container,
    gone,
    run_command,
    run_request,
    until,
    wait_for,
)

from prefect_ecs_plugin.sandbox.aws import LineWritten
from prefect_ecs_plugin.sandbox.aws.lifecycle import Lifecycle
from prefect_ecs_plugin.sandbox.aws.task import Task

IMAGE = {"PATH": os.environ["PATH"], "IMAGE_SAYS": "hello"}


@pytest.fixture(scope="module")
def aws() -> Iterator[AWS]:
    with AWS(container_environment=IMAGE, max_processes=4) as server:
        yield server


@pytest.fixture
def ecs(aws: AWS) -> Any:
    return aws.client("ecs", config=ONCE)


def environment_of(aws: AWS, **container: Any) -> Dict[str, str]:
    """The environment that a container's process has."""
    task = run_command(aws, "env -0 | tr '\\0' '\\n'", **container)
    lines = wait_for(aws, task.task_arn).lines
    return dict(line.split("=", 1) for line in lines)


# What a process gets


def test_a_process_sees_its_effective_environment_and_nothing_else(
    aws: AWS, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL_ECS", "PREFECT__CLOUD__API_KEY"):
        monkeypatch.setenv(name, "hostile")
    found = environment_of(aws, environment=[{"name": "MINE", "value": "1 = 1"}])
    home = found["HOME"]
    uri = found.pop("ECS_CONTAINER_METADATA_URI_V4")
    assert uri.startswith(f"{aws.url}/v4/")
    assert found == {
        **IMAGE,
        "MINE": "1 = 1",
        "HOME": home,
        "PWD": home,  # the shell's own
        "AWS_CONFIG_FILE": f"{home}/.aws/config",
        "AWS_SHARED_CREDENTIALS_FILE": f"{home}/.aws/credentials",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": aws.url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_EXECUTION_ENV": "AWS_ECS_FARGATE",
    }
    until(lambda: not Path(home).exists())


def test_overrides_lie_over_the_definition_and_that_over_the_image(
    aws: AWS, ecs: Any
) -> None:
    command = ["/bin/sh", "-c", "echo $IMAGE_SAYS $A $B $C"]
    pairs = {"IMAGE_SAYS": "definition", "A": "definition", "B": "definition"}
    container = flow_container(command=["false"], environment=entries(pairs))
    ecs.register_task_definition(**definition(containerDefinitions=[container]))
    override = {
        "name": "flow",
        "command": command,
        "environment": entries({"B": "override", "C": "override"}),
    }
    overrides = {"containerOverrides": [override]}
    (task,) = ecs.run_task(**run_request(aws, overrides=overrides))["tasks"]
    assert wait_for(aws, task["taskArn"]).lines == (
        "definition definition override override",
    )


def entries(pairs: Dict[str, str]) -> List[Dict[str, str]]:
    return [{"name": name, "value": value} for name, value in pairs.items()]


def test_entry_point_comes_before_the_command(aws: AWS, ecs: Any) -> None:
    container = flow_container(entryPoint=["/bin/echo", "entry"], command=["command"])
    ecs.register_task_definition(**definition(containerDefinitions=[container]))
    (task,) = ecs.run_task(**run_request(aws))["tasks"]
    assert wait_for(aws, task["taskArn"]).lines == ("entry command",)


def test_secrets_are_fetched(aws: AWS) -> None:
    manager, ssm = aws.client("secretsmanager"), aws.client("ssm")
    plain = manager.create_secret(Name="plain", SecretString="plain-value")["ARN"]
    fields = manager.create_secret(Name="json", SecretString='{"key": "in-json"}')[
        "ARN"
    ]
    ssm.put_parameter(Name="/api/key", Value="parameter", Type="SecureString")
    elsewhere = aws.client("ssm", region_name="eu-west-1")
    elsewhere.put_parameter(Name="far", Value="far-away", Type="String")
    secrets = {
        "FAR": "arn:aws:ssm:eu-west-1:123456789012:parameter/far",
        "PLAIN": plain,
        "WITHOUT_SUFFIX": plain[:-7],
        "FIELD": f"{fields}:key::",
        "PARAMETER": "arn:aws:ssm:us-east-1:123456789012:parameter/api/key",
        "BY_NAME": "/api/key",
    }
    task = run_secret(
        aws, secrets, "echo $PLAIN $WITHOUT_SUFFIX $FIELD $PARAMETER $BY_NAME $FAR"
    )
    expected = "plain-value plain-value in-json parameter parameter far-away"
    assert wait_for(aws, task).lines == (expected,)


def run_secret(aws: AWS, secrets: Dict[str, str], script: str) -> str:
    ecs = aws.client("ecs", config=ONCE)
    container = flow_container(
        command=["/bin/sh", "-c", script],
        secrets=[{"name": name, "valueFrom": value} for name, value in secrets.items()],
    )
    role = "arn:aws:iam::123456789012:role/execution"
    ecs.register_task_definition(
        **definition(containerDefinitions=[container], executionRoleArn=role)
    )
    return str(ecs.run_task(**run_request(aws))["tasks"][0]["taskArn"])


@pytest.mark.parametrize(
    "value_from",
    [
        "arn:aws:secretsmanager:us-east-1:123456789012:secret:nothing-AbCdEf",
        "arn:aws:ssm:us-east-1:123456789012:parameter/nothing",
        "arn:aws:ssm:no-region-1:123456789012:parameter/nothing",
        "nothing",
    ],
)
def test_a_secret_that_is_not_there_keeps_the_task_from_starting(
    aws: AWS, value_from: str
) -> None:
    task = wait_for(aws, run_secret(aws, {"KEY": value_from}, "true"))
    assert (task.stop_code, task.started_at) == ("TaskFailedToStart", None)
    assert task.stopped_reason is not None
    assert task.stopped_reason.startswith("ResourceInitializationError: unable to pull")
    assert value_from in task.stopped_reason


def test_environment_files(aws: AWS) -> None:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="environments")
    body = b"# settings\n\nA=file\nB=file=1\n"
    s3.put_object(Bucket="environments", Key="prod.env", Body=body)
    value = "arn:aws:s3:::environments/prod.env"
    files = [{"type": "s3", "value": value}]
    task = run_command(
        aws, "echo $A $B", environmentFiles=files, environment=entries({"A": "own"})
    )
    assert wait_for(aws, task.task_arn).lines == ("own file=1",)


def test_metadata_and_role(aws: AWS, ecs: Any) -> None:
    script = 'echo "$ECS_CONTAINER_METADATA_URI_V4 $AWS_CONTAINER_CREDENTIALS_FULL_URI"'
    role = "arn:aws:iam::123456789012:role/task"
    container = flow_container(command=["/bin/sh", "-c", script])
    ecs.register_task_definition(
        **definition(family="meta", containerDefinitions=[container], taskRoleArn=role)
    )
    (launched,) = ecs.run_task(**run_request(aws, taskDefinition="meta"))["tasks"]
    task = wait_for(aws, launched["taskArn"])
    metadata_uri, credentials_uri = task.lines[0].split(" ")
    about = fetch(f"{metadata_uri}/task")
    assert {
        key: about[key] for key in ("TaskARN", "Cluster", "Family", "Revision")
    } == {
        "TaskARN": task.task_arn,
        "Cluster": "arn:aws:ecs:us-east-1:123456789012:cluster/default",
        "Family": "meta",
        "Revision": "1",
    }
    assert fetch(metadata_uri)["Name"] == "flow"
    assert fetch(credentials_uri)["RoleArn"] == role


def fetch(url: str) -> Dict[str, Any]:
    with urllib.request.urlopen(url) as answer:
        return dict(json.load(answer))


def test_a_flows_own_boto3_reaches_the_sandbox(aws: AWS) -> None:
    script = (
        f'{sys.executable} -c "import boto3; '
        f"print(boto3.client('sts', aws_access_key_id='{aws.access_key}', "
        "aws_secret_access_key='any')"
        ".get_caller_identity()['Account'])\""
    )
    task = run_command(aws, script)
    assert wait_for(aws, task.task_arn).lines == ("123456789012",)


def test_a_task_with_a_role_gets_the_sessions_access_key(aws: AWS) -> None:
    role = "arn:aws:iam::123456789012:role/task"
    script = (
        f'{sys.executable} -c "import boto3; '
        "print(boto3.client('sts').get_caller_identity()['Account']); "
        'print(boto3.Session().get_credentials().access_key)"'
    )
    ecs = aws.client("ecs", config=ONCE)
    container = flow_container(command=["/bin/sh", "-c", script])
    ecs.register_task_definition(
        **definition(containerDefinitions=[container], taskRoleArn=role)
    )
    (task,) = ecs.run_task(**run_request(aws))["tasks"]
    assert wait_for(aws, task["taskArn"]).lines == ("123456789012", aws.access_key)


def test_a_process_can_read_what_the_user_can(aws: AWS, tmp_path: Path) -> None:
    """docs/sandbox.md says so, so that users do not rely on the contrary."""
    (tmp_path / ".netrc").write_text("in the home directory")
    shell = subprocess.Popen(
        ["sleep", "3600"], env={"PATH": os.environ["PATH"], "OF_A_SHELL": "in its env"}
    )
    try:
        script = (
            f"cat {tmp_path}/.netrc; echo; "
            f"tr '\\0' '\\n' < /proc/{shell.pid}/environ | grep OF_A_SHELL"
        )
        if not Path("/proc/self/environ").exists():
            pytest.skip("there is no /proc")
        task = wait_for(aws, run_command(aws, script).task_arn)
    finally:
        shell.kill()
        shell.wait()
    assert task.lines == ("in the home directory", "OF_A_SHELL=in its env")


# What it leaves


@pytest.mark.parametrize(
    "script, code", [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137)]
)
def test_exit_code_and_reason_are_true(aws: AWS, script: str, code: int) -> None:
    task = wait_for(aws, run_command(aws, script).task_arn)
    assert (task.exit_code, task.stop_code, task.stopped_reason) == (
        code,
        "EssentialContainerExited",
        "Essential container in task exited",
    )


def test_lines_are_kept_published_and_logged(aws: AWS) -> None:
    events: List[Any] = []
    aws.subscribe(events.append)
    options = {
        "awslogs-group": "flows",
        "awslogs-region": "us-east-1",
        "awslogs-stream-prefix": "prefix",
    }
    log = {"logDriver": "awslogs", "options": options}
    container = flow_container(
        command=["/bin/sh", "-c", "echo out; echo err >&2; printf 'no end'"],
        logConfiguration=log,
    )
    ecs = aws.client("ecs", config=ONCE)
    role = "arn:aws:iam::123456789012:role/execution"
    ecs.register_task_definition(
        **definition(containerDefinitions=[container], executionRoleArn=role)
    )
    arn = ecs.run_task(**run_request(aws, startedBy="run-1"))["tasks"][0]["taskArn"]
    lines = ("out", "err", "no end")
    assert wait_for(aws, arn).lines == lines
    stream = f"prefix/flow/{arn.rpartition('/')[2]}"
    logged = aws.client("logs").get_log_events(
        logGroupName="flows", logStreamName=stream, startFromHead=True
    )
    assert tuple(event["message"] for event in logged["events"]) == lines
    until(lambda: len(written(events, arn)) == 3)
    assert [
        (event.line, event.started_by, event.container)
        for event in written(events, arn)
    ] == [(line, "run-1", "flow") for line in lines]


def written(events: List[Any], arn: str) -> List[LineWritten]:
    return [
        event
        for event in events
        if isinstance(event, LineWritten) and event.task_arn == arn
    ]


def test_a_command_that_is_not_there(aws: AWS, ecs: Any) -> None:
    container = flow_container(command=["/no/such/program", "a b"])
    ecs.register_task_definition(**definition(containerDefinitions=[container]))
    arn = ecs.run_task(**run_request(aws))["tasks"][0]["taskArn"]
    task = wait_for(aws, arn)
    assert (task.stop_code, task.stopped_reason, task.exit_code) == (
        "TaskFailedToStart",
        "Task failed to start",
        None,
    )
    assert task.container_reason is not None
    assert "CannotStartContainerError: /no/such/program 'a b'" in task.container_reason


def test_a_container_without_a_command(aws: AWS, ecs: Any) -> None:
    container = {"name": "flow", "image": "x"}
    ecs.register_task_definition(**definition(containerDefinitions=[container]))
    arn = ecs.run_task(**run_request(aws))["tasks"][0]["taskArn"]
    assert "needs a command" in str(wait_for(aws, arn).container_reason)


def test_a_task_without_a_flow_container_runs_until_it_is_stopped(
    aws: AWS, ecs: Any
) -> None:
    container = flow_container(name="agent", command=["/no/such/program"])
    ecs.register_task_definition(**definition(containerDefinitions=[container]))
    arn = ecs.run_task(**run_request(aws))["tasks"][0]["taskArn"]
    wait_for(aws, arn, "RUNNING")
    ecs.stop_task(task=arn)
    assert wait_for(aws, arn).exit_code == 0


# Stopping


def test_whoever_sees_a_line_of_a_task_sees_it_running(
    aws: AWS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would be stopped as one that never ran."""
    running = Lifecycle.running

    def late(lifecycle: Lifecycle, task: Task) -> None:
        until(lambda: bool(task.lines))
        running(lifecycle, task)

    monkeypatch.setattr(Lifecycle, "running", late)
    arn = run_command(aws, "echo up; while :; do sleep 0.02; done").task_arn
    seen = []
    until(lambda: bool(seen.append(aws.task(arn)) or seen[-1].lines))
    assert (seen[-1].lines, seen[-1].last_status) == (("up",), "RUNNING")
    aws.interrupt(arn)


def test_stop_sends_sigterm_first(aws: AWS, ecs: Any) -> None:
    task = run_command(
        aws, "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.02; done"
    )
    until(lambda: aws.task(task.task_arn).lines == ("up",))
    ecs.stop_task(task=task.task_arn)
    stopped = wait_for(aws, task.task_arn)
    # Between the two the shell may say that its sleep was terminated.
    assert (stopped.exit_code, stopped.lines[-1]) == (7, "bye")
    assert stopped.stop_code == "UserInitiated"


def test_sigterm_reaches_the_whole_group(aws: AWS, ecs: Any) -> None:
    child = "trap 'echo child; exit' TERM; echo up; while :; do sleep 0.02; done"
    task = run_command(aws, f'trap : TERM; sh -c "{child}" & wait $!; wait $!')
    until(lambda: aws.task(task.task_arn).lines == ("up",))
    ecs.stop_task(task=task.task_arn)
    assert "child" in wait_for(aws, task.task_arn).lines


def test_and_sigkill_after_the_stop_timeout(aws: AWS, ecs: Any) -> None:
    script = "trap 'echo no' TERM; echo up; while :; do sleep 0.02; done"
    task = run_command(aws, script, stopTimeout=2)
    until(lambda: aws.task(task.task_arn).lines == ("up",))
    aws.interrupt(task.task_arn)
    stopped = wait_for(aws, task.task_arn)
    assert stopped.exit_code == 137
    assert stopped.stop_code == "SpotInterruption"


LEAVES_CHILDREN = {
    "in the group": "sleep 600 & echo $!; {end}",
    "with the pipe closed": "sleep 600 >/dev/null 2>&1 & echo $!; {end}",
    "in a session of its own": (
        f"{sys.executable} -c 'import os, time; os.setsid(); print(os.getpid(), "
        "flush=True); time.sleep(600)' & {wait}; {end}"
    ),
}


@pytest.mark.parametrize("where", LEAVES_CHILDREN)
@pytest.mark.parametrize("how", ["exits", "is stopped", "is finished"])
def test_nothing_that_a_task_started_outlives_it(
    aws: AWS, ecs: Any, where: str, how: str, tmp_path: Path
) -> None:
    if where == "in a session of its own" and not Path("/proc").exists():
        pytest.skip("found through /proc")
    # A flow that exits may do so only after its child has said who it is.
    go = tmp_path / "go"
    wait_for_go = f"while [ ! -e {go} ]; do sleep 0.01; done"
    script = LEAVES_CHILDREN[where].replace("{wait}", "true")
    script = script.replace("{end}", wait_for_go)
    task = run_command(aws, script)
    until(lambda: bool(aws.task(task.task_arn).lines))
    pid = int(aws.task(task.task_arn).lines[0])
    assert not gone(pid)
    if how == "exits":
        go.touch()
    elif how == "is stopped":
        ecs.stop_task(task=task.task_arn)
    else:
        aws.finish(task.task_arn)
    wait_for(aws, task.task_arn)
    until(lambda: gone(pid))
