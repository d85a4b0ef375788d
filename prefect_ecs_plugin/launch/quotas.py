"""AWS's quotas of vCPUs as limits, with what others in the account use left to them."""

from __future__ import annotations

import logging
from functools import partial
from typing import Callable, Dict, Sequence, Set

from ..aws.fargate_quota import Quota, QuotaUnreadable
from ..limits import ON_DEMAND, SPOT, Limit, of_vcpus
from ..observability.outage_log import OutageLog, retry_until_success
from ..scheduling.steps import Pause, Steps, in_thread

#: Seconds between two reads. CloudWatch's metric is a few minutes old as well.
_INTERVAL = 180.0

READING = "The quotas of vCPUs cannot be compared with what runs [quotas-unread]"


class Quotas:
    """Limits that follow the quotas.

    Args:
        read: Reads the quota of a kind of capacity.
        taken: Counts the vCPUs of that kind which runs have taken.
        outages: Logs when something does not answer.
        logger: Says once that a permission is missing.
    """

    def __init__(
        self,
        read: Callable[[str], Quota],
        taken: Callable[[str], float],
        outages: OutageLog,
        logger: logging.Logger,
    ) -> None:
        self._read = read
        self._taken = taken
        self._outages = outages
        self._logger = logger
        self._limits: Dict[str, Limit] = {}
        self._said: Set[str] = set()

    def limits(self) -> Sequence[Limit]:
        """The limits by the last reads; a quota that could not be read is none."""
        return tuple(self._limits.values())

    def watch(self) -> Steps[None]:
        """Read the quotas again and again."""
        while True:
            for capacity in (ON_DEMAND, SPOT):
                yield from retry_until_success(
                    partial(self._update, capacity), self._outages, READING
                )
            yield Pause(_INTERVAL)

    def _update(self, capacity: str) -> Steps[None]:
        reading = in_thread(partial(self._limit, capacity), "quota")
        yield reading
        try:
            self._limits[capacity] = reading.result()
        except QuotaUnreadable as error:
            if str(error) not in self._said:
                self._said.add(str(error))
                self._logger.warning("%s", error)

    def _limit(self, capacity: str) -> Limit:
        """What is left of a quota when others have what they use now."""
        quota = self._read(capacity)
        others = max(0.0, quota.used - self._taken(capacity))
        return of_vcpus(max(0.0, quota.most - others), capacity)
