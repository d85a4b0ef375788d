"""HTTP connections to the Prefect API that are kept, one session for each thread.

The retries of Prefect's own client are switched off, because each of them sleeps in the
thread that asks, or sends a mutation a second time:

* 429 raises `RateLimited` at once.
* A request that timed out is not sent again. One is, on a new connection, if the API
  had closed the kept one while it was idle.

A look at the queue, which an idle agent sends every two seconds, goes past requests
where it can: see `LeanPost`.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException
from typing import Any, Mapping, Optional, Tuple
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import select_proxy

from ..errors import RateLimited
from ..observability.counters import Answered, Counter

#: Seconds to wait after a 429: the least, the most, and where its answer does not say.
_LEAST, _MOST, _DEFAULT = 1.0, 300.0, 15.0

#: Headers of requests that http.client sets itself, or that say what holds anyway.
_NOT_LEAN = frozenset(("Accept-Encoding", "Connection", "Content-Length"))

#: How sending on a connection fails that the other side has closed.
_CLOSED = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)


def kept_session(counter: Counter) -> requests.Session:
    """A session for one thread.

    Args:
        counter: Counts its requests by how they went.
    """
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(counter))
    return session


class _Adapter(HTTPAdapter):
    """Sends requests for one thread, one after the other.

    Raises:
        RateLimited: if the API answers 429.
        requests.RequestException: if it does not answer.
    """

    def __init__(self, counter: Counter, **options: Any) -> None:
        super().__init__(**options)  # whose default is to repeat nothing
        self._counter = counter
        self._is_kept = False

    def send(self, *args: Any, **options: Any) -> requests.Response:
        try:
            response = self._send(*args, **options)
        except Exception:
            self._counter.add(Answered.FAILED)
            raise
        self._counter.add(_result(response.status_code))
        if response.status_code == 429:
            response.close()
            raise RateLimited(retry_after(response.headers.get("Retry-After")))
        return response

    def _send(self, *args: Any, **options: Any) -> requests.Response:
        """Send once, or twice where the API had closed the kept connection."""
        is_kept, self._is_kept = self._is_kept, False
        try:
            response = super().send(*args, **options)
        except requests.ConnectionError as error:
            if not is_kept or not _was_closed(error):
                raise
            response = super().send(*args, **options)
        self._is_kept = True
        return response


class LeanPost:
    """Posts JSON to one URL over one connection, for less than half of requests' CPU.

    requests prepares it once, so that its own headers, `~/.netrc` and proxies count.
    What is not a plain answer over plain HTTP is left to requests: the caller asks it.
    One thread at a time may use it.

    Args:
        url: Where to post.
        headers: Of each request, besides those that requests adds.
        timeout: Seconds without an answer.
        counter: Counts the requests that are not left to requests.
    """

    def __init__(
        self, url: str, headers: Mapping[str, str], timeout: float, counter: Counter
    ) -> None:
        session = requests.Session()
        is_json = {"Content-Type": "application/json"}
        prepared = session.prepare_request(
            requests.Request("POST", url, headers={**headers, **is_json})
        )
        self._path = prepared.path_url
        self._headers = {
            name: value
            for name, value in prepared.headers.items()
            if name not in _NOT_LEAN
        }
        self._counter = counter
        self._connection: Optional[HTTPConnection] = None
        settings = session.merge_environment_settings(url, {}, None, None, None)
        where = urlsplit(url)
        if where.scheme == "http" and not select_proxy(url, settings["proxies"]):
            host = where.hostname or ""
            self._connection = HTTPConnection(host, where.port, timeout=timeout)

    def send(self, content: Any) -> Any:
        """Post something and return what the answer says, both in JSON.

        Returns:
            None if requests has to be asked: for https and through a proxy; if the
            connection is lost; and after an answer whose status is not 200.

        Raises:
            RateLimited: if the answer is 429.
            requests.Timeout: if none comes in time.
        """
        if self._connection is None:
            return None
        try:
            self._connection.request(
                "POST", self._path, json.dumps(content).encode(), self._headers
            )
            response = self._connection.getresponse()
            text = response.read()
            answer = json.loads(text) if response.status == 200 else None
        except socket.timeout as error:
            self._connection.close()
            self._counter.add(Answered.FAILED)
            raise requests.Timeout(str(error)) from error
        except (OSError, HTTPException, ValueError):
            self._connection.close()  # the next request opens it again
            return None
        if response.status == 429:
            self._counter.add(Answered.THROTTLED)
            raise RateLimited(retry_after(response.getheader("Retry-After")))
        if answer is not None:
            self._counter.add(Answered.OK)
        return answer

    def close(self) -> None:
        """Close the connection; the next request opens it again."""
        if self._connection is not None:
            self._connection.close()


def _was_closed(error: requests.ConnectionError) -> bool:
    """Whether the API closed the connection before it answered anything."""
    wrapped = error.args[0] if error.args else error
    args: Tuple[Any, ...] = getattr(getattr(wrapped, "reason", wrapped), "args", ())
    return bool(args) and isinstance(args[-1], _CLOSED)


def _result(status: int) -> Answered:
    if status == 429:
        return Answered.THROTTLED
    if status >= 500:
        return Answered.FAILED
    return Answered.OK if status < 400 else Answered.REFUSED


def retry_after(header: Optional[str]) -> float:
    """How long to wait after a 429, in seconds, between 1 and 300.

    Args:
        header: `Retry-After`: a number of seconds or a date (RFC 9110, 10.2.3); 15
            seconds if it is missing or neither.
    """
    text, seconds = (header or "").strip(), _DEFAULT
    if text.isdecimal():
        seconds = float(text)
    else:
        with suppress(TypeError, ValueError, OverflowError):
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
    return min(max(seconds, _LEAST), _MOST)
