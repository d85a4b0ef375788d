"""Where prices come from: the package's table, AWS's Price List, or nowhere."""

from __future__ import annotations

import json
import logging
from typing import Any, Dict, List, Mapping, Optional

import pytest
from codes import code_of
from world import eventually

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from prefect_ecs_plugin.aws import price_list
from prefect_ecs_plugin.aws.session import AWSClients
from prefect_ecs_plugin.monitoring import fargate_prices
from prefect_ecs_plugin.monitoring.costs import Platform, Prices, Rate
from prefect_ecs_plugin.monitoring.prices import DAY, PriceList, from_list, source_of
from prefect_ecs_plugin.sandbox.aws import Fault

LOGGER = logging.getLogger("test-prices")


def product(usage: str, dollars: str, **terms: Any) -> str:
    """A product as GetProducts answers it."""
    dimension = {"unit": "hours", "pricePerUnit": {"USD": dollars}}
    on_demand = {"SKU.TERM": {"priceDimensions": {"SKU.TERM.RATE": dimension}}}
    return json.dumps(
        {
            "serviceCode": "AmazonECS",
            "product": {"productFamily": "Compute", "attributes": {"usagetype": usage}},
            "terms": terms or {"OnDemand": on_demand},
            "publicationDate": "2026-11-20T00:00:00Z",
        }
    )


#: Two pages of the products of a region, with some that are not of Fargate.
PAGES: List[List[str]] = [
    [
        product("USE1-Fargate-vCPU-Hours:perCPU", "0.0500000000"),
        product("USE1-Fargate-GB-Hours", "0.0050000000"),
        product("USE1-ECS-EC2-GB-Hours", "0.0000000000"),
        product("USE1-SpotUsage-Fargate-vCPU-Hours:perCPU", "0.0010000000"),
        product("USE1-ECS-Anywhere-Instance-hours", "0.01025"),
    ],
    [
        product("USE1-Fargate-ARM-vCPU-Hours:perCPU", "0.0400000000"),
        product("USE1-Fargate-ARM-GB-Hours", "0.0040000000"),
        product("USE1-Fargate-Windows-vCPU-Hours:perCPU", "0.0600000000"),
        product("USE1-Fargate-Windows-OS-Hours:perCPU", "0.0460000000"),
        product("USE1-Fargate-Windows-GB-Hours", "0.0060000000"),
        product("USE1-Fargate-EphemeralStorage-GB-Hours", "0.0001000000"),
        product("USE1-Fargate-Unsold-Hours", "1", Reserved={}),
    ],
]
FOUND = {
    "vCPU-Hours": 0.05,
    "GB-Hours": 0.005,
    "ARM-vCPU-Hours": 0.04,
    "ARM-GB-Hours": 0.004,
    "Windows-vCPU-Hours": 0.06,
    "Windows-OS-Hours": 0.046,
    "Windows-GB-Hours": 0.006,
    "EphemeralStorage-GB-Hours": 0.0001,
}


@pytest.mark.parametrize(
    "region, endpoint",
    [
        ("us-west-2", "us-east-1"),
        ("sa-east-1", "us-east-1"),
        ("eu-west-1", "eu-central-1"),
        ("ap-northeast-1", "ap-south-1"),
    ],
)
def test_all_pages_of_a_regions_prices_are_read(
    aws: Any, monkeypatch: pytest.MonkeyPatch, region: str, endpoint: str
) -> None:
    asked: List[Mapping[str, Any]] = []

    def answer(operation: str, params: Mapping[str, Any]) -> Optional[Fault]:
        assert operation == "pricing.GetProducts"
        asked.append(params)
        page: Dict[str, Any] = {"FormatVersion": "aws_v1", "PriceList": PAGES[0]}
        if "NextToken" in params:
            page["PriceList"] = PAGES[1]
        else:
            page["NextToken"] = "more"
        return Fault(body=json.dumps(page).encode())

    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
    monkeypatch.setattr(aws, "fault", answer)
    clients = AWSClients(
        aws_access_key_id=aws.access_key,
        aws_secret_access_key=aws.secret_key,
        region_name=region,
    )
    regions = []

    def client(service: str, where: str) -> Any:
        regions.append(where)
        return clients(service, where)

    assert price_list.read(client, region) == FOUND
    assert regions == [endpoint]
    (which,) = asked[0]["Filters"]
    assert (asked[0]["ServiceCode"], which["Value"]) == ("AmazonECS", region)


def test_the_price_list_has_spot_prices_of_the_table() -> None:
    table = fargate_prices.prices_of("us-east-1")
    assert table is not None
    assert from_list("us-east-1", FOUND, "2026-11-27") == Prices(
        on_demand={
            Platform.X86: Rate(0.05, 0.005),
            Platform.ARM: Rate(0.04, 0.004),
            Platform.WINDOWS: Rate(0.06 + 0.046, 0.006),
        },
        spot=table.spot,
        storage=0.0001,
        source="AWS's Price List of 2026-11-27",
        spot_source=fargate_prices.SPOT_SOURCE,
    )
    elsewhere = from_list("xx-new-1", FOUND, "2026-11-27")
    assert (elsewhere.spot, elsewhere.on_demand[Platform.X86].vcpu) == ({}, 0.05)


def test_the_option_says_which_prices_count() -> None:
    def read(region: str) -> Dict[str, float]:
        raise AssertionError("AWS is asked")

    assert source_of("off", read, LOGGER)("us-east-1") is None
    table = source_of("table", read, LOGGER)
    assert table("us-east-1") == fargate_prices.prices_of("us-east-1")
    assert table("xx-new-1") is None


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_aws_is_asked_once_a_day_and_region_and_the_table_counts_until_then() -> None:
    asked: List[str] = []
    clock = Clock()

    def read(region: str) -> Dict[str, float]:
        asked.append(region)
        return {**FOUND, "vCPU-Hours": 0.05 * asked.count(region)}

    prices_of = PriceList(read, LOGGER, clock).prices_of

    def vcpu(region: str = "us-east-1") -> float:
        prices = prices_of(region)
        return prices.on_demand[Platform.X86].vcpu if prices else 0.0

    assert vcpu() in (0.04048, 0.05)
    assert eventually(lambda: vcpu() == 0.05)
    assert eventually(lambda: vcpu("xx-new-1") == 0.05)
    clock.now += DAY - 1
    assert vcpu() == 0.05
    assert asked == ["us-east-1", "xx-new-1"]
    clock.now += 1
    assert eventually(lambda: vcpu() == 0.1)
    assert asked == ["us-east-1", "xx-new-1", "us-east-1"]


@pytest.mark.parametrize("found", [PermissionError("AccessDenied"), {}])
def test_without_an_answer_the_table_counts_and_one_line_says_so(
    caplog: pytest.LogCaptureFixture, found: Any
) -> None:
    asked: List[str] = []

    def read(region: str) -> Dict[str, float]:
        asked.append(region)
        if isinstance(found, Exception):
            raise found
        return dict(found)

    prices_of = PriceList(read, LOGGER).prices_of
    for region in ("us-east-1", "us-east-1", "eu-west-1"):
        assert prices_of(region) == fargate_prices.prices_of(region)
    assert eventually(lambda: len(asked) == 2 and caplog.messages)
    assert code_of(caplog.messages[0]) == "prices-unreadable"
    assert len(caplog.messages) == 1
