"""What a stopped task used, and what AWS asks for that on Fargate. Pure.

AWS bills the vCPUs and the memory that a task asks for, per second, from the beginning
of its image pull to its stop, and ephemeral storage above 20 GB:
https://aws.amazon.com/fargate/pricing/
"""

from __future__ import annotations

import enum
import math
import re
from dataclasses import dataclass, replace
from typing import Callable, Mapping, NamedTuple, Optional

from ..aws.ecs import region_of
from ..validation.rules import sizes
from .deadlines import seconds
from .decision import Task

#: GB of ephemeral storage that a task has without a charge; a GB is 2^30 bytes.
FREE_STORAGE = 20.0

_HOUR = 3600.0


class Platform(str, enum.Enum):
    """An operating system and an architecture, as AWS's page of prices names them."""

    X86 = "Linux/X86"
    ARM = "Linux/ARM"
    WINDOWS = "Windows/X86"


#: Seconds that a task is billed for at least.
_LEAST: Mapping[Platform, float] = {
    Platform.X86: 60.0,
    Platform.ARM: 60.0,
    Platform.WINDOWS: 300.0,
}


class Rate(NamedTuple):
    """Dollars an hour.

    Attributes:
        vcpu: For a vCPU; with the licence of the operating system on Windows.
        gb: For a GB of memory.
    """

    vcpu: float
    gb: float


@dataclass(frozen=True)
class Prices:
    """What Fargate costs in a region, as far as it is known.

    Attributes:
        on_demand: The prices of FARGATE.
        spot: The prices of FARGATE_SPOT.
        storage: Dollars an hour for a GB of ephemeral storage; None if unknown.
        source: Where `on_demand` and `storage` are from, with their date.
        spot_source: Where `spot` is from.
    """

    on_demand: Mapping[Platform, Rate]
    spot: Mapping[Platform, Rate]
    storage: Optional[float]
    source: str
    spot_source: str


#: The prices of a region; None if none are known.
PricesOf = Callable[[str], Optional[Prices]]


@dataclass(frozen=True)
class Cost:
    """What one task used.

    Attributes:
        where: `Fargate` or `Fargate Spot` with the platform, else the launch type.
        region: The task's region.
        vcpu_hours: vCPUs times hours.
        gb_hours: GB of memory times hours.
        storage_gb_hours: GB of ephemeral storage above 20 times hours.
        dollars: Its price; None where it is not known, and on other than Fargate.
        source: Where the price is from.
    """

    where: str
    region: str
    vcpu_hours: float
    gb_hours: float
    storage_gb_hours: float = 0.0
    dollars: Optional[float] = None
    source: str = ""


def cost_of(task: Task, prices_of: PricesOf = lambda region: None) -> Optional[Cost]:
    """What a stopped task used and costs.

    On Fargate the time is rounded up to seconds, and is a minute at least, on Windows
    five. Elsewhere it is what the task reserved, and has no price of its own.

    Args:
        task: As described.
        prices_of: The prices of a region.

    Returns:
        None for a task that has not stopped, that never pulled its image, or whose size
        is not known.
    """
    pulling, stopped = (
        seconds(task.get("pullStartedAt")),
        seconds(task.get("stoppedAt")),
    )
    vcpus = (sizes.cpu_units(task.get("cpu")) or 0) / 1024
    gb = (sizes.memory_mib(task.get("memory")) or 0) / 1024
    if pulling is None or stopped is None or not (vcpus or gb):
        return None
    region = region_of(str(task.get("taskArn"))) or ""
    provider = str(task.get("capacityProviderName") or task.get("launchType"))
    taken = max(0.0, stopped - pulling)
    if not provider.startswith("FARGATE"):
        where, hours = str(task.get("launchType") or "EC2"), taken / _HOUR
        return Cost(where, region, vcpus * hours, gb * hours)
    platform, is_spot = _platform(task), provider == "FARGATE_SPOT"
    # Times have milliseconds; their difference as a float has an error below that.
    hours = max(_LEAST[platform], math.ceil(round(taken, 3))) / _HOUR
    storage = (task.get("ephemeralStorage") or {}).get("sizeInGiB") or FREE_STORAGE
    cost = Cost(
        where=f"{'Fargate Spot' if is_spot else 'Fargate'} {platform.value}",
        region=region,
        vcpu_hours=vcpus * hours,
        gb_hours=gb * hours,
        storage_gb_hours=max(0.0, storage - FREE_STORAGE) * hours,
    )
    prices = prices_of(region)
    return _priced(cost, prices, platform, is_spot) if prices else cost


def _priced(cost: Cost, prices: Prices, platform: Platform, is_spot: bool) -> Cost:
    """A cost with its dollars, if all prices that it needs are known."""
    rate = (prices.spot if is_spot else prices.on_demand).get(platform)
    if rate is None or (cost.storage_gb_hours and prices.storage is None):
        return cost
    return replace(
        cost,
        dollars=cost.vcpu_hours * rate.vcpu
        + cost.gb_hours * rate.gb
        + cost.storage_gb_hours * (prices.storage or 0.0),
        source=prices.spot_source if is_spot else prices.source,
    )


def _platform(task: Task) -> Platform:
    if str(task.get("platformFamily")).lower().startswith("windows"):
        return Platform.WINDOWS
    attributes = {
        each.get("name"): each.get("value") for each in task.get("attributes") or ()
    }
    is_arm = str(attributes.get("ecs.cpu-architecture")).lower() == "arm64"
    return Platform.ARM if is_arm else Platform.X86


# -- The sentence in a run's log ------------------------------------------------------

_NUMBER = r"\d+(?:\.\d+)?"
_SENTENCE = re.compile(
    rf"It (?:used|reserved) (?P<vcpu>{_NUMBER}) vCPU hours and "
    rf"(?P<gb>{_NUMBER}) GB hours"
    rf"(?:, with (?P<storage>{_NUMBER}) GB hours of storage,)? "
    r"of (?P<where>[\w/ ]+) in (?P<region>[\w-]+)"
    rf"(?:: \$(?P<dollars>{_NUMBER}) by (?P<source>[^.]+))?"
)


def sentence(cost: Cost) -> str:
    """A cost as people read it, and `read`; without a full stop."""
    storage = ""
    if cost.storage_gb_hours:
        storage = f", with {figure(cost.storage_gb_hours)} GB hours of storage,"
    price = ""
    if cost.dollars is not None:
        price = f": {price_tag(cost.dollars)} by {cost.source}"
    verb = "used" if cost.where.startswith("Fargate") else "reserved"
    return (
        f"It {verb} {figure(cost.vcpu_hours)} vCPU hours and "
        f"{figure(cost.gb_hours)} GB hours{storage} of {cost.where} in "
        f"{cost.region or 'unknown'}{price}"
    )


def read(line: str) -> Optional[Cost]:
    """The cost whose sentence stands in a line; None if there is none."""
    found = _SENTENCE.search(line)
    if found is None:
        return None
    dollars = found["dollars"]
    return Cost(
        where=found["where"],
        region=found["region"],
        vcpu_hours=float(found["vcpu"]),
        gb_hours=float(found["gb"]),
        storage_gb_hours=float(found["storage"] or 0),
        dollars=None if dollars is None else float(dollars),
        source=found["source"] or "",
    )


def price_tag(dollars: float) -> str:
    """Dollars with four significant digits, and cents from ten dollars on."""
    return f"${dollars:.2f}" if dollars >= 10 else f"${figure(dollars)}"


def figure(number: float) -> str:
    """A number with four significant digits and no exponent; all digits of a whole."""
    if number <= 0:
        return "0"
    digits = max(0, 3 - math.floor(math.log10(number)))
    text = f"{number:.{digits}f}"
    return text.rstrip("0").rstrip(".") if digits else text
