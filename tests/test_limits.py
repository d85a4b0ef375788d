"""Which runs go, which wait and which are given back; and that no limit is exceeded."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Set, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_ecs_plugin.errors import ConfigurationError
from prefect_ecs_plugin.limits import (
    Demand,
    Kind,
    Limit,
    Taken,
    Verdict,
    admit,
    is_too_large,
    limit_in,
    merged,
    of_vcpus,
    parse,
    parse_file,
    totals,
    vcpu_limits,
    verdict,
    waiting_line,
)

# -- Options and files -------------------------------------------------------------


@pytest.mark.parametrize(
    "text, limit",
    [
        ("50", Limit(Kind.TOTAL, "", 50)),
        ("0", Limit(Kind.TOTAL, "", 0)),
        ("flow=etl:2", Limit(Kind.FLOW, "etl", 2)),
        ("flow=a=b:c d:2", Limit(Kind.FLOW, "a=b:c d", 2)),
        ("label=db:5", Limit(Kind.LABEL, "db", 5)),
        ("project=ads:10", Limit(Kind.PROJECT, "ads", 10)),
    ],
)
def test_an_option_says_a_limit(text: str, limit: Limit) -> None:
    assert parse(text) == limit


@pytest.mark.parametrize(
    "limit",
    [
        *map(parse, ("50", "flow=a=b:c d:2", "label=db:5", "project=ads:10")),
        *(of_vcpus(8), of_vcpus(0.25, "FARGATE_SPOT")),
    ],
)
def test_the_line_of_a_run_that_waits_names_its_limit(limit: Limit) -> None:
    assert limit_in(waiting_line(limit)) == limit
    assert limit_in(f"x {waiting_line(limit)}") is None
    assert limit_in(waiting_line(limit).replace("limit ", "limit x")) is None


@pytest.mark.parametrize(
    "text, code",
    [
        ("", "invalid-limit"),
        ("many", "invalid-limit"),
        ("-1", "invalid-limit"),
        ("1.5", "invalid-limit"),
        ("flow=etl", "invalid-limit"),
        ("flow=:2", "invalid-limit"),
        ("flow=etl:", "invalid-limit"),
        ("flow=etl:two", "invalid-limit"),
        ("task=etl:2", "unknown-limit"),
        ("vcpus=FARGATE:2", "unknown-limit"),
        ("total=x:2", "unknown-limit"),
        ("x=1", "unknown-limit"),
        ("9" * 10, "invalid-limit"),
        ("9" * 5000, "invalid-limit"),
    ],
)
def test_what_is_no_limit_is_refused(text: str, code: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse(text)
    assert refused.value.code == code


def test_a_file_has_the_same_limits() -> None:
    content = {"total": 50, "flow": {"etl": 2, 7: 1}, "label": {"db": "5"}}
    assert parse_file(content) == (
        Limit(Kind.TOTAL, "", 50),
        Limit(Kind.FLOW, "etl", 2),
        Limit(Kind.FLOW, "7", 1),
        Limit(Kind.LABEL, "db", 5),
    )


@pytest.mark.parametrize(
    "content, code",
    [
        ({"total": True}, "invalid-limit"),
        ({"total": None}, "invalid-limit"),
        ({"total": {"a": 1}}, "invalid-limit"),
        ({"total": 10**400}, "invalid-limit"),
        ({"flow": 3}, "invalid-limit"),
        ({"flow": {"": 1}}, "invalid-limit"),
        ({"flow": {"etl": 1.5}}, "invalid-limit"),
        ({"flows": {"etl": 1}}, "unknown-limit"),
        ({"flows": 1}, "unknown-limit"),
        ({3: 1}, "unknown-limit"),
    ],
)
def test_a_file_with_another_content_is_refused(content: Any, code: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_file(content)
    assert refused.value.code == code


def test_a_limit_may_be_given_twice_with_one_value_only() -> None:
    assert merged([parse("flow=etl:2"), parse("flow=etl:2")]) == (parse("flow=etl:2"),)
    with pytest.raises(ConfigurationError) as refused:
        merged([parse("flow=etl:2"), parse("flow=etl:3")])
    assert refused.value.code == "conflicting-limits"


@pytest.mark.parametrize("most", ["many", "-1", "nan", "inf", ""])
def test_vcpus_are_a_number_or_quota(most: str) -> None:
    assert vcpu_limits("8.5") == (of_vcpus(8.5),)
    assert vcpu_limits("quota") == vcpu_limits(None) == ()
    with pytest.raises(ConfigurationError) as refused:
        vcpu_limits(most)
    assert refused.value.code == "invalid-limit"


# -- What a run takes ----------------------------------------------------------------


ETL = Demand("1", "etl", "ads", frozenset({"db", "x"}), 2048, "FARGATE_SPOT")


@pytest.mark.parametrize(
    "limit, amount",
    [
        (parse("5"), 1),
        (parse("flow=etl:5"), 1),
        (parse("flow=other:5"), 0),
        (parse("flow=ads:5"), 0),
        (parse("label=db:5"), 1),
        (parse("label=d:5"), 0),
        (parse("project=ads:5"), 1),
        (parse("project=etl:5"), 0),
        (of_vcpus(8), 2),
        (of_vcpus(8, "FARGATE_SPOT"), 2),
        (of_vcpus(8, "FARGATE"), 0),
    ],
)
def test_a_limit_is_about_some_runs(limit: Limit, amount: float) -> None:
    assert limit.amount(ETL) == amount


# -- Who goes first --------------------------------------------------------------------


def runs(*flows: str, units: int = 1024) -> List[Demand]:
    """Runs `1`, `2`, ... in the order of their start."""
    return [
        Demand(str(number), *flow.split("/")[:1], labels=frozenset(flow.split("/")[1:]))
        for number, flow in enumerate(flows, 1)
    ]


@pytest.mark.parametrize(
    "limits, flows, admitted",
    [
        ([], "a b", "1 2"),
        (["2"], "a b c", "1 2"),
        (["0"], "a b c", ""),
        (["flow=a:1"], "a a b a b", "1 3 5"),
        (["3", "flow=a:1"], "a a a b b b", "1 4 5"),
        (["3", "label=db:1"], "a/db b/db c d", "1 3 4"),
        (["flow=a:0"], "a b", "2"),
    ],
)
def test_the_earliest_start_goes_first_and_holds_up_no_run_of_other_limits(
    limits: Sequence[str], flows: str, admitted: str
) -> None:
    found = admit([parse(each) for each in limits], [], runs(*flows.split()))
    assert found.admitted == admitted.split()
    waiting = {str(each) for each in range(1, len(flows.split()) + 1)}
    assert set(found.blocked) == waiting - set(found.admitted)


def test_what_is_taken_counts() -> None:
    limits = [parse("flow=a:2"), parse("3")]
    found = admit(limits, [Demand("x", "a"), Demand("y", "b")], runs("a", "a", "b"))
    assert found.admitted == ["1"]
    assert found.blocked == {"2": limits, "3": limits[1:]}
    assert found.used == [2, 3]


def test_a_patient_run_keeps_what_is_free() -> None:
    limits = [parse("flow=a:1"), parse("label=db:1")]
    taken, waiting = [Demand("x", "a")], runs("a/db", "b/db")
    assert admit(limits, taken, waiting).admitted == ["2"]
    assert admit(limits, taken, waiting, {"1"}).admitted == []


def sized(*units: int) -> List[Demand]:
    return [Demand(str(n), "a", units=each) for n, each in enumerate(units, 1)]


@pytest.mark.parametrize(
    "units, admitted",
    [
        ([1024, 1024, 1024], ["1", "2"]),
        ([512, 2048, 512], ["1"]),  # the second one would start never
        ([4096, 1024, 1024], ["2", "3"]),  # the first one starts never
        ([0, 0, 2048], ["1", "2", "3"]),
    ],
)
def test_a_run_that_waits_for_vcpus_is_not_overtaken(
    units: List[int], admitted: List[str]
) -> None:
    limits = [of_vcpus(2)]
    assert admit(limits, [], sized(*units)).admitted == admitted
    assert [bool(is_too_large(limits, each)) for each in sized(2048, 2049)] == [
        False,
        True,
    ]


# -- After a claim ---------------------------------------------------------------------


def taken(run_id: str, claimed_at: str = "") -> Taken:
    return Taken(Demand(run_id), (bool(claimed_at), claimed_at, run_id))


@pytest.mark.parametrize(
    "others, expected",
    [
        ([], Verdict.GO),
        ([taken("a")], Verdict.GO),
        ([taken("a"), taken("b")], Verdict.BACK),
        ([taken("a"), taken("b", "2026-01-01T10:00")], Verdict.BACK),
        ([taken("a"), taken("b", "2026-01-01T12:00")], Verdict.WAIT),
        ([taken("a"), taken("p", "2026-01-01T11:00")], Verdict.WAIT),
        ([taken("a"), taken("n", "2026-01-01T11:00")], Verdict.BACK),
    ],
)
def test_a_claim_goes_waits_or_is_given_back(
    others: List[Taken], expected: Verdict
) -> None:
    own = taken("o", "2026-01-01T11:00")
    found, limit = verdict([parse("2"), parse("flow=x:0")], [*others, own], own.demand)
    assert found is expected
    assert limit == (None if expected is Verdict.GO else parse("2"))


class Agents:
    """Agents that claim runs on an API which neither locks nor counts.

    Each step of an agent is one request: it counts, claims, counts again, and launches
    or gives back. Steps of agents interleave in any order; an agent may die at any. The
    times of claims are arbitrary.
    """

    def __init__(self, limits: Sequence[Limit], demands: Sequence[Demand]) -> None:
        self.limits = limits
        self.demands = {each.run_id: each for each in demands}
        self.taken: Dict[str, str] = {}  # the time of the claim; "" once it runs
        self.launched: Set[str] = set()
        self.claimed: Dict[int, Tuple[str, Sequence[Taken]]] = {}

    def count(self) -> List[Taken]:
        return [
            Taken(self.demands[run_id], (bool(at), at, run_id))
            for run_id, at in self.taken.items()
        ]

    def step(self, agent: int, run_id: Optional[str], at: str) -> None:
        """Let an agent do what is next; `run_id` is what it would claim."""
        if agent in self.claimed:
            own, counted = self.claimed[agent]
            if not counted:  # the second count
                self.claimed[agent] = own, self.count()
                return
            del self.claimed[agent]
            found, _ = verdict(self.limits, counted, self.demands[own])
            if found is Verdict.GO:
                self.launched.add(own)
            elif found is Verdict.BACK:
                del self.taken[own]
            else:
                self.claimed[agent] = own, ()
        elif run_id and run_id not in self.taken:  # whatever it counted before
            self.taken[run_id] = at
            self.claimed[agent] = run_id, ()


demands = st.lists(
    st.builds(
        Demand,
        run_id=st.uuids().map(str),
        flow=st.sampled_from("ab"),
        labels=st.frozensets(st.sampled_from("cd")),
        units=st.sampled_from([0, 256, 1024, 4096]),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda each: each.run_id,
)
some_limits = st.lists(
    st.sampled_from(
        [parse("2"), parse("flow=a:1"), parse("label=c:2"), of_vcpus(3), parse("0")]
    ),
    min_size=1,
    max_size=3,
    unique=True,
)


@given(
    demands,
    some_limits,
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 7), st.integers(0, 99))),
)
@settings(max_examples=200)
def test_guarantee_no_interleaving_of_agents_exceeds_a_limit(
    found: List[Demand], limits: List[Limit], steps: List[Tuple[int, int, int]]
) -> None:
    agents = Agents(limits, found)
    for agent, number, time in steps:
        kind = time % 10
        run_id = found[number % len(found)].run_id
        if kind == 0 and agents.launched:  # a run ends
            ended = sorted(agents.launched)[number % len(agents.launched)]
            agents.launched.discard(ended)
            del agents.taken[ended]
        elif kind == 1:  # an agent dies; its claim stays
            agents.claimed.pop(agent, None)
        else:
            agents.step(agent, run_id, f"{time:02}")
        used = totals(limits, [agents.demands[each] for each in agents.launched])
        assert all(used[n] <= limit.most for n, limit in enumerate(limits))


@given(demands, some_limits)
def test_guarantee_claims_that_race_end_with_full_limits_or_no_run_that_waits(
    found: List[Demand], limits: List[Limit]
) -> None:
    """All are claimed at once, each by an agent of its own; some are given back."""
    agents = Agents(limits, found)
    for number, demand in enumerate(found):
        agents.step(number, demand.run_id, f"{number:02}")
    for _ in range(4 * len(found)):
        for number in list(agents.claimed):
            agents.step(number, None, "")
    assert not agents.claimed
    counts = [limit for limit in limits if limit.kind is not Kind.VCPUS]
    if counts == limits:
        kept = admit(limits, [], found).admitted
        assert len(agents.launched) >= min(1, len(kept))
