"""One line when something begins to go wrong, and one when it is over.

A service that does not answer makes several kinds of work fail at about the same time.
That is one outage: the first kind that fails is named when it begins and when it is
over, and the others are logged at DEBUG.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Callable, Dict, Set

from ..scheduling.backoff import Backoff
from ..scheduling.steps import Cause, Pause, Result, Steps

#: Between two attempts to reach what does not answer.
OUTAGE = Backoff(1.0, 15.0)


class _Trouble:
    """What goes wrong at present, in however many places.

    Attributes:
        since: When it began, in seconds.
        places: Where it goes wrong.
        causes: What has been said of it.
        service: The service whose outage it is a part of, empty if of none.
        is_told: Whether its beginning was said, and its end was not.
    """

    def __init__(self, since: float) -> None:
        self.since = since
        self.places: Set[str] = set()
        self.causes: Set[str] = set()
        self.service = ""
        self.is_told = False


#: Seconds after an outage for which a failure counts as one of a request that was sent
#: before the outage was over.
_ECHO = 2.0


class OutageLog:
    """What is going wrong at present, by kind.

    Args:
        logger: The agent's own log.
        clock: Tells the time, in seconds.
        service_of: Tells which service does not answer, given why something failed;
            empty if that is not the reason. By default no two kinds belong together.
    """

    def __init__(
        self,
        logger: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
        service_of: Callable[[object], str] = lambda reason: "",
    ) -> None:
        self._logger = logger
        self._clock = clock
        self._service_of = service_of
        self._lock = threading.Lock()
        self._by_kind: Dict[str, _Trouble] = {}
        self._outages: Dict[str, str] = {}  # the kind that was named, by service
        self._over_at: Dict[str, float] = {}  # when its last outage was over

    def begin(
        self, kind: str, reason: object, place: str = "", service: str = ""
    ) -> None:
        """Log that something of this kind went wrong, if it is new.

        Refusals of AWS are logged once for each cause: an outage ends by itself, but
        credentials that expire after it have to be renewed by the user.

        Args:
            kind: What does not work, as the subject of a sentence.
            reason: Why; its first line is said.
            place: Where, such as "in cluster default", if the same can go wrong in
                several places at once.
            service: The service that does not answer, if the reason does not tell.
        """
        service = service or self._service_of(reason)
        line = (str(reason) or type(reason).__name__).strip().splitlines()[0]
        words = f"{kind} {place}: {line}" if place else f"{kind}: {line}"
        cause = str(getattr(reason, "cause", ""))
        with self._lock:
            if self._is_echo(service):
                self._logger.debug("%s", words)
                return
            trouble = self._by_kind.setdefault(kind, _Trouble(self._clock()))
            trouble.places.add(place)
            if service:
                trouble.service = service
                is_new = service not in self._outages
                self._outages.setdefault(service, kind)
            else:
                is_new = cause not in trouble.causes
                trouble.causes.add(cause)
            trouble.is_told = trouble.is_told or is_new
        if is_new:
            self._logger.error("%s. It is tried again.", words.rstrip("."))
        else:
            self._logger.debug("%s", words)

    def _is_echo(self, service: str) -> bool:
        over_at = self._over_at.get(service)
        return over_at is not None and self._clock() - over_at < _ECHO

    def end(self, kind: str, place: str = "") -> None:
        """Something of this kind worked; said if it had not before, anywhere.

        If it was a part of a service's outage, that is over.
        """
        if kind not in self._by_kind:  # the usual case, without the lock
            return
        with self._lock:
            trouble = self._by_kind.get(kind)
            if trouble is None:
                return
            trouble.places.discard(place)
            if trouble.places:
                return
            del self._by_kind[kind]
            over = {kind: trouble} if trouble.is_told else {}
            named = self._outages.pop(trouble.service, None)
            if named:
                self._over_at[trouble.service] = self._clock()
            if named in self._by_kind:  # it works again, or will when it is tried next
                over[named] = self._by_kind[named]
                over[named].is_told = False
        for each, trouble in over.items():
            seconds = self._clock() - trouble.since
            self._logger.info("%s: over after %.0f s.", each, seconds)


def retry_until_success(
    attempt: Callable[[], Steps[Result]],
    troubles: OutageLog,
    kind: str,
    is_final: Callable[[Exception], bool] = lambda error: False,
) -> Steps[Result]:
    """Attempt something until it succeeds, however long the outage.

    The pauses are those of `OUTAGE`, but no shorter than an error's `retry_after`
    says, in seconds, if it has one.

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
            seconds = max(OUTAGE.seconds(tries, 1.0), _least_pause(error))
            yield Pause(seconds, cause=Cause.OUTAGE)
        else:
            troubles.end(kind)
            return result


def _least_pause(error: Exception) -> float:
    """The seconds for which the other side asks to be left alone."""
    seconds = getattr(error, "retry_after", None)
    return float(seconds) if isinstance(seconds, (int, float)) else 0.0
