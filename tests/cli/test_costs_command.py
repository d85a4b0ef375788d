"""`prefect agent ecs costs`, and the lines that it adds up."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
from click.testing import CliRunner, Result
from codes import code_of
from prefect import Flow
from prefect.run_configs import ECSRun
from prefect.utilities.configuration import set_temporary_config

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from sandbox_aws import definition
from world import World, eventually

from prefect_ecs_plugin.cli.start import ecs
from prefect_ecs_plugin.monitoring import costs, phases
from prefect_ecs_plugin.observability.counters import Phase

NOW = datetime.now(timezone.utc)
SPOT = {"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT"}]}

#: Linux on ARM in the sandbox: a minute of 1 vCPU and 2 GB, as the packaged template.
ARM = definition(
    cpu="1024", memory="2048", runtimePlatform={"cpuArchitecture": "ARM64"}
)

NOTHING = {
    "tasks": 0,
    "vcpu_hours": 0,
    "gb_hours": 0,
    "dollars": 0,
    "tasks_without_price": 0,
    "seconds": {"waiting": 0, "pulling": 0, "running": 0},
    "shares": {"waiting": 0, "pulling": 0, "running": 0},
}


def run(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(ecs, ["costs", *arguments], input=stdin)


def line(
    task: str, flow: str = "etl", days_ago: float = 1, dollars: Any = 0.5, **more: Any
) -> str:
    """A line of an agent's log about a stopped task of two hours with 0.5 vCPU."""
    seconds = {
        **{Phase.WAITING: 60, Phase.PROVISIONING: 540, Phase.PULL: 1200},
        **{Phase.START: 200, Phase.RUN: 6000},
    }
    cost = costs.Cost("Fargate Linux/X86", "eu-west-1", 1, 4, 0, dollars, "a table")
    arn = f"arn:aws:ecs:eu-west-1:1:task/c/{task}"
    said = phases.line({"taskArn": arn}, seconds, costs.sentence(cost))
    entry = {
        "timestamp": (NOW - timedelta(days=days_ago)).isoformat(),
        "level": "INFO",
        "logger": "agent",
        "message": f"Flow run x: {said}",
        "flow": flow,
        **more,
    }
    return json.dumps(entry)


LOG = "\n".join(
    [
        line("a", project="ads", labels=["prod", "eu"]),
        line("a", project="ads", labels=["prod", "eu"]),  # again, by another agent
        f"2026-11-27T00:00:00 {line('b', dollars=2, labels=['prod'], days_ago=2)}",
        line("c", dollars=None, flow=""),
        line("d", days_ago=40),
        "no JSON at all",
        '{"message": "another line", "timestamp": "2026-11-27T00:00:00Z"}',
        '{"message": "' + phases.BEGINNING + 'e: run 3 s", "timestamp": "never"}',
        "[1]",
    ]
)


@pytest.mark.parametrize(
    "arguments, rows",
    [
        ([], [("etl", 1, 2), ("ads/etl", 1, 0.5), ("(unknown)", 1, 0)]),
        (["--by", "label"], [("prod", 2, 2.5), ("eu", 1, 0.5), ("(no label)", 1, 0)]),
        (
            ["--by", "day"],
            [
                (f"{NOW - timedelta(days=2):%Y-%m-%d}", 1, 2),
                (f"{NOW - timedelta(days=1):%Y-%m-%d}", 2, 0.5),
            ],
        ),
        (["--since", "30h"], [("ads/etl", 1, 0.5), ("(unknown)", 1, 0)]),
        (
            ["--since", "8w"],
            [("etl", 2, 2.5), ("ads/etl", 1, 0.5), ("(unknown)", 1, 0)],
        ),
    ],
)
def test_a_log_is_added_up(arguments: List[str], rows: Any) -> None:
    result = run("--log", "-", "--json", *arguments, stdin=LOG)
    assert result.exit_code == 0
    data = json.loads(result.stdout)
    assert [
        (row[data["by"]], row["tasks"], row["dollars"]) for row in data["rows"]
    ] == rows
    assert data["total"]["tasks_without_price"] == 1


def test_lines_that_only_look_like_an_agents() -> None:
    """A flow may write anything into its run's log."""
    forged = [line("x", dollars=1.5).replace(*each) for each in FORGED]
    deep = '{"message": ' + 100_000 * "["
    result = run("--log", "-", "--json", stdin="\n".join([*forged, deep, line("a")]))
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["total"]["tasks"] == 2


FORGED = [("$1.5", "$1.5.5"), ("used 1", "used ."), ("run 6000", "run 6.0.0.0")]


def test_the_total_and_the_shares() -> None:
    data = json.loads(run("--log", "-", "--json", stdin=LOG).stdout)
    assert data["total"] == {
        "tasks": 3,
        "vcpu_hours": 3,
        "gb_hours": 12,
        "dollars": 2.5,
        "tasks_without_price": 1,
        "seconds": {"waiting": 1800, "pulling": 3600, "running": 18600},
        "shares": {"waiting": 0.075, "pulling": 0.15, "running": 0.775},
    }


def test_the_table_fits_80_columns(tmp_path: Path) -> None:
    log = tmp_path / "agent.log"
    names = {"flow": "a name \x1b[31m that is much too long for a table", "project": ""}
    more = line("x", dollars=12345.678, labels=["a", "b"], **names)
    log.write_text(f"{LOG}\n{more}")
    for kind in ("flow", "label", "day"):
        result = run("--log", str(log), "--by", kind)
        assert result.exit_code == 0
        lines = result.stdout.splitlines()
        assert max(map(len, lines)) == 80
        assert "\x1b" not in result.stdout
        assert lines[0].split()[0] == kind.upper()
        assert next(each for each in lines if each.startswith("all")).split() == [
            *("all", "4", "4.00", "16.00", "$12348.18", "8%", "15%", "78%")
        ]


@pytest.mark.parametrize(
    "arguments, stdin, exit_code, code",
    [
        (["--since", "5"], "", 2, "invalid-option-value"),
        (["--since", "-5d"], "", 2, "invalid-option-value"),
        (["--since", "99999w"], "", 2, "invalid-option-value"),
        (["--by", "colour"], "", 2, None),
        (["--log", "/no/such/file"], "", 2, None),
        (["--log", "-"], "a line\n", 1, "no-json-log"),
    ],
)
def test_what_is_refused(
    arguments: List[str], stdin: str, exit_code: int, code: Any
) -> None:
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == exit_code
    assert code is None or code_of(result.output.splitlines()[-1]) == code


@pytest.mark.parametrize("stdin", ["", "\n", line("d", days_ago=40)])
def test_nothing_found_is_said(stdin: str) -> None:
    result = run("--log", "-", stdin=stdin)
    assert result.exit_code == 0
    assert result.stdout.startswith("There is no stopped task in the log since ")
    data = json.loads(run("--log", "-", "--json", stdin=stdin).stdout)
    assert (data["rows"], data["total"]) == ([], NOTHING)


def test_an_api_that_does_not_answer() -> None:
    nowhere = "http://127.0.0.1:1"
    with set_temporary_config({"cloud.api": nowhere, "cloud.graphql": nowhere}):
        result = run()
    assert result.exit_code == 1
    assert code_of(result.output.splitlines()[-1]) == "logs-unreadable"


# -- From the task to the sum ---------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, runs_tasks=False).running() as world:
        yield world


def test_tasks_are_counted_from_their_end_to_the_sum(world: World) -> None:
    """An agent's tasks on x86, ARM and Spot: its log, the runs' logs, the command."""
    kinds = {
        "x86": ECSRun(),
        "arm": ECSRun(task_definition=ARM),
        "spot": ECSRun(run_task_kwargs=SPOT),
    }
    flows = {name: world.register(Flow(name)) for name in kinds}
    said: List[str] = []
    runs = {
        name: world.run(flows[name], run_config=config, labels=["prod"])
        for name, config in kinds.items()
    }
    options = ["--label", "prod", "--log-format", "json"]
    with world.quick_agent(*options) as agent:
        for run_id in runs.values():
            eventually(lambda run_id=run_id: _is_running(world, run_id))
            for task in world.tasks_of(run_id):
                world.aws.finish(task.task_arn, exit_code=0)
        for run_id in runs.values():
            eventually(lambda run_id=run_id: _lines(world, run_id))
        agent.stop()
        said += agent.lines
    # Less than a minute is billed as a minute.
    minute: Dict[str, float] = {
        "x86": (0.04048 + 2 * 0.004445) / 60,
        "arm": (0.03238 + 2 * 0.00356) / 60,
        "spot": (0.01288871 + 2 * 0.00141527) / 60,
    }
    log = "\n".join(said)
    for result in (run("--json"), run("--json", "--log", "-", stdin=log)):
        data = json.loads(result.stdout)
        assert {row["flow"]: row["dollars"] for row in data["rows"]} == {
            f"tests/{name}": pytest.approx(dollars, rel=1e-3)
            for name, dollars in minute.items()
        }
        assert data["total"]["vcpu_hours"] == pytest.approx(3 / 60, rel=1e-3)
    by_label = json.loads(run("--json", "--by", "label").stdout)["rows"]
    assert [(row["label"], row["tasks"]) for row in by_label] == [("prod", 3)]


def _is_running(world: World, run_id: str) -> bool:
    return [task.last_status for task in world.tasks_of(run_id)] == ["RUNNING"]


def _lines(world: World, run_id: str) -> List[str]:
    return [each for each in world.log(run_id) if each.startswith(phases.BEGINNING)]
