"""The sandbox's Prefect API, asked by Prefect's real client, by its command line and
raw; what was observed on the real server is asserted line by line."""

from __future__ import annotations

import datetime
import http.client
import inspect
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

import pytest

pytest.importorskip("graphql", reason="the sandbox needs its extra and Python 3.10")

import pendulum
import prefect
import requests
from click.testing import CliRunner
from hypothesis import given, settings, strategies
from prefect import Flow, Parameter, task
from prefect.backend import FlowRunView, FlowView, TaskRunView, TenantView
from prefect.engine import state as prefect_states
from prefect.exceptions import ClientError
from prefect.run_configs import ECSRun, UniversalRun
from prefect.schedules import IntervalSchedule
from prefect.storage import Local
from prefect.utilities.configuration import set_temporary_config

from prefect_ecs_plugin.sandbox.prefect_api import (
    Event,
    Fault,
    LogWritten,
    PrefectAPI,
    Refused,
    StateChanged,
    Store,
    states,
)
from prefect_ecs_plugin.sandbox.prefect_api.columns import COLUMNS, FIELDS
from prefect_ecs_plugin.sandbox.prefect_api.filters import matches, select
from prefect_ecs_plugin.sandbox.prefect_api.resolvers import executable_schema
from prefect_ecs_plugin.sandbox.prefect_api.tables import RELATIONS
from prefect_ecs_plugin.sandbox.prefect_api.times import iso, moment

NOON = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.timezone.utc)
SUBMITTED = "State update failed: this run has already been submitted."


class Clock:
    """A time that stands until it is moved."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime.datetime:
        return self.now

    def advance(self, **delta: float) -> datetime.datetime:
        self.now += datetime.timedelta(**delta)
        return self.now


def until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Polls until the condition holds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("that did not happen in time")


class Raw(NamedTuple):
    """The API without any client."""

    api: PrefectAPI

    def ask(
        self, query: str, headers: Optional[Dict[str, str]] = None, **variables: Any
    ) -> Tuple[int, Any]:
        response = requests.post(
            self.api.url,
            json={"query": query, "variables": json.dumps(variables)},
            headers=headers,
        )
        return response.status_code, response.json()

    def set_state(
        self, run_id: str, state: Any, agent_id: Optional[str] = None, version: int = 0
    ) -> Tuple[int, Any]:
        """As the probe asked, so that even line and column must be the same."""
        change = {"flow_run_id": run_id, "version": version, "state": state}
        return self.ask(
            "mutation($i:set_flow_run_states_input!)"
            "{set_flow_run_states(input:$i){states{id status message}}}",
            headers={"X-PREFECT-AGENT-ID": agent_id} if agent_id else None,
            i={"states": [change]},
        )

    def cancel(self, run_id: str) -> Tuple[int, Any]:
        return self.ask(
            "mutation($i:cancel_flow_run_input!){cancel_flow_run(input:$i){state}}",
            i={"flow_run_id": run_id},
        )

    def write_logs(self, logs: Any) -> Tuple[int, Any]:
        return self.ask(
            "mutation($i:write_run_logs_input!){write_run_logs(input:$i){success}}",
            i={"logs": logs},
        )

    def register_agent(self, *labels: str, name: str = "agent", **more: Any) -> str:
        status, body = self.ask(
            "mutation($i:register_agent_input!){register_agent(input:$i){id}}",
            i={
                "type": "ECSAgent",
                "name": name,
                "labels": list(labels),
                "tenant_id": self.api.store.tenant_id,
                **more,
            },
        )
        assert status == 200
        return str(body["data"]["register_agent"]["id"])

    def queue(self, *labels: str, agent_id: str = "") -> List[str]:
        before = pendulum.now("utc").add(seconds=10).isoformat()
        tenant_id = self.api.store.tenant_id
        status, body = self.ask(
            "mutation($i:get_runs_in_queue_input!)"
            "{get_runs_in_queue(input:$i){flow_run_ids}}",
            headers={"X-PREFECT-AGENT-ID": agent_id},
            i={"tenant_id": tenant_id, "before": before, "labels": list(labels)},
        )
        assert status == 200, body
        ids: List[str] = body["data"]["get_runs_in_queue"]["flow_run_ids"]
        return ids


def failed(field: str, message: str, column: int) -> Dict[str, Any]:
    """The body of a 200 whose only field failed."""
    return {
        "data": {field: None},
        "errors": [
            {
                "extensions": {
                    "code": "INTERNAL_SERVER_ERROR",
                    "exception": {"message": message},
                },
                "locations": [{"column": column, "line": 1}],
                "message": message,
                "path": [field],
            }
        ],
    }


def state_refused(message: str) -> Tuple[int, Dict[str, Any]]:
    return 200, failed("set_flow_run_states", message, 41)


def state_set(run_id: str) -> Tuple[int, Dict[str, Any]]:
    done = {"id": run_id, "message": None, "status": "SUCCESS"}
    return 200, {"data": {"set_flow_run_states": {"states": [done]}}}


def plain_flow(**more: Any) -> Dict[str, Any]:
    """A serialized flow of one task."""
    tasks = [{"name": "a", "slug": "a-1", "max_retries": 1, "retry_delay": 60}]
    return {"name": uuid.uuid4().hex, "parameters": [], "tasks": tasks, **more}


def new_flow(store: Store, **more: Any) -> str:
    project_id = store.create_project(uuid.uuid4().hex)
    return store.create_flow(project_id, plain_flow(**more))


@pytest.fixture(scope="module")
def shared_api() -> Iterator[PrefectAPI]:
    with PrefectAPI() as api:
        yield api


@pytest.fixture
def raw(shared_api: PrefectAPI) -> Raw:
    return Raw(shared_api)


@pytest.fixture
def flow_id(raw: Raw) -> str:
    return new_flow(raw.api.store)


@pytest.fixture
def run_id(raw: Raw, flow_id: str) -> str:
    return raw.api.store.create_flow_run(flow_id)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> Store:
    return Store(clock=clock)


# ------------------------------------------------ what was observed on the real server


def test_observed_register_twice_same_id(raw: Raw) -> None:
    name = uuid.uuid4().hex
    first = raw.register_agent("a", "b", name=name)
    assert raw.register_agent("b", "a", name=name) == first
    others = [
        raw.register_agent("a", name=name),
        raw.register_agent("a", "b", name="another"),
        raw.register_agent("a", "b", name=name, type="LocalAgent"),
        raw.register_agent("a", "b", name=name, agent_config_id=str(uuid.uuid4())),
    ]
    assert len({first, *others}) == 5


def test_observed_created_scheduled_1(raw: Raw, run_id: str) -> None:
    run = raw.api.store.flow_run(run_id)
    assert (run.state, run.version) == ("Scheduled", 1)


@pytest.mark.parametrize(
    "run_labels, agent_labels, given",
    [
        (["pz"], ["pz"], True),
        (["pz"], ["pz", "q"], True),
        (["pz"], ["q"], False),
        (["pz"], [], False),
        ([], [], True),
        ([], ["pz"], False),
    ],
)
def test_observed_queue(
    run_labels: List[str], agent_labels: List[str], given: bool
) -> None:
    with PrefectAPI() as api:
        run_id = api.store.create_flow_run(new_flow(api.store), labels=run_labels)
        assert Raw(api).queue(*agent_labels) == ([run_id] if given else [])


def test_observed_submitted_v1(raw: Raw, run_id: str) -> None:
    agent_id = raw.register_agent()
    answer = raw.set_state(run_id, {"type": "Submitted"}, agent_id, version=1)
    assert answer == state_set(run_id)
    run = raw.api.store.flow_run(run_id)
    assert (run.state, run.version, run.agent_id) == ("Submitted", 2, agent_id)
    assert run.heartbeat == run.state_timestamp


def test_observed_submitted_again_stale_version(raw: Raw, run_id: str) -> None:
    raw.set_state(run_id, {"type": "Submitted"}, version=1)
    answer = raw.set_state(run_id, {"type": "Submitted"}, version=1)
    assert answer == state_refused(SUBMITTED)


def test_observed_running_with_absurd_version_99(raw: Raw, run_id: str) -> None:
    raw.set_state(run_id, {"type": "Submitted"})
    assert raw.set_state(run_id, {"type": "Running"}, version=99) == state_set(run_id)
    assert raw.api.store.flow_run(run_id).version == 3


def test_observed_running_scheduled_then_submitted_within_30_s(
    raw: Raw, run_id: str
) -> None:
    for state in ("Submitted", "Running", "Scheduled"):
        assert raw.set_state(run_id, {"type": state}) == state_set(run_id)
    answer = raw.set_state(run_id, {"type": "Submitted"})
    assert answer == state_refused(SUBMITTED)
    assert raw.api.store.flow_run(run_id).state == "Scheduled"


def test_observed_unknown_run(raw: Raw) -> None:
    unknown = str(uuid.uuid4())
    message = f"State update failed for flow run ID {unknown}"
    answer = raw.set_state(unknown, {"type": "Running"})
    assert answer == state_refused(message)


def test_observed_bad_uuid(raw: Raw) -> None:
    message = (
        "Variable '$i' got invalid value 'nope' at 'i.states[0].flow_run_id';"
        " Expected type UUID. Could not parse UUID: nope"
    )
    assert raw.set_state("nope", {"type": "Running"}) == state_refused(message)


@pytest.mark.parametrize(
    "state, message",
    [
        ({"type": "Bogus"}, "{'type': ['Unsupported value: Bogus']}"),
        ({"message": "?"}, "{'type': ['Missing data for required field.']}"),
        ({"type": "Running", "x": "x" * 1_000_001}, "State payload is too large."),
    ],
)
def test_observed_bad_state(raw: Raw, run_id: str, state: Any, message: str) -> None:
    assert raw.set_state(run_id, state) == state_refused(message)
    assert raw.api.store.flow_run(run_id).version == 1


def test_observed_unknown_field(raw: Raw) -> None:
    status, body = raw.ask("query {nope}")
    error = {
        "extensions": {"code": "GRAPHQL_VALIDATION_FAILED"},
        "locations": [{"column": 8, "line": 1}],
        "message": 'Cannot query field "nope" on type "Query".',
    }
    assert (status, body) == (400, {"errors": [error]})


def test_observed_unknown_input(raw: Raw) -> None:
    status, body = raw.ask('mutation{register_agent(input:{nope:1,tenant_id:"x"}){id}}')
    errors = [
        {
            "extensions": {"code": "GRAPHQL_VALIDATION_FAILED"},
            "locations": [{"column": 31, "line": 1}],
            "message": "Field register_agent_input.type of required type String!"
            " was not provided.",
        },
        {
            "extensions": {"code": "GRAPHQL_VALIDATION_FAILED"},
            "locations": [{"column": 32, "line": 1}],
            "message": 'Field "nope" is not defined by type register_agent_input.'
            " Did you mean type or name?",
        },
    ]
    assert (status, body) == (400, {"errors": errors})


def test_observed_log_as_dict_not_list(raw: Raw, run_id: str) -> None:
    log = {"flow_run_id": run_id, "message": "hi", "level": "ERROR", "name": "me"}
    answer = raw.write_logs(log)
    assert answer == (200, {"data": {"write_run_logs": {"success": True}}})
    (kept,) = raw.api.store.logs(run_id)
    assert (kept.level, kept.name, kept.message) == ("ERROR", "me", "hi")


def test_observed_log_bad_level(raw: Raw, run_id: str) -> None:
    status, body = raw.write_logs([{"flow_run_id": run_id, "level": "NOTICE"}])
    error = {
        "extensions": {"code": "INTERNAL_SERVER_ERROR"},
        "locations": [{"column": 10, "line": 1}],
        "message": 'Variable "$i" got invalid value "NOTICE" at "i.logs[0].level";'
        " Expected type log_level.",
    }
    assert (status, body) == (400, {"errors": [error]})


def test_observed_log_unknown_run(raw: Raw, run_id: str) -> None:
    unknown = {"flow_run_id": str(uuid.uuid4()), "message": "hi"}
    answer = raw.write_logs([{"flow_run_id": run_id, "message": "hi"}, unknown])
    assert answer == (200, failed("write_run_logs", "Foreign key violation.", 36))
    assert raw.api.store.logs(run_id) == []


def test_observed_log_6_mb(raw: Raw) -> None:
    response = requests.post(raw.api.url, data=b'"' + b"x" * 6_000_000 + b'"')
    assert response.status_code == 413
    expected = '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8'
    assert response.text.startswith(expected)


@pytest.mark.parametrize(
    "before, after",
    [
        ([], "Cancelled"),
        (["Submitted"], "Cancelled"),
        (["Submitted", "Running"], "Cancelling"),
        (["Running", "Cancelling"], "Cancelling"),
        (["Running", "Success"], "Success"),
    ],
)
def test_observed_cancel(raw: Raw, run_id: str, before: List[str], after: str) -> None:
    for state in before:
        raw.set_state(run_id, {"type": state})
    answer = raw.cancel(run_id)
    assert answer == (200, {"data": {"cancel_flow_run": {"state": after}}})
    assert raw.api.store.flow_run(run_id).state == after


def test_observed_cancelled_running_accepted(raw: Raw, run_id: str) -> None:
    raw.cancel(run_id)
    assert raw.set_state(run_id, {"type": "Running"}) == state_set(run_id)
    assert raw.api.store.flow_run(run_id).state == "Running"


@pytest.mark.parametrize("locks, wins", [(True, 1), (False, 8)])
def test_observed_8_racing_submitted(locks: bool, wins: int) -> None:
    with PrefectAPI(locks_submitted=locks) as api:
        run_id = api.store.create_flow_run(new_flow(api.store))
        answers: List[Any] = []

        def submit() -> None:
            answers.append(Raw(api).set_state(run_id, {"type": "Submitted"}))

        racers = [threading.Thread(target=submit) for _ in range(8)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        assert answers.count(state_set(run_id)) == wins
        assert answers.count(state_refused(SUBMITTED)) == 8 - wins
        run = api.store.flow_run(run_id)
        assert (run.state, run.version) == ("Submitted", 1 + wins)


def test_observed_duplicate_project(raw: Raw) -> None:
    query = "mutation($i:create_project_input!){create_project(input:$i){id}}"
    project = {"name": uuid.uuid4().hex, "tenant_id": raw.api.store.tenant_id}
    assert raw.ask(query, i=project)[1]["data"]["create_project"]["id"]
    answer = raw.ask(query, i=project)
    assert answer == (200, failed("create_project", "Uniqueness violation.", 35 + 1))


def test_observed_idempotency_key(raw: Raw, flow_id: str) -> None:
    query = "mutation($i:create_flow_run_input!){create_flow_run(input:$i){id}}"
    keyed = {"flow_id": flow_id, "idempotency_key": "once"}
    first, again, other = (
        raw.ask(query, i=each)[1]["data"]["create_flow_run"]["id"]
        for each in (keyed, keyed, {**keyed, "idempotency_key": "twice"})
    )
    assert first == again != other


def test_submitted_lock_ends_after_30_s(store: Store, clock: Clock) -> None:
    run_id = store.create_flow_run(new_flow(store))
    store.set_flow_run_state(run_id, {"type": "Submitted"})
    clock.advance(seconds=29.9)
    with pytest.raises(Refused, match="already been submitted"):
        store.set_flow_run_state(run_id, {"type": "Submitted"})
    clock.advance(seconds=0.1)
    store.set_flow_run_state(run_id, {"type": "Submitted"})
    assert store.flow_run(run_id).version == 3


# ------------------------------------------------ refusing what is not known


@pytest.mark.parametrize(
    "query, variables, message",
    [
        ("{", {}, "Syntax Error: Expected Name, found <EOF>."),
        ("{flow_run{xyz}}", {}, 'Cannot query field "xyz" on type "flow_run".'),
        ("mutation{nope}", {}, 'Cannot query field "nope" on type "Mutation".'),
        (
            "{flow_run(wher:{}){id}}",
            {},
            'Unknown argument "wher" on field "Query.flow_run". Did you mean "where"?',
        ),
        (
            "{flow_run(where:{nam:{}}){id}}",
            {},
            'Field "nam" is not defined by type flow_run_bool_exp. Did you mean name?',
        ),
        (
            "{flow_run(where:{name:{_regex:1}}){id}}",
            {},
            'Field "_regex" is not defined by type String_comparison_exp.',
        ),
        (
            "query($s:Strin){tenant(where:{slug:{_eq:$s}}){id}}",
            {"s": "x"},
            'Unknown type "Strin". Did you mean "String"?',
        ),
    ],
)
def test_refuses_what_the_schema_lacks(
    raw: Raw, query: str, variables: Any, message: str
) -> None:
    status, body = raw.ask(query, **variables)
    assert status == 400
    assert "data" not in body
    assert message in [error["message"] for error in body["errors"]]


@pytest.mark.parametrize(
    "variables",
    [
        {"i": {"states": [{"flow_run_id": "x", "state": {}, "nope": 1}]}},
        {"i": {"states": [{"flow_run_id": "x"}]}},
        {"i": {"states": [{"flow_run_id": "x", "state": {}, "version": "1"}]}},
        {"i": None},
        {},
    ],
)
def test_refuses_variables_that_do_not_fit(raw: Raw, variables: Any) -> None:
    status, body = raw.ask(
        "mutation($i:set_flow_run_states_input!)"
        "{set_flow_run_states(input:$i){states{id}}}",
        **variables,
    )
    assert status == 400
    assert "data" not in body


def test_a_uuid_that_is_none_fails_the_query(raw: Raw) -> None:
    message = 'invalid input syntax for type uuid: "x"'
    answer = raw.ask('{flow_run(where:{id:{_eq:"x"}}){id}}')
    assert answer == (200, failed("flow_run", message, 2))


def test_two_fields_fail_apart(raw: Raw, run_id: str) -> None:
    status, body = raw.ask(
        f'{{a:flow_run_by_pk(id:"{run_id}"){{id}} b:flow_run_by_pk(id:"x"){{id}}}}'
    )
    assert status == 200
    assert body["data"] == {"a": {"id": run_id}, "b": None}
    assert [error["path"] for error in body["errors"]] == [["b"]]


def test_every_mutation_is_a_method_of_the_store() -> None:
    mutations = executable_schema().mutation_type
    assert mutations is not None
    for name, field in mutations.fields.items():
        method = inspect.signature(getattr(Store, name))
        taken = method.parameters
        if not any(each.kind is each.VAR_KEYWORD for each in taken.values()):
            assert set(field.args["input"].type.of_type.fields) <= set(taken), name


def test_the_relations_are_those_of_the_schema() -> None:
    known = {
        table: {
            field: relation.table
            for field, relation in relations.items()
            if not field.endswith("_aggregate")
        }
        for table, relations in RELATIONS.items()
    }
    assert known == {table: dict(fields) for table, fields in FIELDS.items()}
    for table, relations in RELATIONS.items():
        for relation in relations.values():
            assert relation.column in COLUMNS[table]
            assert relation.remote in COLUMNS[relation.table]


# ------------------------------------------------ HTTP


def test_variables_may_be_an_object(raw: Raw) -> None:
    response = requests.post(
        f"{raw.api.url}/graphql",
        json={
            "query": "query($s: String){tenant(where:{slug:{_eq:$s}}){slug}}",
            "variables": {"s": "default"},
        },
    )
    assert response.json() == {"data": {"tenant": [{"slug": "default"}]}}


@pytest.mark.parametrize(
    "body",
    ["", "x", "[]", "{}", '{"query": 1}', '{"query": "{hello}", "variables": "{"}'],
)
def test_a_body_that_is_no_request(raw: Raw, body: str) -> None:
    response = requests.post(raw.api.url, data=body)
    assert response.status_code == 400
    assert list(response.json()) == ["errors"]


@pytest.mark.parametrize(
    "path, status, body",
    [
        ("/", 200, {"data": {"hello": "Hello from the sandbox of prefect-ecs-plugin"}}),
        (
            "/graphql?query={tenant{slug}}",
            200,
            {"data": {"tenant": [{"slug": "default"}]}},
        ),
        ("/health", 200, {"status": "ok"}),
        ("/.well-known/apollo/server-health", 200, {"status": "pass"}),
        ("/nope", 404, {"errors": [{"message": "Not found"}]}),
        (
            '/?query=mutation{create_tenant(input:{name:"x",slug:"x"}){id}}',
            400,
            {"errors": [{"message": "GET supports only query operation"}]},
        ),
    ],
)
def test_get(raw: Raw, path: str, status: int, body: Any) -> None:
    response = requests.get(raw.api.url + path)
    assert (response.status_code, response.json()) == (status, body)


def test_connections_are_kept_alive(raw: Raw) -> None:
    connection = http.client.HTTPConnection(raw.api.url[len("http://") :])
    sockets = []
    for _ in range(2):
        connection.request("POST", "/", json.dumps({"query": "{hello}"}))
        assert connection.getresponse().read().startswith(b'{"data"')
        sockets.append(connection.sock)
    assert sockets[0] is sockets[1] is not None


def test_listens_on_loopback_only(raw: Raw) -> None:
    assert raw.api.url.startswith("http://127.0.0.1:")


def test_stop_hangs_up_and_start_comes_back_on_the_same_port() -> None:
    with PrefectAPI() as api:
        url, session = api.url, requests.Session()
        assert session.get(url).ok
        api.stop()
        with pytest.raises(requests.ConnectionError):
            session.get(url)
        api.start()
        assert api.url == url
        assert session.get(url).ok


# ------------------------------------------------ faults, counting, events


@pytest.fixture
def own() -> Iterator[Raw]:
    with PrefectAPI() as api:
        yield Raw(api)


def heartbeat(raw: Raw, run_id: str) -> requests.Response:
    query = (
        "mutation{update_flow_run_heartbeat"
        f'(input:{{flow_run_id:"{run_id}"}}){{success}}}}'
    )
    return requests.post(raw.api.url, json={"query": query})


@pytest.mark.parametrize(
    "fault, answer, has_effect",
    [
        (
            None,
            (200, b'{"data": {"update_flow_run_heartbeat": {"success": true}}}'),
            True,
        ),
        (Fault(status=503), (503, b"503 Service Unavailable\n"), False),
        (Fault(status=502, after_effect=True), (502, b"502 Bad Gateway\n"), True),
        (Fault(body=b"rubbish"), (200, b"rubbish"), False),
        (Fault(drop_connection=True), None, False),
        (Fault(drop_connection=True, after_effect=True), None, True),
        (Fault(delay=0.001, status=500, body=b""), (500, b""), False),
    ],
)
def test_fault(own: Raw, fault: Any, answer: Any, has_effect: bool) -> None:
    run_id = own.api.store.create_flow_run(new_flow(own.api.store))
    asked: List[Any] = []

    def plan(operation: str, arguments: Dict[str, Any]) -> Optional[Fault]:
        asked.append((operation, arguments))
        return fault

    own.api.fault = plan
    if answer is None:
        with pytest.raises(requests.ConnectionError):
            heartbeat(own, run_id)
    else:
        response = heartbeat(own, run_id)
        assert (response.status_code, response.content) == answer
    beats = (
        until(lambda: own.api.store.flow_run(run_id).heartbeat) if has_effect else None
    )
    assert own.api.store.flow_run(run_id).heartbeat == beats
    arguments = {"input": {"flow_run_id": run_id}}
    assert asked == [("update_flow_run_heartbeat", arguments)]
    assert own.api.calls == {"update_flow_run_heartbeat": 1}


def test_fault_plan_is_given_variables_as_arguments(own: Raw) -> None:
    asked: List[Any] = []
    own.api.fault = lambda *request: asked.append(request)
    own.write_logs([])
    own.ask("{nope}")
    assert asked == [("write_run_logs", {"input": {"logs": []}}), ("", {})]


def test_the_client_survives_503(own: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect's own retries, which would take seconds, are seen but not waited for."""
    monkeypatch.setattr("urllib3.util.retry.Retry.sleep", lambda *_, **__: None)
    faults = [Fault(status=503), Fault(drop_connection=True, after_effect=True)]
    own.api.fault = lambda *_: faults.pop() if faults else None
    session = requests.Session()
    retry = requests.packages.urllib3.util.retry.Retry(  # type: ignore[attr-defined]
        total=6, status_forcelist=[503], allowed_methods=["POST"]
    )
    session.mount("http://", requests.adapters.HTTPAdapter(max_retries=retry))
    assert session.post(own.api.url, json={"query": "{hello}"}).ok
    assert own.api.calls == {"hello": 3}


def test_subscribers_hear_states_and_logs_in_order(own: Raw) -> None:
    heard: List[Event] = []
    end = own.api.subscribe(heard.append)
    store = own.api.store
    flow_id = new_flow(store, name="nightly")
    run_id = store.create_flow_run(flow_id, flow_run_name="tonight")
    agent_id = own.register_agent()
    own.set_state(run_id, {"type": "Submitted", "message": "mine"}, agent_id)
    own.write_logs([{"flow_run_id": run_id, "message": "hi", "name": "me"}])
    until(lambda: len(heard) == 3)
    end()
    own.set_state(run_id, {"type": "Running"})
    log = store.logs(run_id)[0]
    times = [state.timestamp for state in store.states(run_id)]
    common = ("nightly", "Scheduled", "Flow run scheduled.", 1, times[1], None)
    assert heard == [
        StateChanged(run_id, "tonight", *common),
        StateChanged(
            run_id, "tonight", "nightly", "Submitted", "mine", 2, times[2], agent_id
        ),
        LogWritten(run_id, None, log.timestamp, "INFO", "me", "hi"),
    ]


def test_a_failing_subscriber_harms_nobody(
    own: Raw, caplog: pytest.LogCaptureFixture
) -> None:
    heard: List[Event] = []
    own.api.subscribe(lambda event: 1 / 0)
    own.api.subscribe(heard.append)
    own.api.store.create_flow_run(new_flow(own.api.store))
    assert [type(event) for event in heard] == [StateChanged]
    assert "a subscriber failed" in caplog.text


def test_a_subscriber_may_use_the_store(own: Raw) -> None:
    store = own.api.store

    def submit(event: Event) -> None:
        if isinstance(event, StateChanged) and event.state == "Scheduled":
            store.set_flow_run_state(event.flow_run_id, {"type": "Submitted"})

    own.api.subscribe(submit)
    run_id = store.create_flow_run(new_flow(store))
    assert store.flow_run(run_id).state == "Submitted"


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


def test_asking_for_runs_is_an_agents_sign_of_life(raw: Raw) -> None:
    agent_id = raw.register_agent(name=uuid.uuid4().hex)

    def last_queried() -> Any:
        agents = {agent.id: agent for agent in raw.api.store.agents()}
        return agents[agent_id].last_queried

    assert last_queried() is None
    raw.queue(agent_id=agent_id)
    assert last_queried() is not None


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
        ({"name": {"_like": "t%"}}, "two three"),
        ({"name": {"_like": "T%"}}, ""),
        ({"name": {"_ilike": "T_O"}}, "two"),
        ({"name": {"_nlike": "%e"}}, "two"),
        ({"name": {"_nilike": "%E"}}, "two"),
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
        ({"_and": [{"name": {"_like": "t%"}}, {"version": {"_eq": 2}}]}, "two three"),
        ({"_and": [{"name": {"_eq": "two"}}, {}]}, "two"),
        ({"labels": {"_contains": ["oats"]}}, "one two"),
        ({"labels": {"_has_key": "rye"}}, "three"),
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
        ({"order_by": [{"start_time": "asc_nulls_first"}]}, "one two three"),
        ({"order_by": [{"start_time": "desc_nulls_last"}]}, "three two one"),
        ({"order_by": [{"version": "desc"}, {"name": "asc"}]}, "three two one"),
        ({"order_by": [{"version": "desc", "name": "desc"}]}, "two three one"),
        ({"order_by": [{"flow": {"name": "desc"}}, {"name": "asc"}]}, "three one two"),
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
def test_every_state_of_prefect_is_kept_and_read_back(
    raw: Raw, run_id: str, state: Any
) -> None:
    assert raw.set_state(run_id, state.serialize()) == state_set(run_id)
    kept = raw.api.store.flow_run(run_id)
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


def test_a_state_without_result_can_be_read_by_a_client(raw: Raw, run_id: str) -> None:
    raw.set_state(run_id, {"type": "Failed", "_result": None})
    kept = raw.api.store.flow_run(run_id).serialized_state
    assert kept["_result"]["type"] == "NoResultType"
    assert prefect_states.State.deserialize(dict(kept)).is_failed()


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


# ------------------------------------------------ services, when they are called


def test_lazarus_tries_three_times_then_fails(store: Store, clock: Clock) -> None:
    run_id = store.create_flow_run(new_flow(store))
    seen = []
    for _ in range(4):
        store.set_flow_run_state(run_id, {"type": "Submitted"})
        assert store.run_lazarus(clock.advance(minutes=10)) == []
        assert store.run_lazarus(clock.advance(seconds=1)) == [run_id]
        run = store.flow_run(run_id)
        seen.append((run.state, run.times_resurrected))
    assert seen == [("Scheduled", 1), ("Scheduled", 2), ("Scheduled", 3), ("Failed", 3)]


@pytest.mark.parametrize("task_state", ["Running", "Scheduled", "Retrying"])
def test_lazarus_leaves_runs_alone_that_have_work(
    store: Store, clock: Clock, task_state: str
) -> None:
    run_id = store.create_flow_run(new_flow(store))
    (task_run,) = store.task_runs(run_id)
    store.set_flow_run_state(run_id, {"type": "Running"})
    change = {"task_run_id": task_run.id, "state": {"type": task_state}}
    store.set_task_run_states([change])
    assert store.run_lazarus(clock.advance(hours=1)) == []


def test_heartbeats_keep_lazarus_away(store: Store, clock: Clock) -> None:
    run_id = store.create_flow_run(new_flow(store))
    store.set_flow_run_state(run_id, {"type": "Submitted"})
    clock.advance(minutes=9)
    store.update_flow_run_heartbeat(run_id)
    assert store.run_lazarus(clock.advance(minutes=9)) == []


def test_zombie_killer_retries_then_fails(store: Store, clock: Clock) -> None:
    run_id = store.create_flow_run(new_flow(store))
    (task_run,) = store.task_runs(run_id)
    seen = []
    for _ in range(2):
        change = {"task_run_id": task_run.id, "state": {"type": "Running"}}
        store.set_task_run_states([change])
        assert store.run_zombie_killer(clock.advance(minutes=2)) == []
        assert store.run_zombie_killer(clock.advance(seconds=1)) == [task_run.id]
        (now,) = store.task_runs(run_id)
        seen.append((now.state, now.state_start_time))
    first_end = NOON + datetime.timedelta(seconds=121)
    assert seen == [
        ("Retrying", first_end + datetime.timedelta(seconds=60)),
        ("Failed", None),
    ]


# ------------------------------------------------ Prefect's client in this process


@task(name="double", max_retries=1, retry_delay=datetime.timedelta(0))
def double(x: int) -> int:
    return 2 * x


@pytest.fixture
def client(own: Raw, tmp_path: Path) -> Iterator[prefect.Client]:
    """The real client, with nothing of this user's settings in it."""
    config = {
        "backend": "server",
        "home_dir": str(tmp_path),
        "cloud.api": own.api.url,
        "cloud.api_key": None,
        "cloud.tenant_id": None,
        "server.endpoint": own.api.url,
        "flows.defaults.storage.add_default_labels": False,
    }
    with set_temporary_config(config), prefect.context(config=prefect.config):
        yield prefect.Client()


@pytest.fixture
def flow(tmp_path: Path) -> Flow:
    with Flow("doubling", storage=Local(str(tmp_path))) as flow:
        double.map(Parameter("numbers", default=[1, 2]))
    flow.run_config = ECSRun(cpu=256, labels=["prod"])
    flow.result = prefect.engine.results.LocalResult(dir=str(tmp_path))
    return flow


@pytest.fixture
def registered(client: prefect.Client, flow: Flow) -> str:
    client.create_project("farm")
    return str(client.register(flow, "farm", no_url=False))


def test_client_projects(client: prefect.Client) -> None:
    first = client.create_project("farm", "all of it")
    assert client.create_project("farm") == first
    assert client.delete_project("farm") is True
    with pytest.raises(ValueError, match="not found"):
        client.delete_project("farm")


def test_client_tenants(client: prefect.Client) -> None:
    tenant_id = client.create_tenant("Other", "other")
    with pytest.raises(ClientError, match="Uniqueness violation"):
        client.create_tenant("Other", "other")
    slugs = [tenant.slug for tenant in client.get_available_tenants()]
    assert slugs == ["default", "other"]
    assert TenantView.from_tenant_id(tenant_id).name == "Other"
    assert client.get_default_tenant_slug() == "default"


@pytest.mark.parametrize("compressed", [True, False])
def test_client_register(
    own: Raw, client: prefect.Client, flow: Flow, compressed: bool
) -> None:
    client.create_project("farm")
    flow_id = client.register(flow, "farm", compressed=compressed)
    seen = FlowView.from_flow_id(flow_id)
    assert (seen.name, seen.project_name, seen.archived) == ("doubling", "farm", False)
    assert (seen.run_config.cpu, seen.core_version) == ("256", prefect.__version__)
    assert seen.storage.flows == flow.storage.flows
    by_name = FlowView.from_flow_name("doubling", project_name="farm")
    assert by_name.flow_id == flow_id
    group = own.api.store.row("flow", flow_id)["flow_group_id"]
    assert FlowView.from_id(group).flow_id == flow_id
    tasks = {
        row["slug"]: (row["mapped"], row["max_retries"])
        for row in own.api.store.tables["task"]
    }
    assert tasks == {"numbers": (False, 0), "double-1": (True, 1)}


def test_client_flow_run(own: Raw, client: prefect.Client, registered: str) -> None:
    start = pendulum.now("utc").add(hours=1)
    run_id = client.create_flow_run(
        flow_id=registered,
        parameters={"numbers": [3]},
        context={"season": "autumn"},
        run_config=UniversalRun(labels=["x"]),
        labels=["dev"],
        scheduled_start_time=start,
        run_name="sowing",
    )
    client.set_flow_run_name(run_id, "mowing")
    info = client.get_flow_run_info(run_id)
    assert (info.name, info.version, info.project.name) == ("mowing", 1, "farm")
    assert (info.parameters, info.context) == ({"numbers": [3]}, {"season": "autumn"})
    assert info.scheduled_start_time == start
    assert info.state == prefect_states.Scheduled(start_time=start)
    slugs = sorted(task_run.task_slug for task_run in info.task_runs)
    assert slugs == ["double-1", "numbers"]
    seen = FlowRunView.from_flow_run_id(run_id, load_static_tasks=True)
    assert (seen.labels, type(seen.run_config)) == (["dev"], UniversalRun)
    assert [type(each).__name__ for each in seen.states] == ["Pending", "Scheduled"]
    assert len(seen.get_all_task_runs()) == 2
    assert client.get_flow_run_state(run_id).is_scheduled()
    assert client.cancel_flow_run(run_id) == "Cancelled"


def test_client_task_runs(own: Raw, client: prefect.Client, registered: str) -> None:
    run_id = client.create_flow_run(flow_id=registered)
    parent = FlowRunView.from_flow_run_id(run_id).get_task_run("double-1")
    child = client.get_task_run_info(run_id, parent.task_id, map_index=0)
    assert child == client.get_task_run_info(run_id, parent.task_id, map_index=0)
    assert child.id != parent.task_run_id
    assert (child.version, child.state.is_pending()) == (0, True)
    cached = prefect_states.Cached(
        cached_result_expiration=pendulum.now("utc").add(hours=1)
    )
    client.set_task_run_state(child.id, cached)
    client.set_task_run_name(child.id, "the first")
    assert client.get_task_run_state(child.id).is_cached()
    ago = pendulum.now("utc").subtract(minutes=1)
    assert len(client.get_latest_cached_states(parent.task_id, None, ago)) == 1
    assert client.get_latest_cached_states(parent.task_id, "key", ago) == []
    assert TaskRunView.from_task_run_id(child.id).name == "the first"
    with pytest.raises(ClientError, match="not found"):
        client.get_task_run_state(str(uuid.uuid4()))


def test_client_artifacts(own: Raw, client: prefect.Client, registered: str) -> None:
    run_id = client.create_flow_run(flow_id=registered)
    task_run_id = own.api.store.task_runs(run_id)[0].id
    kept = own.api.store.tables["task_run_artifact"]
    artifact = client.create_task_run_artifact(task_run_id, "link", {"link": "a"})
    client.update_task_run_artifact(artifact, {"link": "b"})
    assert [row["data"] for row in kept] == [{"link": "b"}]
    client.delete_task_run_artifact(artifact)
    assert list(kept) == []
    with pytest.raises(ClientError, match="not found"):
        client.create_task_run_artifact(str(uuid.uuid4()), "link", {})


def test_client_agents(own: Raw, client: prefect.Client) -> None:
    config_id = own.api.store.add_agent_config({"polling": 1})
    agent_id = client.register_agent("ECSAgent", "a", ["prod"], config_id)
    assert client.get_agent_config(config_id) == {"polling": 1}
    (agent,) = own.api.store.agents()
    assert (agent.id, agent.type, agent.labels) == (agent_id, "ECSAgent", ["prod"])
    assert agent.core_version == prefect.__version__


def test_client_with_an_api_key(own: Raw, client: prefect.Client) -> None:
    with set_temporary_config({"backend": "cloud", "cloud.api_key": "k"}):
        assert prefect.Client().tenant_id == own.api.store.tenant_id


def test_client_schedules(own: Raw, client: prefect.Client, flow: Flow) -> None:
    store = own.api.store
    client.create_project("farm")
    flow.schedule = IntervalSchedule(
        start_date=pendulum.now("utc").add(seconds=30),
        interval=datetime.timedelta(hours=1),
    )
    flow_id = client.register(flow, "farm")
    runs = store.flow_runs()
    starts = sorted(run.scheduled_start_time for run in runs)
    assert len(runs) == 10
    assert all(run.auto_scheduled and run.labels == ["prod"] for run in runs)
    assert {b - a for a, b in zip(starts, starts[1:])} == {datetime.timedelta(hours=1)}
    store.set_schedule_active(flow_id)
    assert len(store.flow_runs()) == 10
    store.set_flow_run_state(runs[0].id, {"type": "Running"})
    store.set_schedule_inactive(flow_id)
    assert [run.id for run in store.flow_runs()] == [runs[0].id]
    client.register(flow, "farm", set_schedule_active=False)
    assert len(store.flow_runs()) == 1


# ------------------------------------------------ Prefect's command line


def command(*arguments: str) -> str:
    """The output of a command of `prefect`, run in this process."""
    from prefect.cli import cli

    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_command_line_reads(own: Raw, client: prefect.Client, registered: str) -> None:
    run_id = client.create_flow_run(registered, run_name="sowing", labels=["prod"])
    own.write_logs([{"flow_run_id": run_id, "message": "soil is dry"}])
    own.set_state(run_id, {"type": "Running"})
    own.register_agent("prod")
    assert "doubling" in command("get", "flows")
    assert "doubling" in command("get", "flows", "--all-versions", "--project", "farm")
    assert command("get", "projects").splitlines()[1].split()[:2] == ["farm", "1"]
    assert "sowing" in command("get", "flow-runs", "--flow", "doubling")
    assert "sowing" in command("get", "flow-runs", "--started", "--project", "farm")
    assert "double" in command("get", "tasks", "--flow-name", "doubling")
    assert "soil is dry" in command("get", "logs", "--name", "sowing")
    command("get", "logs", "--id", run_id, "--info")
    described = json.loads(command("describe", "flows", "--name", "doubling"))
    assert described["project"] == {"name": "farm"}
    described = json.loads(command("describe", "flow-runs", "--name", "sowing"))
    assert described["serialized_state"]["type"] == "Running"
    tasks = json.loads(command("describe", "tasks", "--name", "doubling"))
    assert {each["name"]: each["mapped"] for each in tasks} == {
        "double": True,
        "numbers": False,
    }


def test_command_line_writes(own: Raw, client: prefect.Client, registered: str) -> None:
    assert "created" in command("create", "project", "barn")
    run_id = command(
        *("run", "--name", "doubling", "--project", "farm", "--quiet"),
        *("--param", "numbers=[5]", "--label", "barn", "--run-name", "threshing"),
    ).strip()
    run = own.api.store.flow_run(run_id)
    assert (run.name, run.labels, run.parameters) == (
        "threshing",
        ["barn"],
        {"numbers": [5]},
    )
    assert "deleted" in command("delete", "project", "farm")
    with pytest.raises(Refused, match="not found"):
        own.api.store.flow_run(run_id)


# ------------------------------------------------ real runs, in processes of their own

FLOWS = """
import datetime
import time

import prefect
from prefect import Flow, Parameter, task
from prefect.backend import create_link_artifact
from prefect.engine.results import LocalResult
from prefect.tasks.prefect import create_flow_run


@task
def count(upto):
    prefect.context.logger.info("counting up to %s", upto)
    create_link_artifact("https://example.com")
    return list(range(upto))


@task(max_retries=1, retry_delay=datetime.timedelta(0), task_run_name="try {number}")
def stumble(number):
    if number == 1 and prefect.context.task_run_count == 1:
        raise RuntimeError("stumbled")
    return 10 * number


@task
def total(numbers):
    return sum(numbers)


@task
def fail():
    raise RuntimeError("no rain")


@task
def wait():
    time.sleep(60)


result = LocalResult(dir=".")
with Flow("counting", result=result) as counting:
    total(stumble.map(count(Parameter("upto", default=2))))

with Flow("failing", result=result) as failing:
    total(fail())

with Flow("waiting", result=result) as waiting:
    wait()

with Flow("parent", result=result) as parent:
    create_flow_run(flow_name="counting", project_name="field", labels=["child"])
"""


class Field:
    """A directory with flows, registered by `prefect register`."""

    def __init__(self, api: PrefectAPI, home: Path) -> None:
        self.api = api
        self.home = home
        self.file = home / "flows.py"
        self.file.write_text(FLOWS)
        api.store.create_project("field")

    def environment(self, **more: str) -> Dict[str, str]:
        """Nothing of this user's settings, all that an agent sets (see 7 in the
        effective task), and no waiting where Prefect waits by default."""
        return {
            "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.defpath]),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "HOME": str(self.home),
            "PREFECT__BACKEND": "server",
            "PREFECT__HOME_DIR": str(self.home),
            "PREFECT__USER_CONFIG_PATH": str(self.home / "config.toml"),
            "PREFECT__SERVER__ENDPOINT": self.api.url,
            "PREFECT__FLOWS__DEFAULTS__STORAGE__ADD_DEFAULT_LABELS": "false",
            "PREFECT__CLOUD__API": self.api.url,
            "PREFECT__CLOUD__API_KEY": "",
            "PREFECT__CLOUD__TENANT_ID": "",
            "PREFECT__CLOUD__AGENT__LABELS": "[]",
            "PREFECT__CLOUD__USE_LOCAL_SECRETS": "false",
            "PREFECT__CLOUD__SEND_FLOW_RUN_LOGS": "true",
            "PREFECT__CLOUD__HEARTBEAT_INTERVAL": "0.1",
            "PREFECT__CLOUD__CHECK_CANCELLATION_INTERVAL": "0.1",
            "PREFECT__ENGINE__FLOW_RUNNER__DEFAULT_CLASS": (
                "prefect.engine.cloud.CloudFlowRunner"
            ),
            **more,
        }

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "prefect", *arguments],
            cwd=self.home,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def prefect(self, *arguments: str, **environment: str) -> str:
        """Runs a command to its end, which must be a good one."""
        process = self.start(*arguments, **environment)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
        return output

    def run(self, flow: str, **more: Any) -> str:
        (row,) = (
            row
            for row in self.api.store.tables["flow"].having("name", [flow])
            if not row["archived"]
        )
        return self.api.store.create_flow_run(row["id"], **more)

    def of_run(self, run_id: str) -> Dict[str, str]:
        run = self.api.store.flow_run(run_id)
        return {
            "PREFECT__CONTEXT__FLOW_RUN_ID": run_id,
            "PREFECT__CONTEXT__FLOW_ID": run.flow_id,
        }

    def execute(self, run_id: str) -> None:
        self.prefect("execute", "flow-run", **self.of_run(run_id))

    def states(self, run_id: str) -> List[str]:
        return [state.state for state in self.api.store.states(run_id)]

    def task_states(self, run_id: str) -> Dict[str, str]:
        return {
            f"{each.task_slug}[{each.map_index}]": each.state
            for each in self.api.store.task_runs(run_id)
        }

    def lines(self, run_id: str) -> List[str]:
        return [log.message for log in self.api.store.logs(run_id)]


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    with PrefectAPI() as api:
        field = Field(api, tmp_path_factory.mktemp("field"))
        field.prefect("register", "--project", "field", "--path", str(field.file))
        yield field


def test_prefect_register_twice_skips(field: Field) -> None:
    arguments = ("register", "--project", "field", "--path", str(field.file))
    output = field.prefect(*arguments)
    assert "0 registered, 4 skipped" in output
    versions = {row["name"]: row["version"] for row in field.api.store.tables["flow"]}
    assert versions == {"counting": 1, "failing": 1, "waiting": 1, "parent": 1}


def test_executed_run_with_parameters_mapped_tasks_and_a_retry(field: Field) -> None:
    run_id = field.run("counting", parameters={"upto": 3})
    field.execute(run_id)
    run = field.api.store.flow_run(run_id)
    assert field.states(run_id) == ["Pending", "Scheduled", "Running", "Success"]
    assert run.heartbeat is not None
    assert field.task_states(run_id) == {
        "upto[-1]": "Success",
        "count-1[-1]": "Success",
        "stumble-1[-1]": "Mapped",
        "stumble-1[0]": "Success",
        "stumble-1[1]": "Success",
        "stumble-1[2]": "Success",
        "total-1[-1]": "Success",
    }
    lines = field.lines(run_id)
    assert lines[0] == "Beginning Flow run for 'counting'"
    assert "counting up to 3" in lines
    assert lines[-1] == "Flow run SUCCESS: all reference tasks succeeded"
    names = {each.name for each in field.api.store.task_runs(run_id)}
    assert {"try 0", "try 1", "try 2"} <= names
    tables = field.api.store.tables
    assert [row["kind"] for row in tables["task_run_artifact"]] == ["link"]
    retries = [
        row["state"]
        for task_run in field.api.store.task_runs(run_id)
        for row in tables["task_run_state"].having("task_run_id", [task_run.id])
    ]
    assert retries.count("Retrying") == 1


def test_executed_run_that_fails(field: Field) -> None:
    run_id = field.run("failing")
    field.execute(run_id)
    run = field.api.store.flow_run(run_id)
    assert (run.state, run.state_message) == (
        "Failed",
        "Some reference tasks failed.",
    )
    assert field.task_states(run_id) == {
        "fail-1[-1]": "Failed",
        "total-1[-1]": "TriggerFailed",
    }
    levels = {log.level for log in field.api.store.logs(run_id)}
    assert levels == {"INFO", "ERROR"}


def test_executed_run_that_is_cancelled(field: Field) -> None:
    run_id = field.run("waiting")
    process = field.start("execute", "flow-run", **field.of_run(run_id))
    until(lambda: field.task_states(run_id) == {"wait-1[-1]": "Running"})
    answer = Raw(field.api).cancel(run_id)
    assert answer == (200, {"data": {"cancel_flow_run": {"state": "Cancelling"}}})
    output, _ = process.communicate(timeout=30)
    assert field.states(run_id)[-3:] == ["Running", "Cancelling", "Cancelled"], output


def test_executed_run_that_was_cancelled_before(field: Field) -> None:
    run_id = field.run("counting")
    Raw(field.api).cancel(run_id)
    field.execute(run_id)
    assert field.states(run_id) == ["Pending", "Scheduled", "Cancelled"]


def test_an_agent_runs_a_flow_that_creates_another_ones_run(field: Field) -> None:
    """Prefect's own local agent, given two polls; its runs outlive it."""
    run_id = field.run("parent", labels=["here"])
    output = field.prefect(
        *("agent", "local", "start", "--max-polls", "1", "--no-hostname-label"),
        *("--name", "local", "--label", "here"),
    )
    until(lambda: field.api.store.flow_run(run_id).state == "Success")
    run = field.api.store.flow_run(run_id)
    assert field.states(run_id) == [
        "Pending",
        "Scheduled",
        "Submitted",
        "Running",
        "Success",
    ], output
    agents = {agent.id: agent for agent in field.api.store.agents()}
    assert run.agent_id is not None
    assert agents[run.agent_id].type == "LocalAgent"
    (child,) = (
        each for each in field.api.store.flow_runs() if each.labels == ["child"]
    )
    assert (child.flow_name, child.state) == ("counting", "Scheduled")


def test_heartbeat_command(field: Field) -> None:
    run_id = field.run("counting")
    field.prefect("heartbeat", "flow-run", "--id", run_id, "--num", "2")
    assert field.api.store.flow_run(run_id).heartbeat is not None
