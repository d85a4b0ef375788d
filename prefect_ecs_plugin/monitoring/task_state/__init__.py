"""What a stopped task means for its flow run, and how to tell people.

    described     what DescribeTasks says, read
    judging       task and run -> verdict
    explaining    verdict -> the words for the run's state and log

Pure. The table of causes and remedies is in `stop_reasons`.
"""

from .explaining import Explanation, explain
from .judging import (
    CANCELLED,
    GRACE,
    RELAUNCH_BACKOFF,
    START_ATTEMPTS,
    Judgement,
    Run,
    Verdict,
    judge,
    waits,
)

__all__ = [
    "CANCELLED",
    "GRACE",
    "RELAUNCH_BACKOFF",
    "START_ATTEMPTS",
    "Explanation",
    "Judgement",
    "Run",
    "Verdict",
    "explain",
    "judge",
    "waits",
]
