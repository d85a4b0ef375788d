"""How long tests wait for something before they say that it does not happen."""

from __future__ import annotations

import os

#: Seconds. No machine that can run the tests at all takes as long; nothing is measured
#: by it, and a test that passes never waits for it. Set it lower to see failures soon.
DEADLINE = float(os.environ.get("TESTS_DEADLINE", "600"))
