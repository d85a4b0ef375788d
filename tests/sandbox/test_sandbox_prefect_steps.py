"""States of the sandbox's Prefect API that are stored in several steps, and several in
one mutation, as the server does it."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Dict, Iterator, List, Tuple

import pytest
from deadlines import DEADLINE
from prefect.engine.state import Retrying, Running, Scheduled, State, Submitted
from sandbox_prefect import Clock, Raw, new_flow, state_refused, state_set

from prefect_ecs_plugin.sandbox.prefect_api import (
    HEARTBEAT,
    STATE,
    PrefectAPI,
    Refused,
    StateChanged,
    StepDone,
    StepHold,
    Store,
)

SUBMITTED = "State update failed: this run has already been submitted."


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


@pytest.fixture
def raw(threads: ThreadPoolExecutor) -> Iterator[Raw]:
    with PrefectAPI() as api:  # stops first, which ends what the threads wait for
        yield Raw(api)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> Store:
    return Store(clock=clock)


def new_run(raw: Raw) -> str:
    return raw.api.store.create_flow_run(new_flow(raw.api.store))


def seen_by_others(raw: Raw, run_id: str) -> Dict[str, Any]:
    """The row as another client sees it, with the version of its last state."""
    status, body = raw.ask(
        "query($id: uuid!){flow_run_by_pk(id: $id)"
        "{state version heartbeat agent_id"
        " states(order_by: {version: desc}, limit: 1){version}}}",
        id=run_id,
    )
    assert status == 200, body
    row: Dict[str, Any] = body["data"]["flow_run_by_pk"]
    row["heartbeat"] = row["heartbeat"] is not None
    row["states"] = row["states"][0]["version"]
    return row


@pytest.mark.parametrize("after, has_heartbeat", [(STATE, False), (HEARTBEAT, True)])
def test_other_requests_see_the_row_between_the_steps(
    raw: Raw, threads: ThreadPoolExecutor, after: str, has_heartbeat: bool
) -> None:
    run_id, agent_id = new_run(raw), raw.register_agent()
    submitted = {"state": "Submitted", "version": 2, "states": 2}
    with StepHold(after) as hold:
        raw.api.store.between_steps = hold
        answer = threads.submit(raw.set_state, run_id, {"type": "Submitted"}, agent_id)
        assert hold.wait() == run_id
        assert hold.held == [run_id]
        between = seen_by_others(raw, run_id)
        # The hidden retry of a client whose answer is late.
        refused = raw.set_state(run_id, {"type": "Submitted"}, agent_id)
    assert answer.result(timeout=DEADLINE) == state_set(run_id)
    assert between == {**submitted, "heartbeat": has_heartbeat, "agent_id": None}
    assert refused == state_refused(SUBMITTED)
    after_all = seen_by_others(raw, run_id)
    assert after_all == {**submitted, "heartbeat": True, "agent_id": agent_id}
    assert hold.held == []


def test_a_hold_holds_one_state_only(raw: Raw) -> None:
    run_id = new_run(raw)
    raw.api.store.between_steps = hold = StepHold()
    assert raw.set_state(run_id, {"type": "Running"}) == state_set(run_id)
    with pytest.raises(TimeoutError, match="no flow run was held"):
        hold.wait(0.01)


@pytest.mark.parametrize(
    "state, steps",
    [
        ("Submitted", [STATE, HEARTBEAT]),
        ("Running", [STATE]),
        ("Scheduled", []),
        ("Success", []),
    ],
)
def test_steps_of_each_state(store: Store, state: str, steps: List[str]) -> None:
    run_id = store.create_flow_run(new_flow(store))
    agent_id = store.register_agent("ECSAgent")
    done: List[StepDone] = []
    store.between_steps = done.append
    store.set_flow_run_state(run_id, {"type": state}, agent_id)
    assert done == [StepDone(run_id, state, step) for step in steps]


def test_the_gap_is_between_the_steps(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [store.create_flow_run(new_flow(store)) for _ in range(2)]
    agent_id = store.register_agent("ECSAgent")
    seen: List[Any] = []

    def sleep(seconds: float) -> None:
        rows = [store.flow_run(run_id) for run_id in runs]
        seen.append(
            (seconds, [(run.state, bool(run.heartbeat), run.agent_id) for run in rows])
        )

    monkeypatch.setattr("time.sleep", sleep)
    store.step_gap = 2.5
    submitted: Dict[str, Any] = {"type": "Submitted"}
    store.set_flow_run_states(
        [{"flow_run_id": run_id, "state": submitted} for run_id in runs], agent_id
    )
    assert seen == [
        (2.5, [("Submitted", False, None)] * 2),
        (2.5, [("Submitted", True, None)] * 2),
    ]


def test_in_a_transaction_of_the_callers_no_one_is_called(store: Store) -> None:
    run_id = store.create_flow_run(new_flow(store))
    store.between_steps = StepHold()
    with store.transaction():
        store.set_flow_run_state(run_id, {"type": "Submitted"})
    assert store.flow_run(run_id).heartbeat is not None


def test_subscribers_hear_of_a_state_when_it_is_stored(
    store: Store, threads: ThreadPoolExecutor
) -> None:
    run_id = store.create_flow_run(new_flow(store))
    agent_id = store.register_agent("ECSAgent")
    heard: List[Any] = []
    store.subscribe(heard.append)
    with StepHold() as hold:
        store.between_steps = hold
        submitting: Future[None] = threads.submit(
            store.set_flow_run_state, run_id, {"type": "Submitted"}, agent_id
        )
        hold.wait()
        store.set_flow_run_state(run_id, {"type": "Running"})
    submitting.result(timeout=DEADLINE)
    states = [(each.state, each.agent_id) for each in heard]
    assert states == [("Submitted", agent_id), ("Running", None)]
    assert all(isinstance(each, StateChanged) for each in heard)


def test_agent_id_is_set_by_submitted_only(store: Store, clock: Clock) -> None:
    run_id = store.create_flow_run(new_flow(store))
    first, second = (store.register_agent("ECSAgent", name=name) for name in "ab")
    seen = []
    for state, agent_id in (
        ("Running", first),
        ("Submitted", first),
        ("Running", second),
        ("Scheduled", second),
        ("Submitted", "no agent's"),
        ("Submitted", None),
        ("Submitted", second),
    ):
        clock.advance(minutes=1)
        store.set_flow_run_state(run_id, {"type": state}, agent_id)
        seen.append(store.flow_run(run_id).agent_id)
    assert seen == [None, first, first, first, first, first, second]


def test_a_task_runs_submitted_leaves_the_flow_runs_agent(store: Store) -> None:
    run_id = store.create_flow_run(new_flow(store))
    agent_id = store.register_agent("ECSAgent")
    store.set_flow_run_state(run_id, {"type": "Submitted"}, agent_id)
    store.set_flow_run_state(run_id, {"type": "Running"})
    (task_run,) = store.task_runs(run_id)
    store.set_task_run_states(
        [{"task_run_id": task_run.id, "state": {"type": "Submitted"}}]
    )
    run = store.flow_run(run_id)
    assert (run.state, run.agent_id) == ("Running", agent_id)


# ------------------------------------------------ several states in one mutation


def task_changes(store: Store, *states: str) -> Tuple[str, List[Any]]:
    """A Running run with a task for each state, and the changes to those."""
    tasks = [{"name": slug, "slug": slug} for slug in map(str, range(len(states)))]
    run_id = store.create_flow_run(new_flow(store, tasks=tasks))
    store.set_flow_run_state(run_id, {"type": "Running"})
    return run_id, [
        {"task_run_id": task_run.id, "state": {"type": state}}
        for task_run, state in zip(store.task_runs(run_id), states)
    ]


def test_several_flow_runs_with_one_refused(raw: Raw) -> None:
    """The answer is the refusal, but all others are stored, the later ones too."""
    runs = [new_run(raw) for _ in range(3)]
    raw.set_state(runs[1], {"type": "Submitted"})
    states = [{"flow_run_id": each, "state": {"type": "Submitted"}} for each in runs]
    status, body = raw.ask(
        "mutation($i:set_flow_run_states_input!)"
        "{set_flow_run_states(input:$i){states{id status message}}}",
        i={"states": states},
    )
    assert (status, body) == state_refused(SUBMITTED)
    seen = [(run.state, run.version) for run in map(raw.api.store.flow_run, runs)]
    assert seen == [("Submitted", 2)] * 3


def test_several_states_of_one_run_are_stored_in_order(store: Store) -> None:
    run_id = store.create_flow_run(new_flow(store))
    names = ["Submitted", "Running", "Failed"]
    states = [{"flow_run_id": run_id, "state": {"type": name}} for name in names]
    store.set_flow_run_states(states)
    assert [state.state for state in store.states(run_id)[-3:]] == names


def test_several_task_runs_with_one_refused(store: Store) -> None:
    run_id, changes = task_changes(store, "Submitted", "Bogus", "Submitted")
    with pytest.raises(Refused, match="Unsupported value: Bogus"):
        store.set_task_run_states(changes)
    states = [task_run.state for task_run in store.task_runs(run_id)]
    assert states == ["Submitted", "Pending", "Submitted"]


def test_several_task_runs(raw: Raw) -> None:
    run_id, changes = task_changes(raw.api.store, "Submitted", "Running", "Success")
    status, body = raw.ask(
        "mutation($i:set_task_run_states_input!)"
        "{set_task_run_states(input:$i){states{id status message}}}",
        i={"states": changes},
    )
    done = [
        {"id": change["task_run_id"], "status": "SUCCESS", "message": None}
        for change in changes
    ]
    assert (status, body) == (200, {"data": {"set_task_run_states": {"states": done}}})
    states = [task_run.state for task_run in raw.api.store.task_runs(run_id)]
    assert states == ["Submitted", "Running", "Success"]


@pytest.mark.parametrize("flow_state", ["Submitted", "Cancelling", "Cancelled"])
@pytest.mark.parametrize("task_state", ["Running", "Cancelling"])
def test_a_task_run_runs_in_a_running_flow_run_only(
    store: Store, flow_state: str, task_state: str
) -> None:
    run_id, changes = task_changes(store, task_state)
    store.set_flow_run_state(run_id, {"type": flow_state})
    with pytest.raises(Refused) as refused:
        store.set_task_run_states(changes)
    assert str(refused.value) == (
        f"State update failed for task run ID {changes[0]['task_run_id']}: provided a "
        f"running state but associated flow run {run_id} is not in a running state."
    )


def test_cached_inputs_are_carried_forward(store: Store) -> None:
    run_id, _ = task_changes(store, "Retrying")
    (task_run,) = store.task_runs(run_id)
    inputs = {"x": {"type": "NoResultType"}}
    for state in (
        {"type": "Retrying", "cached_inputs": inputs},
        {"type": "Submitted"},
        {"type": "Running", "cached_inputs": None},
    ):
        store.set_task_run_states([{"task_run_id": task_run.id, "state": state}])
        (now,) = store.task_runs(run_id)
        assert now.serialized_state["cached_inputs"] == inputs


# ------------------------------------------------ cancelling


@pytest.mark.parametrize("how", ["cancel_flow_run", "set_flow_run_states"])
def test_a_cancelled_run_cancels_its_unfinished_task_runs(
    store: Store, how: str
) -> None:
    before = ["Pending", "Retrying", "Submitted", "Running", "Success", "Failed"]
    run_id, changes = task_changes(store, *before)
    store.set_task_run_states(changes)
    store.set_flow_run_state(run_id, {"type": "Scheduled"})
    if how == "cancel_flow_run":
        assert store.cancel_flow_run(run_id) == {"state": "Cancelled"}
    else:
        store.set_flow_run_state(run_id, {"type": "Cancelled"})
    after = [task_run.state for task_run in store.task_runs(run_id)]
    assert after == ["Cancelled"] * 4 + ["Success", "Failed"]
    assert store.flow_run(run_id).state == "Cancelled"


def test_a_cancelling_run_leaves_its_task_runs(store: Store) -> None:
    run_id, changes = task_changes(store, "Running")
    store.set_task_run_states(changes)
    assert store.cancel_flow_run(run_id) == {"state": "Cancelling"}
    assert store.task_runs(run_id)[0].state == "Running"


def test_a_cancelled_state_that_is_refused_cancels_nothing(store: Store) -> None:
    run_id, _ = task_changes(store, "Running")
    with pytest.raises(Refused):
        store.set_flow_run_state(run_id, {"type": "Cancelled", "message": 1})
    assert store.task_runs(run_id)[0].state == "Pending"


def test_a_held_run_holds_up_no_other_request(
    raw: Raw, threads: ThreadPoolExecutor
) -> None:
    held, other = new_run(raw), new_run(raw)
    with StepHold() as hold:
        raw.api.store.between_steps = hold
        answer = threads.submit(raw.set_state, held, {"type": "Submitted"})
        hold.wait()
        assert raw.set_state(other, {"type": "Running"}) == state_set(other)
        cancelled = raw.cancel(held)[1]["data"]["cancel_flow_run"]
        assert cancelled == {"state": "Cancelled"}
    assert answer.result(timeout=DEADLINE) == state_set(held)
    assert raw.api.store.flow_run(held).state == "Cancelled"


# ------------------------------------------------ an API that drops the context


@pytest.mark.parametrize("keeps", [True, False])
def test_an_api_may_drop_the_context(keeps: bool) -> None:
    context = {"launch": "l-1"}
    state = Submitted(state=Scheduled(context=context), context=context).serialize()
    with PrefectAPI(keeps_context=keeps) as api:
        run_id = api.store.create_flow_run(new_flow(api.store))
        Raw(api).set_state(run_id, state)
        kept = api.store.flow_run(run_id).serialized_state
        last = api.store.states(run_id)[-1].serialized_state
    assert kept == last
    assert kept.get("context") == kept["state"].get("context")
    assert kept.get("context") == (context if keeps else None)
    loaded = State.deserialize(dict(kept))
    assert loaded.context == (context if keeps else {})
    assert loaded.state.is_scheduled()


@pytest.mark.parametrize("state", [Retrying(), Running()])
def test_the_context_of_task_runs_is_dropped_too(store: Store, state: State) -> None:
    run_id, _ = task_changes(store, "Pending")
    store.keeps_context = False
    (task_run,) = store.task_runs(run_id)
    state.context = {"launch": "l-1"}
    store.set_task_run_states(
        [{"task_run_id": task_run.id, "state": state.serialize()}]
    )
    (now,) = store.task_runs(run_id)
    assert "context" not in now.serialized_state
    assert State.deserialize(dict(now.serialized_state)).context == {}
