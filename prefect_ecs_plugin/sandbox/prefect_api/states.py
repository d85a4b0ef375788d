"""The states of Prefect 1: which there are, what they are, how one is stored."""

from __future__ import annotations

from typing import Any, Dict, FrozenSet, Mapping, Optional

from .errors import Refused
from .times import iso

# Prefect's state classes by what their is_...() methods answer.
SCHEDULED: FrozenSet[str] = frozenset(
    {"Scheduled", "Paused", "Resume", "Retrying", "Queued"}
)
RUNNING: FrozenSet[str] = frozenset({"Running", "Cancelling"})
META: FrozenSet[str] = frozenset({"Submitted", "Queued", "ClientFailed"})
SUCCESSFUL: FrozenSet[str] = frozenset({"Success", "Cached", "Mapped", "Skipped"})
FAILED: FrozenSet[str] = frozenset(
    {"Failed", "TimedOut", "TriggerFailed", "ValidationFailed"}
)
FINISHED: FrozenSet[str] = SUCCESSFUL | FAILED | {"Finished", "Cancelled", "Looped"}
ALL: FrozenSet[str] = SCHEDULED | RUNNING | META | FINISHED | {"Pending"}
MAX_BYTES = 1_000_000


def stored(state: Any, now: str) -> Dict[str, Any]:
    """A state as the API keeps it, with everything that Prefect's client asks of it.

    A client cannot read a state whose `_result` is null or missing, so none is stored
    like that.

    Args:
        state: what was sent.
        now: the time that stands for a missing start time, ISO 8601.

    Raises:
        Refused: with the server's own words where it refuses the state.
    """
    _check(state)
    kept = {"message": None, "context": {}, "cached_inputs": {}, **state}
    if kept.get("_result") is None:
        kept["_result"] = {"type": "NoResultType"}
    if kept["type"] in SCHEDULED:
        kept["start_time"] = _start_time(kept, now)
    if isinstance(kept.get("state"), dict):
        kept["state"] = stored(kept["state"], now)
    return kept


def without_context(state: Mapping[str, Any]) -> Dict[str, Any]:
    """A stored state, and the one in it, as an API keeps it that drops the context."""
    kept = {name: value for name, value in state.items() if name != "context"}
    if isinstance(kept.get("state"), dict):
        kept["state"] = without_context(kept["state"])
    return kept


def simple(kind: str, message: str, **more: Any) -> Dict[str, Any]:
    """A state of the API's own making."""
    return {"type": kind, "message": message, **more}


def _check(state: Any) -> None:
    if not isinstance(state, dict):
        raise Refused("{'_schema': ['Invalid input type.']}")
    if "type" not in state:
        raise Refused("{'type': ['Missing data for required field.']}")
    if not isinstance(state["type"], str) or state["type"] not in ALL:
        raise Refused(f"{{'type': ['Unsupported value: {state['type']}']}}")
    if not isinstance(state.get("message"), (str, type(None))):
        raise Refused("{'message': ['Not a valid string.']}")


def _start_time(state: Dict[str, Any], now: str) -> Optional[str]:
    """When it is due; a pause without end is due never, anything else at once."""
    value = state.get("start_time")
    if value is None:
        return None if state["type"] == "Paused" else now
    try:
        return iso(value)
    except ValueError:
        raise Refused("{'start_time': ['Not a valid datetime.']}") from None
