"""`prefect agent ecs install`: what is printed, and whether AWS would take it."""

from __future__ import annotations

import fnmatch
import http.server
import json
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple

import pytest
import yaml
from click.testing import CliRunner
from codes import code_of, raises_code
from deadlines import DEADLINE

from prefect_ecs_plugin import __version__
from prefect_ecs_plugin.aws.secret_arn import SecretARN
from prefect_ecs_plugin.cli.install import cloudformation, plan, policy, terraform
from prefect_ecs_plugin.cli.install.command import install
from prefect_ecs_plugin.cli.install.placeholders import Placeholders, Reference
from prefect_ecs_plugin.errors import ConfigurationError
from prefect_ecs_plugin.validation import coercion, rules

SUBNETS = "subnet-0123456789abcdef0,subnet-0fedcba9876543210"
VPC = "vpc-0123456789abcdef0"
SECRET = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prefect-AbCdEf"
PARAMETER = "arn:aws:ssm:eu-west-1:123456789012:parameter/prefect/key"
CLUSTER = "arn:aws:ecs:eu-west-1:123456789012:cluster/flows"
TOPIC = "arn:aws:sns:eu-west-1:123456789012:alarms"
ECR_IMAGE = (
    "210987654321.dkr.ecr.us-east-1.amazonaws.com/team/agent@sha256:" + "0a" * 32
)
ROLE = "arn:aws:iam::123456789012:role/{}".format
FLOW_GROUPS = ["--flow-security-groups", "sg-0123456789abcdef1"]
NETWORK = ["--vpc-id", VPC, "--subnets", SUBNETS]
ROLES = [
    "--agent-role-arn",
    ROLE("agent"),
    "--agent-execution-role-arn",
    ROLE("execution"),
]

#: Option sets that differ in what they make.
CASES: Dict[str, List[str]] = {
    "nothing given": [],
    "a network": ["--label", "prod", *NETWORK],
    "a secret": [*NETWORK, "--api-key-secret-arn", SECRET],
    "a secret's JSON key": [*NETWORK, "--api-key-secret-arn", SECRET + ":key::"],
    "a parameter": [*NETWORK, "--api-key-secret-arn", PARAMETER],
    "a secret and the flows' own role": [
        *("--api-key-secret-arn", SECRET, "--execution-role-arn", ROLE("ecs")),
    ],
    "security groups": [
        "--subnets",
        SUBNETS,
        "--security-groups",
        "sg-0123456789abcdef0",
    ],
    "a server": ["--backend", "server", "--api", "http://prefect.internal:4200"],
    "an image": ["--image", "example.com/agent:1", "--cpu", "1024", "--memory", "2 GB"],
    "roles and families": [
        *("--task-role-arn", ROLE("flow"), "--execution-role-arn", ROLE("ecs")),
        *("--pass-role", ROLE("path/other"), "--family", "etl", "--family", "team-*"),
        *("--flow-log-group", "/ecs/flows", "--cluster", CLUSTER),
        *("--read-log-group", "/ecs/etl", "--tag", "team=data", "--alarm-topic", TOPIC),
    ],
    "a network for flows": [
        *NETWORK,
        *("--flow-subnets", "subnet-0123456789abcdef1"),
        *("--flow-security-groups", "sg-0123456789abcdef1"),
        *("--flow-assign-public-ip", "DISABLED", "--flow-repository", "flows/*"),
        *("--max-vcpus", "quota", "--prices", "aws", "--limit", "flow=etl:2"),
    ],
    "private subnets": [*NETWORK, "--assign-public-ip", "DISABLED"],
    "flows on EC2": ["--launch-type", "EC2", "--image", ECR_IMAGE, *NETWORK],
    "text that could mean something": [
        *("--label", '${AWS::Region} "%{if}"', "--env", "A=${var.x} %{ b } \\ 'c'\n"),
        *("--env", "B=yes", "--launches-per-second", "5", "--no-cloud-logs"),
    ],
}

#: Those that differ in their resources and parameters, for slow linters.
DIFFERING = [
    "nothing given",
    "a secret's JSON key",
    "security groups",
    "roles and families",
    "a network for flows",
    "text that could mean something",
]

each_kind = pytest.mark.parametrize(
    "options", [CASES[name] for name in DIFFERING], ids=DIFFERING
)
every_case = pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine says of AWS does not count."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)


def run(*options: str) -> Any:
    return _runner().invoke(install, list(options))


def _runner() -> CliRunner:
    """One that keeps stderr apart, as it does by itself from click 8.2 on."""
    try:
        return CliRunner(mix_stderr=False)
    except TypeError:
        return CliRunner()


def printed(*options: str) -> str:
    result = run(*options)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def definition(*options: str) -> Dict[str, Any]:
    """The task definition for a plain account."""
    secret = [] if {"--backend", "--api-key-secret-arn"} & set(options) else [SECRET]
    more = ["--api-key-secret-arn", *secret] if secret else []
    parsed = json.loads(
        printed(
            *("--format", "task-definition", "--region", "eu-west-1"),
            *(*ROLES, *options, *more),
        )
    )
    assert isinstance(parsed, dict)
    return parsed


def agent_policy(*options: str) -> Dict[str, Any]:
    parsed = json.loads(printed("--format", "policy", *options))
    assert isinstance(parsed, dict)
    return parsed


# -- The task definition -------------------------------------------------------------


def test_the_task_definition_in_full() -> None:
    health = (
        "import http.client, sys; "
        "agent = http.client.HTTPConnection('127.0.0.1', 8080, timeout=4); "
        "agent.request('GET', '/api/health'); "
        "sys.exit(agent.getresponse().status != 200)"
    )
    assert definition("--label", "prod", "--label", "eu", "--launch-type", "EC2") == {
        "family": "prefect-agent",
        "requiresCompatibilities": ["FARGATE"],
        "networkMode": "awsvpc",
        "cpu": "256",
        "memory": "512",
        "runtimePlatform": {
            "cpuArchitecture": "X86_64",
            "operatingSystemFamily": "LINUX",
        },
        "taskRoleArn": ROLE("agent"),
        "executionRoleArn": ROLE("execution"),
        "containerDefinitions": [
            {
                "name": "agent",
                "image": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/"
                f"prefect-ecs-agent:{__version__}",
                "essential": True,
                "command": [
                    *("prefect", "agent", "ecs", "start"),
                    "--name=prefect-agent",
                    "--cluster=default",
                    "--agent-address=http://127.0.0.1:8080",
                    "--log-format=json",
                    "--flow-log-group=/ecs/prefect-flows",
                    "--run-task-kwargs=env://FLOW_RUN_TASK_KWARGS",
                    f"--execution-role-arn={ROLE('execution')}",
                    f"--api-key-secret-arn={SECRET}",
                    *("--label=prod", "--label=eu", "--launch-type=EC2"),
                ],
                "environment": [
                    {"name": "HOME", "value": "/tmp"},
                    {"name": "PREFECT__BACKEND", "value": "cloud"},
                    {
                        "name": "FLOW_RUN_TASK_KWARGS",
                        "value": "{networkConfiguration: {awsvpcConfiguration: "
                        "{subnets: [SUBNET], securityGroups: [FLOW_SECURITY_GROUP], "
                        "assignPublicIp: DISABLED}}}",
                    },
                ],
                "secrets": [{"name": "PREFECT__CLOUD__API_KEY", "valueFrom": SECRET}],
                "healthCheck": {
                    "command": ["CMD", "python", "-c", health],
                    "interval": 30,
                    "timeout": 5,
                    "retries": 3,
                    "startPeriod": 60,
                },
                "stopTimeout": 30,
                "user": "10001:10001",
                "readonlyRootFilesystem": True,
                "linuxParameters": {"capabilities": {"drop": ["ALL"]}},
                "mountPoints": [{"sourceVolume": "tmp", "containerPath": "/tmp"}],
                "logConfiguration": {
                    "logDriver": "awslogs",
                    "options": {
                        "awslogs-group": "/ecs/prefect-agent",
                        "awslogs-region": "eu-west-1",
                        "awslogs-stream-prefix": "prefect-agent",
                        "mode": "non-blocking",
                    },
                },
            }
        ],
        "volumes": [{"name": "tmp"}],
        "tags": [{"key": "prefect:agent", "value": "prefect-agent"}],
    }


def _start_options() -> Dict[str, Any]:
    from prefect_ecs_plugin.cli.start import start

    return {str(param.name): param for param in start.params}


@every_case
def test_ecs_takes_the_definition(options: List[str]) -> None:
    request = definition(*options)
    fitted, problems = coercion.coerce("RegisterTaskDefinition", request, strict=True)
    assert fitted == request
    assert problems == []
    assert rules.check_definition(request, "FARGATE") == []


@every_case
def test_the_agent_takes_its_command_line(options: List[str]) -> None:
    """What the container runs is what `start` parses."""
    from prefect_ecs_plugin.cli.start import start

    command = definition(*options)["containerDefinitions"][0]["command"]
    assert command[:4] == ["prefect", "agent", "ecs", "start"]
    context = start.make_context("start", list(command[4:]))
    assert context.params["name"] == "prefect-agent"
    given = [value for name, value in zip(options, options[1:]) if name == "--env"]
    assert list(context.params["env"]) == given


def test_the_format_of_the_log_is_passed_on() -> None:
    command = definition("--log-format", "text")["containerDefinitions"][0]["command"]
    assert [word for word in command if "log-format" in word] == ["--log-format=text"]


def test_every_option_of_the_agent_is_taken_or_refused() -> None:
    with install.make_context("install", []) as context:
        names = {param.name for param in install.get_params(context)}
    assert set(_start_options()) <= names


def test_the_shutdown_grace_moves_the_stop_timeout() -> None:
    if "shutdown_grace" not in _start_options():
        pytest.skip("this agent has no --shutdown-grace yet")
    container = definition("--shutdown-grace", "60")["containerDefinitions"][0]
    assert container["stopTimeout"] == 65
    assert "--shutdown-grace=60.0" in container["command"]


def test_the_commands_that_go_with_the_definition() -> None:
    result = run(
        *("--format", "task-definition", "--cluster", CLUSTER, *ROLES),
        *("--api-key-secret-arn", SECRET, *NETWORK, "--assign-public-ip", "DISABLED"),
        *("--alarm-topic", TOPIC),
    )
    assert "SECURITY_GROUP, FLOW_SECURITY_GROUP in it" in result.stderr
    lines = result.stderr.replace("\\\n", " ").split("\n\n")[1:]
    words = [shlex.split(line) for line in lines]
    assert [word[:3] for word in words] == [
        *(["aws", "logs", "create-log-group"], ["aws", "logs", "put-retention-policy"]),
        *(["aws", "logs", "create-log-group"], ["aws", "logs", "put-retention-policy"]),
        ["aws", "ecs", "register-task-definition"],
        ["aws", "ecs", "create-service"],
        ["aws", "cloudwatch", "put-metric-alarm"],
    ]
    assert "/ecs/prefect-flows" in words[2]
    alarm = dict(zip(words[6][3::2], words[6][4::2]))
    assert (alarm["--metric-name"], alarm["--threshold"]) == ("CPUUtilization", "1")
    assert (alarm["--alarm-actions"], alarm["--ok-actions"]) == (TOPIC, TOPIC)
    words[5].remove("--enable-ecs-managed-tags")
    options = dict(zip(words[5][3::2], words[5][4::2]))
    assert options == {
        "--propagate-tags": "SERVICE",
        "--tags": '[{"key": "prefect:agent", "value": "prefect-agent"}]',
        "--region": "eu-west-1",
        "--cluster": "flows",
        "--service-name": "prefect-agent",
        "--task-definition": "prefect-agent",
        "--desired-count": "1",
        "--launch-type": "FARGATE",
        "--deployment-configuration": json.dumps(
            {
                "deploymentCircuitBreaker": {"enable": True, "rollback": True},
                "maximumPercent": 200,
                "minimumHealthyPercent": 100,
            }
        ),
        "--network-configuration": json.dumps(
            {
                "awsvpcConfiguration": {
                    "subnets": SUBNETS.split(","),
                    "securityGroups": ["SECURITY_GROUP"],
                    "assignPublicIp": "DISABLED",
                }
            }
        ),
    }


class _Health(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/api/health" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.mark.parametrize("status, exit_code", [(200, 0), (503, 1)])
def test_the_health_check_asks_the_agent(status: int, exit_code: int) -> None:
    handler = type("Handler", (_Health,), {"status": status})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert _health_check(server.server_port) == exit_code
        server.shutdown()


def test_an_agent_that_does_not_answer_is_not_healthy() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), _Health) as server:
        port = server.server_port
    assert _health_check(port) == 1


def _health_check(port: int) -> int:
    """Run the check as the container would, a proxy notwithstanding."""
    address = f"http://127.0.0.1:{port}"
    container = definition("--agent-address", address)["containerDefinitions"][0]
    kind, program, *arguments = container["healthCheck"]["command"]
    assert (kind, program) == ("CMD", "python")
    return subprocess.run(
        [sys.executable, *arguments],
        env={"HTTP_PROXY": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1"},
        stderr=subprocess.DEVNULL,
        timeout=DEADLINE,
        check=False,
    ).returncode


# -- The policy ------------------------------------------------------------------------


def test_the_policy_in_full() -> None:
    task = "arn:aws:ecs:eu-west-1:123456789012:task/flows/*"
    families = [
        f"arn:aws:ecs:eu-west-1:123456789012:task-definition/{name}"
        for name in (
            "prefect-*-????????????????:*",
            "etl:*",
            "etl-????????????????:*",
            "team-*:*",
        )
    ]
    in_cluster = {"ArnLike": {"ecs:cluster": CLUSTER}}
    assert agent_policy(*CASES["roles and families"]) == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "LaunchTasks",
                "Effect": "Allow",
                "Action": ["ecs:RunTask"],
                "Resource": families,
                "Condition": in_cluster,
            },
            {
                "Sid": "RegisterTaskDefinitions",
                "Effect": "Allow",
                "Action": ["ecs:RegisterTaskDefinition"],
                "Resource": ["*"],
            },
            {
                "Sid": "FindTaskDefinitions",
                "Effect": "Allow",
                "Action": ["ecs:DescribeTaskDefinition"],
                "Resource": ["*"],
            },
            {
                "Sid": "WatchTasks",
                "Effect": "Allow",
                "Action": ["ecs:DescribeTasks"],
                "Resource": [task],
            },
            {
                "Sid": "FindTasks",
                "Effect": "Allow",
                "Action": ["ecs:ListTasks"],
                "Resource": ["*"],
                "Condition": in_cluster,
            },
            {
                "Sid": "StopTasks",
                "Effect": "Allow",
                "Action": ["ecs:StopTask"],
                "Resource": [task],
                "Condition": {
                    "StringLike": {"aws:ResourceTag/prefect:flow-run-id": "?*"}
                },
            },
            {
                "Sid": "TagWhatItCreates",
                "Effect": "Allow",
                "Action": ["ecs:TagResource"],
                "Resource": [*families, task],
                "Condition": {
                    "StringEquals": {
                        "ecs:CreateAction": ["RunTask", "RegisterTaskDefinition"]
                    }
                },
            },
            {
                "Sid": "SeeCluster",
                "Effect": "Allow",
                "Action": ["ecs:DescribeClusters"],
                "Resource": [CLUSTER],
            },
            {
                "Sid": "PassRolesToTasks",
                "Effect": "Allow",
                "Action": ["iam:PassRole"],
                "Resource": [ROLE("flow"), ROLE("ecs"), ROLE("path/other")],
                "Condition": {
                    "StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}
                },
            },
            {
                "Sid": "FindDefaultVpc",
                "Effect": "Allow",
                "Action": ["ec2:DescribeVpcs"],
                "Resource": ["*"],
            },
            {
                "Sid": "FindDefaultSubnets",
                "Effect": "Allow",
                "Action": ["ec2:DescribeSubnets"],
                "Resource": ["*"],
            },
            {
                "Sid": "ReadTaskLogs",
                "Effect": "Allow",
                "Action": ["logs:GetLogEvents"],
                "Resource": [
                    "arn:aws:logs:eu-west-1:123456789012:"
                    f"log-group:/ecs/{group}:log-stream:*"
                    for group in ("flows", "etl")
                ],
            },
        ],
    }


def test_without_an_account_the_policy_holds_in_every_one() -> None:
    resources = [
        resource
        for statement in agent_policy()["Statement"]
        for resource in statement["Resource"]
    ]
    assert "arn:aws:ecs:*:*:task-definition/prefect-*-????????????????:*" in resources


def _place() -> Placeholders:
    return Placeholders(
        partition="aws",
        region="eu-west-1",
        account="123456789012",
        cluster="flows",
        image="agent:1",
        cpu="256",
        memory="512",
        agent_role_arn=ROLE("agent"),
        execution_role_arn=ROLE("execution"),
        flow_execution_role_arn=ROLE("flow-execution"),
        log_group="/ecs/prefect-agent",
        flow_log_group="/ecs/prefect-flows",
        flow_subnets=SUBNETS,
        flow_security_groups="sg-0123456789abcdef1",
        flow_public_ip="DISABLED",
        api_key_arn=SECRET,
    )


_FULL = plan.Plan(
    name="prefect-agent",
    version="1",
    secret=SecretARN(SECRET),
    flow_roles=(ROLE("flow"),),
    families=("etl", "team-*"),
    log_groups=("/ecs/flows",),
    objects=("bucket/templates/etl.yaml",),
    follows_quota=True,
    reads_prices=True,
)
_PARAMETER = plan.Plan(name="a", version="1", secret=SecretARN(PARAMETER))


#: What the linter would have narrower and AWS refuses so, or the reverse. Its own
#: configuration excuses findings by their line in a file, and it counts no conditions:
#: this is narrower.
EXCUSED: List[Tuple[str, Any]] = [
    # AWS's reference gives it a resource by now, but what it is authorized for is `*`:
    # https://github.com/aws/containers-roadmap/issues/929
    ("RESOURCE_STAR", ["ecs:RegisterTaskDefinition"]),
    # Only a list of one container instance's tasks has a resource; the condition on
    # the cluster narrows ours. https://github.com/cdklabs/construct-hub/pull/1207
    ("RESOURCE_STAR", ["ecs:ListTasks"]),
    # AWS's reference gives it the resource by now, the linter's copy is older:
    # https://docs.aws.amazon.com/service-authorization/latest/reference/list_servicequotas.html
    (
        "RESOURCE_MISMATCH",
        [{"action": "servicequotas:GetServiceQuota", "required_format": "*"}],
    ),
]

#: Without them what is printed is read by these tests only.
LINTERS = "pip install 'prefect-ecs-plugin[dev]' brings the linters"


@pytest.mark.filterwarnings("ignore:pkg_resources:DeprecationWarning")
@pytest.mark.parametrize(
    "document",
    [
        policy.agent(_FULL, _place()),
        policy.execution(_FULL, _place()),
        policy.execution(_PARAMETER, replace(_place(), api_key_arn=PARAMETER)),
        policy.flow_execution(_FULL, _place()),
        agent_policy(),
    ],
    ids=["agent", "execution", "execution, parameter", "flows", "agent, any account"],
)
def test_the_iam_linter_finds_nothing(document: Dict[str, Any]) -> None:
    parliament = pytest.importorskip("parliament", reason=LINTERS)
    findings = parliament.analyze_policy_string(json.dumps(document)).findings
    found = [(finding.issue, finding.detail) for finding in findings]
    assert [entry for entry in found if entry not in EXCUSED] == []


def test_the_iam_linter_would_find_something() -> None:
    parliament = pytest.importorskip("parliament", reason=LINTERS)
    document = policy.agent(_FULL, _place())
    document["Statement"][0]["Action"] = ["ecs:RunTasks"]
    assert parliament.analyze_policy_string(json.dumps(document)).findings


# -- The policy, enforced --------------------------------------------------------------

Need = Tuple[str, str, Dict[str, str]]  # action, resource, condition keys


class Enforcer:
    """Refuses what a policy does not allow, as AWS does; a hook of the sandbox's AWS.

    moto's own enforcement knows neither `?` nor ArnLike, and does not see the calls
    that the sandbox answers itself.
    """

    arn = "arn:aws:{}:us-east-1:123456789012:{}".format

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.statements = document["Statement"]
        self.used: set[str] = set()
        self.tags_of: Callable[[str], Dict[str, str]] = lambda arn: {}
        self.refused: List[Need] = []

    def allows(self, need: Need) -> bool:
        return any(self._fits(statement, *need) for statement in self.statements)

    def _fits(
        self,
        statement: Mapping[str, Any],
        action: str,
        resource: str,
        keys: Mapping[str, str],
    ) -> bool:
        tests = [
            (keys.get(key, ""), [value] if isinstance(value, str) else value)
            for test in statement.get("Condition", {}).values()
            for key, value in test.items()
        ]
        return (
            action in statement["Action"]
            and _like(resource, statement["Resource"])
            and all(_like(actual, patterns) for actual, patterns in tests)
        )

    def __call__(self, operation: str, params: Dict[str, Any]) -> Any:
        from prefect_ecs_plugin.sandbox.aws import Fault

        for need in self.needs(operation, params):
            self.used.add(need[0])
            if not self.allows(need):
                self.refused.append(need)
                message = f"not authorized to perform: {need[0]} on {need[1]}"
                return Fault(error_code="AccessDeniedException", message=message)
        return None

    def needs(self, operation: str, params: Dict[str, Any]) -> Iterator[Need]:
        service, _, name = operation.partition(".")
        action = f"{service}:{name}"
        cluster = self._cluster(params)
        in_cluster = {"ecs:cluster": cluster}
        if name == "RunTask":
            yield action, params["taskDefinition"], in_cluster
            yield from self._tagging(
                name, cluster.replace(":cluster/", ":task/") + "/1"
            )
            yield from self._passing(params.get("overrides", {}))
        elif name == "RegisterTaskDefinition":
            yield action, "*", {}
            family = self.arn("ecs", f"task-definition/{params['family']}:1")
            yield from self._tagging(name, family)
            yield from self._passing(params)
        elif name == "DescribeTasks":
            for task in params["tasks"]:
                yield action, task, in_cluster
        elif name == "StopTask":
            tags = self.tags_of(params["task"])
            named = {f"aws:ResourceTag/{key}": value for key, value in tags.items()}
            yield action, params["task"], {**in_cluster, **named}
        elif name == "DescribeClusters":
            for cluster in params["clusters"]:
                yield action, self._cluster({"cluster": cluster}), {}
        elif name == "GetLogEvents":
            group, stream = params["logGroupName"], params["logStreamName"]
            yield action, self.arn("logs", f"log-group:{group}:log-stream:{stream}"), {}
        elif name == "GetObject":
            yield action, f"arn:aws:s3:::{params['Bucket']}/{params['Key']}", {}
        else:
            yield action, "*", in_cluster

    def _cluster(self, params: Mapping[str, Any]) -> str:
        cluster = params.get("cluster") or "default"
        return cluster if ":" in cluster else self.arn("ecs", f"cluster/{cluster}")

    def _tagging(self, action: str, resource: str) -> Iterator[Need]:
        yield "ecs:TagResource", resource, {"ecs:CreateAction": action}

    def _passing(self, holder: Mapping[str, Any]) -> Iterator[Need]:
        for key in ("taskRoleArn", "executionRoleArn"):
            if holder.get(key):
                to_tasks = {"iam:PassedToService": "ecs-tasks.amazonaws.com"}
                yield "iam:PassRole", holder[key], to_tasks


def _like(text: str, patterns: List[str]) -> bool:
    return any(fnmatch.fnmatchcase(text, pattern) for pattern in patterns)


TEMPLATE = {
    "family": "etl",
    "networkMode": "awsvpc",
    "cpu": 256,
    "memory": 512,
    "taskRoleArn": ROLE("flow"),
    "executionRoleArn": ROLE("ecs"),
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


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Prefect API and an AWS with a template on S3; this process sees that AWS."""
    pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")
    from world import World

    with World(tmp_path, runs_tasks=False).running() as world:
        for name, value in world.environment.items():
            if name.startswith("AWS_"):
                monkeypatch.setenv(name, value)
        s3 = world.aws.client("s3")
        s3.create_bucket(Bucket="templates")
        s3.put_object(Bucket="templates", Key="etl.yaml", Body=yaml.safe_dump(TEMPLATE))
        yield world


def _tags_of(ecs: Any, task_arn: str) -> Dict[str, str]:
    answer = ecs.describe_tasks(tasks=[task_arn], include=["TAGS"])
    return {tag["key"]: tag["value"] for tag in answer["tasks"][0]["tags"]}


def test_with_its_policy_the_agent_can_do_all_it_does_and_nothing_else(
    world: Any,
) -> None:
    from prefect import Flow
    from world import eventually

    from prefect_ecs_plugin.sandbox.aws import Hold

    options = ["--task-definition", "s3://templates/etl.yaml"]
    cluster = Enforcer.arn("ecs", "cluster/default")
    document = agent_policy("--cluster", cluster, *options)
    enforcer = world.aws.fault = Enforcer(document)
    enforcer.tags_of = lambda arn: _tags_of(world.aws.client("ecs"), arn)
    with Flow("enforced") as flow:
        pass
    flow_id = world.register(flow)
    failing, cancelled = (
        world.api.store.create_flow_run(flow_id=flow_id) for _ in range(2)
    )

    def task_of(run_id: str, status: str) -> Any:
        found = [t for t in world.tasks_of(run_id) if t.last_status == status]
        return found and found[-1]

    command = [*options, "--cluster", "default", "--name", "enforced"]
    with world.quick_agent(*command) as agent:
        task = eventually(lambda: task_of(failing, "RUNNING"))
        eventually(lambda: task_of(cancelled, "RUNNING"))
        os.kill(agent._process.pid, signal.SIGKILL)
        agent._process.wait(timeout=DEADLINE)
    with world.quick_agent(*command):  # finds both again
        eventually(lambda: "ecs:ListTasks" in enforcer.used)
        eventually(lambda: "ecs:DescribeTasks" in enforcer.used)
        world.aws.finish(task.task_arn, exit_code=1)
        assert world.finished([failing]) == ["Failed"]
        world.aws.before_start = lambda _: Hold()
        late = world.api.store.create_flow_run(flow_id=flow_id)
        eventually(lambda: task_of(late, "PENDING"))
        world.client.cancel_flow_run(late)
        assert eventually(lambda: task_of(late, "STOPPED"))
    assert enforcer.refused == []
    allowed = {
        action for statement in document["Statement"] for action in statement["Action"]
    }
    assert enforcer.used == allowed


@pytest.mark.parametrize(
    "action, resource, keys",
    [
        ("ecs:RunTask", "task-definition/other-0123456789abcdef:1", "cluster/flows"),
        ("ecs:RunTask", "task-definition/prefect-agent:1", "cluster/flows"),
        ("ecs:RunTask", "task-definition/etl-0123456789abcdef:1", "cluster/other"),
        ("ecs:StopTask", "task/other/0123", "cluster/other"),
        ("ecs:StopTask", "task/flows/0123", "cluster/flows"),  # without a run's tag
        ("ecs:ListTasks", "*", "cluster/other"),
        ("ecs:DescribeClusters", "cluster/other", "cluster/flows"),
        ("ecs:DeregisterTaskDefinition", "*", "cluster/flows"),
        ("iam:PassRole", ROLE("admin"), "cluster/flows"),
        ("s3:GetObject", "arn:aws:s3:::bucket/templates/other.yaml", "cluster/flows"),
        ("secretsmanager:GetSecretValue", SECRET, "cluster/flows"),
        (
            "servicequotas:GetServiceQuota",
            "arn:aws:servicequotas:eu-west-1:123456789012:ec2/L-1216C47A",
            "cluster/flows",
        ),
    ],
)
def test_the_policy_allows_nothing_besides(
    action: str, resource: str, keys: str
) -> None:
    arn = "arn:aws:ecs:eu-west-1:123456789012:{}".format
    whole = resource if resource[:4] in ("*", "arn:") else arn(resource)
    context = {
        "ecs:cluster": arn(keys),
        "iam:PassedToService": "ecs-tasks.amazonaws.com",
    }
    enforcer = Enforcer(policy.agent(_FULL, _place()))
    assert not enforcer.allows((action, whole, context))
    assert enforcer.allows(
        (
            "ecs:RunTask",
            arn("task-definition/etl-0123456789abcdef:1"),
            {"ecs:cluster": arn("cluster/flows")},
        )
    )


def test_a_role_is_passed_to_tasks_only() -> None:
    enforcer = Enforcer(policy.agent(_FULL, _place()))
    for service, allowed in (("ecs-tasks", True), ("lambda", False)):
        key = {"iam:PassedToService": f"{service}.amazonaws.com"}
        assert enforcer.allows(("iam:PassRole", ROLE("flow"), key)) is allowed


# -- What the agent's files say --------------------------------------------------------


def test_the_template_says_what_the_policy_has_to_name(world: Any) -> None:
    document = agent_policy(
        *("--task-definition", "s3://templates/etl.yaml", "--region", "us-east-1")
    )
    by_sid = {statement["Sid"]: statement for statement in document["Statement"]}
    assert by_sid["LaunchTasks"]["Resource"][1:] == [
        "arn:aws:ecs:us-east-1:*:task-definition/etl:*",
        "arn:aws:ecs:us-east-1:*:task-definition/etl-????????????????:*",
    ]
    assert by_sid["PassRolesToTasks"]["Resource"] == [ROLE("flow"), ROLE("ecs")]
    assert by_sid["ReadTaskLogs"]["Resource"] == [
        f"arn:aws:logs:us-east-1:*:log-group:/ecs/{group}:log-stream:*"
        for group in ("prefect-flows", "flows")
    ]
    assert by_sid["ReadFiles"]["Resource"] == ["arn:aws:s3:::templates/etl.yaml"]
    assert "FindDefaultVpc" in by_sid


@pytest.mark.parametrize(
    "kwargs, infers",
    [
        ({"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["s"]}}}, False),
        ({"launchType": "EC2"}, True),  # the packaged template is awsvpc
        ({"enableExecuteCommand": True}, True),
    ],
)
def test_the_default_vpc_is_looked_for_only_where_no_network_is_given(
    world: Any, kwargs: Dict[str, Any], infers: bool
) -> None:
    body = yaml.safe_dump(kwargs)
    world.aws.client("s3").put_object(Bucket="templates", Key="kwargs", Body=body)
    document = agent_policy("--run-task-kwargs", "s3://templates/kwargs")
    sids = [statement["Sid"] for statement in document["Statement"]]
    assert ("FindDefaultVpc" in sids) is infers


def test_flows_run_in_the_subnets_of_the_service() -> None:
    sids = [statement["Sid"] for statement in agent_policy(*NETWORK)["Statement"]]
    assert "FindDefaultVpc" not in sids
    for options, network in (
        (
            [],
            "[SUBNET], securityGroups: [FLOW_SECURITY_GROUP], assignPublicIp: ENABLED",
        ),
        (
            [*NETWORK, *FLOW_GROUPS, "--assign-public-ip", "DISABLED"],
            f"[{SUBNETS}], securityGroups: [sg-0123456789abcdef1], "
            "assignPublicIp: DISABLED",
        ),
        (
            CASES["a network for flows"],
            "[subnet-0123456789abcdef1], securityGroups: [sg-0123456789abcdef1], "
            "assignPublicIp: DISABLED",
        ),
    ):
        assert _kwargs_of_flows(*options) == (
            "{networkConfiguration: {awsvpcConfiguration: {subnets: " + network + "}}}"
        )


def test_the_agent_reads_the_network_of_its_flows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It asks AWS for no other: no client is needed."""
    from prefect_ecs_plugin.config import configuration

    (container,) = definition(*NETWORK)["containerDefinitions"]
    for entry in container["environment"]:
        monkeypatch.setenv(entry["name"], entry["value"])
    (path,) = (
        word.partition("=")[2]
        for word in container["command"]
        if word.startswith("--run-task-kwargs=")
    )
    read = configuration.settings_reader(
        lambda service: pytest.fail(f"asks {service}"),
        logging.getLogger("test"),
        run_task_kwargs_path=path,
    )
    assert read().run_task_kwargs == {
        "networkConfiguration": {
            "awsvpcConfiguration": {
                "subnets": SUBNETS.split(","),
                "securityGroups": ["FLOW_SECURITY_GROUP"],
                "assignPublicIp": "ENABLED",
            }
        }
    }


def _kwargs_of_flows(*options: str) -> Optional[str]:
    (container,) = definition(*options)["containerDefinitions"]
    variables = {entry["name"]: entry["value"] for entry in container["environment"]}
    return variables.get("FLOW_RUN_TASK_KWARGS")


def test_run_task_kwargs_of_the_user_are_the_network_of_flows(world: Any) -> None:
    body = yaml.safe_dump({"enableExecuteCommand": True})
    world.aws.client("s3").put_object(Bucket="templates", Key="kwargs", Body=body)
    options = ["--run-task-kwargs", "s3://templates/kwargs"]
    assert _kwargs_of_flows(*options) is None
    assert "FlowSecurityGroup" not in template(*options)["Resources"]
    (line,) = run(*options).stderr.splitlines()
    assert code_of(line) == "flows-in-default-vpc"


def test_a_file_that_would_stop_the_agent_stops_the_install(world: Any) -> None:
    s3 = world.aws.client("s3")
    s3.put_object(Bucket="templates", Key="bad", Body=b"netWorkMode: awsvpc")
    result = run("--task-definition", "s3://templates/bad")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: s3://templates/bad: netWorkMode: ")
    assert "'networkMode'" in line
    assert code_of(line) == "unknown-key"


@pytest.mark.parametrize(
    "path", ["s3://templates/nothing", "http://127.0.0.1:9/x.yaml", "agent:///x.yaml"]
)
def test_a_file_that_cannot_be_read_from_here_is_told(world: Any, path: str) -> None:
    result = run("--task-definition", path)
    assert result.exit_code == 0
    (line,) = result.stderr.splitlines()
    assert code_of(line) == "policy-without-file"
    for value in ("--task-definition", path, "--family", "--read-log-group"):
        assert value in line
    command = yaml.load(result.stdout, Loader=_Loader)["Resources"]["TaskDefinition"]
    properties = command["Properties"]["ContainerDefinitions"][0]
    assert f"--task-definition={path}" in properties["Command"]


def test_limits_and_prices_need_what_only_they_need(world: Any) -> None:
    s3 = world.aws.client("s3")
    s3.put_object(Bucket="templates", Key="limits", Body=b"total: 50")
    options = [
        *("--limits", "s3://templates/limits", "--max-vcpus", "quota"),
        *("--prices", "aws", "--limit", "flow=etl:2"),
    ]
    document = agent_policy(*options, "--cluster", CLUSTER)
    by_sid = {each["Sid"]: each["Resource"] for each in document["Statement"]}
    assert by_sid["ReadFiles"] == ["arn:aws:s3:::templates/limits"]
    assert by_sid["ReadQuotas"] == [
        f"arn:aws:servicequotas:eu-west-1:123456789012:fargate/{code}"
        for code in ("L-3032A538", "L-36FBB829")
    ]
    assert by_sid["ReadUsage"] == by_sid["ReadPrices"] == ["*"]
    (container,) = definition(*options)["containerDefinitions"]
    passed = {f"{name}={value}" for name, value in zip(options[::2], options[1::2])}
    assert passed <= {*container["command"]}
    sids = {each["Sid"] for each in agent_policy("--max-vcpus", "8")["Statement"]}
    assert not sids & {"ReadFiles", "ReadQuotas", "ReadUsage", "ReadPrices"}


@pytest.mark.parametrize(
    "path, exit_code, code",
    [
        ("s3://templates/conflict", 1, "conflicting-limits"),
        ("s3://templates/nothing", 0, "limits-not-checked"),
        ("agent:///etc/limits.yaml", 0, None),
    ],
)
def test_a_file_of_limits_is_read(
    world: Any, path: str, exit_code: int, code: Optional[str]
) -> None:
    s3 = world.aws.client("s3")
    s3.put_object(Bucket="templates", Key="conflict", Body=b"total: 50")
    result = run("--limits", path, "--limit", "40")
    assert result.exit_code == exit_code
    told = [(code_of(line), path in line) for line in result.stderr.splitlines()]
    assert told == ([(code, True)] if code else [])


# -- CloudFormation --------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """Reads `!Ref` and its like in their long form."""


def _long_form(loader: Any, suffix: str, node: Any) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return {f"Fn::{suffix}": loader.construct_sequence(node, deep=True)}
    value = loader.construct_scalar(node)
    if suffix == "GetAtt":
        return {"Fn::GetAtt": value.split(".")}
    return {suffix if suffix == "Ref" else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _long_form)


def template(*options: str) -> Dict[str, Any]:
    parsed = yaml.load(printed(*options), Loader=_Loader)
    assert isinstance(parsed, dict)
    return parsed


def resolved(value: Any, names: Mapping[str, str]) -> Any:
    """The template's functions, worked out."""
    if isinstance(value, list):
        return [resolved(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((name, argument),) = value.items()
        if name == "Ref":
            return names[argument]
        if name == "Fn::GetAtt":
            return names[".".join(argument)]
        if name == "Fn::Sub":
            text, lists = (argument, {}) if isinstance(argument, str) else argument
            known = {**names, **resolved(lists, names)}
            return re.sub(r"\$\{([^}]+)\}", lambda found: known[found[1]], text)
        if name == "Fn::Join":  # lists in `names` are joined already
            values = resolved(argument[1], names)
            return values if isinstance(values, str) else argument[0].join(values)
    return {key: resolved(item, names) for key, item in value.items()}


def names_of(body: Mapping[str, Any]) -> Dict[str, Any]:
    """What the account and the parameters' defaults say."""
    defaults = {
        name: parameter.get("Default", "")
        for name, parameter in body["Parameters"].items()
    }
    return {
        **defaults,
        "Subnets": defaults["Subnets"] or "SUBNET",
        "FlowSecurityGroup.GroupId": "FLOW_SECURITY_GROUP",
        "FlowExecutionRole.Arn": ROLE("execution"),  # the JSON formats have one role
        "FlowLogGroup": "/ecs/prefect-flows",
        "AWS::Partition": "aws",
        "AWS::Region": "eu-west-1",
        "AWS::AccountId": "123456789012",
        "AWS::URLSuffix": "amazonaws.com",
        "AgentRole.Arn": ROLE("agent"),
        "ExecutionRole.Arn": ROLE("execution"),
        "LogGroup": "/ecs/prefect-agent",
        "ApiKeySecret": SECRET,
    }


@pytest.fixture(scope="module")
def cfn_lint() -> Callable[[str], List[str]]:
    """What cfn-lint finds in a template. Its rules take as long to load as to apply."""
    api = pytest.importorskip("cfnlint.api", reason=LINTERS)
    config = {"regions": ["us-east-1", "eu-central-1"], "include_checks": ["I"]}
    rules = api.Runner(api.ConfigMixIn(**config)).rules
    return lambda text: [str(found) for found in api.lint(text, rules, config=config)]


@each_kind
def test_cfn_lint_finds_nothing(
    options: List[str], cfn_lint: Callable[[str], List[str]]
) -> None:
    assert cfn_lint(printed(*options)) == []


@pytest.mark.parametrize(
    "right, wrong",
    [
        ("NetworkMode: awsvpc", "NetworkMode: awsvpce"),
        ("${AWS::Partition}", "aws"),  # what is but informational is seen too
    ],
)
def test_cfn_lint_would_find_something(
    right: str, wrong: str, cfn_lint: Callable[[str], List[str]]
) -> None:
    assert cfn_lint(printed().replace(right, wrong))


@every_case
def test_the_same_definition_in_every_format(options: List[str]) -> None:
    body = template(*options)
    properties = body["Resources"]["TaskDefinition"]["Properties"]
    assert resolved(properties, names_of(body)) == cloudformation.pascal(
        definition(*options)
    )


@every_case
def test_the_same_policy_in_every_format(options: List[str]) -> None:
    body = template(*options)
    properties = body["Resources"]["AgentRole"]["Properties"]
    document = resolved(properties["Policies"][0]["PolicyDocument"], names_of(body))
    place = ["--agent-execution-role-arn", ROLE("execution"), "--region", "eu-west-1"]
    assert document == agent_policy(*options, *place, "--subnets", SUBNETS)


def test_yaml_and_data_are_the_same() -> None:
    data = cloudformation.template(_FULL)
    assert yaml.load(cloudformation.dump(data), Loader=_Loader) == data


def test_the_stack_brings_up_service_network_and_roles(world: Any) -> None:
    # moto's CloudFormation, which the sandbox does not need, imports it.
    pytest.importorskip("openapi_spec_validator", reason=LINTERS)
    ec2 = world.aws.client("ec2")
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    subnets = [subnet["SubnetId"] for subnet in ec2.describe_subnets()["Subnets"]]
    network = ["--vpc-id", vpc, "--subnets", ",".join(subnets)]
    text = printed(*network, "--api-key-secret-arn", SECRET, "--label", "prod")
    cloudformation_client = world.aws.client("cloudformation")
    cloudformation_client.create_stack(
        StackName="agent",
        TemplateBody=text,
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[  # moto splits lists that are given, but not those of a Default
            {"ParameterKey": "Subnets", "ParameterValue": ",".join(subnets)}
        ],
    )
    (stack,) = cloudformation_client.describe_stacks(StackName="agent")["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    outputs = {entry["OutputKey"]: entry["OutputValue"] for entry in stack["Outputs"]}
    assert sorted(outputs) == [
        *("AgentRoleArn", "ExecutionRoleArn", "FlowExecutionRoleArn"),
        *("FlowLogGroupName", "FlowSecurityGroupId", "LogGroupName"),
        *("SecurityGroupId", "ServiceName"),
    ]
    ecs = world.aws.client("ecs")
    (service,) = ecs.describe_services(services=["prefect-agent"])["services"]
    assert (service["status"], service["desiredCount"]) == ("ACTIVE", 1)
    assert service["taskDefinition"].endswith(":task-definition/prefect-agent:1")
    groups = world.aws.client("logs").describe_log_groups()["logGroups"]
    assert [(each["logGroupName"], each["retentionInDays"]) for each in groups] == [
        ("/ecs/prefect-agent", 30),
        ("/ecs/prefect-flows", 30),
    ]
    roles = {role["Arn"] for role in world.aws.client("iam").list_roles()["Roles"]}
    assert {outputs["AgentRoleArn"], outputs["ExecutionRoleArn"]} <= roles
    (made,) = ec2.describe_security_groups(GroupIds=[outputs["SecurityGroupId"]])[
        "SecurityGroups"
    ]
    assert (made["VpcId"], made["IpPermissions"]) == (vpc, [])
    from moto.ecs.models import ecs_backends  # the sandbox has definitions of its own

    backend = ecs_backends["123456789012"]["us-east-1"]
    (container,) = backend.task_definitions["prefect-agent"][1].container_definitions
    variables = {entry["name"]: entry["value"] for entry in container["environment"]}
    assert yaml.safe_load(variables["FLOW_RUN_TASK_KWARGS"]) == {
        "networkConfiguration": {
            "awsvpcConfiguration": {
                "subnets": subnets,
                "securityGroups": [outputs["FlowSecurityGroupId"]],
                "assignPublicIp": "ENABLED",
            }
        }
    }


def test_ecs_takes_definition_and_service_of_the_template(world: Any) -> None:
    """moto's CloudFormation checks neither; the strict layer does."""
    ecs, ec2 = world.aws.client("ecs"), world.aws.client("ec2")
    subnets = [subnet["SubnetId"] for subnet in ec2.describe_subnets()["Subnets"]]
    group = ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]
    ecs.register_task_definition(**definition())
    body = template(*NETWORK, "--api-key-secret-arn", SECRET)
    names = {
        **names_of(body),
        "TaskDefinition": "prefect-agent",
        "Subnets": subnets,
        "SecurityGroup.GroupId": group,
    }
    properties = resolved(body["Resources"]["Service"]["Properties"], names)
    answer = ecs.create_service(**_camel(properties))
    assert answer["service"]["networkConfiguration"] == {
        "awsvpcConfiguration": {
            "subnets": subnets,
            "securityGroups": [group],
            "assignPublicIp": "ENABLED",
        }
    }


def _camel(value: Any) -> Any:
    if isinstance(value, list):
        return [_camel(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key[0].lower() + key[1:]: _camel(item) for key, item in value.items()}


def test_no_agent_starts_before_its_key_is_there() -> None:
    body = template(*NETWORK)
    assert body["Parameters"]["DesiredCount"]["Default"] == 0
    assert body["Resources"]["ApiKeySecret"]["Properties"] == {
        "Description": "The API key of the Prefect agent prefect-agent",
        "Tags": [{"Key": "prefect:agent", "Value": "prefect-agent"}],
    }
    assert "ApiKeySecretArn" in body["Outputs"]
    assert "put-secret-value" in printed(*NETWORK)


def test_a_server_needs_no_key() -> None:
    body = template(*CASES["a server"])
    assert body["Parameters"]["DesiredCount"]["Default"] == 1
    assert "ApiKeySecret" not in body["Resources"]
    container = body["Resources"]["TaskDefinition"]["Properties"][
        "ContainerDefinitions"
    ][0]
    assert "Secrets" not in container
    backend = {"Name": "PREFECT__BACKEND", "Value": "server"}
    assert container["Environment"][:2] == [{"Name": "HOME", "Value": "/tmp"}, backend]


def test_the_security_group_lets_nothing_in_and_https_and_the_api_out() -> None:
    body = template(*CASES["a server"])
    properties = body["Resources"]["SecurityGroup"]["Properties"]
    assert "SecurityGroupIngress" not in properties
    assert [
        (rule["FromPort"], rule["ToPort"], rule.get("CidrIp") or rule["CidrIpv6"])
        for rule in properties["SecurityGroupEgress"]
    ] == [
        *((443, 443, "0.0.0.0/0"), (443, 443, "::/0")),
        *((4200, 4200, "0.0.0.0/0"), (4200, 4200, "::/0")),
    ]


def test_every_parameter_and_output_is_described() -> None:
    for name in DIFFERING:
        body = template(*CASES[name])
        for entry in (*body["Parameters"].values(), *body["Outputs"].values()):
            assert entry["Description"].endswith(".")


# -- Terraform -------------------------------------------------------------------------

#: What of the template is which resource of the provider's.
SAME: Dict[str, Tuple[str, ...]] = {
    "AWS::Logs::LogGroup": ("aws_cloudwatch_log_group",),
    "AWS::SecretsManager::Secret": ("aws_secretsmanager_secret",),
    "AWS::IAM::Role": ("aws_iam_role", "aws_iam_role_policy"),
    "AWS::EC2::SecurityGroup": ("aws_security_group",),
    "AWS::ECS::TaskDefinition": ("aws_ecs_task_definition",),
    "AWS::ECS::Service": ("aws_ecs_service",),
    "AWS::CloudWatch::Alarm": ("aws_cloudwatch_metric_alarm",),
}


@each_kind
def test_terraform_fmt_changes_nothing(options: List[str], tmp_path: Path) -> None:
    terraform = shutil.which("terraform")
    if terraform is None:
        pytest.skip("terraform is not installed")
    file = tmp_path / "agent.tf"
    file.write_text(printed("--format", "terraform", *options), encoding="utf-8")
    done = subprocess.run(
        [terraform, "fmt", "-check", "-diff", str(file)],
        env={"HOME": str(tmp_path), "CHECKPOINT_DISABLE": "1"},
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


@each_kind
def test_terraform_makes_the_same_resources(options: List[str]) -> None:
    parsed = _parsed(printed("--format", "terraform", *options))
    kinds = {_bare(kind) for block in parsed["resource"] for kind in block}
    made = template(*options)["Resources"].values()
    assert kinds == {same for resource in made for same in SAME[resource["Type"]]}
    names = {_bare(name) for block in parsed["variable"] for name in block}
    text = printed("--format", "terraform", *options)
    used = set(re.findall(r"(?<!\$\$\{)\bvar\.(\w+)", text))
    assert used == names


def _parsed(text: str) -> Dict[str, Any]:
    hcl2 = pytest.importorskip("hcl2", reason=LINTERS)
    parsed = hcl2.loads(text)
    assert isinstance(parsed, dict)
    return parsed


def _bare(name: str) -> str:
    return name.strip('"')


@pytest.mark.parametrize(
    "value, text",
    [
        ("plain", '"plain"'),
        ("${var.x} %{if}", '"$${var.x} %%{if}"'),
        (Reference("${var.x}"), "var.x"),
        (Reference("a-${var.x}"), '"a-${var.x}"'),
        ('quoted "text" \\ \n', '"quoted \\"text\\" \\\\ \\n"'),
        (terraform._Expression("var.x"), "var.x"),
        (True, "true"),
        (None, "null"),
        (1, "1"),
        ([], "[]"),
        (["a", 1], '["a", 1]'),
        ({}, "{}"),
        ({"a": 1, "b:c": [{"d": 2}]}, '{\n  a = 1\n  "b:c" = [\n    {\n      d = 2\n'
         "    },\n  ]\n}"),
    ],
)  # fmt: skip
def test_values_in_hcl(value: Any, text: str) -> None:
    assert "\n".join(terraform.hcl(value)) == text


# -- What is refused -------------------------------------------------------------------


REFUSED = "refused-option"
FORM = "invalid-option-value"
CONFLICT = "conflicting-options"


@pytest.mark.parametrize(
    "options, code, values",
    [
        (["--key", "pcu_secret"], REFUSED, ["--key "]),
        (["--key-from-secret", SECRET], REFUSED, ["--key-from-secret"]),
        (["--max-polls", "3"], REFUSED, ["--max-polls"]),
        (["--format", "yaml"], "", ["'yaml'"]),
        (["--subnets", "subnet-1"], FORM, ["'subnet-1'", "subnet-01234"]),
        (["--vpc-id", "default"], FORM, ["'default'", "vpc-01234"]),
        (["--security-groups", "sg"], FORM, ["'sg'", "sg-01234"]),
        (["--name", "my agent"], FORM, ["'my agent'"]),
        (["--shutdown-grace", "inf"], FORM, ["inf "]),
        (["--launches-per-second", "nan"], FORM, ["nan "]),
        (["--env", "NAME"], FORM, ["value 1 of 1", "NAME=value"]),
        (["--vpc-id", f"{VPC},vpc-0fedcba9876543210"], "several-vpcs", ["--vpc-id"]),
        (["--cluster", "a b"], FORM, ["--cluster", "'a b'"]),
        (["--cpu", "256", "--memory", "4096"], "fargate-size", ["256", "4096"]),
        (["--cpu", "many"], "fargate-size", ["many"]),
        (["--api-key-secret-arn", "prefect"], None, ["--api-key-secret-arn"]),
        (["--api-key-secret-arn", SECRET[:-7]], None, [SECRET[:-7]]),
        (["--task-role-arn", "flow"], FORM, ["--task-role-arn", "'flow'"]),
        (["--pass-role", "*"], FORM, ["--pass-role", "'*'"]),
        (["--family", "a/b"], FORM, ["--family", "'a/b'"]),
        (["--log-kms-key", "alias/logs"], FORM, ["--log-kms-key", "'alias/logs'"]),
        (["--agent-address", "8080"], "no-port", ["'8080'"]),
        (["--agent-address", "http://10.0.0.1:80"], FORM, ["'http://10.0.0.1:80'"]),
        (["--agent-address", "http://127.0.0.1:99999"], "no-port", ["99999"]),
        (["--task-definition", "t.yaml"], "local-file", ["--task-definition: t.yaml"]),
        (["--run-task-kwargs", "file:///k"], "local-file", ["file:///k"]),
        (["--limits", "l.yaml"], "local-file", ["--limits: l.yaml"]),
        (["--task-definition", "ftp://x/y"], "unknown-scheme", ["'ftp'", "s3, gs"]),
        (["--api", "http://x:port"], "invalid-url", ["http://x:port"]),
        (["--api", "prefect:4200"], FORM, ["--api", "'prefect:4200'"]),
        (["--api", "htp://x"], FORM, ["--api", "'htp://x'"]),
        (["--tenant-id", "acme"], FORM, ["--tenant-id", "'acme'"]),
        (["--image", "agent 1"], FORM, ["--image", "'agent 1'"]),
        (["--image", "agent@sha256:12"], FORM, ["--image", "'agent@sha256:12'"]),
        (["--tag", "team"], FORM, ["--tag", "'team'"]),
        (["--tag", "aws:team=a"], FORM, ["--tag", "'aws:team=a'"]),
        (["--alarm-topic", "alarms"], FORM, ["--alarm-topic", "'alarms'"]),
        (["--flow-repository", "A b"], FORM, ["--flow-repository", "'A b'"]),
        (["--read-log-group", ""], FORM, ["--read-log-group", "''"]),
        (["--flow-subnets", "subnet-1"], FORM, ["'subnet-1'", "subnet-01234"]),
        (
            ["--flow-subnets", SUBNETS, "--run-task-kwargs", "s3://b/k"],
            CONFLICT,
            ["--flow-subnets", "--run-task-kwargs"],
        ),
        (
            ["--flow-assign-public-ip", "ENABLED", "--launch-type", "EC2"],
            CONFLICT,
            ["--flow-assign-public-ip", "--launch-type EC2"],
        ),
        (["--diff", "/no/such/file"], "unreadable-file", ["/no/such/file"]),
        (["--flow-log-group", ""], "invalid-log-group", ["--flow-log-group", "''"]),
        (["--flow-log-group", "/a*"], "invalid-log-group", ["'/a*'"]),
        (["--format", "policy", "--region", "eu west"], FORM, ["'eu west'"]),
        (
            ["--format", "policy", "--region", "us-east-1", "--cluster", CLUSTER],
            CONFLICT,
            ["--region us-east-1", "--cluster", "eu-west-1"],
        ),
        (["--backend", "server"], "missing-option", ["--backend server", "--api"]),
        (
            [*CASES["a server"], "--tenant-id", "t"],
            CONFLICT,
            ["--backend server", "--tenant-id"],
        ),
        (
            ["--agent-role-arn", ROLE("agent")],
            CONFLICT,
            ["--agent-role-arn", "--format cloudformation"],
        ),
        (
            ["--format", "terraform", "--agent-execution-role-arn", ROLE("e")],
            CONFLICT,
            ["--agent-execution-role-arn", "--format terraform"],
        ),
        (
            ["--format", "terraform", "--region", "eu-west-1"],
            CONFLICT,
            ["--region", "--format terraform"],
        ),
        (
            ["--format", "policy", "--agent-role-arn", ROLE("agent")],
            CONFLICT,
            ["--agent-role-arn", "--format policy"],
        ),
        (
            ["--format", "task-definition", *ROLES],
            "missing-option",
            ["--format task-definition", "--region"],
        ),
        (
            ["--format", "task-definition", "--region", "eu-west-1"],
            "missing-option",
            ["--format task-definition", "--agent-role-arn"],
        ),
        (
            ["--format", "task-definition", "--region", "eu-west-1", *ROLES],
            "missing-option",
            ["--format task-definition", "--api-key-secret-arn"],
        ),
    ],
)
def test_bad_options_are_one_line(
    options: List[str], code: Optional[str], values: List[str]
) -> None:
    """None stands for the code of an error that another module raises."""
    result = run(*options)
    assert result.exit_code in (1, 2)
    assert result.stdout == ""
    (said,) = [line for line in result.stderr.splitlines() if line[:7] == "Error: "]
    assert code is None or code_of(said) == code
    for value in values:
        assert value in said
    assert "pcu_secret" not in said


def test_the_region_of_the_environment_counts_only_where_none_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    document = agent_policy("--cluster", CLUSTER)
    assert CLUSTER in json.dumps(document)
    assert "us-east-1" not in json.dumps(document)
    monkeypatch.setenv("AWS_REGION", "eu west")
    result = run("--format", "policy")
    assert code_of(result.stderr.rstrip()) == FORM
    assert "--region: 'eu west'" in result.stderr


def test_fargate_does_not_wait_for_ever() -> None:
    assert plan.stop_timeout(25) == 30
    assert plan.stop_timeout(115) == 120
    with raises_code("shutdown-grace-too-long", ConfigurationError) as raised:
        plan.stop_timeout(116)
    assert "115" in str(raised.value)


@pytest.mark.parametrize(
    "options, code, values",
    [
        (
            [*CASES["a parameter"], "--execution-role-arn", ROLE("ecs")],
            "role-reads-key",
            ["--execution-role-arn", "ssm:GetParameters"],
        ),
        (["--env", "DB_PASSWORD=x"], "plain-text-secret", ["--env DB_PASSWORD"]),
        (["--env", "GITHUB_PAT=x"], "plain-text-secret", ["--env GITHUB_PAT"]),
        (
            ["--backend", "server", "--api", "http://localhost:4200"],
            "loopback-api",
            ["--api http://localhost:4200"],
        ),
        (
            [*CASES["security groups"], "--vpc-id", VPC, *FLOW_GROUPS],
            "unused-option",
            ["--vpc-id"],
        ),
        (
            ["--execution-role-arn", ROLE("ecs"), "--name", "etl"],
            "role-writes-log",
            ["--execution-role-arn", "/ecs/etl-flows"],
        ),
        (["--format", "policy"], "no-roles-to-pass", ["--pass-role"]),
    ],
)
def test_a_probable_mistake_is_a_warning(
    options: List[str], code: str, values: List[str]
) -> None:
    result = run(*options)
    assert result.exit_code == 0
    (line,) = [each for each in result.stderr.splitlines() if code_of(each) == code]
    for value in values:
        assert value in line


@pytest.mark.parametrize("output", ["cloudformation", "terraform", "policy"])
@every_case
def test_equal_options_give_equal_text(output: str, options: List[str]) -> None:
    assert printed("--format", output, *options) == printed(
        "--format", output, *options
    )


@pytest.mark.parametrize("output", ["cloudformation", "terraform", "policy"])
def test_no_key_of_this_machine_is_printed(
    output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import prefect
    from prefect.utilities.configuration import set_temporary_config

    monkeypatch.setenv("PREFECT__CLOUD__API_KEY", "pcu_of_this_machine")
    with set_temporary_config({"cloud.api_key": "pcu_of_this_machine"}):
        assert prefect.config.cloud.api_key == "pcu_of_this_machine"
        result = run("--format", output)
    assert result.exit_code == 0
    assert "pcu_" not in result.output


def test_importing_the_command_imports_nothing_heavy() -> None:
    code = (
        "import sys, prefect_ecs_plugin.cli.install.command; "
        "print(sorted({'boto3', 'botocore', 'prefect', 'yaml', 'requests'} "
        "& set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    assert done.stdout == "[]\n"


def test_the_docs_build_the_image_that_the_templates_name() -> None:
    docs = Path(__file__).parents[2] / "docs"
    if not docs.exists():
        pytest.skip("the docs are not installed")
    text = (docs / "production.md").read_text(encoding="utf-8")
    assert f"/{plan.IMAGE_REPOSITORY}:" in text
    dockerfile = (docs / "Dockerfile").read_text(encoding="utf-8")
    assert "ARG BASE=prefecthq/prefect:1.4.1" in dockerfile
    ignored = (docs / "Dockerfile.dockerignore").read_text(encoding="utf-8")
    for line in ignored.splitlines():
        if line.startswith("!") and "*" not in line:
            assert (docs.parent / line[1:]).exists(), line


@pytest.mark.parametrize(
    "command",
    re.findall(
        r"^prefect agent ecs install((?:[^\n]*\\\n)*[^\n]*)$",
        (Path(__file__).parents[2] / "docs" / "production.md").read_text("utf-8")
        if (Path(__file__).parents[2] / "docs" / "production.md").exists()
        else "",
        re.MULTILINE,
    ),
)
def test_the_commands_of_the_docs_work(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = shlex.split(command.replace("\\\n", " "))
    options = words[: words.index(">")] if ">" in words else words
    monkeypatch.chdir(tmp_path)
    if "--diff" in options:
        *before, _, file = options
        Path(file).write_text(printed(*before), encoding="utf-8")
    assert run(*options).exit_code == 0


@pytest.mark.parametrize(
    "options",
    [
        ["--backend", "server", "--api", "http://someone:s3cret@prefect.example"],
        ["--task-definition", "https://someone:s3cret@templates.example/t.yaml"],
        ["--run-task-kwargs", "https://t0ken-s3cret@templates.example/k.yaml"],
    ],
)
def test_a_password_in_a_url_is_refused_and_not_printed(options: List[str]) -> None:
    result = run(*options)
    assert result.exit_code == 1
    assert code_of(result.stderr.rstrip()) == "password-in-url"
    assert "s3cret" not in result.output + result.stderr


def test_keys_of_kms_are_named_where_they_are_needed() -> None:
    key = "arn:aws:kms:eu-west-1:123456789012:key/0123-abcd"
    with_keys = replace(_FULL, key_kms_key=key, log_kms_key=key)
    (decrypting,) = (
        each
        for each in policy.execution(with_keys, _place())["Statement"]
        if each["Action"] == ["kms:Decrypt"]
    )
    assert decrypting["Resource"] == [key]
    assert decrypting["Condition"] == {
        "StringEquals": {"kms:ViaService": "secretsmanager.eu-west-1.amazonaws.com"}
    }
    options = ["--log-kms-key", key, "--api-key-kms-key", key]
    group = template(*options)["Resources"]["LogGroup"]["Properties"]
    assert group["KmsKeyId"] == key


def test_roles_are_taken_on_for_tasks_of_the_account_only() -> None:
    trusted = [
        policy.trust(_place(), by_ecs_itself=by_ecs)["Statement"][0]["Condition"]
        for by_ecs in (True, False)
    ]
    own = {"StringEquals": {"aws:SourceAccount": "123456789012"}}
    tasks = {"ArnLike": {"aws:SourceArn": "arn:aws:ecs:eu-west-1:123456789012:*"}}
    assert trusted == [own, {**own, **tasks}]


# -- What differs ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "output, case",
    [
        ("cloudformation", "roles and families"),
        ("cloudformation", "text that could mean something"),
        ("terraform", "text that could mean something"),
        ("policy", "roles and families"),
    ],
)
def test_what_is_printed_does_not_differ_from_itself(
    output: str, case: str, tmp_path: Path
) -> None:
    options = CASES[case]
    file = tmp_path / "printed"
    file.write_text(printed("--format", output, *options), encoding="utf-8")
    result = run("--format", output, *options, "--diff", str(file))
    assert (result.exit_code, result.stdout) == (0, "")


def test_layout_comments_and_order_do_not_differ(tmp_path: Path) -> None:
    data = yaml.load(printed(*NETWORK), Loader=_Loader)
    file = tmp_path / "agent.json"  # CloudFormation takes JSON too
    file.write_text(json.dumps(data, sort_keys=True), encoding="utf-8")
    result = run(*NETWORK, "--diff", str(file))
    assert (result.exit_code, result.stdout) == (0, "")


@pytest.mark.parametrize(
    "output, old, new",
    [
        ("cloudformation", "-            - --label=prod", "+            - --label=dev"),
        ("terraform", '-        "--label=prod",', '+        "--label=dev",'),
    ],
)
def test_the_diff_in_full(output: str, old: str, new: str, tmp_path: Path) -> None:
    file = tmp_path / "printed"
    text = printed("--format", output, "--label", "prod", *NETWORK)
    file.write_text("# Another head\n" + text, encoding="utf-8")
    result = run(*("--format", output, "--label", "dev", *NETWORK, "--diff", str(file)))
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[:2] == [f"--- {file}", "+++ now"]
    assert [line for line in lines[2:] if line[0] in "+-"] == [old, new]


def test_the_old_output_can_come_from_a_pipe() -> None:
    result = _runner().invoke(install, [*NETWORK, "--diff", "-"], input=printed())
    assert result.exit_code == 1
    assert "-   Default: vpc" not in result.stdout
    assert f"+    Default: {VPC}" in result.stdout.splitlines()


@pytest.mark.parametrize(
    "content, output",
    [
        (b"[1]", "cloudformation"),
        (b"a: [1", "cloudformation"),
        (b"a: !Ref {b: c}\nd: [", "cloudformation"),
        (b"not json", "policy"),
    ],
)
def test_a_file_that_cannot_be_compared_is_an_error(
    content: bytes, output: str, tmp_path: Path
) -> None:
    file = tmp_path / "printed"
    file.write_bytes(content)
    result = run("--format", output, "--diff", str(file))
    assert (result.exit_code, result.stdout) == (2, "")
    assert code_of(result.stderr.splitlines()[-1]) == "not-this-format"


def test_other_errors_of_a_diff_are_no_difference(tmp_path: Path) -> None:
    file = tmp_path / "printed"
    file.write_bytes(b"\xff\xfe")
    for options in (["--image", "a b"], ["--format", "terraform"], ["--name", "a b"]):
        assert run(*options, "--diff", str(file)).exit_code == 2


# -- What flows may do -----------------------------------------------------------------


@pytest.mark.parametrize(
    "image, repository",
    [
        (
            None,
            "arn:aws:ecr:eu-west-1:123456789012:repository/prefect-ecs-agent",
        ),
        (ECR_IMAGE, "arn:aws:ecr:us-east-1:210987654321:repository/team/agent"),
        ("prefecthq/prefect:1.4.1", None),
    ],
)
def test_ecs_pulls_the_agents_image_and_no_other(
    image: Optional[str], repository: Optional[str]
) -> None:
    statements = policy.execution(replace(_FULL, image=image), _place())["Statement"]
    pulling = [
        resource
        for statement in statements
        for resource in statement["Resource"]
        if statement["Sid"] in ("PullImages", "LogInToRegistry")
    ]
    assert pulling == (["*", repository] if repository else [])


def test_the_execution_role_of_flows_in_full() -> None:
    plan = replace(_FULL, flow_repositories=("flows/*",))
    arn = "arn:aws:{}:123456789012:{}".format
    assert policy.flow_execution(plan, _place())["Statement"] == [
        {
            "Sid": "LogInToRegistry",
            "Effect": "Allow",
            "Action": ["ecr:GetAuthorizationToken"],
            "Resource": ["*"],
        },
        {
            "Sid": "PullImages",
            "Effect": "Allow",
            "Action": [
                "ecr:BatchCheckLayerAvailability",
                "ecr:BatchGetImage",
                "ecr:GetDownloadUrlForLayer",
            ],
            "Resource": [arn("ecr:*", "repository/flows/*")],
        },
        {
            "Sid": "WriteLogs",
            "Effect": "Allow",
            "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
            "Resource": [
                arn("logs:eu-west-1", f"log-group:/ecs/{group}:log-stream:*")
                for group in ("prefect-flows", "flows")
            ],
        },
        {
            "Sid": "ReadApiKey",
            "Effect": "Allow",
            "Action": ["secretsmanager:GetSecretValue"],
            "Resource": [SECRET],
        },
    ]


def test_the_alarm_in_full() -> None:
    alarm = template("--alarm-topic", TOPIC, *NETWORK)["Resources"]["Alarm"]
    assert alarm == {
        "Type": "AWS::CloudWatch::Alarm",
        "Condition": "IsRunning",
        "Properties": {
            "AlarmName": "prefect-agent",
            "AlarmDescription": "Agents of prefect-agent have been missing for 5 "
            "minutes.",
            "Namespace": "AWS/ECS",
            "MetricName": "CPUUtilization",
            "Statistic": "SampleCount",
            "Period": 60,
            "EvaluationPeriods": 5,
            "ComparisonOperator": "LessThanThreshold",
            "TreatMissingData": "breaching",
            "Dimensions": [
                {"Name": "ClusterName", "Value": {"Ref": "Cluster"}},
                {"Name": "ServiceName", "Value": {"Fn::GetAtt": ["Service", "Name"]}},
            ],
            "Threshold": {"Ref": "DesiredCount"},
            "AlarmActions": [{"Ref": "AlarmTopic"}],
            "OKActions": [{"Ref": "AlarmTopic"}],
            "Tags": [{"Key": "prefect:agent", "Value": "prefect-agent"}],
        },
    }


def test_everything_has_the_tags() -> None:
    resources = template("--tag", "team=data", *NETWORK)["Resources"]
    tags = [
        {"Key": "prefect:agent", "Value": "prefect-agent"},
        {"Key": "team", "Value": "data"},
    ]
    assert all(each["Properties"]["Tags"] == tags for each in resources.values())
    assert resources["Service"]["Properties"]["PropagateTags"] == "SERVICE"
    blocks = _parsed(printed("--format", "terraform", *NETWORK))["resource"]
    for block in blocks:
        ((kind, named),) = block.items()
        (resource,) = named.values()
        is_tagged = resource.get("tags") == "${local.tags}"
        assert is_tagged is (_bare(kind) != "aws_iam_role_policy")
