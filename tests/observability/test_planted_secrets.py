"""Secrets of many kinds, planted wherever a run or an error can bring them.

They are looked for in all that the agent and `check` say. Of none may a slice of eight
characters be seen, in whatever spelling the text has it.
"""

from __future__ import annotations

import base64
import html
import json
import os
import random
import shlex
import signal
import socket
import string
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple
from urllib.parse import quote

import pytest
import yaml
from codes import code_of
from deadlines import DEADLINE
from prefect import Flow
from prefect.engine.state import Running
from prefect.run_configs import ECSRun as PrefectECSRun

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from world import QUICK, World, eventually

from prefect_ecs_plugin.sandbox.aws import Fault

pytestmark = pytest.mark.slow

#: Variables, and what they hold: SECRET stands for the secret.
BY_NAME = {
    **dict.fromkeys(
        (
            *("DB_PASSWORD", "DBPASS", "PGPASS", "SMTPPASS", "GITHUB_PAT", "MY_APPKEY"),
            *("API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "ID_JWT", "SAS"),
            *("splunk-token", "TLS_PRIVATE", "SESSION_COOKIE", "REDIS_PW"),
        ),
        "SECRET",
    ),
    "SEED_PHRASE": "zebra SECRET violin",
    "CONNSTR": "Server=tcp:db.example.com,1433;Uid=me;Pwd={SECRET};Encrypt=yes",
    "CONNECTIONSTRING": "Endpoint=sb://x/;SharedAccessKey=SECRET",
    "AzureWebJobsStorage": "AccountName=me;AccountKey=SECRET;Suffix=x",
    "AIRFLOW_CONN_DB": "postgres://me:SECRET@db.example.com:5432/x",
    "TEAMS_HOOK": "https://hooks.example.com/in/SECRET",
    "SLACK_URL": "https://chat.example.com/SECRET",
    "SENTRY_DSN": "https://SECRET@o1.ingest.example.com/5",
    "DOCKERCONFIGJSON": '{"auths": {"registry": {"auth": "SECRET"}}}',
    "GCP_CREDENTIALS": '{"type": "service_account", "private": "SECRET\\nSECRET"}',
    "SSH_KEY": "-----BEGIN KEY-----\nSECRET'\"\\SECRET\n-----END KEY-----\n",
}

#: What is a secret by its shape or by the words before it, whatever the variable.
BY_SHAPE = {
    "access key": "AKIASECRET16AA",
    "temporary key": "ASIASECRET16AA",
    "github": "ghp_SECRET",
    "github fine": "github_pat_SECRET",
    "slack": "xoxb-SECRET",
    "gitlab": "glpat-SECRET",
    "prefect": "pcu_SECRET",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.SECRET.SECRET",
    "pem": "-----BEGIN PRIVATE KEY-----\nSECRET\nSECRET\n-----END PRIVATE KEY-----",
    "database": "mysql://me:p@SECRET/and@SECRET@db/x",
    "url token": "https://SECRET@git.example.com/x.git",
    "url sig": "https://blob.example.com/c?sv=1&sig=SECRET",
    "url token query": "https://example.com/t?token=SECRET&v=1",
    "slack hook": "https://hooks.slack.com/services/T00/B00/SECRET",
    "basic": "authorization: BASIC SECRET",
    "bearer": "Authorization: Bearer SECRET",
    "x-api-key": "x-api-key: SECRET",
    "argument": "mysql --password SECRET -h db",
    "odbc": "Driver={X};Pwd={SECRET;SECRET};Uid=me",
    "assignment": "export DB_PASSWORD=SECRET",
}


class Planted(NamedTuple):
    """A secret where it was planted.

    Attributes:
        variable: The environment variable.
        value: What it holds.
        secrets: What of this must not be seen.
    """

    variable: str
    value: str
    secrets: List[str]


def planted(place: str) -> List[Planted]:
    """Secrets of all kinds, different ones for each place."""
    chosen = random.Random(place)
    found = []
    vectors = [*BY_NAME.items(), *((key, BY_SHAPE[key]) for key in BY_SHAPE)]
    for number, (name, pattern) in enumerate(vectors):
        parts = pattern.replace("SECRET16AA", "SECRET").split("SECRET")
        is_key = "SECRET16AA" in pattern
        secrets = [one_secret(chosen, is_key) for _ in parts[1:]]
        value = parts[0] + "".join(a + b for a, b in zip(secrets, parts[1:]))
        variable = name if name in BY_NAME else f"PLAIN_{number}"
        found.append(Planted(variable, value, secrets))
    return found


def one_secret(chosen: random.Random, is_access_key: bool) -> str:
    if is_access_key:
        return "".join(chosen.choices(string.ascii_uppercase, k=16))
    return "".join(chosen.choices(string.ascii_letters + string.digits, k=20))


def echoes(each: Planted) -> List[str]:
    """How others quote a value."""
    value = each.value
    as_json = json.dumps(value)
    shown = [
        value,
        repr(value),
        as_json,
        json.dumps(as_json),
        json.dumps({each.variable: value}),
        json.dumps(json.dumps([{"name": each.variable, "value": value}])),
        quote(value, safe=""),
        html.escape(value),
        shlex.quote(value),
        f"https://example.com/?x={quote(value)}",
        f"{each.variable}={value}",
    ]
    return [f"It says: {text}" for text in shown]


def in_base64(secret: str) -> Iterator[str]:
    """A secret in base64, wherever it begins."""
    for before in range(3):
        encoded = base64.b64encode(b"x" * before + secret.encode()).decode()
        yield encoded[4:-4]


def slices(text: str) -> Iterator[str]:
    """All of a text in slices of eight characters."""
    return (text[i : i + 8] for i in range(len(text) - 7))


def leaks(text: str, found: List[Planted]) -> List[str]:
    """What can be seen of secrets, in slices of eight characters."""
    secret_slices = {
        part: each.variable
        for each in found
        for secret in each.secrets
        for spelling in (secret, *in_base64(secret))
        for part in slices(spelling)
    }
    # The text is read once: it has megabytes, and there are 40,000 slices.
    return [
        f"{secret_slices[part]}: {part}"
        for part in slices(text)
        if part in secret_slices
    ]


def test_a_leak_is_seen() -> None:
    (found,) = [each for each in planted("x") if each.variable == "API_KEY"]
    (secret,) = found.secrets
    assert leaks(f"it is {secret[5:12]}", [found]) == []
    assert leaks(f"it is {secret[5:13]}!", [found]) == [f"API_KEY: {secret[5:13]}"]
    encoded = base64.b64encode(secret.encode()).decode()
    assert leaks(encoded[4:12], [found]) == [f"API_KEY: {encoded[4:12]}"]


def test_there_are_forty_kinds_of_them() -> None:
    assert len(planted("anywhere")) >= 40


# -- Runs ----------------------------------------------------------------------------

#: Every logger writes as much as it can.
LOUD = {
    "PREFECT__CLOUD__DIAGNOSTICS": "true",
    "PREFECT__LOGGING__LEVEL": "DEBUG",
    "PREFECT__LOGGING__EXTRA_LOGGERS": "['botocore', 'urllib3']",
}

#: Where a run brings secrets from.
PLACES = ("env", "template", "kwargs")

GROUP = "planted"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("home")
    with World(home, runs_tasks=False).running() as world:
        world.aws.client("logs").create_log_group(logGroupName=GROUP)
        yield world


@pytest.fixture(scope="module")
def flow_id(world: World) -> str:
    with Flow("planted") as flow:
        pass
    return world.register(flow)


def environment_of(found: List[Planted]) -> List[Dict[str, str]]:
    return [{"name": each.variable, "value": each.value} for each in found]


def template(found: List[Planted]) -> Dict[str, Any]:
    """A template that writes logs, with variables."""
    return {
        "networkMode": "awsvpc",
        "cpu": "256",
        "memory": "512",
        "executionRoleArn": "arn:aws:iam::123456789012:role/ecs",
        "containerDefinitions": [
            {
                "name": "flow",
                "environment": environment_of(found),
                "logConfiguration": {
                    "logDriver": "awslogs",
                    "options": {
                        "awslogs-group": GROUP,
                        "awslogs-region": "us-east-1",
                        "awslogs-stream-prefix": "runs",
                    },
                },
            }
        ],
    }


def run_config(place: str, found: List[Planted]) -> Any:
    overrides = {"containerOverrides": [{"name": "flow"}]}
    overrides["containerOverrides"][0]["environment"] = environment_of(found)  # type: ignore[assignment]
    return PrefectECSRun(
        env={e.variable: e.value for e in found} if place.startswith("env") else None,
        task_definition=template(found if place.startswith("template") else []),
        run_task_kwargs={"overrides": overrides} if place.startswith("kwargs") else {},
        labels=[place.partition(" ")[2]],
    )


def write_log(world: World, task_arn: str, found: List[Planted]) -> None:
    """A log that quotes each secret, every other one where lines are cut."""
    client = world.aws.client("logs")
    stream = f"runs/flow/{task_arn.rpartition('/')[2]}"
    client.create_log_stream(logGroupName=GROUP, logStreamName=stream)
    lines = []
    for number, each in enumerate(found):
        before = "x" * (1000 - len(each.value) // 2 - 12) if number % 2 else ""
        lines.append(f"{before} it is {each.value}")
    now = int(time.time() * 1000) - 1000
    events = [{"timestamp": now + n, "message": line} for n, line in enumerate(lines)]
    client.put_log_events(logGroupName=GROUP, logStreamName=stream, logEvents=events)


def stop(agent: Any) -> None:
    os.kill(agent._process.pid, signal.SIGTERM)
    assert agent._process.wait(DEADLINE) == 0
    agent.stop()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_guarantee_7_no_slice_of_a_planted_secret_anywhere(
    world: World, flow_id: str, log_format: str
) -> None:
    """In the agent's log, in runs' logs and states, in its health and its metrics."""
    address = f"http://127.0.0.1:{free_port()}"
    options = ["--log-format", log_format, "--log-level", "debug"]
    options += ["--label", log_format, "--agent-address", address]
    lines: List[str] = []
    command = [sys.executable, "-c", QUICK, "agent", "ecs", "start", *options]
    agent = world.child(command, lines.append, **LOUD)
    refused: Dict[str, List[Planted]] = {}
    ended: Dict[str, List[Planted]] = {}
    for place in PLACES:
        for runs in (refused, ended):
            found = planted(f"{place} {log_format} {'r' if runs is refused else 'e'}")
            config = run_config(f"{place} {log_format}", found)
            runs[world.run(flow_id, run_config=config, labels=[log_format])] = found
            if runs is refused:
                refuse(world, refused)
    for run_id, found in ended.items():
        (task,) = eventually(lambda run=run_id: world.tasks_of(run))
        assert eventually(lambda arn=task.task_arn: is_running(world, arn))
        world.client.set_flow_run_state(run_id, Running())
        write_log(world, task.task_arn, found)
        said = "; ".join(echo for each in found for echo in echoes(each))
        end = {"container_reason": said, "stopped_reason": said}
        world.aws.finish(task.task_arn, exit_code=3, **end)
    runs = {**refused, **ended}
    assert set(world.finished(list(runs))) == {"Failed"}
    told = [get(f"{address}{path}") for path in ("/api/health", "/metrics")]
    stop(agent)
    world.aws.fault = None
    log = "\n".join(lines)
    assert "botocore" in log
    everything = [each for found in runs.values() for each in found]
    assert leaks("\n".join([log, *told]), everything) == []
    for run_id, found in runs.items():
        state = world.api.store.flow_run(run_id).state_message or ""
        assert leaks(state, found) == []
        assert "***" in state
        run_log = "\n".join(world.log(run_id))
        assert leaks(run_log, found) == []
        assert run_log.count("***") > 40
        if run_id in ended:
            assert "The last 50 lines of its log" in run_log
            assert "db.example.com" in run_log  # what is no secret is to be seen


def refuse(world: World, refused: Mapping[str, List[Planted]]) -> None:
    """Let AWS refuse these runs, and quote all of their secrets."""

    def fault(operation: str, params: Mapping[str, Any]) -> Any:
        found = refused.get(params.get("startedBy", ""))
        if operation != "ecs.RunTask" or not found:
            return None
        said = "; ".join(echo for each in found for echo in echoes(each))
        return Fault("InvalidParameterException", said)

    world.aws.fault = fault


def is_running(world: World, task_arn: str) -> bool:
    tasks = [each for each in world.aws.tasks() if each.task_arn == task_arn]
    return tasks[0].last_status == "RUNNING"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return error.read().decode()


# -- check ---------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_check_shows_none_of_them(
    world: World, tmp_path: Path, options: List[str]
) -> None:
    places = {place: planted(f"{place} check") for place in (*PLACES, "flow")}
    given = {"template": template(places["template"]), "kwargs": {}}
    overrides = {"name": "flow", "environment": environment_of(places["kwargs"])}
    given["kwargs"] = {"overrides": {"containerOverrides": [overrides]}}
    for name, content in given.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    env = {each.variable: each.value for each in places["flow"]}
    flow = tmp_path / "flow.py"
    flow.write_text(
        "from prefect import Flow\nfrom prefect.run_configs import ECSRun\n"
        f"with Flow('checked', run_config=ECSRun(env={env!r})) as flow:\n    pass\n"
    )
    for each in places["env"]:
        options = [*options, "--env", f"{each.variable}={each.value}"]
    key = {"AWS_SECRET_ACCESS_KEY": one_secret(random.Random("key"), False) * 2}
    shown = world.prefect(
        *("agent", "ecs", "check", "--flow", str(flow), *options),
        *("--task-definition", str(tmp_path / "template.yaml")),
        *("--run-task-kwargs", str(tmp_path / "kwargs.yaml")),
        **key,
    ).stdout
    assert "containerOverrides" in shown
    for found in places.values():
        assert leaks(shown, found) == []


def test_check_hides_the_aws_key_in_messages(world: World, tmp_path: Path) -> None:
    secret = one_secret(random.Random("key"), False) * 2
    template = tmp_path / f"absent-{secret}.yaml"
    shown = world.prefect(
        *("agent", "ecs", "check", "--task-definition", str(template)),
        AWS_SECRET_ACCESS_KEY=secret,
    ).stdout
    assert "absent-***.yaml" in shown
    assert leaks(shown, [Planted("key", secret, [secret])]) == []


# -- Health ----------------------------------------------------------------------------


def test_health_says_in_fixed_words_that_credentials_are_gone(
    world: World, tmp_path: Path
) -> None:
    broken, script = tmp_path / "broken", tmp_path / "credentials.sh"
    (found,) = [each for each in planted("health") if each.variable == "DBPASS"]
    seen: List[str] = []
    world.aws.fault = lambda operation, _: seen.append(operation)
    # botocore asks again each time if less than ten minutes are left.
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 9 * 60))
    answer = {
        "Version": 1,
        "AccessKeyId": world.aws.access_key,
        "SecretAccessKey": world.aws.secret_key,
    }
    script.write_text(
        f"if [ -e {broken} ]; then echo 'vault refused {found.variable}={found.value}'"
        f" >&2; exit 1; fi\necho '{json.dumps({**answer, 'Expiration': soon})}'\n"
    )
    config = tmp_path / "config"
    config.write_text(
        f"[default]\nregion = us-east-1\ncredential_process = sh {script}\n"
    )
    address = f"http://127.0.0.1:{free_port()}"
    lines: List[str] = []
    command = [sys.executable, "-c", QUICK, "agent", "ecs", "start"]
    agent = world.child(
        [*command, "--agent-address", address],
        lines.append,
        AWS_ACCESS_KEY_ID="",
        AWS_SECRET_ACCESS_KEY="",
        AWS_CONFIG_FILE=str(config),
    )
    assert eventually(lambda: is_well(address))
    # The last of its start.
    assert eventually(lambda: any("Starting ECSAgent" in line for line in lines))
    assert eventually(lambda: "ecs.DescribeClusters" in seen)
    broken.touch()
    problem = json.loads(get(f"{address}/api/health"))["problem"]
    assert code_of(problem) == "credentials-not-refreshed"
    assert leaks(problem, [found]) == []
    get(f"{address}/api/health")
    told = "The AWS credentials cannot be refreshed: "
    assert eventually(lambda: any(told in line for line in lines))
    broken.unlink()
    assert eventually(lambda: is_well(address))
    stop(agent)
    assert len([line for line in lines if told in line and "ERROR" in line]) == 1
    log = "\n".join(lines)
    assert f"vault refused {found.variable}=***" in log
    assert leaks(log, [found]) == []


def is_well(address: str) -> bool:
    try:
        return get(f"{address}/api/health") == "{}"
    except OSError:
        return False
