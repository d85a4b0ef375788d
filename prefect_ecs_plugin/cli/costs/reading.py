"""The lines about stopped tasks, from an agent's log or from the Prefect API."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any, Dict, Iterable, Iterator, Mapping, Optional

import pendulum
import prefect
import requests
from prefect.exceptions import ClientError

from ...errors import PrefectECSError, RateLimited, reason
from ...monitoring.phases import BEGINNING
from ...prefect_api.client import AgentClient
from .sums import Stopped, stopped


def from_log(lines: Iterable[str], since: datetime) -> Iterator[Stopped]:
    """The tasks in an agent's log in JSON.

    Args:
        lines: Its lines. What stands before an object on a line is ignored, such as the
            time that CloudWatch adds; so are lines without an object.
        since: The time of the first line that counts.

    Raises:
        PrefectECSError: if there are lines, and none has an object of such a log.
    """
    is_empty, has_object = True, False
    for line in lines:
        is_empty = is_empty and not line.strip()
        entry = _entry(line)
        if entry is None:
            continue
        has_object = True
        yield from _counted(entry["message"], entry["timestamp"], entry, since)
    if not is_empty and not has_object:
        raise PrefectECSError(
            "The log has no line of an agent's log in JSON; start the agent with "
            "--log-format json, or leave out --log to read the runs' logs.",
            code="no-json-log",
        )


def _entry(line: str) -> Optional[Dict[str, Any]]:
    try:
        entry = json.loads(line[line.index("{") :])
    except (ValueError, RecursionError):
        return None
    is_ours = isinstance(entry, dict) and {"message", "timestamp"} <= entry.keys()
    return entry if is_ours else None


def from_api(since: datetime) -> Iterator[Stopped]:
    """The tasks in the logs of all flow runs.

    Args:
        since: The time of the first line that counts.

    Raises:
        PrefectECSError: if the API gives no usable answer.
    """
    api = prefect.config.cloud.api
    try:
        client = AgentClient(api_server=api)
        for row in client.log_lines(BEGINNING, since):
            run = row.get("flow_run") or {}
            flow = run.get("flow") or {}
            about = {
                "labels": run.get("labels"),
                "flow": flow.get("name"),
                "project": (flow.get("project") or {}).get("name"),
            }
            yield from _counted(row["message"], row["timestamp"], about, since)
    except (ClientError, requests.RequestException, RateLimited, ValueError) as error:
        raise PrefectECSError(
            f"The logs of flow runs cannot be read from the Prefect API at {api}: "
            f"{reason(error)}. Set PREFECT__CLOUD__API, and check "
            "that the API is running.",
            code="logs-unreadable",
        ) from error


def _counted(
    message: Any, written: Any, run: Mapping[str, Any], since: datetime
) -> Iterator[Stopped]:
    """The task of one line, if the line is about one and is not too old."""
    if BEGINNING not in str(message):
        return
    try:
        moment: Any = pendulum.parse(str(written))
        at = datetime.fromtimestamp(moment.timestamp(), timezone.utc)
    except (ValueError, AttributeError):
        return
    task = stopped(str(message), at, run) if at >= since else None
    if task:
        yield task
