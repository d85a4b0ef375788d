"""The agent's health, served over HTTP for ECS and other supervisors."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections import deque
from typing import Any, Callable, Deque, List, Optional, Sequence, Tuple, Union
from urllib.parse import urlparse

from tornado import web
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream
from tornado.netutil import bind_sockets

from ..errors import ConfigurationError

#: The agent is unhealthy if it last read the queue more than this many seconds ago.
POLL_AGE = 120.0

#: Seconds that one step may take; calls of AWS and Prefect time out long before.
STEP_AGE = 300.0

#: Bytes of a request's body, which nothing that is served here needs, and of its head.
MAX_BODY = 1024
_MAX_HEAD = 16 * 1024

#: Seconds for a body to arrive, and for the next request on a connection.
BODY_TIMEOUT = 5.0
IDLE_TIMEOUT = 30.0

#: Connections at the same time.
MAX_CONNECTIONS = 64


class Health:
    """Whether the agent can do its work, and if not, why.

    Args:
        slowest_step: Returns how long the slowest step has been running, in seconds.
        reasons: Each returns why something does not work, or None; one of them is
            the dispatcher's `problem`.
        clock: Returns the time, in seconds.
    """

    def __init__(
        self,
        *,
        slowest_step: Callable[[], float],
        reasons: Sequence[Callable[[], Optional[str]]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slowest_step = slowest_step
        self._reasons = reasons
        self._clock = clock
        self._polled = clock()

    def has_polled(self) -> None:
        """The queue was read."""
        self._polled = self._clock()

    def poll_age(self) -> float:
        """Seconds since the queue was read; before that, since the start."""
        return self._clock() - self._polled

    def problem(self) -> Optional[str]:
        """Why the agent is unhealthy; None if it is not."""
        age = self.poll_age()
        if age > POLL_AGE:
            return f"the queue was last read {age:.0f} s ago [queue-not-read]"
        seconds = self._slowest_step()
        if seconds > STEP_AGE:
            return f"a worker has been stuck for {seconds:.0f} s [worker-stuck]"
        return next(filter(None, (reason() for reason in self._reasons)), None)


#: An Accept header -> the metrics, and what type of content they are.
Exposition = Callable[[str], Tuple[bytes, str]]

NO_METRICS = (
    "This agent serves no metrics, because prometheus-client is not installed: "
    "pip install 'prefect-ecs-plugin[metrics]', and start it again. [no-metrics]"
)


class _Handler(web.RequestHandler):
    """Answers GET requests with a function."""

    def initialize(self, respond: Callable[[web.RequestHandler], object]) -> None:
        self._respond = respond

    def get(self) -> None:
        self._respond(self)


class _Server(HTTPServer):
    """Keeps a bounded number of connections, each of which holds little memory.

    A connection too many closes the oldest one, not itself: a client that holds many
    open does not keep others from asking for the agent's health.
    """

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        self._streams: Deque[IOStream] = deque()
        super().initialize(*args, **kwargs)

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        open_ = (each for each in self._streams if not each.closed())
        self._streams = deque(open_)
        while len(self._streams) >= MAX_CONNECTIONS:
            self._streams.popleft().close()
        self._streams.append(stream)
        super().handle_stream(stream, address)


class AgentServer:
    """Serves the agent's own API in a thread.

    Args:
        address: Where, such as `http://0.0.0.0:8080`.
        health: Asked at `/api/health`, which answers 200, or 503 with the reason.
        poke: Called at `/api/poke`.
        exposition: Asked at `/metrics`; None without prometheus-client, and the answer
            is 501 with what to install.

    Raises:
        ConfigurationError: if the address has no port, or cannot be listened on.
    """

    def __init__(
        self,
        address: str,
        health: Health,
        poke: Callable[[], object],
        exposition: Optional[Exposition] = None,
    ) -> None:
        self._health = health
        self._exposition = exposition
        self._sockets = listen(address)
        self._application = web.Application(
            [
                ("/api/health", _Handler, {"respond": self._get_health}),
                ("/api/poke", _Handler, {"respond": lambda handler: poke()}),
                ("/metrics", _Handler, {"respond": self._get_metrics}),
            ],
            log_function=lambda handler: logging.getLogger(__name__).debug(
                "%s", handler.request.uri
            ),
        )
        self._loop: Optional[IOLoop] = None
        self._thread = threading.Thread(
            target=self._run, name="agent-server", daemon=True
        )

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Serve no more."""
        for each in self._sockets:
            each.close()
        if self._loop is not None:
            self._loop.add_callback(self._loop.stop)

    def _run(self) -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())
        self._loop = IOLoop.current()
        server = _Server(
            self._application,
            max_body_size=MAX_BODY,
            max_header_size=_MAX_HEAD,
            max_buffer_size=4 * _MAX_HEAD,
            body_timeout=BODY_TIMEOUT,
            idle_connection_timeout=IDLE_TIMEOUT,
        )
        server.add_sockets(self._sockets)
        self._loop.start()

    def _get_health(self, handler: web.RequestHandler) -> None:
        problem = self._health.problem()
        if problem:
            handler.set_status(503)
        handler.write({"problem": problem} if problem else {})

    def _get_metrics(self, handler: web.RequestHandler) -> None:
        content: Union[str, bytes] = f"{NO_METRICS}\n"
        content_type = "text/plain; charset=utf-8"
        if self._exposition is None:
            handler.set_status(501)
        else:
            accept = handler.request.headers.get("Accept", "")
            content, content_type = self._exposition(accept)
        handler.set_header("Content-Type", content_type)
        handler.write(content)


def parse_address(address: str) -> Tuple[str, int]:
    """The host, empty for all, and the port of the agent's own address.

    Args:
        address: Such as `http://0.0.0.0:8080`.

    Raises:
        ConfigurationError: if it has no port.
    """
    try:
        parsed = urlparse(address if "//" in address else f"//{address}")
        port = parsed.port
    except ValueError:
        port = None
    if not port:
        raise ConfigurationError(
            f"the agent's address {address!r} names no port; give one such as "
            "http://127.0.0.1:8080.",
            code="no-port",
        )
    return parsed.hostname or "", port


def listen(address: str) -> List[socket.socket]:
    """Listen on the address at which the agent is asked for its health.

    Args:
        address: Such as `http://0.0.0.0:8080`.

    Raises:
        ConfigurationError: if it has no port, or cannot be listened on.
    """
    host, port = parse_address(address)
    try:
        return bind_sockets(port, address=host)
    except OSError as error:
        raise ConfigurationError(
            f"The agent cannot listen on {address}: {error.strerror or error}; "
            "give another --agent-address.",
            code="cannot-listen",
        ) from error
