"""The benchmarks judge and draw what was measured; nothing here looks at a clock."""

from __future__ import annotations

import json
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List
from xml.etree import ElementTree

import pytest

# The benchmarks are no part of the wheel; behind everything else, so that the
# plugin is still the installed one.
sys.path.append(str(Path(__file__).parents[1]))

from benchmarks import (
    figures,
    flame,
    limits,
    measuring,
    panels,
    plot,
    report,
    single,
    stacks,
)
from benchmarks.contender import UNLIMITED, Contender
from benchmarks.measuring import Measurement, Wave
from benchmarks.scenarios import SCENARIOS
from benchmarks.scrapes import Scrapes, quantile
from benchmarks.servers import NO_LATENCY
from benchmarks.wire import Relay

OURS, THEIRS = figures.OURS, figures.THEIRS
MIB = 2**20


def wave(runs: int = 200, **changes: Any) -> Wave:
    """All runs launched as fast as AWS allows."""
    complete = Wave(
        runs=runs,
        delays=tuple(0.5 + limits.floor(run) for run in range(1, runs + 1)),
        cpu=runs * 0.004,
        memory=100 * MIB,
        ecs_calls={"RunTask": runs},
    )
    return replace(complete, **changes)


def measured(scenario: str, agent: str, *waves: Wave, **more: Any) -> Measurement:
    peak = 90 if agent == OURS else 100
    given: Dict[str, Any] = {"peak_memory": peak * MIB, **more}
    return Measurement(scenario, agent, waves[0].runs if waves else 0, waves, **given)


def verdicts(*measurements: Measurement) -> List[bool]:
    results = figures.Results()
    results.measurements.extend(measurements)
    return [figure.holds for figure in figures.figures(results)]


BURST = ["complete", "near the floor", "throttled", "the first", "memory"]


@pytest.mark.parametrize(
    "changes, missed",
    [
        ({}, []),
        ({"failed": 1}, ["complete"]),
        ({"duplicates": 1}, ["complete"]),
        ({"delays": wave().delays[:-1]}, ["complete"]),
        ({"delays": (*wave().delays[:-1], 12.4)}, ["near the floor"]),
        ({"delays": (*wave().delays[:-1], 12.3)}, []),
        ({"throttled": 2}, ["throttled"]),
        ({"throttled": 1}, []),
        ({"delays": tuple(delay + 0.6 for delay in wave().delays)}, ["the first"]),
    ],
)
def test_burst(changes: Dict[str, Any], missed: List[str]) -> None:
    holds = verdicts(
        measured("burst", OURS, wave(**changes)), measured("burst", THEIRS, wave())
    )

    assert [name for name, held in zip(BURST, holds) if not held] == missed


#: Two milliseconds of CPU per run.
FLOOR = {"run_task": 0.0013, "claim": 0.0007}


def rate(per_second: float) -> Wave:
    return wave(100, delays=tuple(run / per_second for run in range(100)))


@pytest.mark.parametrize(
    "scenario, factor, holds",
    [
        ("throughput", 8.1, True),
        ("throughput", 7.9, False),
        ("growth", 3.6, True),
        ("growth", 3.4, False),
    ],
)
def test_throughput(scenario: str, factor: float, holds: bool) -> None:
    found = verdicts(
        measured(scenario, OURS, rate(10 * factor), floor=FLOOR),
        measured(scenario, THEIRS, rate(10)),
    )

    assert found[0] is holds


@pytest.mark.parametrize(
    "ours, theirs, near_floor, ratio_holds, flat",
    [
        ((3.5, 3.5), (13.0, 13.0), True, True, True),
        ((3.7, 3.7), (14.0, 14.0), False, True, True),
        ((3.5, 3.5), (12.0, 12.0), True, False, True),
        ((3.0, 3.4), (13.0, 13.5), True, True, False),
        ((3.7, 3.5), (12.0, 13.0), True, True, True),
    ],
)
def test_cpu_per_run(
    ours: Any, theirs: Any, near_floor: bool, ratio_holds: bool, flat: bool
) -> None:
    found = verdicts(
        *(
            measured(
                "growth",
                agent,
                wave(runs, cpu=runs * milliseconds / 1000),
                floor=FLOOR if agent == OURS else {},
            )
            for agent, costs in ((OURS, ours), (THEIRS, theirs))
            for runs, milliseconds in zip((50, 3200), costs)
        )
    )

    assert found[1:4] == [near_floor, ratio_holds, flat]


@pytest.mark.parametrize(
    "resident, flat", [((100, 101, 101), True), ((100, 102, 104), False)]
)
def test_memory_over_many_runs(resident: Any, flat: bool) -> None:
    waves = [wave(2000, memory=mib * MIB) for mib in resident]

    assert verdicts(measured("memory", OURS, *waves)) == [flat]


@pytest.mark.parametrize("peak, holds", [(95, True), (96, False)])
def test_peak_memory(peak: int, holds: bool) -> None:
    """The scenario with the worst ratio counts."""
    found = verdicts(
        measured("start", OURS, first_look=1.0, peak_memory=90 * MIB),
        measured("start", THEIRS, first_look=1.0),
        measured("burst", OURS, wave(), peak_memory=peak * MIB),
        measured("burst", THEIRS, wave(), peak_memory=100 * MIB),
    )

    assert found[len(BURST) - 1] is holds


@pytest.mark.parametrize("failed", [0, 1])
def test_backlog(failed: int) -> None:
    found = verdicts(
        measured("backlog", OURS, wave(failed=failed), peak_memory=90 * MIB),
        measured("backlog", THEIRS, wave()),
    )

    assert found == [True, not failed]


@pytest.mark.parametrize(
    "cpu, size, holds",
    [
        (0.12, 1200, [True, True]),
        (0.13, 1200, [False, True]),
        (0.1, 1300, [True, False]),
    ],
)
def test_idle(cpu: float, size: int, holds: List[bool]) -> None:
    ours = measured("idle", OURS, idle_cpu=cpu, idle_bytes=size)
    theirs = measured("idle", THEIRS, idle_cpu=0.1001, idle_bytes=1000)

    assert verdicts(ours, theirs)[1:] == holds


@pytest.mark.parametrize(
    "delays, holds",
    [
        ((0.1, 1.1, 2.4), [True, True]),
        ((0.1, 1.3, 2.4), [False, True]),
        ((0.1, 1.1, 2.6), [True, False]),
    ],
)
def test_single(delays: Any, holds: List[bool]) -> None:
    ours = measured("single", OURS, wave(3, delays=delays))
    theirs = measured("single", THEIRS, wave(3, delays=(1.0, 5.0, 9.0)))

    assert verdicts(ours, theirs)[1:] == holds


@pytest.mark.parametrize("seconds, holds", [(1.09, True), (1.11, False)])
def test_start(seconds: float, holds: bool) -> None:
    ours = [measured("start", OURS, first_look=each) for each in (0.5, seconds, 9.0)]

    found = verdicts(*ours, measured("start", THEIRS, first_look=1.0))

    assert found[1] is holds


@pytest.mark.parametrize("more, holds", [(0.014, True), (0.016, False)])
def test_help(more: float, holds: bool) -> None:
    results = figures.Results()
    results.help_seconds = {OURS: [0.5 + more] * 3, THEIRS: [0.5] * 3}

    assert [figure.holds for figure in figures.figures(results)] == [holds]


def test_repeated_measurements_count_by_their_median() -> None:
    ours = [
        measured("growth", OURS, rate(per_second), floor=FLOOR)
        for per_second in (1, 45, 50)
    ]

    assert verdicts(*ours, measured("growth", THEIRS, rate(10)))[0]


def test_a_page_keeps_what_stands_around_its_markers() -> None:
    page = "1\n<!-- {0}: begin -->\nold\n<!-- {0}: end -->\n2\n"

    assert report.page_with(page.format("flame"), "new", "flame") == (
        page.format("flame").replace("old", "new")
    )


def test_a_page_without_markers_is_left_alone() -> None:
    with pytest.raises(ValueError, match="no <!-- measured: begin -->"):
        report.page_with("no markers", "new")


@pytest.mark.parametrize(
    "name, part",
    [
        ("benchmarks.md", "measured"),
        ("benchmarks.md", "flame"),
        ("scaling.md", "measured"),
    ],
)
def test_the_docs_have_markers(name: str, part: str) -> None:
    docs = Path(__file__).parents[1] / "docs"
    if not docs.exists():
        pytest.skip("the docs are not beside the tests")

    assert report.page_with((docs / name).read_text(encoding="utf-8"), "new", part)


@pytest.mark.parametrize(
    "seconds, words", [([0.03], "30 ms"), ([0.05, 0.03, 0.04], "30 to 50 ms")]
)
def test_the_speed_of_the_machine_is_said(seconds: List[float], words: str) -> None:
    line = report.circumstances("2026-11-27", 2, "3.11", {"boto3": "1.44"}, seconds)

    assert f"took {words} of CPU" in line


def test_the_floor_is_beside_both_agents() -> None:
    results = figures.Results()
    results.measurements = [
        measured("growth", OURS, wave(cpu=0.8), floor=FLOOR),
        measured("growth", THEIRS, wave(cpu=2.0)),
    ]

    rows = report.details(results).splitlines()
    column = rows[0].split(" | ").index("times the floor")
    assert [row.split(" | ")[column] for row in rows[2:]] == ["2.0", "5.0"]


def test_a_table_names_both_agents() -> None:
    results = figures.Results()
    results.measurements = [
        measured("burst", OURS, wave()),
        measured("burst", THEIRS, wave(delays=(), failed=200)),
    ]

    first, second = report.details(results).splitlines()[2:]
    assert first.startswith("| burst | 200 | this agent | 200 | 0 | 0 | 22.")
    assert second.startswith("| burst | 200 | Prefect's own | 0 | 200 | 0 | 0.0 |")


def test_the_plot_keeps_every_point_and_label_on_the_page() -> None:
    curves = [
        plot.Curve("high & late", "b", [(1, 0.5), (90, 40.0)]),
        plot.Curve("low", "a", [(1, 0.5), (200, 10.0)]),
    ]
    drawing = ElementTree.fromstring(plot.svg("Title", "runs", "seconds", curves))

    svg = "{http://www.w3.org/2000/svg}"
    lines = [line.get("points", "") for line in drawing.iter(f"{svg}polyline")]
    points = [point.split(",") for line in lines for point in line.split()]
    assert len(points) == 4
    assert all(62 <= float(x) <= 810 and 56 <= float(y) <= 368 for x, y in points)
    texts = {text.text for text in drawing.iter(f"{svg}text")}
    assert {"Title", "runs", "seconds", "high & late", "low", "0", "200"} <= texts


@pytest.mark.parametrize(
    "largest, ticks",
    [
        (9.0, [0, 2, 4, 6, 8, 10]),
        (200.0, [0, 50, 100, 150, 200]),
        (20.6, [0, 5, 10, 15, 20, 25]),
        (0.8, [0, 0.2, 0.4, 0.6, 0.8]),
    ],
)
def test_ticks_are_round(largest: float, ticks: List[float]) -> None:
    assert plot.ticks(largest) == pytest.approx(ticks)


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Contender:
    """This agent, in the environment of the tests."""
    pytest.importorskip("moto", reason="the servers are the sandbox's")
    if not Path("/proc/self/stat").exists():
        pytest.skip("reads /proc")
    monkeypatch.setattr(measuring, "CACHE", tmp_path)
    prefect = Path(sys.executable).with_name("prefect")
    return Contender(OURS, prefect, UNLIMITED)


def test_the_agent_goes_through_a_scenario(agent: Contender) -> None:
    """With all that is measured in one scenario or another."""
    scenario = replace(
        SCENARIOS["burst"].quick(),
        latencies=NO_LATENCY,
        ahead=0.5,
        flows=2,
        floor=3,
        idle=0.5,
        https=True,
    )

    found = measuring.measure(scenario, 4, agent)

    (only,) = found.waves
    assert (only.launched, only.failed, only.duplicates) == (4, 0, 0)
    assert only.ecs_calls["RunTask"] == 4
    assert only.ecs_calls["RegisterTaskDefinition"] == 2
    assert found.total_cpu > only.cpu
    assert only.memory > 20 * MIB
    assert found.peak_memory > 20 * MIB
    assert found.first_look > 0
    assert found.idle_bytes >= 100 * found.idle_calls
    assert min(found.floor["run_task"], found.floor["claim"]) > 0
    assert json.dumps(only.api_calls)


def test_a_run_is_started_by_hand(
    agent: Contender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single, "_LONGEST_PAUSE", 0.0)
    scenario = replace(SCENARIOS["single"].quick(), settled=0.0, agents=1)

    found = single.measure(scenario, 1, agent)

    (only,) = found.waves
    assert only.delays[0] > 0
    assert found.peak_memory > 20 * MIB


def test_the_pauses_before_runs_lie_evenly() -> None:
    for_agents = single.pauses(SCENARIOS["single"], 20)

    assert [len(own) for own in for_agents] == [2] * 10
    all_pauses = sorted(pause for own in for_agents for pause in own)
    assert [int((pause - 16) / 0.5) for pause in all_pauses] == list(range(20))


def test_the_relay_counts_both_ways() -> None:
    with socket.create_server(("127.0.0.1", 0)) as api:
        api_port = api.getsockname()[1]
        relay = Relay(api_port)
        request = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{relay.port}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", relay.port)) as client:
            client.sendall(request)
            connection, _ = api.accept()
            with connection:
                got = connection.recv(1000)
                connection.sendall(b"answer")
            assert client.makefile("rb").read() == b"answer"

    assert f"Host: 127.0.0.1:{api_port}\r\n".encode() in got
    assert relay.bytes == len(request) + len(b"answer")


# -- Where the time goes --------------------------------------------------------------


def stack(*frames: str) -> str:
    """As py-spy writes one that a worker of the dispatcher runs."""
    worker = ("run (threading.py)", "_run (prefect_ecs_plugin/scheduling/x.py)")
    return ";".join([*worker, *frames])


RAW = "\n".join(
    [
        f"{stack('call (prefect_ecs_plugin/aws/ecs.py)', 'a (botocore/x.py)')} 4",
        f"{stack('post (requests/s.py)', 'send (requests/s.py)')} 3",
        f"{stack('build (prefect_ecs_plugin/template.py)')} 2",
        f"{stack()} 1",
    ]
)


def test_samples_are_shared_among_parts() -> None:
    found = stacks.parsed(RAW)

    assert [share for _, share in stacks.shares(found)[:4]] == [0.4, 0.3, 0.2, 0.1]
    assert [name.split()[0] for name, _ in stacks.shares(found)[:4]] == [
        *("calls", "requests", "rendering", "claims,")
    ]


def test_stacks_begin_with_the_plugin_and_name_each_file_once() -> None:
    assert ("_run (prefect_ecs_plugin/scheduling/x.py)", "post (requests/s.py)") in (
        stacks.parsed(RAW)
    )


def test_a_flame_graph_has_frames_as_wide_as_their_share() -> None:
    drawing = ElementTree.fromstring(stacks.svg("Title <1>", stacks.parsed(RAW)))

    svg = "{http://www.w3.org/2000/svg}"
    widths = {
        box[0].text: float(box.get("width", ""))
        for box in drawing.iter(f"{svg}rect")
        if len(box)
    }
    assert widths["_run (prefect_ecs_plugin/scheduling/x.py): 100.0%"] == 920
    assert widths["post (requests/s.py): 30.0%"] == 276
    assert {"Title <1>", "requests: post"} <= {
        text.text for text in drawing.iter(f"{svg}text")
    }


def test_without_py_spy_the_program_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))

    monkeypatch.setattr(sys, "argv", ["flame"])
    with pytest.raises(SystemExit, match="pip install py-spy"):
        flame.main()


# -- The drawn dashboard -----------------------------------------------------------


def scrapes(*values: float) -> Scrapes:
    """A counter's values, one a second."""
    key = ("calls_total", (("kind", "a"),))
    found = Scrapes()
    for second, value in enumerate(values):
        found.seconds.append(float(second))
        found.samples.append({key: value, ("calls_total", (("kind", "b"),)): 0.0})
    return found


def test_values_that_are_always_zero_are_left_out() -> None:
    assert scrapes(0, 1, 5).values("calls_total", "kind") == {"a": [0, 1, 5]}


def test_what_appears_later_was_zero_before() -> None:
    found = scrapes(1, 2)
    found.seconds.append(2.0)
    found.samples.append({("calls_total", (("kind", "c"),)): 7.0})
    assert found.values("calls_total", "kind")["c"] == [0, 0, 7]


def test_a_rate_is_the_growth_over_its_window() -> None:
    rates = scrapes(0, 2, 4, 10).rates("calls_total", "kind", 2.0)
    assert rates == {"a": [None, 2.0, 2.0, 4.0]}


@pytest.mark.parametrize(
    "part, buckets, value",
    [
        (0.5, {1: 0, 2: 10, float("inf"): 10}, 1.5),
        (0.95, {1: 100, 2: 100, float("inf"): 100}, 0.95),
        (0.99, {1: 0, 2: 50, float("inf"): 100}, 2),
        (0.5, {1: 0, float("inf"): 0}, None),
    ],
)
def test_a_quantile_lies_where_prometheus_puts_it(
    part: float, buckets: Dict[float, float], value: Any
) -> None:
    assert quantile(part, buckets) == value


def test_panels_are_a_drawing() -> None:
    stacked = panels.Panel(
        "Runs <now>", "runs", {"a": [1, 2, 3], "b": [3, None, 1]}, stacked=True
    )
    lines = panels.Panel("Rate", "per second", {"a": [None, 1, 2], "limit": [3, 3, 3]})
    empty = panels.Panel("Nothing", "runs", {})
    marks = [panels.Mark(1, "a burst")]
    drawing = panels.svg("Title", [0, 1, 2], [stacked, lines, empty], marks)
    texts = [element.text for element in ElementTree.fromstring(drawing).iter()]
    assert {"Title", "Runs <now>", "Rate", "Nothing", "1: a burst"} <= set(texts)
    assert drawing.count("<polygon") == 3  # of two bands, one with a hole
    assert "nan" not in drawing


DASHBOARD = Path(__file__).parents[1] / "docs" / "grafana-dashboard.svg"


@pytest.mark.skipif(not DASHBOARD.exists(), reason="the docs are not installed")
def test_the_drawn_panels_are_those_of_the_dashboard() -> None:
    drawing = ElementTree.fromstring(DASHBOARD.read_text(encoding="utf-8"))
    names = [each.text for each in drawing.iter() if each.get("class") == "name"]
    board = json.loads(DASHBOARD.with_suffix(".json").read_text(encoding="utf-8"))
    assert names
    assert set(names) <= {panel["title"] for panel in board["panels"]}
