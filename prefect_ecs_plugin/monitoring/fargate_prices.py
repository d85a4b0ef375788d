"""What Fargate costs by region, as a table. Pure.

Dollars an hour for a vCPU and a GB. AWS shows its prices of the present at
https://aws.amazon.com/fargate/pricing/ and publishes them as
https://pricing.us-east-1.amazonaws.com/offers/v1.0/aws/AmazonECS/current/region_index.json
A price that is left out could not be verified on the date below: a task there has its
vCPU hours and GB hours, and no dollars. Spot prices change from day to day.
"""

from __future__ import annotations

from typing import Mapping, Optional, Tuple

from .costs import Platform, Prices, Rate

#: The days of which the prices are; renew both with the tables.
ON_DEMAND_DATE, SPOT_DATE = "2026-09-29", "2026-09-28"

SOURCE = f"the package's prices of {ON_DEMAND_DATE}"
SPOT_SOURCE = f"the package's Spot prices of {SPOT_DATE}"

_X86: Mapping[str, Tuple[float, float]] = {
    "af-south-1": (0.0546, 0.006),
    "ap-east-1": (0.0556, 0.0061),
    "ap-northeast-1": (0.05056, 0.00553),
    "ap-northeast-2": (0.04656, 0.00511),
    "ap-south-1": (0.04256, 0.004655),
    "ap-southeast-1": (0.05056, 0.00553),
    "ap-southeast-2": (0.04856, 0.00532),
    "ca-central-1": (0.04456, 0.004865),
    "eu-central-1": (0.04656, 0.00511),
    "eu-north-1": (0.0445, 0.0049),
    "eu-south-1": (0.0486, 0.0053),
    "eu-west-1": (0.04048, 0.004445),
    "eu-west-2": (0.04656, 0.00511),
    "eu-west-3": (0.0486, 0.0053),
    "me-south-1": (0.0526, 0.0058),
    "sa-east-1": (0.0696, 0.0076),
    "us-east-1": (0.04048, 0.004445),
    "us-east-2": (0.04048, 0.004445),
    "us-gov-east-1": (0.0486, 0.0053),
    "us-gov-west-1": (0.0486, 0.0053),
    "us-west-1": (0.04656, 0.00511),
    "us-west-2": (0.04048, 0.004445),
}

_ARM: Mapping[str, Tuple[float, float]] = {
    "ap-northeast-2": (0.03725, 0.00409),
    "ap-south-1": (0.02383, 0.00261),
    "ap-southeast-1": (0.04045, 0.00442),
    "ap-southeast-2": (0.03885, 0.00426),
    "eu-west-1": (0.03238, 0.00356),
    "us-east-1": (0.03238, 0.00356),
    "us-east-2": (0.03238, 0.00356),
}

#: A vCPU costs 0.046552, and its licence of Windows 0.046. The example on AWS's page
#: counts with earlier, higher prices.
_WINDOWS: Mapping[str, Tuple[float, float]] = {
    "eu-west-1": (0.046552 + 0.046, 0.00511175),
    "us-east-1": (0.046552 + 0.046, 0.00511175),
    "us-east-2": (0.046552 + 0.046, 0.00511175),
}

_SPOT_X86: Mapping[str, Tuple[float, float]] = {
    "eu-west-1": (0.01224056, 0.0013441),
    "us-east-1": (0.01288871, 0.00141527),
}

_SPOT_ARM: Mapping[str, Tuple[float, float]] = {
    "eu-west-1": (0.00979124, 0.00107649),
    "us-east-1": (0.01030969, 0.00113349),
}

_STORAGE: Mapping[str, float] = {
    "ap-northeast-1": 0.000133,
    "ap-southeast-1": 0.000133,
    "eu-west-1": 0.000122,
    "us-east-1": 0.000111,
    "us-east-2": 0.000111,
    "us-west-2": 0.000111,
}


def _rates(
    region: str, tables: Mapping[Platform, Mapping[str, Tuple[float, float]]]
) -> Mapping[Platform, Rate]:
    return {
        platform: Rate(*prices[region])
        for platform, prices in tables.items()
        if region in prices
    }


def prices_of(region: str) -> Optional[Prices]:
    """The prices of a region; None for one that is not in the table."""
    if region not in _X86:
        return None
    on_demand = {
        Platform.X86: _X86,
        Platform.ARM: _ARM,
        Platform.WINDOWS: _WINDOWS,
    }
    spot = {Platform.X86: _SPOT_X86, Platform.ARM: _SPOT_ARM}
    return Prices(
        on_demand=_rates(region, on_demand),
        spot=_rates(region, spot),
        storage=_STORAGE.get(region),
        source=SOURCE,
        spot_source=SPOT_SOURCE,
    )
