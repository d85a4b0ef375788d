"""The API over HTTP, on loopback."""

from __future__ import annotations

import json
import threading
from collections import Counter
from http import HTTPStatus
from typing import Any, Callable, Dict, Optional, Tuple
from urllib.parse import parse_qs

from .. import access
from ..http_server import DropConnection, HttpServer
from ..http_server import Request as HttpRequest
from ..http_server import Response as HttpResponse
from .fault import Fault, FaultPlan
from .graphql_request import BadRequest, Request, Response
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
_TOO_LARGE = b"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Error</title>
</head>
<body>
<pre>PayloadTooLargeError: request entity too large</pre>
</body>
</html>
"""
_JSON = "application/json"


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
        self._server: Optional[HttpServer] = None
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
        """Listen: on a free port, and when started again on the same one."""
        executable_schema()  # the first request should not wait for it
        self._server = HttpServer(self._port, MAX_BODY)
        self._port = self._server.port
        self._server.start(self._respond, self._forbid)
        return self

    def stop(self) -> None:
        """Close the port and every connection; the store stays as it is."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def __enter__(self) -> PrefectAPI:
        return self.start()

    def __exit__(self, *_: Any) -> None:
        self.stop()

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call back with StateChanged and LogWritten; returns what ends it."""
        return self.store.subscribe(callback)

    def _forbid(self, head: HttpRequest) -> Optional[str]:
        if not access.same(_token_and_path(head)[0], self.token):
            return "The path of the URL lacks the token of this sandbox."
        content_type = head.headers.get("content-type", "")
        if head.method == "POST" and access.media_type(content_type) != _JSON:
            return f"The Content-Type is not {_JSON}."
        return None

    def _respond(self, http: HttpRequest) -> HttpResponse:
        path = _token_and_path(http)[1]
        if http.method not in ("GET", "POST"):
            return _error(501, f"Unsupported method ({http.method!r})")
        if http.body is None:
            return HttpResponse(
                413, {"Content-Type": "text/html; charset=utf-8"}, _TOO_LARGE
            )
        if http.method == "GET" and path in _HEALTH:
            return _json(200, _HEALTH[path])
        if path not in _PATHS:
            return _error(404, "Not found")
        try:
            request = _graphql(http)
        except (BadRequest, ValueError) as error:
            return _error(400, str(error))
        return self._serve(http, request)

    def _serve(self, http: HttpRequest, request: Request) -> HttpResponse:
        with self._counting:
            self.calls.update(request.names)
        plan = self.fault
        fault = (plan(*request.first_field) if plan else None) or Fault()
        self._wait(self.latency + fault.delay)
        response = Response(200, {})
        if fault.has_effect:
            caller = Caller(
                self.store,
                agent_id=http.headers.get("x-prefect-agent-id"),
                core_version=http.headers.get("x-prefect-core-version"),
            )
            response = request.respond(caller)
        self._wait(fault.answer_delay)
        return _spoilt(fault) if fault.replaces_answer else _json(*response)

    def _wait(self, seconds: float) -> None:
        """Wait so long; if the server stops meanwhile, end the connection."""
        server = self._server
        if seconds > 0 and (server is None or server.stopping.wait(seconds)):
            raise DropConnection


def _token_and_path(http: HttpRequest) -> Tuple[str, str]:
    """The first part of the path, and what follows it."""
    token, _, path = http.path.lstrip("/").partition("/")
    return token, f"/{path}".rstrip("/") or "/"


def _graphql(http: HttpRequest) -> Request:
    if http.method == "POST":
        return Request.from_json(json.loads(http.body or b""))
    values = {name: value[0] for name, value in parse_qs(http.query).items()}
    request = Request.from_json({"query": "query { hello }", **values})
    if request.writes:
        raise BadRequest("GET supports only query operation")
    return request


def _spoilt(fault: Fault) -> HttpResponse:
    """What the client gets instead of the response."""
    if fault.drop_connection:
        raise DropConnection
    status = fault.status or 200
    body = fault.body
    if body is None:
        body = f"{status} {HTTPStatus(status).phrase}\n".encode()
    headers = {"Content-Type": "text/plain; charset=utf-8", **(fault.headers or {})}
    return HttpResponse(status, headers, body)


def _json(status: int, body: Dict[str, Any]) -> HttpResponse:
    return HttpResponse(status, {"Content-Type": _JSON}, json.dumps(body).encode())


def _error(status: int, message: str) -> HttpResponse:
    return _json(status, {"errors": [{"message": message}]})
