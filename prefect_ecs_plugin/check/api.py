"""The Prefect API: whether it answers, knows the key, and has the tenant."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, List, Mapping, Optional

import prefect
import requests
from prefect import config
from prefect.client import Client

from ..errors import reason
from .asking import skew_of
from .facts import Facts
from .findings import Finding, failed, ok, sentence, skipped, warning

#: Seconds to wait for a connection and for each part of the answer.
_TIMEOUT = (10, 30)

_SET_API = "Set --api or PREFECT__CLOUD__API, and check that it is up."
_SET_KEY = (
    "Give a service account's key with --key or PREFECT__CLOUD__API_KEY, or log in "
    "with `prefect auth login`."
)


class Silent(Exception):
    """The API gave no answer that can be used; why, in one line."""


class KeyRefused(Exception):
    """The API does not accept the key; why, in one line."""


@dataclass
class API:
    """The API that an agent with these options would use.

    Asked once for each question and without the minutes of retries that an agent
    has the time for.

    Attributes:
        url: Where it is.
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
        """As Prefect's own client finds its settings.

        Raises:
            ValueError: if the tenant is no UUID.
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

    def ask(self, query: str, facts: Facts) -> Dict[str, Any]:
        """The data that the API answers to a query.

        Raises:
            KeyRefused: if it does not accept the key.
            Silent: if it does not answer, or not as a Prefect API does.
        """
        try:
            response = requests.post(
                self.url.rstrip("/"),
                json={"query": query, "variables": "{}"},
                headers=self._headers,
                timeout=_TIMEOUT,
            )
        except requests.RequestException as error:
            raise Silent(f"does not answer: {reason(error)}") from error
        skew = skew_of(response.headers.get("Date"), facts.now())
        self.skew = self.skew if skew is None else skew
        return _data(response)


def _data(response: requests.Response) -> Dict[str, Any]:
    if response.status_code in (401, 403):
        raise KeyRefused(f"HTTP {response.status_code} {response.reason}")
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        status = f"HTTP {response.status_code} {response.reason}"
        raise Silent(f"does not answer as a Prefect API does: {status}, no JSON")
    errors = answer.get("errors") or []
    if any(_is_about_the_key(error) for error in errors):
        raise KeyRefused(_messages(errors))
    if errors or not isinstance(answer.get("data"), dict):
        raise Silent(f"answers with errors: {_messages(errors) or 'no data'}")
    data: Dict[str, Any] = answer["data"]
    return data


def _is_about_the_key(error: Any) -> bool:
    extensions = error.get("extensions") if isinstance(error, dict) else None
    return (extensions or {}).get("code") in ("UNAUTHENTICATED", "FORBIDDEN")


def _messages(errors: List[Any]) -> str:
    return "; ".join(
        str(error.get("message")) if isinstance(error, dict) else str(error)
        for error in errors
    )


# -- The checks ------------------------------------------------------------------


def reachable(facts: Facts) -> Iterator[Finding]:
    """Whether something that speaks GraphQL answers; it may still refuse the key."""
    try:
        api = API.configured()
    except ValueError as error:
        yield failed(
            sentence(error), "Correct --tenant-id or PREFECT__CLOUD__TENANT_ID."
        )
        return
    try:
        api.ask("query { hello }", facts)
    except Silent as silence:
        where = api.url or "''"
        yield failed(f"The Prefect API at {where} {silence}.", _SET_API)
        return
    except KeyRefused:
        pass  # it is the next check that says so
    facts.api = api
    yield ok(f"{api.url} answers (backend {config.backend})")


def key(facts: Facts) -> Iterator[Finding]:
    """Whether the key opens the API, and whether one is needed."""
    api = _api(facts)
    if facts.options.get("key_trouble"):
        yield failed(facts.options["key_trouble"])
        return
    is_cloud = config.backend == "cloud"
    if is_cloud and not api.key:
        yield failed("Prefect Cloud wants an API key and there is none.", _SET_KEY)
        return
    query = "query { auth_info { tenant_id } }" if is_cloud else "query { hello }"
    try:
        data = api.ask(query, facts)
    except KeyRefused as refusal:
        what = "the API key" if api.key else "requests without an API key"
        yield failed(f"{api.url} does not accept {what}: {refusal}.", _SET_KEY)
        return
    except Silent as silence:
        yield skipped(f"The Prefect API {silence}.")
        return
    if is_cloud and not (data.get("auth_info") or {}).get("tenant_id"):
        yield failed("An API token was given where a key is wanted.", _SET_KEY)
        return
    api.tenant = (data.get("auth_info") or {}).get("tenant_id")
    yield ok("accepted" if api.key else "none is given, and none is wanted")


def tenant(facts: Facts) -> Iterator[Finding]:
    """Whether there is a tenant, and the one that is named is among them."""
    api = _api(facts)
    if config.backend != "cloud":
        try:
            data = api.ask("query { tenant { id } }", facts)
        except (KeyRefused, Silent) as error:
            yield skipped(f"The Prefect API was asked for its tenants: {error}.")
            return
        yield from _server_tenant(api, data)
    elif api.tenant is None:
        yield skipped("Which tenant it is depends on the API key.")
    elif api.wanted_tenant in (None, api.tenant):
        yield ok(api.tenant)
    else:
        yield failed(
            f"The key is for tenant {api.tenant}, not for {api.wanted_tenant}.",
            "Correct --tenant-id or PREFECT__CLOUD__TENANT_ID.",
        )


def _server_tenant(api: API, data: Mapping[str, Any]) -> Iterator[Finding]:
    found = [str(each["id"]) for each in data.get("tenant") or []]
    if not found:
        yield failed(
            "The Prefect Server has no tenant.",
            "Create one with `prefect server create-tenant`.",
        )
    elif api.wanted_tenant and api.wanted_tenant not in found:
        yield failed(
            f"The Prefect Server has no tenant {api.wanted_tenant}.",
            f"Correct --tenant-id; it has {', '.join(found)}.",
        )
    else:
        api.tenant = api.wanted_tenant or found[0]
        yield ok(api.tenant)


def agent_config(facts: Facts) -> Iterator[Finding]:
    """Whether the agent config that `--agent-config-id` names is there."""
    wanted = facts.options.get("agent_config_id")
    if not wanted:
        return
    api = _api(facts)
    where = f"where: {{id: {{_eq: {json.dumps(wanted)}}}}}"
    try:
        data = api.ask(f"query {{ agent_config({where}) {{ id }} }}", facts)
    except (KeyRefused, Silent) as error:
        yield warning(f"The Prefect API {error}.", "Check --agent-config-id.")
        return
    if data.get("agent_config"):
        yield ok(str(wanted))
    else:
        yield failed(f"There is no agent config {wanted}.", "Check --agent-config-id.")


def _api(facts: Facts) -> API:
    assert facts.api is not None  # preflight asks only where it is known
    return facts.api
