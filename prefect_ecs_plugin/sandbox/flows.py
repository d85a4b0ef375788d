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
from typing import Any, Dict, List, Sequence, Tuple

from prefect_ecs_plugin.errors import PrefectECSError
from prefect_ecs_plugin.sandbox.environment import PROJECT


class FlowError(PrefectECSError):
    """A flow cannot be registered or run."""


@dataclass(frozen=True)
class Flow:
    """A registered flow."""

    id: str
    name: str
    labels: Sequence[str]


def register_arguments(paths: Sequence[str]) -> List[str]:
    """Return the arguments with which `prefect` registers the flows in some files."""
    # A schedule's runs would be due some time; here each flow runs once, at once.
    arguments = ["register", "--project", PROJECT, "--no-schedule"]
    for path in paths:
        # Prefect takes a path as a pattern.
        arguments += ["--path", glob.escape(path)]
    return arguments


def registered(
    paths: Sequence[str], exit_code: int, output: Sequence[str]
) -> List[str]:
    """Return the ids of the flows that `prefect register` has registered.

    Args:
        paths: The files it was given.
        exit_code: Its exit code.
        output: All its lines.

    Raises:
        FlowError: A file cannot be loaded, a flow cannot be registered, or there is
            none in one of the files.
    """
    if exit_code != 0:
        said = output or [f"prefect register ended with exit code {exit_code}"]
        subject, reason = _complaint(paths, said)
        raise FlowError(
            f"{subject} cannot be registered: {reason}", code="flow-not-registered"
        )
    for path in paths:
        if not any(
            line.startswith("Processing ") and repr(path) in line for line in output
        ):
            raise FlowError(
                f"There is no flow in {path}. Assign the flow to a variable of the "
                "module.",
                code="no-flow",
            )
    found = (re.search(r"\bID: ([0-9a-f-]{36})$", line) for line in output)
    return [match.group(1) for match in found if match]


def _complaint(paths: Sequence[str], output: Sequence[str]) -> Tuple[str, str]:
    """The file or flow that `prefect register` failed on, and the reason.

    Up to the first "Error" the output says what was being registered. A traceback
    follows, whose last line is the reason, and then lines about other files.
    """
    subject, reason, wrong = ", ".join(paths), output[-1], False
    for line in output:
        match = re.search(r"(?:Error loading|Processing|Registering) '(.+?)'", line)
        if match and not wrong:
            subject = match.group(1)
        if wrong and not line.strip():
            break
        wrong = wrong or "Error" in line
        reason = line.strip()
    return subject, reason


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

    def create_run(self, flow: Flow, labels: Sequence[str]) -> str:
        """Create a run of a flow that is due at once and return its id.

        Raises:
            FlowError: The API refuses it, for a parameter without a value say.
        """
        values = {"flow_id": flow.id, "labels": list(labels)}
        try:
            data = self._ask(
                "mutation ($input: create_flow_run_input!) "
                "{ create_flow_run(input: $input) { id } }",
                input=values,
            )
        except FlowError as error:
            raise FlowError(
                f"Flow {flow.name!r} cannot be run: {error.message}",
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
