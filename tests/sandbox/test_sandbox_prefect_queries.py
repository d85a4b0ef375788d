"""Queries and batches of an agent to the sandbox's Prefect API: paging by id, the last
Submitted state, task runs by the states they were in, many heartbeats at once."""

from __future__ import annotations

import uuid
from typing import Any, Dict, Iterator, List

import pytest
from sandbox_prefect import Raw, new_flow

from prefect_ecs_plugin.sandbox.prefect_api import PrefectAPI, Store

NO_UUID = 'invalid input syntax for type uuid: "nope"'


@pytest.fixture
def raw() -> Iterator[Raw]:
    with PrefectAPI() as api:
        yield Raw(api)


@pytest.fixture
def store(raw: Raw) -> Store:
    return raw.api.store


@pytest.fixture
def runs(store: Store) -> List[str]:
    """Seven runs, sorted by id."""
    flow_id = new_flow(store)
    return sorted(store.create_flow_run(flow_id) for _ in range(7))


def ask(raw: Raw, query: str, **variables: Any) -> Any:
    status, body = raw.ask(query, **variables)
    assert (status, body.get("errors")) == (200, None)
    return body["data"]


def set_task(store: Store, run_id: str, *kinds: str) -> str:
    (task_run,) = store.task_runs(run_id)
    for kind in kinds:
        state = {"type": kind, "context": {"launch": f"{kind}-{uuid.uuid4()}"}}
        store.set_task_run_states([{"task_run_id": task_run.id, "state": state}])
    return task_run.id


# ------------------------------------------------ pages


def test_pages_by_id(raw: Raw, store: Store, runs: List[str]) -> None:
    for run_id in runs[:6]:
        store.set_flow_run_state(run_id, {"type": "Running"})
    query = """
        query($after: uuid) {
          flow_run(
            where: {state: {_in: ["Submitted", "Running"]}, id: {_gt: $after}}
            order_by: {id: asc}
            limit: 4
          ) { id }
        }
    """
    pages: List[List[str]] = []
    after = "00000000-0000-0000-0000-000000000000"
    while not pages or pages[-1]:
        rows = ask(raw, query, after=after)["flow_run"]
        pages.append([row["id"] for row in rows])
        after = rows[-1]["id"] if rows else after
    assert pages == [runs[:4], runs[4:6], []]


def test_the_first_page_needs_no_id(raw: Raw, runs: List[str]) -> None:
    query = (
        "query($after: uuid)"
        "{flow_run(where: {id: {_gt: $after}}, order_by: {id: asc}, limit: 2){id}}"
    )
    rows = ask(raw, query, after=None)["flow_run"]
    assert [row["id"] for row in rows] == runs[:2]


def test_ids_are_compared_whatever_their_spelling(raw: Raw, runs: List[str]) -> None:
    query = (
        "query($id: uuid){flow_run(where: {id: {_gt: $id}}, order_by: {id: asc}){id}}"
    )
    rows = ask(raw, query, id=runs[4].upper())["flow_run"]
    assert [row["id"] for row in rows] == runs[5:]


# ------------------------------------------------ the last Submitted state


def test_the_last_submitted_state_of_a_flow_run(
    raw: Raw, store: Store, runs: List[str]
) -> None:
    store.locks_submitted = False
    for number, kind in enumerate(("Submitted", "Scheduled", "Submitted", "Running")):
        state = {"type": kind, "context": {"launch": str(number)}}
        store.set_flow_run_state(runs[0], state)
    query = """
        query($ids: [uuid!]) {
          flow_run(where: {id: {_in: $ids}}, order_by: {id: asc}) {
            id
            states(
              where: {state: {_eq: "Submitted"}}
              order_by: {version: desc}
              limit: 1
            ) { serialized_state version }
          }
        }
    """
    first, second = ask(raw, query, ids=runs[:2])["flow_run"]
    (last,) = first["states"]
    assert last["version"] == 4
    assert last["serialized_state"]["context"] == {"launch": "2"}
    assert second == {"id": runs[1], "states": []}


def test_the_last_submitted_state_of_a_task_run(
    raw: Raw, store: Store, runs: List[str]
) -> None:
    store.set_flow_run_state(runs[0], {"type": "Running"})
    set_task(
        store, runs[0], "Retrying", "Submitted", "Retrying", "Submitted", "Running"
    )
    query = """
        query($id: uuid!) {
          flow_run_by_pk(id: $id) {
            task_runs(where: {states: {state: {_eq: "Submitted"}}}) {
              state
              states(
                where: {state: {_eq: "Submitted"}}
                order_by: {version: desc}
                limit: 1
              ) { serialized_state version }
            }
          }
        }
    """
    (task_run,) = ask(raw, query, id=runs[0])["flow_run_by_pk"]["task_runs"]
    assert task_run["state"] == "Running"
    (last,) = task_run["states"]
    assert last["version"] == 4
    assert last["serialized_state"]["context"]["launch"].startswith("Submitted-")
    assert ask(raw, query, id=runs[1]) == {"flow_run_by_pk": {"task_runs": []}}


def test_runs_by_the_states_of_their_task_runs(
    raw: Raw, store: Store, runs: List[str]
) -> None:
    for run_id, kinds in (
        (runs[1], ["Retrying"]),
        (runs[3], ["Submitted"]),
        (runs[5], ["Submitted", "Retrying"]),
    ):
        set_task(store, run_id, *kinds)

    def found(where: str) -> List[int]:
        query = f"{{flow_run(where: {where}, order_by: {{id: asc}}){{id}}}}"
        return [runs.index(row["id"]) for row in ask(raw, query)["flow_run"]]

    assert found('{task_runs: {state: {_eq: "Submitted"}}}') == [3]
    assert found('{task_runs: {states: {state: {_eq: "Submitted"}}}}') == [3, 5]
    waits = '{task_runs: {state: {_in: ["Retrying", "Submitted"]}}}'
    assert found(waits) == [1, 3, 5]
    assert found(f"{{_not: {waits}, id: {{_lt: {runs[4]!r}}}}}".replace("'", '"')) == [
        0,
        2,
    ]


# ------------------------------------------------ an id that is none


@pytest.mark.parametrize(
    "query, field",
    [
        ("query($ids: [uuid!]){flow_run(where: {id: {_in: $ids}}){id}}", "flow_run"),
        (
            "query($ids: [uuid!])"
            "{flow_run(where: {_or: [{id: {_in: $ids}}, {state: {_eq: null}}]}){id}}",
            "flow_run",
        ),
        (
            "query($ids: [uuid!]){task_run(where: {flow_run: {id: {_in: $ids}}}){id}}",
            "task_run",
        ),
    ],
)
def test_one_bad_id_fails_the_whole_query(
    raw: Raw, runs: List[str], query: str, field: str
) -> None:
    status, body = raw.ask(query, ids=[runs[0], "nope", runs[1]])
    assert (status, body["data"]) == (200, {field: None})
    assert [error["message"] for error in body["errors"]] == [NO_UUID]


def test_a_bad_id_in_one_field_leaves_the_others(raw: Raw, runs: List[str]) -> None:
    """Each root field is a query of its own to the database."""
    status, body = raw.ask(
        f'{{a: flow_run(where: {{id: {{_in: ["{runs[0]}"]}}}}){{id}}'
        ' b: flow_run(where: {id: {_in: ["nope"]}}){id}}'
    )
    assert (status, body["data"]) == (200, {"a": [{"id": runs[0]}], "b": None})
    (error,) = body["errors"]
    assert (error["message"], error["path"]) == (NO_UUID, ["b"])


# ------------------------------------------------ many heartbeats


def heartbeats(run_ids: List[str]) -> str:
    fields = (
        f'a{number}: update_flow_run_heartbeat(input: {{flow_run_id: "{run_id}"}})'
        "{success}"
        for number, run_id in enumerate(run_ids)
    )
    return f"mutation {{{' '.join(fields)}}}"


def test_many_heartbeats_in_one_document(
    raw: Raw, store: Store, runs: List[str]
) -> None:
    expected = {f"a{number}": {"success": True} for number in range(6)}
    assert ask(raw, heartbeats(runs[:6])) == expected
    beating = [store.flow_run(run_id).heartbeat is not None for run_id in runs]
    assert beating == [True] * 6 + [False]
    assert raw.api.calls == {"update_flow_run_heartbeat": 6}


def test_a_heartbeat_of_no_run_among_others(
    raw: Raw, store: Store, runs: List[str]
) -> None:
    """The server answers before it looks, so only an id that is none is refused."""
    status, body = raw.ask(heartbeats([runs[0], str(uuid.uuid4()), "nope", runs[1]]))
    success: Dict[str, bool] = {"success": True}
    assert (status, body["data"]) == (
        200,
        {"a0": success, "a1": success, "a2": None, "a3": success},
    )
    assert [error["path"] for error in body["errors"]] == [["a2"]]
    assert store.flow_run(runs[1]).heartbeat is not None


def test_a_thousand_rows_and_two_hundred_aliases(raw: Raw, store: Store) -> None:
    flow_id = new_flow(store)
    runs = sorted(store.create_flow_run(flow_id) for _ in range(1000))
    query = "query($ids: [uuid!]){flow_run(where: {id: {_in: $ids}}){id state}}"
    assert len(ask(raw, query, ids=runs)["flow_run"]) == 1000
    assert len(ask(raw, heartbeats(runs[:200]))) == 200
