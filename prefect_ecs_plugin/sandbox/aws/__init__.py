"""AWS on loopback: moto behind a strict layer of our own, where tasks really run.

The docstring of `server` lists the modules. The package needs Python 3.10 and the
`sandbox` extra.
"""

from __future__ import annotations

from .lifecycle import Hold, Phases, StartFailure
from .responses import Fault
from .server import AWS
from .task import Event, LineWritten, TaskChanged, TaskView

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
