"""Where the prices of tasks come from, by the option --prices."""

from __future__ import annotations

import logging
import threading
import time
from datetime import datetime, timezone
from typing import Callable, Dict, Mapping, Optional

from ..errors import reason
from . import fargate_prices
from .costs import Platform, Prices, PricesOf, Rate

#: Seconds for which prices that were read are used.
DAY = 24 * 3600.0

#: Asks AWS for the prices of a region; see `aws.price_list.prices_in`.
Read = Callable[[str], Mapping[str, float]]

#: What AWS's Price List calls the usage of each platform.
_USAGE: Mapping[Platform, str] = {
    Platform.X86: "",
    Platform.ARM: "ARM-",
    Platform.WINDOWS: "Windows-",
}


def source_of(prices: str, read: Read, logger: logging.Logger) -> PricesOf:
    """The prices that the option --prices asks for.

    Args:
        prices: `table`: those in the package; `aws`: those that AWS says; `off`: none.
        read: Asks AWS for the prices of a region.
        logger: The agent's own log.
    """
    if prices == "off":
        return lambda region: None
    if prices == "table":
        return fargate_prices.prices_of
    return PriceList(read, logger).prices_of


class PriceList:
    """The prices of regions, as AWS says them.

    Each region is asked about once a day at most, in a thread of its own, when the
    first task in it has stopped. Until there is an answer the package's table counts.

    Args:
        read: Asks AWS for the prices of a region.
        logger: The agent's own log; a failure is said in it once.
        clock: Tells the time in seconds.
    """

    def __init__(
        self,
        read: Read,
        logger: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._logger = logger
        self._clock = clock
        self._lock = threading.Lock()
        self._asked: Dict[str, float] = {}
        self._known: Dict[str, Prices] = {}
        self._has_warned = False

    def prices_of(self, region: str) -> Optional[Prices]:
        """The prices of a region; None if none are known."""
        now = self._clock()
        with self._lock:
            is_due = now - self._asked.get(region, -DAY) >= DAY
            if is_due:
                self._asked[region] = now
        if is_due:
            threading.Thread(
                target=self._ask, args=(region,), name="prices", daemon=True
            ).start()
        return self._known.get(region) or fargate_prices.prices_of(region)

    def _ask(self, region: str) -> None:
        try:
            found = self._read(region)
            today = datetime.now(timezone.utc).date().isoformat()
            self._known[region] = from_list(region, found, today)
        except Exception as error:  # of any kind: the table has prices too
            if not self._has_warned:
                self._has_warned = True
                self._logger.warning(
                    "The prices of Fargate in %s cannot be read from AWS's Price List: "
                    "%s. The agent uses the prices in the package, of %s, and asks "
                    "again in a day; allow pricing:GetProducts, or set --prices table "
                    "[prices-unreadable]",
                    *(region, reason(error), fargate_prices.ON_DEMAND_DATE),
                )


def from_list(region: str, found: Mapping[str, float], date: str) -> Prices:
    """The prices in AWS's Price List, with the Spot prices of the package's table.

    Args:
        region: The region.
        found: See `aws.price_list.prices_in`.
        date: The day on which they were read.

    Raises:
        LookupError: if there is no price of Linux on X86.
    """
    rates = {}
    for platform, prefix in _USAGE.items():
        vcpu, gb = found.get(f"{prefix}vCPU-Hours"), found.get(f"{prefix}GB-Hours")
        if vcpu is not None and gb is not None:
            rates[platform] = Rate(vcpu + found.get(f"{prefix}OS-Hours", 0.0), gb)
    if Platform.X86 not in rates:
        raise LookupError("it has no prices of Fargate there")
    table = fargate_prices.prices_of(region)
    return Prices(
        on_demand=rates,
        spot=table.spot if table else {},
        storage=found.get("EphemeralStorage-GB-Hours"),
        source=f"AWS's Price List of {date}",
        spot_source=fargate_prices.SPOT_SOURCE,
    )
