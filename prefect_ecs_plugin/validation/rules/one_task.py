"""What run_task kwargs may not say, since a flow run is exactly one task of ours."""

from __future__ import annotations

from typing import Any, List, Mapping

from .problem import Problem

_RESERVED = {
    "taskDefinition": "name the definition with task_definition_arn of the ECSRun",
    "clientToken": "the agent makes one per flow run, so that no task starts twice",
}


def check_one_task(kwargs: Mapping[str, Any]) -> List[Problem]:
    """Find the keys of run_task kwargs that are not the user's to give.

    Args:
        kwargs: The kwargs of an agent or a run.
    """
    problems = [
        Problem(key, f"cannot be given: {instead}")
        for key, instead in _RESERVED.items()
        if kwargs.get(key) is not None
    ]
    if kwargs.get("count") not in (None, 1, "1"):
        problems.append(Problem("count", "has to be 1: a flow run is one task"))
    return problems
