"""How requests reach the Prefect API: kept connections, time-outs, rate limits."""

from __future__ import annotations

import datetime
import email.utils
import json
import socket
import threading
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import pendulum
import prefect
import pytest
import requests
from prefect.exceptions import ClientError
from prefect.utilities.configuration import set_temporary_config

from prefect_ecs_plugin.errors import RateLimited
from prefect_ecs_plugin.observability.counters import AgentCounters, Answered
from prefect_ecs_plugin.prefect_api.client import AgentClient
from prefect_ecs_plugin.prefect_api.connections import LeanPost, retry_after

HELLO = b'{"data": {"hello": "hi"}}'


def answer(body: bytes = HELLO, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


#: What becomes of the connection after a request was read.
Act = Callable[[socket.socket, threading.Event], bool]


def say(text: bytes) -> Act:
    """Answer, and read the next request."""

    def act(connection: socket.socket, over: threading.Event) -> bool:
        connection.sendall(text)
        return True

    return act


def hold_back(connection: socket.socket, over: threading.Event) -> bool:
    """Answer nothing for as long as the test takes."""
    over.wait()
    return False


def hang_up(connection: socket.socket, over: threading.Event) -> bool:
    return False


class Server:
    """Reads requests and does with each what the test has planned.

    Attributes:
        asked: For each request, the number of its connection.
        heads: Their first lines and headers.
        bodies: Their bodies.
    """

    def __init__(self, *plan: Act) -> None:
        self._plan = list(plan)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.asked: List[int] = []
        self.heads: List[Dict[str, str]] = []
        self.bodies: List[Any] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        self._over.set()
        self._listener.close()

    def _accept(self) -> None:
        number = 0
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            number += 1
            args = (connection, number)
            threading.Thread(target=self._serve, args=args, daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection, connection.makefile("rb") as stream:
            while True:
                request = _read_request(stream)
                if request is None:
                    return
                with self._lock:
                    self.asked.append(number)
                    self.heads.append(request[0])
                    self.bodies.append(json.loads(request[1]))
                    act = self._plan.pop(0) if self._plan else say(answer())
                if not act(connection, self._over):
                    connection.shutdown(socket.SHUT_RDWR)
                    return


def _read_request(stream: Any) -> Optional[Tuple[Dict[str, str], bytes]]:
    """The head and the body of a request; None if no whole one came."""
    head: Dict[str, str] = {"": stream.readline().decode().strip()}
    while True:
        line = stream.readline().decode()
        if not line:
            return None
        name, _, value = line.partition(":")
        if not line.strip():
            length = int(head["content-length"])
            body = stream.read(length)
            return (head, body) if len(body) == length else None
        head[name.lower()] = value.strip()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: List[Server] = []

    def start(*plan: Act) -> Server:
        servers.append(Server(*plan))
        return servers[-1]

    with set_temporary_config({"cloud.request_timeout": 0.5, "cloud.api_key": None}):
        yield start
    for server in servers:
        server.close()


def client_of(server: Server) -> AgentClient:
    return AgentClient(api_server=server.url)


def ask(client: AgentClient) -> Any:
    return client.ask("query { hello }")["hello"]


def test_connections_are_kept(serve: Any) -> None:
    server = serve()
    client = client_of(server)
    assert [ask(client) for _ in range(3)] == ["hi"] * 3
    assert server.asked == [1, 1, 1]


@pytest.mark.parametrize("before", [0, 1])
def test_a_request_that_timed_out_is_not_sent_again(serve: Any, before: int) -> None:
    server = serve(*[say(answer())] * before, hold_back)
    client = client_of(server)
    for _ in range(before):
        ask(client)
    with pytest.raises(requests.Timeout):
        ask(client)
    assert ask(client) == "hi"  # on a new connection, to which nothing was sent before
    assert server.asked == [1] * before + [1, 2]


def test_a_kept_connection_that_the_api_closes_is_replaced_once(serve: Any) -> None:
    server = serve(say(answer()), hang_up)
    client = client_of(server)
    assert [ask(client), ask(client)] == ["hi", "hi"]
    assert server.asked == [1, 1, 2]


def test_a_request_is_sent_twice_at_most(serve: Any) -> None:
    server = serve(say(answer()), hang_up, hang_up)
    client = client_of(server)
    ask(client)
    with pytest.raises(requests.ConnectionError):
        ask(client)
    assert server.asked == [1, 1, 2]


def test_a_new_connection_that_the_api_closes_is_an_error(serve: Any) -> None:
    """The API may have done what was asked before it died."""
    server = serve(hang_up)
    with pytest.raises(requests.ConnectionError):
        ask(client_of(server))
    assert server.asked == [1]


@pytest.mark.parametrize("status", ["500 Broken", "503 Down"])
def test_server_errors_are_not_asked_again(serve: Any, status: str) -> None:
    server = serve(say(answer(b"", status)))
    with pytest.raises(requests.HTTPError):
        ask(client_of(server))
    assert server.asked == [1]


def test_api_errors_are_not_asked_again(serve: Any) -> None:
    """Prefect's client asks six times more, and sleeps sixteen seconds for it."""
    broken = {"errors": [{"message": "x", "extensions": {"code": "API_ERROR"}}]}
    server = serve(*[say(answer(json.dumps(broken).encode()))] * 2)
    client = client_of(server)
    with pytest.raises(ClientError):
        ask(client)
    with pytest.raises(ClientError):
        client.graphql("query { hello }")
    assert len(server.asked) == 2


def test_a_rate_limit_is_raised_and_kept_by_all_threads(serve: Any) -> None:
    limited = answer(b"slow down", "429 Too Many Requests", "Retry-After: 200")
    server = serve(say(limited))
    client = client_of(server)
    with pytest.raises(RateLimited) as first:
        ask(client)
    assert first.value.retry_after == 200
    assert "429" in str(first.value)
    caught: List[BaseException] = []

    def in_another_thread() -> None:
        try:
            client.graphql("query { hello }")
        except RateLimited as error:
            caught.append(error)

    thread = threading.Thread(target=in_another_thread)
    thread.start()
    thread.join()
    (second,) = caught
    assert isinstance(second, RateLimited)
    assert 0 < second.retry_after <= 200
    assert server.asked == [1]


def test_the_api_is_asked_again_after_the_rate_limit(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = answer(b"", "429 Too Many Requests", "Retry-After: 200")
    server = serve(say(limited))
    client = client_of(server)
    with pytest.raises(RateLimited) as caught:
        ask(client)
    client._quiet_until -= caught.value.retry_after
    assert ask(client) == "hi"
    assert len(server.asked) == 2


# -- Looks at the queue ---------------------------------------------------------------

QUEUE = answer(b'{"data": {"get_runs_in_queue": {"flow_run_ids": ["a"]}}}')
TENANT = "5b9b1a3c-7d5e-4c5e-9d0a-3a9f5f8f1a11"

#: What a look can do without.
DISPENSABLE = {"accept-encoding", "connection"}


@pytest.fixture
def looker(
    serve: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Tuple[Server, AgentClient]]:
    """Makes servers, and clients that have looked at their queue once."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    def make(*plan: Act, **options: Any) -> Tuple[Server, AgentClient]:
        server = serve(say(QUEUE), *plan)
        client = AgentClient(
            api_server=server.url, tenant_id=TENANT, counts=AgentCounters(), **options
        )
        client.attach_headers({"X-PREFECT-AGENT-ID": "an-agent"})
        assert client.ready_runs(["x"]) == ["a"]
        return server, client

    return make


@pytest.mark.parametrize(
    "options, netrc, authorization",
    [
        ({}, "", None),
        ({"api_key": "k"}, "", "Bearer k"),
        ({}, "machine 127.0.0.1 login me password it\n", "Basic bWU6aXQ="),
    ],
)
def test_all_looks_send_the_same_over_one_connection(
    looker: Any, tmp_path: Path, options: Any, netrc: str, authorization: Optional[str]
) -> None:
    (tmp_path / "netrc").write_text(netrc)
    server, client = looker(*[say(QUEUE)] * 3, **options)
    assert [client.ready_runs(["x"]) for _ in range(3)] == [["a"]] * 3
    assert server.asked == [1, 2, 2, 2]
    first, *others = [
        {name: each for name, each in head.items() if name not in DISPENSABLE}
        for head in server.heads
    ]
    inputs = [json.loads(body["variables"])["input"] for body in server.bodies]
    assert all(pendulum.parse(each.pop("before")) for each in inputs)
    assert inputs == [{"labels": ["x"], "tenant_id": TENANT}] * 4
    assert others == [first] * 3
    assert first.get("authorization") == authorization
    assert first.get("x-prefect-tenant-id") == (TENANT if options else None)
    assert first["x-prefect-agent-id"] == "an-agent"
    assert first["x-prefect-core-version"] == prefect.__version__
    assert client._requests.items()[(Answered.OK,)] == 4


def test_a_look_has_the_id_under_which_the_agent_is_registered_now(looker: Any) -> None:
    server, client = looker(*[say(QUEUE)] * 2)
    client.ready_runs([])
    client.attach_headers({"X-PREFECT-AGENT-ID": "another"})
    client.ready_runs([])
    ids = [head["x-prefect-agent-id"] for head in server.heads]
    assert ids == ["an-agent", "an-agent", "another"]


ERROR = say(answer(b'{"errors": [{"message": "x"}]}'))
PARTLY = say(answer(b'{"errors": [{"message": "x"}], "data": {"x": null}}'))


@pytest.mark.parametrize(
    "plan, error, asked",
    [
        ([hang_up], None, 2),
        ([say(answer(b"<html>"))], None, 2),
        ([ERROR], None, 2),
        ([say(answer(b"", "307 Moved", "Location: /x"))] * 2, None, 3),
        ([say(answer(b"no", "503 Down"))] * 2, requests.HTTPError, 2),
        ([say(answer(b"no", "401 Unauthorized"))] * 2, requests.HTTPError, 2),
        ([say(answer(b"{}", "400 Bad Request"))] * 2, ClientError, 2),
        ([say(answer(b"<html>"))] * 2, ClientError, 2),
        ([ERROR] * 2, ClientError, 2),
        ([PARTLY] * 2, ClientError, 2),
        ([hold_back], requests.Timeout, 1),
        ([say(answer(b"", "429 Too Many", "Retry-After: 9"))], RateLimited, 1),
    ],
)
def test_a_look_that_is_not_answered_well_is_left_to_requests(
    looker: Any, plan: List[Act], error: Any, asked: int
) -> None:
    """Its redirects and errors are those of any other request."""
    server, client = looker(*plan, *[say(QUEUE)] * 2)
    if error is None:
        assert client.ready_runs([]) == ["a"]
    else:
        with pytest.raises(error):
            client.ready_runs([])
    assert len(server.asked) == 1 + asked


def test_in_an_outage_each_look_is_one_request(looker: Any) -> None:
    server, client = looker(*[say(answer(b"", "503 Down"))] * 4)
    for _ in range(3):
        with pytest.raises(requests.HTTPError):
            client.ready_runs([])
    assert len(server.asked) == 1 + 2 + 1 + 1


def test_no_look_before_the_time_of_a_rate_limit(looker: Any) -> None:
    server, client = looker(say(answer(b"", "429 Too Many", "Retry-After: 9")))
    for _ in range(2):
        with pytest.raises(RateLimited):
            client.ready_runs([])
    assert len(server.asked) == 2
    assert client._requests.items()[(Answered.THROTTLED,)] == 1


@pytest.mark.parametrize("spared, looks", [("", [0, 2]), ("127.0.0.1", [2, 0])])
def test_looks_go_through_the_proxy(
    serve: Any, looker: Any, monkeypatch: pytest.MonkeyPatch, spared: str, looks: Any
) -> None:
    proxy = serve(*[say(QUEUE)] * 2)
    monkeypatch.setenv("NO_PROXY", spared)
    monkeypatch.setenv("no_proxy", spared)
    monkeypatch.setenv("http_proxy", proxy.url)
    server, client = looker(say(QUEUE))
    client.ready_runs([])
    assert [len(server.asked), len(proxy.asked)] == looks


def test_https_is_left_to_requests(serve: Any) -> None:
    """It knows which certificates count."""
    server, counter = serve(), AgentCounters().api_requests
    url = server.url.replace("http:", "https:")
    assert LeanPost(url, {}, 1.0, counter).send({}) is None
    assert server.asked == []


def test_prefects_diagnostics_see_all_looks(looker: Any) -> None:
    with set_temporary_config({"cloud.diagnostics": True}):
        server, client = looker(say(QUEUE))
        client.ready_runs([])
    assert server.asked == [1, 1]


@pytest.mark.parametrize(
    "header, least, most",
    [
        (None, 15, 15),
        ("", 15, 15),
        ("20", 20, 20),
        (" 20 ", 20, 20),
        ("0", 1, 1),
        ("600", 300, 300),
        ("9" * 400, 300, 300),
        ("-5", 15, 15),
        ("1.5", 15, 15),
        ("soon", 15, 15),
        ("\u00b2", 15, 15),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 300, 300),
        ("Wed, 99 Nov 1994 08:49:37 GMT", 15, 15),
    ],
)
def test_retry_after(header: Optional[str], least: float, most: float) -> None:
    assert least <= retry_after(header) <= most


@pytest.mark.parametrize(
    "seconds, least, most", [(-60, 1, 1), (200, 1, 201), (7200, 300, 300)]
)
def test_retry_after_a_date(seconds: float, least: float, most: float) -> None:
    moment = datetime.datetime.now(datetime.timezone.utc)
    date = moment + datetime.timedelta(seconds=seconds)
    assert least <= retry_after(email.utils.format_datetime(date)) <= most
