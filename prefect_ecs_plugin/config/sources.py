"""YAML mappings from a path, S3, Google Cloud Storage, http(s) or a variable.

A file that a run config names is read within bounds: at most 1 MiB, in at most ten
seconds from the first call to the last byte, and never more of it in memory.
"""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import Future
from contextlib import closing
from functools import partial
from queue import SimpleQueue
from typing import Any, Callable, Dict, FrozenSet, Iterable, Optional

from botocore.exceptions import BotoCoreError, ClientError
from prefect.utilities.filesystems import parse_path

from ..errors import SourceError
from ..scheduling.steps import Steps, in_thread, resolve
from ..validation.excerpt import MAX_LINE, quoted, shortened
from ..validation.yaml_text import (
    MAX_BYTES,
    MAX_PATH,
    check_length,
    parse_mapping,
    read_bounded,
    read_file,
)
from . import http_source

#: Makes a client for an AWS service, with the agent's own credentials and region.
ClientFactory = Callable[[str], Any]

#: Seconds in which a file has to be read.
DEADLINE = 10.0

#: Files that are read at the same time; further ones are queued.
_READERS_AT_ONCE = 32


def load_mapping(
    path: str,
    client: ClientFactory,
    hosts: Optional[Iterable[str]] = None,
    has_unique_keys: bool = False,
) -> Dict[str, Any]:
    """Read a template or a file of run_task kwargs.

    Args:
        path: A local path, `agent://` (local to the agent), `s3://bucket/key`,
            `gs://bucket/key` (also `gcs://`), `http(s)://`, or `env://NAME`: the
            environment variable NAME of the agent holds the YAML itself.
        client: Makes the S3 client.
        hosts: For a path of a run config: the http(s) hosts that it may name; empty
            allows all. None for the agent's own files; only these may be in the
            agent's environment.
        has_unique_keys: See `parse_mapping`.

    Returns:
        The mapping that the file holds.

    Raises:
        SourceError: One line of at most 500 characters with the path and the reason,
            if the file cannot be read, is over a limit, does not parse, is empty or
            is not a mapping.
    """
    source = _Source(path, client, hosts)
    try:
        content = source.read_in(DEADLINE)
    except SourceError as error:
        reason = shortened(error.message, MAX_LINE - MAX_PATH - 60).rstrip(".")
        raise SourceError(
            f"Cannot read {source.shown}: {reason}.", code=error.code
        ) from error
    return parse_mapping(content, source.shown, has_unique_keys)


def is_remote(path: str) -> bool:
    """Whether another machine has to be asked for a file, which may take a while."""
    return parse_path(path).scheme in _READERS.keys() - _LOCAL


def shown(path: str) -> str:
    """A path as messages have it: of bounded length, and without credentials."""
    is_http = parse_path(path).scheme in ("http", "https")
    return shortened(http_source.shown(path) if is_http else path, MAX_PATH)


class _Source:
    """A file, and how to read it. Its errors say the reason without the path."""

    def __init__(
        self, path: str, client: ClientFactory, hosts: Optional[Iterable[str]]
    ) -> None:
        self._path = path
        self._parsed = parse_path(path)
        self._client = client
        self._hosts: Optional[FrozenSet[str]] = (
            None if hosts is None else frozenset(each.lower() for each in hosts)
        )
        self._deadline = 0.0
        self._fetch: Optional[http_source.Fetch] = None
        self.shown = shown(path)

    def read_in(self, seconds: float) -> bytes:
        """The file's content.

        Another thread reads it, because some calls end only when the other side lets
        them: the resolution of a name, or a server that sends a byte per second.

        Args:
            seconds: How long it may take.

        Raises:
            SourceError: The reason without the path.
        """
        self._deadline = time.monotonic() + seconds
        done = in_thread(self._read, "source")
        try:
            return done.result(seconds)
        except SourceError:
            raise
        except Exception as error:
            if done.done():
                raise
            if self._fetch is not None:
                self._fetch.abort()
            raise _too_slow() from error

    def _read(self) -> bytes:
        readers = dict(_READERS)
        if self._hosts is not None:  # the agent's environment has secrets
            del readers["env"]
        read = readers.get(self._parsed.scheme)
        if read is None:
            raise SourceError(
                f"unknown scheme {quoted(self._parsed.scheme)}; use one of "
                f"{', '.join(sorted(readers))}",
                code="unknown-scheme",
            )
        return read(self)

    def _read_local(self) -> bytes:
        return read_file(self._parsed.path)

    def _read_variable(self) -> bytes:
        name = self._parsed.netloc + self._parsed.path
        content = os.environ.get(name)
        if content is None:
            raise SourceError(
                f"the agent's environment has no variable {quoted(name)}; set it to "
                "the YAML itself",
                code="missing-variable",
            )
        return os.fsencode(content)

    def _read_s3(self) -> bytes:
        bucket, key = self._parsed.netloc, self._parsed.path.lstrip("/")
        try:
            answer = self._client("s3").get_object(Bucket=bucket, Key=key)
            with closing(answer["Body"]) as body:
                check_length(answer.get("ContentLength") or 0)
                return read_bounded(lambda size: self._in_time(body.read(size)))
        except ClientError as error:
            details = error.response.get("Error", {})
            code, message = details.get("Code", "error"), details.get("Message", "")
            if code in ("AccessDenied", "403"):
                raise SourceError(
                    f"{code}; give the agent's AWS identity the permission "
                    "s3:GetObject on it",
                    code="missing-permission",
                ) from error
            raise SourceError(
                f"{code}, {message.rstrip('.')}; check the bucket and the key",
                code="unreadable-file",
            ) from error
        except BotoCoreError as error:
            raise SourceError(f"S3: {error}", code="unreachable-source") from error

    def _in_time(self, chunk: bytes) -> bytes:
        if time.monotonic() > self._deadline:
            raise _too_slow()
        return chunk

    def _read_gcs(self) -> bytes:
        try:
            from prefect.utilities.gcp import get_storage_client
        except ImportError as error:
            raise SourceError(
                "google-cloud-storage is missing; pip install 'prefect[gcp]' where "
                "the agent runs",
                code="no-google-storage",
            ) from error
        bucket, key = self._parsed.netloc, self._parsed.path.lstrip("/")
        try:
            blob = get_storage_client().bucket(bucket).blob(key)
            content = bytes(blob.download_as_bytes(end=MAX_BYTES))  # the last byte's
        except Exception as error:  # Google's client raises errors of many libraries
            raise SourceError(
                f"Google Cloud Storage: {str(error) or type(error).__name__}",
                code="unreadable-file",
            ) from error
        check_length(len(content))
        return content

    def _read_http(self) -> bytes:
        self._fetch = http_source.Fetch(self._path, self._hosts, DEADLINE)
        return self._fetch.read()


def _too_slow() -> SourceError:
    return SourceError(
        f"reading it takes longer than {DEADLINE:.0f} s", code="slow-source"
    )


_READERS: Dict[str, Callable[[_Source], bytes]] = {
    "file": _Source._read_local,
    "agent": _Source._read_local,
    "env": _Source._read_variable,
    "s3": _Source._read_s3,
    "gs": _Source._read_gcs,
    "gcs": _Source._read_gcs,
    "http": _Source._read_http,
    "https": _Source._read_http,
}

#: Schemes that ask no other machine.
_LOCAL = frozenset({"file", "agent", "env"})


# -- Reading in threads of its own --------------------------------------------------


class Reader:
    """Reads the files that run configs name, in threads of its own.

    A file may take as long as `DEADLINE`; the agent's workers launch other runs
    meanwhile.

    Args:
        client: Makes the S3 client.
        hosts: The http(s) hosts that run configs may name; empty allows all.
    """

    def __init__(self, client: ClientFactory, hosts: Iterable[str] = ()) -> None:
        self._client = client
        self._hosts = tuple(hosts)
        self._wanted: SimpleQueue[Any] = SimpleQueue()
        self._threads = 0
        self._unread = 0
        self._lock = threading.Lock()

    def mapping(self, path: str) -> Steps[Dict[str, Any]]:
        """The mapping in a file; see `load_mapping`.

        Args:
            path: As a run config names it.
        """
        done: Future[Dict[str, Any]] = Future()
        self._wanted.put((path, done))
        with self._lock:
            self._unread += 1
            if self._threads < min(self._unread, _READERS_AT_ONCE):
                self._threads += 1
                threading.Thread(target=self._work, name="reader", daemon=True).start()
        yield done
        return done.result()

    def _work(self) -> None:
        while True:
            path, done = self._wanted.get()
            resolve(done, partial(self._load, path))

    def _load(self, path: str) -> Dict[str, Any]:
        try:
            return load_mapping(path, self._client, self._hosts)
        finally:
            with self._lock:
                self._unread -= 1
