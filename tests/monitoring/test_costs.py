"""What tasks used and cost, by AWS's published examples and as laws."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, Dict, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_ecs_plugin.monitoring import costs, fargate_prices
from prefect_ecs_plugin.monitoring.costs import Cost, Platform, Prices, Rate

BEGAN = datetime(2026, 11, 1, tzinfo=timezone.utc)
ARM = [{"name": "ecs.cpu-architecture", "value": "arm64"}]
SPOT = "FARGATE_SPOT"


def task(
    seconds: float = 600, region: str = "us-east-1", but: str = "", **more: Any
) -> Dict[str, Any]:
    """A task on Fargate that has stopped, of 1 vCPU and 2 GB."""
    whole = {
        "taskArn": f"arn:aws:ecs:{region}:123456789012:task/prod/0123abc",
        "pullStartedAt": BEGAN,
        "stoppedAt": BEGAN + timedelta(seconds=seconds),
        "launchType": "FARGATE",
        "platformFamily": "Linux",
        "attributes": [{"name": "ecs.cpu-architecture", "value": "x86_64"}],
        "ephemeralStorage": {"sizeInGiB": 20},
        "cpu": "1024",
        "memory": "2048",
        **more,
    }
    return {key: value for key, value in whole.items() if key not in but.split()}


def cost_of(task: Dict[str, Any]) -> Cost:
    cost = costs.cost_of(task, fargate_prices.prices_of)
    assert cost is not None
    return cost


# -- AWS's examples -------------------------------------------------------------------

#: The prices with which AWS's example of Windows counts, from its prices a second. Its
#: Price List has lower ones by now.
OF_THE_EXAMPLE = Prices(
    on_demand={
        Platform.WINDOWS: Rate(
            (0.0000254167 + 0.0000127778) * 3600, 0.0000027778 * 3600
        )
    },
    spot={},
    storage=None,
    source="the example",
    spot_source="",
)


@pytest.mark.parametrize(
    "how_many, task, dollars",
    [
        # https://aws.amazon.com/fargate/pricing/#Pricing_Examples: 5 tasks a day for 30
        # days, 10 minutes each, with 1 vCPU, 2 GB and 30 GB of storage.
        (150, task(ephemeralStorage={"sizeInGiB": 30}), "1.26"),
        (150, task(ephemeralStorage={"sizeInGiB": 30}, attributes=ARM), "1.02"),
        # 10 pods a day, an hour each, with 0.25 vCPU and 1 GB; tasks cost the same.
        (300, task(3600, cpu="256", memory="1024"), "4.37"),
        # AWS has no example of Spot. These are the first two at the Spot prices.
        (
            150,
            task(ephemeralStorage={"sizeInGiB": 30}, capacityProviderName=SPOT),
            "0.42",
        ),
        (150, task(attributes=ARM, capacityProviderName=SPOT), "0.31"),
    ],
)
def test_costs_equal_those_of_awss_examples_to_the_cent(
    how_many: int, task: Any, dollars: str
) -> None:
    cost = cost_of(task)
    assert cost.dollars is not None
    assert f"{how_many * cost.dollars:.2f}" == dollars


def test_windows_costs_what_awss_example_says_with_the_prices_of_that() -> None:
    windows = task(3600, platformFamily="Windows_Server_2022_Core")
    cost = costs.cost_of(windows, lambda region: OF_THE_EXAMPLE)
    assert cost is not None
    assert cost.dollars is not None
    assert f"{300 * cost.dollars:.2f}" == "47.25"


# -- What is billed -------------------------------------------------------------------


@pytest.mark.parametrize(
    "task, expected",
    [
        (task(), ("Fargate Linux/X86", 600)),
        (task(600.4), ("Fargate Linux/X86", 601)),  # rounded up to a second
        (task(3), ("Fargate Linux/X86", 60)),  # a minute at least
        (task(-3), ("Fargate Linux/X86", 60)),  # clocks of AWS's that differ
        (task(3, attributes=ARM), ("Fargate Linux/ARM", 60)),
        (
            task(3, platformFamily="Windows_Server_2019_Full"),
            ("Fargate Windows/X86", 300),
        ),
        (task(capacityProviderName=SPOT), ("Fargate Spot Linux/X86", 600)),
        (task(capacityProviderName="FARGATE"), ("Fargate Linux/X86", 600)),
        # Elsewhere: what was reserved, as long as it was.
        (task(3.5, launchType="EC2"), ("EC2", 3.5)),
        (task(3.5, launchType="EC2", capacityProviderName="mine"), ("EC2", 3.5)),
        (task(3.5, launchType="EXTERNAL"), ("EXTERNAL", 3.5)),
        (task(3.5, capacityProviderName="mine", but="launchType"), ("EC2", 3.5)),
        # Old tasks lack the members about the platform.
        (task(but="attributes platformFamily"), ("Fargate Linux/X86", 600)),
    ],
)
def test_what_is_billed(task: Any, expected: Any) -> None:
    cost = cost_of(task)
    assert (cost.where, round(cost.vcpu_hours * 3600, 6)) == expected
    assert cost.gb_hours == 2 * cost.vcpu_hours
    assert (cost.dollars is None) is not cost.where.startswith("Fargate")


@pytest.mark.parametrize(
    "task",
    [
        task(but="pullStartedAt"),  # it never began to pull
        task(but="stoppedAt"),
        task(but="cpu memory"),
        task(launchType="EC2", cpu="0", memory="0"),
        {},
    ],
)
def test_what_costs_nothing(task: Any) -> None:
    assert costs.cost_of(task, fargate_prices.prices_of) is None


@pytest.mark.parametrize(
    "task",
    [
        task(region="eu-central-2"),  # the table has no such region,
        task(region="eu-central-1", attributes=ARM),  # no price of ARM there,
        task(region="eu-central-1", capacityProviderName=SPOT),  # of Spot,
        task(region="eu-central-1", ephemeralStorage={"sizeInGiB": 21}),  # of storage
    ],
)
def test_a_price_that_is_not_known_is_left_out(task: Any) -> None:
    cost = cost_of(task)
    assert (cost.dollars, cost.source) == (None, "")
    assert cost.vcpu_hours * 3600 == 600


# -- Laws -----------------------------------------------------------------------------

sizes = st.tuples(st.integers(1, 64), st.integers(1, 480))
lengths = st.integers(0, 100_000)
storages = st.integers(20, 200)
kinds = st.sampled_from([{}, {"attributes": ARM}, {"capacityProviderName": SPOT}])


def dollars(size: Any, seconds: float, storage: int, kind: Any) -> float:
    cost = cost_of(
        task(
            seconds,
            cpu=str(256 * size[0]),
            memory=str(512 * size[1]),
            ephemeralStorage={"sizeInGiB": storage},
            **kind,
        )
    )
    assert cost.dollars is not None
    return cost.dollars


@given(sizes, sizes, lengths, lengths, storages, storages, kinds)
def test_more_of_anything_costs_no_less(
    size: Any, more: Any, seconds: int, longer: int, gb: int, further: int, kind: Any
) -> None:
    larger = (size[0] + more[0], size[1] + more[1])
    assert dollars(size, seconds, gb, kind) < dollars(larger, seconds, gb, kind)
    assert dollars(size, seconds, gb, kind) <= dollars(
        size, seconds + longer, max(gb, further), kind
    )


@given(sizes, st.integers(60, 50_000), st.integers(60, 50_000), storages, kinds)
def test_costs_of_parts_add_up(
    size: Any, first: int, second: int, gb: int, kind: Any
) -> None:
    whole = dollars(size, first + second, gb, kind)
    parts = dollars(size, first, gb, kind) + dollars(size, second, gb, kind)
    assert whole == pytest.approx(parts)


# -- The sentence ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "task, expected",
    [
        (
            task(region="eu-west-1"),
            "It used 0.1667 vCPU hours and 0.3333 GB hours of Fargate Linux/X86 in "
            "eu-west-1: $0.008228 by the package's prices of 2026-09-29",
        ),
        (
            task(ephemeralStorage={"sizeInGiB": 50}, capacityProviderName=SPOT),
            "It used 0.1667 vCPU hours and 0.3333 GB hours, with 5 GB hours of "
            "storage, of Fargate Spot Linux/X86 in us-east-1: $0.003175 by the "
            "package's Spot prices of 2026-09-28",
        ),
        (
            task(region="xx-1"),
            "It used 0.1667 vCPU hours and 0.3333 GB hours of Fargate Linux/X86 in "
            "xx-1",
        ),
        (
            task(360, launchType="EC2"),
            "It reserved 0.1 vCPU hours and 0.2 GB hours of EC2 in us-east-1",
        ),
    ],
)
def test_the_sentence(task: Any, expected: str) -> None:
    assert costs.sentence(cost_of(task)) == expected


hours = st.floats(1e-6, 1e6)
costs_of_any_kind = st.builds(
    Cost,
    where=st.sampled_from(["Fargate Linux/X86", "Fargate Spot Linux/ARM", "EC2"]),
    region=st.sampled_from(["eu-west-1", "us-gov-west-1"]),
    vcpu_hours=hours,
    gb_hours=hours,
    storage_gb_hours=st.just(0.0) | hours,
    dollars=st.none() | hours,
    source=st.sampled_from([fargate_prices.SOURCE, "AWS's Price List of 2026-11-27"]),
)


@given(costs_of_any_kind, st.sampled_from(["", ". For a shorter pull, do."]))
def test_what_is_said_can_be_read_again(cost: Cost, later: str) -> None:
    read = costs.read(f"Flow run x: What took: run 3 s. {costs.sentence(cost)}{later}")
    assert read is not None
    assert (read.where, read.region) == (cost.where, cost.region)
    assert read.source == (cost.source if cost.dollars is not None else "")
    for name in ("vcpu_hours", "gb_hours", "storage_gb_hours"):
        assert getattr(read, name) == pytest.approx(getattr(cost, name), rel=1e-3)
    assert approximate(read.dollars) == approximate(cost.dollars)


def approximate(number: Optional[float]) -> Any:
    return None if number is None else pytest.approx(number, rel=1e-3)


def test_other_lines_have_no_cost() -> None:
    assert costs.read("The task has ended.") is None


@pytest.mark.parametrize(
    "number, text",
    [
        (0, "0"),
        (0.000123456, "0.0001235"),
        (0.5, "0.5"),
        (9.99999, "10"),
        (12.3456, "12.35"),
        (123456.7, "123457"),
        (1000, "1000"),
    ],
)
def test_figures_have_four_digits(number: float, text: str) -> None:
    assert costs.figure(number) == text


# -- The table ------------------------------------------------------------------------


def test_prices_of_all_regions_are_plausible() -> None:
    """A typing error would make a price far from the others."""
    for region in fargate_prices._X86:
        prices = fargate_prices.prices_of(region)
        assert prices is not None
        x86 = prices.on_demand[Platform.X86]
        assert 0.03 < x86.vcpu < 0.08
        assert x86.vcpu / x86.gb == pytest.approx(9.1, abs=0.1)
        for kind, low, high in ((Platform.ARM, 0.55, 0.81), (Platform.WINDOWS, 2, 2.5)):
            if kind in prices.on_demand:
                assert low < prices.on_demand[kind].vcpu / x86.vcpu < high
        for kind, spot in prices.spot.items():
            assert 0.25 < spot.vcpu / prices.on_demand[kind].vcpu < 0.5
        assert 0.0001 < (prices.storage or 0.00011) < 0.0002
