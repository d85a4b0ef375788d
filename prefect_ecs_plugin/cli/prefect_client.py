"""The Prefect API as commands call it: each query once, without retries."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional

import prefect
import requests
from prefect import config
from prefect.client import Client

from ..errors import reason
from .aws_client import skew_of

#: Seconds to wait for a connection and for each part of the answer.
_TIMEOUT = (10, 30)


class APIUnavailable(Exception):
    """The API gave no usable answer. The message says why, in one line."""


class APIKeyRejected(Exception):
    """The API does not accept the key. The message says why, in one line."""


@dataclass
class API:
    """The API that an agent with these options would use.

    Attributes:
        url: Its URL.
        key: The key, from the options, the configuration or `prefect auth login`.
        wanted_tenant: The tenant that the options or the configuration name.
        tenant: The tenant that runs would belong to, once the API has named it.
        skew: Seconds by which this machine's clock is ahead of the API's.
    """

    url: str
    key: Optional[str] = None
    wanted_tenant: Optional[str] = None
    tenant: Optional[str] = None
    skew: Optional[float] = None
    _headers: Dict[str, str] = field(default_factory=dict)

    @classmethod
    def configured(cls) -> API:
        """Read the settings as Prefect's own client does.

        Raises:
            ValueError: if the tenant is not a UUID.
        """
        client = Client(api_server=config.cloud.api)
        # The client's own property would ask the API for its default tenant.
        tenant = config.cloud.get("tenant_id") or client.load_auth_from_disk().get(
            "tenant_id"
        )
        tenant = str(uuid.UUID(tenant)) if tenant else None
        headers = {"X-PREFECT-CORE-VERSION": str(prefect.__version__)}
        if client.api_key:
            headers["Authorization"] = f"Bearer {client.api_key}"
            if tenant:
                headers["X-PREFECT-TENANT-ID"] = tenant
        return cls(client.api_server, client.api_key or None, tenant, _headers=headers)

    def ask(self, query: str, now: Callable[[], float]) -> Dict[str, Any]:
        """Send a query and return the data of the answer.

        Args:
            query: The GraphQL text.
            now: The time, in seconds since 1970.

        Raises:
            APIKeyRejected: if the API does not accept the key.
            APIUnavailable: if it does not answer, or not as a Prefect API does.
        """
        try:
            response = requests.post(
                self.url.rstrip("/"),
                json={"query": query, "variables": "{}"},
                headers=self._headers,
                timeout=_TIMEOUT,
            )
        except requests.RequestException as error:
            raise APIUnavailable(f"does not answer: {reason(error)}") from error
        skew = skew_of(response.headers.get("Date"), now())
        self.skew = self.skew if skew is None else skew
        return _data(response)


def _data(response: requests.Response) -> Dict[str, Any]:
    status = f"HTTP {response.status_code} {response.reason}"
    if response.status_code in (401, 403):
        raise APIKeyRejected(status)
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise APIUnavailable(
            f"does not answer as a Prefect API does: {status}, no JSON"
        )
    errors = answer.get("errors") or []
    if any(_is_about_the_key(error) for error in errors):
        raise APIKeyRejected(_messages(errors))
    if errors or not isinstance(answer.get("data"), dict):
        raise APIUnavailable(f"answers with errors: {_messages(errors) or 'no data'}")
    return dict(answer["data"])


def _is_about_the_key(error: Any) -> bool:
    extensions = error.get("extensions") if isinstance(error, dict) else None
    return (extensions or {}).get("code") in ("UNAUTHENTICATED", "FORBIDDEN")


def _messages(errors: List[Any]) -> str:
    return "; ".join(
        str(error.get("message")) if isinstance(error, dict) else str(error)
        for error in errors
    )
