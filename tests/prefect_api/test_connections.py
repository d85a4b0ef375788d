"""How requests reach the Prefect API: kept connections, time-outs, rate limits."""

from __future__ import annotations

import datetime
import email.utils
import json
import socket
import threading
from typing import Any, Callable, Iterator, List, Optional

import pytest
import requests
from prefect.exceptions import ClientError
from prefect.utilities.configuration import set_temporary_config

from prefect_ecs_plugin.errors import RateLimited
from prefect_ecs_plugin.prefect_api.client import AgentClient
from prefect_ecs_plugin.prefect_api.connections import retry_after

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
    """

    def __init__(self, *plan: Act) -> None:
        self._plan = list(plan)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.asked: List[int] = []
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
            while _read_request(stream):
                with self._lock:
                    self.asked.append(number)
                    act = self._plan.pop(0) if self._plan else say(answer())
                if not act(connection, self._over):
                    connection.shutdown(socket.SHUT_RDWR)
                    return


def _read_request(stream: Any) -> bool:
    """Whether a whole request came."""
    length = 0
    while True:
        line = stream.readline()
        if not line:
            return False
        name, _, value = line.decode().partition(":")
        if name.lower() == "content-length":
            length = int(value)
        if not line.strip():
            return len(stream.read(length)) == length


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
