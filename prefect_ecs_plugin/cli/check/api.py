"""The Prefect API: whether it answers, knows the key, and has the tenant."""

from __future__ import annotations

import json
from typing import Any, Iterator, Mapping

from prefect import config

from .api_access import API, APIKeyRejected, APIUnavailable
from .facts import CheckContext
from .findings import Finding, failed, ok, sentence, skipped, warning

_SET_API = "Set --api or PREFECT__CLOUD__API, and check that it is up."
_SET_KEY = (
    "Give a service account's key with --key or PREFECT__CLOUD__API_KEY, or log in "
    "with `prefect auth login`."
)


# -- The checks ------------------------------------------------------------------


def reachable(facts: CheckContext) -> Iterator[Finding]:
    """Whether something that speaks GraphQL answers; it may still refuse the key."""
    try:
        api = API.configured()
    except ValueError as error:
        yield failed(
            sentence(error), "Correct --tenant-id or PREFECT__CLOUD__TENANT_ID."
        )
        return
    try:
        api.ask("query { hello }", facts.now)
    except APIUnavailable as silence:
        where = api.url or "''"
        yield failed(f"The Prefect API at {where} {silence}.", _SET_API)
        return
    except APIKeyRejected:
        pass  # it is the next check that says so
    facts.api = api
    yield ok(f"{api.url} answers (backend {config.backend})")


def key(facts: CheckContext) -> Iterator[Finding]:
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
        data = api.ask(query, facts.now)
    except APIKeyRejected as refusal:
        what = "the API key" if api.key else "requests without an API key"
        yield failed(f"{api.url} does not accept {what}: {refusal}.", _SET_KEY)
        return
    except APIUnavailable as silence:
        yield skipped(f"The Prefect API {silence}.")
        return
    if is_cloud and not (data.get("auth_info") or {}).get("tenant_id"):
        yield failed("An API token was given where a key is wanted.", _SET_KEY)
        return
    api.tenant = (data.get("auth_info") or {}).get("tenant_id")
    yield ok("accepted" if api.key else "none is given, and none is wanted")


def tenant(facts: CheckContext) -> Iterator[Finding]:
    """Whether there is a tenant, and the one that is named is among them."""
    api = _api(facts)
    if config.backend != "cloud":
        try:
            data = api.ask("query { tenant { id } }", facts.now)
        except (APIKeyRejected, APIUnavailable) as error:
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


def agent_config(facts: CheckContext) -> Iterator[Finding]:
    """Whether the agent config that `--agent-config-id` names is there."""
    wanted = facts.options.get("agent_config_id")
    if not wanted:
        return
    api = _api(facts)
    where = f"where: {{id: {{_eq: {json.dumps(wanted)}}}}}"
    try:
        data = api.ask(f"query {{ agent_config({where}) {{ id }} }}", facts.now)
    except (APIKeyRejected, APIUnavailable) as error:
        yield warning(f"The Prefect API {error}.", "Check --agent-config-id.")
        return
    if data.get("agent_config"):
        yield ok(str(wanted))
    else:
        yield failed(f"There is no agent config {wanted}.", "Check --agent-config-id.")


def _api(facts: CheckContext) -> API:
    assert facts.api is not None  # preflight asks only where it is known
    return facts.api
