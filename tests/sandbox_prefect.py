"""Prefect's API in the sandbox, asked raw, for the tests of it."""

from __future__ import annotations

import datetime
import json
import time
import uuid
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import pytest

pytest.importorskip("graphql", reason="the sandbox needs its extra and Python 3.10")

import pendulum
import requests
from deadlines import DEADLINE

from prefect_ecs_plugin.sandbox.prefect_api import PrefectAPI, Store

HTTP = requests.Session()
HTTP.trust_env = False  # no proxy of this user's
NOON = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.timezone.utc)


class Clock:
    """A time that stands until it is moved."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime.datetime:
        return self.now

    def advance(self, **delta: float) -> datetime.datetime:
        self.now += datetime.timedelta(**delta)
        return self.now


def until(condition: Callable[[], Any], seconds: float = DEADLINE) -> Any:
    """Polls until the condition holds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("that did not happen in time")


class Raw(NamedTuple):
    """The API without any client."""

    api: PrefectAPI

    def ask(
        self, query: str, headers: Optional[Dict[str, str]] = None, **variables: Any
    ) -> Tuple[int, Any]:
        response = HTTP.post(
            self.api.url,
            json={"query": query, "variables": json.dumps(variables)},
            headers=headers,
        )
        return response.status_code, response.json()

    def set_state(
        self, run_id: str, state: Any, agent_id: Optional[str] = None, version: int = 0
    ) -> Tuple[int, Any]:
        """As the probe asked, so that even line and column must be the same."""
        change = {"flow_run_id": run_id, "version": version, "state": state}
        return self.ask(
            "mutation($i:set_flow_run_states_input!)"
            "{set_flow_run_states(input:$i){states{id status message}}}",
            headers={"X-PREFECT-AGENT-ID": agent_id} if agent_id else None,
            i={"states": [change]},
        )

    def cancel(self, run_id: str) -> Tuple[int, Any]:
        return self.ask(
            "mutation($i:cancel_flow_run_input!){cancel_flow_run(input:$i){state}}",
            i={"flow_run_id": run_id},
        )

    def write_logs(self, logs: Any) -> Tuple[int, Any]:
        return self.ask(
            "mutation($i:write_run_logs_input!){write_run_logs(input:$i){success}}",
            i={"logs": logs},
        )

    def register_agent(self, *labels: str, name: str = "agent", **more: Any) -> str:
        status, body = self.ask(
            "mutation($i:register_agent_input!){register_agent(input:$i){id}}",
            i={
                "type": "ECSAgent",
                "name": name,
                "labels": list(labels),
                "tenant_id": self.api.store.tenant_id,
                **more,
            },
        )
        assert status == 200
        return str(body["data"]["register_agent"]["id"])

    def queue(self, *labels: str, agent_id: str = "") -> List[str]:
        before = pendulum.now("utc").add(seconds=10).isoformat()
        tenant_id = self.api.store.tenant_id
        status, body = self.ask(
            "mutation($i:get_runs_in_queue_input!)"
            "{get_runs_in_queue(input:$i){flow_run_ids}}",
            headers={"X-PREFECT-AGENT-ID": agent_id},
            i={"tenant_id": tenant_id, "before": before, "labels": list(labels)},
        )
        assert status == 200, body
        ids: List[str] = body["data"]["get_runs_in_queue"]["flow_run_ids"]
        return ids


def failed(field: str, message: str, column: int) -> Dict[str, Any]:
    """The body of a 200 whose only field failed."""
    return {
        "data": {field: None},
        "errors": [
            {
                "extensions": {
                    "code": "INTERNAL_SERVER_ERROR",
                    "exception": {"message": message},
                },
                "locations": [{"column": column, "line": 1}],
                "message": message,
                "path": [field],
            }
        ],
    }


def state_refused(message: str) -> Tuple[int, Dict[str, Any]]:
    return 200, failed("set_flow_run_states", message, 41)


def state_set(run_id: str) -> Tuple[int, Dict[str, Any]]:
    done = {"id": run_id, "message": None, "status": "SUCCESS"}
    return 200, {"data": {"set_flow_run_states": {"states": [done]}}}


def plain_flow(**more: Any) -> Dict[str, Any]:
    """A serialized flow of one task."""
    tasks = [{"name": "a", "slug": "a-1", "max_retries": 1, "retry_delay": 60}]
    return {"name": uuid.uuid4().hex, "parameters": [], "tasks": tasks, **more}


def new_flow(store: Store, **more: Any) -> str:
    project_id = store.create_project(uuid.uuid4().hex)
    return store.create_flow(project_id, plain_flow(**more))
