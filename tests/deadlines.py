"""How long tests wait for something before they say that it does not happen."""

#: Seconds. No machine that can run the tests at all takes as long; nothing is measured
#: by it, and a test that passes never waits for it.
DEADLINE = 600.0
