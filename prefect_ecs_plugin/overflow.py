"""Variables that a RunTask request has no room for move into its task definition.

ECS takes 8192 characters of overrides. An override beats the definition's variable of
the same name, so a variable has the same value for its container on either side. The
largest go first, so that few go, and none that would make the definition one run's.

Pure: new dicts out, no input is changed.
"""

from __future__ import annotations

import json
from typing import Any, Dict, Iterator, List, Mapping, Tuple

from . import rules
from .flow_run import RUN_ID, plain
from .template import API_KEY_NAMES, dict_of, secret_names

#: What stays: no two runs would share a definition with the first, and definitions
#: are kept, and read, for longer than a key should be.
_STAY = frozenset({RUN_ID, *API_KEY_NAMES})

#: Variables by container.
Moved = Dict[str, Dict[str, str]]


def relieve(
    request: Mapping[str, Any], definition: Mapping[str, Any]
) -> Tuple[Dict[str, Any], Moved]:
    """Take variables out of a request until ECS has room for its overrides.

    Args:
        request: The RunTask request.
        definition: The rendered definition it will run.

    Returns:
        The request, and the variables that have to go into the definition for it:
        none if there is room, as many as may go if there never is.
    """
    surplus = _length_as_sent(request.get("overrides")) - rules.MAX_OVERRIDES
    if surplus <= 0:  # as with nearly every run
        return dict(request), {}
    relieved: Dict[str, Any] = plain(request)
    overrides = relieved["overrides"]
    moved: Moved = {}
    for container, entry in sorted(_movable(overrides, definition), key=_largest_first):
        if surplus <= 0:
            break
        container["environment"].remove(entry)
        surplus -= _length_as_sent(entry)
        variables = moved.setdefault(container["name"], {})
        variables[entry["name"]] = entry["value"]
    return relieved, {
        container: dict(sorted(variables.items()))
        for container, variables in moved.items()
    }


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
                yield dict_of(container), dict_of(entry)


def _largest_first(
    variable: Tuple[Dict[str, Any], Dict[str, str]],
) -> Tuple[int, str, str]:
    container, entry = variable
    return -_length_as_sent(entry), container["name"], entry["name"]
