"""AWS on loopback: moto behind a strict layer of our own, where tasks really run.

The docstring of `server` lists the modules. The package needs Python 3.10 and the
`sandbox` extra.
"""

from __future__ import annotations

from .events import Event, LineWritten, TaskChanged
from .faults import Fault
from .lifecycle import Hold, Phases, StartFailure
from .server import AWS
from .task import TaskView

__all__ = [
    "AWS",
    "Event",
    "Fault",
    "Hold",
    "LineWritten",
    "Phases",
    "StartFailure",
    "TaskChanged",
    "TaskView",
]
