"""The launch record in a run's states decides which launch holds the run."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Dict, List, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_ecs_plugin.launch_record import (
    KEY,
    MAX_NAME,
    LaunchRecord,
    Standing,
    is_damaged,
    latest_claim,
    launch_of,
    read,
    standing,
)

RECORD = LaunchRecord(
    name="11111111-2222-3333-4444-555555555555-7",
    attempt=2,
    cluster="prod",
    region="eu-west-1",
    definition="etl:3",
    holder="process-1",
    agent_id="agent-1",
    after="arn:aws:ecs:eu-west-1:1:task/prod/1",
    time="2026-11-26T12:00:00+00:00",
)
THEIRS = replace(RECORD, holder="process-2")


def submitted(record: Optional[LaunchRecord]) -> Dict[str, Any]:
    context = dict(record.to_context()) if record else {}
    return {"type": "Submitted", "context": context}


# -- Writing and reading -----------------------------------------------------------


def test_a_record_is_plain_json() -> None:
    assert RECORD.to_context() == {
        "prefect_ecs_launch": {
            "format": 1,
            "name": "11111111-2222-3333-4444-555555555555-7",
            "attempt": 2,
            "cluster": "prod",
            "region": "eu-west-1",
            "definition": "etl:3",
            "holder": "process-1",
            "agent_id": "agent-1",
            "after": "arn:aws:ecs:eu-west-1:1:task/prod/1",
            "time": "2026-11-26T12:00:00+00:00",
            "recoveries": 0,
            "interruptions": 0,
            "on_demand": False,
            "memory": 0,
            "cpu": 0,
            "task_cpu": 0,
            "capacity": "",
        }
    }


texts = st.text(max_size=40)


@given(
    st.builds(
        LaunchRecord,
        name=st.text(min_size=1, max_size=MAX_NAME),
        attempt=st.integers(1, 1000),
        cluster=texts,
        region=texts,
        definition=st.none() | texts,
        holder=texts,
        agent_id=st.none() | texts,
        after=st.none() | texts,
        time=texts,
    )
)
def test_what_was_written_is_read_back(record: LaunchRecord) -> None:
    assert read(json.loads(json.dumps(submitted(record)))) == record


def changed(**values: Any) -> Dict[str, Any]:
    return {"context": {KEY: {**RECORD.to_context()[KEY], **values}}}


@pytest.mark.parametrize(
    "state",
    [
        changed(format=2),
        changed(format="1"),
        changed(name=""),
        changed(name="x" * (MAX_NAME + 1)),
        changed(name=None),
        changed(name=["x"]),
        changed(attempt=0),
        changed(attempt="2"),
        changed(attempt=True),
        changed(cluster=None),
        changed(holder=7),
        changed(agent_id={}),
        {"context": {KEY: None}},
        {"context": {KEY: "text"}},
        {"context": {KEY: []}},
        {"context": {KEY: {}}},
        {"context": {KEY: {"format": 1}}},
    ],
)
def test_a_damaged_record_counts_as_absent(state: Any) -> None:
    assert read(state) is None
    assert is_damaged(state)


@pytest.mark.parametrize("state", [None, {}, {"context": None}, {"context": {}}, []])
def test_a_state_without_a_record_is_not_damaged(state: Any) -> None:
    assert read(state) is None
    assert not is_damaged(state)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.fixed_dictionaries({}, optional={"context": json_values}) | json_values)
def test_no_state_makes_reading_raise(state: Any) -> None:
    read(state)


@given(st.sampled_from(sorted(RECORD.to_context()[KEY])), json_values)
def test_no_value_in_a_record_makes_reading_raise(key: str, value: Any) -> None:
    read(changed(**{key: value}))


def test_what_a_later_version_of_this_format_adds_is_ignored() -> None:
    assert read(changed(something_new=1)) == RECORD


# -- The name of a launch ----------------------------------------------------------


def due(*versions: int, context: Any = None) -> List[Dict[str, Any]]:
    return [
        {
            "id": f"task-{number}",
            "version": version,
            "serialized_state": {"type": "Retrying", "context": context or {}},
        }
        for number, version in enumerate(versions)
    ]


def test_guarantee_1_a_launch_is_named_after_the_run_in_its_state() -> None:
    run_id = "11111111-2222-3333-4444-555555555555"
    scheduled = {"id": run_id, "version": 7, "state": "Scheduled"}
    running = {**scheduled, "state": "Running"}
    rows: List[Dict[str, Any]] = [
        scheduled,
        {**scheduled, "version": 8},
        {**running, "task_runs": due(2)},
        {**running, "task_runs": due(4)},
        {**running, "task_runs": due(4, 2)},
    ]
    names = [launch_of(row).name for row in rows]
    assert len(set(names)) == len(names)
    assert names[:2] == [f"{run_id}-7", f"{run_id}-8"]
    assert all(len(name) <= MAX_NAME for name in names)
    assert launch_of({**rows[4], "task_runs": due(4, 2)[::-1]}) == launch_of(rows[4])


def test_what_interruptions_have_changed_stays_with_the_run() -> None:
    kept = {"interruptions": 2, "on_demand": True, "memory": 4096, "cpu": 512}
    latest = replace(RECORD, **kept)
    returned = {"serialized_state": {"context": latest.to_context()}}
    retried = {"id": "run", "version": 3, "state": "Running", "task_runs": due(4)}
    for launch in (launch_of(returned), launch_of(retried, latest)):
        assert launch.carried() == kept
    assert launch_of(retried).carried() == launch_of(retried, RECORD).carried()
    anew = {"id": "run", "version": 9, "state": "Scheduled"}
    assert launch_of(anew) == LaunchRecord("run-9")


def test_a_run_that_was_returned_keeps_its_launch() -> None:
    context = dict(RECORD.to_context())
    row: Dict[str, Any] = {"id": "r", "version": 9, "state": "Scheduled"}
    returned = {**row, "serialized_state": {"type": "Scheduled", "context": context}}
    kept = LaunchRecord(RECORD.name, attempt=2, after=RECORD.after)
    assert launch_of(returned) == kept
    resumed = {**row, "state": "Running", "task_runs": due(3, context=context)}
    assert launch_of(resumed) == kept


# -- Which launch holds a run -----------------------------------------------------

SCHEDULED = {"id": "r", "state": "Scheduled", "version": 6}
RESUMED = {"id": "r", "state": "Running", "version": 9, "task_runs": due(2)}


def now(state: str, version: int, **more: Any) -> Dict[str, Any]:
    return {
        "id": "r",
        "state": state,
        "version": version,
        "agent_id": "agent-1",
        "serialized_state": {"type": state},
        "state_timestamp": "2026-11-26T12:00:05+00:00",
        "states": [],
        "claimed": [],
        "resumed": [],
        **more,
    }


def claimed(record: Optional[LaunchRecord], version: int = 7, **more: Any) -> Any:
    return now("Submitted", version, serialized_state=submitted(record), **more)


def earlier(record: Optional[LaunchRecord], at: str = "12:00:01.5") -> Any:
    state = submitted(record)
    return [{"serialized_state": state, "timestamp": f"2026-11-26T{at}+00:00"}]


def task_claim(
    record: Optional[LaunchRecord], state: str = "Submitted", at: str = "12:00:09"
) -> Any:
    """The fields of a run of which a task run was claimed."""
    is_claimed = state == "Submitted"
    return {
        "claimed": [{"id": "task-0", "version": 3}] if is_claimed else [],
        "resumed": [{"states": earlier(record, at)}],
    }


@pytest.mark.parametrize(
    "seen, row, expected",
    [
        # The first launch of a run.
        (SCHEDULED, None, Standing.LOST),
        (SCHEDULED, now("Scheduled", 6), Standing.UNCHANGED),
        (SCHEDULED, now("Scheduled", 8), Standing.LOST),
        (SCHEDULED, now("Cancelled", 7), Standing.LOST),
        (SCHEDULED, claimed(RECORD), Standing.HELD),
        (SCHEDULED, claimed(THEIRS), Standing.LOST),
        (SCHEDULED, claimed(replace(RECORD, attempt=3)), Standing.LOST),
        (SCHEDULED, claimed(replace(RECORD, name="another")), Standing.LOST),
        # The server sets the agent's id last: the record is enough.
        (SCHEDULED, claimed(RECORD, agent_id=None), Standing.HELD),
        (SCHEDULED, claimed(RECORD, agent_id="agent-2"), Standing.HELD),
        # Its flow has begun; rescheduled since; claimed anew.
        (SCHEDULED, now("Running", 8, states=earlier(RECORD)), Standing.HELD),
        (SCHEDULED, now("Running", 8, states=earlier(THEIRS)), Standing.LOST),
        (SCHEDULED, now("Scheduled", 8, states=earlier(RECORD)), Standing.LOST),
        (SCHEDULED, now("Success", 9, states=earlier(RECORD)), Standing.LOST),
        # An API that drops the context.
        (SCHEDULED, claimed(None), Standing.HELD),
        (SCHEDULED, claimed(None, agent_id=None), Standing.UNCLEAR),
        (SCHEDULED, claimed(None, agent_id="agent-2"), Standing.UNCLEAR),
        (SCHEDULED, claimed(None, version=8), Standing.LOST),
        # A run that comes back for a task retry.
        (RESUMED, now("Running", 9), Standing.UNCHANGED),
        (RESUMED, now("Running", 9, states=earlier(THEIRS)), Standing.UNCHANGED),
        (RESUMED, now("Running", 10), Standing.LOST),
        (RESUMED, now("Running", 9, **task_claim(RECORD)), Standing.HELD),
        (RESUMED, now("Running", 9, **task_claim(THEIRS)), Standing.LOST),
        (
            RESUMED,
            now("Running", 9, agent_id="agent-2", **task_claim(RECORD)),
            Standing.HELD,
        ),
        (RESUMED, now("Cancelling", 10, **task_claim(RECORD)), Standing.HELD),
        (
            RESUMED,
            now("Running", 9, **task_claim(THEIRS, "Success", "11:00:00")),
            Standing.UNCHANGED,
        ),
        (RESUMED, now("Running", 9, **task_claim(None)), Standing.HELD),
        (
            RESUMED,
            now("Running", 9, agent_id="agent-2", **task_claim(None)),
            Standing.HELD,
        ),
        # The flow run was claimed anew after its task runs were: it was restarted.
        (
            SCHEDULED,
            claimed(RECORD, **task_claim(THEIRS, "Failed", "11:00:00")),
            Standing.HELD,
        ),
        # A resumed run that was claimed before, and is claimed again.
        (
            {**RESUMED, "task_runs": due(3)},
            now("Running", 9, **task_claim(THEIRS)),
            Standing.UNCHANGED,
        ),
        (
            {**RESUMED, "task_runs": due(3)},
            now("Running", 9, **task_claim(RECORD)),
            Standing.HELD,
        ),
        # A relaunch: Submitted before and after.
        (claimed(RECORD), claimed(replace(RECORD, attempt=1)), Standing.UNCHANGED),
    ],
)
def test_version_state_and_holder_decide(
    seen: Any, row: Any, expected: Standing
) -> None:
    assert standing(seen, row, RECORD) is expected


def test_the_latest_claim_counts_with_times_in_any_format() -> None:
    row = now(
        "Running",
        9,
        states=earlier(RECORD, "12:00:09"),
        **task_claim(THEIRS, "Success", "12:00:09.5"),
    )
    claim = latest_claim(row)
    assert claim
    assert claim.record == THEIRS
    assert claim.resumed


def test_a_run_that_was_never_claimed_has_no_claim() -> None:
    assert latest_claim(now("Scheduled", 1)) is None
