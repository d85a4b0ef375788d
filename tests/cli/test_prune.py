"""`prefect agent ecs prune` takes away what is this plugin's, unused and old."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
from click.testing import CliRunner, Result
from codes import code_of
from deadlines import DEADLINE
from prefect import Flow
from prefect.client import Client
from prefect.run_configs import ECSRun
from prefect.storage import Local
from prefect.utilities.configuration import set_temporary_config

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from prefect_ecs_plugin import template
from prefect_ecs_plugin.aws.ecs import batches
from prefect_ecs_plugin.cli.prune import account as accounts
from prefect_ecs_plugin.cli.prune import command, definitions
from prefect_ecs_plugin.cli.start import ecs
from prefect_ecs_plugin.sandbox import environment
from prefect_ecs_plugin.sandbox.aws import AWS, Fault

DAY = 24 * 3600.0
OURS = [template.OWNER_TAG, template.agent_tag("agent")]

#: Where no Prefect API is.
NO_API = {"cloud.api": "http://127.0.0.1:1", "cloud.graphql": "http://127.0.0.1:1"}


class Time:
    """The time of day at AWS, and seconds that pass when the command sleeps."""

    def __init__(self) -> None:
        self.days_ago = 0.0
        self.seconds = 0.0

    def now(self) -> float:
        return time.time() - self.days_ago * DAY

    def clock(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


class World:
    """An AWS with definitions of several owners and ages."""

    def __init__(self, aws: AWS, times: Time, home: Path) -> None:
        self.aws, self.times, self.home = aws, times, home
        self.ecs = aws.client("ecs")

    @property
    def environment(self) -> Dict[str, str]:
        key = self.aws.access_key, self.aws.secret_key
        nowhere = "http://127.0.0.1:1"
        return environment.sandbox_environment(nowhere, self.aws.url, key, self.home)

    def register(
        self, family: str, days_ago: float = 40, tags: Any = OURS, **more: Any
    ) -> str:
        self.times.days_ago = days_ago
        answer = self.ecs.register_task_definition(
            family=family,
            networkMode="awsvpc",
            cpu="256",
            memory="512",
            requiresCompatibilities=["FARGATE"],
            containerDefinitions=[{"name": "flow", "image": "x:1", **more}],
            **({"tags": tags} if tags else {}),
        )
        self.times.days_ago = 0
        return str(answer["taskDefinition"]["taskDefinitionArn"])

    def run(self, arn: str, cluster: str = "default") -> str:
        subnet = self.aws.client("ec2").describe_subnets()["Subnets"][0]["SubnetId"]
        network = {"awsvpcConfiguration": {"subnets": [subnet]}}
        answer = self.ecs.run_task(
            taskDefinition=arn,
            cluster=cluster,
            launchType="FARGATE",
            networkConfiguration=network,
        )
        return str(answer["tasks"][0]["taskArn"])

    def states(self) -> Dict[str, str]:
        """The status of every definition that is left."""
        found = {}
        for status in ("ACTIVE", "INACTIVE", "DELETE_IN_PROGRESS"):
            arns = self.ecs.list_task_definitions(status=status)["taskDefinitionArns"]
            found.update({definitions.name_of(arn): status for arn in arns})
        return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    environment.furnish(tmp_path)
    times = Time()
    with AWS(runs_tasks=False, now=times.now, clock=times.clock) as aws:
        yield World(aws, times, tmp_path)


Prune = Callable[..., Result]


@pytest.fixture
def prune(world: World, monkeypatch: pytest.MonkeyPatch) -> Prune:
    """Run the command in this process, at a time that passes by itself."""
    plain = accounts.Account

    def account(client: Any) -> accounts.Account:
        return plain(client, world.times.clock, world.times.sleep)

    monkeypatch.setattr(accounts, "Account", account)

    def run(*options: str) -> Result:
        with environment.only(world.environment), set_temporary_config(NO_API):
            return CliRunner().invoke(ecs, ["prune", *options])

    return run


def family(number: int, stem: str = "prefect-x") -> str:
    return f"{stem}-{number:016x}"


def inhabit(world: World) -> None:
    """One definition that may go, and one for each reason to stay."""
    world.register(family(1))
    world.register(family(2), days_ago=20)
    world.register(family(3), tags=None)
    world.register(family(4), tags=[{**template.OWNER_TAG, "value": "me"}])
    world.register("users-own", tags=OURS)
    world.register("users-own-0123456789ABCDEF", tags=OURS)
    world.register("users-own-0123456789abcdef0", tags=OURS)
    world.run(world.register(family(5)))
    world.ecs.create_cluster(clusterName="second")
    world.run(world.register(family(6)), "second")


def all_but(world: World, **changed: str) -> Dict[str, str]:
    """All definitions ACTIVE, but for some."""
    names = dict.fromkeys(world.states(), "ACTIVE")
    return {**names, **{f"{family(1)}:1": changed["first"]}}


def test_without_yes_it_lists_and_changes_nothing(world: World, prune: Prune) -> None:
    inhabit(world)
    before = world.states()
    world.aws.calls.clear()
    result = prune()
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "REGISTERED      STATUS    TASK DEFINITION",
        f"  40 days ago   ACTIVE    {family(1)}:1",
        "Nothing was changed; --yes deregisters 1 task definition.",
    ]
    assert world.states() == before
    reading = re.compile(r"ecs\.(Describe|List)\w+$")
    assert [name for name in world.aws.calls if not reading.match(name)] == []


def test_as_json(world: World, prune: Prune) -> None:
    nothing = {"definitions": [], "changed": False, "not_deleted": []}
    assert json.loads(prune("--json", "--yes").stdout) == nothing
    arn = world.register(family(1))
    listed = json.loads(prune("--json").stdout)
    (found,) = map(dict, listed["definitions"])
    registered_at = datetime.fromisoformat(found.pop("registered_at"))
    assert (datetime.now(timezone.utc) - registered_at).days == 40
    assert found == {"name": f"{family(1)}:1", "arn": arn, "status": "ACTIVE"}
    assert listed["changed"] is False
    done = json.loads(prune("--json", "--yes").stdout)
    assert done == {**listed, "changed": True}


def test_with_yes_exactly_what_was_listed_goes(world: World, prune: Prune) -> None:
    inhabit(world)
    result = prune("--yes")
    assert result.exit_code == 0, result.output
    assert "Deregistered 1 task definition." in result.stdout
    assert world.states() == all_but(world, first="INACTIVE")
    assert "There is nothing to prune." in prune("--yes").stdout


def test_delete_deletes_also_what_was_deregistered_before(
    world: World, prune: Prune
) -> None:
    inhabit(world)
    prune("--yes")
    world.ecs.deregister_task_definition(taskDefinition=f"{family(3)}:1")
    world.register(family(7))
    result = prune("--yes", "--delete")
    assert result.exit_code == 0, result.output
    assert "Deleted 2 task definitions." in result.stdout
    states = world.states()
    assert states[f"{family(3)}:1"] == "INACTIVE"  # it has no tag
    assert {name for name, state in states.items() if state[0] == "D"} == {
        f"{family(1)}:1",
        f"{family(7)}:1",
    }


def test_older_than(world: World, prune: Prune) -> None:
    world.register(family(1), days_ago=2)
    assert "nothing to prune" in prune("--older-than", "3").stdout
    assert f"{family(1)}:1" in prune("--older-than", "1").stdout
    for value in ("-1", "nan", "inf", "1e9", "x"):
        result = prune("--older-than", value)
        assert (result.exit_code, result.output.count("Error: ")) == (2, 1)


@pytest.mark.parametrize(
    "days, shown", [(0.5, "today"), (1.5, "1 day ago"), (400, "400 days ago")]
)
def test_how_long_ago_it_was(
    world: World, prune: Prune, days: float, shown: str
) -> None:
    name = family(1, "prefect-prefecthq-prefect-1-4-1")
    world.register(name, days_ago=days)
    _, line, _ = prune("--older-than", "0").stdout.splitlines()
    assert line == f"{shown:>13}   ACTIVE    {name}:1"
    assert len(line) <= 80


def test_each_agent_prunes_its_own(world: World, prune: Prune) -> None:
    theirs = [template.OWNER_TAG, template.agent_tag("other agent")]
    world.register(family(1))
    world.register(family(2), tags=theirs)
    world.register(family(3), tags=[template.OWNER_TAG])  # of an earlier version

    def shown(*options: str) -> List[str]:
        printed = prune(*options).stdout
        return [each for each in map(family, (1, 2, 3)) if each in printed]

    assert shown() == [family(1)]
    assert shown("--name", "other agent") == [family(2)]
    assert shown("--all-agents") == [family(1), family(2), family(3)]


def test_what_a_registered_flow_names_is_kept(
    world: World, prune: Prune, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect_ecs_plugin.sandbox.prefect_api import PrefectAPI

    arn = world.register(family(1))
    for number in (2, 3, 4):
        world.register(family(number))
    with PrefectAPI() as api:
        monkeypatch.setitem(NO_API, "cloud.api", api.url)
        monkeypatch.setitem(NO_API, "cloud.graphql", api.url)
        with set_temporary_config({**NO_API, "backend": "server"}):
            client = Client(api_server=api.url)
            client.create_project("tests")
            for number, named in enumerate((arn, f"{family(2)}:1", family(3))):
                flow = Flow(f"pinned-{number}", run_config=ECSRun())
                flow.run_config.task_definition_arn = named
                flow.storage = Local(add_default_labels=False)
                flow.register(project_name="tests", build=False)
        printed = prune().stdout
    found = [number for number in (1, 2, 3, 4) if family(number) in printed]
    assert found == [4]


def test_without_the_api_it_says_what_is_not_known(world: World, prune: Prune) -> None:
    world.register(family(1))
    result = prune()
    assert family(1) in result.stdout
    assert "[flows-not-listed]" in result.output


def test_what_agents_register_is_what_is_pruned(world: World, prune: Prune) -> None:
    """The name and the tag are those of the template module, not of this test."""
    request = template.with_content_hash_family(
        {
            "networkMode": "awsvpc",
            "cpu": "256",
            "memory": "512",
            "containerDefinitions": [{"name": "flow", "image": "corp.example/etl:1"}],
        },
        "agent",
    )
    world.times.days_ago = 31
    world.ecs.register_task_definition(**request)
    world.times.days_ago = 0
    assert request["family"] in prune().stdout


@pytest.mark.parametrize(
    "operation",
    ["ListClusters", "ListTasks", "DescribeTasks", "DescribeTaskDefinition"],
)
def test_nothing_is_touched_where_not_all_can_be_seen(
    world: World, prune: Prune, operation: str
) -> None:
    inhabit(world)
    before = world.states()
    denied = Fault(error_code="AccessDeniedException", message="not allowed")
    world.aws.fault = lambda name, _: denied if name == f"ecs.{operation}" else None
    result = prune("--yes")
    assert result.exit_code == 1
    (line,) = [x for x in result.output.splitlines() if x.startswith("Error")]
    assert f"{operation} " in line
    assert "AccessDenied" in line
    world.aws.fault = None
    assert world.states() == before


def test_nothing_is_touched_while_a_task_is_too_new_to_be_seen(
    world: World, prune: Prune
) -> None:
    inhabit(world)
    before = world.states()
    missing = b'{"tasks": [], "failures": [{"arn": "new", "reason": "MISSING"}]}'
    world.aws.fault = lambda name, _: (
        Fault(body=missing) if name == "ecs.DescribeTasks" else None
    )
    result = prune("--yes")
    assert result.exit_code == 1
    assert code_of(result.output.splitlines()[-1]) == "task-not-described"
    assert "task new " in result.output
    assert world.states() == before


def test_hundreds_go_without_one_throttle(tmp_path: Path) -> None:
    times = Time()
    with AWS(runs_tasks=False, limits=True, now=times.now, clock=times.clock) as aws:
        world = World(aws, times, tmp_path)
        for number in range(120):
            times.sleep(1)
            world.register(family(number))
        times.sleep(600)
        account = accounts.Account(world.ecs, times.clock, times.sleep)
        began = times.seconds
        found = command.find(account, timedelta(days=30))
        assert len(found) == 120
        command.remove(account, found, delete=True)
        assert set(world.states().values()) == {"DELETE_IN_PROGRESS"}
        assert sum(aws.throttled.values()) == 0
        took = times.seconds - began
    # Half of what AWS allows is left to the agents.
    assert took >= 2 * 119


def test_a_throttle_is_waited_for(world: World, prune: Prune) -> None:
    inhabit(world)
    throttle = Fault(error_code="ThrottlingException", message="Rate exceeded")
    left = [throttle] * 7
    world.aws.fault = lambda name, _: (
        left.pop() if left and name == "ecs.DeregisterTaskDefinition" else None
    )
    result = prune("--yes")
    assert result.exit_code == 0, result.output
    assert not left
    assert world.states() == all_but(world, first="INACTIVE")


def test_what_ecs_keeps_is_named_and_exits_1(world: World, prune: Prune) -> None:
    world.register(family(1))
    kept = b'{"taskDefinitions": [], "failures": [{"arn": "a", "reason": "in use"}]}'
    world.aws.fault = lambda name, _: (
        Fault(body=kept) if name == "ecs.DeleteTaskDefinitions" else None
    )
    result = prune("--yes", "--delete")
    assert result.exit_code == 1
    assert "a: in use [definition-not-deleted]" in result.output
    assert "Deleted 0 task definitions." in result.output


def test_without_credentials_it_is_one_line(world: World) -> None:
    no_keys = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    with environment.only({**world.environment, **no_keys}):
        result = CliRunner().invoke(ecs, ["prune"])
    assert result.exit_code == 1
    assert len(result.output.strip().splitlines()) == 1
    assert "AWS_ACCESS_KEY_ID" in result.output


def test_a_terminal_sees_a_bar(world: World) -> None:
    for number in range(2):
        world.register(family(number))
    ours, its = pty.openpty()
    prefect = environment.prefect_command(world.home)
    process = subprocess.Popen(
        [*prefect, "agent", "ecs", "prune", "--yes"],
        env={**world.environment, "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=its,
        stderr=its,
    )
    os.close(its)
    shown = b"".join(iter(lambda: _part(ours), b"")).decode()
    os.close(ours)
    assert process.wait(timeout=DEADLINE) == 0, shown
    assert re.search(r"Deregistering  \[#+\]  100%", shown)
    assert "Deregistered 2 task definitions." in shown


def _part(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux's end of file
        return b""


# -- The rule, by itself -------------------------------------------------------------

NOW = datetime(2030, 1, 31, tzinfo=timezone.utc)
ARN = "arn:aws:ecs:us-east-1:123456789012:task-definition/x-0123456789abcdef:3"


@pytest.mark.parametrize(
    "change, expected",
    [
        ({}, True),
        ({"arn": ARN.replace("abcdef", "ABCDEF")}, False),
        ({"arn": ARN.replace("x-0", "x0")}, False),
        ({"arn": ARN.replace("x-", "-")}, False),
        ({"arn": ARN.replace(":3", "0:3")}, False),
        ({"has_our_tag": False}, False),
        ({"registered_at": None}, False),
        ({"registered_at": NOW - timedelta(days=29, hours=23)}, False),
        ({"is_active": False}, True),
    ],
)
def test_what_may_go(change: Dict[str, Any], expected: bool) -> None:
    members: Dict[str, Any] = {
        "arn": ARN,
        "registered_at": NOW - timedelta(days=30),
        "is_active": True,
        "has_our_tag": True,
        **change,
    }
    definition = definitions.Definition(**members)
    age = timedelta(days=30)
    assert definitions.is_prunable(definition, set(), NOW, age) is expected
    assert definitions.is_prunable(definition, {definition.arn}, NOW, age) is False


@pytest.mark.parametrize(
    "count, sizes", [(0, []), (1, [1]), (10, [10]), (11, [10, 1]), (20, [10, 10])]
)
def test_batches(count: int, sizes: List[int]) -> None:
    items = [str(number) for number in range(count)]
    made = list(batches(items, 10))
    assert [len(each) for each in made] == sizes
    assert [item for each in made for item in each] == items
