"""What a clientToken means: the same launch is made once.

https://docs.aws.amazon.com/AmazonECS/latest/APIReference/ECS_Idempotency.html
"""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

from .answers import Refusal

LIFETIME = 24 * 3600.0


class _Launch(NamedTuple):
    fingerprint: str
    task_arns: List[str]
    at: float


class ClientTokens:
    """The launches that tokens stand for, by cluster.

    Args:
        now: The time of day in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._launches: Dict[Tuple[str, str], _Launch] = {}

    def earlier(self, cluster: str, request: Mapping[str, Any]) -> Optional[List[str]]:
        """The tasks of the same launch made before, None if there was none.

        Raises:
            Refusal: ConflictException: the token stands for another request.
        """
        launch = self._launches.get((cluster, request.get("clientToken", "")))
        if launch is None or self._now() - launch.at > LIFETIME:
            return None
        if launch.fingerprint != _fingerprint(request):
            raise Refusal(
                "ConflictException",
                "The RunTask request could not be processed due to conflicts. The "
                "provided clientToken is already in use with a different RunTask "
                "request. The resourceIds are the existing task ARNs which are "
                "already associated with the clientToken.",
                resourceIds=list(launch.task_arns),
            )
        return launch.task_arns

    def remember(
        self, cluster: str, request: Mapping[str, Any], task_arns: List[str]
    ) -> None:
        """These tasks have been made for the request."""
        token = request.get("clientToken")
        if token:
            launch = _Launch(_fingerprint(request), task_arns, self._now())
            self._launches[cluster, token] = launch


def _fingerprint(request: Mapping[str, Any]) -> str:
    """The request itself, but for how its cluster was written."""
    rest = {name: value for name, value in request.items() if name != "cluster"}
    return json.dumps(rest, sort_keys=True)
