"""A relay on loopback that counts the bytes between an agent and the Prefect API.

What it counts is what TCP carries: requests and responses with their headers, in plain
HTTP. The packets' own headers, and the handshakes of TLS that an API in the cloud needs
for every new connection, are not in it.

The sandbox answers only requests whose Host header is its own address, so the relay
puts that address there.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Callable

_CHUNK = 65536


def _host(port: int) -> bytes:
    return f"Host: 127.0.0.1:{port}\r\n".encode()


class Relay:
    """Listens on a port of its own, until the process ends.

    Args:
        port: The port on 127.0.0.1 that it passes everything on to.

    Attributes:
        port: Where it listens.
        bytes: How many bytes it has passed on, both ways together.
    """

    def __init__(self, port: int) -> None:
        self.bytes = 0
        self._counting = threading.Lock()
        relay = self

        def to_api(request: bytes) -> bytes:
            return request.replace(_host(relay.port), _host(port))

        class Handler(BaseRequestHandler):
            def handle(self) -> None:
                with socket.create_connection(("127.0.0.1", port)) as api:
                    back = threading.Thread(
                        target=relay._pass_on,
                        args=(api, self.request, bytes),
                        daemon=True,
                    )
                    back.start()
                    relay._pass_on(self.request, api, to_api)
                    back.join()

        server = ThreadingTCPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.port: int = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def _pass_on(
        self,
        source: socket.socket,
        sink: socket.socket,
        changed: Callable[[bytes], bytes],
    ) -> None:
        """One direction of a connection, until its sender closes it."""
        with suppress(OSError):
            while True:
                chunk = source.recv(_CHUNK)
                if not chunk:
                    break
                with self._counting:
                    self.bytes += len(chunk)
                sink.sendall(changed(chunk))
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
