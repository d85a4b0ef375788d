"""Checks how flow runs get their Prefect API key: as a secret that ECS fetches, or in
plain text. Pure.

`template` adds the secret to the definitions that it renders. A definition that the
user registered has to contain it already. `kwargs` keeps the key out of overrides.
"""

from __future__ import annotations

from typing import Any, Iterator, Mapping

from ..errors import RunConfigError
from ..flow_run import FLOW_CONTAINER
from ..settings import AgentSettings
from ..template import API_KEY_NAMES, brings_api_key, coerce_template


def warnings(settings: AgentSettings, has_key: bool) -> Iterator[str]:
    """What an operator should know when the agent starts, a line each.

    Args:
        settings: The agent's.
        has_key: Whether the agent has a key that flow runs get too.
    """
    definition = coerce_template(settings.task_definition)
    if settings.api_key_secret_arn:
        if not (settings.execution_role_arn or definition.get("executionRoleArn")):
            yield (
                "--api-key-secret-arn needs an execution role, with which ECS reads "
                "the secret: give --execution-role-arn, or executionRoleArn in the "
                "template. Runs without one will fail. [no-execution-role]"
            )
    elif has_key and not brings_api_key(definition):
        yield (
            "Flow runs get the API key in plain text, and everyone who may describe "
            "tasks can read it: keep it in Secrets Manager or SSM, and give "
            "--api-key-secret-arn. [plain-text-api-key]"
        )


def check_brought(
    task_definition: str, described: Mapping[str, Any], settings: AgentSettings
) -> None:
    """Refuse a registered definition that leaves its runs without the key.

    Args:
        task_definition: Its name, as the run config has it.
        described: What ECS says of it.
        settings: The agent's.

    Raises:
        RunConfigError: one sentence with what to add to it.
    """
    if not settings.api_key_secret_arn or brings_api_key(described):
        return
    raise RunConfigError(
        f"The task definition {task_definition} does not contain the API key, and this "
        "agent sends none in plain text: register it again with "
        f"{API_KEY_NAMES[0]} among the secrets of its container {FLOW_CONTAINER!r}, "
        f"valueFrom {settings.api_key_secret_arn}, and name the new revision.",
        code="definition-without-api-key",
    )
