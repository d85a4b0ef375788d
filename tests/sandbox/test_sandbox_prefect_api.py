"""The sandbox's Prefect API over HTTP. What was observed on the real server is asserted
line by line, in the order and the words of the record."""

from __future__ import annotations

import http.client
import inspect
import json
import threading
import uuid
from typing import Any, Dict, Iterator, List, Optional

import pytest
import requests
from sandbox_prefect import (
    HTTP,
    Raw,
    failed,
    new_flow,
    state_refused,
    state_set,
    until,
)

from prefect_ecs_plugin.sandbox.prefect_api import (
    Event,
    Fault,
    LogWritten,
    PrefectAPI,
    StateChanged,
    Store,
)
from prefect_ecs_plugin.sandbox.prefect_api.resolvers import executable_schema
from prefect_ecs_plugin.sandbox.prefect_api.schema import COLUMNS, FIELDS
from prefect_ecs_plugin.sandbox.prefect_api.tables import RELATIONS

AS_JSON = {"Content-Type": "application/json"}
SUBMITTED = "State update failed: this run has already been submitted."


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
def own() -> Iterator[Raw]:
    with PrefectAPI() as api:
        yield Raw(api)


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
    assert run.heartbeat is not None
    assert run.heartbeat >= run.state_timestamp


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
    (error,) = body["errors"]
    assert status == 400
    assert error["extensions"] == {"code": "GRAPHQL_VALIDATION_FAILED"}
    assert error["locations"] == [{"column": 8, "line": 1}]


def test_observed_unknown_input(raw: Raw) -> None:
    status, body = raw.ask('mutation{register_agent(input:{nope:1,tenant_id:"x"}){id}}')
    assert status == 400
    assert [error["locations"][0]["column"] for error in body["errors"]] == [31, 32]
    codes = {error["extensions"]["code"] for error in body["errors"]}
    assert codes == {"GRAPHQL_VALIDATION_FAILED"}


def test_observed_log_as_dict_not_list(raw: Raw, run_id: str) -> None:
    log = {"flow_run_id": run_id, "message": "hi", "level": "ERROR", "name": "me"}
    answer = raw.write_logs(log)
    assert answer == (200, {"data": {"write_run_logs": {"success": True}}})
    (kept,) = raw.api.store.logs(run_id)
    assert (kept.level, kept.name, kept.message) == ("ERROR", "me", "hi")


def test_observed_log_bad_level(raw: Raw, run_id: str) -> None:
    status, body = raw.write_logs([{"flow_run_id": run_id, "level": "NOTICE"}])
    (error,) = body["errors"]
    assert status == 400
    assert "NOTICE" in error["message"]
    assert error["locations"] == [{"column": 10, "line": 1}]


def test_observed_log_unknown_run(raw: Raw, run_id: str) -> None:
    unknown = {"flow_run_id": str(uuid.uuid4()), "message": "hi"}
    answer = raw.write_logs([{"flow_run_id": run_id, "message": "hi"}, unknown])
    assert answer == (200, failed("write_run_logs", "Foreign key violation.", 36))
    assert raw.api.store.logs(run_id) == []


def test_log_of_an_unknown_task_run(raw: Raw, run_id: str) -> None:
    log = {"flow_run_id": run_id, "task_run_id": str(uuid.uuid4()), "message": "hi"}
    answer = raw.write_logs([log])
    assert answer == (200, failed("write_run_logs", "Foreign key violation.", 36))


@pytest.mark.parametrize("is_chunked", [False, True])
def test_observed_log_6_mb(raw: Raw, is_chunked: bool) -> None:
    whole = b'"' + b"x" * 6_000_000 + b'"'
    data: Any = iter([whole[:1000], whole[1000:]]) if is_chunked else whole
    response = HTTP.post(raw.api.url, data=data, headers=AS_JSON)
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


# ------------------------------------------------ refusing what is not known


@pytest.mark.parametrize(
    "query, variables, name",
    [
        ("{", {}, "Expected Name"),
        ("{flow_run{xyz}}", {}, "xyz"),
        ("mutation{nope}", {}, "nope"),
        ("{flow_run(wher:{}){id}}", {}, "wher"),
        ("{flow_run(where:{nam:{}}){id}}", {}, "nam"),
        ("{flow_run(where:{name:{_regex:1}}){id}}", {}, "_regex"),
        ("query($s:Strin){tenant(where:{slug:{_eq:$s}}){id}}", {"s": "x"}, "Strin"),
    ],
)
def test_refuses_what_the_schema_lacks(
    raw: Raw, query: str, variables: Any, name: str
) -> None:
    status, body = raw.ask(query, **variables)
    assert status == 400
    assert "data" not in body
    assert any(name in error["message"] for error in body["errors"])


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


def test_a_bug_is_told_and_a_refusal_is_not(
    raw: Raw, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    unknown = str(uuid.uuid4())
    raw.set_state(unknown, {"type": "Running"})
    assert caplog.text == ""
    monkeypatch.setattr(Store, "set_flow_run_states", lambda *_, **__: 1 / 0)
    answer = raw.set_state(unknown, {"type": "Running"})
    assert answer == state_refused("division by zero")
    assert "a resolver is broken" in caplog.text


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
    response = HTTP.post(
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
    response = HTTP.post(raw.api.url, data=body, headers=AS_JSON)
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
    response = HTTP.get(raw.api.url + path)
    assert (response.status_code, response.json()) == (status, body)


def test_connections_are_kept_alive(raw: Raw) -> None:
    connection = http.client.HTTPConnection(raw.api.address[len("http://") :])
    sockets = []
    for _ in range(2):
        body = json.dumps({"query": "{hello}"})
        connection.request("POST", f"/{raw.api.token}", body, AS_JSON)
        assert connection.getresponse().read().startswith(b'{"data"')
        sockets.append(connection.sock)
    assert sockets[0] is sockets[1] is not None


def test_listens_on_loopback_only(raw: Raw) -> None:
    assert raw.api.url.startswith("http://127.0.0.1:")


def test_stop_hangs_up_and_start_comes_back_on_the_same_port() -> None:
    with PrefectAPI() as api:
        url, session = api.url, HTTP
        assert session.get(url).ok
        api.stop()
        with pytest.raises(requests.ConnectionError):
            session.get(url)
        api.start()
        assert api.url == url
        assert session.get(url).ok


# ------------------------------------------------ faults, counting, events


def heartbeat(raw: Raw, run_id: str) -> requests.Response:
    query = (
        "mutation{update_flow_run_heartbeat"
        f'(input:{{flow_run_id:"{run_id}"}}){{success}}}}'
    )
    return HTTP.post(raw.api.url, json={"query": query})


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
    own.write_logs(
        [
            {"flow_run_id": run_id, "message": "hi", "name": "me"},
            {"flow_run_id": run_id, "message": "ho", "level": "ERROR"},
        ]
    )
    until(lambda: len(heard) == 4)
    end()
    own.set_state(run_id, {"type": "Running"})
    hi, ho = store.logs(run_id)
    times = [state.timestamp for state in store.states(run_id)]
    common = ("nightly", "Scheduled", "Flow run scheduled.", 1, times[1], None)
    assert heard == [
        StateChanged(run_id, "tonight", *common),
        StateChanged(
            run_id, "tonight", "nightly", "Submitted", "mine", 2, times[2], agent_id
        ),
        LogWritten(run_id, None, hi.timestamp, "INFO", "me", "hi"),
        LogWritten(run_id, None, ho.timestamp, "ERROR", None, "ho"),
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
