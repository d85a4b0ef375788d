"""YAML mappings from a path, S3, Google Cloud Storage or http(s).

Whatever a run config names is read within bounds: at most 1 MiB, in at most ten
seconds from the first call to the last byte, and never more of it in memory.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Callable, Dict, FrozenSet, Iterable, List, Optional

from botocore.exceptions import BotoCoreError, ClientError
from prefect.utilities.filesystems import parse_path

from ..errors import SourceError
from ..scheduling.steps import Steps
from ..validation.excerpt import MAX_LINE, quoted, shortened
from ..validation.yaml_text import MAX_BYTES, check_length, parse_mapping, read_file
from . import http_source

#: Makes a client for an AWS service, with the agent's own credentials and region.
ClientFactory = Callable[[str], Any]

#: Seconds in which a file has to be read.
DEADLINE = 10.0

#: Files that are read at the same time; further ones wait for their turn.
_READERS_AT_ONCE = 32

#: Characters of a path in a message.
_MAX_PATH = 200

_CHUNK = 64 * 1024


def load_mapping(
    path: str, client: ClientFactory, hosts: Optional[Iterable[str]] = None
) -> Dict[str, Any]:
    """Read a template or a file of run_task kwargs.

    Args:
        path: A local path, `agent://` (local to the agent), `s3://bucket/key`,
            `gs://bucket/key` (also `gcs://`) or `http(s)://`.
        client: Makes the S3 client.
        hosts: For a path of a run config: the http(s) hosts that it may name, all if
            there are none in it. None for the agent's own files.

    Returns:
        The mapping that the file holds.

    Raises:
        SourceError: one line of at most 500 characters with the path and the reason,
            if the file cannot be read, is over a limit, does not parse, is empty or
            is no mapping.
    """
    source = _Source(path, client, hosts)
    try:
        content = source.read_in(DEADLINE)
    except SourceError as error:
        sentence = f"Cannot read {source.shown}: {str(error).rstrip('.')}."
        raise SourceError(shortened(sentence, MAX_LINE)) from error
    return parse_mapping(content, source.shown)


class _Source:
    """A file, and how to read it."""

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
        self._aborts: List[Callable[[], object]] = []
        is_http = self._parsed.scheme in ("http", "https")
        self.shown = shortened(http_source.shown(path) if is_http else path, _MAX_PATH)

    def read_in(self, seconds: float) -> bytes:
        """The file's content.

        Another thread reads it, as some calls end only when the other side wants it:
        a look for a name, a server that sends a byte a second.

        Args:
            seconds: How long it may take.

        Raises:
            SourceError: half a sentence.
        """
        self._deadline = time.monotonic() + seconds
        done: Future[bytes] = Future()
        threading.Thread(
            target=self._read_into, args=(done,), name="source", daemon=True
        ).start()
        try:
            return done.result(seconds)
        except SourceError:
            raise
        except Exception as error:
            if done.done():
                raise
            for abort in self._aborts:
                abort()
            raise _too_slow() from error

    def _read_into(self, done: Future[bytes]) -> None:
        try:
            done.set_result(self._read())
        except BaseException as error:
            done.set_exception(error)

    def _read(self) -> bytes:
        read = _READERS.get(self._parsed.scheme)
        if read is None:
            known = ", ".join(sorted(_READERS))
            raise SourceError(
                f"unknown scheme {quoted(self._parsed.scheme)}; use one of {known}"
            )
        return read(self)

    def _all_of(self, read: Callable[[int], bytes]) -> bytes:
        content = bytearray()
        while len(content) <= MAX_BYTES:
            chunk = read(min(_CHUNK, MAX_BYTES + 1 - len(content)))
            if not chunk:
                break
            content += chunk
            self._check_deadline()
        check_length(len(content))
        return bytes(content)

    def _check_deadline(self) -> None:
        if time.monotonic() > self._deadline:
            raise _too_slow()

    def _read_local(self) -> bytes:
        try:
            return read_file(self._parsed.path)
        except (OSError, ValueError) as error:
            raise _because(error, getattr(error, "strerror", None)) from error

    def _read_s3(self) -> bytes:
        bucket, key = self._parsed.netloc, self._parsed.path.lstrip("/")
        try:
            answer = self._client("s3").get_object(Bucket=bucket, Key=key)
            body = answer["Body"]
            try:
                check_length(answer.get("ContentLength") or 0)
                return self._all_of(body.read)
            finally:
                body.close()
        except ClientError as error:
            raise SourceError(_s3_reason(error)) from error
        except BotoCoreError as error:
            raise _because(error) from error

    def _read_gcs(self) -> bytes:
        try:
            from prefect.utilities.gcp import get_storage_client
        except ImportError as error:
            raise SourceError(
                "google-cloud-storage is missing; pip install 'prefect[gcp]' where "
                "the agent runs"
            ) from error
        bucket, key = self._parsed.netloc, self._parsed.path.lstrip("/")
        try:
            blob = get_storage_client().bucket(bucket).blob(key)
            content = bytes(blob.download_as_bytes(end=MAX_BYTES))  # the last byte's
        except Exception as error:  # Google's client raises errors of many libraries
            raise _because(error) from error
        check_length(len(content))
        return content

    def _read_http(self) -> bytes:
        fetch = http_source.Fetch(self._path, self._hosts, DEADLINE)
        self._aborts.append(fetch.abort)
        return fetch.read()


def _too_slow() -> SourceError:
    return SourceError(f"it takes longer than {DEADLINE:.0f} s")


def _because(error: BaseException, text: Optional[str] = None) -> SourceError:
    if isinstance(error, SourceError):
        return error
    return SourceError(text or str(error) or type(error).__name__)


def _s3_reason(error: ClientError) -> str:
    details = error.response.get("Error", {})
    code, message = details.get("Code", "error"), details.get("Message", "")
    if code in ("AccessDenied", "403"):
        return f"{code}, the agent's AWS identity needs s3:GetObject on it"
    return f"{code}, {message.rstrip('.')}"


_READERS: Dict[str, Callable[[_Source], bytes]] = {
    "file": _Source._read_local,
    "agent": _Source._read_local,
    "s3": _Source._read_s3,
    "gs": _Source._read_gcs,
    "gcs": _Source._read_gcs,
    "http": _Source._read_http,
    "https": _Source._read_http,
}


# -- Reading without holding a thread of the agent's -------------------------------


class Reader:
    """Reads the files that run configs name, in threads of its own.

    A file may take as long as `DEADLINE`, and the agent's workers have to launch other
    runs meanwhile.

    Args:
        client: Makes the S3 client.
        hosts: The http(s) hosts that run configs may name, all if there are none.
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
            try:
                result = load_mapping(path, self._client, self._hosts)
            except BaseException as error:
                self._has_read()
                done.set_exception(error)
            else:
                self._has_read()
                done.set_result(result)

    def _has_read(self) -> None:
        with self._lock:
            self._unread -= 1
