"""Secrets taken out of text that people will read."""

from __future__ import annotations

import re
from typing import Any, Iterable, Iterator, Mapping, Optional

#: Names of variables whose values are nobody's business.
_SECRET_NAME = re.compile(r"key|token|secret|passw|credential|auth", re.IGNORECASE)

#: Shorter values (`1`, `true`, `prod`) are no secrets, and are part of many words.
_SHORTEST = 8


def redacted(text: str, *sources: Optional[Mapping[str, Any]]) -> str:
    """Text in which secret values are stars.

    Args:
        text: What is going to be shown.
        sources: Described tasks and task definitions, whose environment entries with
            names like `PREFECT__CLOUD__API_KEY` have the values to look for.
    """
    secrets = {value for source in sources for value in _secrets(source or {})}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _secrets(source: Mapping[str, Any]) -> Iterator[str]:
    for container in _containers(source):
        for entry in container.get("environment") or ():
            value = str(entry.get("value") or "")
            if len(value) >= _SHORTEST and _SECRET_NAME.search(entry.get("name") or ""):
                yield value


def _containers(source: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    yield from source.get("containerDefinitions") or ()
    yield from (source.get("overrides") or {}).get("containerOverrides") or ()
