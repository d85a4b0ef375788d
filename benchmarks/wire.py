"""A relay on loopback that counts the bytes between an agent and the Prefect API.

It counts what TCP carries: requests and responses with their headers and, over HTTPS,
the handshake of each new connection too. It leaves out the headers of the packets.
"""

from __future__ import annotations

import re
import socket
import ssl
import tempfile
import threading
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from ipaddress import IPv4Address
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Optional, Tuple

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


def tls_of_loopback() -> Tuple[ssl.SSLContext, str]:
    """What a server on 127.0.0.1 speaks TLS with, and its certificate in PEM.

    The certificate has 0.4 kB and signs itself; one of an API in the cloud comes with a
    chain of some 4 kB.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "benchmarks")])
    now = datetime.now(timezone.utc)
    address = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as directory:
        chain = Path(directory) / "chain.pem"
        chain.write_text(private + certificate)
        context.load_cert_chain(chain)
    return context, certificate
