"""AWS's limit on launches, which no agent can exceed."""

from __future__ import annotations

#: Fargate's bucket for RunTask: launches at once, and per second from then on.
#: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/throttling.html
FARGATE_BURST, FARGATE_RATE = 20, 20.0


def floor(launches: int) -> float:
    """Seconds that the last of so many simultaneous launches has to wait."""
    return max(0.0, (launches - FARGATE_BURST) / FARGATE_RATE)
