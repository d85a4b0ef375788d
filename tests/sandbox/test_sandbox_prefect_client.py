"""Prefect's own client, command line and runner, at work on the sandbox's API."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any, Dict, Iterator, List

import forking
import pendulum
import prefect
import pytest
from click.testing import CliRunner
from deadlines import DEADLINE
from prefect import Flow, Parameter, task
from prefect.backend import FlowRunView, FlowView, TaskRunView, TenantView
from prefect.engine import state as prefect_states
from prefect.exceptions import ClientError
from prefect.run_configs import ECSRun, UniversalRun
from prefect.schedules import IntervalSchedule
from prefect.storage import Local
from prefect.utilities.configuration import set_temporary_config
from sandbox_prefect import Raw, until

from prefect_ecs_plugin.sandbox.prefect_api import PrefectAPI, Refused


@pytest.fixture
def own() -> Iterator[Raw]:
    with PrefectAPI() as api:
        yield Raw(api)


# ------------------------------------------------ Prefect's client in this process


@task(name="double", max_retries=1, retry_delay=datetime.timedelta(0))
def double(x: int) -> int:
    return 2 * x


@pytest.fixture
def client(
    own: Raw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[prefect.Client]:
    """The real client, with nothing of this user's settings in it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    config = {
        "backend": "server",
        "home_dir": str(tmp_path),
        "cloud.api": own.api.url,
        "cloud.api_key": None,
        "cloud.tenant_id": None,
        "server.endpoint": own.api.url,
        "flows.defaults.storage.add_default_labels": False,
    }
    with set_temporary_config(config), prefect.context(config=prefect.config):
        yield prefect.Client()


@pytest.fixture
def flow(tmp_path: Path) -> Flow:
    with Flow("doubling", storage=Local(str(tmp_path))) as flow:
        double.map(Parameter("numbers", default=[1, 2]))
    flow.run_config = ECSRun(cpu=256, labels=["prod"])
    flow.result = prefect.engine.results.LocalResult(dir=str(tmp_path))
    return flow


@pytest.fixture
def registered(client: prefect.Client, flow: Flow) -> str:
    client.create_project("farm")
    return str(client.register(flow, "farm", no_url=False))


def test_client_projects(client: prefect.Client) -> None:
    first = client.create_project("farm", "all of it")
    assert client.create_project("farm") == first
    assert client.delete_project("farm") is True
    with pytest.raises(ValueError, match="not found"):
        client.delete_project("farm")


def test_client_tenants(client: prefect.Client) -> None:
    tenant_id = client.create_tenant("Other", "other")
    with pytest.raises(ClientError, match="Uniqueness violation"):
        client.create_tenant("Other", "other")
    slugs = [tenant.slug for tenant in client.get_available_tenants()]
    assert slugs == ["default", "other"]
    assert TenantView.from_tenant_id(tenant_id).name == "Other"
    assert client.get_default_tenant_slug() == "default"


@pytest.mark.parametrize("compressed", [True, False])
def test_client_register(
    own: Raw, client: prefect.Client, flow: Flow, compressed: bool
) -> None:
    client.create_project("farm")
    flow_id = client.register(flow, "farm", compressed=compressed)
    seen = FlowView.from_flow_id(flow_id)
    assert (seen.name, seen.project_name, seen.archived) == ("doubling", "farm", False)
    assert (seen.run_config.cpu, seen.core_version) == ("256", prefect.__version__)
    assert seen.storage.flows == flow.storage.flows
    by_name = FlowView.from_flow_name("doubling", project_name="farm")
    assert by_name.flow_id == flow_id
    group = own.api.store.row("flow", flow_id)["flow_group_id"]
    assert FlowView.from_id(group).flow_id == flow_id
    tasks = {
        row["slug"]: (row["mapped"], row["max_retries"])
        for row in own.api.store.tables["task"]
    }
    assert tasks == {"numbers": (False, 0), "double-1": (True, 1)}


def test_client_flow_run(own: Raw, client: prefect.Client, registered: str) -> None:
    start = pendulum.now("utc").add(hours=1)
    run_id = client.create_flow_run(
        flow_id=registered,
        parameters={"numbers": [3]},
        context={"season": "autumn"},
        run_config=UniversalRun(labels=["x"]),
        labels=["dev"],
        scheduled_start_time=start,
        run_name="sowing",
    )
    client.set_flow_run_name(run_id, "mowing")
    info = client.get_flow_run_info(run_id)
    assert (info.name, info.version, info.project.name) == ("mowing", 1, "farm")
    assert (info.parameters, info.context) == ({"numbers": [3]}, {"season": "autumn"})
    assert info.scheduled_start_time == start
    assert info.state == prefect_states.Scheduled(start_time=start)
    slugs = sorted(task_run.task_slug for task_run in info.task_runs)
    assert slugs == ["double-1", "numbers"]
    seen = FlowRunView.from_flow_run_id(run_id, load_static_tasks=True)
    assert (seen.labels, type(seen.run_config)) == (["dev"], UniversalRun)
    assert [type(each).__name__ for each in seen.states] == ["Pending", "Scheduled"]
    assert len(seen.get_all_task_runs()) == 2
    assert client.get_flow_run_state(run_id).is_scheduled()
    assert client.cancel_flow_run(run_id) == "Cancelled"


def test_client_task_runs(own: Raw, client: prefect.Client, registered: str) -> None:
    run_id = client.create_flow_run(flow_id=registered)
    parent = FlowRunView.from_flow_run_id(run_id).get_task_run("double-1")
    child = client.get_task_run_info(run_id, parent.task_id, map_index=0)
    assert child == client.get_task_run_info(run_id, parent.task_id, map_index=0)
    assert child.id != parent.task_run_id
    assert (child.version, child.state.is_pending()) == (0, True)
    cached = prefect_states.Cached(
        cached_result_expiration=pendulum.now("utc").add(hours=1)
    )
    client.set_task_run_state(child.id, cached)
    client.set_task_run_name(child.id, "the first")
    assert client.get_task_run_state(child.id).is_cached()
    ago = pendulum.now("utc").subtract(minutes=1)
    assert len(client.get_latest_cached_states(parent.task_id, None, ago)) == 1
    assert client.get_latest_cached_states(parent.task_id, "key", ago) == []
    assert TaskRunView.from_task_run_id(child.id).name == "the first"
    with pytest.raises(ClientError, match="not found"):
        client.get_task_run_state(str(uuid.uuid4()))


def test_client_artifacts(own: Raw, client: prefect.Client, registered: str) -> None:
    run_id = client.create_flow_run(flow_id=registered)
    task_run_id = own.api.store.task_runs(run_id)[0].id
    kept = own.api.store.tables["task_run_artifact"]
    artifact = client.create_task_run_artifact(task_run_id, "link", {"link": "a"})
    client.update_task_run_artifact(artifact, {"link": "b"})
    assert [row["data"] for row in kept] == [{"link": "b"}]
    client.delete_task_run_artifact(artifact)
    assert list(kept) == []
    with pytest.raises(ClientError, match="not found"):
        client.create_task_run_artifact(str(uuid.uuid4()), "link", {})


def test_client_agents(own: Raw, client: prefect.Client) -> None:
    config_id = own.api.store.add_agent_config({"polling": 1})
    agent_id = client.register_agent("ECSAgent", "a", ["prod"], config_id)
    assert client.get_agent_config(config_id) == {"polling": 1}
    (agent,) = own.api.store.agents()
    assert (agent.id, agent.type, agent.labels) == (agent_id, "ECSAgent", ["prod"])
    assert agent.core_version == prefect.__version__


def test_client_with_an_api_key(own: Raw, client: prefect.Client) -> None:
    with set_temporary_config({"backend": "cloud", "cloud.api_key": "k"}):
        assert prefect.Client().tenant_id == own.api.store.tenant_id


def test_client_schedules(own: Raw, client: prefect.Client, flow: Flow) -> None:
    store = own.api.store
    client.create_project("farm")
    flow.schedule = IntervalSchedule(
        start_date=pendulum.now("utc").add(seconds=30),
        interval=datetime.timedelta(hours=1),
    )
    flow_id = client.register(flow, "farm")
    runs = store.flow_runs()
    starts = sorted(run.scheduled_start_time for run in runs)
    assert len(runs) == 10
    assert all(run.auto_scheduled and run.labels == ["prod"] for run in runs)
    assert {b - a for a, b in zip(starts, starts[1:])} == {datetime.timedelta(hours=1)}
    store.set_schedule_active(flow_id)
    assert len(store.flow_runs()) == 10
    store.set_flow_run_state(runs[0].id, {"type": "Running"})
    store.set_schedule_inactive(flow_id)
    assert [run.id for run in store.flow_runs()] == [runs[0].id]
    client.register(flow, "farm", set_schedule_active=False)
    assert len(store.flow_runs()) == 1


# ------------------------------------------------ Prefect's command line


def command(*arguments: str) -> str:
    """The output of a command of `prefect`, run in this process."""
    from prefect.cli import cli

    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_command_line_reads(own: Raw, client: prefect.Client, registered: str) -> None:
    run_id = client.create_flow_run(registered, run_name="sowing", labels=["prod"])
    own.write_logs([{"flow_run_id": run_id, "message": "soil is dry"}])
    own.set_state(run_id, {"type": "Running"})
    own.register_agent("prod")
    assert "doubling" in command("get", "flows")
    assert "doubling" in command("get", "flows", "--all-versions", "--project", "farm")
    assert command("get", "projects").splitlines()[1].split()[:2] == ["farm", "1"]
    assert "sowing" in command("get", "flow-runs", "--flow", "doubling")
    assert "sowing" in command("get", "flow-runs", "--started", "--project", "farm")
    assert "double" in command("get", "tasks", "--flow-name", "doubling")
    assert "soil is dry" in command("get", "logs", "--name", "sowing")
    command("get", "logs", "--id", run_id, "--info")
    described = json.loads(command("describe", "flows", "--name", "doubling"))
    assert described["project"] == {"name": "farm"}
    described = json.loads(command("describe", "flow-runs", "--name", "sowing"))
    assert described["serialized_state"]["type"] == "Running"
    tasks = json.loads(command("describe", "tasks", "--name", "doubling"))
    assert {each["name"]: each["mapped"] for each in tasks} == {
        "double": True,
        "numbers": False,
    }


def test_command_line_writes(own: Raw, client: prefect.Client, registered: str) -> None:
    assert "created" in command("create", "project", "barn")
    run_id = command(
        *("run", "--name", "doubling", "--project", "farm", "--quiet"),
        *("--param", "numbers=[5]", "--label", "barn", "--run-name", "threshing"),
    ).strip()
    run = own.api.store.flow_run(run_id)
    assert (run.name, run.labels, run.parameters) == (
        "threshing",
        ["barn"],
        {"numbers": [5]},
    )
    assert "deleted" in command("delete", "project", "farm")
    with pytest.raises(Refused, match="not found"):
        own.api.store.flow_run(run_id)


# ------------------------------------------------ real runs, in processes of their own

FLOWS = """
import datetime
import time

import prefect
from prefect import Flow, Parameter, task
from prefect.backend import create_link_artifact
from prefect.engine.results import LocalResult
from prefect.tasks.prefect import create_flow_run


@task
def count(upto):
    prefect.context.logger.info("counting up to %s", upto)
    create_link_artifact("https://example.com")
    return list(range(upto))


@task(max_retries=1, retry_delay=datetime.timedelta(0), task_run_name="try {number}")
def stumble(number):
    if number == 1 and prefect.context.task_run_count == 1:
        raise RuntimeError("stumbled")
    return 10 * number


@task
def total(numbers):
    return sum(numbers)


@task
def fail():
    raise RuntimeError("no rain")


@task
def wait():
    time.sleep(3600)


result = LocalResult(dir=".")
with Flow("counting", result=result) as counting:
    total(stumble.map(count(Parameter("upto", default=2))))

with Flow("failing", result=result) as failing:
    total(fail())

with Flow("waiting", result=result) as waiting:
    wait()

with Flow("parent", result=result) as parent:
    create_flow_run(flow_name="counting", project_name="field", labels=["child"])
"""


PREFECT = "from prefect.cli import cli; cli()"


class Field:
    """A directory with flows, registered by `prefect register`."""

    def __init__(self, api: PrefectAPI, home: Path) -> None:
        self.api = api
        self.home = home
        self.file = home / "flows.py"
        self.file.write_text(FLOWS)
        api.store.create_project("field")

    def environment(self, **more: str) -> Dict[str, str]:
        """Nothing of this user's settings, all that an agent sets (see 7 in the
        effective task), and no waiting where Prefect waits by default."""
        return {
            "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.defpath]),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "HOME": str(self.home),
            "PREFECT__BACKEND": "server",
            "PREFECT__HOME_DIR": str(self.home),
            "PREFECT__USER_CONFIG_PATH": str(self.home / "config.toml"),
            "PREFECT__SERVER__ENDPOINT": self.api.url,
            "PREFECT__FLOWS__DEFAULTS__STORAGE__ADD_DEFAULT_LABELS": "false",
            "PREFECT__CLOUD__API": self.api.url,
            "PREFECT__CLOUD__API_KEY": "",
            "PREFECT__CLOUD__TENANT_ID": "",
            "PREFECT__CLOUD__AGENT__LABELS": "[]",
            "PREFECT__CLOUD__USE_LOCAL_SECRETS": "false",
            "PREFECT__CLOUD__SEND_FLOW_RUN_LOGS": "true",
            "PREFECT__CLOUD__HEARTBEAT_INTERVAL": "0.1",
            "PREFECT__CLOUD__CHECK_CANCELLATION_INTERVAL": "0.1",
            "PREFECT__ENGINE__FLOW_RUNNER__DEFAULT_CLASS": (
                "prefect.engine.cloud.CloudFlowRunner"
            ),
            **more,
        }

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "prefect", *arguments],
            cwd=self.home,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def prefect(self, *arguments: str, **environment: str) -> str:
        """Runs a command to its end, which must be a good one.

        It is forked; those of `start` and what a command starts are started.
        """
        if not forking.POSSIBLE:
            process = self.start(*arguments, **environment)
            output, _ = process.communicate(timeout=DEADLINE)
            code = process.returncode
        else:
            done = forking.run(
                [sys.executable, "-c", PREFECT, *arguments],
                self.environment(
                    PREFECT__CLOUD__HEARTBEAT_MODE="thread", **environment
                ),
                DEADLINE,
                self.home,
            )
            code, output = done.returncode, done.stdout
        assert code == 0, output
        return output

    def run(self, flow: str, **more: Any) -> str:
        (row,) = (
            row
            for row in self.api.store.tables["flow"].having("name", [flow])
            if not row["archived"]
        )
        return self.api.store.create_flow_run(row["id"], **more)

    def of_run(self, run_id: str) -> Dict[str, str]:
        run = self.api.store.flow_run(run_id)
        return {
            "PREFECT__CONTEXT__FLOW_RUN_ID": run_id,
            "PREFECT__CONTEXT__FLOW_ID": run.flow_id,
        }

    def execute(self, run_id: str) -> None:
        self.prefect("execute", "flow-run", **self.of_run(run_id))

    def states(self, run_id: str) -> List[str]:
        return [state.state for state in self.api.store.states(run_id)]

    def task_states(self, run_id: str) -> Dict[str, str]:
        return {
            f"{each.task_slug}[{each.map_index}]": each.state
            for each in self.api.store.task_runs(run_id)
        }

    def lines(self, run_id: str) -> List[str]:
        return [log.message for log in self.api.store.logs(run_id)]


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    with PrefectAPI() as api:
        field = Field(api, tmp_path_factory.mktemp("field"))
        field.prefect("register", "--project", "field", "--path", str(field.file))
        yield field


def test_prefect_register_twice_skips(field: Field) -> None:
    arguments = ("register", "--project", "field", "--path", str(field.file))
    output = field.prefect(*arguments)
    assert "0 registered, 4 skipped" in output
    versions = {row["name"]: row["version"] for row in field.api.store.tables["flow"]}
    assert versions == {"counting": 1, "failing": 1, "waiting": 1, "parent": 1}


def test_executed_run_with_parameters_mapped_tasks_and_a_retry(field: Field) -> None:
    run_id = field.run("counting", parameters={"upto": 3})
    field.execute(run_id)
    run = field.api.store.flow_run(run_id)
    assert field.states(run_id) == ["Pending", "Scheduled", "Running", "Success"]
    assert run.heartbeat is not None
    assert field.task_states(run_id) == {
        "upto[-1]": "Success",
        "count-1[-1]": "Success",
        "stumble-1[-1]": "Mapped",
        "stumble-1[0]": "Success",
        "stumble-1[1]": "Success",
        "stumble-1[2]": "Success",
        "total-1[-1]": "Success",
    }
    lines = field.lines(run_id)
    assert lines[0] == "Beginning Flow run for 'counting'"
    assert "counting up to 3" in lines
    assert lines[-1] == "Flow run SUCCESS: all reference tasks succeeded"
    names = {each.name for each in field.api.store.task_runs(run_id)}
    assert {"try 0", "try 1", "try 2"} <= names
    tables = field.api.store.tables
    assert [row["kind"] for row in tables["task_run_artifact"]] == ["link"]
    retries = [
        row["state"]
        for task_run in field.api.store.task_runs(run_id)
        for row in tables["task_run_state"].having("task_run_id", [task_run.id])
    ]
    assert retries.count("Retrying") == 1


def test_executed_run_that_fails(field: Field) -> None:
    run_id = field.run("failing")
    field.execute(run_id)
    run = field.api.store.flow_run(run_id)
    assert (run.state, run.state_message) == (
        "Failed",
        "Some reference tasks failed.",
    )
    assert field.task_states(run_id) == {
        "fail-1[-1]": "Failed",
        "total-1[-1]": "TriggerFailed",
    }
    levels = {log.level for log in field.api.store.logs(run_id)}
    assert levels == {"INFO", "ERROR"}


def test_executed_run_that_is_cancelled(field: Field) -> None:
    run_id = field.run("waiting")
    process = field.start("execute", "flow-run", **field.of_run(run_id))
    until(lambda: field.task_states(run_id) == {"wait-1[-1]": "Running"})
    answer = Raw(field.api).cancel(run_id)
    assert answer == (200, {"data": {"cancel_flow_run": {"state": "Cancelling"}}})
    output, _ = process.communicate(timeout=DEADLINE)
    assert field.states(run_id)[-3:] == ["Running", "Cancelling", "Cancelled"], output


def test_executed_run_that_was_cancelled_before(field: Field) -> None:
    run_id = field.run("counting")
    Raw(field.api).cancel(run_id)
    field.execute(run_id)
    assert field.states(run_id) == ["Pending", "Scheduled", "Cancelled"]


def test_an_agent_runs_a_flow_that_creates_another_ones_run(field: Field) -> None:
    """Prefect's own local agent, given two polls; its runs outlive it."""
    run_id = field.run("parent", labels=["here"])
    output = field.prefect(
        *("agent", "local", "start", "--max-polls", "1", "--no-hostname-label"),
        *("--name", "local", "--label", "here"),
    )
    until(lambda: field.api.store.flow_run(run_id).state == "Success")
    run = field.api.store.flow_run(run_id)
    assert field.states(run_id) == [
        "Pending",
        "Scheduled",
        "Submitted",
        "Running",
        "Success",
    ], output
    agents = {agent.id: agent for agent in field.api.store.agents()}
    assert run.agent_id is not None
    assert agents[run.agent_id].type == "LocalAgent"
    assert agents[run.agent_id].last_queried is not None
    (child,) = (
        each for each in field.api.store.flow_runs() if each.labels == ["child"]
    )
    assert (child.flow_name, child.state) == ("counting", "Scheduled")


def test_heartbeat_command(field: Field) -> None:
    run_id = field.run("counting")
    field.prefect("heartbeat", "flow-run", "--id", run_id, "--num", "2")
    assert field.api.store.flow_run(run_id).heartbeat is not None
