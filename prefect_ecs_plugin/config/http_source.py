"""A file at an http(s):// address, read without credentials and within bounds.

* No `.netrc` and no credential of the environment goes along; proxies are used.
* A redirect never leads from https to http, nor to an address of the machine itself:
  link-local, loopback, or where a cloud keeps its metadata. For run configs that holds
  for the first address too.
* The address that was checked is the one that is connected to.
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
from ..validation.yaml_text import MAX_BYTES, check_length

#: Redirects that are followed.
_MAX_REDIRECTS = 5

_REDIRECTS = frozenset({301, 302, 303, 307, 308})

#: Bytes that are read at once.
_CHUNK = 64 * 1024

#: Addresses at which clouds tell a machine its secrets and that are not link-local:
#: AWS, Alibaba, Azure, Google.
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

#: IPv6 networks whose addresses stand for IPv4 ones, and the bits that follow those.
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
        hosts: The hosts that a run config may name; None for a file of the agent's own,
            which may be anywhere. Empty: any host but the machine itself.
        seconds: To wait for a connection and for each part of an answer.
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
            SourceError: half a sentence that says why it cannot be had.
        """
        try:
            with requests.Session() as session:
                session.trust_env = False  # no .netrc; its proxies are read below
                return self._read(session)
        except SourceError:
            raise
        except (requests.RequestException, HTTPError, ValueError) as error:
            raise SourceError(_refusal(error) or reason(error)) from error
        finally:
            for each in self._sockets:
                each.close()

    def abort(self) -> None:
        """Close the connections; whatever waits for them ends with an error."""
        self._is_aborted = True
        for each in list(self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _read(self, session: requests.Session) -> bytes:
        url = self._url
        for hops in range(_MAX_REDIRECTS + 1):
            self._check_host(url)
            if self._is_aborted:
                break
            with self._get(session, url, may_be_here=self._is_own and not hops) as got:
                location = got.headers.get("Location")
                if got.status_code not in _REDIRECTS or not location:
                    return _content(got)
                url = _redirected(url, location)
        raise SourceError(f"it is redirected more than {_MAX_REDIRECTS} times")

    @property
    def _is_own(self) -> bool:
        return self._hosts is None

    def _check_host(self, url: str) -> None:
        host = _host(url)
        if self._hosts and host.lower() not in self._hosts:
            raise SourceError(
                f"run configs may not name the host {quoted(host)}; see --template-host"
            )

    def _get(
        self, session: requests.Session, url: str, may_be_here: bool
    ) -> requests.Response:
        proxies = _proxies(url)
        if proxies and not may_be_here:
            _check_behind_proxy(_host(url))
        for scheme in ("http://", "https://"):
            session.mount(scheme, _Adapter(self._sockets, bool(proxies) or may_be_here))
        return session.get(
            url,
            stream=True,
            allow_redirects=False,
            timeout=self._seconds,
            proxies=proxies,
            verify=_certificates(),
            # What a server packs could be a thousand times as long when unpacked.
            headers={"Accept-Encoding": "identity"},
        )


def _content(answer: requests.Response) -> bytes:
    if not answer.ok:
        raise SourceError(
            f"HTTP {answer.status_code} {shortened(str(answer.reason), 80)}".rstrip()
        )
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise SourceError("it comes packed, which was not asked for")
    announced = answer.headers.get("Content-Length", "")
    check_length(int(announced) if announced.isdecimal() else 0)
    content = bytearray()
    while len(content) <= MAX_BYTES:
        wanted = min(_CHUNK, MAX_BYTES + 1 - len(content))
        chunk = answer.raw.read(wanted, decode_content=False)
        if not chunk:
            return bytes(content)
        content += chunk
    check_length(len(content))
    return bytes(content)


def _redirected(url: str, location: str) -> str:
    target = urljoin(url, location)
    before, after = urlsplit(url), urlsplit(target)
    if after.scheme not in ("http", "https"):
        raise SourceError(
            f"it is redirected to {quoted(after.scheme + '://')}, which is not followed"
        )
    if before.scheme == "https" and after.scheme == "http":
        raise SourceError("it is redirected from https to http, which is not followed")
    return _without_userinfo(after)


def _without_userinfo(url: SplitResult) -> str:
    return url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()


def shown(url: str) -> str:
    """An http(s):// address without what may be a credential in it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    return _without_userinfo(parts._replace(query="", fragment=""))


def _host(url: str) -> str:
    host = urlsplit(url).hostname
    if not host:
        raise SourceError("it names no host")
    return host


def _proxies(url: str) -> Dict[str, str]:
    """The proxy of the environment for an address, if there is one."""
    found = get_environ_proxies(url, no_proxy=None)
    wanted = (urlsplit(url).scheme.lower(), "all")
    return {name: proxy for name, proxy in found.items() if name in wanted}


def _certificates() -> Any:
    """Which authorities are trusted, as requests finds them in the environment."""
    return (
        os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
    )


# -- Addresses that no request may be sent to --------------------------------------


def is_here(address: str) -> bool:
    """Whether an IP address is the machine's own, link-local or a cloud's metadata.

    Args:
        address: As `socket.getaddrinfo` writes it, an IPv6 scope included.
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if parsed in _METADATA or _is_local(parsed):
        return True
    if isinstance(parsed, ipaddress.IPv6Address):
        return any(
            is_here(str(ipaddress.IPv4Address(int(parsed) >> shift & 0xFFFFFFFF)))
            for network, shift in _TRANSLATED
            if parsed in network
        )
    return False


def _is_local(parsed: Any) -> bool:
    is_this = isinstance(parsed, ipaddress.IPv4Address) and parsed.packed[0] == 0
    return bool(
        is_this
        or parsed.is_loopback
        or parsed.is_link_local
        or parsed.is_unspecified
        or parsed.is_multicast
    )


class _Refusal(HTTPError):
    """An address that is not connected to."""


_HERE = (
    "it leads to a link-local, loopback or metadata address, where no file is read from"
)


def _refusal(error: BaseException) -> Optional[str]:
    """What a refusal of ours says, if requests and urllib3 have wrapped one."""
    seen: Optional[BaseException] = error
    while seen is not None and not isinstance(seen, _Refusal):
        inner = (getattr(seen, "reason", None), *seen.args)
        seen = next((each for each in inner if isinstance(each, BaseException)), None)
    return None if seen is None else str(seen)


def _check_behind_proxy(host: str) -> None:
    """The proxy asks for the name itself; what it stands for here has to do."""
    with suppress(OSError, UnicodeError):
        if any(is_here(address) for address, _ in _addresses(host, 0)):
            raise SourceError(_HERE)


def _addresses(host: str, port: int) -> Sequence[Tuple[str, int]]:
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    return [(str(sockaddr[0]), int(sockaddr[1])) for *_, sockaddr in found]


def _checked_connection(connection: Any) -> socket.socket:
    """Connect to one of a host's addresses, if none of them is refused."""
    try:
        addresses = _addresses(connection.host, connection.port)
    except (OSError, UnicodeError) as error:
        raise NewConnectionError(connection, str(error)) from error
    if not connection.may_be_here and any(is_here(address) for address, _ in addresses):
        raise _Refusal(_HERE)
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
        may_be_here: Whether the machine's own addresses are connected to.
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
