"""A Prefect 1 API on loopback: what Prefect's client, agents and runners talk to.

A document comes in over HTTP at `server`, is parsed and checked by graphql-core against
`schema.graphql` (`graphql_request`, `schema`), its fields go to the rows
(`resolvers`, `filters`, `tables`) or to the rules (`store`), and the rows go out.

Guarantees:
- What the schema does not know is refused with status 400, never ignored.
- Messages that Prefect's client relies on are the real server's, word for word.
- It binds 127.0.0.1 only.
"""

from __future__ import annotations

from .errors import Refused
from .fault import Fault, RandomFaults
from .server import PrefectAPI
from .store import (
    HEARTBEAT,
    STATE,
    Event,
    LogWritten,
    StateChanged,
    StepDone,
    StepHold,
    Store,
)

__all__ = [
    "HEARTBEAT",
    "STATE",
    "Event",
    "Fault",
    "LogWritten",
    "PrefectAPI",
    "RandomFaults",
    "Refused",
    "StateChanged",
    "StepDone",
    "StepHold",
    "Store",
]
