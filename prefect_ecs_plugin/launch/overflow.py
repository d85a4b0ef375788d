"""Moves variables beyond the limit of RunTask overrides into the task definition.

ECS accepts 8192 characters of overrides. An override beats the definition's variable of
the same name, so the container sees the same value either way. The largest variables
move first, so that few have to. Two kinds never move: those that would make the
definition usable by one run only, and those that look like secrets, since definitions
are kept and many people can read them.

Pure: new dicts out, no input is changed.
"""

from __future__ import annotations

import json
from typing import Any, Dict, Iterator, List, Mapping, Tuple

from ..errors import RunConfigError
from ..flow_run import MAX_RUNTIME, RUN_ID, plain
from ..observability import redaction
from ..template import API_KEY_NAMES, expect_dict, secret_names
from ..validation import rules

#: Variables that never move: with the run's id no two runs could share a definition,
#: definitions can be read for longer than an API key should be, and the agent reads
#: the maximum runtime from the task's overrides.
_STAY = frozenset({RUN_ID, MAX_RUNTIME, *API_KEY_NAMES})

#: Variables by container.
Moved = Dict[str, Dict[str, str]]


def move_env_to_definition(
    request: Mapping[str, Any], definition: Mapping[str, Any]
) -> Tuple[Dict[str, Any], Moved]:
    """Take variables out of a request until its overrides are within ECS's limit.

    Args:
        request: The RunTask request.
        definition: The rendered definition it will run.

    Returns:
        The request, and the variables that have to go into the definition for it:
        none if the overrides fit, all that may move if they cannot be made to fit.

    Raises:
        RunConfigError: if the overrides do not fit because of variables that look
            like secrets; it names them.
    """
    surplus = _length_as_sent(request.get("overrides")) - rules.MAX_OVERRIDES
    if surplus <= 0:  # as with nearly every run
        return dict(request), {}
    relieved: Dict[str, Any] = plain(request)
    overrides = relieved["overrides"]
    moved: Moved = {}
    movable = sorted(_movable(overrides, definition), key=_largest_first)
    secret = [each for each in movable if redaction.secrets_in(each[1])]
    for container, entry in movable:
        if (container, entry) in secret:
            continue
        if surplus <= 0:
            break
        container["environment"].remove(entry)
        surplus -= _length_as_sent(entry)
        variables = moved.setdefault(container["name"], {})
        variables[entry["name"]] = entry["value"]
    if rules.overrides_length(overrides) > rules.MAX_OVERRIDES:
        _raise_secrets(secret, surplus)
    return relieved, {
        container: dict(sorted(variables.items()))
        for container, variables in moved.items()
    }


def _raise_secrets(
    secret: List[Tuple[Dict[str, Any], Dict[str, str]]], surplus: int
) -> None:
    """Name the largest secrets, as many as would have to go; none if it is not them.

    Raises:
        RunConfigError: if the request would fit without them.
    """
    names = []
    for container, entry in secret:
        if surplus <= 0:
            break
        surplus -= _length_as_sent(entry)
        names.append(f"{entry['name']} (container {container['name']})")
    if names and surplus <= 0:
        raise RunConfigError(
            f"The run's overrides are longer than the {rules.MAX_OVERRIDES} characters "
            f"that ECS takes, because of {', '.join(names)}. What looks like a secret "
            "is not moved into the task definition, where others can read it; keep it "
            "in Secrets Manager or SSM and name it in the container's `secrets`.",
            code="overrides-too-long",
        )


def _length_as_sent(value: Any) -> int:
    """Characters on the wire, the most that ECS may count; how it does is not said."""
    return len(json.dumps(value))


def _movable(
    overrides: Mapping[str, Any], definition: Mapping[str, Any]
) -> Iterator[Tuple[Dict[str, Any], Dict[str, str]]]:
    secrets: Dict[str, List[str]] = {
        container["name"]: secret_names(container)
        for container in definition["containerDefinitions"]
    }
    for container in overrides.get("containerOverrides", []):
        stay = _STAY.union(secrets[container["name"]])
        for entry in container.get("environment", []):
            if entry["name"] not in stay:
                yield expect_dict(container), expect_dict(entry)


def _largest_first(
    variable: Tuple[Dict[str, Any], Dict[str, str]],
) -> Tuple[int, str, str]:
    container, entry = variable
    return -_length_as_sent(entry), container["name"], entry["name"]
