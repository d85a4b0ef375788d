"""Calls of commands to AWS, each sent once, and their errors."""

from __future__ import annotations

import json
import time
from email.utils import parsedate_to_datetime
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
)

from ..aws.session import AWSClients

#: AWS's error codes for a missing permission.
_DENIED = frozenset(
    [
        *("AccessDenied", "AccessDeniedException", "UnauthorizedOperation"),
        *("AuthorizationError", "AuthorizationErrorException"),
    ]
)

#: AWS's error codes for credentials that it does not accept.
_UNKNOWN = frozenset(
    [
        *("InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId"),
        *("ExpiredToken", "ExpiredTokenException", "RequestExpired", "AuthFailure"),
        *("SignatureDoesNotMatch", "InvalidSignatureException", "OptInRequired"),
        *("RequestTimeTooSkewed", "MissingAuthenticationToken", "IncompleteSignature"),
    ]
)


class AWSUnavailable(Exception):
    """AWS gave no usable answer. The message says why, in one line.

    Attributes:
        code: The code of a finding about this error.
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class MissingPermission(AWSUnavailable):
    """The agent's identity lacks the permission for this call."""

    def __init__(self, action: str) -> None:
        super().__init__(f"missing IAM permission {action}", code="missing-permission")


class InvalidCredentials(AWSUnavailable):
    """AWS does not accept the credentials."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="invalid-credentials")


class AWSRefusal(AWSUnavailable):
    """AWS answered with another error.

    Attributes:
        aws_code: AWS's error code, such as `InvalidSubnetID.NotFound`.
    """

    def __init__(self, aws_code: str, message: str) -> None:
        super().__init__(f"{aws_code}: {message}", code="aws-refused")
        self.aws_code = aws_code


class AWS:
    """A client that sends each request once and keeps the answer.

    Args:
        clients: Makes boto3's clients.
        now: The time, in seconds since 1970.

    Attributes:
        skew: Seconds by which this machine's clock is ahead of AWS's, according to the
            last answer; None before the first answer.
    """

    def __init__(
        self, clients: AWSClients, now: Callable[[], float] = time.time
    ) -> None:
        self.clients = clients
        self.skew: Optional[float] = None
        self._now = now
        self._made: Dict[Tuple[str, Optional[str]], Any] = {}
        self._answers: Dict[str, Any] = {}

    @property
    def region(self) -> str:
        """The region of the agent's session."""
        return self.clients.region_name

    def is_known_region(self, service: str) -> bool:
        """Whether this version of botocore knows the session's region."""
        session = self.clients.session
        return any(
            self.region in session.get_available_regions(service, partition)
            for partition in session.get_available_partitions()
        )

    def ask(
        self,
        service: str,
        operation: str,
        region: Optional[str] = None,
        **params: Any,
    ) -> Dict[str, Any]:
        """Call a read-only operation and read all pages of its answer.

        Args:
            service: Such as `ecs`.
            operation: As boto3 spells it, such as `describe_clusters`.
            region: Default: the session's region.
            params: The operation's parameters.

        Raises:
            MissingPermission: if the permission is missing.
            InvalidCredentials: if AWS does not accept the credentials.
            AWSRefusal: if AWS answers with another error.
            AWSUnavailable: if AWS does not answer.
        """
        question = json.dumps([service, operation, region, params], sort_keys=True)
        if question not in self._answers:
            client = self._client(service, region)
            self._answers[question] = self._call(client, operation, params)
        return _raised(self._answers[question])

    def ask_anew(
        self,
        service: str,
        operation: str,
        region: Optional[str] = None,
        **params: Any,
    ) -> Dict[str, Any]:
        """As `ask`, whatever the answer was before."""
        return _raised(self._call(self._client(service, region), operation, params))

    def _call(self, client: Any, operation: str, params: Mapping[str, Any]) -> Any:
        """The answer, or the error to raise."""
        try:
            answer = _all_pages(client, operation, params)
        except ClientError as error:
            self._read_clock(error.response)
            return _error(client, operation, error)
        except (HTTPClientError, ConnectionError) as error:
            return AWSUnavailable(
                f"AWS does not answer: {str(error).rstrip('.')}", code="aws-unreachable"
            )
        except BotoCoreError as error:  # such as an SSO login that has expired
            return InvalidCredentials(str(error).rstrip("."))
        self._read_clock(answer)
        return answer

    def _client(self, service: str, region: Optional[str]) -> Any:
        if (service, region) not in self._made:
            self._made[service, region] = (
                self.clients(service)
                if region in (None, self.region)
                else self.clients.session.create_client(service, region_name=region)
            )
        return self._made[service, region]

    def _read_clock(self, answer: Mapping[str, Any]) -> None:
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        skew = skew_of(headers.get("date"), self._now())
        self.skew = self.skew if skew is None else skew


def _raised(answer: Any) -> Dict[str, Any]:
    if isinstance(answer, AWSUnavailable):
        raise answer
    return dict(answer)


def _all_pages(
    client: Any, operation: str, params: Mapping[str, Any]
) -> Dict[str, Any]:
    if not client.can_paginate(operation):
        return dict(getattr(client, operation)(**params))
    pages = list(client.get_paginator(operation).paginate(**params))
    whole: Dict[str, Any] = dict(pages[0])
    for page in pages[1:]:
        for key, value in page.items():
            if isinstance(value, list):
                whole[key] = whole.get(key, []) + value
    return whole


def _error(client: Any, operation: str, error: ClientError) -> AWSUnavailable:
    details = error.response.get("Error", {})
    aws_code = str(details.get("Code", ""))
    message = str(details.get("Message", "")).rstrip(".")
    if aws_code in _DENIED:
        service = client.meta.service_model.signing_name
        name = client.meta.method_to_api_mapping[operation]
        return MissingPermission(f"{service}:{name}")
    if aws_code in _UNKNOWN:
        return InvalidCredentials(f"{aws_code}: {message}")
    return AWSRefusal(aws_code, message)


def skew_of(date: Optional[str], now: float) -> Optional[float]:
    """Seconds by which `now` is ahead of a Date header; None without a valid one."""
    try:
        return now - parsedate_to_datetime(date or "").timestamp()
    except (TypeError, ValueError):
        return None


def names_of(things: List[Mapping[str, Any]], key: str) -> List[str]:
    """The values of one member of each item of an answer."""
    return [str(thing[key]) for thing in things if key in thing]
