"""When tasks have taken too long, as tables and on a simulated clock."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Any, Dict, Iterator, List, Optional

import pytest
from stopped_tasks import never_ran, ran
from test_watcher import World, arns

from prefect_ecs_plugin.launch_record import Launch
from prefect_ecs_plugin.monitoring.deadlines import (
    Deadlines,
    phase,
    was_ended_by_stop,
)
from prefect_ecs_plugin.monitoring.decision import (
    Run,
    Verdict,
    decide,
    stop_reason,
)
from prefect_ecs_plugin.monitoring.poll_queue import PollQueue, Watched

NEVER = float("inf")

#: When simulations begin, in seconds since 1970.
EPOCH = 1_790_000_000.0


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def described(status: str, **more: Any) -> Dict[str, Any]:
    """A task that is not stopped; created at 1000, and started at 1100 if it has."""
    times = {"createdAt": at(1000)}
    if status == "RUNNING":
        times["startedAt"] = at(1100)
    return {
        "lastStatus": status,
        "containers": [{"name": "flow", "lastStatus": "PENDING"}],
        **times,
        **more,
    }


def with_runtime(value: Any, container: str = "flow") -> Dict[str, Any]:
    entry = {"name": "PREFECT_ECS_MAX_RUNTIME", "value": value}
    override = {"name": container, "environment": [{"name": "A", "value": "1"}, entry]}
    return {"overrides": {"containerOverrides": [{"name": "proxy"}, override]}}


# -- When it is due ----------------------------------------------------------------


@pytest.mark.parametrize(
    "task, start, max_runtime, expected",
    [
        (described("PROVISIONING"), 1800, 0, 2800),
        (described("PENDING"), 60, 0, 1060),
        (described("ACTIVATING"), 60, 0, 1060),
        (described("PENDING"), 0, 60, NEVER),
        (described("RUNNING"), 60, 0, NEVER),
        (described("RUNNING"), 60, 7, 1107),
        (described("DEACTIVATING"), 60, 7, NEVER),
        (described("STOPPING"), 60, 7, NEVER),
        (described("STOPPED"), 60, 7, NEVER),
        ({"lastStatus": "PENDING"}, 60, 7, NEVER),
        ({"lastStatus": "RUNNING"}, 60, 7, NEVER),
        ({}, 60, 7, NEVER),
        # The task's own environment has precedence over the agent's option.
        (described("RUNNING", **with_runtime("5")), 60, 0, 1105),
        (described("RUNNING", **with_runtime("2.5")), 60, 7, 1102.5),
        (described("RUNNING", **with_runtime("0")), 60, 7, NEVER),
        (described("RUNNING", **with_runtime("soon")), 60, 7, 1107),
        (described("RUNNING", **with_runtime("-1")), 60, 7, 1107),
        (described("RUNNING", **with_runtime("nan")), 60, 7, 1107),
        (described("RUNNING", **with_runtime("5", "proxy")), 60, 7, 1107),
        (described("RUNNING", overrides={}), 60, 7, 1107),
    ],
)
def test_when_a_task_is_to_be_stopped(
    task: Dict[str, Any], start: float, max_runtime: float, expected: float
) -> None:
    assert Deadlines(start, max_runtime).of(task) == expected


PULLING: Dict[str, Any] = {"pullStartedAt": at(1010)}
PULLED: Dict[str, Any] = {**PULLING, "pullStoppedAt": at(1020)}


@pytest.mark.parametrize(
    "status, times, words, code",
    [
        (
            "PROVISIONING",
            {},
            "it is PROVISIONING, and no image pull has begun",
            "stuck-provisioning",
        ),
        (
            "PENDING",
            {},
            "it is PENDING, and no image pull has begun",
            "stuck-pending",
        ),
        (
            "PENDING",
            PULLING,
            "it is PENDING, and its image pull has not ended",
            "stuck-pulling",
        ),
        (
            "PENDING",
            PULLED,
            "it is PENDING, and its image has been pulled",
            "stuck-starting",
        ),
        (
            "ACTIVATING",
            PULLED,
            "it is ACTIVATING, and its image has been pulled",
            "stuck-starting",
        ),
    ],
)
def test_the_phase_that_a_task_hangs_in(
    status: str, times: Dict[str, Any], words: str, code: str
) -> None:
    task = described(status, **times)
    reason = Deadlines(1800).reason_to_stop(task)
    assert phase(task) == words
    assert len(reason) <= 255  # what ECS accepts
    # ECS gives the reason back; the run is launched again, as often as is allowed.
    stopped = never_ran(reason, "UserInitiated")
    assert stop_reason(stopped).code == code
    first = decide(stopped, Run("Submitted"), Launch(1), limit=2)
    last = decide(stopped, Run("Submitted"), Launch(2), limit=2)
    assert (first.verdict, last.verdict) == (Verdict.RELAUNCH, Verdict.FAIL)
    resumed = decide(stopped, Run("Running"), Launch(1, resumed=True))
    assert resumed.verdict is Verdict.RELAUNCH


def test_a_task_whose_flow_may_have_begun_is_not_stopped() -> None:
    """One with sidecars is PENDING while its containers start one after the other."""
    containers = [{"name": "flow", "runtimeId": "1", "lastStatus": "RUNNING"}]
    task = described("PENDING", containers=containers)
    assert Deadlines(60).reason_to_stop(task) == ""


def test_a_task_that_started_after_all_fails_its_run() -> None:
    reason = Deadlines(60).reason_to_stop(described("PENDING"))
    task = ran(143, reason, "UserInitiated")
    decided = decide(task, Run("Running"), confirmed=True)
    assert decided.verdict is Verdict.FAIL
    assert decided.stop_reason.code == "stuck-pending"


# -- A task that ran for too long --------------------------------------------------

RAN_TOO_LONG = {
    **ran(143, Deadlines(0, 7).reason_to_stop(described("RUNNING")), "UserInitiated"),
    "stoppingAt": at(1107),
}


def row(state: str, since: Optional[float], message: str = "") -> Dict[str, Any]:
    return {
        "state": state,
        "state_timestamp": None if since is None else at(since).isoformat(),
        "serialized_state": {"type": state, "message": message},
    }


@pytest.mark.parametrize(
    "task, run, expected",
    [
        (RAN_TOO_LONG, row("Cancelled", 1108), True),
        (RAN_TOO_LONG, row("Failed", 1108), True),
        # The flow's own state, set before the stop.
        (RAN_TOO_LONG, row("Cancelled", 1106), False),
        (RAN_TOO_LONG, row("Failed", 1106), False),
        (RAN_TOO_LONG, row("Success", 1108), False),
        (RAN_TOO_LONG, row("Scheduled", 1108), False),
        (RAN_TOO_LONG, row("Running", 1108), False),
        # Another process of the agent has done it already.
        (RAN_TOO_LONG, row("Failed", 1108, "Too long [max-runtime]"), False),
        (RAN_TOO_LONG, row("Cancelled", None), False),
        ({**RAN_TOO_LONG, "stoppingAt": None}, row("Failed", 1108), False),
        (ran(143, "Task stopped by user", "UserInitiated"), row("Failed", 1), False),
        (None, row("Failed", 1108), False),
        (RAN_TOO_LONG, {"state": "gone"}, False),
    ],
)
def test_which_runs_ended_only_because_of_the_stop(
    task: Any, run: Dict[str, Any], expected: bool
) -> None:
    assert was_ended_by_stop(task, run) is expected


@pytest.mark.parametrize(
    "run, verdict",
    [
        (Run("Running"), Verdict.FAIL),
        (Run("Submitted"), Verdict.FAIL),
        # Its retry would start the run again.
        (Run("Running", waits=True), Verdict.FAIL),
        (Run("Cancelled", was_ended_by_stop=True), Verdict.FAIL),
        (Run("Failed", was_ended_by_stop=True), Verdict.FAIL),
        (Run("Cancelled"), Verdict.LEAVE),
        (Run("Success"), Verdict.LEAVE),
        (Run("Running", taken_over=True), Verdict.LEAVE),
        (Run("Failed", taken_over=True, was_ended_by_stop=True), Verdict.LEAVE),
        (Run("Cancelling"), Verdict.CANCEL),
    ],
)
def test_what_a_task_that_ran_for_too_long_means(run: Run, verdict: Verdict) -> None:
    decided = decide(RAN_TOO_LONG, run, confirmed=True)
    assert (decided.verdict, decided.stop_reason.code) == (verdict, "max-runtime")


# -- The queue -------------------------------------------------------------------------


@pytest.mark.parametrize("sooner, due", [(None, 130.0), (110.0, 110.0)])
def test_a_task_is_looked_at_when_its_deadline_passes(
    sooner: Optional[float], due: float
) -> None:
    queue = PollQueue()
    watched = Watched("arn:aws:ecs:eu:1:task/a/1", "a", "run", Launch())
    watched.last_status = "RUNNING"
    queue.add(watched, 0.0)
    deadlines = {} if sooner is None else {watched.task_arn: sooner}
    queue.put_back(queue.take(40.0, 100), 100.0, {"other": 105.0, **deadlines})
    assert watched.due == due


@pytest.fixture
def overdue() -> List[str]:
    return []


@pytest.fixture
def world(overdue: List[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    deadlines = Deadlines(start=60.0, max_runtime=100.0)
    with World(
        deadlines=deadlines,
        on_overdue=lambda watched, reason: overdue.append(watched.task_arn),
    ) as world:
        monkeypatch.setattr(time, "time", lambda: EPOCH + world.now)
        yield world


def test_a_task_that_does_not_start_is_noticed_at_once(
    world: World, overdue: List[str]
) -> None:
    (arn,) = arns(1)
    world.ecs.more[arn] = {"createdAt": time.time()}
    world.add([arn], "PENDING")
    world.run_until(59.5)
    assert overdue == []
    world.run_until(60.5)
    assert overdue == [arn]


def test_a_task_that_runs_for_too_long_is_noticed_at_once(
    world: World, overdue: List[str]
) -> None:
    (arn,) = arns(1)
    world.ecs.more[arn] = {"createdAt": time.time(), "startedAt": time.time() + 20}
    world.add([arn], "RUNNING")
    world.run_until(119.5)
    assert overdue == []
    world.run_until(120.5)
    assert overdue == [arn]
    # Each look says it again, without more looks than of another task.
    looks = len(world.ecs.calls)
    world.run_until(240.0)
    assert len(world.ecs.calls) - looks <= 5
    assert len(overdue) > 2


def test_deadlines_hold_for_tasks_that_are_found(
    world: World, overdue: List[str]
) -> None:
    """As after a restart of the agent: they are counted from the task's own times."""
    stuck, long, young = arns(3)
    world.ecs.more = {
        stuck: {"createdAt": time.time() - 1000},
        long: {"createdAt": time.time() - 1000, "startedAt": time.time() - 900},
        young: {"createdAt": time.time() - 1000, "startedAt": time.time()},
    }
    world.add([stuck], "PENDING")
    world.add([long, young], "RUNNING")
    world.run_until(6.0)
    assert sorted(overdue) == sorted([stuck, long])


def test_a_task_that_has_started_in_time_is_left_alone(
    world: World, overdue: List[str]
) -> None:
    (arn,) = arns(1)
    world.ecs.more[arn] = {"createdAt": time.time()}
    world.add([arn], "PENDING")
    world.run_until(50.0)
    world.ecs.more[arn]["startedAt"] = time.time()
    world.ecs.status[arn] = "RUNNING"
    world.run_until(140.0)
    assert overdue == []
