"""docs/first-flow.md, followed to the letter against the sandbox's servers.

`prefect` commands are the real ones. The few of the AWS CLI are done with boto3; an
unknown one ends the test.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest
import yaml

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from world import World

from prefect_ecs_plugin.sandbox import environment

PAGE = Path(__file__).parents[2] / "docs" / "first-flow.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the docs are not installed")

#: Commands that may lead from an empty account to a flow's Success.
AT_MOST = 12

ACCOUNT = "123456789012"

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_NAMED = re.compile(r"Save this as `([\w.-]+)`")

#: Done before the test, or by its environment.
DONE = (
    "python3 -m venv .venv && . .venv/bin/activate && pip install prefect-ecs-plugin",
    "export PREFECT__BACKEND=server PREFECT__CLOUD__API=http://prefect.example.com:4200",
    "export ACCOUNT=$(aws sts get-caller-identity --query Account --output text)",
)


def read_page() -> Tuple[Dict[str, str], List[str], List[str]]:
    """The page's files by name, its commands, and those that clean up."""
    text = PAGE.read_text(encoding="utf-8")
    names = iter(_NAMED.findall(text))
    files = {next(names): block for kind, block in _BLOCK.findall(text) if kind}
    way, _, cleaning = text.partition("## Clean up")
    return files, _commands(way), _commands(cleaning)


def _commands(text: str) -> List[str]:
    return [
        line
        for kind, block in _BLOCK.findall(text)
        if not kind
        for line in block.replace("\\\n", " ").splitlines()
    ]


class Reader:
    """Does what the page says.

    Args:
        world: The servers.
        directory: Where it works.
    """

    def __init__(self, world: World, directory: Path) -> None:
        self._world = world
        self._directory = directory
        self._agents: List[Any] = []

    def do(self, command: str) -> str:
        """Run a command; return what it says."""
        arguments = shlex.split(command.replace("$ACCOUNT", ACCOUNT))
        if command in DONE:
            return ""
        if arguments[:4] == ["prefect", "agent", "ecs", "start"]:
            assert arguments[-4:] == [">", "agent.log", "2>&1", "&"]
            self._agents.append(self._world.agent(*arguments[4:-4]))
            return ""
        if arguments == ["kill", "%1"]:
            self._agents.pop().stop()
            return ""
        if arguments[0] == "prefect":
            return self._prefect(arguments[1:])
        assert arguments[0] == "aws", command
        return str(
            getattr(self, "_".join(["", *arguments[1:3]]).replace("-", "_"))(
                arguments[3:]
            )
        )

    def _prefect(self, arguments: List[str]) -> str:
        script = environment.prefect_command(self._world.home)
        done = self._world.run_to_its_end(
            [*script, *arguments], self._directory, merges=True, ACCOUNT=ACCOUNT
        )
        assert done.returncode == 0, done.stdout
        return str(done.stdout)

    def _cloudformation_deploy(self, options: List[str]) -> None:
        text = (self._directory / _value(options, "--template-file")).read_text()
        for resource in yaml.safe_load(text)["Resources"].values():
            name, properties = resource["Type"], resource["Properties"]
            if name == "AWS::ECS::Cluster":
                self._world.aws.client("ecs").create_cluster(
                    clusterName=properties["ClusterName"]
                )
            elif name == "AWS::Logs::LogGroup":
                group = properties["LogGroupName"]
                self._world.aws.client("logs").create_log_group(logGroupName=group)
            elif name == "AWS::S3::Bucket":
                self._world.aws.client("s3").create_bucket(
                    Bucket=_substituted(properties["BucketName"])
                )
            else:
                assert name == "AWS::IAM::Role"
                self._world.aws.client("iam").create_role(
                    RoleName=properties["RoleName"],
                    AssumeRolePolicyDocument=json.dumps(
                        properties["AssumeRolePolicyDocument"]
                    ),
                )

    def _logs_tail(self, options: List[str]) -> str:
        found = self._world.aws.client("logs").filter_log_events(
            logGroupName=options[0]
        )
        return "\n".join(event["message"] for event in found["events"])

    def _s3_rm(self, options: List[str]) -> None:
        bucket = options[0].replace("s3://", "")
        assert options[1:] == ["--recursive"]
        s3 = self._world.aws.client("s3")
        for stored in s3.list_objects_v2(Bucket=bucket)["Contents"]:
            s3.delete_object(Bucket=bucket, Key=stored["Key"])

    def _cloudformation_delete_stack(self, options: List[str]) -> None:
        """CloudFormation deletes a bucket only if it is empty."""
        self._world.aws.client("s3").delete_bucket(Bucket=f"first-flow-{ACCOUNT}")


def _substituted(value: Dict[str, str]) -> str:
    return value["Fn::Sub"].replace("${AWS::AccountId}", ACCOUNT)


def _value(options: List[str], name: str) -> str:
    return options[options.index(name) + 1]


def test_every_command_of_the_page_does_what_it_says(tmp_path: Path) -> None:
    files, commands, cleaning = read_page()
    assert len(commands) <= AT_MOST
    directory = tmp_path / "work"
    directory.mkdir()
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")
    world = World(tmp_path)
    with world.running():
        reader = Reader(world, directory)
        said = {command: reader.do(command) for command in commands}
        for command in cleaning:
            reader.do(command)
    (run,) = (text for command, text in said.items() if " run " in command)
    assert "Hello from ECS" in run
    assert "Flow run succeeded!" in run
    assert "Hello from ECS" in said["aws logs tail /ecs/first-flow"]
