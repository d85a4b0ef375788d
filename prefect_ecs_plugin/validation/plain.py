"""Values of a request as plain dicts, lists and strings (pure)."""

from __future__ import annotations

import math
from typing import Any, Mapping, Optional


def as_string(value: Any) -> Optional[str]:
    """A scalar as a string, `true` and `false` for booleans; None for anything else."""
    # The base classes' own conversions: an enum's str() is its name, not its value.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return repr(int(value))
    if isinstance(value, float) and math.isfinite(value):
        return repr(float(value))
    return None


def key_name(key: Any) -> str:
    """A key as a string: YAML has keys that are numbers or `true`."""
    written = as_string(key)
    return str(key) if written is None else written


def without_nulls(value: Any) -> Any:
    """A copy in plain dicts and lists; a null counts as not given."""
    if isinstance(value, Mapping):
        return {
            key_name(k): without_nulls(v) for k, v in value.items() if v is not None
        }
    if isinstance(value, (list, tuple)):
        return [without_nulls(item) for item in value if item is not None]
    return value
