"""The last lines that a flow's container wrote, from CloudWatch Logs."""

from __future__ import annotations

import functools
import logging
import re
from typing import Any, Callable, List, Mapping

from ..errors import ConfigurationError
from ..observability.log_formats import log_context
from ..validation.excerpt import quoted
from . import console_links

#: https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_CreateLogGroup.html
_GROUP = re.compile(r"[A-Za-z0-9_/.#-]{1,512}")

#: How many lines a reader gets.
LINES = 50


def check_group(option: str, name: str) -> None:
    """Refuse a name that no log group can have.

    Raises:
        ConfigurationError: one line with the option and what the name may be.
    """
    if not _GROUP.fullmatch(name):
        raise ConfigurationError(
            f"{option}: no log group can have the name {quoted(name)}; give 1 to 512 "
            "letters, digits and _ / . # -",
            code="invalid-log-group",
        )


class ContainerLogs:
    """Reads logs of containers that use the awslogs driver.

    Reading is best-effort: a failure is logged at DEBUG and nothing else.

    Args:
        clients: Makes AWS clients; asked for `logs`, once, when it is first needed.
        logger: The agent's own log.
    """

    def __init__(self, clients: Callable[[str], Any], logger: logging.Logger) -> None:
        self._client = functools.lru_cache(maxsize=1)(lambda: clients("logs"))
        self._logger = logger

    def last_lines(self, task_arn: str, definition: Mapping[str, Any]) -> List[str]:
        """The end of what a task's `flow` container wrote.

        Args:
            task_arn: The task.
            definition: Its definition, rendered or described.

        Returns:
            At most 50 lines, the latest last. They may contain secrets, which have to
            be redacted before a line is shortened. Empty if the container does not use
            awslogs or its log cannot be read.
        """
        stream = console_links.log_stream(task_arn, definition)
        if stream is None:
            return []
        try:
            return self._read(console_links.awslogs_options(definition), stream)
        except Exception as error:  # best-effort
            self._logger.debug(
                "The log of task %s cannot be read: %s: %s",
                task_arn,
                type(error).__name__,
                error,
                extra=log_context(None, task_arn),
            )
            return []

    def _read(self, options: Mapping[str, str], stream: str) -> List[str]:
        """The last events of a stream.

        https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_GetLogEvents.html
        """
        client = self._client()
        region = options.get("awslogs-region", client.meta.region_name)
        if region != client.meta.region_name:
            raise LookupError(f"it is in another region, {region}")
        answer = client.get_log_events(
            logGroupName=options["awslogs-group"],
            logStreamName=stream,
            limit=LINES,
            startFromHead=False,
        )
        lines = [
            line for event in answer["events"] for line in event["message"].splitlines()
        ]
        return lines[-LINES:]
