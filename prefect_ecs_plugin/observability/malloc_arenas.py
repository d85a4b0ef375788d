"""How the C library hands out memory to many threads."""

from __future__ import annotations

import ctypes
import os
import sys

#: glibc's number for the parameter, see mallopt(3).
_M_ARENA_MAX = -8

#: As few as let two threads allocate at once; Python's lock lets one run anyway.
_ARENAS = 2


def limit_malloc_arenas() -> None:
    """Let the agent's threads share memory that they have freed.

    glibc gives threads heaps of their own, eight for each core, and what one of them
    has freed no other uses: 8 MiB for an agent on two cores. If the user has set
    MALLOC_ARENA_MAX, that setting is kept; other C libraries do not do this.
    """
    if not sys.platform.startswith("linux") or "MALLOC_ARENA_MAX" in os.environ:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)
