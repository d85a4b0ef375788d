"""What the sandbox's AWS does wrong if a user asks for it with `--fault`."""

from __future__ import annotations

from typing import Callable, Mapping, Optional, Set

from .aws import AWS, Hold, TaskView


def stuck_start(aws: AWS) -> None:
    """Hold the first task of each run PENDING until it is stopped."""
    seen: Set[Optional[str]] = set()

    def hold_first(task: TaskView) -> Optional[Hold]:
        if task.started_by in seen:
            return None
        seen.add(task.started_by)
        return Hold()

    aws.before_start = hold_first


#: By the names that `command.FAULTS` offers.
FAULTS: Mapping[str, Callable[[AWS], None]] = {"stuck-start": stuck_start}
