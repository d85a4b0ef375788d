"""The HTTP/1.1 server of the sandbox's Prefect API and AWS, on loopback.

Clients keep a connection for the next call, so the server does too; werkzeug's own
closes it after every response. What `access` refuses gets a 403 before the
body is read.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Set
from urllib.parse import urlsplit

from . import access

#: A refused request's body is read, so that its client is there to read the response:
#: so many bytes, for so many seconds.
_DRAINED = 1 << 20
_DRAIN_SECONDS = 5.0

_log = logging.getLogger(__name__)


class DropConnection(Exception):
    """The application wants this connection to end without a response."""


@dataclass(frozen=True)
class Request:
    """What a client sent.

    Attributes:
        method: GET, POST, ...
        target: The path with its query, as sent.
        headers: Lower-case names; of a repeated header the last value.
        body: The whole body, chunks put together; None if it is over `max_body`.
    """

    method: str
    target: str
    headers: Dict[str, str]
    body: Optional[bytes] = b""

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
    """What goes back; the server adds the length."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)


Application = Callable[[Request], Response]


class HttpServer:
    """Serves one application on 127.0.0.1, with a thread for each connection.

    It has its port as soon as it is made, and responds once it is started.

    Args:
        port: Where to listen; 0: any free port.
        max_body: Bytes that a request's body may have; None: any number.

    Attributes:
        stopping: Set when the server stops, for applications that wait.
    """

    def __init__(self, port: int = 0, max_body: Optional[int] = None) -> None:
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.max_body = max_body
        self.port: int = self._server.server_port
        self.stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.05},
            name="sandbox-http",
            daemon=True,
        )

    def start(
        self,
        application: Application,
        forbid: Callable[[Request], Optional[str]] = lambda head: None,
    ) -> None:
        """Serve.

        Args:
            application: Responds to requests; called from many threads at once. It may
                raise DropConnection.
            forbid: Given a request without its body, says why it is refused, if it is.
        """
        self._server.application = application
        self._server.forbid = forbid
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens: `http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Stop listening and end every connection, the idle ones included."""
        self.stopping.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        self._server.end_connections()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    # A burst of new connections waits here instead of being refused.
    request_queue_size = 1024

    application: Application
    forbid: Callable[[Request], Optional[str]]
    max_body: Optional[int] = None

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
            for connection in self._connections:
                _shut(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may hang up; anything else is a mistake of the sandbox."""
        if not isinstance(sys.exc_info()[1], OSError):
            _log.exception("request from %s failed", client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "sandbox"
    sys_version = ""
    # One packet for headers and body: otherwise Nagle's algorithm and the
    # client's delayed acknowledgement cost 40 ms each time.
    wbufsize = -1
    disable_nagle_algorithm = True

    server: _Server

    def parse_request(self) -> bool:
        """Read the request's head; False if it was refused."""
        if not super().parse_request():
            return False
        host, port = self.connection.getsockname()
        why = access.refusal(self.command, self.headers, f"{host}:{port}")
        why = why or self.server.forbid(self._request(b""))
        if why is None:
            return True
        headers = {"Content-Type": "text/plain; charset=utf-8", "Connection": "close"}
        self._send(Response(403, headers, f"{why}\n".encode()))
        self.wfile.flush()
        with suppress(OSError, ValueError):
            self.connection.settimeout(_DRAIN_SECONDS)
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(max(0, min(length, _DRAINED)))
        return False

    def __getattr__(self, name: str) -> Any:
        # http.server looks for do_GET, do_POST and so on.
        if name.startswith("do_"):
            return self._respond
        raise AttributeError(name)

    def _respond(self) -> None:
        try:
            response = self.server.application(self._request(self._body()))
        except DropConnection:
            self.close_connection = True
            _shut(self.connection)
            return
        self._send(response)

    def _request(self, body: Optional[bytes]) -> Request:
        headers = {name.lower(): value for name, value in self.headers.items()}
        return Request(self.command, self.path, headers, body)

    def _body(self) -> Optional[bytes]:
        """The body; what is too large is read too, so that its client is there to read
        the response."""
        most = self.server.max_body
        body: Optional[bytearray] = bytearray()
        for piece in self._pieces():
            if body is not None:
                body += piece
                if most is not None and len(body) > most:
                    body = None
        return None if body is None else bytes(body)

    def _pieces(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while True:
                size = int(self.rfile.readline().split(b";")[0], 16)
                yield from self._exactly(size)
                self.rfile.readline()
                if not size:
                    return
        yield from self._exactly(int(self.headers.get("Content-Length") or 0))

    def _exactly(self, length: int) -> Iterator[bytes]:
        while length > 0:
            piece = self.rfile.read(min(length, 1 << 20))
            if not piece:  # the client has gone
                return
            length -= len(piece)
            yield piece

    def _send(self, response: Response) -> None:
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        if "content-length" not in map(str.lower, response.headers):
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


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):  # the client was faster
        connection.shutdown(socket.SHUT_RDWR)
