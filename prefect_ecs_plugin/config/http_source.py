"""A file at an http(s):// address, read without credentials and within bounds.

* No `.netrc` and no credential of the environment is sent; proxies are used.
* A redirect never leads from https to http, nor to an internal address: link-local,
  loopback, or a cloud's metadata service. For run configs that holds for the first
  address too.
* The agent connects to the very address that it checked.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from contextlib import suppress
from typing import Any, Dict, FrozenSet, List, Optional, Sequence, Tuple, Type
from urllib.parse import SplitResult, urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, NewConnectionError
from urllib3.util.connection import create_connection

from ..errors import SourceError, reason
from ..validation.excerpt import quoted, shortened
from ..validation.yaml_text import check_length, read_bounded

#: Redirects that the agent follows.
_MAX_REDIRECTS = 5

_REDIRECTS = frozenset({301, 302, 303, 307, 308})

#: Addresses of the metadata services of AWS, Alibaba, Azure and Google, which have a
#: machine's secrets, as far as they are not link-local.
_METADATA = frozenset(
    ipaddress.ip_address(each)
    for each in (
        "fd00:ec2::23",
        "fd00:ec2::254",
        "100.100.100.200",
        "168.63.129.16",
        "fd20:ce::254",
    )
)

#: IPv6 networks whose addresses stand for IPv4 ones, and the bits after those.
_TRANSLATED = (
    (ipaddress.ip_network("64:ff9b::/96"), 0),
    (ipaddress.ip_network("2002::/16"), 80),
    (ipaddress.ip_network("::ffff:0:0/96"), 0),
    (ipaddress.ip_network("::/96"), 0),
)


class Fetch:
    """Reads one file.

    Args:
        url: Its http(s):// address.
        hosts: The hosts that a run config may name; empty allows any host but the
            machine itself. None for a file of the agent's own, which may be anywhere.
        seconds: The timeout of a connection and of each part of an answer.
    """

    def __init__(
        self, url: str, hosts: Optional[FrozenSet[str]], seconds: float
    ) -> None:
        self._url = url
        self._hosts = hosts
        self._seconds = seconds
        self._sockets: List[socket.socket] = []
        self._is_aborted = False

    def read(self) -> bytes:
        """The file's content.

        Raises:
            SourceError: The reason why it cannot be read, without the address.
        """
        try:
            with requests.Session() as session:
                session.trust_env = False  # no .netrc; its proxies are read below
                return self._read(session)
        except SourceError:
            raise
        except (requests.RequestException, HTTPError, ValueError) as error:
            if _is_refusal(error):
                raise _internal_address() from error
            raise SourceError(
                f"the request failed: {reason(error)}", code="unreachable-source"
            ) from error
        finally:
            for each in self._sockets:
                each.close()

    def abort(self) -> None:
        """Close the connections; calls that wait for them end with an error."""
        self._is_aborted = True
        for each in list(self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _read(self, session: requests.Session) -> bytes:
        url = self._url
        for hops in range(_MAX_REDIRECTS + 1):
            if self._hosts and _host(url).lower() not in self._hosts:
                raise SourceError(
                    f"run configs may not name the host {quoted(_host(url))}; see "
                    "--template-host",
                    code="host-not-allowed",
                )
            if self._is_aborted:
                break
            # Only a file of the agent's own options may be on this machine.
            may_be_here = self._hosts is None and not hops
            with self._get(session, url, may_be_here) as answer:
                location = answer.headers.get("Location")
                if answer.status_code not in _REDIRECTS or not location:
                    return _content(answer)
                url = _redirected(url, location)
        raise SourceError(
            f"it is redirected more than {_MAX_REDIRECTS} times",
            code="refused-redirect",
        )

    def _get(
        self, session: requests.Session, url: str, may_be_here: bool
    ) -> requests.Response:
        # The proxy of the environment for this address, if there is one.
        schemes = (urlsplit(url).scheme.lower(), "all")
        found = get_environ_proxies(url, no_proxy=None)
        proxies = {name: proxy for name, proxy in found.items() if name in schemes}
        if proxies and not may_be_here:
            # The proxy resolves the name itself; the result here has to do.
            with suppress(OSError, UnicodeError):
                if any(is_here(address) for address, _ in _addresses(_host(url), 0)):
                    raise _internal_address()
        for scheme in ("http://", "https://"):
            session.mount(scheme, _Adapter(self._sockets, bool(proxies) or may_be_here))
        # The authorities that requests finds in the environment.
        bundles = (os.environ.get(f"{name}_CA_BUNDLE") for name in ("REQUESTS", "CURL"))
        return session.get(
            url,
            stream=True,
            allow_redirects=False,
            timeout=self._seconds,
            proxies=proxies,
            verify=next(filter(None, bundles), True),
            # A compressed answer could be a thousand times as long when decompressed.
            headers={"Accept-Encoding": "identity"},
        )


def _content(answer: requests.Response) -> bytes:
    if not answer.ok:
        raise SourceError(
            f"HTTP {answer.status_code} {shortened(str(answer.reason), 80)}".rstrip(),
            code="http-status",
        )
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise SourceError(
            "the server compresses it, although the agent did not ask for that",
            code="compressed-source",
        )
    announced = answer.headers.get("Content-Length", "")
    check_length(int(announced) if announced.isdecimal() else 0)
    return read_bounded(lambda size: answer.raw.read(size, decode_content=False))


def _redirected(url: str, location: str) -> str:
    before, after = urlsplit(url), urlsplit(urljoin(url, location))
    if after.scheme not in ("http", "https"):
        raise SourceError(
            f"it is redirected to {quoted(after.scheme + '://')}, which the agent does "
            "not follow",
            code="refused-redirect",
        )
    if before.scheme == "https" and after.scheme == "http":
        raise SourceError(
            "it is redirected from https to http, which the agent does not follow",
            code="refused-redirect",
        )
    return _without_userinfo(after)


def _without_userinfo(url: SplitResult) -> str:
    return url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()


def _host(url: str) -> str:
    host = urlsplit(url).hostname
    if not host:
        raise SourceError("its address has no host", code="invalid-url")
    return host


def shown(url: str) -> str:
    """An http(s):// address without what may be a credential in it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    return _without_userinfo(parts._replace(query="", fragment=""))


# -- Internal addresses ------------------------------------------------------------


def is_here(address: str) -> bool:
    """Whether an IP address is the machine's own, link-local or a metadata service's.

    Args:
        address: As `socket.getaddrinfo` writes it, an IPv6 scope included.
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if parsed in _METADATA or (
        parsed.is_loopback
        or parsed.is_link_local
        or parsed.is_unspecified
        or parsed.is_multicast
    ):
        return True
    if isinstance(parsed, ipaddress.IPv4Address):
        return parsed.packed[0] == 0
    return any(
        is_here(str(ipaddress.IPv4Address(int(parsed) >> shift & 0xFFFFFFFF)))
        for network, shift in _TRANSLATED
        if parsed in network
    )


class _Refusal(HTTPError):
    """An address that the agent does not connect to."""


def _internal_address() -> SourceError:
    return SourceError(
        "its host is a link-local, loopback or metadata address, from which the agent "
        "reads no file",
        code="internal-address",
    )


def _is_refusal(error: BaseException) -> bool:
    """Whether requests and urllib3 have wrapped a refusal of ours."""
    inner = (getattr(error, "reason", None), *error.args)
    return isinstance(error, _Refusal) or any(
        _is_refusal(each) for each in inner if isinstance(each, BaseException)
    )


def _addresses(host: str, port: int) -> Sequence[Tuple[str, int]]:
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    return [(str(sockaddr[0]), int(sockaddr[1])) for *_, sockaddr in found]


def _checked_connection(connection: Any) -> socket.socket:
    """Connect to one of a host's addresses, if none of them is internal."""
    try:
        addresses = _addresses(connection.host, connection.port)
    except (OSError, UnicodeError) as error:
        raise NewConnectionError(connection, str(error)) from error
    if not connection.may_be_here and any(is_here(address) for address, _ in addresses):
        raise _Refusal
    problem: Optional[OSError] = None
    for address in addresses:
        try:
            made = create_connection(
                address,
                connection.timeout,
                source_address=connection.source_address,
                socket_options=connection.socket_options,
            )
        except OSError as error:
            problem = error
        else:
            connection.sockets.append(made.dup())
            return made
    raise NewConnectionError(connection, str(problem or "no address")) from problem


class _Adapter(HTTPAdapter):
    """Connects to checked addresses only.

    Args:
        sockets: Gets a second handle of each connection.
        may_be_here: Whether the machine's own addresses are allowed.
    """

    def __init__(self, sockets: List[socket.socket], may_be_here: bool) -> None:
        self._marks = {"sockets": sockets, "may_be_here": may_be_here}
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools()

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        if getattr(manager, "proxy", None) is not None:  # one for SOCKS has its own
            manager.pool_classes_by_scheme = self._pools()
        return manager

    def _pools(self) -> Dict[str, Type[Any]]:
        # urllib3 says in 1.26 and 2 alike that a pool's class names its connections',
        # and that these make their sockets in `_new_conn`.
        members = {"_new_conn": _checked_connection, **self._marks}
        return {
            scheme: type(
                "CheckedPool",
                (pool,),
                {"ConnectionCls": type("CheckedConnection", (connection,), members)},
            )
            for scheme, pool, connection in (
                ("http", HTTPConnectionPool, HTTPConnection),
                ("https", HTTPSConnectionPool, HTTPSConnection),
            )
        }
