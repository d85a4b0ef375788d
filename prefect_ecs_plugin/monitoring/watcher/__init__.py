"""Tasks in flight, described a hundred at a time until they have stopped.

poll_queue  which tasks are in flight, and when each is looked at  (pure)
watching    asks ECS, and hands over what has stopped
"""

from .poll_queue import Watched
from .watching import MISSING_GRACE, Watcher

__all__ = ["MISSING_GRACE", "Watched", "Watcher"]
