"""The rules of the sandbox's Prefect API: the queue, conditions, states, services."""

from __future__ import annotations

import datetime
import inspect
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import pytest
from hypothesis import given, settings, strategies
from prefect.engine import state as prefect_states
from sandbox_prefect import NOON, Clock, new_flow, plain_flow

from prefect_ecs_plugin.sandbox.prefect_api import Refused, Store, states
from prefect_ecs_plugin.sandbox.prefect_api.filters import matches, select
from prefect_ecs_plugin.sandbox.prefect_api.times import iso, moment


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> Store:
    return Store(clock=clock)


# ------------------------------------------------ the queue


def test_queue_fetches_75_and_gives_25(store: Store, clock: Clock) -> None:
    flow_id = new_flow(store)
    others = [store.create_flow_run(flow_id, labels=["x"]) for _ in range(60)]
    mine = [store.create_flow_run(flow_id, labels=["y"]) for _ in range(30)]
    assert store.get_runs_in_queue(labels=["y"]) == {"flow_run_ids": mine[:15]}
    assert store.get_runs_in_queue(labels=["x"]) == {"flow_run_ids": others[:25]}
    # A run that an agent holds but has not marked Submitted still takes a place.
    assert store.get_runs_in_queue(labels=["x"]) == {"flow_run_ids": others[:25]}


def test_queue_looks_as_far_ahead_as_it_is_told(store: Store, clock: Clock) -> None:
    flow_id = new_flow(store)
    start = clock.now + datetime.timedelta(seconds=10)
    run_id = store.create_flow_run(flow_id, scheduled_start_time=start)
    queue = store.get_runs_in_queue
    assert queue(before=iso(clock.now))["flow_run_ids"] == []
    assert queue(before=iso(start))["flow_run_ids"] == [run_id]


def test_a_running_run_with_a_due_retry_comes_back(store: Store, clock: Clock) -> None:
    run_id = store.create_flow_run(new_flow(store))
    (task_run,) = store.task_runs(run_id)
    due = clock.now + datetime.timedelta(seconds=5)
    store.set_flow_run_state(run_id, {"type": "Running"})
    retrying = {"type": "Retrying", "start_time": due.isoformat()}
    store.set_task_run_states([{"task_run_id": task_run.id, "state": retrying}])
    assert store.get_runs_in_queue()["flow_run_ids"] == []
    before = iso(due)
    assert store.get_runs_in_queue(before=before)["flow_run_ids"] == [run_id]
    store.set_flow_run_state(run_id, {"type": "Cancelling"})
    assert store.get_runs_in_queue(before=before)["flow_run_ids"] == []
    store.set_flow_run_state(run_id, {"type": "Running"})
    submitted = {"type": "Submitted"}
    store.set_task_run_states([{"task_run_id": task_run.id, "state": submitted}])
    assert store.get_runs_in_queue(before=before)["flow_run_ids"] == []


LABELS = strategies.lists(strategies.sampled_from("abc"), unique=True, max_size=3)


@settings(max_examples=50, deadline=None)
@given(
    runs=strategies.lists(
        strategies.tuples(strategies.integers(-50, 20), LABELS, strategies.booleans()),
        max_size=120,
    ),
    agent_labels=LABELS,
)
def test_law_of_the_queue(
    runs: List[Tuple[int, List[str], bool]], agent_labels: List[str]
) -> None:
    """What an agent is given, written down without any index."""
    store = Store(clock=Clock())
    flow_id = new_flow(store)
    waiting = []
    for offset, labels, submitted in runs:
        start = NOON + datetime.timedelta(seconds=offset)
        run_id = store.create_flow_run(
            flow_id, labels=labels, scheduled_start_time=start
        )
        if submitted:
            store.set_flow_run_state(run_id, {"type": "Submitted"})
        elif offset <= 0:
            waiting.append((start, len(waiting), run_id, labels))
    expected = [
        run_id
        for _, _, run_id, labels in sorted(waiting)[:75]
        if set(labels) <= set(agent_labels) and bool(labels) == bool(agent_labels)
    ][:25]
    assert store.get_runs_in_queue(labels=agent_labels)["flow_run_ids"] == expected


def test_asking_for_runs_is_an_agents_sign_of_life(store: Store, clock: Clock) -> None:
    agent_id = store.register_agent("ECSAgent", name="a")
    assert [agent.last_queried for agent in store.agents()] == [None]
    store.get_runs_in_queue(agent_id=agent_id)
    assert [agent.last_queried for agent in store.agents()] == [clock.now]


# ------------------------------------------------ where, order_by, limit


class Farm(NamedTuple):
    """Three runs of two flows, named one, two and three."""

    store: Store
    ids: Dict[str, str]

    def names(self, where: Dict[str, Any], **more: Any) -> List[str]:
        found = select(self.store.tables, "flow_run", where=where, **more)
        return [row["name"] for row in found]


@pytest.fixture(scope="module")
def farm() -> Farm:
    clock = Clock()
    store = Store(clock=clock)
    flows = {
        name: store.create_flow(
            store.create_project(name), plain_flow(name=f"{name}-flow")
        )
        for name in ("oats", "rye")
    }
    ids = {}
    for name, flow in (("one", "oats"), ("two", "oats"), ("three", "rye")):
        clock.advance(seconds=1)
        ids[name] = store.create_flow_run(
            flows[flow], flow_run_name=name, labels=[name, flow]
        )
    store.set_flow_run_state(ids["two"], {"type": "Running"}, agent_id="a")
    clock.advance(seconds=1)
    store.set_flow_run_state(ids["three"], {"type": "Running"})
    return Farm(store, ids)


@pytest.mark.parametrize(
    "where, names",
    [
        ({}, "one two three"),
        ({"name": {"_eq": "one"}}, "one"),
        ({"name": {"_eq": None}}, "one two three"),
        ({"name": None}, "one two three"),
        ({"name": {"_neq": "one"}}, "two three"),
        ({"name": {"_in": ["one", "three", "four"]}}, "one three"),
        ({"name": {"_in": []}}, ""),
        ({"name": {"_nin": ["one"]}}, "two three"),
        ({"name": {"_lt": "three"}}, "one"),
        ({"name": {"_gte": "three"}}, "two three"),
        ({"version": {"_gt": 1}}, "two three"),
        ({"version": {"_lte": 1}}, "one"),
        ({"auto_scheduled": {"_eq": False}}, "one two three"),
        ({"start_time": {"_is_null": True}}, "one"),
        ({"start_time": {"_is_null": False}}, "two three"),
        # A comparison with a null column is neither true nor false.
        ({"start_time": {"_gt": ""}}, "two three"),
        ({"_not": {"start_time": {"_gt": ""}}}, ""),
        ({"_not": {"state": {"_eq": "Running"}}}, "one"),
        (
            {"_or": [{"start_time": {"_gt": ""}}, {"name": {"_eq": "one"}}]},
            "one two three",
        ),
        ({"_or": []}, ""),
        ({"_and": []}, "one two three"),
        ({"_and": [{"name": {"_gt": "one"}}, {"version": {"_eq": 2}}]}, "two three"),
        ({"_and": [{"name": {"_eq": "two"}}, {}]}, "two"),
        ({"labels": {"_eq": ["one", "oats"]}}, "one"),
        ({"flow": {"name": {"_eq": "rye-flow"}}}, "three"),
        ({"flow": {"project": {"name": {"_eq": "oats"}}}}, "one two"),
        ({"flow": {"project": {"name": {"_eq": None}}}}, "one two three"),
        ({"task_runs": {"state": {"_eq": "Pending"}}}, "one two three"),
        ({"task_runs": {"state_start_time": {"_lte": "2999"}}}, ""),
        ({"states": {"state": {"_eq": "Running"}}}, "two three"),
        ({"state": {"_eq": "Running"}, "name": {"_eq": "three"}}, "three"),
    ],
)
def test_where(farm: Farm, where: Dict[str, Any], names: str) -> None:
    found = farm.names(where, order_by=[{"created": "asc"}])
    assert found == names.split()


@pytest.mark.parametrize(
    "more, names",
    [
        ({"order_by": [{"name": "asc"}]}, "one three two"),
        ({"order_by": [{"name": "desc"}]}, "two three one"),
        ({"order_by": [{"start_time": "asc"}]}, "two three one"),
        ({"order_by": [{"start_time": "desc"}]}, "one three two"),
        ({"order_by": [{"version": "desc"}, {"name": "asc"}]}, "three two one"),
        ({"order_by": [{"version": "desc", "name": "desc"}]}, "two three one"),
        ({"order_by": [{"name": "asc"}], "limit": 2}, "one three"),
        ({"order_by": [{"name": "asc"}], "offset": 1}, "three two"),
        ({"order_by": [{"name": "asc"}], "offset": 1, "limit": 1}, "three"),
        ({"order_by": [{"name": "asc"}], "limit": 0}, ""),
        ({"order_by": [{"name": "asc"}], "distinct_on": ["version"]}, "one three"),
    ],
)
def test_order(farm: Farm, more: Dict[str, Any], names: str) -> None:
    assert farm.names({}, **more) == names.split()


def test_lookups_by_an_index_leave_the_order_of_keys_open(farm: Farm) -> None:
    both = {"id": {"_in": list(farm.ids.values())}, "state": {"_eq": "Running"}}
    assert sorted(farm.names(both)) == ["three", "two"]


NAMES = strategies.sampled_from(["one", "two", "three", "four", None])
COMPARISONS = strategies.dictionaries(
    strategies.sampled_from(["_eq", "_neq", "_lt", "_gte"]), NAMES, max_size=2
)
COLUMN = strategies.sampled_from(["name", "state", "agent_id", "start_time"])
CONDITIONS = strategies.recursive(
    strategies.dictionaries(COLUMN, COMPARISONS, max_size=2),
    lambda inner: strategies.one_of(
        strategies.fixed_dictionaries({"_not": inner}),
        strategies.fixed_dictionaries({"_and": strategies.lists(inner, max_size=3)}),
        strategies.fixed_dictionaries({"_or": strategies.lists(inner, max_size=3)}),
    ),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(where=CONDITIONS)
def test_law_an_index_finds_what_a_walk_over_all_rows_finds(
    farm: Farm, where: Dict[str, Any]
) -> None:
    rows = list(farm.store.tables["flow_run"])
    walked = farm.names(where, rows=rows)
    assert sorted(farm.names(where)) == sorted(walked)


@settings(max_examples=100, deadline=None)
@given(where=CONDITIONS)
def test_law_no_row_meets_a_condition_and_its_negation(
    farm: Farm, where: Dict[str, Any]
) -> None:
    tables = farm.store.tables
    for row in tables["flow_run"]:
        yes = matches(tables, "flow_run", row, where)
        no = matches(tables, "flow_run", row, {"_not": where})
        assert (yes, no) in {(True, False), (False, True), (None, None)}


@pytest.mark.parametrize(
    "written, text",
    [
        ("2026-11-22T16:09:33.806663+00:00", "2026-11-22T16:09:33.806663+00:00"),
        ("2026-11-22T16:09:33Z", "2026-11-22T16:09:33.000000+00:00"),
        ("2026-11-22T17:09:33.8+01:00", "2026-11-22T16:09:33.800000+00:00"),
        ("2026-11-22 16:09:33.123456789", "2026-11-22T16:09:33.123456+00:00"),
        ("2026-11-22", "2026-11-22T00:00:00.000000+00:00"),
        (NOON, "2026-11-22T12:00:00.000000+00:00"),
    ],
)
def test_times_are_written_alike(written: Any, text: str) -> None:
    assert iso(written) == text
    assert iso(moment(text)) == text


# ------------------------------------------------ states


STATES = [
    getattr(prefect_states, name)(message="why")
    for name in sorted(states.ALL)
    if name not in {"Mapped"}
] + [prefect_states.Mapped(map_states=[prefect_states.Success()])]


@pytest.mark.parametrize("state", STATES, ids=lambda state: type(state).__name__)
def test_every_state_of_prefect_is_kept_and_read_back(store: Store, state: Any) -> None:
    run_id = store.create_flow_run(new_flow(store))
    store.set_flow_run_state(run_id, state.serialize())
    kept = store.flow_run(run_id)
    assert kept.state == type(state).__name__
    loaded = prefect_states.State.deserialize(dict(kept.serialized_state))
    if state.is_mapped():  # its children's states are rows of their own
        assert loaded.n_map_states == 1
    else:
        assert (loaded, loaded.message) == (state, "why")


@pytest.mark.parametrize("state", STATES, ids=lambda state: type(state).__name__)
def test_states_are_what_prefect_says_they_are(state: Any) -> None:
    name = type(state).__name__
    assert (name in states.FINISHED) == state.is_finished()
    assert (name in states.RUNNING) == state.is_running()
    assert (name in states.SCHEDULED) == state.is_scheduled()
    assert (name in states.SUCCESSFUL) == state.is_successful()
    assert (name in states.FAILED) == state.is_failed()
    assert (name in states.META) == state.is_meta_state()


def test_no_state_is_missing() -> None:
    known = {
        name
        for name, each in vars(prefect_states).items()
        if inspect.isclass(each) and issubclass(each, prefect_states.State)
    }
    assert known - {"State", "_MetaState"} == states.ALL


def test_a_state_without_result_can_be_read_by_a_client(store: Store) -> None:
    run_id = store.create_flow_run(new_flow(store))
    store.set_flow_run_state(run_id, {"type": "Failed", "_result": None})
    kept = store.flow_run(run_id).serialized_state
    assert kept["_result"]["type"] == "NoResultType"
    assert prefect_states.State.deserialize(dict(kept)).is_failed()


def test_submitted_lock_ends_after_30_s(store: Store, clock: Clock) -> None:
    run_id = store.create_flow_run(new_flow(store))
    store.set_flow_run_state(run_id, {"type": "Submitted"})
    clock.advance(seconds=29.9)
    with pytest.raises(Refused, match="already been submitted"):
        store.set_flow_run_state(run_id, {"type": "Submitted"})
    clock.advance(seconds=0.1)
    store.set_flow_run_state(run_id, {"type": "Submitted"})
    assert store.flow_run(run_id).version == 3


@pytest.mark.parametrize(
    "state, message",
    [
        (None, "{'_schema': ['Invalid input type.']}"),
        ({"type": "Running", "message": 1}, "{'message': ['Not a valid string.']}"),
        (
            {"type": "Scheduled", "start_time": "soon"},
            "{'start_time': ['Not a valid datetime.']}",
        ),
        (
            {"type": "Scheduled", "start_time": 1},
            "{'start_time': ['Not a valid datetime.']}",
        ),
        (
            {"type": "Submitted", "state": {"type": "Bogus"}},
            "{'type': ['Unsupported value: Bogus']}",
        ),
    ],
)
def test_a_state_that_is_none(store: Store, state: Any, message: str) -> None:
    run_id = store.create_flow_run(new_flow(store))
    with pytest.raises(Refused) as refused:
        store.set_flow_run_state(run_id, state)
    assert str(refused.value) == message
    assert store.flow_run(run_id).version == 1


def test_times_of_a_run(store: Store, clock: Clock) -> None:
    run_id = store.create_flow_run(new_flow(store))
    seen = []
    for name in ("Submitted", "Running", "Running", "Success", "Running"):
        now = clock.advance(seconds=1)
        store.set_flow_run_state(run_id, {"type": name})
        run = store.flow_run(run_id)
        seen.append((run.heartbeat == now, run.start_time, run.end_time))
    second, fourth = NOON + datetime.timedelta(seconds=2), clock.now
    fourth -= datetime.timedelta(seconds=1)
    assert seen == [
        (True, None, None),
        (True, second, None),
        (True, second, None),
        (False, second, fourth),
        (True, second, None),
    ]


# ------------------------------------------------ flows and what overrides them


def test_a_new_version_archives_the_one_before(store: Store) -> None:
    project_id = store.create_project("p")
    first = store.create_flow(project_id, plain_flow(name="f"))
    second = store.create_flow(project_id, plain_flow(name="f"))
    elsewhere = store.create_flow(store.create_project("q"), plain_flow(name="f"))
    rows = [store.row("flow", each) for each in (first, second, elsewhere)]
    seen = [(row["version"], row["archived"]) for row in rows]
    assert seen == [(1, True), (2, False), (1, False)]
    group = rows[0]["version_group_id"]
    run = store.flow_run(store.create_flow_run(version_group_id=group))
    assert run.flow_id == second
    with pytest.raises(Refused, match="is archived"):
        store.create_flow_run(first)


def test_a_version_group_without_a_version(store: Store) -> None:
    flow_id = new_flow(store)
    group = store.row("flow", flow_id)["version_group_id"]
    store.archive_flow(flow_id)
    with pytest.raises(Refused, match=f"Version group {group} has no flow"):
        store.create_flow_run(version_group_id=group)
    store.unarchive_flow(flow_id)
    run_id = store.create_flow_run(version_group_id=group)
    assert store.flow_run(run_id).flow_id == flow_id


def test_a_version_group_of_the_callers_own(store: Store) -> None:
    project_id = store.create_project("p")
    for name in ("f", "g"):
        store.create_flow(project_id, plain_flow(name=name), version_group_id="mine")
    seen = [
        (row["name"], row["version"], row["archived"]) for row in store.tables["flow"]
    ]
    assert seen == [("f", 1, True), ("g", 2, False)]


def test_edges_between_tasks_that_are_not_there(store: Store) -> None:
    edge = {"upstream_task": {"slug": "a-1"}, "downstream_task": {"slug": "b-1"}}
    with pytest.raises(Refused, match="Edge between tasks that the flow lacks"):
        new_flow(store, edges=[edge])


def test_a_compressed_flow_that_is_none(store: Store) -> None:
    project_id = store.create_project("p")
    with pytest.raises(Refused, match="Unable to decompress"):
        store.create_flow_from_compressed_string("eA==", project_id=project_id)


def test_a_deleted_run_is_in_no_queue(store: Store) -> None:
    flow_id = new_flow(store)
    first, second = (store.create_flow_run(flow_id) for _ in range(2))
    store.delete_flow_run(first)
    assert store.get_runs_in_queue() == {"flow_run_ids": [second]}
    assert store.counts() == {"Scheduled": 1}
    assert [run.id for run in store.flow_runs(state="Scheduled")] == [second]


def test_a_registration_with_the_same_key_is_the_same_version(store: Store) -> None:
    project_id = store.create_project("p")

    def register(key: Optional[str]) -> str:
        return store.create_flow(project_id, plain_flow(name="f"), idempotency_key=key)

    ids = [register(key) for key in ("a", "a", "b", "a", None)]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4


FLOW_CONFIG = {"type": "ECSRun", "labels": ["flow"]}
GROUP_CONFIG = {"type": "ECSRun", "labels": ["group config"]}
RUN_CONFIG = {"type": "ECSRun", "labels": ["run config"]}


@pytest.mark.parametrize(
    "group, run, labels, run_config",
    [
        ({}, {}, ["flow"], FLOW_CONFIG),
        ({"labels": ["group"]}, {}, ["group"], FLOW_CONFIG),
        ({"labels": []}, {}, [], FLOW_CONFIG),
        ({"run_config": GROUP_CONFIG}, {}, ["group config"], GROUP_CONFIG),
        ({}, {"run_config": RUN_CONFIG}, ["run config"], RUN_CONFIG),
        ({"labels": ["group"]}, {"labels": ["run"]}, ["run"], FLOW_CONFIG),
        ({"labels": ["group"]}, {"labels": []}, [], FLOW_CONFIG),
        ({}, {"labels": ["run"], "run_config": RUN_CONFIG}, ["run"], RUN_CONFIG),
    ],
)
def test_labels_and_run_config(
    store: Store, group: Any, run: Any, labels: Any, run_config: Any
) -> None:
    flow_id = new_flow(store, run_config=FLOW_CONFIG)
    group_id = store.row("flow", flow_id)["flow_group_id"]
    if "labels" in group:
        store.set_flow_group_labels(group_id, group["labels"])
    if "run_config" in group:
        store.set_flow_group_run_config(group_id, group["run_config"])
    made = store.flow_run(store.create_flow_run(flow_id, **run))
    assert (made.labels, made.run_config) == (labels, run_config)


PARAMETERS = [{"name": "x", "required": True}, {"name": "y", "required": False}]


@pytest.mark.parametrize(
    "defaults, given, result",
    [
        ({}, {"x": 1}, {"x": 1}),
        ({"x": 1, "y": 2}, {"y": 3}, {"x": 1, "y": 3}),
        ({}, {}, r"Required parameters are missing: \['x'\]"),
        ({"x": 1}, {"z": 1}, r"Unknown parameters: \['z'\]"),
    ],
)
def test_parameters(store: Store, defaults: Any, given: Any, result: Any) -> None:
    flow_id = new_flow(store, parameters=PARAMETERS)
    group_id = store.row("flow", flow_id)["flow_group_id"]
    store.set_flow_group_default_parameters(group_id, defaults)
    if isinstance(result, str):
        with pytest.raises(Refused, match=result):
            store.create_flow_run(flow_id, parameters=given)
        return
    run_id = store.create_flow_run(flow_id, parameters=given)
    assert store.flow_run(run_id).parameters == result


def test_deleting_a_project_leaves_nothing_behind(store: Store) -> None:
    empty = {table: len(rows) for table, rows in store.tables.items()}
    project_id = store.create_project("p")
    run_id = store.create_flow_run(store.create_flow(project_id, plain_flow()))
    store.write_run_logs([{"flow_run_id": run_id, "message": "hi"}])
    (task_run,) = store.task_runs(run_id)
    store.create_task_run_artifact(task_run.id, "link", {"link": "x"})
    store.delete_project(project_id)
    left = {table: len(rows) for table, rows in store.tables.items()}
    assert left == {**empty, "flow_group": 1}
    assert store.get_runs_in_queue() == {"flow_run_ids": []}
