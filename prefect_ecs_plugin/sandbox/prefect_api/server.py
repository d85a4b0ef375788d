"""The API over HTTP, on loopback."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import sys
import threading
from collections import Counter
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from typing import Any, Callable, List, Mapping, Optional, Set, Tuple
from urllib.parse import parse_qs, urlsplit

from prefect_ecs_plugin.sandbox import access

from .fault import Fault, FaultPlan
from .graphql_request import Answer, BadRequest, Request
from .resolvers import Caller, executable_schema
from .store import Store, Subscriber
from .store.core import Clock

# What Express takes in a body when it is told "5mb".
MAX_BODY = 5 * 1024 * 1024
_PATHS = ("/", "/graphql")
_HEALTH = {
    "/health": {"status": "ok"},
    "/.well-known/apollo/server-health": {"status": "pass"},
}
_TOO_LARGE = (
    b'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    b"<title>Error</title>\n</head>\n<body>\n"
    b"<pre>PayloadTooLargeError: request entity too large</pre>\n</body>\n</html>\n"
)
_JSON = "application/json"
_log = logging.getLogger(__name__)


class PrefectAPI:
    """A Prefect 1 API of its own, for one machine: GraphQL over HTTP on 127.0.0.1.

        with PrefectAPI() as api:
            os.environ["PREFECT__CLOUD__API"] = api.url

    Args:
        locks_submitted: whether a run that became Submitted refuses to become so again
            for 30 seconds, as one server process does; several replicas do not.
        keeps_context: whether states are stored with their `context`; some APIs drop
            it.
        latency: seconds that every request takes longer.
        clock: gives the time in UTC to the rules; the system's if not given.

    Attributes:
        token: the secret in the URL's path, which every request must have.
        store: the rows, to be read and changed from Python as well.
        calls: how often each root field was asked for, faults included.
        fault: asked before each request what goes wrong with it; see FaultPlan.
        latency: as above; may be changed at any time.
    """

    def __init__(
        self,
        *,
        locks_submitted: bool = True,
        keeps_context: bool = True,
        latency: float = 0.0,
        clock: Optional[Clock] = None,
    ) -> None:
        self.store = Store(
            locks_submitted=locks_submitted, keeps_context=keeps_context, clock=clock
        )
        self.latency = latency
        self.fault: Optional[FaultPlan] = None
        self.calls: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._server: Optional[_Server] = None
        self._port = 0
        self.token = access.new_token()

    @property
    def address(self) -> str:
        """Where it listens: `http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        """What Prefect's client is given: the address and the token, to which it posts
        everything. Requests without the token are refused."""
        return f"{self.address}/{self.token}"

    def start(self) -> PrefectAPI:
        """Listens: on a free port, and when started again on the same one."""
        executable_schema()  # the first request should not wait for it
        self._server = _Server(self, self._port)
        self._port = self._server.server_address[1]
        self._server.start()
        return self

    def stop(self) -> None:
        """Closes the port and every connection; the store stays as it is."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def __enter__(self) -> PrefectAPI:
        return self.start()

    def __exit__(self, *_: Any) -> None:
        self.stop()

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Calls back with StateChanged and LogWritten; returns what ends it."""
        return self.store.subscribe(callback)

    def count(self, names: List[str]) -> None:
        with self._counting:
            self.calls.update(names)

    def planned_fault(self, request: Request) -> Optional[Fault]:
        plan = self.fault
        if plan is None:
            return None
        return plan(*request.first_field)


class _Server(ThreadingHTTPServer):
    """A thread for each connection, all of which end with the server."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256  # a burst of clients must not wait for a SYN's retry

    def __init__(self, api: PrefectAPI, port: int) -> None:
        self.api = api
        self._open: Set[socket.socket] = set()
        self._open_lock = threading.Lock()
        self.stopping = threading.Event()
        super().__init__(("127.0.0.1", port), _Handler)

    def start(self) -> None:
        threading.Thread(
            target=self.serve_forever,
            kwargs={"poll_interval": 0.05},
            name="prefect-api",
            daemon=True,
        ).start()

    def stop(self) -> None:
        self.stopping.set()
        self.shutdown()
        self.server_close()
        with self._open_lock:
            for connection in self._open:
                _hang_up(connection)

    def server_bind(self) -> None:
        # HTTPServer asks the resolver for the host's name here, which may be slow.
        super(ThreadingHTTPServer, self).server_bind()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up as they like; anything else is a bug and is told."""
        if not isinstance(sys.exc_info()[1], OSError):
            _log.exception("request from %s failed", client_address)


class _Handler(access.LocalHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    # ------------------------------------------------------------ what is asked

    def forbidden(self) -> Optional[str]:
        if not access.same(self._token_and_path()[0], self.server.api.token):
            return "The URL has not the token of this sandbox in its path."
        content_type = self.headers.get("Content-Type", "")
        if self.command == "POST" and access.media_type(content_type) != _JSON:
            return f"The Content-Type is not {_JSON}."
        return None

    def do_POST(self) -> None:  # noqa: N802  # http.server's name
        body = self._body()
        if body is None:
            self._send(413, _TOO_LARGE, "text/html; charset=utf-8")
        elif self._path() not in _PATHS:
            self._send_json(Answer(404, {"errors": [{"message": "Not found"}]}))
        else:
            self._serve(lambda: Request.from_json(json.loads(body)))

    def do_GET(self) -> None:  # noqa: N802  # http.server's name
        path = self._path()
        if path in _HEALTH:
            self._send_json(Answer(200, dict(_HEALTH[path])))
        elif path not in _PATHS:
            self._send_json(Answer(404, {"errors": [{"message": "Not found"}]}))
        else:
            self._serve(self._from_query_string)

    def _from_query_string(self) -> Request:
        asked = parse_qs(urlsplit(self.path).query)
        values = {name: value[0] for name, value in asked.items()}
        request = Request.from_json({"query": "query { hello }", **values})
        if request.writes:
            raise BadRequest("GET supports only query operation")
        return request

    def _path(self) -> str:
        return self._token_and_path()[1]

    def _token_and_path(self) -> Tuple[str, str]:
        """The first part of the path, and what follows it."""
        token, _, path = urlsplit(self.path).path.lstrip("/").partition("/")
        return token, f"/{path}".rstrip("/") or "/"

    def _body(self) -> Optional[bytes]:
        """The body, or None if it is too large; it is read all the same, so that the
        client is there to hear the answer."""
        length = int(self.headers.get("Content-Length") or 0)
        if length <= MAX_BODY:
            return self.rfile.read(length)
        while length > 0:
            length -= len(self.rfile.read(min(length, 1 << 20))) or length
        return None

    # ------------------------------------------------------------ what is answered

    def _serve(self, read: Callable[[], Request]) -> None:
        api = self.server.api
        try:
            request = read()
        except (BadRequest, ValueError) as error:
            self._send_json(Answer(400, {"errors": [{"message": str(error)}]}))
            return
        api.count(request.names)
        fault = api.planned_fault(request) or Fault()
        if self._stops_within(api.latency + fault.delay):
            return
        answer = self._answer(request) if fault.has_effect else None
        if self._stops_within(fault.answer_delay):
            return
        if answer is None or fault.replaces_answer:
            self._spoil(fault)
        else:
            self._send_json(answer)

    def _answer(self, request: Request) -> Answer:
        headers = self.headers
        return request.answer(
            Caller(
                self.server.api.store,
                agent_id=headers.get("X-PREFECT-AGENT-ID"),
                core_version=headers.get("X-PREFECT-CORE-VERSION"),
            )
        )

    def _spoil(self, fault: Fault) -> None:
        """Sends what the fault has instead of the answer."""
        if fault.drop_connection:
            self.close_connection = True
            _hang_up(self.connection)
            return
        status = fault.status or 200
        body = fault.body
        if body is None:
            body = f"{status} {HTTPStatus(status).phrase}\n".encode()
        self._send(status, body, "text/plain; charset=utf-8", fault.headers)

    def _stops_within(self, seconds: float) -> bool:
        """Waits that long, and ends the connection if the server stops meanwhile."""
        if seconds <= 0 or not self.server.stopping.wait(seconds):
            return False
        self.close_connection = True
        return True

    def _send_json(self, answer: Answer) -> None:
        self._send(answer.status, json.dumps(answer.body).encode(), _JSON)

    def _send(
        self,
        status: int,
        body: bytes,
        content_type: str,
        headers: Optional[Mapping[str, str]] = None,
    ) -> None:
        """In one write: two would wait for each other (Nagle and delayed ACK)."""
        lines = {
            "Content-Type": content_type,
            "Content-Length": str(len(body)),
            **(headers or {}),
        }
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        head += "\r\n"
        self.wfile.write(head.encode("latin-1") + body)

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug(format, *args)


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the client may have been faster
        connection.shutdown(socket.SHUT_RDWR)
