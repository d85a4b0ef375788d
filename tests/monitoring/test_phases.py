"""How long the phases of tasks took, as tables of their times."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Dict

import pytest

from prefect_ecs_plugin.launch_record import Launch, LaunchRecord
from prefect_ecs_plugin.monitoring import phases
from prefect_ecs_plugin.observability.counters import Phase

ARN = "arn:aws:ecs:eu-west-1:123456789012:task/prod/0123abc"
LAUNCH = Launch(name="run-1")

#: When what happened, in seconds.
TIMES: Dict[str, float] = {
    "createdAt": 102,
    "pullStartedAt": 114,
    "pullStoppedAt": 159,
    "startedAt": 160,
    "executionStoppedAt": 200,
    "stoppedAt": 215,
}


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(1_000_000 + seconds, timezone.utc)


def task(but: str = "", image: str = "x", **more: Any) -> Dict[str, Any]:
    """A stopped task, without some of the times."""
    times = {name: at(each) for name, each in TIMES.items() if name not in but.split()}
    container = {"name": "flow", "image": image}
    return {"taskArn": ARN, "containers": [container], **times, **more}


def row(start_time: Any = 168, claimed: float = 101.6, name: str = "run-1") -> Any:
    state = {"type": "Submitted", "context": dict(LaunchRecord(name).to_context())}
    claim = {"serialized_state": state, "timestamp": at(claimed).isoformat()}
    return {
        "state": "Success",
        "start_time": start_time and at(start_time).isoformat(),
        "states": [claim],
    }


@pytest.mark.parametrize(
    "task, row, expected",
    [
        (task(), row(), (0.4, 12, 45, 9, 32)),
        # ECS shows when the containers ended, but for old tasks.
        (task("executionStoppedAt"), row(), (0.4, 12, 45, 9, 47)),
        # The first state is that of an earlier task, or there was none.
        (task(), row(start_time=50), (0.4, 12, 45, 1, 40)),
        (task(), row(start_time=None), (0.4, 12, 45, 1, 40)),
        # Clocks differ.
        (task(), row(claimed=103), (0, 12, 45, 9, 32)),
        # The run was launched again since.
        (task(), row(name="run-5"), (None, 12, 45, 9, 32)),
        (task(), {"state": "gone"}, (None, 12, 45, 1, 40)),
        # The task never started, and its pull did not end.
        (
            task("pullStoppedAt startedAt executionStoppedAt"),
            row(),
            (0.4, 12, None, None, None),
        ),
        (
            task("pullStartedAt pullStoppedAt startedAt executionStoppedAt"),
            row(None),
            (0.4, None, None, None, None),
        ),
        # Numbers, as no boto3 shows them, are no times.
        ({"createdAt": 1, "startedAt": 2, "stoppedAt": 3}, row(), (None,) * 5),
    ],
)
def test_how_long_each_phase_took(task: Any, row: Any, expected: Any) -> None:
    taken = phases.of_task(task, row, LAUNCH)
    assert {phase: round(seconds, 3) for phase, seconds in taken.items()} == {
        phase: seconds for phase, seconds in zip(Phase, expected) if seconds is not None
    }


def test_the_line() -> None:
    taken = phases.of_task(task(), row(), LAUNCH)
    assert phases.line(task(), taken) == (
        "What took how long in ECS task 0123abc: waiting for AWS 0.4 s, provisioning "
        "12 s, image pull 45 s, start of the flow 9.0 s, run 32 s"
    )
    assert phases.line(task(), {}) == ""


@pytest.mark.parametrize("pull, has_advice", [(60, False), (61, True)])
def test_a_long_pull_gets_advice(pull: float, has_advice: bool) -> None:
    line = phases.line(task(), {Phase.PULL: pull})
    assert (phases.pull_advice(task()) in line) is has_advice


ECR = "123456789012.dkr.ecr.{}.amazonaws.com/flows:1"


@pytest.mark.parametrize(
    "image, more, words",
    [
        ("prefecthq/prefect:1.4.1", {}, "ECR in eu-west-1"),
        ("public.ecr.aws/x/y", {}, "ECR in eu-west-1"),
        ("", {}, "ECR in eu-west-1"),
        (ECR.format("us-east-1"), {}, "from ECR in us-east-1 to eu-west-1"),
        (ECR.format("eu-west-1"), {"launchType": "FARGATE"}, "SOCI index"),
        (
            "123456789012.dkr.ecr-fips.eu-west-1.amazonaws.com/flows:1",
            {"capacityProviderName": "FARGATE_SPOT"},
            "SOCI index",
        ),
        (ECR.format("eu-west-1"), {"launchType": "EC2"}, "prefer-cached"),
        (ECR.format("eu-west-1"), {"capacityProviderName": "mine"}, "prefer-cached"),
    ],
)
def test_the_advice_that_fits(image: str, more: Dict[str, Any], words: str) -> None:
    assert words in phases.pull_advice(task(image=image, **more))


def test_what_is_said_can_be_read_again() -> None:
    taken = phases.of_task(task(), row(), LAUNCH)
    for cost in ("", "It used 1.5 vCPU hours"):
        line = phases.line(task(), {**taken, Phase.PULL: 100.0}, cost)
        assert cost in line
        assert phases.read(f"Flow run x: {line}") == (
            "0123abc",
            {**taken, Phase.PULL: 100.0, Phase.WAITING: 0.4},
        )
    assert phases.read("The task has ended.") is None
