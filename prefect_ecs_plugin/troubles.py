"""One line when something begins to go wrong, and one when it is over."""

from __future__ import annotations

import logging
import threading
import time
from typing import Callable, Dict, Optional, Tuple

from .retrying import Backoff
from .waiting import Pause, Result, Steps

#: Between two attempts to reach what does not answer.
OUTAGE = Backoff(1.0, 15.0)


class Troubles:
    """What is going wrong at present, by kind.

    Args:
        logger: The agent's own log.
        clock: Tells the time, in seconds.
    """

    def __init__(
        self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._logger = logger
        self._clock = clock
        self._lock = threading.Lock()
        self._since: Dict[str, Tuple[float, str]] = {}

    def begin(self, kind: str, reason: object) -> None:
        """Something of this kind went wrong; said only if it is new.

        Args:
            kind: What does not work, as the subject of a sentence.
            reason: Why; its first line is said.
        """
        line = (str(reason) or type(reason).__name__).strip().splitlines()[0]
        with self._lock:
            is_new = kind not in self._since
            since = self._since.get(kind, (self._clock(), ""))[0]
            self._since[kind] = (since, line)
        if is_new:
            self._logger.error("%s: %s. It is tried again.", kind, line.rstrip("."))
        else:
            self._logger.debug("%s: %s", kind, line)

    def end(self, kind: str) -> None:
        """Something of this kind worked; said only if it had not before."""
        if kind not in self._since:  # the usual case, without the lock
            return
        with self._lock:
            since = self._since.pop(kind, None)
        if since:
            seconds = self._clock() - since[0]
            self._logger.info("%s: over after %.0f s.", kind, seconds)

    def reason(self, kind: str) -> Optional[str]:
        """Why something of this kind goes wrong; None if it does not."""
        since = self._since.get(kind)
        return since[1] if since else None


def insist(
    attempt: Callable[[], Steps[Result]],
    troubles: Troubles,
    kind: str,
    is_final: Callable[[Exception], bool] = lambda error: False,
) -> Steps[Result]:
    """Attempt something until it succeeds, however long the outage.

    Args:
        attempt: Starts the steps of one attempt.
        troubles: Told when it begins to fail and when that is over.
        kind: What does not work, as the subject of a sentence.
        is_final: Whether an error will be the same next time; it is raised then.
    """
    tries = 0
    while True:
        try:
            result = yield from attempt()
        except Exception as error:  # whatever the other side or the way there raises
            if is_final(error):
                raise
            tries += 1
            troubles.begin(kind, error)
            yield Pause(OUTAGE.seconds(tries, 1.0))
        else:
            troubles.end(kind)
            return result
