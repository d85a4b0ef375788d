"""Calls of ECS: in another region, right before they are sent, of a whole cluster."""

from __future__ import annotations

import http.client
import socket
import ssl
from typing import Any, Callable, List, Optional

import pytest
import urllib3.exceptions
from botocore.config import Config
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import ClientError
from botocore.session import get_session

from prefect_ecs_plugin.aws.ecs import ECS, region_of
from prefect_ecs_plugin.aws.rate_limiter import LIMITS, RateLimiter
from prefect_ecs_plugin.aws.retrying import AWSCallError, RetryBudget, Verdict
from prefect_ecs_plugin.errors import ConfigurationError
from prefect_ecs_plugin.scheduling.simulated_clock import Simulation
from prefect_ecs_plugin.scheduling.steps import Pause, Steps

CLUSTER = {"cluster": "default"}


class Caller:
    """An ECS whose calls wait on a simulated clock."""

    def __init__(
        self, client_of: Callable[..., Any], regions: Callable[[str], Any]
    ) -> None:
        self.simulation = Simulation()
        self.client = client_of("ecs")
        self.asked: List[str] = []
        self._regions = regions
        self.pacers: List[RateLimiter] = []
        self.ecs = ECS(
            self.client,
            self.new_limiter(),
            client_in=self.client_in,
            new_limiter=self.new_limiter,
        )

    def client_in(self, region: str) -> Any:
        self.asked.append(region)
        return self._regions(region)

    def new_limiter(self) -> RateLimiter:
        dispatcher = self.simulation.dispatcher
        self.pacers.append(RateLimiter(LIMITS, dispatcher.clock, dispatcher.call_later))
        return self.pacers[-1]

    def result_of(self, steps: Any) -> Any:
        return self.simulation.result_of(steps)


@pytest.fixture
def caller(aws: Any, client_of: Callable[..., Any]) -> Caller:
    import boto3

    def client_in(region: str) -> Any:
        if region == "nowhere":
            raise ConfigurationError(
                "The AWS settings cannot be used: nowhere.", code="aws-settings"
            )
        return boto3.client(
            "ecs",
            endpoint_url=aws.url,
            region_name=region,
            aws_access_key_id=aws.access_key,
            aws_secret_access_key=aws.secret_key,
        )

    return Caller(client_of, client_in)


# -- Regions -------------------------------------------------------------------------


@pytest.mark.parametrize("own", [None, "us-east-1"])
def test_the_agents_own_region_needs_no_client(
    caller: Caller, own: Optional[str]
) -> None:
    assert caller.client.meta.region_name == "us-east-1"
    caller.result_of(caller.ecs.call("ListTasks", CLUSTER, region=own))
    assert caller.asked == []


def test_another_region_has_one_client_and_its_own_limits(
    aws: Any, caller: Caller
) -> None:
    away = caller.client_in("eu-west-1")
    caller.asked.clear()
    away.create_cluster(clusterName="away")
    in_region = {"cluster": "away"}
    for _ in range(2):
        caller.result_of(caller.ecs.call("ListTasks", in_region, region="eu-west-1"))
    assert caller.asked == ["eu-west-1"]
    assert len(caller.pacers) == 2
    with pytest.raises(AWSCallError) as refused:
        caller.result_of(caller.ecs.call("ListTasks", in_region))
    assert refused.value.answer.code == "ClusterNotFoundException"


def test_a_region_without_a_client_is_refused_and_asked_for_again(
    caller: Caller,
) -> None:
    for _ in range(2):
        with pytest.raises(AWSCallError) as refused:
            caller.result_of(caller.ecs.tasks_in("default", "nowhere", dict))
        assert refused.value.verdict is Verdict.FINAL
        assert refused.value.code == "unusable-region"
        assert refused.value.operation == "ListTasks"
        assert "nowhere" in str(refused.value)
    assert caller.asked == ["nowhere", "nowhere"]


@pytest.mark.parametrize(
    "arn, region",
    [
        ("arn:aws:ecs:eu-west-1:123456789012:cluster/prod", "eu-west-1"),
        ("arn:aws-cn:ecs:cn-north-1:123456789012:task/c/1", "cn-north-1"),
        ("arn:aws:iam::123456789012:role/agent", None),
        ("prod", None),
        ("", None),
        ("a:b:c:d:e:f", None),
    ],
)
def test_the_region_of_an_arn(arn: str, region: Optional[str]) -> None:
    assert region_of(arn) == region


# -- Right before a request is sent --------------------------------------------------


def test_before_send_runs_once_the_turn_was_granted(aws: Any, caller: Caller) -> None:
    seen: List[int] = []

    def before_send() -> Steps[None]:
        yield Pause(5)
        seen.append(aws.calls.get("ecs.ListTasks", 0))

    for _ in range(101):  # the last has to wait for its turn
        call = caller.ecs.call("ListTasks", CLUSTER, before_send=before_send)
        caller.result_of(call)
    assert seen == list(range(101))


def test_what_before_send_raises_goes_out_and_nothing_is_sent(
    aws: Any, caller: Caller
) -> None:
    def before_send() -> Steps[None]:
        yield Pause(1)
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        caller.result_of(caller.ecs.call("ListTasks", CLUSTER, before_send=before_send))
    assert aws.calls.get("ecs.ListTasks", 0) == 0


# -- A whole cluster -----------------------------------------------------------------


def test_all_tasks_of_a_cluster_cost_two_calls_for_each_hundred(
    aws: Any, caller: Caller, client_of: Callable[..., Any]
) -> None:
    caller.client.register_task_definition(
        family="any",
        networkMode="awsvpc",
        cpu="256",
        memory="512",
        requiresCompatibilities=["FARGATE"],
        containerDefinitions=[{"name": "flow", "image": "x"}],
    )
    subnet = client_of("ec2").describe_subnets()["Subnets"][0]["SubnetId"]
    network = {"awsvpcConfiguration": {"subnets": [subnet]}}
    started: List[str] = []
    for number in range(21):
        answer = caller.client.run_task(
            taskDefinition="any",
            launchType="FARGATE",
            networkConfiguration=network,
            count=5,
            startedBy="" if number % 2 else f"run-{number}",
        )
        started += [task["taskArn"] for task in answer["tasks"]]
    caller.client.stop_task(task=started[0])
    aws.calls.clear()
    tasks = caller.result_of(
        caller.ecs.tasks_in("default", None, lambda task: task.get("startedBy"))
    )
    assert sorted(tasks) == sorted(started)
    assert len([run_id for run_id in tasks.values() if not run_id]) == 50
    calls = {name: count for name, count in aws.calls.items() if "Tasks" in name}
    assert calls == {"ecs.ListTasks": 3, "ecs.DescribeTasks": 2}
    aws.calls.clear()
    again = caller.result_of(caller.ecs.tasks_in("default", None, dict, tasks))
    assert again == tasks
    assert aws.calls["ecs.DescribeTasks"] == 0


def test_a_turn_that_was_granted_long_ago_is_not_used(
    aws: Any, client_of: Callable[..., Any]
) -> None:
    """Else all requests that an outage held up would be sent at one moment."""
    simulation = Simulation()
    dispatcher = simulation.dispatcher
    limiter = RateLimiter(LIMITS, dispatcher.clock, dispatcher.call_later)
    ecs = ECS(client_of("ecs"), limiter)
    back_at, sent_at = 3600.0, []
    budget = RetryBudget(0.0, 60.0, dispatcher.clock)

    def read_again() -> Steps[None]:
        yield Pause(back_at - simulation.now)

    def launch() -> Steps[None]:
        yield from ecs.call(
            "ListTasks", CLUSTER, budget, lambda: budget.uncounted(read_again())
        )
        sent_at.append(simulation.now)

    for _ in range(200):
        dispatcher.start(launch())
    simulation.run()
    # The bucket for ListTasks has 100 tokens and gets 20 in a second.
    assert len([moment for moment in sent_at if moment < back_at + 1]) <= 120
    assert len(sent_at) == 200


# -- What a call can fail with -------------------------------------------------------


def verdict_of(caller: Caller, client: Any) -> AWSCallError:
    ecs = ECS(client, caller.new_limiter())
    with pytest.raises(AWSCallError) as refused:
        caller.result_of(ecs.call("ListTasks", CLUSTER))
    return refused.value


def test_credentials_that_cannot_be_refreshed_are_waited_for(
    aws: Any, caller: Caller
) -> None:
    expired = {
        "access_key": "a",
        "secret_key": "s",
        "token": "t",
        "expiry_time": "2020-01-01T00:00:00Z",
    }
    session = get_session()
    session._credentials = RefreshableCredentials.create_from_metadata(
        metadata=expired, refresh_using=lambda: expired, method="test"
    )
    client = session.create_client("ecs", aws.region, endpoint_url=aws.url)
    refused = verdict_of(caller, client)
    assert refused.verdict is Verdict.RETRY
    assert refused.code == "expired-credentials"


def test_a_tls_error_is_a_lost_answer(aws: Any, caller: Caller) -> None:
    """The sandbox speaks no TLS."""
    client = own_client("ecs", endpoint_url=aws.url.replace("http:", "https:"))
    refused = verdict_of(caller, client)
    assert refused.answer.code == "SSLError"
    assert refused.verdict is Verdict.RETRY


def test_a_proxy_that_is_not_there_is_waited_for(caller: Caller) -> None:
    with socket.socket() as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{bound.getsockname()[1]}"
        client = own_client("ecs", proxies={"https": address})
        refused = verdict_of(caller, client)
    assert refused.answer.code == "ProxyConnectionError"
    assert refused.verdict is Verdict.RETRY


@pytest.mark.parametrize(
    "error",
    [
        ssl.SSLCertVerificationError("certificate verify failed"),
        ssl.SSLEOFError("EOF occurred in violation of protocol"),
        BrokenPipeError(32, "Broken pipe"),
        TimeoutError("timed out"),
        socket.gaierror(-3, "Temporary failure in name resolution"),
        OSError(24, "Too many open files"),
        ConnectionResetError(104, "Connection reset by peer"),
        urllib3.exceptions.ProtocolError("Connection broken"),
        urllib3.exceptions.SSLError("bad handshake"),
        urllib3.exceptions.DecodeError("failed to decode it"),
        http.client.IncompleteRead(b""),
        http.client.RemoteDisconnected("without response"),
        RuntimeError("Credentials were refreshed, but are still expired"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_that_botocore_does_not_wrap_are_refusals(
    caller: Caller, error: Exception
) -> None:
    def fail(**_: Any) -> None:
        raise error

    client = own_client("ecs")
    client.meta.events.register("before-send.ecs", fail)
    assert verdict_of(caller, client).verdict is Verdict.RETRY


def own_client(service: str, endpoint_url: Any = None, **config: Any) -> Any:
    import boto3

    return boto3.client(
        service,
        region_name="us-east-1",
        endpoint_url=endpoint_url,
        aws_access_key_id="sandbox",
        aws_secret_access_key="sandbox",
        config=Config(retries={"total_max_attempts": 1}, **config),
    )


def test_the_limiter_hears_of_throttles_that_botocore_would_retry_by_itself(
    caller: Caller, aws: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect_ecs_plugin.sandbox.aws import Fault

    heard: List[str] = []
    monkeypatch.setattr(caller.pacers[0], "throttled", heard.append)
    caller.client.list_tasks()
    for code in ("ThrottlingException", "ServerException"):
        aws.fault = lambda *_, code=code: Fault(code, "Rate exceeded")
        with pytest.raises(ClientError, match=code):
            caller.client.list_tasks()
    assert heard == ["ListTasks"]
