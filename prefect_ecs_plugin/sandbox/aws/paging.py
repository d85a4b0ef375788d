"""Lists in pages of at most a hundred, with a token for the next page."""

from __future__ import annotations

import base64
from typing import Any, Dict, List, Mapping

from .answers import Refusal

MOST = 100


def page(items: List[str], params: Mapping[str, Any], member: str) -> Dict[str, Any]:
    """One page of a List... answer.

    Args:
        items: All that there is, in order.
        params: The request; `maxResults` and `nextToken` count.
        member: What the answer calls the list.
    """
    size = params.get("maxResults", MOST)
    if not 1 <= size <= MOST:
        raise Refusal(
            "InvalidParameterException", f"maxResults must be between 1 and {MOST}."
        )
    start = _start(params.get("nextToken"))
    answer: Dict[str, Any] = {member: items[start : start + size]}
    if start + size < len(items):
        answer["nextToken"] = base64.b64encode(b"%d" % (start + size)).decode()
    return answer


def _start(token: str | None) -> int:
    if token is None:
        return 0
    try:
        return int(base64.b64decode(token, validate=True))
    except ValueError:
        raise Refusal("InvalidParameterException", "Invalid token") from None
