"""A relay on loopback that counts the bytes between an agent and the Prefect API.

It counts what TCP carries: requests and responses with their headers and, over HTTPS,
the handshake of each new connection too. It leaves out the headers of the packets.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
from contextlib import suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Optional

_CHUNK = 65536

#: The sandbox answers only requests whose Host header is its own address.
_HOST = re.compile(rb"Host: 127\.0\.0\.1:\d+\r\n")


class Relay:
    """Listens on a port of its own, until the process ends.

    Args:
        port: The port on 127.0.0.1 to which it passes everything on.
        tls: What it has come over, if over TLS; it is passed on without.

    Attributes:
        port: Where it listens.
        bytes: How many bytes it has passed on, both ways together.
    """

    def __init__(self, port: int, tls: Optional[ssl.SSLContext] = None) -> None:
        self.bytes = 0
        self._counting = threading.Lock()
        self._host = f"Host: 127.0.0.1:{port}\r\n".encode()
        relay = self

        class Handler(BaseRequestHandler):
            def handle(self) -> None:
                agent = self.request
                with suppress(OSError):
                    if tls:
                        agent = tls.wrap_socket(agent, server_side=True)
                    with socket.create_connection(("127.0.0.1", port)) as api:
                        back = threading.Thread(
                            target=relay._pass_on, args=(api, agent), daemon=True
                        )
                        back.start()
                        relay._pass_on(agent, api)
                        back.join()

        server = ThreadingTCPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.port: int = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        """One direction of a connection, until its sender closes it."""
        with suppress(OSError):
            while True:
                chunk = source.recv(_CHUNK)
                if not chunk:
                    break
                with self._counting:
                    self.bytes += len(chunk)
                sink.sendall(_HOST.sub(self._host, chunk, 1))
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
