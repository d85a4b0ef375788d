"""What a flow run takes from its flow and the flow's group where it has nothing."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional

from ..errors import Refused
from ..tables import Row


def labels(
    given: Optional[List[str]],
    run_config: Optional[Mapping[str, Any]],
    group: Row,
    flow: Row,
) -> List[str]:
    """The labels given, else those of the run's own config, the group or the flow."""
    if given is not None:
        return list(given)
    if run_config is not None:
        return list(run_config.get("labels") or [])
    if group["labels"] is not None:
        return list(group["labels"])
    source = group["run_config"] or flow["run_config"] or flow["environment"] or {}
    return list(source.get("labels") or [])


def parameters(
    given: Optional[Mapping[str, Any]], group: Row, flow: Row
) -> Dict[str, Any]:
    """The ones given over the group's.

    Raises:
        Refused: the flow does not know one, or needs one that is missing.
    """
    values = {**(group["default_parameters"] or {}), **(given or {})}
    known = {each["name"] for each in flow["parameters"]}
    required = {each["name"] for each in flow["parameters"] if each.get("required")}
    if required - values.keys():
        missing = sorted(required - values.keys())
        raise Refused(f"Required parameters are missing: {missing}")
    if values.keys() - known:
        raise Refused(f"Unknown parameters: {sorted(values.keys() - known)}")
    return values
