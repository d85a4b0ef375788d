"""`prefect agent ecs explain`, `logs` and `exec`: what a person asks about one run."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import time
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional
from unittest import mock

import click
import pytest
from codes import code_of, raises_code
from stopped_tasks import EXITED, FAILED_TO_START, OUT_OF_MEMORY, ran

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from recorded_runs import PASSWORD, RecordedRuns, recorded_runs

from prefect_ecs_plugin.aws import console_links
from prefect_ecs_plugin.cli import exec as exec_module
from prefect_ecs_plugin.cli import logs, permissions, runs
from prefect_ecs_plugin.cli.explain import account, page, reading
from prefect_ecs_plugin.cli.explain.account import Explanation
from prefect_ecs_plugin.cli.explain.seen import Line, Seen, moment, oldest_first
from prefect_ecs_plugin.cli.explain.timeline import Phase
from prefect_ecs_plugin.launch_record import LaunchRecord
from prefect_ecs_plugin.monitoring import costs, fargate_prices, phases
from prefect_ecs_plugin.monitoring.stop_reasons import STOP_REASONS, StopReason
from prefect_ecs_plugin.observability import counters
from prefect_ecs_plugin.sandbox.aws import Fault, StartFailure

# -- Through the servers ------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RecordedRuns]:
    with recorded_runs(tmp_path_factory.mktemp("home")) as running:
        yield running


Explain = Callable[[str], Explanation]


@pytest.fixture
def explain(world: RecordedRuns, monkeypatch: pytest.MonkeyPatch) -> Explain:
    """Read and assemble as the command does, with the clients of one session."""
    clients = world.clients
    monkeypatch.setattr(reading, "aws_clients", lambda region: clients)

    def explained(run_id: str) -> Explanation:
        with world.configured():
            return account.explain(reading.read(runs.PrefectAPI(), run_id, 10), 10)

    return explained


class Injected(NamedTuple):
    """How a task has to stop for a row of the table."""

    text: str
    stop_code: str
    exit_code: Optional[int]


def injected(row: StopReason) -> Injected:
    code = EXITED if row.exit_codes else FAILED_TO_START
    if row.stop_code != ".*":
        code = row.stop_code.split("|")[0]
    text = row.examples.splitlines()[0] if row.examples else "It was shut down."
    exit_code = (
        min(each for each in row.exit_codes if each is not None)
        if (row.exit_codes)
        else None
    )
    return Injected(text, code, exit_code)


@pytest.mark.parametrize("row", STOP_REASONS, ids=lambda row: row.code)
def test_every_stop_reason_is_named(
    row: StopReason, world: RecordedRuns, explain: Explain
) -> None:
    how, run_id = injected(row), world.claimed()
    if how.exit_code is None:
        world.failures[run_id] = StartFailure(how.stop_code, how.text)
        world.stopped(world.launch(run_id))
    else:
        arn = world.launch(run_id)
        world.finish(arn, how.exit_code)
    world.aws.calls.clear()
    explained = explain(run_id)
    assert explained.cause is not None
    assert explained.cause.code == row.code
    assert sum(world.aws.calls.values()) <= 6
    due = moment(explained.run["scheduled_start_time"]) or 0.0
    whole = explained.spans[-1].end - due
    assert sum(span.seconds for span in explained.spans) == pytest.approx(whole, abs=1)
    assert PASSWORD not in page.page(explained, True) + page.as_json(explained)


def test_the_page_of_a_killed_run(world: RecordedRuns) -> None:
    run_id = world.claimed(run_config={"type": "ECSRun", "env": {"TOKEN": PASSWORD}})
    world.say(run_id, f"Connecting with {PASSWORD}", name="prefect.CloudTaskRunner")
    arn = world.launch(run_id, enableExecuteCommand=False)
    world.set_state(run_id, "Running")
    world.finish(arn, 137, OUT_OF_MEMORY)
    world.aws.calls.clear()
    result = world.command("explain", run_id)
    assert (result.exit_code, result.stderr) == (0, "")
    assert 0 < sum(world.aws.calls.values()) <= 6
    shown = result.stdout
    headings = [line.split(" [")[0] for line in shown.splitlines() if line[:1] != " "]
    assert [each for each in headings if each] == [
        f"Flow run {world.store.flow_run(run_id).name} is Running",
        "Timeline (UTC)",
        "Task runs",
        "Requests",
        "In the AWS console",
        "Not seen",
        "Last lines of the run's log at the Prefect API",
        "Why its task stopped",
    ]
    assert "[out-of-memory]" in shown
    assert "ECSRun(memory='1 GB')" in shown
    assert "<- longest" in shown
    assert "  cost   It used 0.004167 vCPU hours and 0.008333 GB hours of" in shown
    assert PASSWORD not in shown
    assert "\x1b" not in shown
    too_long = [line for line in shown.splitlines() if len(line) > 80]
    assert [line for line in too_long if "https://" not in line] == []
    unfolded = world.command("explain", run_id, "--requests", "--log-lines", "0").stdout
    assert "name: DB_PASSWORD\n          value: '***'" in unfolded
    assert "Last lines" not in unfolded
    assert PASSWORD not in unfolded


def test_json(world: RecordedRuns) -> None:
    run_id = world.claimed()
    world.failures[run_id] = StartFailure(
        FAILED_TO_START, "CannotPullContainerError: pull image manifest: not found"
    )
    world.stopped(world.launch(run_id))
    url = f"http://prefect.example.com/default/flow-run/{run_id}?logs"
    told = json.loads(world.command("explain", url, "--json").stdout)
    assert told["run"]["id"] == run_id
    assert told["cause"]["code"] == "image-not-found"
    phases = [each["phase"] for each in told["timeline"]]
    assert phases[-3:] == ["image pull", "stop of the task", "without a task"]
    assert [each["is_open"] for each in told["timeline"]][-2:] == [False, True]
    total = sum(each["seconds"] for each in told["timeline"])
    assert total == pytest.approx(told["seconds"], abs=0.1)
    assert sum(each["is_longest"] for each in told["timeline"]) == 1
    assert told["tasks"][0]["containers"][0]["exitCode"] is None
    assert set(told["requests"]) == {"RunTask", "RegisterTaskDefinition"}


def test_a_run_whose_task_ecs_has_forgotten(
    world: RecordedRuns, explain: Explain
) -> None:
    """The agent's words in the run's log are what is left."""
    run_id = world.claimed()
    gone = "arn:aws:ecs:us-east-1:123456789012:task/default/0123abc"
    world.say(run_id, f"Submitted for execution: Task {gone} (https://x)")
    assert code_of(f"x [{_cause(explain(run_id))}]") == "task-vanished"
    world.set_state(run_id, "Running")
    world.say(run_id, AGENTS_WORDS)
    world.set_state(run_id, "Failed", "It stopped; do this [spot-interruption]")
    explained = explain(run_id)
    assert explained.cause is not None
    assert explained.cause.code == "spot-interruption"
    assert explained.cause.text == "The ECS task stopped because AWS has no capacity"
    assert explained.cause.remedy == "start the run again"
    assert explained.cause.facts == ("stopCode: SpotInterruption",)
    assert any("ECS has forgotten task 0123abc" in each for each in explained.unseen)
    phases = [span.phase for span in explained.spans]
    assert phases[-2:] == [Phase.TASK, Phase.RUN]


AGENTS_WORDS = """\
The ECS task stopped because AWS has no capacity. [spot-interruption]
What to do: start the run again.
stopCode: SpotInterruption
The last 1 lines of its log:
    Container of something"""


def _cause(explained: Explanation) -> str:
    return explained.cause.code if explained.cause else ""


def test_a_run_that_could_not_be_launched(
    world: RecordedRuns, explain: Explain
) -> None:
    run_id = world.claimed()
    world.set_state(run_id, "Failed", "The image is no name. [image-name]")
    explained = explain(run_id)
    assert _cause(explained) == "image-name"
    assert explained.tasks == ()


def test_a_flow_that_fails_by_itself(world: RecordedRuns, explain: Explain) -> None:
    """Its task's end, which is an end as any other, is not to blame."""
    run_id = world.claimed()
    arn = world.launch(run_id)
    world.set_state(run_id, "Running")
    (task_run,) = world.store.task_runs(run_id)
    failed = {"type": "Failed", "message": "ZeroDivisionError('division by zero')"}
    change = {"task_run_id": task_run.id, "state": failed}
    world.store.set_task_run_states([change])
    world.set_state(run_id, "Failed", "Some reference tasks failed.")
    world.finish(arn, 0)
    explained = explain(run_id)
    assert explained.cause is not None
    assert explained.cause.code == ""
    assert "ZeroDivisionError" in explained.cause.facts[0]
    assert explained.task_run_states == {"Failed": 1}
    assert not explained.spans[-1].is_open


def test_a_run_that_the_server_gave_up(world: RecordedRuns, explain: Explain) -> None:
    run_id = world.claimed()
    arn = world.launch(run_id)
    world.set_state(run_id, "Running")
    world.finish(arn, 1)
    world.set_state(run_id, "Failed", "No heartbeat detected from the remote task; ...")
    assert _cause(explain(run_id)) == "flow-exited"


def test_a_run_that_succeeded(world: RecordedRuns, explain: Explain) -> None:
    run_id = world.claimed()
    arn = world.launch(run_id)
    world.set_state(run_id, "Running")
    world.set_state(run_id, "Success")
    world.finish(arn, 0)
    explained = explain(run_id)
    assert (explained.cause, explained.waits_for, explained.unseen[1:]) == (
        None,
        "",
        (),
    )
    assert [span.phase for span in explained.spans][-2:] == [Phase.RUN, Phase.STOP]


def test_a_cancelled_run(world: RecordedRuns, explain: Explain) -> None:
    run_id = world.store.create_flow_run(flow_id=world.flow_id)
    world.store.cancel_flow_run(run_id)
    explained = explain(run_id)
    assert explained.cause is not None
    assert "cancelled" in explained.cause.text
    assert [span.phase for span in explained.spans] == [Phase.AGENT]


def test_what_a_run_waits_for(world: RecordedRuns, explain: Explain) -> None:
    wanted = world.store.create_flow_run(flow_id=world.flow_id, labels=["gpu"])
    world.aws.calls.clear()
    assert "No agent with the labels gpu" in explain(wanted).waits_for
    assert sum(world.aws.calls.values()) == 0
    later = datetime.now(timezone.utc) + timedelta(hours=3)
    due = world.store.create_flow_run(
        flow_id=world.flow_id, scheduled_start_time=later.isoformat()
    )
    assert explain(due).waits_for.startswith("It is due in ")
    assert explain(due).spans == ()
    refused = world.claimed()
    world.say(refused, "Waiting for ECS: RESOURCE:CPU")
    assert "Waiting for ECS: RESOURCE:CPU" in explain(refused).waits_for
    assert explain(refused).spans[-1].detail == "ECS: RESOURCE:CPU"
    running = world.claimed()
    arn = world.launch(running)
    world.set_state(running, "Running")
    assert explain(running).waits_for.startswith("Its task is RUNNING")
    world.finish(arn, 0)


def test_what_aws_does_not_show_is_said(world: RecordedRuns, explain: Explain) -> None:
    run_id = world.claimed()
    world.failures[run_id] = StartFailure(FAILED_TO_START, "toomanyrequests")
    world.stopped(world.launch(run_id))
    denied = Fault(error_code="AccessDeniedException", status=400)
    world.aws.fault = lambda asked, _: denied if asked == "ecs.ListTasks" else None
    explained = explain(run_id)
    assert _cause(explained) == "pull-rate-limit"  # described by the ARN in the log
    assert code_of(explained.unseen[0]) == "missing-permission"
    world.aws.fault = lambda asked, _: denied
    explained = explain(run_id)
    world.aws.fault = None
    assert explained.cause is None
    assert [code_of(each) for each in explained.unseen[-2:]] == 2 * [
        "missing-permission"
    ]


def test_a_task_that_ecs_does_not_describe_is_not_called_gone(
    world: RecordedRuns, explain: Explain
) -> None:
    run_id = world.claimed()
    arn = world.launch(run_id)
    world.running(arn)
    denied = Fault(error_code="AccessDeniedException", status=400)
    for refused in ("ecs.DescribeTasks", "ecs."):
        world.aws.fault = lambda asked, _, refused=refused: (
            denied if asked.startswith(refused) else None
        )
        explained = explain(run_id)
        world.aws.fault = None
        assert explained.cause is None
        assert {*map(code_of, explained.unseen)} == {"missing-permission"}
    world.finish(arn, 0)


def test_with_invalid_aws_settings_the_rest_is_told(world: RecordedRuns) -> None:
    result = world.command("explain", world.claimed(), AWS_MAX_ATTEMPTS="many")
    assert result.exit_code == 0, result.output
    assert "[aws-settings]" in result.stdout


def test_without_credentials_the_rest_is_told(world: RecordedRuns) -> None:
    run_id = world.claimed()
    world.set_state(run_id, "Failed", "The image is no name. [image-name]")
    nothing = {"AWS_ACCESS_KEY_ID": "", "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    result = world.command("explain", run_id, **nothing)
    assert result.exit_code == 0
    assert "[no-credentials]" in result.stdout
    assert "[image-name]" in result.stdout


# -- Bad input ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "code", "exit_code"),
    [
        ("no-such-name", "no-such-run", 1),
        ("0b2c9d4e-0000-4000-8000-000000000000", "no-such-run", 1),
        ("http://x/flow-run/0b2c9d4e-0000-4000-8000-000000000000", "no-such-run", 1),
        ("https://cloud.prefect.io/acme/flow/12", "invalid-option-value", 2),
        ("https://cloud.prefect.io/acme/flow-run", "invalid-option-value", 2),
        ("https://cloud.prefect.io/acme/flow-run/not-an-id", "invalid-option-value", 2),
        (
            "ftp://x/flow-run/0b2c9d4e-0000-4000-8000-000000000000",
            "invalid-option-value",
            2,
        ),
        ("http://[/flow-run/", "invalid-option-value", 2),
        ("", "invalid-option-value", 2),
        ('a "quoted" \\ {name: $x}\n', "no-such-run", 1),
    ],
)
def test_no_such_run(world: RecordedRuns, name: str, code: str, exit_code: int) -> None:
    result = world.command("explain", name)
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert code_of(result.stderr.strip()) == code
    assert exit_code == 2 or len(result.stderr.splitlines()) == 1


def test_an_ambiguous_name(world: RecordedRuns) -> None:
    ids = [
        world.store.create_flow_run(flow_id=world.flow_id, flow_run_name="daily")
        for _ in range(12)
    ]
    result = world.command("explain", "daily")
    assert (result.exit_code, result.stdout) == (1, "")
    *table, line = result.stderr.splitlines()
    assert code_of(line) == "ambiguous-run"
    assert table[0].split()[:3] == ["ID", "FLOW", "STATE"]
    assert {row.split()[0] for row in table[1:]} <= set(ids)
    assert len(table) == 11
    assert max(map(len, table)) <= 80


def test_a_run_of_another_tenant(world: RecordedRuns) -> None:
    run_id = world.claimed()
    other = world.store.create_tenant("other", "other")
    world.tenant_id = other
    result = world.command("explain", run_id)
    world.tenant_id = None
    assert (result.exit_code, result.stdout) == (1, "")
    assert code_of(result.stderr.strip()) == "run-of-other-tenant"


def test_the_id_of_a_task_run(world: RecordedRuns) -> None:
    run_id = world.claimed()
    (task_run,) = world.store.task_runs(run_id)
    result = world.command("explain", task_run.id)
    assert code_of(result.stderr.strip()) == "no-such-run"
    assert run_id in result.stderr


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"cloud.api": "http://127.0.0.1:1"}, "prefect-api-unavailable"),
        ({"cloud.tenant_id": "mine"}, "bad-tenant-id"),
    ],
)
def test_no_prefect_api(world: RecordedRuns, config: Dict[str, Any], code: str) -> None:
    with mock.patch.object(RecordedRuns, "config", {**world.config, **config}):
        result = world.command("explain", "x")
    assert result.exit_code == 1
    assert code_of(result.stderr.strip()) == code


# -- The timeline, without servers --------------------------------------------------

START = datetime(2026, 11, 27, 3, 0, tzinfo=timezone.utc)


ARN = "arn:aws:ecs:eu-west-1:123456789012:task/prod/"


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def state(name: str, seconds: float, **record: Any) -> Dict[str, Any]:
    row: Dict[str, Any] = {"state": name, "timestamp": at(seconds).isoformat()}
    if record:
        record = dict(LaunchRecord("run-1", **record).to_context())
        row["serialized_state"] = {"context": record}
    return row


def task(name: str, *seconds: float, **more: Any) -> Dict[str, Any]:
    """A task with times of its creation, pull (2), start and stop (2)."""
    members = ("createdAt", "pullStartedAt", "pullStoppedAt", "startedAt")
    times = dict(zip([*members, "stoppingAt", "stoppedAt"], map(at, seconds)))
    return {**ran(0, **more), **times, "taskArn": f"{ARN}{name}"}


def seen(
    now: float, states: List[Any], *tasks: Any, said: Any = (), resumed: Any = ()
) -> Seen:
    row = {
        "id": "1",
        "name": "curious-otter",
        "state": states[-1]["state"],
        "created": at(-100).isoformat(),
        "scheduled_start_time": at(0).isoformat(),
        "states": [state("Scheduled", -100), *states],
        "resumed": [{"states": list(resumed)}] * 2,
        "claims": [each for each in states if each["state"] == "Submitted"],
    }
    if row["state"] not in ("Submitted", "Running"):
        row["end_time"] = states[-1]["timestamp"]
    return Seen(at(now).timestamp(), row, tasks=tasks, said=said, were_listed=True)


def phases_of(given: Seen) -> List[Any]:
    explained = account.explain(given, 10)
    assert "curious-otter" in page.page(explained)
    return [(span.phase.value, round(span.seconds, 1)) for span in explained.spans]


TIMELINES = {
    "a whole run": (
        seen(
            999,
            [
                state("Submitted", 5, attempt=1),
                state("Running", 70),
                state("Success", 90),
            ],
            task("a", 6, 16, 50, 52, 91, 95),
        ),
        [
            ("waiting for an agent", 5),
            ("waiting for AWS", 1),
            ("provisioning", 10),
            ("image pull", 34),
            ("container start", 2),
            ("start of the flow", 18),
            ("run", 20),
            ("stop of the task", 5),
        ],
    ),
    "AWS's clock is behind": (
        seen(
            999,
            [
                state("Submitted", 5, attempt=1),
                state("Running", 9),
                state("Success", 20),
            ],
            task("a", 3, 4, 6, 10, 19, 30),
        ),
        [
            ("waiting for an agent", 5),
            ("image pull", 1),
            ("container start", 4),
            ("run", 9),
            ("stop of the task", 11),
        ],
    ),
    "launched again": (
        seen(
            60,
            [
                state("Submitted", 5, attempt=1),
                state("Submitted", 35, attempt=2, after=f"{ARN}a"),
            ],
            {**task("a", 6), "stoppedAt": at(20), "startedAt": None},
            {**task("b", 36, 40), "lastStatus": "PENDING"},
        ),
        [
            ("waiting for an agent", 5),
            ("waiting for AWS", 1),
            ("provisioning", 14),
            ("without a task", 15),
            ("waiting for AWS", 1),
            ("provisioning", 4),
            ("image pull", 20),
        ],
    ),
    "ECS has forgotten the task": (
        seen(
            999,
            [
                state("Submitted", 5, attempt=1),
                state("Running", 70),
                state("Failed", 90),
            ],
            said=[
                Line(
                    at(8).timestamp(),
                    "INFO",
                    f"Submitted for execution: Task {ARN}a",
                )
            ],
        ),
        [
            ("waiting for an agent", 5),
            ("waiting for AWS", 3),
            ("start of the task", 62),
            ("run", 20),
        ],
    ),
    "interrupted, and resumed in another task": (
        seen(
            80,
            [state("Submitted", 1, attempt=1), state("Running", 9)],
            task("a", 2, 3, 4, 5, 20, 25),
            {**task("b", 42, 44, 46, 50), "lastStatus": "RUNNING"},
            resumed=[state("Submitted", 40, attempt=1, after=f"{ARN}a")],
        ),
        [
            ("waiting for an agent", 1),
            ("waiting for AWS", 1),
            ("provisioning", 1),
            ("image pull", 1),
            ("container start", 1),
            ("start of the flow", 4),
            ("run", 11),
            ("stop of the task", 5),
            ("without a task", 15),
            ("waiting for AWS", 2),
            ("provisioning", 2),
            ("image pull", 2),
            ("container start", 4),
            ("run", 30),
        ],
    ),
    "cancelled before its task has started": (
        seen(
            99,
            [state("Submitted", 1, attempt=1), state("Cancelled", 3)],
            task("a", 2, 4, 5, 6, 7, 8),
        ),
        [
            ("waiting for an agent", 1),
            ("waiting for AWS", 1),
            ("provisioning", 1),
            ("stop of the task", 1),
            ("image pull", 1),
            ("container start", 1),
            ("start of the flow", 1),
            ("stop of the task", 1),
        ],
    ),
    "failed, and started anew by a user": (
        seen(
            50,
            [
                state("Submitted", 1, attempt=1),
                state("Failed", 10),
                state("Scheduled", 40),
                state("Submitted", 42, attempt=1),
            ],
        ),
        [
            ("waiting for an agent", 1),
            ("waiting for AWS", 9),
            ("ended", 30),
            ("waiting for an agent", 2),
            ("waiting for AWS", 8),
        ],
    ),
}


def test_what_the_tasks_of_a_run_cost() -> None:
    """As an agent wrote, who may have asked AWS; else by the table of prices."""
    tasks = [
        {**task(name, 6, 16, 50, 52, 91, 376), "launchType": "FARGATE"}
        for name in ("0a", "0b")
    ]
    priced = costs.cost_of(tasks[0], lambda region: None)
    assert priced is not None
    told = dataclasses.replace(priced, dollars=2.5, source="a contract")
    line = phases.line(tasks[0], {counters.Phase.RUN: 5.0}, costs.sentence(told))
    states = [state("Submitted", 5, attempt=1), state("Success", 90)]
    given = seen(999, states, *tasks, said=[Line(at(95).timestamp(), "INFO", line)])
    explained = account.explain(given, 10)
    first, second = explained.costs
    assert (first.dollars, first.source) == (2.5, "a contract")
    assert second == costs.cost_of(tasks[1], fargate_prices.prices_of)
    assert "  cost   $2.50" in page.page(explained)
    assert "for 2 tasks" in page.page(explained)


def test_no_name_and_no_line_controls_the_terminal() -> None:
    hostile = "\x1b]0;x\x07\x1b[2J\r\x9b1A\u202e\ud800"
    states = [state("Submitted", 5, attempt=1), state("Failed", 90)]
    described = {
        **task("a", 6, 16, 50, 52, 91, 92),
        "stoppedReason": hostile,
        "taskDefinitionArn": f"{ARN}etl:1",
        "overrides": {
            "containerOverrides": [{"environment": [{"name": "X", "value": hostile}]}]
        },
    }
    line = Line(at(50).timestamp(), "INFO", f"{hostile}\n{hostile}")
    given = seen(99, states, described, said=[line])
    failed = {
        "map_index": -1,
        **dict.fromkeys(("state_message", "state"), hostile),
        **dict.fromkeys(("start_time", "end_time", "state_timestamp")),
        "task": {"name": hostile},
    }
    row = {
        **given.row,
        **dict.fromkeys(("name", "state_message"), hostile),
        "flow": {"name": hostile, "project": {"name": hostile}},
        "agent": {"name": hostile},
        "labels": [hostile],
        "task_runs": [failed, {**failed, "state": "Failed"}],
    }
    given = dataclasses.replace(given, row=row, log=[line], unseen=[hostile])
    explained = account.explain(given, 10)
    explained = dataclasses.replace(explained, links=(hostile,), log_source=hostile)
    shown = click.unstyle(page.page(explained, True))
    assert [line for line in shown.splitlines() if not line.isprintable()] == []


def test_a_run_with_little_and_with_much_to_show() -> None:
    """No message, no time, no flow; more task runs than are read; a new task."""
    failed = {
        **dict.fromkeys(("start_time", "end_time", "state_timestamp", "task")),
        **{"map_index": None, "state": "Failed", "state_message": None},
    }
    given = seen(99, [state("Submitted", 5, attempt=1), state("Failed", 90)])
    row = {**given.row, "state_message": None, "flow": None, "agent": None}
    row["task_runs"] = [failed] * 1000
    explained = account.explain(dataclasses.replace(given, row=row), 10)
    assert explained.cause
    assert explained.cause.text == "The run is Failed"
    assert explained.cause.facts[0] == "Task run 'None' is Failed"
    assert any("1000" in each for each in explained.unseen)
    assert max(map(len, page.page(explained).splitlines())) <= 80
    new = {"taskArn": f"{ARN}b", "lastStatus": "PROVISIONING"}
    assert oldest_first([new, task("a", 6)]) == [task("a", 6), new]


def test_a_secret_of_several_lines_is_masked() -> None:
    frame = [f"-----{word} RSA PRIVATE KEY-----" for word in ("BEGIN", "END")]
    printed = [frame[0], *2 * ["x4Yt" * 16], frame[1]]
    given = seen(99, [state("Submitted", 5, attempt=1), state("Failed", 90)])
    lines = [Line(at(50).timestamp(), "INFO", each) for each in printed]
    explained = account.explain(dataclasses.replace(given, log=lines), 10)
    assert len(explained.log) == 4
    assert "x4Yt" not in page.page(explained) + page.as_json(explained)


def test_a_run_of_two_days() -> None:
    given = seen(90_000, [state("Submitted", 5, attempt=1), state("Success", 86_500)])
    shown = page.page(account.explain(given, 10))
    assert "  11-27 03:00:05          1 d  waiting for AWS  <- longest" in shown
    assert "2026-11-27 03:00:00 to 2026-11-28 03:01:40 UTC" in shown


@pytest.mark.parametrize("name", TIMELINES)
def test_timeline(name: str) -> None:
    given, expected = TIMELINES[name]
    assert phases_of(given) == expected


# -- logs ---------------------------------------------------------------------------

AWSLOGS = {
    "logDriver": "awslogs",
    "options": {
        "awslogs-group": "/ecs/flows",
        "awslogs-region": "us-east-1",
        "awslogs-stream-prefix": "run",
    },
}


@pytest.fixture
def logged(world: RecordedRuns) -> Iterator[str]:
    """A run whose task logs to CloudWatch."""
    world.define(logConfiguration=AWSLOGS)
    run_id = world.claimed()
    yield run_id
    world.define()


def write(world: RecordedRuns, arn: str, *lines: str) -> None:
    logs, name = world.aws.client("logs"), f"run/flow/{arn.rpartition('/')[2]}"
    with contextlib.suppress(logs.exceptions.ResourceAlreadyExistsException):
        logs.create_log_group(logGroupName="/ecs/flows")
    with contextlib.suppress(logs.exceptions.ResourceAlreadyExistsException):
        logs.create_log_stream(logGroupName="/ecs/flows", logStreamName=name)
    now = int(time.time() * 1000)
    events = [{"timestamp": now, "message": line} for line in lines]
    logs.put_log_events(logGroupName="/ecs/flows", logStreamName=name, logEvents=events)


def test_logs_of_a_run(world: RecordedRuns, logged: str) -> None:
    arn = world.launch(logged)
    result = world.command("logs", logged)
    assert (result.exit_code, result.stdout) == (1, "")
    assert code_of(result.stderr.strip()) == "no-log-stream"
    control = "\x1b]0;x\x07\tx"
    secret = f"password={PASSWORD}"
    write(world, arn, control, *(f"line {n}" for n in range(12)), secret)
    result = world.command("logs", logged)
    assert result.exit_code == 0, result.output
    expected = ["?]0;x?\tx", *(f"line {n}" for n in range(12)), "password=***"]
    assert result.stdout.splitlines() == expected
    explained = world.command("explain", logged, "--log-lines", "2").stdout
    assert "\nLast lines of /ecs/flows in CloudWatch Logs\n" in explained
    assert "  line 11\n  password=***\n" in explained
    assert "line 10\n" not in explained
    result = world.command("logs", logged, "--container", "proxy")
    assert code_of(result.stderr.strip()) == "no-such-container"
    world.finish(arn, 0)


def test_a_secret_of_several_lines_is_masked_in_logs(
    world: RecordedRuns, logged: str
) -> None:
    arn = world.launch(logged)
    frame = [f"-----{word} RSA PRIVATE KEY-----" for word in ("BEGIN", "END")]
    write(world, arn, "before", frame[0], *2 * ["x4Yt" * 16], frame[1], "after")
    shown = world.command("logs", logged).stdout.splitlines()
    world.finish(arn, 0)
    assert shown == ["before", frame[0], "***", "***", frame[1], "after"]


def test_logs_of_a_task_that_ecs_has_forgotten(world: RecordedRuns) -> None:
    """The agent's line about the launch links to them."""
    run_id = world.claimed()
    arn = "arn:aws:ecs:us-east-1:123456789012:task/default/0123abc"
    definition = {
        "containerDefinitions": [{"name": "flow", "logConfiguration": AWSLOGS}]
    }
    url = console_links.log_url(arn, definition)
    world.say(run_id, f"Submitted for execution: Task {arn} (https://x); logs: {url}")
    write(world, arn, "the end")
    assert world.command("logs", run_id).stdout == "the end\n"
    assert "  the end\n" in world.command("explain", run_id).stdout
    result = world.command("logs", run_id, "--container", "proxy")
    assert code_of(result.stderr.strip()) == "log-not-known"


def test_logs_of_a_run_that_has_none(world: RecordedRuns) -> None:
    run_id = world.claimed()
    assert code_of(world.command("logs", run_id).stderr.strip()) == "no-task"
    arn = world.launch(run_id)
    assert code_of(world.command("logs", run_id).stderr.strip()) == "no-awslogs"
    world.finish(arn, 0)


def test_following_logs(
    world: RecordedRuns, logged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From before the first line until the task has stopped."""
    arn, pauses = world.launch(logged), []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            write(world, arn, "first", "second")
        if len(pauses) == 7:
            write(world, arn, "last")
            world.finish(arn, 0)

    monkeypatch.setattr(logs, "time", SimpleNamespace(sleep=sleep))
    result = world.command("logs", logged, "--follow")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == ["first", "second", "last"]
    assert set(pauses) == {logs.PAUSE}


def test_no_right_to_read_logs(world: RecordedRuns, logged: str) -> None:
    arn = world.launch(logged)
    write(world, arn, "a line")
    denied = Fault(error_code="AccessDeniedException", status=400)
    world.aws.fault = lambda asked, _: denied if asked.startswith("logs.") else None
    result, explained = (world.command(name, logged) for name in ("logs", "explain"))
    world.aws.fault = None
    world.finish(arn, 0)
    assert result.exit_code == 1
    assert code_of(result.stderr.strip()) == "missing-permission"
    assert "logs:GetLogEvents" in result.stderr
    assert explained.exit_code == 0
    assert "missing IAM permission logs:GetLogEvents" in " ".join(
        explained.stdout.split()
    )


# -- exec ---------------------------------------------------------------------------


@pytest.fixture
def plugin(world: RecordedRuns, monkeypatch: pytest.MonkeyPatch) -> List[List[str]]:
    """What is executed in place of the command."""
    executed: List[List[str]] = []
    path = world.home / "plugin" / "session-manager-plugin"
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    monkeypatch.setattr(os, "execv", lambda path, argv: executed.append([path, *argv]))
    return executed


def test_exec(world: RecordedRuns, plugin: List[List[str]]) -> None:
    run_id = world.claimed()
    arn = world.launch(run_id, enableExecuteCommand=True)
    task_id = arn.rpartition("/")[2]
    world.running(arn)
    folder = str(world.home / "plugin")
    result = world.command("exec", run_id, "--", "ps", "a b", PATH=folder)
    assert result.exit_code == 0, result.output
    (request,) = world.aws.sent("ExecuteCommand")
    assert request == {
        "cluster": "default",
        "task": arn,
        "container": "flow",
        "command": "ps 'a b'",
        "interactive": True,
    }
    ((path, name, session, region, kind, profile, target, endpoint),) = plugin
    assert path == name == f"{folder}/session-manager-plugin"
    assert set(json.loads(session)) == {"sessionId", "streamUrl", "tokenValue"}
    assert (region, kind, profile) == ("us-east-1", "StartSession", "")
    assert json.loads(target) == {"Target": f"ecs:default_{task_id}_{task_id}-0"}
    assert endpoint == world.aws.url
    result = world.command("exec", run_id)
    assert code_of(result.stderr.strip()) == "no-session-manager-plugin"
    broken = OSError(errno.ENOEXEC, "Exec format error")
    with mock.patch.object(os, "execv", side_effect=broken):
        result = world.command("exec", run_id, PATH=folder)
    assert result.exit_code == 1
    assert code_of(result.stderr.strip()) == "session-manager-plugin-broken"
    world.aws.calls.clear()
    denied = Fault(error_code="AccessDeniedException", status=400)
    world.aws.fault = lambda asked, _: denied if "ExecuteCommand" in asked else None
    result = world.command("exec", run_id, PATH=folder)
    world.aws.fault = None
    assert code_of(result.stderr.strip()) == "missing-permission"
    assert "ecs:ExecuteCommand" in result.stderr
    result = world.command("exec", run_id, "--container", "proxy", PATH=folder)
    assert code_of(result.stderr.strip()) == "no-such-container"
    world.finish(arn, 0)
    result = world.command("exec", run_id, PATH=folder)
    assert code_of(result.stderr.strip()) == "task-not-running"
    assert len(plugin) == 1


def test_exec_in_a_task_that_does_not_allow_it(
    world: RecordedRuns, plugin: List[List[str]]
) -> None:
    run_id = world.claimed()
    result = world.command("exec", run_id)
    assert (result.exit_code, code_of(result.stderr.strip())) == (1, "no-task")
    arn = world.launch(run_id)
    world.running(arn)
    result = world.command("exec", run_id)
    assert (result.exit_code, code_of(result.stderr.strip())) == (1, "exec-not-enabled")
    world.finish(arn, 0)
    assert plugin == []


def test_exec_in_a_task_whose_agent_for_it_has_stopped() -> None:
    described = {**task("a", 1, 2, 3, 4), "lastStatus": "RUNNING"}
    described["enableExecuteCommand"] = True
    agent = {"name": "ExecuteCommandAgent", "lastStatus": "STOPPED"}
    described["containers"][0]["managedAgents"] = [agent]
    given = seen(60, [state("Submitted", 1, attempt=1)], described)
    with raises_code("exec-agent-stopped"):
        exec_module.ready_task(given, "flow")
    agent["lastStatus"] = "RUNNING"
    assert exec_module.ready_task(given, "flow")["taskArn"] == f"{ARN}a"


# -- Permissions --------------------------------------------------------------------


def test_the_table_has_all_permissions_that_a_person_needs(
    world: RecordedRuns, logged: str, plugin: List[List[str]]
) -> None:
    arn = world.launch(logged, enableExecuteCommand=True)
    world.running(arn)
    write(world, arn, "a line")
    world.aws.calls.clear()
    for command in ("explain", "logs", "exec"):
        result = world.command(command, logged, PATH=str(world.home / "plugin"))
        assert result.exit_code == 0, result.output
    called = set(world.aws.calls)
    world.finish(arn, 0)
    assert called == {each.action.replace(":", ".") for each in permissions.PERSON}
