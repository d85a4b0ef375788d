"""The sandbox's AWS as a server: who answers, faults, limits, the account at first."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import threading
from typing import Any, Dict, Iterator, List, Optional

import pytest
from botocore.config import Config
from botocore.exceptions import ConnectionClosedError, HTTPClientError
from botocore.parsers import ResponseParserError
from sandbox_aws import (
    ARN,
    AWS,
    ONCE,
    content,
    definition,
    refusal,
    run_request,
    subnets,
    until,
)

from prefect_ecs_plugin.sandbox.aws import Fault


@pytest.fixture(scope="module")
def server() -> Iterator[AWS]:
    with AWS(runs_tasks=False) as aws:
        yield aws


@pytest.fixture
def aws(server: AWS) -> Iterator[AWS]:
    yield server
    server.fault = None
    server.latency = None


@pytest.fixture
def ecs(aws: AWS) -> Any:
    return aws.client("ecs", config=ONCE)


# The account at first


def test_default_cluster_is_active(ecs: Any) -> None:
    assert ecs.describe_clusters()["clusters"] == [
        {
            "clusterArn": ARN + "cluster/default",
            "clusterName": "default",
            "status": "ACTIVE",
            "registeredContainerInstancesCount": 0,
            "runningTasksCount": 0,
            "pendingTasksCount": 0,
            "activeServicesCount": 0,
            "settings": [{"name": "containerInsights", "value": "disabled"}],
            "capacityProviders": ["FARGATE", "FARGATE_SPOT"],
        }
    ]


def test_default_vpc_has_subnets(aws: AWS) -> None:
    vpcs = aws.client("ec2").describe_vpcs()["Vpcs"]
    assert [vpc["IsDefault"] for vpc in vpcs] == [True]
    assert len(subnets(aws)) >= 2


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-1"])
def test_default_vpc_has_a_way_out_in_every_region(aws: AWS, region: str) -> None:
    ec2 = aws.client("ec2", region_name=region, config=ONCE)
    (vpc,) = ec2.describe_vpcs()["Vpcs"]
    (gateway,) = ec2.describe_internet_gateways()["InternetGateways"]
    (table,) = ec2.describe_route_tables()["RouteTables"]
    attached = {"State": "available", "VpcId": vpc["VpcId"]}
    assert gateway["Attachments"] == [attached]
    assert [each["Main"] for each in table["Associations"]] == [True]
    routes = {
        route["DestinationCidrBlock"]: route["GatewayId"] for route in table["Routes"]
    }
    assert routes == {
        vpc["CidrBlock"]: "local",
        "0.0.0.0/0": gateway["InternetGatewayId"],
    }


def test_other_regions_are_empty(aws: AWS) -> None:
    ecs = aws.client("ecs", region_name="eu-west-1", config=ONCE)
    assert content(ecs.list_clusters()) == {"clusterArns": []}
    assert refusal(ecs.list_tasks)["Code"] == "ClusterNotFoundException"


# Who answers


def test_moto_serves_s3(aws: AWS) -> None:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="templates")
    s3.put_object(Bucket="templates", Key="a/b c.yaml", Body=b"cpu: 1\n" * 100_000)
    body = s3.get_object(Bucket="templates", Key="a/b c.yaml")["Body"].read()
    assert body == b"cpu: 1\n" * 100_000
    assert refusal(s3.get_object, Bucket="templates", Key="x") == {
        "Code": "NoSuchKey",
        "Message": "The specified key does not exist.",
        "Key": "x",
        "Status": 404,
    }
    assert aws.calls["s3.GetObject"] == 2


def test_the_caller_is_nobody_real(aws: AWS) -> None:
    assert aws.client("sts").get_caller_identity()["Account"] == "123456789012"


@pytest.mark.parametrize(
    "service, operation, code",
    [
        ("lambda", "list_functions", "NotImplemented"),
        ("sns", "list_topics", "NotImplemented"),
    ],
)
def test_what_is_not_served_says_so(
    aws: AWS, service: str, operation: str, code: str
) -> None:
    call = getattr(aws.client(service, config=ONCE), operation)
    answer = refusal(call)
    assert answer["Code"] == code
    assert answer["Message"] == f"The sandbox does not serve {service}."


@pytest.mark.parametrize(
    "service, operation, params",
    [
        (
            "iam",
            "simulate_principal_policy",
            {
                "PolicySourceArn": "arn:aws:iam::123456789012:user/me",
                "ActionNames": ["ecs:RunTask"],
            },
        ),
        ("ecr", "describe_pull_through_cache_rules", {}),
    ],
)
def test_what_moto_does_not_know_is_an_error_and_no_traceback(
    aws: AWS,
    service: str,
    operation: str,
    params: Dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = aws.client(service, config=ONCE)
    answer = refusal(getattr(client, operation), **params)
    name = client.meta.method_to_api_mapping[operation]
    assert (answer["Code"], answer["Status"]) == ("NotImplemented", 501)
    assert answer["Message"].startswith(f"The sandbox does not serve {service}.{name}")
    assert caplog.messages == []


@pytest.mark.parametrize(
    "service, operation", [("ecs", "list_tasks"), ("ec2", "describe_vpcs")]
)
def test_region_that_does_not_exist(aws: AWS, service: str, operation: str) -> None:
    client = aws.client(service, region_name="mars-north-1", config=ONCE)
    assert refusal(getattr(client, operation)) == {
        "Code": "UnrecognizedClientException",
        "Message": "There is no region 'mars-north-1'.",
        "Status": 400,
    }


def test_unsigned_requests_are_refused(aws: AWS) -> None:
    assert raw(aws, "GET", "/moto-api/reset")[0] == 403
    assert raw(aws, "POST", "/", b"{}", {"X-Amz-Target": "E.ListTasks"})[0] == 403


@pytest.mark.parametrize(
    "body, code",
    [
        (b"{", "SerializationException"),
        (b"[]", "SerializationException"),
        (b'{"cluster": null}', "InvalidParameterException"),
        (b'{"cluster": 1}', "InvalidParameterException"),
        (b'{"Cluster": "default"}', "InvalidParameterException"),
    ],
)
def test_body_that_no_client_of_aws_sends(aws: AWS, body: bytes, code: str) -> None:
    status, answer = raw(aws, "POST", "/", body, signed(aws, "ListTasks"))
    assert (status, json.loads(answer)["__type"]) == (400, code)


def test_operation_that_does_not_exist(aws: AWS) -> None:
    status, answer = raw(aws, "POST", "/", b"{}", signed(aws, "RunTusk"))
    assert (status, json.loads(answer)) == (
        400,
        {"__type": "UnknownOperationException", "message": "There is no RunTusk."},
    )


def test_operations_that_moto_would_only_pretend(aws: AWS) -> None:
    params = {"containerInstances": ["x"], "taskDefinition": "x"}
    body = json.dumps(params).encode()
    status, answer = raw(aws, "POST", "/", body, signed(aws, "StartTask"))
    assert (status, json.loads(answer)) == (
        400,
        {
            "__type": "UnsupportedFeatureException",
            "message": "The sandbox does not serve StartTask.",
        },
    )


def test_connections_are_kept_open(aws: AWS) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port(aws))
    used = set()
    for _ in range(3):
        connection.request("POST", "/", b"{}", signed(aws, "ListTasks"))
        assert connection.getresponse().read() == b'{"taskArns":[]}'
        used.add(connection.sock)
    assert len(used) == 1
    connection.close()


def test_aws_cli(aws: AWS, tmp_path: Any) -> None:
    cli = shutil.which("aws", path=os.path.dirname(sys.executable)) or shutil.which(
        "aws"
    )
    if cli is None:
        pytest.skip("there is no aws command")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "AWS_ENDPOINT_URL": aws.url,
        "AWS_ACCESS_KEY_ID": aws.access_key,
        "AWS_SECRET_ACCESS_KEY": aws.secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    command = [cli, "ecs", "describe-tasks", "--tasks", "nothing", "--output", "json"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    if "Unknown options" in ran.stderr or ran.returncode == 127:
        pytest.skip("the aws command does not run here")
    assert json.loads(ran.stdout) == {
        "tasks": [],
        "failures": [{"arn": ARN + "task/default/nothing", "reason": "MISSING"}],
    }


# Counting


def test_calls_and_requests_are_counted(aws: AWS, ecs: Any) -> None:
    calls, requests = aws.calls["ecs.ListTasks"], len(aws.requests)
    ecs.list_tasks(startedBy="me")
    assert aws.calls["ecs.ListTasks"] == calls + 1
    assert aws.requests[requests:] == [("ecs.ListTasks", {"startedBy": "me"})]
    assert aws.sent("ListTasks")[-1] == {"startedBy": "me"}


# Faults


def only(operation: str, fault: Fault) -> Any:
    return lambda name, params: fault if name == operation else None


@pytest.mark.parametrize(
    "service, call, operation, fault, expected",
    [
        (
            "ecs",
            "list_tasks",
            "ecs.ListTasks",
            Fault(error_code="ThrottlingException"),
            {"Code": "ThrottlingException", "Message": "Rate exceeded", "Status": 400},
        ),
        (
            "ecs",
            "list_tasks",
            "ecs.ListTasks",
            Fault(status=503, message="busy"),
            {"Code": "InternalServerError", "Message": "busy", "Status": 503},
        ),
        (
            "ec2",
            "describe_vpcs",
            "ec2.DescribeVpcs",
            Fault(error_code="UnauthorizedOperation", message="no", status=403),
            {"Code": "UnauthorizedOperation", "Message": "no", "Status": 403},
        ),
        (
            "s3",
            "list_buckets",
            "s3.ListBuckets",
            Fault(error_code="AccessDenied", message="no", status=403),
            {"Code": "AccessDenied", "Message": "no", "Status": 403},
        ),
        (
            "sts",
            "get_caller_identity",
            "sts.GetCallerIdentity",
            Fault(error_code="ExpiredToken", message="old", status=403),
            {
                "Type": "Sender",
                "Code": "ExpiredToken",
                "Message": "old",
                "Status": 403,
            },
        ),
    ],
)
def test_fault_in_every_service(
    aws: AWS, service: str, call: str, operation: str, fault: Fault, expected: Any
) -> None:
    aws.fault = only(operation, fault)
    assert refusal(getattr(aws.client(service, config=ONCE), call)) == expected


def test_fault_with_members(aws: AWS, ecs: Any) -> None:
    ecs.register_task_definition(**definition())
    members = {"resourceIds": ["arn:one"]}
    fault = Fault(error_code="ConflictException", message="used", members=members)
    aws.fault = only("ecs.RunTask", fault)
    with pytest.raises(ecs.exceptions.ConflictException) as caught:
        ecs.run_task(**run_request(aws))
    assert caught.value.response["resourceIds"] == ["arn:one"]


@pytest.mark.parametrize("after_effect, tasks", [(False, 0), (True, 1)])
@pytest.mark.parametrize(
    "fault",
    [
        {"drop_connection": True},
        {"status": 500},
        {"failures": [{"arn": "x", "reason": "RESOURCE:MEMORY"}]},
    ],
    ids=lambda fault: next(iter(fault)),
)
def test_fault_before_and_after_the_effect(
    aws: AWS, ecs: Any, fault: Dict[str, Any], after_effect: bool, tasks: int
) -> None:
    ecs.register_task_definition(**definition())
    request = run_request(aws)
    before = len(aws.tasks())
    aws.fault = only("ecs.RunTask", Fault(after_effect=after_effect, **fault))
    if "failures" in fault:
        assert content(ecs.run_task(**request)) == {
            "tasks": [],
            "failures": fault["failures"],
        }
    elif "status" in fault:
        assert refusal(ecs.run_task, **request)["Status"] == 500
    else:
        with pytest.raises(ConnectionClosedError):
            ecs.run_task(**request)
    assert len(aws.tasks()) == before + tasks


def test_a_lost_answer_and_botocores_own_retry_start_one_task(aws: AWS) -> None:
    ecs = aws.client("ecs", config=Config(retries={"mode": "standard"}))
    ecs.register_task_definition(**definition())
    before = len(aws.tasks())
    lost: List[Optional[Fault]] = [Fault(drop_connection=True, after_effect=True), None]
    aws.fault = lambda name, params: lost.pop(0) if name == "ecs.RunTask" else None
    answer = ecs.run_task(**run_request(aws))
    assert [task.task_arn for task in aws.tasks()[before:]] == [
        answer["tasks"][0]["taskArn"]
    ]


def test_rubbish_in_place_of_an_answer(aws: AWS, ecs: Any) -> None:
    """botocore takes any body of a JSON service for an answer without members."""
    aws.fault = only("ecs.ListTasks", Fault(body=b"<html>"))
    assert content(ecs.list_tasks()) == {}
    aws.fault = only("sts.GetCallerIdentity", Fault(body=b"<html>"))
    with pytest.raises(ResponseParserError):
        aws.client("sts", config=ONCE).get_caller_identity()


def test_a_lost_refusal_is_lost_too(aws: AWS, ecs: Any) -> None:
    aws.fault = only("ecs.RunTask", Fault(drop_connection=True, after_effect=True))
    with pytest.raises(ConnectionClosedError):
        ecs.run_task(taskDefinition="nothing")


def test_delay_outlasts_a_read_timeout(aws: AWS) -> None:
    config = Config(read_timeout=0.2, retries={"total_max_attempts": 1})
    ecs = aws.client("ecs", config=config)
    aws.fault = only("ecs.ListTasks", Fault(delay=5))
    with pytest.raises(HTTPClientError):
        ecs.list_tasks()


def test_latency_is_asked_for_every_operation(aws: AWS, ecs: Any) -> None:
    asked: List[str] = []
    aws.latency = lambda operation: asked.append(operation) or 0.0  # type: ignore[func-returns-value]  # None or 0.0
    ecs.list_tasks()
    aws.client("sts").get_caller_identity()
    assert asked == ["ecs.ListTasks", "sts.GetCallerIdentity"]


# One at a time


def test_one_aws_per_process(aws: AWS) -> None:
    with pytest.raises(RuntimeError, match="runs in this process already"):
        AWS().start()


def test_many_threads_at_once(aws: AWS, ecs: Any) -> None:
    ecs.register_task_definition(**definition())
    before = len(aws.tasks())
    request = run_request(aws)
    threads = [
        threading.Thread(target=lambda: ecs.run_task(**request)) for _ in range(32)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    arns = [task.task_arn for task in aws.tasks()[before:]]
    assert len(arns) == len(set(arns)) == 32
    until(lambda: aws.task(arns[-1]).last_status == "RUNNING")


# Help


def port(aws: AWS) -> int:
    return int(aws.url.rpartition(":")[2])


def signed(aws: AWS, operation: str) -> Dict[str, str]:
    scope = f"Credential={aws.access_key}/20261122/us-east-1/ecs/aws4_request"
    return {
        "Content-Type": "application/x-amz-json-1.1",
        "X-Amz-Target": f"AmazonEC2ContainerServiceV20141113.{operation}",
        "Authorization": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0",
    }


def raw(
    aws: AWS,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Optional[Dict[str, str]] = None,
) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port(aws))
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found
