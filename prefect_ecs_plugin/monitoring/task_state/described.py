"""A task as DescribeTasks returns it, with what other modules need to know."""

from __future__ import annotations

from typing import Any, List, Mapping, Optional

from ...flow_run import FLOW_CONTAINER
from ..stop_reasons import StopReason, find

Described = Mapping[str, Any]


def flow_container(task: Described) -> Described:
    """The container that runs the flow; empty where ECS shows none."""
    for container in task.get("containers") or ():
        if container.get("name") == FLOW_CONTAINER:
            found: Described = container
            return found
    return {}


def exit_code(task: Described) -> Optional[int]:
    """The exit code of the flow's container, None if it has none."""
    code = flow_container(task).get("exitCode")
    return None if code is None else int(code)


def never_started(task: Described) -> bool:
    """Whether the flow cannot have run, not even for a moment.

    A task gets `startedAt` when it becomes RUNNING, but where there are sidecars its
    containers start one by one before that. So the flow's container must have no exit
    code and must not have been created either: a created one has a `runtimeId`.
    https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Container.html
    """
    flow = flow_container(task)
    return (
        task.get("startedAt") is None
        and flow.get("exitCode") is None
        and not flow.get("runtimeId")
        and flow.get("lastStatus") != "RUNNING"
    )


def reasons(task: Described) -> List[str]:
    """The task's stoppedReason, then its containers' reasons."""
    containers = task.get("containers") or ()
    found = [task.get("stoppedReason"), *(each.get("reason") for each in containers)]
    return [str(reason) for reason in found if reason]


def hint(task: Described) -> StopReason:
    """The row of the table of hints that explains why the task stopped."""
    return find(
        "\n".join(reasons(task)), str(task.get("stopCode") or ""), exit_code(task)
    )
