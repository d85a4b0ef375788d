"""Read-only calls to AWS, and what it means when they fail.

The only module of `check` that uses botocore.
"""

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

from ...aws.session import AWSClients

#: What AWS says when the identity lacks a right.
_DENIED = frozenset(
    [
        *("AccessDenied", "AccessDeniedException", "UnauthorizedOperation"),
        *("AuthorizationError", "AuthorizationErrorException"),
    ]
)

#: What AWS says when it does not know who asks.
_UNKNOWN = frozenset(
    [
        *("InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId"),
        *("ExpiredToken", "ExpiredTokenException", "RequestExpired", "AuthFailure"),
        *("SignatureDoesNotMatch", "InvalidSignatureException", "OptInRequired"),
        *("RequestTimeTooSkewed", "MissingAuthenticationToken", "IncompleteSignature"),
    ]
)


class Unanswered(Exception):
    """AWS gave no answer to a question; why, in one line."""


class NotAllowed(Unanswered):
    """The identity lacks the right to ask.

    Attributes:
        action: The right, such as `ecs:DescribeClusters`.
    """

    def __init__(self, action: str) -> None:
        super().__init__(f"it needs the right {action}")
        self.action = action


class NotKnown(Unanswered):
    """AWS does not accept the credentials."""


class Refused(Unanswered):
    """AWS does not do what it was asked for.

    Attributes:
        code: AWS's own, such as `InvalidSubnetID.NotFound`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class AWS:
    """Answers of AWS, each question asked once.

    Args:
        clients: Makes the clients.
        now: Seconds since 1970.

    Attributes:
        skew: Seconds by which this machine's clock is ahead of AWS's, as far as the
            last answer told; None before that.
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
        return str(self.clients.session.region_name)

    def is_known_region(self, service: str) -> bool:
        """Whether this botocore has heard of the session's region."""
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
        """Call a read-only operation, page after page.

        Args:
            service: Such as `ecs`.
            operation: As boto3 spells it, such as `describe_clusters`.
            region: Another than the session's.
            params: Its parameters.

        Raises:
            NotAllowed: if the right is missing.
            NotKnown: if AWS does not accept the credentials.
            Refused: if it answers with another error.
            Unanswered: if it does not answer.
        """
        question = json.dumps([service, operation, region, params], sort_keys=True)
        if question not in self._answers:
            client = self._client(service, region)
            self._answers[question] = self._asked(client, operation, params)
        answer = self._answers[question]
        if isinstance(answer, Unanswered):
            raise answer
        return dict(answer)

    def _asked(self, client: Any, operation: str, params: Mapping[str, Any]) -> Any:
        try:
            answer = _whole(client, operation, params)
        except ClientError as error:
            self._read_clock(error.response)
            return _meaning(client, operation, error)
        except BotoCoreError as error:
            return _silence(error)
        self._read_clock(answer)
        return answer

    def _client(self, service: str, region: Optional[str]) -> Any:
        if (service, region) not in self._made:
            self._made[service, region] = (
                self.clients(service)
                if region in (None, self.region)
                else self.clients.session.client(service, region_name=region)
            )
        return self._made[service, region]

    def _read_clock(self, answer: Mapping[str, Any]) -> None:
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        skew = skew_of(headers.get("date"), self._now())
        self.skew = self.skew if skew is None else skew


def _whole(client: Any, operation: str, params: Mapping[str, Any]) -> Dict[str, Any]:
    """One answer, or all pages of it put together."""
    if not client.can_paginate(operation):
        return dict(getattr(client, operation)(**params))
    pages = list(client.get_paginator(operation).paginate(**params))
    whole: Dict[str, Any] = dict(pages[0])
    for page in pages[1:]:
        for key, value in page.items():
            if isinstance(value, list):
                whole[key] = whole.get(key, []) + value
    return whole


def _meaning(client: Any, operation: str, error: ClientError) -> Unanswered:
    details = error.response.get("Error", {})
    code, message = str(details.get("Code", "")), str(details.get("Message", ""))
    message = message.rstrip(".")
    if code in _DENIED:
        model = client.meta.service_model
        name = client.meta.method_to_api_mapping[operation]
        return NotAllowed(f"{model.signing_name}:{name}")
    if code in _UNKNOWN:
        return NotKnown(f"{code}: {message}")
    return Refused(code, message)


def _silence(error: BotoCoreError) -> Unanswered:
    """A network's fault, or credentials that cannot be had (an SSO login is over)."""
    text = str(error).rstrip(".")
    if isinstance(error, (HTTPClientError, ConnectionError)):
        return Unanswered(f"AWS does not answer: {text}")
    return NotKnown(text)


def skew_of(date: Optional[str], now: float) -> Optional[float]:
    """Seconds by which `now` is ahead of an answer's Date header, if it has one."""
    try:
        return now - parsedate_to_datetime(date or "").timestamp()
    except (TypeError, ValueError):
        return None


def names_of(things: List[Mapping[str, Any]], key: str) -> List[str]:
    """One member of each thing of an answer."""
    return [str(thing[key]) for thing in things if key in thing]
