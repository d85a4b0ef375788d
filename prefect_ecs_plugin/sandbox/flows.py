"""Flows registered and runs created, the way a user does it.

Registering is Prefect's own command in a child process. Runs are created with
requests to the API itself, because Prefect's client in this process would read the
user's configuration.
"""

from __future__ import annotations

import glob
import json
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from prefect_ecs_plugin.sandbox.environment import PROJECT
from prefect_ecs_plugin.sandbox.flow_files import FlowError


@dataclass(frozen=True)
class Flow:
    """A registered flow."""

    id: str
    name: str
    labels: Sequence[str]


def register_arguments(paths: Sequence[str]) -> List[str]:
    """Return the arguments with which `prefect` registers the flows in some files."""
    # A schedule's runs would be due some time; here each flow runs once, at once. With
    # --force a flow that equals one of another file has an id of its own.
    arguments = ["register", "--project", PROJECT, "--no-schedule", "--force"]
    for path in paths:
        # Prefect takes a path as a pattern.
        arguments += ["--path", glob.escape(path)]
    return arguments


def registered(
    paths: Sequence[str], exit_code: int, output: Sequence[str]
) -> Tuple[List[Tuple[str, str]], List[FlowError]]:
    """Return what `prefect register` has registered, and what it could not.

    Up to an "Error" the output says what was being registered. A traceback follows,
    whose last line is the reason, and then a blank line.

    Args:
        paths: The files it was given.
        exit_code: Its exit code.
        output: All its lines.

    Returns:
        Pairs of a path and the id of a flow in it; and the problems.
    """
    ids: List[Tuple[str, str]] = []
    reasons: Dict[str, str] = {}
    path = subject = failed = ""
    for line in output:
        file = re.search(r"(?:Error loading|Processing) '(.+?)'", line)
        flow = re.search(r"Registering '(.+?)'", line)
        found = re.search(r"\bID: ([0-9a-f-]{36})$", line)
        if file:
            path = subject = file[1]
        elif flow:
            subject = f"Flow {flow[1]!r} of {path}"
        elif found:
            ids.append((path, found[1]))
        if failed and line.strip():
            reasons[failed] = line.strip()
        elif failed:
            failed = ""
        # After "Error building storage" the same error stands at each flow.
        elif "Error" in line and path not in reasons:
            failed = subject
    end = f"prefect register ended with exit code {exit_code}"
    for each in paths:
        # A file that cannot be loaded, though it could before, keeps the others out.
        if f"Processing {each!r}:" not in output:
            reasons.setdefault(each, end if reasons or not output else output[-1])
    return ids, [
        FlowError(
            f"{subject} is skipped, since it cannot be registered: {reason}",
            code="flow-not-registered",
        )
        for subject, reason in reasons.items()
    ]


class API:
    """The few requests that the sandbox itself sends to its Prefect API.

    Args:
        url: Where it listens.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        # Without this urllib asks the system for proxies.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def create_project(self) -> None:
        """Create the project that the flows are registered in."""
        tenant = self._ask("query { tenant { id } }")["tenant"][0]["id"]
        self._ask(
            "mutation ($input: create_project_input!) "
            "{ create_project(input: $input) { id } }",
            input={"name": PROJECT, "tenant_id": tenant},
        )

    def flow(self, flow_id: str) -> Flow:
        """Return a registered flow."""
        data = self._ask(
            "query ($id: uuid!) { flow_by_pk(id: $id) { name run_config } }",
            id=flow_id,
        )["flow_by_pk"]
        labels = (data["run_config"] or {}).get("labels") or []
        return Flow(flow_id, data["name"], tuple(sorted(labels)))

    def create_run(
        self, flow: Flow, labels: Sequence[str], parameters: Mapping[str, Any]
    ) -> str:
        """Create a run of a flow that is due at once and return its id.

        Raises:
            FlowError: The API refuses it.
        """
        values = {
            "flow_id": flow.id,
            "labels": list(labels),
            "parameters": dict(parameters),
        }
        try:
            data = self._ask(
                "mutation ($input: create_flow_run_input!) "
                "{ create_flow_run(input: $input) { id } }",
                input=values,
            )
        except FlowError as error:
            raise FlowError(
                f"Flow {flow.name!r} is skipped, since it cannot be run: "
                f"{error.message}",
                code="flow-not-runnable",
            ) from error
        return str(data["create_flow_run"]["id"])

    def _ask(self, query: str, **variables: Any) -> Dict[str, Any]:
        body = {"query": query, "variables": json.dumps(variables)}
        request = urllib.request.Request(
            self._url,
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with self._opener.open(request, timeout=30) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            answer = json.load(error)
        for problem in answer.get("errors") or ():
            raise FlowError(str(problem.get("message")), code="api-error")
        data: Dict[str, Any] = answer["data"]
        return data
