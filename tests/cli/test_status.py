"""`prefect agent ecs status`: what the agents have taken, and what waits for what."""

from __future__ import annotations

import io
import json
import sys
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any, Dict, Iterator, List
from unittest import mock

import click
import pytest
from codes import code_of, raises_code

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from recorded_runs import RecordedRuns, recorded_runs
from sandbox_prefect import until

from prefect_ecs_plugin.cli import runs
from prefect_ecs_plugin.cli.explain.seen import Line
from prefect_ecs_plugin.cli.status import command, reading, screen
from prefect_ecs_plugin.cli.status.overview import Overview, Seen, overview
from prefect_ecs_plugin.launch_record import LaunchRecord
from prefect_ecs_plugin.limits import of_vcpus, parse, waiting_line
from prefect_ecs_plugin.monitoring.poll_queue import Location
from prefect_ecs_plugin.sandbox.aws import Fault, Hold

NOW = datetime(2026, 11, 27, 3, 0, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RecordedRuns]:
    with recorded_runs(tmp_path_factory.mktemp("home")) as running:
        yield running


def test_status_through_the_servers(world: RecordedRuns) -> None:
    held, waits, runs = (world.claimed(labels=["db"]) for _ in range(3))
    late = datetime.now(timezone.utc) - timedelta(minutes=3)
    untaken = world.store.create_flow_run(
        flow_id=world.flow_id, scheduled_start_time=late.isoformat()
    )
    later = datetime.now(timezone.utc) + timedelta(hours=3)
    world.store.create_flow_run(
        flow_id=world.flow_id, scheduled_start_time=later.isoformat()
    )
    world.aws.before_start = lambda task: Hold() if task.started_by == held else None
    arns = [world.launch(held), world.launch(runs)]
    until(lambda: world.aws.task(arns[0]).last_status == "PENDING")
    until(lambda: world.aws.task(arns[1]).last_status == "RUNNING")
    world.set_state(runs, "Running")
    world.say(waits, "Waiting for ECS: another reason")
    world.say(waits, "Waiting for ECS: RESOURCE:CPU")
    result = world.command("status", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["states"] == {"Scheduled": 1, "Submitted": 2, "Running": 1}
    assert [each["states"] for each in told["flows"]] == [told["states"]]
    assert [each["states"] for each in told["labels"]] == [
        {"Submitted": 2, "Running": 1}
    ]
    assert {each["run_id"]: each["reason"] for each in told["waiting"]} == {
        untaken: "an agent",
        held: "image pull",
        waits: "ECS: RESOURCE:CPU",
    }
    assert told["waiting"][0]["seconds"] >= 180
    assert told["tasks"] == [
        {
            "cluster": "default",
            "region": "",
            "statuses": {"PENDING": 1, "RUNNING": 1},
        }
    ]
    (agent,) = told["agents"]
    assert (agent["name"], agent["runs"]) == ("agent", 3)
    shown = world.command("status").stdout
    assert "1 Scheduled, 2 Submitted, 1 Running" in shown.splitlines()[0]
    assert max(map(len, shown.splitlines())) <= 80
    assert "\x1b" not in shown
    denied = Fault(error_code="AccessDeniedException", status=400)
    world.aws.fault = lambda asked, _: denied
    result = world.command("status")
    world.aws.fault = None
    assert result.exit_code == 0
    assert code_of(" ".join(result.stdout.split())) == "missing-permission"
    world.aws.release(arns[0])


def test_clusters_are_read_with_one_call_a_second(world: RecordedRuns) -> None:
    arn = world.launch(world.claimed())
    clock = SimpleNamespace(now=1000.0)
    clusters = reading.Clusters(lambda: clock.now)
    unseen: List[str] = []
    calls = []
    world.aws.calls.clear()
    with world.configured():
        for _ in range(5):
            tasks = clusters.tasks([Location("default")], unseen)[Location("default")]
            assert arn in [task["taskArn"] for task in tasks]
            calls.append(sum(world.aws.calls.values()))
            clock.now += 1
    assert calls == [2, 2, 4, 4, 6]
    assert unseen == []
    world.finish(arn, 0)


def test_watch_and_json_exclude_each_other(world: RecordedRuns) -> None:
    result = world.command("status", "--watch", "--json")
    assert result.exit_code == 2
    assert code_of(result.stderr.strip()) == "conflicting-options"


def test_no_prefect_api(world: RecordedRuns) -> None:
    nowhere = {**world.config, "cloud.api": "http://127.0.0.1:1"}
    with mock.patch.object(RecordedRuns, "config", nowhere):
        result = world.command("status")
    assert result.exit_code == 1
    assert code_of(result.stderr.strip()) == "prefect-api-unavailable"


def test_it_refreshes_the_terminal(
    world: RecordedRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until Ctrl-C, also while the Prefect API does not answer."""
    console = pytest.importorskip("rich.console").Console(
        file=io.StringIO(), force_terminal=True, width=80, height=24
    )
    pauses: List[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            world.api.stop()
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(command, "time", SimpleNamespace(sleep=sleep))
    with world.configured():
        command.keep_showing(runs.PrefectAPI(), console)
    shown = console.file.getvalue()
    assert shown.count("LAST LOOK") == 2
    assert "[prefect-api-unavailable]" in shown.split("LAST LOOK")[-1]
    assert pauses == 3 * [5.0]
    world.api.start()


def test_watching_without_rich(
    world: RecordedRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rich.live", None)
    with world.configured(), raises_code("status-not-installed"):
        command.keep_showing(runs.PrefectAPI())


# -- Without servers ----------------------------------------------------------------


def ago(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).isoformat()


def run(number: int, state: str, since: float, **more: Any) -> Dict[str, Any]:
    return {
        "id": f"00000000-0000-4000-8000-{number:012}",
        "name": f"run-{number}",
        "state": state,
        "state_timestamp": ago(since),
        "state_start_time": ago(since),
        "scheduled_start_time": ago(since),
        "labels": [],
        "agent_id": "a",
        "flow": {"name": "etl", "project": {"name": "ads"}},
        **more,
    }


def seen(rows: List[Dict[str, Any]], **more: Any) -> Seen:
    values: Dict[str, Any] = {"agents": [], "said": {}, "tasks": {}, "unseen": []}
    return Seen(NOW.timestamp(), rows, **{**values, **more})


def task(row: Dict[str, Any], status: str, **times: float) -> Dict[str, Any]:
    moments = {name: NOW - timedelta(seconds=each) for name, each in times.items()}
    return {"startedBy": row["id"], "lastStatus": status, **moments}


RETRY = {"state_timestamp": ago(40), "state_start_time": ago(-60), "map_index": 3}
RETRY["task"] = {"name": "load"}

WAITS = [
    (run(1, "Scheduled", 60), None, ("an agent", 60)),
    (run(1, "Scheduled", 3), None, None),
    (run(1, "Submitted", 30), None, ("its task", 30)),
    (run(1, "Submitted", 3), None, None),
    (
        run(1, "Submitted", 30),
        ("PROVISIONING", {"createdAt": 29}),
        ("provisioning", 29),
    ),
    (
        run(1, "Submitted", 30),
        ("PENDING", {"createdAt": 29, "pullStartedAt": 8}),
        ("image pull", 8),
    ),
    (
        run(1, "Submitted", 30),
        ("RUNNING", {"createdAt": 29, "startedAt": 20}),
        ("its flow's start", 20),
    ),
    (run(1, "Submitted", 30), ("RUNNING", {"createdAt": 29, "startedAt": 5}), None),
    (run(1, "Running", 300), None, None),
    (run(1, "Running", 300, waiting=[RETRY]), None, ("the retry of load[3]", 40)),
    (run(1, "Running", 300, waiting=[RETRY], at_work=[{"id": "x"}]), None, None),
    (run(1, "Cancelling", 300), None, None),
]


@pytest.mark.parametrize(("row", "described", "expected"), WAITS)
def test_what_a_run_waits_for(row: Any, described: Any, expected: Any) -> None:
    tasks = {}
    if described:
        tasks[Location("prod")] = [task(row, described[0], **described[1])]
    found = overview(seen([row], tasks=tasks)).waiting
    assert [(each.reason, each.seconds) for each in found] == [expected] * bool(
        expected
    )


def test_limits_for_which_runs_wait() -> None:
    limits = [*map(parse, ("flow=etl:2", "label=db:1", "5")), of_vcpus(8)]
    said = {}
    context = dict(LaunchRecord("1", task_cpu=1024).to_context())
    claim = {"serialized_state": {"context": context}, "timestamp": ago(12)}
    taken = {"labels": ["db"], "serialized_state": {}, "states": [claim]}
    rows = [run(n, "Running", 10, **taken) for n in range(2)]
    for number, limit in enumerate(limits):
        for more in range(number + 1):
            row = run(10 * number + more + 10, "Scheduled", 60, labels=["db", "eu"])
            said[row["id"]] = Line(0, "INFO", waiting_line(limit))
            rows.append(row)
    found = overview(seen(rows, said=said)).limits
    assert sorted(found) == [
        ("flow=etl", 2.0, 2, 1),
        ("label=db", 1.0, 2, 2),
        ("total", 5.0, 2, 3),
        ("vcpus", 8.0, 2.0, 4),
    ]


def test_a_line_of_a_limit_is_old_once_the_run_is_taken() -> None:
    row = run(1, "Submitted", 3)
    said = {row["id"]: Line(0, "INFO", waiting_line(parse("5")))}
    assert overview(seen([row], said=said)).waiting == ()


def test_a_line_without_a_reason() -> None:
    row = run(1, "Scheduled", 60)
    said = {row["id"]: Line(0, "INFO", "Waiting for ")}
    (waiting,) = overview(seen([row], said=said)).waiting
    assert waiting.reason == "an agent"


def test_agents() -> None:
    rows = [run(n, "Running", 10) for n in range(2)]
    agents = [
        {"id": "a", "name": "prod", "labels": ["db"], "last_queried": ago(2)},
        {"id": "b", "name": "old", "labels": [], "last_queried": None},
    ]
    found = overview(seen(rows, agents=agents)).agents
    assert found == (("prod", ("db",), 2.0, 2), ("old", (), None, 0))


def busy() -> Overview:
    """Everything there can be, and more than fits."""
    long = "a-very-long-name-of-a-flow-that-says-all-there-is-to-say"
    rows = [
        run(n, "Scheduled", 3600 + n, labels=[f"label-{n % 7}-{long}"])
        for n in range(60)
    ]
    rows += [
        run(n, "Running", 7, flow={"name": f"{long}-{n}"}) for n in range(100, 140)
    ]
    words = waiting_line(parse(f"flow={long}:2"))
    said = {row["id"]: Line(0, "INFO", words) for row in rows[:5]}
    tasks: Any = {
        Location(
            f"arn:aws:ecs:eu-west-1:123456789012:cluster/{long}-{n}", "eu-west-1"
        ): [task(row, "RUNNING") for row in rows]
        for n in range(4)
    }
    agents = [
        {"id": str(n), "name": long, "labels": [long], "last_queried": ago(500)}
        for n in range(9)
    ]
    return overview(
        seen(rows, said=said, tasks=tasks, agents=agents, unseen=["Not all. " * 12])
    )


@pytest.mark.parametrize("height", [24, 50, None])
def test_it_fits(height: Any) -> None:
    lines = [click.unstyle(line) for line in screen.lines(busy(), height)]
    assert max(map(len, lines)) <= 80
    if height:
        assert len(lines) == height
    headings = [line.split()[0] for line in lines if line[:1].isupper()]
    assert {"FLOW", "LABEL", "WAITS", "TASKS", "LIMIT", "AGENT"} <= set(headings)
    json.loads(screen.as_json(busy()))


def test_no_name_and_no_line_controls_the_terminal() -> None:
    hostile = "\x1b]0;x\x07\x1b[2J\r\x9b1A\u202e\ud800"
    names = {"name": hostile, "labels": [hostile], "flow": {"name": hostile}}
    rows = [run(1, "Scheduled", 60, **names), run(2, "Scheduled", 60, **names)]
    said = {rows[0]["id"]: Line(0, "INFO", f"Waiting for {hostile}")}
    agent = {"id": "a", "last_queried": None, **names}
    tasks = {Location(hostile, hostile): [task(rows[0], hostile)]}
    found = seen(rows, said=said, agents=[agent], tasks=tasks, unseen=[hostile])
    shown = click.unstyle("".join(screen.lines(overview(found))))
    assert shown.isprintable()


def test_a_row_names_the_limit_for_which_its_run_waits() -> None:
    row, limit = run(1, "Scheduled", 60), parse("flow=a-rather-long-name:2")
    said = {row["id"]: Line(0, "INFO", waiting_line(limit))}
    lines = screen.lines(overview(seen([row], said=said)))
    assert any(line.startswith(f"limit {limit}  ") for line in lines)


def test_nothing_to_show() -> None:
    first, second = screen.lines(overview(seen([])))
    assert "no runs" in first
    assert second
