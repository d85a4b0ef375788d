"""The table of permissions has the actions that the agent calls, and no others."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any, Iterator, NamedTuple, Set

import pytest
import yaml
from deadlines import DEADLINE

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from prefect import Flow
from prefect.run_configs import ECSRun
from sandbox_aws import definition
from world import World, eventually

from prefect_ecs_plugin.aws.secret_arn import SecretARN
from prefect_ecs_plugin.cli import permissions
from prefect_ecs_plugin.cli.install import placeholders, plan, policy
from prefect_ecs_plugin.cli.permissions import On
from prefect_ecs_plugin.sandbox.aws import Hold

#: Actions of the policy that the agent never calls, and why.
NEVER_CALLED = {
    "ecs:TagResource": "AWS looks for it in requests that bring tags",
    "iam:PassRole": "AWS looks for it in requests that bring a role",
}
#: Calls of the agent that are not in the policy, and why.
NOT_IN_THE_POLICY = {
    "secretsmanager:GetSecretValue": "for --key-from-secret, which `install` refuses",
    "ssm:GetParameter": "for --key-from-secret, which `install` refuses",
}
ACTIONS = [each.action for each in permissions.AGENT]
#: What only agents with these options call, and so is granted to no others.
OPTIONS = [
    *("--limits", "s3://templates/limits.yaml", "--max-vcpus", "quota"),
    *("--prices", "aws"),
]
WITH_OPTIONS = {
    each.action
    for each in permissions.AGENT
    if each.on in (On.QUOTAS, On.USAGE, On.PRICES)
}

TEMPLATE = {
    "family": "etl",
    "networkMode": "awsvpc",
    "cpu": 256,
    "memory": 512,
    "executionRoleArn": "arn:aws:iam::123456789012:role/ecs",
    "containerDefinitions": [
        {
            "name": "flow",
            "logConfiguration": {
                "logDriver": "awslogs",
                "options": {
                    "awslogs-group": "/ecs/flows",
                    "awslogs-region": "us-east-1",
                    "awslogs-stream-prefix": "flow",
                },
            },
        }
    ],
}
SECRET = "arn:aws:secretsmanager:us-east-1:123456789012:secret"
PARAMETER = "arn:aws:ssm:us-east-1:123456789012:parameter/key"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("home")
    with World(home, runs_tasks=False).running() as world:
        yield world


class Called(NamedTuple):
    """The calls of agents: of one without `OPTIONS`, and of all."""

    without: Set[str]
    all: Set[str]


@pytest.fixture(scope="module")
def called(world: World) -> Called:
    """The calls of agents that launch runs, are killed, find their tasks again, stop
    one and report why another one failed. The tests call nothing meanwhile."""
    s3 = world.aws.client("s3")
    s3.create_bucket(Bucket="templates")
    s3.put_object(Bucket="templates", Key="etl.yaml", Body=yaml.safe_dump(TEMPLATE))
    s3.put_object(Bucket="templates", Key="limits.yaml", Body=b"total: 50")
    named = world.aws.client("ecs").register_task_definition(
        **definition(family="named")
    )["taskDefinition"]["taskDefinitionArn"]
    secret = world.aws.client("secretsmanager").create_secret(
        Name="key", SecretString="a-key"
    )["ARN"]
    world.aws.client("ssm").put_parameter(Name="key", Value="a-key", Type="String")
    rendered = world.register(Flow("rendered"))
    by_arn = world.register(
        Flow("by-arn", run_config=ECSRun(task_definition_arn=named))
    )
    options = ["--task-definition", "s3://templates/etl.yaml", "--cluster", "default"]
    world.aws.calls.clear()

    failing, other = (
        world.api.store.create_flow_run(flow_id=flow_id)
        for flow_id in (rendered, by_arn)
    )
    with world.quick_agent(*options, "--key-from-secret", secret) as agent:
        task = eventually(lambda: _task(world, failing, "RUNNING"))
        eventually(lambda: _task(world, other, "RUNNING"))
        os.kill(agent._process.pid, signal.SIGKILL)
        agent._process.wait(timeout=DEADLINE)
    without = _calls(world)
    with world.quick_agent(*options, *OPTIONS, "--key-from-secret", PARAMETER):
        eventually(lambda: world.aws.calls["ecs.ListTasks"])
        world.aws.finish(task.task_arn, exit_code=1)
        assert world.finished([failing]) == ["Failed"]
        world.aws.before_start = lambda _: Hold()
        cancelled = world.api.store.create_flow_run(flow_id=rendered)
        eventually(lambda: _task(world, cancelled, "PENDING"))
        world.client.cancel_flow_run(cancelled)
        eventually(lambda: _task(world, cancelled, "STOPPED"))
        assert world.aws.calls["ecs.StopTask"]
        eventually(lambda: _calls(world) >= WITH_OPTIONS)
    return Called(without, _calls(world))


def _calls(world: World) -> Set[str]:
    """Calls as IAM spells them; requests to CloudWatch are signed for `monitoring`."""
    calls = {call.replace(".", ":") for call in world.aws.calls}
    return {re.sub("^monitoring:", "cloudwatch:", call) for call in calls}


def _task(world: World, run_id: str, status: str) -> Any:
    found = [t for t in world.tasks_of(run_id) if t.last_status == status]
    return found and found[-1]


def test_every_call_of_the_agent_is_in_the_policy(called: Called) -> None:
    assert called.all - set(ACTIONS) == NOT_IN_THE_POLICY.keys()


def test_every_action_of_the_policy_is_called_by_the_agent(called: Called) -> None:
    assert set(ACTIONS) - called.all == NEVER_CALLED.keys()


def test_an_agent_without_the_options_calls_nothing_that_they_need(
    called: Called,
) -> None:
    assert called.without & WITH_OPTIONS == set()


# -- The table -------------------------------------------------------------------------


HERE = placeholders.Placeholders(
    partition="aws",
    region="eu-west-1",
    account="123456789012",
    cluster="flows",
    image="agent:1",
    cpu="256",
    memory="512",
    agent_role_arn="",
    execution_role_arn="",
    flow_execution_role_arn="",
    log_group="/ecs/prefect-agent",
    flow_log_group="/ecs/prefect-flows",
    flow_subnets="",
    flow_security_groups="",
    flow_public_ip="",
    api_key_arn="",
)


def _policy(**needed: Any) -> Any:
    return policy.agent(plan.Plan(name="agent", version="1", **needed), HERE)


def test_a_plan_that_needs_everything_has_a_statement_for_each_action() -> None:
    document = _policy(
        flow_roles=("arn:aws:iam::123456789012:role/flow",),
        log_groups=("/ecs/flows",),
        objects=("bucket/etl.yaml",),
        follows_quota=True,
        reads_prices=True,
    )
    granted = [
        (statement["Sid"], statement["Action"]) for statement in document["Statement"]
    ]
    assert granted == [(each.statement, [each.action]) for each in permissions.AGENT]
    assert len({sid for sid, _ in granted}) == len(granted)  # IAM wants them so


def test_what_a_plan_does_not_need_is_not_granted() -> None:
    document = json.dumps(_policy(infers_network=False))
    optional = (On.ROLES, On.NETWORK, On.FILES, On.QUOTAS, On.USAGE, On.PRICES)
    for each in permissions.AGENT:
        assert (f'"{each.action}"' in document) is (each.on not in optional), each


def test_an_action_stands_in_the_table_once() -> None:
    assert len(set(ACTIONS)) == len(ACTIONS)
    assert {each.on for each in permissions.AGENT} == set(On)


def test_only_actions_that_the_agent_does_not_call_have_a_reason() -> None:
    assert NEVER_CALLED.keys() <= set(ACTIONS)
    assert not NOT_IN_THE_POLICY.keys() & set(ACTIONS)


# -- The docs --------------------------------------------------------------------------

DOCS = Path(__file__).parents[2] / "docs"
in_checkout = pytest.mark.skipif(not DOCS.exists(), reason="needs the docs")


@in_checkout
def test_migrating_names_each_permission_that_prefects_own_agent_does_not_need() -> (
    None
):
    section = _section("migrating.md", "### (?:Rights|Permissions)")
    as_before = {"ec2:DescribeVpcs", "ec2:DescribeSubnets", "s3:GetObject"}
    assert _actions(section) - {"ecs:DeregisterTaskDefinition"} == {
        action for action in ACTIONS if action not in as_before | WITH_OPTIONS
    }


@in_checkout
def test_the_docs_name_each_right_of_the_execution_role() -> None:
    granted = {
        action
        for arn in (f"{SECRET}:key-AbCdEf", PARAMETER)
        for statement in policy.execution(
            plan.Plan(name="agent", version="1", secret=SecretARN(arn)), HERE
        )["Statement"]
        for action in statement["Action"]
    }
    _, _, named = _section("security.md", "## Least privilege").partition(
        "The execution role"
    )
    assert _actions(named) == granted


def _section(page: str, heading: str) -> str:
    text = (DOCS / page).read_text(encoding="utf-8")
    _, rest = re.split(f"\n{heading}\n", text, maxsplit=1)
    return re.split(r"\n#+ ", rest)[0]


def _actions(text: str) -> Set[str]:
    return set(re.findall(r"`([a-z0-9]+:[A-Z]\w+)`", text))
