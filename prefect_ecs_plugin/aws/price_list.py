"""What Fargate costs in a region, by AWS's Price List.

It needs the permission pricing:GetProducts. It has no prices of FARGATE_SPOT.
https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/price-changes.html
"""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Dict, Iterable, Mapping

#: The regions that have the API, by the beginning of the region that asks.
_ENDPOINTS: Mapping[str, str] = {"eu": "eu-central-1", "ap": "ap-south-1"}
_DEFAULT_ENDPOINT = "us-east-1"

#: `EUC1-Fargate-ARM-vCPU-Hours:perCPU`, and others of the same kind.
_USAGE = re.compile(r"(?:[A-Z0-9]+-)?Fargate-(.+?)(?::perCPU)?")


def read(clients: Callable[[str, str], Any], region: str) -> Dict[str, float]:
    """Ask for the prices of a region.

    Args:
        clients: Makes a client, given a service and a region.
        region: The region of the tasks.

    Returns:
        See `prices_in`.

    Raises:
        ClientError, BotoCoreError: if AWS does not answer, or refuses.
    """
    client = clients("pricing", _ENDPOINTS.get(region[:2], _DEFAULT_ENDPOINT))
    pages = client.get_paginator("get_products").paginate(
        ServiceCode="AmazonECS",
        Filters=[{"Type": "TERM_MATCH", "Field": "regionCode", "Value": region}],
    )
    return prices_in(text for page in pages for text in page["PriceList"])


def prices_in(products: Iterable[str]) -> Dict[str, float]:
    """The prices of Fargate in products of the Price List.

    Args:
        products: As GetProducts answers them, in JSON.

    Returns:
        Dollars an hour by what is used, such as `ARM-vCPU-Hours`, `GB-Hours` or
        `EphemeralStorage-GB-Hours`.
    """
    found = {}
    for product in map(json.loads, products):
        usage = _USAGE.fullmatch(product["product"]["attributes"].get("usagetype", ""))
        if usage:
            for term in product.get("terms", {}).get("OnDemand", {}).values():
                for dimension in term["priceDimensions"].values():
                    found[usage[1]] = float(dimension["pricePerUnit"]["USD"])
    return found
