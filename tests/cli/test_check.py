"""`prefect agent ecs check` reports what would fail, and changes nothing."""

from __future__ import annotations

import json
import os
import pty
import re
import socket
import string
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

import click
import pytest
from click.testing import CliRunner
from codes import code_of
from deadlines import DEADLINE
from hypothesis import given
from hypothesis import strategies as st
from prefect.utilities.configuration import set_temporary_config

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from sandbox_aws import ec2_cluster
from world import World

from prefect_ecs_plugin.aws.secret_arn import SecretARN
from prefect_ecs_plugin.cli.aws_client import AWS, skew_of
from prefect_ecs_plugin.cli.check import (
    flows,
    identity,
    network,
    output,
    runner,
    secrets,
)
from prefect_ecs_plugin.cli.check.context import CheckContext
from prefect_ecs_plugin.cli.check.findings import (
    Finding,
    Status,
    depends,
    failed,
    folded,
    ok,
    skipped,
)
from prefect_ecs_plugin.cli.check.flow_files import flow_files_of
from prefect_ecs_plugin.cli.check.images import ECRImage, is_public
from prefect_ecs_plugin.cli.start import ecs, start
from prefect_ecs_plugin.errors import without_code
from prefect_ecs_plugin.sandbox import environment
from prefect_ecs_plugin.sandbox.aws import Fault
from prefect_ecs_plugin.sandbox.prefect_api import Fault as APIFault
from prefect_ecs_plugin.settings import PrefectSettings

ACCOUNT = "123456789012"
TASKS_MAY = {
    "Version": "2012-10-17",
    "Statement": {
        "Effect": "Allow",
        "Principal": {"Service": "ecs-tasks.amazonaws.com"},
        "Action": "sts:AssumeRole",
    },
}

# -- A new account, and changes that users make -----------------


class Account:
    """Changes the sandbox's AWS as users change theirs."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.aws = world.aws
        self.ec2 = world.aws.client("ec2")
        self.iam = world.aws.client("iam")

    def default_vpc(self) -> str:
        filters = [{"Name": "isDefault", "Values": ["true"]}]
        return str(self.ec2.describe_vpcs(Filters=filters)["Vpcs"][0]["VpcId"])

    def subnet(self) -> str:
        """One of the default VPC."""
        filters = [{"Name": "vpc-id", "Values": [self.default_vpc()]}]
        found = self.ec2.describe_subnets(Filters=filters)["Subnets"]
        return sorted(str(subnet["SubnetId"]) for subnet in found)[0]

    def other_vpc(self) -> Dict[str, str]:
        """A VPC with a subnet, a security group and an internet gateway."""
        vpc = self.ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
        self._open(vpc)
        subnet = self.ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.1.0/24")["Subnet"]
        group = self.ec2.create_security_group(
            GroupName="other", Description="other", VpcId=vpc
        )
        return {"vpc": vpc, "subnet": subnet["SubnetId"], "group": group["GroupId"]}

    def _open(self, vpc: str) -> None:
        gateway = self.ec2.create_internet_gateway()["InternetGateway"]
        name = gateway["InternetGatewayId"]
        self.ec2.attach_internet_gateway(InternetGatewayId=name, VpcId=vpc)
        filters = [{"Name": "vpc-id", "Values": [vpc]}]
        (table,) = self.ec2.describe_route_tables(Filters=filters)["RouteTables"]
        self.ec2.create_route(
            RouteTableId=table["RouteTableId"],
            DestinationCidrBlock="0.0.0.0/0",
            GatewayId=name,
        )

    def role(self, name: str, policy: Any = TASKS_MAY, path: str = "/") -> str:
        document = json.dumps(policy)
        created = self.iam.create_role(
            RoleName=name, AssumeRolePolicyDocument=document, Path=path
        )
        return str(created["Role"]["Arn"])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("home")
    with World(home, runs_tasks=False).running() as world:
        yield world


@pytest.fixture(scope="module")
def account(world: World) -> Account:
    return Account(world)


@pytest.fixture(scope="module")
def other(account: Account) -> Dict[str, str]:
    return account.other_vpc()


@pytest.fixture(autouse=True)
def no_faults(world: World) -> Iterator[None]:
    world.aws.calls.clear()
    yield
    world.aws.fault = None
    world.api.fault = None


def deny(*operations: str) -> Callable[[str, Dict[str, Any]], Any]:
    """An AWS that does not allow these operations."""
    denied = Fault(error_code="AccessDeniedException", message="not allowed")
    return lambda operation, _: denied if operation in operations else None


class Ended(NamedTuple):
    """A run of the command that is over, in this process or in a child."""

    exit_code: int
    stdout: str
    output: str


Check = Callable[..., Ended]


@pytest.fixture
def check(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Run the command in this process, in the environment of a child."""
    monkeypatch.chdir(tmp_path)
    # What the environment says of this, Prefect has read when it was imported.
    no_labels = {"flows.defaults.storage.add_default_labels": False}

    def run(*options: str, **variables: str) -> Ended:
        everything = {**world.environment, **variables}
        with environment.only(everything), set_temporary_config(no_labels):
            result = CliRunner().invoke(ecs, ["check", *options])
        return Ended(result.exit_code, result.stdout, result.output)

    return run


@pytest.fixture
def command_line(world: World, tmp_path: Path) -> Check:
    """Run the command in a child process."""
    command = [*environment.prefect_command(world.home), "agent", "ecs", "check"]

    def run(*options: str, **variables: str) -> Ended:
        done = world.run_to_its_end([*command, *options], tmp_path, **variables)
        return Ended(done.returncode, done.stdout, done.stdout + done.stderr)

    return run


def lines(result: Ended, status: str) -> List[str]:
    """The lines of checks that ended so, without it."""
    prefix = f"{status}: "
    found = result.stdout.splitlines()
    return [line[len(prefix) :] for line in found if line.startswith(prefix)]


def failures(result: Ended) -> Dict[str, str]:
    """The failed checks and what they say."""
    return dict(_parted(line) for line in lines(result, "failed"))


def _parted(line: str) -> Tuple[str, str]:
    """The title, which may contain an action such as ecs:RunTask, and the text."""
    name, _, text = line.partition(": ")
    return name, text


def write(path: Path, content: Any) -> str:
    path.write_text(json.dumps(content))  # JSON is YAML
    return str(path)


# -- A healthy set-up --------------------------------------------------------------


def test_a_healthy_setup_exits_0(world: World, check: Check) -> None:
    result = check()
    assert result.exit_code == 0, result.output
    assert lines(result, "failed") == []
    assert lines(result, "warning") == []
    assert [code_of(line) for line in lines(result, "skipped")] == [
        "image-not-in-ecr",
        "policies-not-simulated",
        "permission-unknown",
    ]
    assert "2 skipped" not in result.stdout.splitlines()[-1]
    assert re.search(r"^\d skipped, \d+ ok\.$", result.stdout.splitlines()[-1])


def test_it_says_what_came_from_where(check: Check, tmp_path: Path) -> None:
    path = write(tmp_path / "agent.yaml", {"start": {"max-runtime": 60}})
    variables = {"PREFECT_ECS_LABEL": "a b", "PREFECT_ECS_LABLE": "c"}
    result = check("--cluster", "default", "--config", path, **variables)
    told = [line for line in lines(result, "ok") if line.startswith("options: ")]
    assert told == [
        "options: from the command line: --cluster default",
        "options: from the environment: PREFECT_ECS_LABEL a b",
        f"options: from {path}: max-runtime 60",
    ]
    (told,) = lines(result, "warning")
    assert code_of(told) == "unknown-variable"
    assert "PREFECT_ECS_LABLE" in told
    assert "PREFECT_ECS_LABEL" in told


def test_a_healthy_cluster_of_ec2_exits_0(
    account: Account, check: Check, tmp_path: Path
) -> None:
    ec2_cluster(account.aws, "on-ec2")
    result = check("--launch-type", "EC2", "--cluster", "on-ec2")
    assert result.exit_code == 0, result.output
    assert lines(result, "failed") == []
    assert "capacity: EC2: 1 container instance" in lines(result, "ok")


def test_nothing_is_started_registered_or_changed(
    world: World, check: Check, tmp_path: Path
) -> None:
    before = {name: len(rows) for name, rows in stored(world).items()}
    result = check("--flow", write_flow(tmp_path))
    assert result.exit_code == 0, result.output
    reading = re.compile(r"\w+\.(Describe|List|Get|Simulate)\w+$")
    assert [name for name in world.aws.calls if not reading.match(name)] == []
    assert {name: len(rows) for name, rows in stored(world).items()} == before


def stored(world: World) -> Dict[str, Any]:
    store = world.api.store
    return {"runs": store.flow_runs(), "agents": store.agents()}


def test_it_takes_the_options_of_start() -> None:
    command = ecs.commands.get("check") or ecs.get_command(None, "check")  # type: ignore[arg-type]
    assert command is not None
    with click.Context(command) as context:
        own = [param.name for param in command.get_params(context)]
    shared = [param.name for param in start.params]
    assert own[3:-4] == shared  # but --config and those that print and exit
    assert own[:3] == ["flow_files", "verbose", "as_json"]


# -- Broken set-ups, each named ----------------------------------------------------


@dataclass(frozen=True)
class Broken:
    """A mistake of a user, and the checks that fail because of it.

    Attributes:
        failures: The failed checks, each with its code (None for an error that another
            module raises) and a pattern of the values that it has to name.
        options: Of the command.
        variables: Of the environment.
        files: To be written first; what depends on the account is made of it.
        spoil: Does something to the account.
    """

    failures: Dict[str, Tuple[Optional[str], str]]
    options: List[str] = field(default_factory=list)
    variables: Dict[str, str] = field(default_factory=dict)
    files: Dict[str, Any] = field(default_factory=dict)
    spoil: Callable[[Account], object] = lambda account: None


def in_region(name: str) -> Dict[str, str]:
    return {"AWS_DEFAULT_REGION": name, "AWS_REGION": name}


def fargate(**container: Any) -> Dict[str, Any]:
    return {
        "networkMode": "awsvpc",
        "cpu": 256,
        "memory": 512,
        "containerDefinitions": [{"name": "flow", **container}],
    }


def without_default_vpc(account: Account) -> None:
    region = {"region_name": "us-west-2"}
    ec2, ecs = (account.aws.client(name, **region) for name in ("ec2", "ecs"))
    ecs.create_cluster(clusterName="default")
    for subnet in ec2.describe_subnets()["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    for vpc in ec2.describe_vpcs()["Vpcs"]:
        ec2.delete_vpc(VpcId=vpc["VpcId"])


def refuse_the_key(account: Account) -> None:
    account.world.api.fault = lambda operation, arguments: APIFault(status=401)


def let_credentials_expire(account: Account) -> None:
    over = Fault(error_code="ExpiredToken", message="over")
    account.aws.fault = lambda operation, _: over


def of_two_vpcs(account: Account) -> Dict[str, Any]:
    subnets = [account.subnet(), account.other_vpc()["subnet"]]
    awsvpc = {"subnets": subnets, "assignPublicIp": "ENABLED"}
    return {"networkConfiguration": {"awsvpcConfiguration": awsvpc}}


def closed_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


TEMPLATE = ["--task-definition", "t.yaml"]
KWARGS = ["--run-task-kwargs", "k.yaml"]
NIL = "00000000-0000-0000-0000-000000000000"
ECR = f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com"

BROKEN = {
    "no cluster": Broken(
        {"cluster (nowhere)": ("no-cluster", "'nowhere'.*us-east-1")},
        ["--cluster", "nowhere"],
    ),
    "wrong region": Broken(
        {"cluster (default)": ("no-cluster", "'default'.*eu-west-1.*none")},
        variables=in_region("eu-west-1"),
    ),
    "region of no such name": Broken(
        {
            "cluster (default)": ("invalid-credentials", "us-nowhere-1"),
            "default network": (None, "us-nowhere-1"),
        },
        variables=in_region("us-nowhere-1"),
    ),
    "cluster of another region": Broken(
        {
            "cluster (arn:aws:ecs:eu-west-1:1:cluster/x)": (
                "cluster-in-another-region",
                "eu-west-1",
            )
        },
        ["--cluster", "arn:aws:ecs:eu-west-1:1:cluster/x"],
    ),
    "invalid pair": Broken(
        {"requests": (None, "memory.*8192|8192.*MiB")},
        TEMPLATE,
        files={"t.yaml": {"networkMode": "awsvpc", "cpu": 256, "memory": 8192}},
    ),
    "missing role": Broken(
        {"execution role": ("role-not-found", "arn:.*:role/absent")},
        ["--execution-role-arn", f"arn:aws:iam::{ACCOUNT}:role/absent"],
    ),
    "no role for ECR": Broken(
        {"requests": (None, "executionRoleArn")},
        TEMPLATE,
        files={"t.yaml": fargate(image=f"{ECR}/flows:1")},
    ),
    "misspelt key": Broken(
        {"run-task kwargs": (None, "networkconfiguration.*networkConfiguration")},
        KWARGS,
        files={"k.yaml": {"networkconfiguration": {}}},
    ),
    "misspelt key in the template": Broken(
        {"template": (None, "networkmode.*networkMode")},
        TEMPLATE,
        files={"t.yaml": {"networkmode": "awsvpc"}},
    ),
    "no default VPC": Broken(
        {"default network": (None, "us-west-2")},
        variables=in_region("us-west-2"),
        spoil=without_default_vpc,
    ),
    "key wrong": Broken(
        {"API key": ("api-key-rejected", "HTTP 401")},
        ["--key", "not-the-right-one"],
        spoil=refuse_the_key,
    ),
    "API down": Broken(
        {"Prefect API": ("prefect-api-unavailable", "Connection refused.*--api")},
        ["--api", f"http://127.0.0.1:{closed_port()}"],
    ),
    "API with a typo in its scheme": Broken(
        {"Prefect API": ("prefect-api-unavailable", r"htp://x .*https://")},
        variables={"PREFECT__CLOUD__API": "htp://x"},
    ),
    "AWS that does not answer": Broken(
        {"AWS identity": ("aws-unreachable", "Could not connect.*connection")},
        variables={"AWS_ENDPOINT_URL": f"http://127.0.0.1:{closed_port()}"},
    ),
    "no permission to ask EC2": Broken(
        {"default network": (None, "networkConfiguration")},
        spoil=lambda account: setattr(account.aws, "fault", deny("ec2.DescribeVpcs")),
    ),
    "profile of no such name": Broken(
        {"AWS settings": (None, r"\(nope\).*AWS_PROFILE")},
        variables={"AWS_PROFILE": "nope"},
    ),
    "S3 key missing": Broken(
        {"template": (None, r"s3://templates/absent\.yaml: NoSuchKey")},
        ["--task-definition", "s3://templates/absent.yaml"],
        spoil=lambda account: account.aws.client("s3").create_bucket(
            Bucket="templates"
        ),
    ),
    "limits that contradict each other": Broken(
        {"limits": ("conflicting-limits", r"limits\.yaml: .*total.* 50 .* 40")},
        ["--limit", "50", "--limits", "limits.yaml"],
        files={"limits.yaml": {"total": 40}},
    ),
    "subnets of two VPCs": Broken(
        {"subnets": ("several-vpcs", r"vpc-\w+, vpc-\w+.*networkConfiguration")},
        KWARGS,
        files={"k.yaml": of_two_vpcs},
    ),
    "no credentials": Broken(
        {"AWS settings": (None, "AWS_ACCESS_KEY_ID")},
        variables={"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
    ),
    "no region": Broken(
        {"AWS settings": (None, "AWS_DEFAULT_REGION")}, variables=in_region("")
    ),
    "credentials that are over": Broken(
        {"AWS identity": ("invalid-credentials", "ExpiredToken: over.*sso login")},
        spoil=let_credentials_expire,
    ),
    "tenant of no such name": Broken(
        {"tenant": ("unknown-tenant", "00000000-")}, ["--tenant-id", NIL]
    ),
    "tenant that is none": Broken(
        {"Prefect API": ("bad-tenant-id", "--tenant-id")}, ["--tenant-id", "no-uuid"]
    ),
    "agent config": Broken(
        {"agent config": ("no-agent-config", "00000000-")}, ["--agent-config-id", NIL]
    ),
}


#: Cases that run in a child process.
NAMED = [
    *("no cluster", "wrong region", "invalid pair", "missing role", "misspelt key"),
    *("no default VPC", "key wrong", "API down", "S3 key missing"),
    *("subnets of two VPCs", "API with a typo in its scheme"),
]


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_setup_is_named_and_exits_1(
    case: str, account: Account, check: Check, command_line: Check, tmp_path: Path
) -> None:
    broken = BROKEN[case]
    for name, content in broken.files.items():
        write(tmp_path / name, content(account) if callable(content) else content)
    broken.spoil(account)
    run = command_line if case in NAMED else check
    result = run(*broken.options, **broken.variables)
    assert result.exit_code == 1
    found = failures(result)
    assert found.keys() == broken.failures.keys()
    for name, (code, values) in broken.failures.items():
        assert re.search(values, found[name]), found[name]
        assert code is None or code_of(found[name]) == code
        text = without_code(found[name])
        assert text.endswith(".")
        assert ".." not in text
    assert "Traceback" not in result.output
    assert "not-the-right-one" not in result.output


# Tornado leaves a socket that it could not bind to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_agent_address_that_is_in_use(check: Check) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        result = check("--agent-address", address)
    assert result.exit_code == 1
    assert failures(result).keys() == {"agent address"}
    assert address in failures(result)["agent address"]
    assert code_of(failures(result)["agent address"]) == "cannot-listen"
    assert check("--agent-address", address).exit_code == 0


def test_what_depends_on_a_failed_check_is_skipped_and_the_rest_is_made(
    check: Check,
) -> None:
    result = check("--verbose", "--api", f"http://127.0.0.1:{closed_port()}")
    skipped = dict(map(_parted, lines(result, "skipped")))
    for name in ("API key", "tenant"):
        assert code_of(skipped[name]) == "depends-on-failed-check"
        assert "Prefect API" in skipped[name]
    assert any(line.startswith("requests: both") for line in lines(result, "ok"))


def test_one_mistake_is_one_line_and_what_depends_on_it_another(
    check: Check, tmp_path: Path
) -> None:
    path = write(tmp_path / "t.yaml", {"networkmode": "awsvpc"})
    document = json.loads(check("--task-definition", path, "--json").stdout)
    blocked = [
        each["check"]
        for each in document["checks"]
        if each["code"] == "depends-on-failed-check"
    ]
    assert {"default network", "requests", "permissions"} < set(blocked)
    result = check("--task-definition", path)
    at = [line.partition(":")[0] for line in result.stdout.splitlines()].index("failed")
    # The file of run-task kwargs is read all the same.
    folded = result.stdout.splitlines()[at + 2]
    assert folded.startswith(f"skipped: {len(blocked)} checks: ")
    assert "template" in folded
    assert "--verbose" in folded
    assert [code_of(line) for line in lines(result, "skipped")] == [
        "depends-on-failed-check"
    ]
    *_, summary, _ = result.stdout.splitlines()
    told = f"1 failed: template; {len(blocked)} not checked because of it; "
    assert summary.startswith(told)
    assert "skipped" not in summary


def test_a_value_that_cannot_be_is_clicks_own_error(check: Check) -> None:
    result = check("--env", "NOPE")
    assert result.exit_code == 2
    assert code_of(result.output.rstrip()) == "invalid-option-value"
    assert "'--env'" in result.output


@pytest.mark.parametrize(
    "answer, options, failures_of",
    [
        ({"data": {"auth_info": {"tenant_id": NIL}}}, ["--key", "k"], {}),
        (
            {"data": {"auth_info": {"tenant_id": NIL}}},
            [],
            {"API key": ("no-api-key", "--key")},
        ),
        (
            {"data": {"auth_info": {"tenant_id": None}}},
            ["--key", "k"],
            {"API key": ("token-instead-of-key", "--key")},
        ),
        (
            {"data": {"auth_info": {"tenant_id": NIL}}},
            ["--key", "k", "--tenant-id", NIL.replace("0", "1")],
            {"tenant": ("wrong-tenant", f"{NIL}, not 1111")},
        ),
        (
            {"errors": [{"message": "no", "extensions": {"code": "UNAUTHENTICATED"}}]},
            ["--key", "k"],
            {"API key": ("api-key-rejected", ": no.")},
        ),
        (
            {"errors": [{"message": "Sorry"}]},
            ["--key", "k"],
            {"Prefect API": ("prefect-api-unavailable", ": Sorry")},
        ),
    ],
)
def test_prefect_cloud(
    world: World, check: Check, answer: Any, options: List[str], failures_of: Any
) -> None:
    body = json.dumps(answer).encode()
    world.api.fault = lambda operation, arguments: APIFault(body=body)
    with set_temporary_config({"backend": "cloud"}):
        result = check(*options)
    found = failures(result)
    assert found.keys() == failures_of.keys()
    for name, (code, value) in failures_of.items():
        assert code_of(found[name]) == code
        assert value in found[name]


def test_an_answer_of_something_else_is_no_api(world: World, check: Check) -> None:
    world.api.fault = lambda operation, arguments: APIFault(body=b"<html>")
    result = check()
    assert code_of(failures(result)["Prefect API"]) == "prefect-api-unavailable"


# -- Clusters and capacity ---------------------------------------------------------


@pytest.mark.parametrize(
    "kwargs, status, code, value",
    [
        ({"launchType": "EC2"}, "failed", "no-container-instances", "EC2:"),
        (
            {"capacityProviderStrategy": [{"capacityProvider": "gpu"}]},
            "failed",
            "no-capacity-provider",
            "gpu; it has FARGATE, FARGATE_SPOT",
        ),
        (
            {"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT"}]},
            "ok",
            "",
            "FARGATE_SPOT",
        ),
        ({"launchType": None}, "failed", "no-container-instances", "EC2,"),
    ],
)
def test_capacity(
    check: Check,
    tmp_path: Path,
    kwargs: Dict[str, Any],
    status: str,
    code: str,
    value: str,
) -> None:
    result = check("--run-task-kwargs", write(tmp_path / "k.yaml", kwargs))
    (line,) = [each for each in lines(result, status) if each.startswith("capacity")]
    assert code_of(line) == code
    assert value in line


def test_a_cluster_that_may_not_be_seen_is_skipped(world: World, check: Check) -> None:
    world.aws.fault = deny("ecs.DescribeClusters", "iam.SimulatePrincipalPolicy")
    result = check()
    assert result.exit_code == 0, result.output
    skipped = dict(_parted(line) for line in lines(result, "skipped"))
    for name in ("cluster (default)", "capacity"):
        assert code_of(skipped[name]) == "missing-permission"
        assert "ecs:DescribeClusters" in skipped[name]


def network_options(at: Path, **awsvpc: Any) -> List[str]:
    kwargs = {"networkConfiguration": {"awsvpcConfiguration": awsvpc}}
    return ["--run-task-kwargs", write(at / "k.yaml", kwargs)]


# -- Networks ----------------------------------------------------------------------


def test_a_security_group_of_another_vpc(
    account: Account, other: Dict[str, str], check: Check, tmp_path: Path
) -> None:
    awsvpc = {"subnets": [account.subnet()], "securityGroups": [other["group"]]}
    options = network_options(tmp_path, **awsvpc, assignPublicIp="ENABLED")
    found = failures(check(*options))
    assert found.keys() == {"security groups"}
    assert code_of(found["security groups"]) == "security-group-of-other-vpc"
    assert other["group"] in found["security groups"]


@pytest.mark.parametrize(
    "key, name, check_name, code",
    [
        ("subnets", "subnet-0123456789abcdef0", "subnets", "subnet-not-found"),
        (
            "securityGroups",
            "sg-0123456789abcdef0",
            "security groups",
            "security-group-not-found",
        ),
    ],
)
def test_what_is_not_there(
    account: Account,
    check: Check,
    tmp_path: Path,
    key: str,
    name: str,
    check_name: str,
    code: str,
) -> None:
    awsvpc = {"subnets": [account.subnet()], "assignPublicIp": "ENABLED", key: [name]}
    found = failures(check(*network_options(tmp_path, **awsvpc)))
    assert found.keys() == {check_name}
    assert code_of(found[check_name]) == code
    assert name in found[check_name]


def test_an_internet_gateway_needs_a_public_address(
    account: Account, check: Check, tmp_path: Path
) -> None:
    found = failures(check(*network_options(tmp_path, subnets=[account.subnet()])))
    assert found.keys() == {"internet egress"}
    assert code_of(found["internet egress"]) == "no-internet-egress"
    assert "public IP" in found["internet egress"]


def test_on_ec2_a_task_has_no_address_of_its_own(
    account: Account, check: Check, tmp_path: Path
) -> None:
    awsvpc = {"awsvpcConfiguration": {"subnets": [account.subnet()]}}
    kwargs = {"launchType": "EC2", "networkConfiguration": awsvpc}
    result = check("--run-task-kwargs", write(tmp_path / "k.yaml", kwargs))
    assert [code_of(each) for each in lines(result, "warning")] == [
        "no-internet-egress-on-ec2"
    ]


def egress(
    account: Account, subnet: str, check: Check, at: Path, image: str
) -> Tuple[Dict[str, str], List[str]]:
    role = f"arn:aws:iam::{ACCOUNT}:role/absent"
    template = {**fargate(image=image), "executionRoleArn": role}
    options = [
        *network_options(at, subnets=[subnet]),
        *("--task-definition", write(at / "t.yaml", template)),
    ]
    result = check(*options)
    warnings = [w for w in lines(result, "warning") if w.startswith("internet egress")]
    return failures(result), warnings


def test_endpoints_are_enough_for_images_in_ecr(
    account: Account, check: Check, tmp_path: Path
) -> None:
    closed = account.ec2.create_vpc(CidrBlock="10.8.0.0/16")["Vpc"]["VpcId"]
    subnet = account.ec2.create_subnet(VpcId=closed, CidrBlock="10.8.1.0/24")
    name = subnet["Subnet"]["SubnetId"]
    image = f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/flows:1"
    found, _ = egress(account, name, check, tmp_path, "python:3.11")
    assert code_of(found["internet egress"]) == "no-internet-egress"
    assert "python:3.11" in found["internet egress"]
    found, _ = egress(account, name, check, tmp_path, image)
    assert code_of(found["internet egress"]) == "no-vpc-endpoint"
    assert "ecr.api, ecr.dkr, s3" in found["internet egress"]
    for service in ("ecr.api", "ecr.dkr", "s3"):
        account.ec2.create_vpc_endpoint(
            VpcId=closed, ServiceName=f"com.amazonaws.us-east-1.{service}"
        )
    found, warnings = egress(account, name, check, tmp_path, image)
    assert "internet egress" not in found
    assert code_of(warnings[0]) == "vpc-endpoints-only"


@pytest.mark.parametrize(
    "route, target",
    [
        ({"GatewayId": "local"}, None),
        ({"GatewayId": "igw-1"}, "igw-1"),
        ({"NatGatewayId": "nat-1"}, "nat-1"),
        ({"TransitGatewayId": "tgw-1"}, "tgw-1"),
        ({"GatewayId": "vpce-1"}, "vpce-1"),
    ],
)
def test_where_a_route_leads(route: Dict[str, str], target: Any) -> None:
    assert network._target(route) == target


# -- Roles and images --------------------------------------------------------------


@pytest.mark.parametrize(
    "policy, is_usable",
    [
        (TASKS_MAY, True),
        ({**TASKS_MAY, "Statement": [TASKS_MAY["Statement"]]}, True),
        ({"Version": "2012-10-17", "Statement": []}, False),
        (
            {
                "Version": "2012-10-17",
                "Statement": {
                    "Effect": "Allow",
                    "Principal": {"Service": ["ec2.amazonaws.com"]},
                    "Action": "sts:AssumeRole",
                },
            },
            False,
        ),
    ],
)
def test_tasks_may_take_the_role(
    account: Account, check: Check, policy: Any, is_usable: bool
) -> None:
    arn = account.role(f"role-{os.urandom(4).hex()}", policy)
    found = failures(check("--task-role-arn", arn))
    codes = {name: code_of(text) for name, text in found.items()}
    assert codes == ({} if is_usable else {"task role": "role-not-trusting"})


def test_a_role_of_another_account(check: Check) -> None:
    found = failures(check("--task-role-arn", "arn:aws:iam::999999999999:role/x"))
    assert code_of(found["task role"]) == "role-of-another-account"


def test_images_in_ecr(account: Account, check: Check, tmp_path: Path) -> None:
    ecr = account.aws.client("ecr")
    ecr.create_repository(repositoryName="flows")
    ecr.put_image(
        repositoryName="flows",
        imageTag="1",
        imageManifest="{}",
        imageManifestMediaType="application/vnd.oci.image.manifest.v1+json",
    )
    role = account.role("pulls")
    found = {}
    for name in ("flows:1", "flows:2", "absent:1"):
        image = f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/{name}"
        path = write(tmp_path / "t.yaml", fargate(image=image))
        result = check("--task-definition", path, "--execution-role-arn", role)
        text = failures(result).get(f"image ({image})", "")
        found[name] = (code_of(text), *re.findall(r"\w+NotFoundException", text))
    assert found == {
        "flows:1": ("",),
        "flows:2": ("image-not-found", "ImageNotFoundException"),
        "absent:1": ("image-not-found", "RepositoryNotFoundException"),
    }


@pytest.mark.parametrize(
    "image, parts, public",
    [
        ("prefecthq/prefect:1.4.1", None, True),
        ("python", None, True),
        ("ghcr.io/x/y", None, True),
        ("localhost:5000/x", None, False),
        ("registry.corp/x/y:1", None, False),
        (
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/flows",
            ("123456789012", "eu-west-1", "team/flows", None, None),
            False,
        ),
        (
            "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/f:1@sha256:0a",
            ("123456789012", "cn-north-1", "f", "1", "sha256:0a"),
            False,
        ),
    ],
)
def test_names_of_images(image: str, parts: Any, public: bool) -> None:
    assert ECRImage.of(image) == parts
    assert is_public(image) is public


# -- Permissions -------------------------------------------------------------------

DECISION = """<SimulatePrincipalPolicyResponse><SimulatePrincipalPolicyResult>
<IsTruncated>false</IsTruncated><EvaluationResults><member>
<EvalActionName>{action}</EvalActionName><EvalDecision>{decision}</EvalDecision>
<MissingContextValues>{missing}</MissingContextValues>
</member></EvaluationResults></SimulatePrincipalPolicyResult>
</SimulatePrincipalPolicyResponse>"""

SESSION = """<GetCallerIdentityResponse><GetCallerIdentityResult>
<Arn>arn:aws:sts::123456789012:assumed-role/agent/i-0</Arn>
<UserId>x</UserId><Account>123456789012</Account>
</GetCallerIdentityResult></GetCallerIdentityResponse>"""


class Policies:
    """An IAM that denies some actions, and remembers what it was asked."""

    def __init__(self, **decisions: str) -> None:
        self.decisions = decisions
        self.asked: List[Dict[str, str]] = []

    def __call__(self, operation: str, params: Dict[str, str]) -> Any:
        if operation == "sts.GetCallerIdentity":
            return Fault(body=SESSION.encode())
        if operation != "iam.SimulatePrincipalPolicy":
            return None
        self.asked.append(params)
        action = params["ActionNames.member.1"]
        decision = self.decisions.get(action.partition(":")[2], "allowed")
        depends = decision == "depends"
        answer = DECISION.format(
            action=action,
            decision="implicitDeny" if depends else decision,
            missing="<member>aws:SourceVpc</member>" if depends else "",
        )
        return Fault(body=answer.encode())


@pytest.fixture(scope="module")
def agent_role(account: Account) -> str:
    """The role behind `SESSION`."""
    return account.role("agent", path="/service/")


def test_policies_are_asked_about_the_role_behind_a_session(
    world: World, account: Account, agent_role: str, check: Check
) -> None:
    tasks = account.role("of-the-tasks")
    world.aws.fault = policies = Policies()
    result = check("--task-role-arn", tasks)
    assert result.exit_code == 0, result.output
    assert {asked["PolicySourceArn"] for asked in policies.asked} == {agent_role}
    (passed,) = [
        asked
        for asked in policies.asked
        if asked["ActionNames.member.1"] == "iam:PassRole"
    ]
    assert passed["ResourceArns.member.1"] == tasks
    assert passed["ContextEntries.member.1.ContextKeyName"] == "iam:PassedToService"
    (line,) = [each for each in lines(result, "ok") if each.startswith("permissions")]
    assert line == (
        "permissions: ecs:RunTask, ecs:RegisterTaskDefinition, "
        "ecs:DescribeTaskDefinition, ecs:DescribeTasks, ecs:ListTasks, ecs:StopTask, "
        "ecs:TagResource, ecs:DescribeClusters, iam:PassRole of-the-tasks, "
        "ec2:DescribeVpcs, ec2:DescribeSubnets"
    )


@pytest.mark.usefixtures("agent_role")
def test_policies_are_asked_about_what_options_need(world: World, check: Check) -> None:
    s3 = world.aws.client("s3")
    s3.create_bucket(Bucket="limits")
    s3.put_object(Bucket="limits", Key="l.yaml", Body=b"flow: {etl: 2}")
    world.aws.fault = policies = Policies(GetProducts="implicitDeny")
    result = check(
        *("--limits", "s3://limits/l.yaml", "--limit", "50", "--max-vcpus", "quota"),
        *("--prices", "aws"),
    )
    assert result.exit_code == 0, result.output
    asked = [
        (each["ActionNames.member.1"], each["ResourceArns.member.1"])
        for each in policies.asked
    ]
    quotas = "arn:aws:servicequotas:us-east-1:123456789012:fargate"
    assert asked[-5:] == [
        ("s3:GetObject", "arn:aws:s3:::limits/l.yaml"),
        ("servicequotas:GetServiceQuota", f"{quotas}/L-3032A538"),
        ("servicequotas:GetServiceQuota", f"{quotas}/L-36FBB829"),
        ("cloudwatch:GetMetricStatistics", "*"),
        ("pricing:GetProducts", "*"),
    ]
    assert "limits: total:50, flow=etl:2, vcpus:quota" in lines(result, "ok")
    (denied,) = [x for x in lines(result, "warning") if x.startswith("permissions")]
    assert "(pricing:GetProducts)" in denied


@pytest.mark.usefixtures("agent_role")
def test_denied_actions_are_named_each(world: World, check: Check) -> None:
    world.aws.fault = Policies(
        RunTask="implicitDeny",
        RegisterTaskDefinition="depends",
        StopTask="explicitDeny",
        TagResource="depends",
    )
    result = check()
    assert result.exit_code == 1
    found = {
        (status, name, code_of(text))
        for status in ("failed", "warning")
        for name, text in map(_parted, lines(result, status))
    }
    assert found == {
        ("failed", "permissions (ecs:RunTask)", "missing-permission"),
        (
            "warning",
            "permissions (ecs:RegisterTaskDefinition)",
            "permission-maybe-missing",
        ),
        ("warning", "permissions (ecs:StopTask)", "missing-permission"),
        ("warning", "permissions (ecs:TagResource)", "permission-maybe-missing"),
    }


@pytest.mark.usefixtures("agent_role")
def test_what_only_one_flow_needs_is_needed(
    world: World, account: Account, check: Check, tmp_path: Path
) -> None:
    """Most runs do without finding definitions, but not one that names its own."""
    arn = account.aws.client("ecs").register_task_definition(
        family="needed",
        requiresCompatibilities=["FARGATE"],
        **{**fargate(image="needed:1"), "cpu": "256", "memory": "512"},
    )["taskDefinition"]["taskDefinitionArn"]
    text = (
        "from prefect import Flow\nfrom prefect.run_configs import ECSRun\n"
        "a = Flow('a', run_config=ECSRun())\n"
        f"b = Flow('b', run_config=ECSRun(task_definition_arn='{arn}'))"
    )
    world.aws.fault = Policies(DescribeTaskDefinition="implicitDeny")
    result = check("--flow", write_flow(tmp_path, text))
    assert "permissions (ecs:DescribeTaskDefinition)" in failures(result)


def test_without_policies_what_reads_is_tried_and_the_rest_is_skipped(
    world: World, check: Check
) -> None:
    world.aws.fault = deny("iam.SimulatePrincipalPolicy", "ecs.ListTasks")
    result = check()
    assert result.exit_code == 0, result.output
    about = [each for each in result.stdout.splitlines() if ": permissions" in each]
    assert [each.partition(":")[0] for each in about] == [
        "skipped",
        "ok",
        "warning",
        "skipped",
    ]
    assert code_of(about[0]) == "policies-not-simulated"
    assert "iam:SimulatePrincipalPolicy" in about[0]
    assert about[1] == (
        "ok: permissions: ecs:DescribeTaskDefinition, ecs:DescribeTasks, "
        "ecs:DescribeClusters, ec2:DescribeVpcs, ec2:DescribeSubnets"
    )
    assert code_of(about[2]) == "missing-permission"
    assert "(ecs:ListTasks)" in about[2]
    assert code_of(about[3]) == "permission-unknown"
    assert "ecs:RunTask, ecs:RegisterTaskDefinition" in about[3]


def test_what_is_tried_is_tried_in_every_cluster(
    world: World, account: Account, check: Check, tmp_path: Path
) -> None:
    account.aws.client("ecs").create_cluster(clusterName="second")
    text = (
        "from prefect import Flow\nfrom prefect.run_configs import ECSRun\n"
        "a = Flow('a', run_config=ECSRun())\n"
        "b = Flow('b', run_config=ECSRun(run_task_kwargs={'cluster': 'second'}))"
    )
    denied = Fault(error_code="AccessDeniedException", message="not allowed")
    world.aws.fault = lambda operation, params: (
        denied
        if operation == "ecs.ListTasks" and params["cluster"].endswith("second")
        else None
    )
    result = check("--flow", write_flow(tmp_path, text))
    (tried,) = [x for x in lines(result, "ok") if x.startswith("permissions")]
    assert tried == (
        "permissions: ecs:DescribeTaskDefinition, ecs:DescribeTasks, ecs:ListTasks, "
        "ecs:DescribeClusters, ec2:DescribeVpcs, ec2:DescribeSubnets"
    )
    (denied_line,) = [
        x for x in lines(result, "warning") if x.startswith("permissions")
    ]
    assert "ecs:ListTasks on" in denied_line
    assert "/second/" in denied_line


# -- Secrets -----------------------------------------------------------------------

KEY = "pcu_0123456789-the-key"
ABSENT = f"arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:absent-AbCdEf"
PARAMETER = f"arn:aws:ssm:us-east-1:{ACCOUNT}:parameter"


@pytest.fixture(scope="module")
def secret(account: Account) -> str:
    """A secret with the key in JSON."""
    text = json.dumps({"api": KEY})
    return made_secret(account, "prefect", SecretString=text)


@pytest.fixture(scope="module")
def reads(account: Account) -> str:
    """An execution role."""
    return account.role("reads-secrets")


def made_secret(account: Account, name: str, **value: Any) -> str:
    made = account.aws.client("secretsmanager").create_secret(Name=name, **value)
    return str(made["ARN"])


def deleted_secret(account: Account) -> str:
    arn = made_secret(account, "deleted", SecretString=KEY)
    account.aws.client("secretsmanager").delete_secret(SecretId=arn)
    return arn


def made_parameter(account: Account, name: str) -> str:
    account.aws.client("ssm").put_parameter(Name=name, Value=KEY, Type="String")
    return f"{PARAMETER}/{name.lstrip('/')}"


def test_guarantee_7_the_key_of_runs_is_looked_for_and_never_shown(
    world: World, check: Check, secret: str, reads: str, tmp_path: Path
) -> None:
    world.aws.fault = policies = Policies()
    value_from = f"{secret}:api::"
    result = check(
        *("--json", "--flow", write_flow(tmp_path), "--execution-role-arn", reads),
        *("--key-from-secret", value_from, "--api-key-secret-arn", value_from),
    )
    assert result.exit_code == 0, result.output
    assert KEY not in result.output
    shown = json.loads(result.stdout)
    found = [each for each in shown["checks"] if each["check"] == "secrets"]
    assert [(each["status"], each["message"]) for each in found] == [
        ("ok", "it exists; its JSON key 'api' is not checked"),
        ("ok", f"{reads} may read it"),
    ]
    assert {each["about"] for each in found} == {value_from}
    asked = [each for each in policies.asked if each["PolicySourceArn"] == reads]
    assert [
        (each["ActionNames.member.1"], each["ResourceArns.member.1"]) for each in asked
    ] == [("secretsmanager:GetSecretValue", secret)]
    (container,) = shown["requests"]["etl"]["RegisterTaskDefinition"][
        "containerDefinitions"
    ]
    assert container["secrets"] == [
        {"name": "PREFECT__CLOUD__API_KEY", "valueFrom": value_from},
        {"name": "PREFECT__CLOUD__AUTH_TOKEN", "valueFrom": value_from},
    ]


@pytest.mark.parametrize(
    "make, code, value",
    [
        (lambda account: ABSENT, "no-secret", "secret in us-east-1"),
        (deleted_secret, "secret-deleted", "restore-secret"),
        (
            lambda account: made_secret(account, "empty"),
            "secret-without-value",
            "AWSCURRENT",
        ),
        (
            lambda account: made_secret(account, "x", SecretString=KEY) + "::OTHER:",
            "secret-without-value",
            "OTHER",
        ),
        (
            lambda account: f"{PARAMETER}/absent",
            "no-secret",
            "parameter in us-east-1",
        ),
        (
            lambda account: f"{PARAMETER}/prefect/absent",
            "no-secret",
            "parameter in us-east-1",
        ),
    ],
)
def test_a_secret_that_ecs_could_not_fetch(
    account: Account,
    check: Check,
    reads: str,
    make: Callable[[Account], str],
    code: str,
    value: str,
) -> None:
    arn = make(account)
    result = check("--api-key-secret-arn", arn, "--execution-role-arn", reads)
    assert result.exit_code == 1
    found = failures(result)
    assert found.keys() == {f"secrets ({arn})"}
    assert code_of(found[f"secrets ({arn})"]) == code
    assert value in found[f"secrets ({arn})"]


@pytest.mark.parametrize(
    "name, names", [("key", ["key", "/key"]), ("prefect/key", ["/prefect/key"])]
)
def test_a_parameter_of_a_path_is_asked_for_with_its_slash(
    name: str, names: List[str]
) -> None:
    """Moto takes it without; AWS does not."""
    arn = SecretARN(f"{PARAMETER}/{name}")
    assert secrets._named(arn) == {
        "ParameterFilters": [{"Key": "Name", "Option": "Equals", "Values": names}]
    }


@pytest.mark.parametrize("name", ["key", "/prefect/key"])
def test_a_parameter_is_found_by_its_arn(
    account: Account, check: Check, reads: str, name: str
) -> None:
    arn = made_parameter(account, name)
    result = check("--api-key-secret-arn", arn, "--execution-role-arn", reads)
    assert f"secrets ({arn}): it exists" in lines(result, "ok")
    assert KEY not in result.output


@pytest.mark.parametrize(
    "denied, status, code, value",
    [
        (["ssm.DescribeParameters"], "ok", "", "it exists"),
        (
            ["ssm.DescribeParameters", "ssm.GetParameter"],
            "skipped",
            "missing-permission",
            "ssm:GetParameter",
        ),
    ],
)
def test_a_parameter_that_may_not_be_listed(
    account: Account,
    check: Check,
    reads: str,
    denied: Any,
    status: str,
    code: str,
    value: str,
) -> None:
    name = f"/denied/{len(denied)}"
    arn = made_parameter(account, name)
    account.aws.fault = deny(*denied)
    result = check("--api-key-secret-arn", arn, "--execution-role-arn", reads)
    assert result.exit_code == 0, result.output
    prefix = f"secrets ({arn}): "
    (text,) = (
        line[len(prefix) :]
        for line in lines(result, status)
        if line.startswith(prefix) and "may read" not in line
    )
    assert code_of(text) == code
    assert value in text
    assert KEY not in result.output


def test_what_may_not_be_asked_about_a_secret_is_skipped(
    account: Account, check: Check, secret: str, reads: str
) -> None:
    account.aws.fault = deny(
        "secretsmanager.DescribeSecret", "iam.SimulatePrincipalPolicy"
    )
    result = check("--api-key-secret-arn", secret, "--execution-role-arn", reads)
    assert result.exit_code == 0, result.output
    there, readable = [
        text
        for name, text in map(_parted, lines(result, "skipped"))
        if name.startswith("secrets")
    ]
    assert code_of(there) == code_of(readable) == "missing-permission"
    assert "secretsmanager:DescribeSecret" in there
    assert f"{reads} may read" in readable


@pytest.mark.parametrize(
    "decision, has_policy, status, code",
    [
        ("implicitDeny", False, "failed", "secret-not-readable"),
        ("explicitDeny", False, "failed", "secret-not-readable"),
        ("implicitDeny", True, "warning", "secret-maybe-not-readable"),
        ("depends", False, "warning", "secret-maybe-not-readable"),
    ],
)
def test_a_role_that_may_not_read_the_secret(
    account: Account,
    check: Check,
    reads: str,
    decision: str,
    has_policy: bool,
    status: str,
    code: str,
) -> None:
    name = f"{decision}-{has_policy}"
    arn = made_secret(account, name, SecretString=KEY)
    if has_policy:
        account.aws.client("secretsmanager").put_resource_policy(
            SecretId=arn, ResourcePolicy=json.dumps(TASKS_MAY)
        )
    account.aws.fault = Policies(GetSecretValue=decision)
    result = check("--api-key-secret-arn", arn, "--execution-role-arn", reads)
    (line,) = [each for each in lines(result, status) if each.startswith("secrets")]
    assert code_of(line) == code
    assert reads in line
    assert f"secretsmanager:GetSecretValue on {arn}." in line


def test_what_a_template_brings_as_secrets_is_looked_for_too(
    account: Account, check: Check, reads: str, tmp_path: Path
) -> None:
    made_parameter(account, "by-name")
    brought = [
        {"name": "BY_NAME", "valueFrom": "by-name"},
        {"name": "PARTIAL", "valueFrom": ABSENT[:-7]},
    ]
    template = {**fargate(image="x", secrets=brought), "executionRoleArn": reads}
    path = write(tmp_path / "t.yaml", template)
    result = check("--task-definition", path)
    assert "secrets (by-name): it exists" in lines(result, "ok")
    skipped = dict(map(_parted, lines(result, "skipped")))
    assert code_of(skipped[f"secrets ({ABSENT[:-7]})"]) == "partial-secret-arn"


def test_a_key_in_plain_text_is_a_warning(check: Check) -> None:
    (line,) = lines(check("--key", KEY), "warning")
    assert line.startswith("API key of runs: ")
    assert "--api-key-secret-arn" in line


def test_a_secret_without_an_execution_role(check: Check, secret: str) -> None:
    result = check("--api-key-secret-arn", secret)
    assert re.search("--execution-role-arn", failures(result)["requests"])


@pytest.mark.parametrize(
    "options, exit_code, value",
    [
        (["--key-from-secret", ABSENT], 1, "absent-AbCdEf"),
        (["--key-from-secret", ABSENT, "--key", KEY], 2, "--key-from-secret"),
        (["--api-key-secret-arn", KEY], 2, "--api-key-secret-arn"),
    ],
)
def test_a_key_that_cannot_be_had(
    check: Check, options: List[str], exit_code: int, value: str
) -> None:
    result = check(*options)
    assert result.exit_code == exit_code
    said = failures(result).get("API key", result.output)
    assert value in said
    assert KEY not in result.output


# -- Clocks ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ahead, status, code",
    [
        (0, "ok", ""),
        (100, "warning", "clock-skew"),
        (-100, "warning", "clock-skew"),
        (400, "failed", "clock-skew"),
        (-400, "failed", "clock-skew"),
    ],
)
def test_clock_skew(world: World, ahead: float, status: str, code: str) -> None:
    import time

    from prefect_ecs_plugin.aws.session import AWSClients

    context = CheckContext({}, PrefectSettings("server", ""))
    with environment.only(world.environment):
        context.aws = AWS(AWSClients(), lambda: time.time() + ahead)
        list(identity.identity(context))
    (finding,) = identity.clock(context)
    assert (finding.status.value, finding.code) == (status, code)
    assert ("ahead of" in finding.message) == (ahead > 0)


def test_no_clock_is_skipped() -> None:
    (finding,) = identity.clock(CheckContext({}, PrefectSettings("server", "")))
    assert (finding.status, finding.code) == (Status.SKIPPED, "clock-unknown")


def test_a_date_that_is_none_tells_no_time() -> None:
    assert skew_of(None, 0) is None
    assert skew_of("yesterday", 0) is None
    assert skew_of("Thu, 01 Jan 1970 00:01:00 GMT", 100) == 40


# -- Flows -------------------------------------------------------------------------

FLOWS = """
from prefect import Flow, task
from prefect.run_configs import ECSRun, LocalRun
from prefect.storage import Docker, S3

print("printed by the file")
with Flow("etl", storage=S3(bucket="flows")) as etl:
    pass
etl.run_config = ECSRun(
    cpu=512, memory=1024, image="corp.example/etl:1",
    env={"DB_PASSWORD": "hunter2", "URL": "postgresql://me:hunter2@db/x", "STAGE": "a"},
)
with Flow("in docker", storage=Docker(registry_url="corp.example/team")) as docker:
    pass
"""


def write_flow(at: Path, text: str = FLOWS) -> str:
    path = at / "flow.py"
    path.write_text(text)
    return str(path)


def test_flows_are_rendered_with_their_secrets_masked(
    world: World, check: Check, tmp_path: Path
) -> None:
    path = write_flow(tmp_path)
    key = "the-key-of-the-agent"
    result = check("--json", "--flow", path, "--key", key, "--env", f"HEADER=x{key}")
    assert result.exit_code == 0, result.output
    assert "hunter2" not in result.stdout
    assert key not in result.stdout
    requests = json.loads(result.stdout)["requests"]
    etl, docker = requests["etl"], requests["in docker"]
    assert docker["RegisterTaskDefinition"]["containerDefinitions"][0]["image"] == (
        "corp.example/team/in-docker:made-when-registered"
    )
    (container,) = etl["RunTask"]["overrides"]["containerOverrides"]
    env = {entry["name"]: entry["value"] for entry in container["environment"]}
    assert {name: env[name] for name in ("DB_PASSWORD", "URL", "STAGE", "HEADER")} == {
        "DB_PASSWORD": "***",
        "URL": "postgresql://me:***@db/x",
        "STAGE": "a",
        "HEADER": "x***",
    }
    assert env["PREFECT__CLOUD__API_KEY"] == env["PREFECT__CLOUD__AUTH_TOKEN"] == "***"
    assert env["PREFECT__CLOUD__TENANT_ID"] == world.client.tenant_id
    assert etl["RunTask"]["overrides"]["cpu"] == "512"


def test_flows_are_shown_as_yaml_after_the_checks(check: Check, tmp_path: Path) -> None:
    import yaml

    result = check("--flow", write_flow(tmp_path))
    _, _, shown = result.stdout.partition("Requests for flow 'etl':\n")
    text, _, _ = shown.partition("\nRequests for flow")
    sent = yaml.safe_load(text)
    assert list(sent) == ["RegisterTaskDefinition", "RunTask"]
    assert "printed by the file" not in result.stdout


@pytest.mark.parametrize(
    "text, check_name, code, value",
    [
        ("1 / 0", "flow ({path})", "flow-file-error", "ZeroDivisionError: division by"),
        ("x = 1", "flow ({path})", "no-flow-in-file", "variable"),
        ("exit(3)", "flow ({path})", "flow-file-error", "SystemExit: 3"),
        (
            "from prefect import Flow\nfrom prefect.run_configs import LocalRun\n"
            "f = Flow('f', run_config=LocalRun())",
            "requests (f)",
            None,
            "LocalRun",
        ),
        (
            "from prefect import Flow\nfrom prefect.run_configs import ECSRun\n"
            "f = Flow('f', run_config=ECSRun(labels=['gpu']))",
            "labels (f)",
            "agent-lacks-label",
            "--label gpu",
        ),
        (
            "from prefect import Flow\nfrom prefect.run_configs import ECSRun\n"
            "f = Flow('f', run_config=ECSRun(task_definition_arn='absent:1'))",
            "requests (f)",
            "no-task-definition",
            "absent:1",
        ),
        (
            "from prefect import Flow\nfrom prefect.run_configs import ECSRun\n"
            "f = Flow('f', run_config=ECSRun(run_task_kwargs={'cluster': 'nope'}))",
            "cluster (nope)",
            "no-cluster",
            "'nope'",
        ),
    ],
)
def test_a_flow_that_cannot_run_is_named(
    check: Check,
    tmp_path: Path,
    text: str,
    check_name: str,
    code: Optional[str],
    value: str,
) -> None:
    path = write_flow(tmp_path, text)
    check_name = check_name.format(path=path)
    result = check("--flow", path)
    assert result.exit_code == 1
    found = failures(result)
    assert found.keys() == {check_name}
    assert code is None or code_of(found[check_name]) == code
    assert re.search(value, found[check_name])


def test_a_flow_with_a_definition_of_its_own_registers_none(
    account: Account, check: Check, tmp_path: Path
) -> None:
    arn = account.aws.client("ecs").register_task_definition(
        family="own",
        requiresCompatibilities=["FARGATE"],
        **{**fargate(image="own:1"), "cpu": "256", "memory": "512"},
    )["taskDefinition"]["taskDefinitionArn"]
    text = (
        "from prefect import Flow\nfrom prefect.run_configs import ECSRun\n"
        f"f = Flow('f', run_config=ECSRun(task_definition_arn='{arn}'))"
    )
    result = check("--json", "--flow", write_flow(tmp_path, text))
    assert result.exit_code == 0, result.output
    (sent,) = json.loads(result.stdout)["requests"].values()
    assert list(sent) == ["RunTask"]
    assert sent["RunTask"]["taskDefinition"] == arn


def test_a_flow_without_labels_is_not_for_an_agent_with_some(
    check: Check, tmp_path: Path
) -> None:
    result = check("--label", "prod", "--flow", write_flow(tmp_path))
    found = {name: code_of(text) for name, text in failures(result).items()}
    assert found == {"labels (etl, in docker)": "flow-without-labels"}


# -- Several files of flows --------------------------------------------------------

ONE = """
from prefect import Flow
from prefect.run_configs import {run_config}
from prefect.storage import S3
import helpers

flow = Flow({name!r}, storage=S3(bucket=helpers.BUCKET), run_config={run_config}())
"""
OTHERS = """
from prefect import Flow
from prefect.run_configs import UniversalRun
from prefect.storage import S3
import helpers

storage = S3(bucket=helpers.BUCKET_OF_TEAM)
etl, plain = Flow("etl", storage=storage), Flow("plain", storage=storage)
universal = Flow("universal", storage=storage, run_config=UniversalRun())
"""
FOLDER = {
    "flows/.hidden/broken.py": "import prefect, absent",
    "flows/broken.py": "import prefect, absent",
    "flows/etl.py": ONE.format(name="etl", run_config="ECSRun"),
    "flows/helpers.py": "BUCKET = 'flows'",
    "flows/local.py": ONE.format(name="local", run_config="LocalRun"),
    "flows/notes.txt": "prefect",
    "flows/shared.py": "import prefect",
    "flows/team/helpers.py": "BUCKET_OF_TEAM = 'team'",
    "flows/team/several.py": OTHERS,
    "flows/venv/pyvenv.cfg": "",
    "flows/venv/lib/broken.py": "import prefect, absent",
    "empty/notes.txt": "",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FOLDER.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_each_file_and_each_flow_of_a_folder_has_its_findings(
    folder: Path, check: Check
) -> None:
    loaded = set(sys.modules)
    result = check("--json", "--flow", "flows", "--flow", "flows/team/helpers.py")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    files = {
        each["about"]: (each["status"], each["code"])
        for each in document["checks"]
        if each["check"] == "flow"
    }
    assert files == {
        "flows/broken.py": ("failed", "flow-file-error"),
        "flows/etl.py": ("ok", ""),
        "flows/helpers.py": ("skipped", "flow-file-not-run"),
        "flows/local.py": ("ok", ""),
        "flows/shared.py": ("skipped", "no-flow-in-file"),
        "flows/team/helpers.py": ("failed", "no-flow-in-file"),
        "flows/team/several.py": ("ok", ""),
    }
    ours, others = "etl in flows/etl.py", "etl in flows/team/several.py"
    requests = document["requests"]
    assert set(requests) == {ours, others, "plain", "universal"}
    plain, universal = requests["plain"], requests["universal"]
    for flow, each in (("plain", plain), ("universal", universal)):
        name = {"key": "prefect:flow-name", "value": flow}
        each["RunTask"]["tags"].remove(name)
    assert plain == universal
    found = {
        (each["check"], *each["flows"]): each["code"]
        for each in document["checks"]
        if each["flows"] and each["status"] == "failed"
    }
    assert found == {("requests", "local"): "unsupported-run-config"}
    (twice,) = [each for each in document["checks"] if each["check"] == "flow name"]
    assert (twice["about"], twice["code"]) == ("etl", "same-flow-name")
    assert "helpers" not in set(sys.modules) - loaded


def test_equal_findings_of_several_flows_are_one_line(
    folder: Path, check: Check
) -> None:
    result = check("--flow", "flows/*.py", "--flow", "flows/team")
    assert failures(result).keys() == {"flow (flows/broken.py)", "requests (local)"}
    oks = lines(result, "ok")
    assert "labels (5 flows): none, as the agent" in oks
    assert sum(line.startswith("requests") for line in oks) == 1
    not_run = "flow (flows/helpers.py, flows/team/helpers.py)"
    assert dict(map(_parted, lines(result, "skipped"))).keys() >= {not_run}
    assert "\nRegisterTaskDefinition:" not in result.stdout
    verbose = check("--flow", "flows/*.py", "--flow", "flows/team", "--verbose")
    assert "labels (plain): none, as the agent" in lines(verbose, "ok")
    assert verbose.stdout.count("\nRegisterTaskDefinition:") == 4


def test_modules_beside_a_flow_are_forgotten_and_packages_are_kept(
    tmp_path: Path,
) -> None:
    packages = tmp_path / "venv" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "installed_for_this_test.py").touch()
    (tmp_path / "beside_for_this_test.py").touch()
    text = f"import sys\nsys.path.append({str(packages)!r})\n"
    text += "import installed_for_this_test, beside_for_this_test"
    flows.load(write_flow(tmp_path, text))
    assert "beside_for_this_test" not in sys.modules
    assert str(packages) not in sys.path
    del sys.modules["installed_for_this_test"]


@pytest.mark.parametrize(
    "values, found",
    [
        (["flows/etl.py", "./flows/etl.py"], [("./flows/etl.py", True)]),
        (["flows/e*.py", "flows/etl.py"], [("flows/etl.py", True)]),
        (["flows/[ns]*"], ["flows/notes.txt", "flows/shared.py"]),
        (["flows/te*"], ["flows/team/helpers.py", "flows/team/several.py"]),
        (["**/team/s*.py"], ["flows/team/several.py"]),
        (["empty"], None),
        (["flows", "absent*.py"], None),
    ],
)
def test_the_files_of_the_option(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    values: List[str],
    found: Optional[List[Any]],
) -> None:
    monkeypatch.chdir(folder)
    if found is None:
        with pytest.raises(click.BadParameter) as raised:
            flow_files_of(values)
        assert code_of(str(raised.value)) == "no-flow-file"
        return
    wanted = [(each, False) if isinstance(each, str) else each for each in found]
    assert [(each.path, each.is_named) for each in flow_files_of(values)] == wanted


def test_a_file_that_does_not_exist_is_a_usage_error(check: Check) -> None:
    result = check("--flow", "absent.py")
    assert result.exit_code == 2
    assert code_of(result.output.rstrip()) == "no-flow-file"


# -- How it is shown ---------------------------------------------------------------


@pytest.mark.parametrize(
    "found, told",
    [
        ([ok("a"), ok("b")], ["a", "b"]),
        ([depends("x").of("a")], ["a"]),
        ([depends("x").of("a"), depends("x").of("b")], ["2 checks"]),
        ([depends("x").of("a"), depends("y").of("b")], ["a", "b"]),
        ([ok("a").of("c", flows=("f",)), ok("a").of("c", flows=("g",))], ["c (f, g)"]),
        ([ok("a").of("c", flows=("f",)), ok("b").of("c", flows=("g",))], None),
        ([skipped("a", code="x").of("c", "i"), skipped("a", code="x").of("c", "j")], 1),
        ([failed("a", code="x").of("c", "i"), failed("a", code="x").of("c", "j")], 2),
    ],
)
def test_what_becomes_one_finding(found: List[Finding], told: Any) -> None:
    titles = [each.title or each.message for each in folded(found)]
    if told is None or isinstance(told, int):
        assert len(titles) == (told or len(found))
    else:
        assert titles == told


def test_json_is_one_document(check: Check) -> None:
    result = check("--json", "--cluster", "nowhere")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["failed"] is True
    assert document["requests"] == {}
    (found,) = [each for each in document["checks"] if each["status"] == "failed"]
    assert found["check"] == "cluster"
    assert found["about"] == "nowhere"
    assert set(found) == {
        "check",
        "about",
        "flows",
        "status",
        "code",
        "message",
        "advice",
    }
    assert found["code"] == "no-cluster"
    assert "--cluster" in found["advice"]


@pytest.mark.parametrize("title", ["cluster", "permissions (" + "long-" * 30 + ")"])
@pytest.mark.parametrize("message", ["found", "a word " * 60, "x" * 300])
def test_the_table_fits_the_terminal(title: str, message: str) -> None:
    shown: List[str] = []
    table = output.Table(shown.append, width=80)
    table.show(failed(message, "Do this.", code="a-code").of(title))
    text = click.unstyle("\n".join(shown))
    assert max(map(len, text.splitlines())) <= 80
    squeezed = re.sub(r"\s", "", text)
    assert re.sub(r"\s", "", f"failed{title}")[:20] in squeezed
    assert squeezed.endswith(re.sub(r"\s", "", f"{message}Dothis.[a-code]"))


words = st.text(alphabet=string.ascii_letters + string.punctuation + " ")


@given(title=words, message=words, advice=words, width=st.integers(51, 200))
def test_every_row_fits_every_terminal_and_loses_nothing(
    title: str, message: str, advice: str, width: int
) -> None:
    shown: List[str] = []
    table = output.Table(shown.append, width)
    table.show(Finding(Status.OK, message, advice, title))
    rows = "\n".join(map(click.unstyle, shown[1:])).splitlines()
    assert max(map(len, rows)) <= width
    told = Counter("".join(f"ok{title}{message}{advice}".split()))
    assert Counter("".join("".join(rows).split())) == told


def on_a_terminal(world: World, **variables: str) -> str:
    """What the command shows on a terminal of 80 columns."""
    ours, its = pty.openpty()
    command = [*environment.prefect_command(world.home), "agent", "ecs", "check"]
    process = subprocess.Popen(
        command,
        env={**world.environment, "TERM": "xterm", "COLUMNS": "80", **variables},
        stdin=subprocess.DEVNULL,
        stdout=its,
        stderr=its,
    )
    os.close(its)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # Linux's end of file
            break
        if not part:
            break
        shown += part
    os.close(ours)
    process.wait(timeout=DEADLINE)
    return shown.decode()


def test_the_last_lines_say_what_failed(check: Check, tmp_path: Path) -> None:
    """What would be sent for some flows is long, and the table above it gone."""
    result = check("--flow", write_flow(tmp_path), "--label", "prod")
    *_, summary, first = result.stdout.splitlines()
    failed = "labels (etl, in docker)"
    assert re.fullmatch(
        rf"2 failed: {re.escape(failed)}; \d skipped, \d+ ok\.", summary
    )
    assert first == f"Begin with {failed}: {failures(result)[failed]}"


def test_a_terminal_gets_a_table_in_colours_unless_no_color_is_set(
    world: World,
) -> None:
    coloured, plain = on_a_terminal(world), on_a_terminal(world, NO_COLOR="1")
    assert "\x1b[32mok" in coloured
    assert "\x1b" not in plain
    for shown in (click.unstyle(coloured), plain):
        assert re.search(r"^RESULT +CHECK +FINDING", shown)
        assert re.search(r"^ok +Prefect API +http://", shown, re.MULTILINE)
        assert max(map(len, shown.splitlines())) <= 80


# -- In a child process ---------------------------------------------


def test_the_command_itself(world: World, account: Account) -> None:
    healthy = world.prefect("agent", "ecs", "check")
    assert healthy.returncode == 0, healthy.stdout
    assert "failed" not in healthy.stdout
    assert "Traceback" not in healthy.stdout


# -- Its parts ---------------------------------------------------------------------


def test_a_check_that_breaks_off_is_skipped_and_the_next_is_made() -> None:
    def breaks(context: CheckContext) -> Iterator[Finding]:
        yield ok("so far")
        raise ZeroDivisionError("oops")

    checks = [
        runner.Check("first", breaks),
        runner.Check("second", lambda context: iter([ok("fine")]), (), ("aws",)),
        runner.Check("third", lambda context: iter([ok("fine")]), ("aws",)),
    ]
    context = CheckContext({}, PrefectSettings("server", ""))
    assert [
        (each.status.value, each.check, each.code)
        for each in runner.findings(context, checks)
    ] == [
        ("ok", "first", ""),
        ("skipped", "first", "check-error"),
        ("ok", "second", ""),
        ("skipped", "third", "depends-on-failed-check"),
    ]
