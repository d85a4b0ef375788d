"""The Prefect API: whether it answers, accepts the key, and has the tenant."""

from __future__ import annotations

import json
from typing import Any, Iterator, Mapping

from prefect import config

from ..prefect_client import API, APIKeyRejected, APIUnavailable
from .context import CheckContext
from .findings import Finding, failed, failed_with, ok, sentence, skipped, warning

_SET_API = "Set --api or PREFECT__CLOUD__API, and check that the API is running."
_SET_KEY = (
    "Give a service account's key with --key or PREFECT__CLOUD__API_KEY, or log in "
    "with `prefect auth login`."
)
_SET_TENANT = "Correct --tenant-id or PREFECT__CLOUD__TENANT_ID."


def reachable(context: CheckContext) -> Iterator[Finding]:
    """Whether a GraphQL API answers; the key is another check's."""
    try:
        api = API.configured()
    except ValueError as error:
        yield failed(
            f"The tenant's id is not valid: {sentence(error)}",
            _SET_TENANT,
            code="bad-tenant-id",
        )
        return
    try:
        api.ask("query { hello }", context.now)
    except APIUnavailable as error:
        where = api.url or "''"
        yield failed(
            f"The Prefect API at {where} {error}.",
            _SET_API,
            code="prefect-api-unavailable",
        )
        return
    except APIKeyRejected:
        pass  # the next check reports it
    context.api = api
    yield ok(f"{api.url} answers (backend {config.backend})")


def key(context: CheckContext) -> Iterator[Finding]:
    """Whether the API accepts the key, and whether it requires one."""
    api = context.known_api
    if context.options.get("key_error"):
        yield failed_with(context.options["key_error"])
        return
    is_cloud = config.backend == "cloud"
    if is_cloud and not api.key:
        yield failed(
            "Prefect Cloud requires an API key, and there is none.",
            _SET_KEY,
            code="no-api-key",
        )
        return
    query = "query { auth_info { tenant_id } }" if is_cloud else "query { hello }"
    try:
        data = api.ask(query, context.now)
    except APIKeyRejected as error:
        what = "the API key" if api.key else "requests without an API key"
        yield failed(
            f"The Prefect API at {api.url} does not accept {what}: {error}.",
            _SET_KEY,
            code="api-key-rejected",
        )
        return
    except APIUnavailable as error:
        yield skipped(f"The Prefect API {error}.", code="prefect-api-unavailable")
        return
    api.tenant = (data.get("auth_info") or {}).get("tenant_id")
    if is_cloud and not api.tenant:
        yield failed(
            "The given key is an API token, and Prefect Cloud requires an API key.",
            _SET_KEY,
            code="token-instead-of-key",
        )
        return
    yield ok("accepted" if api.key else "none given, none required")


def tenant(context: CheckContext) -> Iterator[Finding]:
    """Whether there is a tenant, and whether the named tenant exists."""
    api = context.known_api
    if config.backend != "cloud":
        try:
            data = api.ask("query { tenant { id } }", context.now)
        except (APIKeyRejected, APIUnavailable) as error:
            yield skipped(
                f"The Prefect API {error}, when asked for its tenants.",
                code="prefect-api-unavailable",
            )
            return
        yield _server_tenant(api, data)
    elif api.tenant is None:
        yield skipped("The tenant depends on the API key.", code="tenant-unknown")
    elif api.wanted_tenant in (None, api.tenant):
        yield ok(api.tenant)
    else:
        yield failed(
            f"The API key belongs to tenant {api.tenant}, not {api.wanted_tenant}.",
            _SET_TENANT,
            code="wrong-tenant",
        )


def _server_tenant(api: API, data: Mapping[str, Any]) -> Finding:
    found = [str(each["id"]) for each in data.get("tenant") or []]
    if not found:
        return failed(
            "The Prefect Server has no tenant.",
            "Create one with `prefect server create-tenant`.",
            code="no-tenant",
        )
    if api.wanted_tenant and api.wanted_tenant not in found:
        return failed(
            f"The Prefect Server has no tenant {api.wanted_tenant}; it has "
            f"{', '.join(found)}.",
            _SET_TENANT,
            code="unknown-tenant",
        )
    api.tenant = api.wanted_tenant or found[0]
    return ok(api.tenant)


def agent_config(context: CheckContext) -> Iterator[Finding]:
    """Whether the agent config that `--agent-config-id` names exists."""
    wanted = context.options.get("agent_config_id")
    if not wanted:
        return
    where = f"where: {{id: {{_eq: {json.dumps(wanted)}}}}}"
    query = f"query {{ agent_config({where}) {{ id }} }}"
    try:
        data = context.known_api.ask(query, context.now)
    except (APIKeyRejected, APIUnavailable) as error:
        yield warning(
            f"The Prefect API {error}, when asked for agent config {wanted}.",
            "Check --agent-config-id.",
            code="agent-config-unknown",
        )
        return
    if data.get("agent_config"):
        yield ok(str(wanted))
    else:
        yield failed(
            f"The Prefect API has no agent config {wanted}.",
            "Correct --agent-config-id.",
            code="no-agent-config",
        )
