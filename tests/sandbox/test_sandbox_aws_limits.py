"""AWS's documented request limits in the sandbox, on a clock of the test's own."""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sandbox_aws import AWS, ONCE, definition, refusal, run_request

from prefect_ecs_plugin.sandbox.aws.buckets import Limits, Rate, TokenBucket


class Clock:
    """Seconds that only grow, when told to."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


# (operations that share a bucket, burst, tokens a second)
DOCUMENTED: List[Tuple[List[str], int, int]] = [
    (["RegisterTaskDefinition", "DeregisterTaskDefinition"], 20, 1),
    (["DeleteTaskDefinitions"], 5, 1),
    (
        [
            "DescribeTaskDefinition",
            "ListTaskDefinitions",
            "ListTaskDefinitionFamilies",
        ],
        50,
        20,
    ),
    (["RunTask", "StartTask", "StopTask", "ExecuteCommand"], 100, 40),
    (["DescribeTasks", "ListTasks"], 100, 20),
    (["DescribeClusters", "ListClusters"], 50, 20),
    (["TagResource", "UntagResource"], 20, 10),
]


@pytest.mark.parametrize("operations, burst, per_second", DOCUMENTED)
def test_documented_limits(operations: List[str], burst: int, per_second: int) -> None:
    clock = Clock()
    limits = Limits(clock)

    def allowed() -> int:
        """How many calls go through now, taking turns."""
        count = 0
        while limits.allow_call(operations[count % len(operations)]):
            count += 1
        return count

    assert allowed() == burst
    clock.time += 1
    assert allowed() == per_second
    clock.time += 1000
    assert allowed() == burst


def test_categories_do_not_share() -> None:
    limits = Limits(Clock())
    while limits.allow_call("RegisterTaskDefinition"):
        pass
    assert limits.allow_call("RunTask")


@pytest.mark.parametrize(
    "provider, tasks, calls", [("FARGATE", 1, 20), ("FARGATE_SPOT", 10, 10)]
)
def test_fargate_limits_calls_and_tasks(provider: str, tasks: int, calls: int) -> None:
    clock = Clock()
    limits = Limits(clock)

    def allowed() -> int:
        return sum(limits.allow_launch(provider, tasks) for _ in range(1000))

    assert allowed() == calls
    clock.time += 1
    assert allowed() == 20 // tasks


def test_a_launch_refused_for_its_tasks_takes_no_call() -> None:
    limits = Limits(Clock())
    for _ in range(10):
        assert limits.allow_launch("FARGATE", 10)
    assert not limits.allow_launch("FARGATE", 10)
    assert sum(limits.allow_launch("FARGATE_SPOT", 1) for _ in range(20)) == 10


steps = st.lists(st.floats(0, 3, allow_nan=False), min_size=1, max_size=200)


@given(steps, st.integers(1, 20), st.floats(0.1, 50))
def test_law_a_bucket_never_gives_more_than_it_may(
    waits: List[float], burst: int, per_second: float
) -> None:
    """In any span of time: at most its size and what flowed in meanwhile."""
    clock = Clock()
    bucket = TokenBucket(Rate(burst, per_second), clock)
    given_at: List[float] = []
    for wait in waits:
        clock.time += wait
        while bucket.can_give():
            bucket.take()
            given_at.append(clock.time)
    for first, start in enumerate(given_at):
        span = given_at[-1] - start
        assert len(given_at) - first <= burst + span * per_second + 1e-6


@given(steps, st.integers(1, 20), st.floats(0.1, 50))
def test_law_who_waits_long_enough_gets_a_token(
    waits: List[float], burst: int, per_second: float
) -> None:
    clock = Clock()
    bucket = TokenBucket(Rate(burst, per_second), clock)
    for wait in waits:
        clock.time += wait
        while bucket.can_give():
            bucket.take()
    clock.time += 1 / per_second + 1e-6
    assert bucket.can_give()


# As a client meets them

LIMITED_CLOCK = Clock()


@pytest.fixture(scope="module")
def aws() -> Iterator[AWS]:
    with AWS(runs_tasks=False, limits=True, clock=LIMITED_CLOCK) as server:
        server.client("ecs", config=ONCE).register_task_definition(**definition())
        yield server


@pytest.fixture
def ecs(aws: AWS) -> Any:
    LIMITED_CLOCK.time += 1000.0
    return aws.client("ecs", config=ONCE)


THROTTLED = {"Code": "ThrottlingException", "Message": "Rate exceeded", "Status": 400}


def test_the_21st_launch_of_a_second_on_fargate(aws: AWS, ecs: Any) -> None:
    request = run_request(aws)
    for _ in range(20):
        ecs.run_task(**request)
    before = aws.throttled["ecs.RunTask"], len(aws.tasks())
    assert refusal(ecs.run_task, **request) == THROTTLED
    assert (aws.throttled["ecs.RunTask"], len(aws.tasks())) == (
        before[0] + 1,
        before[1],
    )
    LIMITED_CLOCK.time += 0.06  # a token takes 0.05
    ecs.run_task(**request)


def test_the_21st_registration(ecs: Any) -> None:
    for _ in range(10):
        arn = ecs.register_task_definition(**definition(family="often"))
        ecs.deregister_task_definition(
            taskDefinition=arn["taskDefinition"]["taskDefinitionArn"]
        )
    assert refusal(ecs.register_task_definition, **definition()) == THROTTLED


def test_other_services_have_no_limits(aws: AWS, ecs: Any) -> None:
    s3 = aws.client("s3")
    for _ in range(120):
        s3.list_buckets()
    assert set(aws.throttled) <= {"ecs.RunTask", "ecs.RegisterTaskDefinition"}


def test_each_region_has_its_own_buckets(aws: AWS, ecs: Any) -> None:
    exhaust(ecs.list_clusters)
    elsewhere = aws.client("ecs", region_name="eu-west-1", config=ONCE)
    assert elsewhere.list_clusters()["clusterArns"] == []


def exhaust(call: Callable[[], Dict[str, Any]]) -> None:
    for _ in range(50):
        call()
    assert refusal(call) == THROTTLED
