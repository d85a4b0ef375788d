"""The agent's own address under malicious requests."""

from __future__ import annotations

import contextlib
import socket
from typing import Iterator, List, Tuple

import pytest

from prefect_ecs_plugin.observability import health
from prefect_ecs_plugin.observability.health import AgentServer, Health

Address = Tuple[str, int]


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[Address]:
    """Where an agent is served."""
    free = socket.socket()
    free.bind(("127.0.0.1", 0))
    monkeypatch.setattr(health, "listen", lambda _: [free])
    free.listen(128)
    free.setblocking(False)
    well = Health(slowest_step=lambda: 0.0, reasons=[])
    server = AgentServer("http://127.0.0.1:1", well, lambda: None)
    server.start()
    yield free.getsockname()
    server.stop()


def connect(address: Address, sent: bytes = b"") -> socket.socket:
    made = socket.create_connection(address, timeout=60)
    made.sendall(sent)
    return made


def answer(connection: socket.socket) -> bytes:
    """All that comes until the other side closes the connection."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while True:
            part = connection.recv(65536)
            if not part:
                break
            received += part
    return received


def is_well(address: Address) -> bool:
    request = b"GET /api/health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with connect(address, request) as connection:
        return answer(connection).startswith(b"HTTP/1.1 200 OK")


def post(length: int) -> bytes:
    return (
        f"POST /api/health HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def test_a_body_is_not_read_beyond_a_kibibyte(address: Address) -> None:
    with connect(address, post(30 * 1024 * 1024)) as connection:
        assert answer(connection).startswith(b"HTTP/1.1 400")
    assert is_well(address)


def test_a_chunked_body_is_not_read_beyond_a_kibibyte(address: Address) -> None:
    head = b"POST /api/health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connect(address, head + b"2000000\r\n") as connection:
        assert answer(connection).startswith((b"HTTP/1.1 400", b""))
    assert is_well(address)


def test_a_body_that_does_not_come_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    assert health.BODY_TIMEOUT == 5
    monkeypatch.setattr(health, "BODY_TIMEOUT", 0.1)
    with connect(request.getfixturevalue("address"), post(1000)) as connection:
        answer(connection)  # it ends


def test_an_idle_connection_is_closed(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    assert health.IDLE_TIMEOUT == 30
    monkeypatch.setattr(health, "IDLE_TIMEOUT", 0.1)
    with connect(request.getfixturevalue("address"), b"GET /api/he") as connection:
        assert answer(connection) == b""


def test_many_connections_do_not_keep_others_from_asking(address: Address) -> None:
    """The oldest ones are closed, and 64 are left."""
    held: List[socket.socket] = [connect(address, post(1000)) for _ in range(100)]
    assert is_well(address)
    for connection in held[:36]:
        assert answer(connection) == b""
    held[-1].sendall(b"x" * 1000)
    assert held[-1].recv(100).startswith(b"HTTP/1.1 405")
    for connection in held:
        connection.close()
