"""`prefect agent ecs start` runs real flows as ECS tasks."""

from __future__ import annotations

import datetime
import json
import os
import re
from typing import Any, Dict, Iterator, List

import prefect
import pytest
from codes import code_of, codes_of
from prefect import Flow, Parameter, task
from prefect.run_configs import ECSRun as PrefectECSRun
from prefect.run_configs import LocalRun, UniversalRun

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from world import World, eventually

from prefect_ecs_plugin import ECSRun, __version__

ROLE = "arn:aws:iam::123456789012:role/execution"

#: More than a RunTask request takes.
LARGE = {"A": "a" * 5, "B": "b" * 5000, "C": "c" * 6000}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("home")).running() as world:
        yield world


@pytest.fixture(scope="module")
def flows(world: World) -> Dict[str, str]:
    """Real flows, registered: their ids by name."""

    @task
    def twice(number: int) -> int:
        prefect.context.logger.info("twice %s", number)
        return 2 * number

    @task
    def total(numbers: List[int]) -> int:
        prefect.context.logger.info("total %s", sum(numbers))
        return sum(numbers)

    @task
    def fail() -> None:
        raise ValueError("as it should")

    @task(max_retries=1, retry_delay=datetime.timedelta(seconds=0))
    def second_time_lucky() -> None:
        if prefect.context.task_run_count == 1:
            raise ValueError("not yet")

    @task
    def sizes() -> None:
        found = [f"{name}={len(os.environ.get(name, ''))}" for name in "ABC"]
        prefect.context.logger.info("sizes %s", " ".join(found))

    @task
    def die() -> None:
        print("the last line", flush=True)
        os._exit(3)

    with Flow("mapped") as mapped:
        total(twice.map(Parameter("numbers", default=[1, 2, 3])))
    mapped.run_config = ECSRun(cpu=512, memory=1024, env={"WHO": "ours"})
    with Flow("failing") as failing:
        fail()
    failing.run_config = UniversalRun(env={"WHO": "universal"})
    with Flow("retrying") as retrying:
        second_time_lucky()
    retrying.run_config = PrefectECSRun(env={"WHO": "prefect"})
    with Flow("plain") as plain:
        twice(1)
    plain.run_config = None
    with Flow("large") as large:
        sizes()
    large.run_config = ECSRun(env=LARGE)
    with Flow("dying") as dying:
        die()
    dying.run_config = ECSRun()
    every = (mapped, failing, retrying, plain, large, dying)
    return {flow.name: world.register(flow) for flow in every}


@pytest.fixture(scope="module")
def agent(world: World) -> Iterator[Any]:
    with world.agent() as child:
        yield child


def test_flows_run_as_ecs_tasks(
    world: World, flows: Dict[str, str], agent: Any
) -> None:
    names = ("mapped", "failing", "retrying", "plain", "large")
    runs = {name: world.run(flows[name]) for name in names}
    with_parameters = world.run(flows["mapped"], parameters={"numbers": [10, 20]})
    states = world.finished([*runs.values(), with_parameters])
    assert dict(zip([*runs, "with parameters"], states)) == {
        "mapped": "Success",
        "failing": "Failed",
        "retrying": "Success",
        "plain": "Success",
        "large": "Success",
        "with parameters": "Success",
    }
    for run_id in [*runs.values(), with_parameters]:
        (ecs_task,) = world.tasks_of(run_id)
        assert _stopped(world, run_id).exit_code == 0
        (line,) = [m for m in world.log(run_id) if m.startswith("Submitted for")]
        assert ecs_task.task_arn in line
        assert "console.aws.amazon.com/ecs/v2/clusters/default/tasks/" in line
    assert "sizes A=5 B=5000 C=6000" in world.log(runs["large"])
    assert "total 12" in world.log(runs["mapped"])
    assert "total 60" in world.log(with_parameters)


def _stopped(world: World, run_id: str) -> Any:
    """The run's only task, once it has stopped."""
    eventually(lambda: world.tasks_of(run_id)[0].last_status == "STOPPED")
    (ecs_task,) = world.tasks_of(run_id)
    return ecs_task


def test_the_banner_names_the_plugin_and_its_version(agent: Any) -> None:
    banner = f"prefect-ecs-plugin {__version__}"
    assert eventually(lambda: [line for line in agent.lines if banner in line])


def test_the_agent_registers_as_ecs_agent(world: World, agent: Any) -> None:
    assert eventually(world.api.store.agents)
    assert {found.type for found in world.api.store.agents()} == {"ECSAgent"}


def test_guarantee_3_one_ecs_call_per_run(
    world: World, flows: Dict[str, str], agent: Any
) -> None:
    world.finished([world.run(flows["plain"])])
    world.aws.calls.clear()
    world.finished([world.run(flows[name]) for name in ("plain", "mapped", "plain")])
    assert world.ecs_calls() == {"RunTask": 3}


def own_definition(world: World, **change: Any) -> str:
    """Register a definition as a user would, and name it by its revision."""
    import boto3

    ecs = boto3.client(
        "ecs",
        endpoint_url=world.aws.url,
        region_name=world.aws.region,
        aws_access_key_id=world.aws.access_key,
        aws_secret_access_key=world.aws.secret_key,
    )
    definition: Dict[str, Any] = {
        "family": "users-own",
        "networkMode": "awsvpc",
        "cpu": "256",
        "memory": "512",
        "requiresCompatibilities": ["FARGATE"],
        "containerDefinitions": [{"name": "flow", "image": "own:1"}],
    }
    answer = ecs.register_task_definition(**{**definition, **change})
    described = answer["taskDefinition"]
    return f"{described['family']}:{described['revision']}"


def test_task_definition_arn(world: World, flows: Dict[str, str], agent: Any) -> None:
    name = own_definition(world)
    world.aws.calls.clear()
    run_config = ECSRun(task_definition_arn=name)
    runs = [world.run(flows["plain"], run_config=run_config) for _ in range(2)]
    assert world.finished(runs) == ["Success"] * 2
    assert "RegisterTaskDefinition" not in world.ecs_calls()
    for run_id in runs:
        (ecs_task,) = world.tasks_of(run_id)
        assert ecs_task.definition_arn.endswith(f"task-definition/{name}")


def test_overrides_over_8192_characters_go_into_a_definition_that_is_reused(
    world: World, flows: Dict[str, str], agent: Any
) -> None:
    world.finished([world.run(flows["large"])])
    world.aws.calls.clear()
    runs = [world.run(flows["large"]) for _ in range(2)]
    assert world.finished(runs) == ["Success"] * 2
    assert world.ecs_calls() == {"RunTask": 2}
    first, second = (world.tasks_of(run_id)[0].definition_arn for run_id in runs)
    assert first == second


def unusable(world: World) -> Dict[str, Any]:
    """Run configs that cannot be launched, and what the run's log must say."""
    gone = own_definition(world, family="gone")
    override = {"overrides": {"containerOverrides": [{"name": "nope"}]}}
    return {
        "another agent's": (LocalRun().serialize(), "LocalRun.*ECSRun"),
        "damaged": ({"type": "ECSRun", "cpu": {"a": 1}}, "run config"),
        "no type": ({"image": "x"}, "run config"),
        "definition not there": (
            ECSRun(task_definition_arn=gone.replace(":1", ":9")).serialize(),
            r"gone:9.* \[no-task-definition\]$",
        ),
        "template not there": (
            ECSRun(task_definition_path="s3://absent/t.yaml").serialize(),
            r"s3://absent/t\.yaml: NoSuchBucket",
        ),
        "local template not there": (
            ECSRun(task_definition_path="agent:///absent.yaml").serialize(),
            r"/absent\.yaml: No such file",
        ),
        "unknown scheme": (
            PrefectECSRun(task_definition_path="ftp://x/y").serialize(),
            "ftp://x/y",
        ),
        "misspelt key": (
            PrefectECSRun(run_task_kwargs={"networkconfiguration": {}}).serialize(),
            "networkConfiguration",
        ),
        "wrong type": (
            PrefectECSRun(task_definition={"volumes": [{"name": [1]}]}).serialize(),
            r"volumes\[0\]\.name",
        ),
        "size": (PrefectECSRun(cpu=256, memory=8192).serialize(), "(?i)fargate"),
        "cluster": (
            ECSRun(run_task_kwargs={"cluster": "nowhere"}).serialize(),
            r" \[no-cluster\]$",
        ),
        "overrides over 8192 characters": (
            ECSRun(task_definition_arn=own_definition(world), env=LARGE).serialize(),
            r"8192.* C \(6000\), B \(5000\)",
        ),
        "container": (ECSRun(run_task_kwargs=override).serialize(), "'nope'"),
    }


def test_guarantee_6_bad_input_ends_its_own_run_with_one_line(
    world: World, flows: Dict[str, str], agent: Any
) -> None:
    cases = unusable(world)
    runs = {
        name: world.run_stored(flows["plain"], stored)
        for name, (stored, _) in cases.items()
    }
    good = world.run(flows["plain"])
    assert world.finished([good]) == ["Success"]
    assert set(world.finished(list(runs.values()))) == {"Failed"}
    for name, (_, words) in cases.items():
        (line,) = world.log(runs[name], "ERROR")
        assert re.search(words, line), (name, line)
        assert "\n" not in line
        assert world.api.store.flow_run(runs[name]).state_message == line
        assert world.tasks_of(runs[name]) == []
    assert agent.exit_code is None
    assert "Traceback" not in "\n".join(agent.lines)


def test_guarantee_6_failures_are_all_in_the_runs_log(
    world: World, flows: Dict[str, str], agent: Any
) -> None:
    from prefect_ecs_plugin.sandbox.aws import Fault

    failures = [
        {"arn": "i-1", "reason": "ATTRIBUTE", "detail": "gpu"},
        {"arn": "i-2", "reason": "MISSING"},
    ]
    world.aws.fault = lambda operation, _: (
        Fault(failures=failures) if operation == "ecs.RunTask" else None
    )
    run_id = world.run(flows["plain"])
    assert world.finished([run_id]) == ["Failed"]
    world.aws.fault = None
    (line,) = world.log(run_id, "ERROR")
    assert code_of(line) == "no-suitable-instance"
    assert "ATTRIBUTE, detail gpu, arn i-1; MISSING, arn i-2" in line


def test_guarantee_5_a_log_line_that_is_not_written_fails_no_run(
    world: World, flows: Dict[str, str], agent: Any
) -> None:
    from prefect_ecs_plugin.sandbox.prefect_api import Fault

    def fault(operation: str, arguments: Dict[str, Any]) -> Any:
        if "Submitted for execution" in json.dumps(arguments):
            return Fault(body=b"rubbish") if operation == "write_run_logs" else None
        return None

    world.api.fault = fault
    run_id = world.run(flows["plain"])
    assert world.finished([run_id]) == ["Success"]
    world.api.fault = None


# -- Configured by the environment alone, and command-line mistakes ----------------


def test_configured_by_the_environment_alone(
    world: World, flows: Dict[str, str]
) -> None:
    variables = {
        "PREFECT__CLOUD__API_KEY": "service-account-key",
        "PREFECT__CLOUD__TENANT_ID": world.client.tenant_id,
        "PREFECT__CLOUD__AGENT__LABELS": "['label1', 'label2']",
        "PREFECT__CLOUD__AGENT__LEVEL": "DEBUG",
        "PREFECT__CLOUD__AGENT__NAME": "from-env",
        "PREFECT_ECS_FLOW_LOG_GROUP": "/ecs/flows",
        "PREFECT_ECS_EXECUTION_ROLE_ARN": ROLE,
    }
    run_id = world.run(flows["plain"], labels=["label2"])
    dying = world.run(flows["dying"], labels=["label1"])
    with world.quick_agent(**variables) as agent:
        assert world.finished([run_id, dying]) == ["Success", "Failed"]
        assert any("from-env" in line for line in agent.lines)
    assert any("the last line" in line for line in world.log(dying))
    (request,) = [
        params
        for operation, params in world.aws.requests
        if operation == "ecs.RunTask" and params.get("startedBy") == run_id
    ]
    (override,) = request["overrides"]["containerOverrides"]
    env = {entry["name"]: entry["value"] for entry in override["environment"]}
    assert env["PREFECT__CLOUD__AGENT__LABELS"] == "['label1', 'label2']"
    assert env["PREFECT__CLOUD__API_KEY"] == "service-account-key"
    assert env["PREFECT__CLOUD__TENANT_ID"] == world.client.tenant_id


@pytest.mark.parametrize(
    "options, variables, exit_code, words",
    [
        (["--env", "NOPE"], {}, 2, "value 1 of 1 is not of the form NAME=value"),
        (["--launch-type", "LAMBDA"], {}, 2, "(?i)fargate"),
        (["--task-definition", "absent.yaml"], {}, 1, r"absent\.yaml: No such file"),
        ([], {"AWS_DEFAULT_REGION": "", "AWS_REGION": ""}, 1, "AWS_DEFAULT_REGION"),
        ([], {"AWS_ACCESS_KEY_ID": ""}, 1, "AWS credentials"),
    ],
)
def test_guarantee_6_the_agent_does_not_start_and_says_why_in_one_line(
    world: World,
    options: List[str],
    variables: Dict[str, str],
    exit_code: int,
    words: str,
) -> None:
    ended = world.prefect("agent", "ecs", "start", *options, **variables)
    assert ended.returncode == exit_code
    assert re.search(words, ended.stdout)
    assert "Traceback" not in ended.stdout
    assert len(ended.stdout.strip().splitlines()) <= (1 if exit_code == 1 else 4)


def test_a_cluster_that_is_not_there_is_one_warning_at_start(world: World) -> None:
    with world.agent("--cluster", "nowhere") as agent:
        warning = eventually(
            lambda: [line for line in agent.lines if "WARNING" in line]
        )
    assert codes_of(warning) == ["no-cluster"]
    assert "'nowhere'" in warning[0]


def test_help_names_the_plugin(world: World) -> None:
    ended = world.prefect("agent", "ecs", "--help")
    assert f"prefect-ecs-plugin {__version__}" in ended.stdout
    assert all(len(line) <= 80 for line in ended.stdout.splitlines())
