"""The last lines of a container's own log, against CloudWatch Logs on loopback."""

from __future__ import annotations

import logging
import time
from typing import Any, Callable, Dict, List

import pytest

from prefect_ecs_plugin.aws.container_logs import ContainerLogs

ARN = "arn:aws:ecs:us-east-1:123456789012:task/prod/0123abc"
STREAM = "runs/flow/0123abc"


def definition(driver: str = "awslogs", **options: str) -> Dict[str, Any]:
    given = {
        "awslogs-group": "prefect",
        "awslogs-region": "us-east-1",
        "awslogs-stream-prefix": "runs",
        **{name.replace("_", "-"): value for name, value in options.items()},
    }
    logs = {"logDriver": driver, "options": given}
    return {
        "containerDefinitions": [
            {"name": "proxy"},
            {"name": "flow", "logConfiguration": logs},
        ]
    }


class Log:
    """A log stream, and who reads it."""

    def __init__(self, client_of: Callable[..., Any]) -> None:
        self.client = client_of("logs")
        self.asked_for: List[str] = []
        self.client.create_log_group(logGroupName="prefect")
        self.client.create_log_stream(logGroupName="prefect", logStreamName=STREAM)
        self.reader = ContainerLogs(self.make, logging.getLogger("agent"))

    def make(self, service: str) -> Any:
        self.asked_for.append(service)
        return self.client

    def write(self, *lines: str) -> None:
        start = int(time.time() * 1000) - len(lines)
        self.client.put_log_events(
            logGroupName="prefect",
            logStreamName=STREAM,
            logEvents=[
                {"timestamp": start + number, "message": line}
                for number, line in enumerate(lines)
            ],
        )

    def last_lines(self, **options: str) -> List[str]:
        return self.reader.last_lines(ARN, definition(**options))


@pytest.fixture
def log(client_of: Callable[..., Any]) -> Log:
    return Log(client_of)


def test_the_last_fifty_lines(log: Log) -> None:
    log.write(*(f"line {number}" for number in range(120)))
    assert log.last_lines() == [f"line {number}" for number in range(70, 120)]


def test_fewer_lines(log: Log) -> None:
    assert log.last_lines() == []
    log.write("Traceback (most recent call last):", "ValueError: no")
    assert log.last_lines() == ["Traceback (most recent call last):", "ValueError: no"]
    assert log.asked_for == ["logs"]


def test_an_event_of_many_lines_and_a_long_line(log: Log) -> None:
    log.write("\n".join(f"line {number}" for number in range(60)), "x" * 5000)
    lines = log.last_lines()
    assert lines[0] == "line 11"
    assert lines[-2:] == ["line 59", "x" * 5000]  # cut when secrets are out
    assert len(lines) == 50


@pytest.mark.parametrize(
    "without",
    [
        {},
        {"containerDefinitions": [{"name": "flow"}]},
        definition(awslogs_stream_prefix=""),
        definition("splunk"),
    ],
)
def test_other_logs_are_not_asked_for(log: Log, without: Dict[str, Any]) -> None:
    assert log.reader.last_lines(ARN, without) == []
    assert log.asked_for == []


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"awslogs_group": "other"}, "ResourceNotFoundException"),
        ({"awslogs_stream_prefix": "other"}, "ResourceNotFoundException"),
        ({"awslogs_region": "eu-west-1"}, "another region, eu-west-1"),
    ],
)
def test_a_log_that_cannot_be_read_costs_one_debug_line(
    log: Log, options: Dict[str, str], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "agent")
    assert log.last_lines(**options) == []
    (record,) = [each for each in caplog.records if each.name == "agent"]
    assert record.levelno == logging.DEBUG
    assert record.getMessage().startswith(f"The log of task {ARN} cannot be read: ")
    assert reason in record.getMessage()


def test_an_agent_that_may_not_read_logs(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(service: str) -> Any:
        raise PermissionError("logs:GetLogEvents")

    caplog.set_level(logging.DEBUG, "agent")
    reader = ContainerLogs(refuse, logging.getLogger("agent"))
    assert reader.last_lines(ARN, definition()) == []
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
