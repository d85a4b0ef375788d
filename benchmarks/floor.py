"""The floor: the CPU of the two calls for a run that no agent can do without.

A script for the Python of the plugin's environment; `measuring` starts it. For each run
it calls RunTask through boto3's client and sets the run's state through one
`requests.Session`, both as they come, in one thread, and does nothing else.

It reads a JSON object from standard input: `api`, the URL of the Prefect API;
`run_ids`, runs that are Scheduled; `warm_up`, how many of them come first and do not
count; `run_task` and `claim`, the request and the change of state to send, as the agent
sends them. It prints the seconds of CPU per run as a JSON object with `run_task` and
`claim`.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from typing import Any, Dict, Mapping

import boto3
import requests

_QUERY = """
mutation($input: set_flow_run_states_input!) {
  set_flow_run_states(input: $input) { states { id status message } }
}
"""


def main() -> None:
    """Make the calls of all runs."""
    given = json.load(sys.stdin)
    ecs = boto3.client("ecs")
    session = requests.Session()
    seconds = {"run_task": 0.0, "claim": 0.0}
    for number, run_id in enumerate(given["run_ids"]):
        began = time.process_time()
        run_task(ecs, given["run_task"])
        between = time.process_time()
        claim(session, given["api"], {**given["claim"], "flow_run_id": run_id})
        ended = time.process_time()
        if number >= given["warm_up"]:
            seconds["run_task"] += between - began
            seconds["claim"] += ended - between
    counted = len(given["run_ids"]) - given["warm_up"]
    print(json.dumps({name: spent / counted for name, spent in seconds.items()}))


def run_task(ecs: Any, request: Mapping[str, Any]) -> None:
    """Start a task."""
    answer = ecs.run_task(**{**request, "clientToken": uuid.uuid4().hex})
    if not answer["tasks"]:
        raise RuntimeError(f"RunTask started no task: {answer['failures']}")


def claim(session: requests.Session, api: str, change: Dict[str, Any]) -> None:
    """Set a run's state."""
    variables = {"input": {"states": [change]}}
    answer = session.post(api, json={"query": _QUERY, "variables": variables}).json()
    (state,) = answer["data"]["set_flow_run_states"]["states"]
    if state["status"] != "SUCCESS":
        raise RuntimeError(f"The state was not set: {state['message']}")


if __name__ == "__main__":
    main()
