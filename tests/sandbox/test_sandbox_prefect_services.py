"""Lazarus and the zombie killer of the sandbox's Prefect API, on a moved clock."""

from __future__ import annotations

import datetime
from typing import Any, Dict, List

import pytest
from sandbox_prefect import NOON, Clock, new_flow

from prefect_ecs_plugin.sandbox.prefect_api import Store
from prefect_ecs_plugin.sandbox.prefect_api.states import ALL

TEN_MINUTES = datetime.timedelta(minutes=10)
JUST_UNDER = {"minutes": 9, "seconds": 59}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> Store:
    return Store(clock=clock)


def set_task(store: Store, run_id: str, **state: Any) -> str:
    """Sets the state of the run's only task run, and returns that one's id."""
    (task_run,) = store.task_runs(run_id)
    store.set_task_run_states([{"task_run_id": task_run.id, "state": state}])
    return task_run.id


def task_with(store: Store, **columns: Any) -> str:
    """A flow whose task has these columns; returns the flow's id."""
    flow_id = new_flow(store)
    (task,) = store.tables["task"].having("flow_id", [flow_id])
    store.update("task", task, **columns)
    return flow_id


def switch_off(store: Store, flow_id: str, setting: str) -> None:
    group = store.row("flow_group", store.row("flow", flow_id)["flow_group_id"])
    store.update("flow_group", group, settings={**group["settings"], setting: False})


# ------------------------------------------------ heartbeats


def test_a_flow_runs_heartbeat_is_not_its_task_runs(store: Store, clock: Clock) -> None:
    run_id = store.create_flow_run(new_flow(store))
    store.set_flow_run_state(run_id, {"type": "Running"})
    task_run_id = set_task(store, run_id, type="Running")
    clock.advance(seconds=1)
    store.update_flow_run_heartbeat(run_id)
    beats = store.flow_run(run_id).heartbeat, store.task_runs(run_id)[0].heartbeat
    assert beats == (clock.now, NOON)
    clock.advance(seconds=1)
    store.update_task_run_heartbeat(task_run_id)
    assert store.task_runs(run_id)[0].heartbeat == clock.now


def test_a_heartbeat_of_no_run_is_no_error(store: Store) -> None:
    store.update_flow_run_heartbeat("0" * 32)
    store.update_task_run_heartbeat("0" * 32)


# ------------------------------------------------ Lazarus


@pytest.mark.parametrize("state", ["Submitted", "Running"])
def test_lazarus_schedules_a_run_with_an_old_heartbeat(
    store: Store, clock: Clock, state: str
) -> None:
    run_id = store.create_flow_run(new_flow(store))
    clock.advance(hours=1)
    store.set_flow_run_state(run_id, {"type": state})
    clock.advance(**JUST_UNDER)
    assert store.run_lazarus() == []
    clock.advance(seconds=1)
    assert store.run_lazarus() == [run_id]
    run = store.flow_run(run_id)
    assert (run.state, run.state_start_time) == ("Scheduled", clock.now)
    assert store.get_runs_in_queue() == {"flow_run_ids": [run_id]}


def test_lazarus_can_be_called_before_its_time(store: Store, clock: Clock) -> None:
    """A test in real time passes a later time; the run is due now all the same."""
    run_id = store.create_flow_run(new_flow(store))
    store.set_flow_run_state(run_id, {"type": "Submitted"})
    assert store.run_lazarus(clock.now + TEN_MINUTES) == [run_id]
    assert store.get_runs_in_queue() == {"flow_run_ids": [run_id]}


def test_lazarus_tries_ten_times_then_fails(store: Store, clock: Clock) -> None:
    run_id = store.create_flow_run(new_flow(store))
    seen = []
    for _ in range(11):
        store.set_flow_run_state(run_id, {"type": "Submitted"})
        clock.advance(minutes=10)
        assert store.run_lazarus() == [run_id]
        run = store.flow_run(run_id)
        seen.append((run.state, run.times_resurrected))
    assert seen == [("Scheduled", n) for n in range(1, 11)] + [("Failed", 10)]


KEPT_FROM_LAZARUS = {
    *("Scheduled", "Paused", "Resume", "Retrying"),
    *("Running", "Cancelling"),
}


@pytest.mark.parametrize("task_state", sorted(ALL))
def test_lazarus_looks_at_task_runs(
    store: Store, clock: Clock, task_state: str
) -> None:
    """Submitted and Queued task runs do not count as alive."""
    run_id = store.create_flow_run(new_flow(store))
    store.set_flow_run_state(run_id, {"type": "Running"})
    set_task(store, run_id, type=task_state)
    clock.advance(minutes=10)
    is_left = task_state in KEPT_FROM_LAZARUS
    assert store.run_lazarus() == ([] if is_left else [run_id])


@pytest.mark.parametrize("state", ["Scheduled", "Cancelling", "Success"])
def test_lazarus_leaves_other_runs_alone(
    store: Store, clock: Clock, state: str
) -> None:
    run_id = store.create_flow_run(new_flow(store))
    for name in ("Running", state):
        store.set_flow_run_state(run_id, {"type": name})
    clock.advance(hours=1)
    assert store.run_lazarus() == []


@pytest.mark.parametrize("setting", ["lazarus_enabled", "heartbeat_enabled"])
def test_lazarus_can_be_switched_off(store: Store, clock: Clock, setting: str) -> None:
    flow_id = new_flow(store)
    switch_off(store, flow_id, setting)
    run_id = store.create_flow_run(flow_id)
    store.set_flow_run_state(run_id, {"type": "Submitted"})
    clock.advance(hours=1)
    assert store.run_lazarus() == []


def test_heartbeats_keep_lazarus_away(store: Store, clock: Clock) -> None:
    run_id = store.create_flow_run(new_flow(store))
    store.set_flow_run_state(run_id, {"type": "Submitted"})
    clock.advance(minutes=9)
    store.update_flow_run_heartbeat(run_id)
    assert store.run_lazarus(clock.advance(minutes=9)) == []


# ------------------------------------------------ the zombie killer


def test_zombie_killer_counts_retrying_states(store: Store, clock: Clock) -> None:
    flow_id = task_with(store, max_retries=2, retry_delay=60)
    run_id = store.create_flow_run(flow_id)
    seen = []
    for _ in range(3):
        store.set_flow_run_state(run_id, {"type": "Running"})
        task_run_id = set_task(store, run_id, type="Running")
        clock.advance(**JUST_UNDER)
        assert store.run_zombie_killer() == []
        clock.advance(seconds=1)
        assert store.run_zombie_killer() == [task_run_id]
        (now,) = store.task_runs(run_id)
        due = now.state_start_time and now.state_start_time - clock.now
        seen.append((now.state, due, now.serialized_state.get("run_count")))
    minute = datetime.timedelta(minutes=1)
    assert seen == [
        ("Retrying", minute, 1),
        ("Retrying", minute, 2),
        ("Failed", None, None),
    ]


def test_zombie_killer_without_retry_delay_retries_now(
    store: Store, clock: Clock
) -> None:
    run_id = store.create_flow_run(task_with(store, max_retries=1, retry_delay=None))
    store.set_flow_run_state(run_id, {"type": "Running"})
    set_task(store, run_id, type="Running")
    clock.advance(minutes=10)
    store.run_zombie_killer()
    assert store.get_runs_in_queue() == {"flow_run_ids": [run_id]}


@pytest.mark.parametrize("beating", ["flow run", "task run"])
def test_zombie_killer_looks_at_the_flow_runs_heartbeat(
    store: Store, clock: Clock, beating: str
) -> None:
    run_id = store.create_flow_run(new_flow(store))
    store.set_flow_run_state(run_id, {"type": "Running"})
    task_run_id = set_task(store, run_id, type="Running")
    clock.advance(minutes=10)
    if beating == "flow run":
        store.update_flow_run_heartbeat(run_id)
    else:
        store.update_task_run_heartbeat(task_run_id)
    killed = store.run_zombie_killer()
    assert killed == ([] if beating == "flow run" else [task_run_id])


@pytest.mark.parametrize("state", ["Scheduled", "Cancelling", "Failed"])
def test_zombie_killer_retries_only_while_the_run_is_running(
    store: Store, clock: Clock, state: str
) -> None:
    run_id = store.create_flow_run(task_with(store, max_retries=5))
    store.set_flow_run_state(run_id, {"type": "Running"})
    task_run_id = set_task(store, run_id, type="Running")
    store.set_flow_run_state(run_id, {"type": state})
    clock.advance(minutes=10)
    assert store.run_zombie_killer()[0] == task_run_id
    assert store.task_runs(run_id)[0].state == "Failed"


def test_zombie_killer_fails_runs_that_are_cancelling(
    store: Store, clock: Clock
) -> None:
    flow_id = new_flow(store)
    cancelling, alive, running = (store.create_flow_run(flow_id) for _ in range(3))
    for run_id in (cancelling, alive, running):
        store.set_flow_run_state(run_id, {"type": "Running"})
    for run_id in (cancelling, alive):
        store.cancel_flow_run(run_id)
    clock.advance(minutes=10)
    store.update_flow_run_heartbeat(alive)
    assert store.run_zombie_killer() == [cancelling]
    states = [store.flow_run(each).state for each in (cancelling, alive, running)]
    assert states == ["Failed", "Cancelling", "Running"]


def test_zombie_killer_can_be_switched_off(store: Store, clock: Clock) -> None:
    flow_id = new_flow(store)
    switch_off(store, flow_id, "heartbeat_enabled")
    seen: Dict[str, List[str]] = {}
    for state in ("Running", "Cancelling"):
        run_id = store.create_flow_run(flow_id)
        store.set_flow_run_state(run_id, {"type": "Running"})
        set_task(store, run_id, type="Running")
        store.set_flow_run_state(run_id, {"type": state})
        clock.advance(minutes=10)
        seen[state] = store.run_zombie_killer()
    assert seen == {"Running": [], "Cancelling": []}
