"""Links into the AWS console."""

from __future__ import annotations

from typing import Any, Dict

import pytest

from prefect_ecs_plugin.aws import console_links

ARN = "arn:aws:ecs:eu-west-1:123456789012:task/prod/0123abc"


def with_logs(**options: str) -> Dict[str, Any]:
    logs = {"logDriver": "awslogs", "options": options}
    return {"containerDefinitions": [{"name": "flow", "logConfiguration": logs}]}


@pytest.mark.parametrize(
    "arn, url",
    [
        (
            ARN,
            "https://eu-west-1.console.aws.amazon.com/ecs/v2/clusters/prod/tasks/"
            "0123abc?region=eu-west-1",
        ),
        (
            "arn:aws-cn:ecs:cn-north-1:123456789012:task/0123abc",
            "https://cn-north-1.console.amazonaws.cn/ecs/v2/clusters/default/tasks/"
            "0123abc?region=cn-north-1",
        ),
    ],
)
def test_task_url(arn: str, url: str) -> None:
    assert console_links.task_url(arn) == url


def test_log_url() -> None:
    definition = with_logs(
        **{"awslogs-group": "/ecs/prefect", "awslogs-stream-prefix": "p"}
    )
    assert console_links.log_url(ARN, definition) == (
        "https://eu-west-1.console.aws.amazon.com/cloudwatch/home?region=eu-west-1"
        "#logsV2:log-groups/log-group/$252Fecs$252Fprefect/log-events/"
        "p$252Fflow$252F0123abc"
    )


@pytest.mark.parametrize(
    "definition",
    [
        {},
        {"containerDefinitions": [{"name": "flow"}]},
        with_logs(**{"awslogs-group": "g"}),
        {
            "containerDefinitions": [
                {"name": "flow", "logConfiguration": {"logDriver": "splunk"}}
            ]
        },
    ],
)
def test_no_log_url_without_awslogs_and_a_stream_prefix(definition: Any) -> None:
    assert console_links.log_url(ARN, definition) is None
