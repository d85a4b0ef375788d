"""What the Prefect API says of flows that name a task definition."""

from __future__ import annotations

from typing import Any, Callable, FrozenSet, Mapping, Optional

import prefect

from ...errors import reason
from ...observability.counters import AgentCounters
from ...prefect_api.client import AgentClient

_QUERY = {"query": {"flow(where: {archived: {_eq: false}})": {"run_config"}}}


def agent_name(given: Optional[str]) -> str:
    """The name that an agent started with the same option has."""
    return str(given or prefect.config.cloud.agent.get("name", "agent"))


def pinned_definitions(tell: Callable[[str], object]) -> FrozenSet[str]:
    """The `task_definition_arn` of all registered flows, as far as the API says so.

    Args:
        tell: Told that it does not.
    """
    try:
        client = AgentClient(AgentCounters(), api_server=prefect.config.cloud.api)
        flows = client.graphql(_QUERY).data.flow
    except Exception as error:  # the client's own, requests', or none configured
        tell(
            "The Prefect API does not say which flows name a task definition, so none "
            f"is kept for it: {reason(error)}."
        )
        return frozenset()
    named = (_named(flow.get("run_config")) for flow in flows)
    return frozenset(each for each in named if each)


def _named(run_config: Any) -> Optional[str]:
    if not isinstance(run_config, Mapping):
        return None
    arn = run_config.get("task_definition_arn")
    return str(arn) if arn else None
