"""The models of services that the agent's session uses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel, Shape

from prefect_ecs_plugin.aws.models import FOLDER, MEMBERS, models
from prefect_ecs_plugin.aws.network import default_subnets
from prefect_ecs_plugin.aws.session import AWSClients

PACKAGE = FOLDER.parents[1]

#: Commands that read tasks with botocore's own model.
WHOLE_TASKS = {"explain", "status", "exec.py", "logs.py"}


@pytest.fixture
def clients(aws: Any, monkeypatch: pytest.MonkeyPatch) -> AWSClients:
    """The agent's clients of the sandbox."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
    return AWSClients(
        aws_access_key_id=aws.access_key,
        aws_secret_access_key=aws.secret_key,
        region_name=aws.region,
    )


def differences(ours: Shape, botocores: Shape, place: str) -> List[str]:
    """Places where a shape is read or written otherwise than botocore's own."""
    if ours.type_name != botocores.type_name or (
        ours.serialization != botocores.serialization
    ):
        return [place]
    if ours.type_name == "list":
        return differences(ours.member, botocores.member, f"{place}[]")
    return [
        difference
        for name, member in getattr(ours, "members", {}).items()
        for difference in (
            differences(member, botocores.members[name], f"{place}.{name}")
            if name in botocores.members
            else [f"{place}.{name}"]
        )
    ]


def test_our_model_of_ec2_is_a_part_of_botocores() -> None:
    (path,) = FOLDER.glob("*/*/service-2.json")
    service, version = path.parts[-3:-1]
    whole = Loader().load_service_model(service, "service-2", version)
    part = json.loads(path.read_text())
    assert part["metadata"].items() <= whole["metadata"].items()
    assert all(
        whole["operations"][name]["http"].items() >= operation["http"].items()
        for name, operation in part["operations"].items()
    )
    ours, botocores = ServiceModel(part, service), ServiceModel(whole, service)
    assert not [
        difference
        for name in ours.operation_names
        for side in ("input_shape", "output_shape")
        for difference in differences(
            getattr(ours.operation_model(name), side),
            getattr(botocores.operation_model(name), side),
            name,
        )
    ]


def test_ec2_is_asked_with_our_model(
    clients: AWSClients, client_of: Callable[..., Any]
) -> None:
    ec2 = clients("ec2")
    subnets = client_of("ec2").describe_subnets()["Subnets"]
    assert default_subnets(ec2) == tuple(subnet["SubnetId"] for subnet in subnets)
    assert len(ec2.meta.service_model.operation_names) == 5


def test_models_of_the_user_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "ecs" / "2099-01-01"
    folder.mkdir(parents=True)
    (folder / "service-2.json").write_text("{}")
    loader = models(str(tmp_path))
    assert loader.determine_latest_version("ecs", "service-2") == "2099-01-01"


def test_answers_show_what_is_read_of_tasks(
    clients: AWSClients, client_of: Callable[..., Any]
) -> None:
    ecs = clients("ecs")
    ecs.register_task_definition(
        family="f",
        networkMode="awsvpc",
        requiresCompatibilities=["FARGATE"],
        cpu="256",
        memory="512",
        containerDefinitions=[{"name": "flow", "image": "example/flow"}],
    )
    network = {"subnets": list(default_subnets(clients("ec2")))}
    started = ecs.run_task(
        taskDefinition="f",
        launchType="FARGATE",
        networkConfiguration={"awsvpcConfiguration": network},
        startedBy="run",
    )["tasks"]
    (arn,) = (task["taskArn"] for task in started)
    assert started == [{"taskArn": arn}]
    ecs.stop_task(task=arn, reason="no more")
    (whole,) = client_of("ecs").describe_tasks(tasks=[arn])["tasks"]
    (task,) = ecs.describe_tasks(tasks=[arn])["tasks"]
    containers = [read_of(each, "Container") for each in whole["containers"]]
    assert task == {**read_of(whole, "Task"), "containers": containers}


def read_of(value: Mapping[str, Any], shape: str) -> Dict[str, Any]:
    return {name: value[name] for name in MEMBERS[shape] if name in value}


def test_members_that_are_read_are_left_in() -> None:
    """By name: a described task is called `task` wherever it is read."""
    paths = filter(is_agents, PACKAGE.rglob("*.py"))
    source = "\n".join(path.read_text() for path in paths)
    reads = re.compile(r'\btask(?:\.get\(|\[)"(\w+)"')
    assert {*reads.findall(source)} == {*MEMBERS["Task"]}
    of_flow = re.compile(r'\bflow_container\(task\)\.get\("(\w+)"')
    assert {*of_flow.findall(source)} <= {*MEMBERS["Container"]}


def is_agents(path: Path) -> bool:
    others = {"sandbox", "validation", *WHOLE_TASKS}
    return not others & {*path.relative_to(PACKAGE).parts}


def test_models_are_those_of_botocore_without_documentation() -> None:
    whole, ours = Loader(), models(None)
    for name in ("service-2", "paginators-1", "waiters-2", "endpoint-rule-set-1"):
        expected = without_documentation(whole.load_service_model("s3", name))
        assert ours.load_service_model("s3", name) == expected


def without_documentation(value: Any) -> Any:
    if isinstance(value, list):
        return [without_documentation(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: "" if is_documentation(key, each) else without_documentation(each)
        for key, each in value.items()
    }


def is_documentation(key: str, value: Any) -> bool:
    return key == "documentation" and isinstance(value, str)


@pytest.mark.parametrize(
    "service, call",
    [
        ("logs", lambda logs: logs.describe_log_groups()["logGroups"]),
        ("s3", lambda s3: s3.get_object(Bucket="files", Key="key")["Body"].read()),
        (
            "secretsmanager",
            lambda secrets: secrets.get_secret_value(SecretId="s")["SecretString"],
        ),
        ("ssm", lambda ssm: ssm.get_parameter(Name="p")["Parameter"]["Value"]),
        ("sts", lambda sts: sts.get_caller_identity()["Account"]),
    ],
)
def test_other_services_work_with_these_models(
    clients: AWSClients,
    client_of: Callable[..., Any],
    service: str,
    call: Callable[[Any], Any],
) -> None:
    client_of("logs").create_log_group(logGroupName="group")
    client_of("s3").create_bucket(Bucket="files")
    client_of("s3").put_object(Bucket="files", Key="key", Body=b"content")
    client_of("secretsmanager").create_secret(Name="s", SecretString="secret")
    client_of("ssm").put_parameter(Name="p", Value="value", Type="String")
    assert call(clients(service)) == call(client_of(service))
