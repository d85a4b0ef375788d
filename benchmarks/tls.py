"""TLS on loopback, for an API that agents reach over HTTPS.

It needs cryptography, which the extra `sandbox` brings.
"""

from __future__ import annotations

import ssl
import tempfile
from datetime import datetime, timedelta, timezone
from ipaddress import IPv4Address
from pathlib import Path
from typing import Tuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

_SIGNS_CERTIFICATES = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


def on_loopback() -> Tuple[ssl.SSLContext, str]:
    """What a server on 127.0.0.1 speaks TLS with, and what agents trust, in PEM.

    The server sends its certificate and that of the authority that signed it, 1.6 kB in
    all with keys of RSA 2048: the least that a public authority issues. Chains of APIs
    in the cloud are mostly longer: they name the authority's addresses and policies,
    have the signatures of transparency logs, and many have a third certificate.
    """
    root_key, authority_key, server_key = (_rsa_key() for _ in range(3))
    root = _certificate("root", root_key, "root", root_key)
    authority = _certificate("authority", authority_key, "root", root_key)
    server = _certificate("server", server_key, "authority", authority_key)
    private = server_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as directory:
        chain = Path(directory) / "chain.pem"
        chain.write_text(private + server + authority)
        context.load_cert_chain(chain)
    return context, root


def _rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _certificate(
    name: str, key: rsa.RSAPrivateKey, issuer: str, issuer_key: rsa.RSAPrivateKey
) -> str:
    """A certificate in PEM, valid today; that of "server" is for 127.0.0.1."""
    now = datetime.now(timezone.utc)
    is_server = name == "server"
    builder = (
        x509.CertificateBuilder()
        .subject_name(_common_name(name))
        .issuer_name(_common_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.BasicConstraints(ca=not is_server, path_length=None), critical=True
        )
        # Python verifies strictly from 3.13 on: it asks for these two, and for the
        # key's usage in a certificate of an authority.
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )
    if is_server:
        address = x509.IPAddress(IPv4Address("127.0.0.1"))
        builder = builder.add_extension(
            x509.SubjectAlternativeName([address]), critical=False
        )
    else:
        builder = builder.add_extension(_SIGNS_CERTIFICATES, critical=True)
    signed = builder.sign(issuer_key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
