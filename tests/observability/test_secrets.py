"""Guarantee 7 with real runs: the key is a secret, and is nowhere else."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Iterator, List

import pytest
from prefect import Flow, task

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from codes import code_of
from world import World, eventually

from prefect_ecs_plugin import ECSRun

KEY = "pcu_0123456789-the-key-of-all"
DIGEST = hashlib.sha256(KEY.encode()).hexdigest()
ROLE = "arn:aws:iam::123456789012:role/ecs"
NAMES = ("PREFECT__CLOUD__API_KEY", "PREFECT__CLOUD__AUTH_TOKEN")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("home")).running() as world:
        yield world


@pytest.fixture(scope="module")
def secret(world: World) -> str:
    """A secret of JSON that holds the key, as `valueFrom` names it."""
    made = world.aws.client("secretsmanager").create_secret(
        Name="prefect/key", SecretString=json.dumps({"api": KEY})
    )
    return f"{made['ARN']}:api::"


@pytest.fixture(scope="module")
def flow_id(world: World) -> str:
    """A flow that tells by their digests which keys it was given."""

    @task
    def tell() -> None:
        import hashlib
        import os

        import prefect

        for name in ("PREFECT__CLOUD__API_KEY", "PREFECT__CLOUD__AUTH_TOKEN"):
            digest = hashlib.sha256(os.environ[name].encode()).hexdigest()
            prefect.context.logger.info("%s %s", name, digest)

    with Flow("tells") as flow:
        tell()
    return world.register(flow)


@pytest.fixture(scope="module")
def agent(world: World, secret: str) -> Iterator[Any]:
    """An agent that reads its own key from the secret, and names it for its runs."""
    options = [
        *("--key-from-secret", secret, "--api-key-secret-arn", secret),
        *("--execution-role-arn", ROLE, "--log-level", "DEBUG"),
        *("--env", f"PREFECT__CLOUD__API_KEY={KEY}"),
    ]
    with world.agent(*options) as child:
        yield child


def sent_to_ecs(world: World) -> List[Any]:
    return [each for each in world.aws.requests if each[0].startswith("ecs.")]


def said_by_ecs(world: World, run_id: str) -> List[Any]:
    """What ECS says of a run's task and its definition."""
    ecs = world.aws.client("ecs")
    (ecs_task,) = world.tasks_of(run_id)
    return [
        ecs.describe_tasks(tasks=[ecs_task.task_arn], include=["TAGS"])["tasks"],
        ecs.describe_task_definition(taskDefinition=ecs_task.definition_arn),
    ]


def keys_told(world: World, run_id: str) -> List[str]:
    """What the run says of its keys, once its task has stopped and sent its log."""
    eventually(lambda: world.tasks_of(run_id)[0].last_status == "STOPPED")
    return [line for line in world.log(run_id) if DIGEST in line]


def test_guarantee_7_only_the_run_sees_its_key(
    world: World, flow_id: str, secret: str, agent: Any
) -> None:
    in_plain = {"name": "flow", "environment": [{"name": NAMES[1], "value": KEY}]}
    run_config = ECSRun(
        env={NAMES[0]: KEY},
        run_task_kwargs={"overrides": {"containerOverrides": [in_plain]}},
    )
    run_id = world.run(flow_id, run_config=run_config)
    assert world.finished([run_id]) == ["Success"]
    assert keys_told(world, run_id) == [f"{name} {DIGEST}" for name in NAMES]
    (request,) = [
        params
        for name, params in sent_to_ecs(world)
        if name == "ecs.RunTask" and params["startedBy"] == run_id
    ]
    (override,) = request["overrides"]["containerOverrides"]
    env = {entry["name"]: entry["value"] for entry in override["environment"]}
    assert not set(NAMES) & set(env)
    assert env["PREFECT__CLOUD__TENANT_ID"] == world.client.tenant_id
    seen = {
        "requests": sent_to_ecs(world),
        "descriptions": said_by_ecs(world, run_id),
        "the run's log": world.log(run_id),
        "the agent's log": agent.lines,
    }
    for where, what in seen.items():
        assert KEY not in json.dumps(what, default=str), where
    definition = seen["descriptions"][1]["taskDefinition"]
    assert definition["containerDefinitions"][0]["secrets"] == [
        {"name": name, "valueFrom": secret} for name in NAMES
    ]


def test_guarantee_7_a_registered_definition_has_to_bring_the_key(
    world: World, flow_id: str, secret: str, agent: Any
) -> None:
    ecs = world.aws.client("ecs")
    names = {}
    for family, secrets in {
        "with-key": [{"name": NAMES[0], "valueFrom": secret}],
        "without-key": [],
    }.items():
        answer = ecs.register_task_definition(
            family=family,
            networkMode="awsvpc",
            cpu="256",
            memory="512",
            requiresCompatibilities=["FARGATE"],
            executionRoleArn=ROLE,
            containerDefinitions=[{"name": "flow", "image": "x", "secrets": secrets}],
        )
        found = answer["taskDefinition"]
        names[family] = f"{found['family']}:{found['revision']}"
    runs = {
        family: world.run(flow_id, run_config=ECSRun(task_definition_arn=name))
        for family, name in names.items()
    }
    assert set(world.finished(list(runs.values()))) == {"Failed"}  # one name is missing
    (line,) = world.log(runs["without-key"], "ERROR")
    assert code_of(line) == "definition-without-api-key"
    assert "without-key:1" in line
    assert f"valueFrom {secret}" in line
    assert world.tasks_of(runs["without-key"]) == []
    assert keys_told(world, runs["with-key"]) == [f"{NAMES[0]} {DIGEST}"]


def test_a_secret_that_is_not_there_fails_the_run_with_what_to_do(
    world: World, flow_id: str
) -> None:
    absent = "arn:aws:ssm:us-east-1:123456789012:parameter/prefect/absent"
    options = ["--api-key-secret-arn", absent, "--execution-role-arn", ROLE]
    run_id = world.run(flow_id, labels=["absent"])
    with world.quick_agent(*options, "--label", "absent", "--start-attempts", "1"):
        assert world.finished([run_id]) == ["Failed"]
    told = "\n".join(world.log(run_id, "ERROR"))
    assert code_of(told.splitlines()[0]) == "secret-not-found"
    (ecs_task,) = world.tasks_of(run_id)
    assert ecs_task.stopped_reason.startswith(
        "ResourceInitializationError: unable to pull secrets or registry auth"
    )


# -- The start ---------------------------------------------------------------------

PLAIN = "Flow runs get the API key in plain text"
NO_ROLE = "--api-key-secret-arn needs an execution role"


@pytest.mark.parametrize(
    "options, words",
    [(["--key", KEY], PLAIN), (["--key", KEY, "--api-key-secret-arn"], NO_ROLE)],
)
def test_the_agent_says_how_runs_get_their_key(
    world: World, secret: str, options: List[str], words: str
) -> None:
    value = [secret] if options[-1] == "--api-key-secret-arn" else []
    ended = world.prefect("agent", "ecs", "start", *options, *value, "--max-polls", "1")
    assert ended.returncode == 0, ended.stdout
    (warned,) = [line for line in ended.stdout.splitlines() if "WARNING" in line]
    assert words in warned
    assert KEY not in ended.stdout


@pytest.mark.parametrize(
    "options, exit_code, words",
    [
        (["--key", "k", "--key-from-secret", "SECRET"], 2, "exclude each other: an"),
        (["--key-from-secret", "prefect"], 2, "--key-from-secret's value is not"),
        (["--api-key-secret-arn", KEY], 2, "--api-key-secret-arn's value is not"),
        (["--key-from-secret", "ABSENT"], 1, r"secret:absent-\w+ .* \[no-secret\]$"),
    ],
)
def test_guarantee_6_a_key_that_cannot_be_had_is_one_line(
    world: World, secret: str, options: List[str], exit_code: int, words: str
) -> None:
    absent = "arn:aws:secretsmanager:us-east-1:123456789012:secret:absent-AbCdEf"
    arns = {"SECRET": secret, "ABSENT": absent}
    given = [arns.get(each, each) for each in options]
    ended = world.prefect("agent", "ecs", "start", *given)
    assert ended.returncode == exit_code
    (line,) = [each for each in ended.stdout.splitlines() if "Error: " in each]
    assert re.search(words, line)
    assert "Traceback" not in ended.stdout
    assert KEY not in ended.stdout


def test_an_embedded_agent_refuses_a_bad_arn_too(world: World) -> None:
    script = "from prefect_ecs_plugin import ECSAgent; ECSAgent(api_key_secret_arn='x')"
    import subprocess
    import sys

    ended = subprocess.run(
        [sys.executable, "-c", script],
        env=world.environment,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        check=False,
    )
    assert "ConfigurationError: ECSAgent: api_key_secret_arn's value" in ended.stderr
    assert code_of(ended.stderr.strip()) == "not-a-secret-arn"
