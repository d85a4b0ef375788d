"""A small HTTP/1.1 server on loopback that keeps connections open.

The SDKs of AWS keep a connection for the next call, so this server does too;
werkzeug's own closes it after every answer. An application is any function from
`Request` to `Response`. It may raise `DropConnection`: then the client sees what
it would see if the network failed between the request and the answer.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Callable, Dict, Set, Tuple
from urllib.parse import urlsplit

from prefect_ecs_plugin.sandbox.access import LocalHandler


class DropConnection(Exception):
    """The application wants this connection to end without an answer."""


@dataclass(frozen=True)
class Request:
    """What a client sent, body included.

    Attributes:
        method: GET, POST, ...
        target: The path with its query, as sent.
        headers: Lower-case names; of a repeated header the last value.
        body: The whole body, chunks put together.
    """

    method: str
    target: str
    headers: Dict[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        """The path as sent, still quoted, without the query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> str:
        """What follows the question mark."""
        return urlsplit(self.target).query


@dataclass(frozen=True)
class Response:
    """What goes back; the length is added by the server."""

    status: int
    headers: Tuple[Tuple[str, str], ...] = ()
    body: bytes = field(default=b"", repr=False)


Application = Callable[[Request], Response]


class HttpServer:
    """Serves one application on 127.0.0.1, a thread for each connection.

    It has its port as soon as it is made, and answers once it is started.
    """

    def __init__(self) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.05},
            name="sandbox-aws-http",
            daemon=True,
        )

    def start(self, application: Application) -> None:
        """Answer.

        Args:
            application: Answers the requests; called from many threads at once.
        """
        self._server.application = application
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens: `http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        """Stop listening and end every connection, the idle ones included."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        self._server.end_connections()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A burst of new connections waits here instead of being refused.
    request_queue_size = 1024

    application: Application

    def __init__(self, *arguments: Any) -> None:
        self._connections: Set[socket.socket] = set()
        self._connections_lock = threading.Lock()
        super().__init__(*arguments)

    def server_bind(self) -> None:
        # HTTPServer asks DNS for the host's name here; a laptop may wait for it.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.socket.getsockname()[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._connections_lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._connections_lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        with self._connections_lock:
            connections = list(self._connections)
        for connection in connections:
            _shut(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(LocalHandler):
    protocol_version = "HTTP/1.1"
    server_version = "sandbox"
    sys_version = ""
    # One packet for headers and body: otherwise Nagle's algorithm and the
    # client's delayed acknowledgement cost 40 ms each time.
    wbufsize = -1
    disable_nagle_algorithm = True

    server: _Server

    def answer(self) -> None:
        try:
            response = self.server.application(self._request())
        except DropConnection:
            self.close_connection = True
            _shut(self.connection)
            return
        self._send(response)

    def __getattr__(self, name: str) -> Any:
        # http.server looks for do_GET, do_POST and so on.
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def _request(self) -> Request:
        headers = {name.lower(): value for name, value in self.headers.items()}
        return Request(self.command, self.path, headers, self._body(headers))

    def _body(self, headers: Dict[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return b"".join(iter(self._chunk, b""))
        return self.rfile.read(int(headers.get("content-length") or 0))

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline().split(b";")[0], 16)
        chunk = self.rfile.read(size)
        self.rfile.readline()
        return chunk

    def _send(self, response: Response) -> None:
        self.send_response(response.status)
        for name, value in response.headers:
            self.send_header(name, value)
        if not _has(response, "content-length"):
            self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    def handle_expect_100(self) -> bool:
        # S3 clients wait for this before they send the body, so it must not
        # stay in the buffer.
        proceed = super().handle_expect_100()
        self.wfile.flush()
        return proceed

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are counted, not printed."""


def _has(response: Response, name: str) -> bool:
    return any(header.lower() == name for header, _ in response.headers)


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):  # the client was faster
        connection.shutdown(socket.SHUT_RDWR)
