"""How an interrupted run goes on, as tables and as laws."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_ecs_plugin.launch_record import KEY, LaunchRecord
from prefect_ecs_plugin.monitoring.resumption import (
    Continuation,
    Edge,
    FlowTask,
    Progress,
    Refusal,
    TaskRun,
    continuation,
    read,
)

NOW = "2026-11-27T10:00:00+00:00"
RECORD = LaunchRecord("run-1-i1", interruptions=1)
STORED: Dict[str, Any] = {"type": "S3Result", "location": "a/b"}
UNSTORED: Dict[str, Any] = {"type": "Result", "location": None}
ON_DISK: Dict[str, Any] = {"type": "LocalResult", "location": "/results/a"}
NOTHING: Dict[str, Any] = {"type": "NoResultType"}
SECRET: Dict[str, Any] = {"type": "SecretResult", "location": None}
SETUP = "prefect.tasks.core.resource_manager.ResourceSetupTask"
PARAMETER = "prefect.core.parameter.Parameter"


def state(kind: str, result: Optional[Dict[str, Any]] = None, **more: Any) -> Any:
    return {"type": kind, "_result": result or NOTHING, **more}


def go_on(progress: Progress, **more: Any) -> Union[Continuation, Refusal]:
    return continuation(progress, RECORD, "Interrupted", NOW, **more)


# -- What is set ----------------------------------------------------------------------


def alone(task_run: TaskRun, max_retries: int = 0) -> Progress:
    return Progress([FlowTask("t", "load", max_retries=max_retries)], [], [task_run])


def test_a_task_run_with_retries_left_is_retried() -> None:
    running = state("Running", cached_inputs={"x": STORED}, context={"tags": ["a"]})
    found = go_on(alone(TaskRun("r", "t", version=4, state=running, retries=1), 2))
    assert found == Continuation(
        (
            {
                "task_run_id": "r",
                "version": 4,
                "state": {
                    "type": "Retrying",
                    "message": "Interrupted",
                    "start_time": NOW,
                    "run_count": 2,
                    "_result": NOTHING,
                    "cached_inputs": {"x": STORED},
                    "context": {"tags": ["a"], **RECORD.to_context()},
                },
            },
        ),
        restarts=False,
        repeated=("task 'load'",),
    )


@pytest.mark.parametrize("retries, max_retries", [(0, 0), (2, 2), (3, 2)])
def test_a_task_run_without_retries_left_is_not_repeated(
    retries: int, max_retries: int
) -> None:
    task_run = TaskRun("r", "t", 5, state=state("Running"), retries=retries)
    found = go_on(alone(task_run, max_retries))
    assert isinstance(found, Refusal)
    assert found.code == "no-retries-left"
    assert "task 'load'[5]" in found.reason


def test_it_is_repeated_if_the_run_may_repeat_it() -> None:
    progress = alone(TaskRun("r", "t", state=state("Running"), retries=2), 2)
    found = go_on(progress, may_repeat=True)
    assert isinstance(found, Continuation)
    (change,) = found.changes
    assert change["state"]["type"] == "Scheduled"
    assert change["state"]["start_time"] == NOW
    assert change["state"]["context"] == {
        "task_run_count": 3,
        **RECORD.to_context(),
    }


def test_a_task_run_that_was_claimed_is_due_again_as_it_was() -> None:
    before = state("Retrying", run_count=1, start_time="x", context={"_loop_count": 3})
    claimed = state("Submitted", state=state("Submitted", state=before))
    found = go_on(alone(TaskRun("r", "t", state=claimed)))
    assert isinstance(found, Continuation)
    (change,) = found.changes
    context = {"_loop_count": 3, **RECORD.to_context()}
    assert change["state"] == {**before, "start_time": NOW, "context": context}
    assert found.repeated == ()


def test_a_claimed_task_run_whose_state_is_damaged_is_due_again() -> None:
    found = go_on(alone(TaskRun("r", "t", state=state("Submitted"))))
    assert isinstance(found, Continuation)
    assert found.changes[0]["state"]["type"] == "Scheduled"


def test_between_two_rounds_of_a_task_it_was_at_work() -> None:
    assert isinstance(go_on(alone(TaskRun("r", "t", state=state("Looped")))), Refusal)
    found = go_on(alone(TaskRun("r", "t", state=state("Looped")), 1))
    assert isinstance(found, Continuation)
    assert found.changes[0]["state"]["type"] == "Retrying"


@pytest.mark.parametrize("kind", ["Success", "Pending", "Failed", "Mapped", "Cached"])
def test_where_no_task_run_was_at_work_the_flow_run_starts_again(kind: str) -> None:
    assert go_on(alone(TaskRun("r", "t", state=state(kind)))) == Continuation(
        restarts=True
    )


@pytest.mark.parametrize("kind", ["Scheduled", "Retrying", "Resume", "Paused"])
def test_where_one_only_waits_prefect_queues_the_run(kind: str) -> None:
    assert go_on(alone(TaskRun("r", "t", state=state(kind)))) == Continuation()


# -- Results that would be missing ----------------------------------------------------


def pair(
    before: Any,
    after: Any = None,
    kind: str = "",
    takes_data: bool = True,
    needs_success: bool = True,
    keeps_disk: bool = True,
) -> Progress:
    """A task that has ended, and one that comes after it."""
    return Progress(
        [
            FlowTask("a", "extract", kind),
            FlowTask("b", "load", max_retries=1, needs_success=needs_success),
        ],
        [Edge("a", "b", takes_data)],
        [
            TaskRun("ra", "a", state=before),
            TaskRun("rb", "b", state=after or state("Running")),
        ],
        keeps_disk,
    )


@pytest.mark.parametrize(
    "progress, is_safe",
    [
        (pair(state("Success", STORED)), True),
        (pair(state("Success", UNSTORED)), False),
        (pair(state("Cached", UNSTORED)), False),
        (pair(state("Success", {**STORED, "location": None})), False),
        (pair(state("Success", {"type": "CustomResult", "location": None})), False),
        # Nothing was to be stored: the task after it gets None in any case.
        (pair(state("Success", NOTHING)), True),
        (pair(state("Skipped", NOTHING)), True),
        (pair(state("Skipped", UNSTORED)), False),
        # No data, or the task after it has ended.
        (pair(state("Success", UNSTORED), takes_data=False), True),
        (pair(state("Success", UNSTORED), state("Success", UNSTORED)), True),
        (pair(state("Success", UNSTORED), state("Skipped")), True),
        # It has not begun.
        (pair(state("Success", UNSTORED), state("Pending")), False),
        # Prefect's runner compares the inputs of a cached one again.
        (pair(state("Success", UNSTORED), state("Cached", STORED)), False),
        # Its own result was not stored, but it runs again.
        (pair(state("Running"), state("Pending")), False),  # it has no retries left
        (pair(state("Pending"), state("Pending")), True),
        # Parameters are always stored, unless they are None.
        (pair(state("Success", UNSTORED), kind=PARAMETER), True),
        # Prefect's runner reads secrets and sets up resources again.
        (pair(state("Success", SECRET)), True),
        (pair(state("Success", UNSTORED), kind=SETUP), True),
        # After a failure, a task that needs success does not run.
        (pair(state("Failed", UNSTORED)), True),
        (pair(state("Failed", UNSTORED), needs_success=False), False),
        (pair(state("TimedOut", UNSTORED), needs_success=False), False),
        (pair(state("TriggerFailed", NOTHING), needs_success=False), True),
        # The disk of the container is gone; the runner reads the file for any edge.
        (pair(state("Success", ON_DISK)), True),
        (pair(state("Success", ON_DISK), keeps_disk=False), False),
        (pair(state("Success", ON_DISK), keeps_disk=False, takes_data=False), False),
        (pair(state("Success", STORED), keeps_disk=False), True),
    ],
)
def test_guarantee_9_no_task_computes_on_a_result_that_was_not_stored(
    progress: Progress, is_safe: bool
) -> None:
    found = go_on(progress)
    assert isinstance(found, Continuation) == is_safe
    if isinstance(found, Refusal) and found.code != "no-retries-left":
        assert found.code == "result-not-stored"
        assert "task 'load' needs the result of task 'extract'" in found.reason


def test_a_resource_that_is_set_up_again_needs_its_manager() -> None:
    progress = Progress(
        [FlowTask("a", "init"), FlowTask("b", "setup", SETUP)],
        [Edge("a", "b")],
        [
            TaskRun("ra", "a", state=state("Success", UNSTORED)),
            TaskRun("rb", "b", state=state("Success", UNSTORED)),
        ],
    )
    assert isinstance(go_on(progress), Refusal)


def mapped(task_id: str, children: Sequence[Any], width: int) -> List[TaskRun]:
    parent = TaskRun(task_id, task_id, state=state("Mapped", n_map_states=width))
    return [
        parent,
        *(
            TaskRun(f"{task_id}{index}", task_id, index, state=each)
            for index, each in enumerate(children)
        ),
    ]


DONE, LOST = state("Success", STORED), state("Success", UNSTORED)


@pytest.mark.parametrize(
    "before, after, is_safe",
    [
        # A list is mapped over.
        ([TaskRun("ra", "a", state=DONE)], mapped("b", [DONE], 2), True),
        ([TaskRun("ra", "a", state=LOST)], mapped("b", [DONE], 2), False),
        ([TaskRun("ra", "a", state=LOST)], mapped("b", [LOST, LOST], 2), True),
        (
            [TaskRun("ra", "a", state=LOST)],
            mapped("b", [DONE, state("Running")], 2),
            False,
        ),
        # A mapped task is reduced; some of its children have not ended.
        (mapped("a", [DONE, DONE], 2), [], True),
        (mapped("a", [DONE, state("Running")], 3), [], True),
        (mapped("a", [DONE, LOST], 2), [], False),
        (mapped("a", [LOST, state("Running")], 3), [], False),
        (mapped("a", [], 3), [], True),
        # A mapped task is mapped over.
        (mapped("a", [DONE, LOST], 2), mapped("b", [DONE, LOST], 2), True),
        (mapped("a", [DONE, LOST], 2), mapped("b", [DONE], 2), False),
    ],
)
def test_guarantee_9_holds_for_mapped_tasks(
    before: List[TaskRun], after: List[TaskRun], is_safe: bool
) -> None:
    progress = Progress(
        [FlowTask("a", max_retries=1), FlowTask("b", max_retries=1)],
        [Edge("a", "b")],
        [*before, *after],
    )
    assert isinstance(go_on(progress), Continuation) == is_safe


# -- Laws -----------------------------------------------------------------------------

KINDS = [
    *("Running", "Looped", "Submitted", "Pending", "Retrying", "Scheduled", "Paused"),
    *("Success", "Cached", "Skipped", "Failed", "TriggerFailed", "Cancelled"),
]
RESULTS = [STORED, UNSTORED, NOTHING, ON_DISK, SECRET]

names = st.sampled_from(["a", "b", "c", "d"])
task_runs = st.builds(
    TaskRun,
    id=st.uuids().map(str),
    task_id=names,
    map_index=st.sampled_from([-1, -1, 0, 1]),
    state=st.builds(state, st.sampled_from(KINDS), st.sampled_from(RESULTS)),
    retries=st.integers(0, 3),
)
progresses = st.builds(
    Progress,
    st.integers(0, 3).map(
        lambda retries: [FlowTask(name, name, "", retries) for name in "abcd"]
    ),
    st.lists(st.builds(Edge, names, names, st.booleans()), max_size=6),
    st.lists(task_runs, max_size=8),
    st.booleans(),
)


@given(progresses, st.booleans())
def test_what_has_ended_is_never_touched(progress: Progress, may_repeat: bool) -> None:
    found = go_on(progress, may_repeat=may_repeat)
    if isinstance(found, Refusal):
        assert not found.reason.endswith(".")
        return
    by_id = {each.id: each for each in progress.task_runs}
    changed = [by_id[change["task_run_id"]] for change in found.changes]
    assert all(each.kind in ("Running", "Looped", "Submitted") for each in changed)
    left = [each for each in progress.task_runs if each not in changed]
    assert not any(each.kind in ("Running", "Looped", "Submitted") for each in left)
    for change in found.changes:
        assert change["state"]["start_time"] == NOW
        assert change["state"]["context"][KEY]["interruptions"] == 1
    assert not (found.restarts and found.changes)


@given(progresses, st.booleans())
def test_a_run_that_goes_on_comes_back_to_the_queue(
    progress: Progress, may_repeat: bool
) -> None:
    found = go_on(progress, may_repeat=may_repeat)
    if isinstance(found, Continuation):
        waiting = {"Scheduled", "Retrying", "Paused"}
        waits = any(each.kind in waiting for each in progress.task_runs)
        assert found.changes or found.restarts or waits


@given(progresses)
def test_guarantee_9_whatever_the_flow_looks_like(progress: Progress) -> None:
    if isinstance(go_on(progress, may_repeat=True), Refusal):
        return
    waits = {"Scheduled", "Retrying", "Paused"}
    kinds = {each.kind for each in progress.task_runs}
    if kinds & waits and not kinds & {"Running", "Looped", "Submitted"}:
        return  # the agent sets nothing
    ended = {"Success", "Cached", "Skipped", "Failed", "TriggerFailed", "Cancelled"}
    for edge in progress.edges:
        before, after = (
            [each for each in progress.task_runs if each.task_id == end]
            for end in (edge.upstream, edge.downstream)
        )
        is_open = any(each.kind not in ended for each in after) or not after
        for each in before:
            whole = [other for other in before if other.map_index == -1]
            runs_again = not any(other.kind in ended for other in whole)
            is_lost = each.state["_result"] == UNSTORED and each.kind in (
                "Success",
                "Cached",
            )
            assert not (is_open and edge.takes_data and is_lost and not runs_again), (
                edge,
                each,
            )


def test_rows_of_the_api() -> None:
    task = {
        "id": "a",
        "name": "extract",
        "slug": "extract-1",
        "type": PARAMETER,
        "max_retries": 2,
        "trigger": {"fn": "prefect.triggers.all_successful", "kwargs": {}},
    }
    sparse = {"id": "b", "name": None, "slug": "b-1", "trigger": None}
    edge = {"upstream_task_id": "a", "downstream_task_id": "b", "key": "x"}
    run = {
        "id": "r",
        "task_id": "a",
        "map_index": None,
        "version": 3,
        "serialized_state": DONE,
        "states": [{"id": "1"}, {"id": "2"}],
    }
    bare = {"id": "s", "task_id": "b", "map_index": 0, "serialized_state": None}
    assert read([task, sparse], [edge, {**edge, "key": None}], [run, bare], False) == (
        Progress(
            [
                FlowTask("a", "extract", PARAMETER, 2, True),
                FlowTask("b", "b-1", "", 0, False),
            ],
            [Edge("a", "b", True), Edge("a", "b", False)],
            [TaskRun("r", "a", -1, 3, DONE, 2), TaskRun("s", "b", 0, 0, {}, 0)],
            False,
        )
    )
