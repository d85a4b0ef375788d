"""YAML mappings from a path, S3, Google Cloud Storage or http(s)."""

from __future__ import annotations

from typing import Any, Callable, Dict

import requests
from botocore.exceptions import BotoCoreError, ClientError
from prefect.utilities.filesystems import parse_path

from .errors import SourceError, reason
from .yaml_text import parse_mapping

#: Makes a client for an AWS service, with the agent's own credentials and region.
ClientFactory = Callable[[str], Any]

#: Seconds to wait for a connection and for each part of an answer.
_HTTP_TIMEOUT = (10, 30)


def load_mapping(path: str, client: ClientFactory) -> Dict[str, Any]:
    """Read a template or a file of run_task kwargs.

    Args:
        path: A local path, `agent://` (local to the agent), `s3://bucket/key`,
            `gs://bucket/key` (also `gcs://`) or `http(s)://`.
        client: Makes the S3 client.

    Returns:
        The mapping that the file holds.

    Raises:
        SourceError: one line with the path and the reason, if it cannot be read,
            does not parse, is empty or is no mapping.
    """
    scheme = parse_path(path).scheme
    read = _READERS.get(scheme)
    if read is None:
        known = ", ".join(sorted(_READERS))
        raise SourceError(
            f"Cannot read {path}: unknown scheme {scheme!r}; use one of {known}."
        )
    return parse_mapping(read(path, client), path)


def _read_local(path: str, _: ClientFactory) -> bytes:
    try:
        with open(parse_path(path).path, "rb") as file:
            return file.read()
    except OSError as error:
        raise SourceError(f"Cannot read {path}: {error.strerror or error}.") from error


def _read_s3(path: str, client: ClientFactory) -> bytes:
    parsed = parse_path(path)
    try:
        answer = client("s3").get_object(
            Bucket=parsed.netloc, Key=parsed.path.lstrip("/")
        )
        return bytes(answer["Body"].read())
    except ClientError as error:
        raise SourceError(f"Cannot read {path}: {_s3_reason(error)}.") from error
    except BotoCoreError as error:
        raise SourceError(f"Cannot read {path}: {error}") from error


def _s3_reason(error: ClientError) -> str:
    details = error.response.get("Error", {})
    code, message = details.get("Code", "error"), details.get("Message", "")
    if code in ("AccessDenied", "403"):
        return f"{code}, the agent's AWS identity needs s3:GetObject on it"
    return f"{code}, {message.rstrip('.')}"


def _read_gcs(path: str, _: ClientFactory) -> bytes:
    try:
        from prefect.utilities.gcp import get_storage_client
    except ImportError as error:
        raise SourceError(
            f"Cannot read {path}: google-cloud-storage is missing; "
            "pip install 'prefect[gcp]' where the agent runs."
        ) from error
    parsed = parse_path(path)
    try:
        blob = get_storage_client().bucket(parsed.netloc).blob(parsed.path.lstrip("/"))
        return bytes(blob.download_as_bytes())
    except Exception as error:  # Google's client raises errors of many libraries
        reason = str(error) or type(error).__name__
        raise SourceError(f"Cannot read {path}: {reason}") from error


def _read_http(path: str, _: ClientFactory) -> bytes:
    try:
        answer = requests.get(path, timeout=_HTTP_TIMEOUT)
    except requests.RequestException as error:
        raise SourceError(f"Cannot read {path}: {reason(error)}.") from error
    if not answer.ok:
        raise SourceError(
            f"Cannot read {path}: HTTP {answer.status_code} {answer.reason}."
        )
    return answer.content


_READERS: Dict[str, Callable[[str, ClientFactory], bytes]] = {
    "file": _read_local,
    "agent": _read_local,
    "s3": _read_s3,
    "gs": _read_gcs,
    "gcs": _read_gcs,
    "http": _read_http,
    "https": _read_http,
}
