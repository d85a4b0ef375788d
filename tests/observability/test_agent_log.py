"""The log of a real agent: JSON if asked for, and no secret at any level."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List

import click
import pytest
import yaml
from codes import raises_code
from deadlines import DEADLINE
from prefect import Flow
from prefect.engine.state import Success
from prefect.run_configs import ECSRun as PrefectECSRun
from prefect.utilities.configuration import set_temporary_config
from prefect.utilities.graphql import GraphQLResult

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from world import QUICK, World, eventually

from prefect_ecs_plugin import ECSAgent
from prefect_ecs_plugin.cli.start import ecs
from prefect_ecs_plugin.launch_record import launch_of
from prefect_ecs_plugin.sandbox import environment
from prefect_ecs_plugin.sandbox.aws import Fault
from prefect_ecs_plugin.scheduling.steps import run_blocking

ALWAYS = {"timestamp", "level", "logger", "message"}
SOMETIMES = {
    *("code", "flow_run_id", "task_arn", "exception"),
    *("flow", "project", "labels"),
}

#: What an agent is given, and must not say.
SECRETS = {
    "key": "pcu_0123456789abcdef",
    "aws": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "session": "IQoJb3JpZ2luX2VjEXAMPLE==",
    "option": "password of --env",
    "template": "ghp_of_the_template",
    "kwargs": "token of the kwargs",
    "run": "-----BEGIN KEY-----\nMIIEow'\"\\of the run\n-----END KEY-----",
    "run's template": "password of the run's own template",
    "run's kwargs": "token of the run's kwargs",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("home")
    with World(home, runs_tasks=False).running() as world:
        yield world


@pytest.fixture(scope="module")
def flow_id(world: World) -> str:
    with Flow("logged") as flow:
        pass
    return world.register(flow)


class Spoken:
    """An agent, and every line that it says."""

    def __init__(
        self, world: World, *options: str, code: str = "", **variables: str
    ) -> None:
        self.lines: List[str] = []
        command = environment.prefect_command(world.home)
        if code:
            command = [sys.executable, "-c", code]
        self.child = world.child(
            [*command, "agent", "ecs", "start", *options],
            self.lines.append,
            **variables,
        )

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        os.kill(self.child._process.pid, signal.SIGTERM)
        code = self.child._process.wait(DEADLINE)
        self.child.stop()
        return code


@pytest.fixture
def spoken(world: World) -> Iterator[Any]:
    """Starts agents."""
    started: List[Spoken] = []

    def start(*options: str, **variables: str) -> Spoken:
        started.append(Spoken(world, *options, **variables))
        return started[-1]

    yield start
    for agent in started:
        agent.child.stop()


# -- JSON --------------------------------------------------------------------------


def parsed(lines: List[str]) -> List[Dict[str, Any]]:
    """The objects, one a line; each with the keys that are promised."""
    objects = [json.loads(line) for line in lines]
    for each in objects:
        assert set(each) >= ALWAYS
        assert set(each) <= ALWAYS | SOMETIMES
        assert re.fullmatch(
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", each["timestamp"]
        )
        assert each["level"] in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
    return objects


def about(objects: List[Dict[str, Any]], run_id: str) -> List[Dict[str, Any]]:
    return [each for each in objects if each.get("flow_run_id") == run_id]


def test_every_line_is_a_json_object_from_start_to_sigterm(
    world: World, flow_id: str, spoken: Any
) -> None:
    options = ("--log-format", "json", "--log-level", "debug", "--name", "json-agent")
    diagnostics = {
        "PREFECT__CLOUD__DIAGNOSTICS": "true",
        "PREFECT__LOGGING__LEVEL": "DEBUG",
    }
    agent = spoken(*options, **diagnostics)
    good = world.run(flow_id)
    bad = world.run(flow_id, run_config=PrefectECSRun(cpu=256, memory=8192))
    assert world.finished([bad]) == ["Failed"]
    (task,) = eventually(lambda: world.tasks_of(good))
    assert eventually(lambda: any(task.task_arn in line for line in agent.lines))
    assert agent.stop() == 0
    objects = parsed(agent.lines)
    assert {each["logger"].lower().partition(".")[0] for each in objects} <= {
        *("json-agent", "client", "diagnostics")
    }
    (launched,) = [each for each in about(objects, good) if each["level"] == "INFO"]
    assert launched["message"].startswith(f"Flow run {good} was submitted")
    assert launched["task_arn"] == task.task_arn
    error, in_full = about(objects, bad)
    assert error["level"] == "ERROR"
    assert error["message"].startswith(f"Flow run {bad} cannot be launched: ")
    assert "exception" not in error
    assert in_full["exception"].startswith("Traceback (most recent call last):\n")
    assert any(each["message"].startswith("Stopped: ") for each in objects)


def test_a_task_that_fails_is_told_with_its_arn(
    world: World, flow_id: str, spoken: Any
) -> None:
    """Also where Prefect itself puts the run's id on records, in its own way."""
    own = {"PREFECT__LOGGING__LOG_ATTRIBUTES": "['flow_run_id', 'task_arn']"}
    agent = spoken("--log-format=json", code=QUICK, **own)
    run_id = world.run(flow_id)
    (task,) = eventually(lambda: world.tasks_of(run_id))
    world.aws.finish(task.task_arn, exit_code=3)
    assert world.finished([run_id]) == ["Failed"]
    assert agent.stop() == 0
    told = [
        each
        for each in about(parsed(agent.lines), run_id)
        if each["message"].startswith(f"Flow run {run_id} has failed: ")
    ]
    assert [each["task_arn"] for each in told] == [task.task_arn]


@pytest.mark.parametrize(
    "level, options, words",
    [
        ("info", ["--task-definition", "absent.yaml"], "absent.yaml: No such file"),
        ("debug", ["--api", "http://127.0.0.1:1"], "The Prefect API at http://127."),
    ],
)
def test_what_keeps_a_json_agent_from_starting_is_an_object_too(
    spoken: Any, level: str, options: List[str], words: str
) -> None:
    agent = spoken("--log-format", "json", "--log-level", level, *options)
    assert agent.child._process.wait(DEADLINE) == 1
    agent.child.stop()
    last = parsed(agent.lines)[-1]
    assert last["level"] == "CRITICAL"
    assert words in last["message"]
    assert ("exception" in last) == (level == "debug")


#: Runs `prefect`, and does what is not expected of an agent as soon as it has a log.
NOISY = """
import logging, threading, warnings
from prefect_ecs_plugin.observability import log_formats

take_over = log_formats.take_over

class Ill:
    def __del__(self):
        1 / 0

def noisy(*args):
    secrets = take_over(*args)
    warnings.warn("a warning")
    logging.getLogger("other").error("an error")
    thread = threading.Thread(target=lambda: 1 / 0, name="Dying")
    thread.start()
    thread.join()
    Ill()
    return secrets

log_formats.take_over = noisy

from prefect.cli import cli

cli()
"""


def test_what_python_and_others_say_is_an_object_too(spoken: Any) -> None:
    agent = spoken("--log-format", "json", "--max-polls", "1", code=NOISY)
    assert agent.child._process.wait(DEADLINE) == 0
    agent.child.stop()
    objects = parsed(agent.lines)
    said = {each["logger"]: each["message"] for each in objects}
    assert "UserWarning: a warning" in said["py.warnings"]
    assert said["other"] == "an error"
    died = [each for each in objects if "ZeroDivision" in each.get("exception", "")]
    assert len(died) == 2
    assert "Dying" in died[0]["message"]
    assert "<function Ill.__del__" in died[1]["message"]
    assert [each["code"] for each in died] == ["internal-error"] * 2


# -- Secrets -----------------------------------------------------------------------


def spellings(secret: str) -> List[str]:
    """What would give a secret away."""
    return [*secret.splitlines(), json.dumps(secret)[1:-1], repr(secret)[1:-1]]


def leaks(text: str) -> List[str]:
    return [
        name
        for name, secret in SECRETS.items()
        if any(each in text for each in spellings(secret))
    ]


def environment_of(**variables: str) -> List[Dict[str, str]]:
    return [{"name": name, "value": value} for name, value in variables.items()]


def definition(**variables: str) -> Dict[str, Any]:
    container = {"name": "flow", "environment": environment_of(**variables)}
    return {
        "networkMode": "awsvpc",
        "cpu": 256,
        "memory": 512,
        "containerDefinitions": [container],
    }


def overrides(**variables: str) -> Dict[str, Any]:
    container = {"name": "flow", "environment": environment_of(**variables)}
    return {"overrides": {"containerOverrides": [container]}}


@pytest.fixture
def options(tmp_path: Path) -> List[str]:
    """Those that bring secrets."""
    template = tmp_path / "template.yaml"
    template.write_text(yaml.safe_dump(definition(GITHUB_TOKEN=SECRETS["template"])))
    run_task = tmp_path / "kwargs.yaml"
    run_task.write_text(yaml.safe_dump(overrides(A_TOKEN=SECRETS["kwargs"])))
    return [
        *("--env", f"DB_PASSWORD={SECRETS['option']}"),
        *("--task-definition", str(template), "--run-task-kwargs", str(run_task)),
    ]


#: Every logger writes as much as it can.
LOUD = {
    "PREFECT__CLOUD__API_KEY": SECRETS["key"],
    "PREFECT__CLOUD__DIAGNOSTICS": "true",
    "PREFECT__LOGGING__LEVEL": "DEBUG",
    "PREFECT__LOGGING__EXTRA_LOGGERS": "['botocore', 'urllib3']",
    "AWS_SECRET_ACCESS_KEY": SECRETS["aws"],
    "AWS_SESSION_TOKEN": SECRETS["session"],
}


def test_guarantee_7_no_secret_in_any_log_or_state_at_any_level(
    world: World, flow_id: str, spoken: Any, options: List[str]
) -> None:
    template = world.home / "template.yaml"
    own = definition(PGPASSWORD=SECRETS["run's template"])
    template.write_text(yaml.safe_dump(own))
    agent = spoken("--log-level", "debug", *options, code=QUICK, **LOUD)
    brought = {
        "env": {"SSH_KEY": SECRETS["run"]},
        "run_task_kwargs": overrides(RUN_TOKEN=SECRETS["run's kwargs"]),
    }
    refused = world.run(
        flow_id,
        run_config=PrefectECSRun(task_definition_path=f"agent://{template}", **brought),
    )
    everything = f"{refused}: " + ", ".join(SECRETS.values())
    world.aws.fault = lambda operation, params: (
        Fault("InvalidParameterException", everything)
        if operation == "ecs.RunTask" and params.get("startedBy") == refused
        else None
    )
    assert world.finished([refused]) == ["Failed"]
    world.aws.fault = None
    ended = world.run(flow_id, run_config=PrefectECSRun(**brought))
    (task,) = eventually(lambda: world.tasks_of(ended))
    own_template = SECRETS["run's template"]  # which the run that ended does not have
    known = everything.replace(own_template, "").replace(refused, ended)
    end = {"container_reason": known, "stopped_reason": known}
    world.aws.finish(task.task_arn, exit_code=3, **end)
    assert world.finished([ended]) == ["Failed"]
    assert agent.stop() == 0
    log = "\n".join(agent.lines)
    for who in (r"ERROR - agent \|", r"DEBUG - botocore\.", "(?i)DEBUG - .*diagnost"):
        assert re.search(who, log)
    assert leaks(log) == []
    for run_id in (refused, ended):
        assert "***, ***" in world.api.store.flow_run(run_id).state_message
        assert leaks(world.api.store.flow_run(run_id).state_message) == []
        assert leaks("\n".join(world.log(run_id))) == []


@pytest.fixture
def here(world: World) -> Iterator[None]:
    """This process sees what an agent's own would."""
    with environment.only(world.environment):
        yield


def test_guarantee_7_no_secret_in_the_log_of_a_program_that_has_an_agent(
    here: None, caplog: pytest.LogCaptureFixture
) -> None:
    agent = ECSAgent(name="library", env_vars={"DB_PASSWORD": SECRETS["option"]})
    agent.logger.warning("it is %s", SECRETS["option"])
    logging.getLogger("theirs").warning("it is %s", SECRETS["option"])
    assert [record.getMessage() for record in caplog.records] == [
        "it is ***",
        f"it is {SECRETS['option']}",
    ]


@pytest.mark.parametrize("watch", [True, False])
def test_secrets_of_a_run_go_when_it_has_ended(
    here: None, world: World, flow_id: str, watch: bool
) -> None:
    with set_temporary_config({"cloud.api": world.api.url, "backend": "server"}):
        agent = ECSAgent(name="forgets", labels=["forgets"], watch=watch)
        run_id = world.run(
            flow_id,
            run_config=PrefectECSRun(env={"DB_PASSWORD": SECRETS["run"]}),
            labels=["forgets"],
        )
        before = agent._secrets.of(run_id)
        agent.deploy_flow(GraphQLResult(agent.client.row(run_id)))
        assert (SECRETS["run"] in agent._secrets.of(run_id)) is watch
        if watch:
            world.client.set_flow_run_state(run_id, Success())
            (watched,) = agent._supervisor.watcher.in_flight()
            run_blocking(agent._supervisor.on_stopped(watched, None), time.sleep)
        assert agent._secrets.of(run_id) == before


def test_secrets_of_a_run_go_when_its_launch_has_failed(
    here: None, world: World, flow_id: str
) -> None:
    with set_temporary_config({"cloud.api": world.api.url, "backend": "server"}):
        agent = ECSAgent(name="forgets", labels=["forgets"])
        env = {"DB_PASSWORD": SECRETS["run"]}
        run_id = world.run_stored(
            flow_id, {"type": "ECSRun", "env": env, "cpu": 256, "memory": 8192}
        )
        seen: List[List[str]] = []
        refuse = agent._reporter.mark_failed

        def mark_failed(*args: Any) -> Any:
            seen.append(agent._secrets.of(run_id))
            return refuse(*args)

        agent._launcher._reporter.mark_failed = mark_failed  # type: ignore[method-assign]
        row = agent.client.row(run_id) or {}
        record = agent._launcher.record_of(row, launch_of(row))
        run_blocking(agent._launcher.launch(row, record), time.sleep)
        assert world.states([run_id]) == ["Failed"]
        assert SECRETS["run"] in seen[0]
        assert SECRETS["run"] not in agent._secrets.of(run_id)


def test_a_library_agent_can_write_json(
    here: None, capsys: pytest.CaptureFixture[str]
) -> None:
    ECSAgent(name="library-json", log_format="json").logger.warning("hello")
    (line,) = parsed(capsys.readouterr().out.splitlines())
    assert (line["logger"], line["message"]) == ("library-json", "hello")
    with raises_code("unknown-log-format"):
        ECSAgent(log_format="xml")


@pytest.mark.parametrize("name", ["check", "install"])
def test_other_commands_take_the_format_as_well(name: str) -> None:
    command = ecs.get_command(click.Context(ecs), name)
    assert command is not None
    with command.make_context(name, ["--log-format", "json"]) as context:
        assert context.params["log_format"] == "json"


def test_guarantee_7_no_secret_in_what_keeps_the_agent_from_starting(
    spoken: Any,
) -> None:
    template = "http://me:my-password@127.0.0.1:1/t.yaml"
    agent = spoken("--log-level", "debug", "--task-definition", template)
    assert agent.child._process.wait(DEADLINE) == 1
    agent.child.stop()
    log = "\n".join(agent.lines)
    assert "Traceback" in log
    assert "Error: Cannot read http://127.0.0.1:1/t.yaml" in log
    assert "my-password" not in log
