"""Options, files and the default VPC -> settings; or one line that says what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
from codes import code_of, codes_of, raises_code

from prefect_ecs_plugin.aws.cluster import Cluster, describe
from prefect_ecs_plugin.config import configuration
from prefect_ecs_plugin.config.configuration import settings_reader
from prefect_ecs_plugin.errors import ConfigurationError

WARNINGS: List[str] = []
AWSVPC = "networkMode: awsvpc\ncpu: 256\nmemory: 512\n"


@pytest.fixture
def configure(tmp_path: Path, client_of: Callable[..., Any]) -> Any:
    """Settings from options; `template` and `kwargs` are the content of files."""
    WARNINGS.clear()

    def configure(template: Any = None, kwargs: Any = None, **options: Any) -> Any:
        for option, content in (
            ("task_definition_path", template),
            ("run_task_kwargs_path", kwargs),
        ):
            if content is not None:
                path = tmp_path / f"{option}.yaml"
                path.write_text(content)
                options[option] = str(path)
        return settings_reader(client_of, WARNINGS.append, **options)()

    return configure


@pytest.fixture
def no_default_vpc(client_of: Callable[..., Any]) -> None:
    ec2 = client_of("ec2")
    for vpc in ec2.describe_vpcs()["Vpcs"]:
        for subnet in ec2.describe_subnets()["Subnets"]:
            ec2.delete_subnet(SubnetId=subnet["SubnetId"])
        ec2.delete_vpc(VpcId=vpc["VpcId"])


def test_the_packaged_defaults(configure: Any, client_of: Callable[..., Any]) -> None:
    settings = configure()
    subnets = client_of("ec2").describe_subnets()["Subnets"]
    assert settings.task_definition == {
        "networkMode": "awsvpc",
        "cpu": 1024,
        "memory": 2048,
        "containerDefinitions": [{"name": "flow"}],
    }
    assert settings.run_task_kwargs == {}
    assert settings.subnets == tuple(subnet["SubnetId"] for subnet in subnets)


def test_files_and_options(configure: Any) -> None:
    settings = configure(
        template="cpu: 512\n", kwargs="cluster: c\n", launch_type="ec2", cluster="x"
    )
    assert settings.task_definition == {"cpu": 512}
    assert settings.run_task_kwargs == {"cluster": "c"}
    assert (settings.launch_type, settings.cluster) == ("EC2", "x")


@pytest.mark.parametrize(
    "options, looked_up",
    [
        ({}, True),
        (
            {"kwargs": "networkConfiguration: {awsvpcConfiguration: {subnets: [s]}}"},
            False,
        ),
        ({"launch_type": "EC2", "template": "networkMode: bridge"}, False),
        ({"launch_type": "EC2", "template": AWSVPC}, True),
        ({"kwargs": "capacityProviderStrategy: [{capacityProvider: p}]"}, True),
    ],
)
def test_the_default_vpc_is_looked_up_only_where_it_is_needed(
    aws: Any, configure: Any, options: Dict[str, Any], looked_up: bool
) -> None:
    assert bool(configure(**options).subnets) is looked_up
    assert ("ec2.DescribeVpcs" in aws.calls) is looked_up


ROLE = "arn:aws:iam::123456789012:role/x"


@pytest.mark.parametrize(
    "options, codes",
    [
        ({}, []),
        ({"flow_log_group": "/ecs/f"}, ["no-execution-role"]),
        ({"flow_log_group": "/ecs/f", "launch_type": "EC2"}, []),
        ({"flow_log_group": "/ecs/f", "execution_role_arn": ROLE}, []),
        ({"flow_log_group": "/ecs/f", "template": f"executionRoleArn: {ROLE}\n"}, []),
    ],
)
def test_a_log_group_comes_with_its_region_and_asks_for_a_role(
    configure: Any, options: Dict[str, Any], codes: List[str]
) -> None:
    settings = configure(**options)
    region = "us-east-1" if "flow_log_group" in options else ""
    assert settings.region == region
    assert settings.flow_log_group == options.get("flow_log_group")
    assert codes_of(configuration.warnings(settings)) == codes


@pytest.mark.usefixtures("no_default_vpc")
def test_no_default_vpc_on_fargate(configure: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=r"no default VPC.*us-east-1.*--run-task-kwargs"
    ):
        configure()


@pytest.mark.usefixtures("no_default_vpc")
def test_no_default_vpc_on_ec2_is_a_warning(configure: Any) -> None:
    assert configure(launch_type="EC2", template=AWSVPC).subnets == ()
    assert codes_of(WARNINGS) == ["no-default-vpc"]


def test_missing_permission_to_read_the_vpc(aws: Any, configure: Any) -> None:
    from prefect_ecs_plugin.sandbox.aws import Fault

    aws.fault = lambda *_: Fault(error_code="UnauthorizedOperation", message="no")
    with pytest.raises(ConfigurationError, match=r"UnauthorizedOperation.*--run-task"):
        configure()


@pytest.mark.parametrize(
    "options, code, message",
    [
        (
            {"template": "a: [1\n"},
            "invalid-yaml",
            r"task_definition_path\.yaml.*line \d+, column \d+",
        ),
        ({"template": ""}, "empty-file", r"task_definition_path\.yaml"),
        ({"template": "- a\n"}, "not-a-mapping", r"task_definition_path\.yaml"),
        ({"kwargs": "- a\n"}, "not-a-mapping", r"run_task_kwargs_path\.yaml"),
        (
            {"task_definition_path": "/absent.yaml"},
            "unreadable-file",
            r"/absent\.yaml: .*No such file",
        ),
        (
            {"task_definition_path": "s3://absent/t.yaml"},
            "unreadable-file",
            "s3://absent/t.yaml: .*NoSuchBucket",
        ),
        ({"task_definition_path": "ftp://x/y"}, "unknown-scheme", "ftp://x/y: "),
        (
            {"template": "executionRoleARN: x\n"},
            "unknown-key",
            r"task_definition_path\.yaml.*executionRoleArn",
        ),
        (
            {
                "template": "containerDefinitions:\n- name: side\n  image: i\n"
                "- name: flow\n  environment:\n  - name: A\n    value: [1]\n"
            },
            "wrong-type",
            r"containerDefinitions\[1\]\.environment\[0\]\.value",
        ),
        (
            {"kwargs": "networkconfiguration: {}\n"},
            "unknown-key",
            r"run_task_kwargs_path\.yaml.*networkConfiguration",
        ),
        ({"kwargs": "count: 2\n"}, "one-task", r"run_task_kwargs_path\.yaml: count"),
    ],
)
def test_guarantee_6_what_is_wrong_is_one_line_with_its_place(
    configure: Any, options: Dict[str, Any], code: str, message: str
) -> None:
    with raises_code(code, ConfigurationError) as error:
        configure(**options)
    assert re.search(message, str(error.value))


# -- The cluster -------------------------------------------------------------------


CLUSTER = "arn:aws:ecs:us-east-1:123456789012:cluster"


def test_an_active_cluster_is_accepted(client_of: Callable[..., Any]) -> None:
    assert describe(client_of("ecs"), None) == Cluster(f"{CLUSTER}/default")


def test_a_missing_cluster(client_of: Callable[..., Any]) -> None:
    arn, sentence = describe(client_of("ecs"), "prod")
    assert arn == f"{CLUSTER}/prod"
    assert code_of(sentence) == "no-cluster"
    assert "'prod'" in str(sentence)
    assert "us-east-1" in str(sentence)


def test_an_inactive_cluster(client_of: Callable[..., Any]) -> None:
    ecs = client_of("ecs")
    ecs.create_cluster(clusterName="old")
    ecs.delete_cluster(cluster="old")
    arn, sentence = describe(ecs, "old")
    assert arn == f"{CLUSTER}/old"
    assert code_of(sentence) == "no-cluster"
    assert "'old'" in str(sentence)


def test_a_cluster_that_cannot_be_described_is_accepted(
    aws: Any, client_of: Callable[..., Any]
) -> None:
    from prefect_ecs_plugin.sandbox.aws import Fault

    aws.fault = lambda *_: Fault(error_code="AccessDeniedException", message="no")
    assert describe(client_of("ecs"), None) == Cluster()
