"""Logs one line when something begins to fail and one when it works again.

A service that does not answer makes several kinds of work fail at about the same time.
That is one outage: the first kind that fails is named when it begins and when it is
over, and the others are logged at DEBUG.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import Callable, Dict, Set

from ..errors import code_of, without_code
from ..scheduling.backoff import Backoff
from ..scheduling.steps import Cause, Pause, Result, Steps

#: Between two attempts to reach what does not answer.
OUTAGE = Backoff(1.0, 15.0)

#: Seconds after an outage for which a failure counts as one of a request that was sent
#: before the outage was over.
_ECHO = 2.0


@dataclass
class _Outage:
    """What fails at present, in however many places.

    Attributes:
        since: When it began, in seconds.
        places: Where it fails.
        causes: Those that were logged.
        service: The service that does not answer; empty if it fails for another reason.
        is_logged: Whether its beginning was logged, and its end was not.
    """

    since: float
    places: Set[str] = field(default_factory=set)
    causes: Set[str] = field(default_factory=set)
    service: str = ""
    is_logged: bool = False


class OutageLog:
    """What fails at present, by kind.

    A kind is a sentence without a full stop and its code, such as "The queue cannot be
    read [queue-unreadable]". The line that is logged ends with the code of the reason,
    if that has one, else with the kind's.

    Args:
        logger: The agent's own log.
        clock: Returns the time, in seconds.
        service_of: Returns which service does not answer, given why something failed;
            empty if that is not the reason. By default each kind is an outage of its
            own.
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
        self._by_kind: Dict[str, _Outage] = {}
        self._named: Dict[str, str] = {}  # the kind that was logged, by service
        self._over_at: Dict[str, float] = {}  # when its last outage was over

    def begin(
        self, kind: str, reason: object, place: str = "", service: str = ""
    ) -> None:
        """Log that something of this kind failed, if it is new.

        Refusals of AWS are logged once for each cause: an outage ends by itself, but
        credentials that expire after it have to be renewed by the user.

        Args:
            kind: What fails, see above.
            reason: Why; its first line is logged.
            place: Where, such as "in cluster default", if the same can fail in several
                places at once.
            service: The service that does not answer, if `service_of` cannot know.
        """
        service = service or self._service_of(reason)
        why = without_code(str(reason)).strip() or type(reason).__name__
        subject = f"{without_code(kind)} {place}".rstrip()
        message = f"{subject}: {why.splitlines()[0]}".rstrip(".")
        cause = str(getattr(reason, "cause", ""))
        with self._lock:
            over_at = self._over_at.get(service)
            if over_at is not None and self._clock() - over_at < _ECHO:
                self._logger.debug("%s", message)
                return
            outage = self._by_kind.setdefault(kind, _Outage(self._clock()))
            outage.places.add(place)
            if service:
                outage.service = service
                is_new = service not in self._named
                self._named.setdefault(service, kind)
            else:
                is_new = cause not in outage.causes
                outage.causes.add(cause)
            outage.is_logged = outage.is_logged or is_new
        if is_new:
            code = code_of(reason) or code_of(kind) or "outage"
            self._logger.error("%s. The agent tries again. [%s]", message, code)
        else:
            self._logger.debug("%s", message)

    def end(self, kind: str, place: str = "") -> None:
        """Log that something of this kind works again, if it had failed.

        If it was a part of a service's outage, that is over.
        """
        if kind not in self._by_kind:  # the usual case, without the lock
            return
        with self._lock:
            outage = self._by_kind.get(kind)
            if outage is None:
                return
            outage.places.discard(place)
            if outage.places:
                return
            del self._by_kind[kind]
            over = {kind: outage} if outage.is_logged else {}
            named = self._named.pop(outage.service, None)
            if named:
                self._over_at[outage.service] = self._clock()
            if named in self._by_kind:  # it works again, or will when it is tried next
                over[named] = self._by_kind[named]
                over[named].is_logged = False
        for each, outage in over.items():
            seconds = self._clock() - outage.since
            self._logger.info("%s: over after %.0f s.", without_code(each), seconds)


def retry_until_success(
    attempt: Callable[[], Steps[Result]],
    outages: OutageLog,
    kind: str,
    is_final: Callable[[Exception], bool] = lambda error: False,
) -> Steps[Result]:
    """Attempt something until it succeeds, however long the outage.

    The pauses are those of `OUTAGE`, but no shorter than an error's `retry_after` in
    seconds, if it has one.

    Args:
        attempt: Starts the steps of one attempt.
        outages: Logs when it begins to fail and when that is over.
        kind: What fails, see `OutageLog`.
        is_final: Whether an error will be the same next time; it is raised then.
    """
    tries = 0
    while True:
        try:
            result = yield from attempt()
        except Exception as error:  # of any library below
            if is_final(error):
                raise
            tries += 1
            outages.begin(kind, error)
            asked = getattr(error, "retry_after", None)
            least = float(asked) if isinstance(asked, (int, float)) else 0.0
            pause = max(OUTAGE.seconds(tries, 1.0), least)
            yield Pause(pause, cause=Cause.OUTAGE)
        else:
            outages.end(kind)
            return result
