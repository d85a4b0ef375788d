"""The flow run that a command is about, named by its id, its name or its URL."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional
from urllib.parse import urlsplit

import click
from prefect.utilities.graphql import EnumValue, parse_graphql, with_args
from tabulate import tabulate

from ..errors import ConfigurationError, PrefectECSError
from ..validation.excerpt import quoted, shortened
from .prefect_client import API, APIKeyRejected, APIUnavailable
from .terminal import printable

#: The part of a URL of Prefect's UI that stands before a flow run's id.
_IN_URL = "flow-run"

#: Runs of one name that are listed at most.
_LISTED = 10


@dataclass(frozen=True)
class RunName:
    """How a user names a run.

    Attributes:
        text: As given.
        run_id: Its id, if the text is an id or a URL.
    """

    text: str
    run_id: Optional[str] = None


def _read_name(ctx: click.Context, param: click.Parameter, value: str) -> RunName:
    """Read an id, a name or a URL; a URL has to be that of a flow run."""
    text = value.strip()
    if "://" not in text:
        if not text:
            raise click.BadParameter("it is empty [invalid-option-value]")
        return RunName(text, as_id(text))
    run_id = _id_in_url(text)
    if run_id is None:
        raise click.BadParameter(
            f"{quoted(text)} is not the URL of a flow run; that ends with /{_IN_URL}/ "
            "and its id [invalid-option-value]"
        )
    return RunName(text, run_id)


#: The argument RUN of a command.
run_argument = click.argument("name", metavar="RUN", callback=_read_name)


def as_id(text: Any) -> Optional[str]:
    """A run's id as Prefect writes it; None for what is no id."""
    try:
        return str(uuid.UUID(text))
    except (AttributeError, TypeError, ValueError):
        return None


def _id_in_url(url: str) -> Optional[str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    names = parts.path.split("/")
    if parts.scheme not in ("http", "https") or _IN_URL not in names[:-1]:
        return None
    return as_id(names[names.index(_IN_URL) + 1])


class PrefectAPI:
    """Asks the Prefect API that this machine is configured for.

    Raises:
        ConfigurationError: if the settings are not valid.
    """

    def __init__(self) -> None:
        try:
            self._api = API.configured()
        except ValueError as error:
            raise ConfigurationError(
                f"The tenant's id is not valid: {error}. Correct "
                "PREFECT__CLOUD__TENANT_ID.",
                code="bad-tenant-id",
            ) from error

    @property
    def secrets(self) -> List[str]:
        """What must not be shown."""
        return [self._api.key] if self._api.key else []

    @property
    def of_tenant(self) -> Dict[str, Any]:
        """The `where` of rows of the tenant that this machine is set up for, if any."""
        tenant = self._api.wanted_tenant
        return {"tenant_id": {"_eq": tenant}} if tenant else {}

    def ask(self, query: Mapping[str, Any]) -> Dict[str, Any]:
        """Send a query and return the data of the answer.

        Args:
            query: Fields by field, as `prefect.utilities.graphql.parse_graphql` reads
                it.

        Raises:
            PrefectECSError: one line, if there is no usable answer.
        """
        api = self._api
        try:
            return api.ask(parse_graphql({"query": query}), time.time)
        except APIKeyRejected as error:
            raise PrefectECSError(
                f"The Prefect API at {api.url} does not accept the API key: {error}. "
                "Set PREFECT__CLOUD__API_KEY, or log in with `prefect auth login`.",
                code="api-key-rejected",
            ) from error
        except APIUnavailable as error:
            raise PrefectECSError(
                f"The Prefect API at {api.url or repr('')} {error}. Set "
                "PREFECT__CLOUD__API, and check that the API is running.",
                code="prefect-api-unavailable",
            ) from error

    def find(self, name: RunName) -> str:
        """The id of the run that a user names.

        Raises:
            PrefectECSError: if there is none, or none of this tenant, or several.
        """
        rows = self._named(name)
        if not rows:
            raise self._unknown(name)
        if len(rows) > 1:
            raise _ambiguous(name, rows)
        tenant = self._api.wanted_tenant
        if tenant and rows[0]["tenant_id"] not in (None, tenant):
            raise PrefectECSError(
                f"Flow run {rows[0]['id']} belongs to tenant {rows[0]['tenant_id']}, "
                f"and this machine is set up for tenant {tenant}. Set "
                "PREFECT__CLOUD__TENANT_ID, or run `prefect auth switch-tenants`.",
                code="run-of-other-tenant",
            )
        return str(rows[0]["id"])

    def _named(self, name: RunName) -> List[Dict[str, Any]]:
        which = {"id": name.run_id} if name.run_id else {"name": name.text}
        options = {
            "where": {key: {"_eq": value} for key, value in which.items()},
            "order_by": {"created": EnumValue("desc")},
            "limit": _LISTED + 1,
        }
        fields = {
            **dict.fromkeys(("id", "tenant_id", "state"), True),
            **dict.fromkeys(("scheduled_start_time", "start_time"), True),
            "flow": {"name"},
        }
        rows: List[Dict[str, Any]] = self.ask({with_args("flow_run", options): fields})[
            "flow_run"
        ]
        return rows

    def _unknown(self, name: RunName) -> PrefectECSError:
        url, hint = self._api.url, "check the name"
        if self._api.key:
            hint = f"{hint}, and whether the API key is of the run's tenant"
        if name.run_id:
            of_task_run = with_args(
                "task_run", {"where": {"id": {"_eq": name.run_id}}, "limit": 1}
            )
            for row in self.ask({of_task_run: {"flow_run_id"}})["task_run"]:
                hint = f"it is a task run of flow run {row['flow_run_id']}"
        kind = f"id {name.run_id}" if name.run_id else f"name {quoted(name.text)}"
        return PrefectECSError(
            f"The Prefect API at {url} has no flow run with the {kind}: {hint}.",
            code="no-such-run",
        )


def _ambiguous(name: RunName, rows: List[Dict[str, Any]]) -> PrefectECSError:
    """The error of a name that several runs have; lists them first."""
    table = [
        [
            row["id"],
            shortened(printable(str((row["flow"] or {}).get("name"))), 13),
            shortened(str(row["state"]), 10),
            str(row["start_time"] or row["scheduled_start_time"])[:16],
        ]
        for row in rows[:_LISTED]
    ]
    headers = ["ID", "FLOW", "STATE", "START (UTC)"]
    click.echo(tabulate(table, headers, tablefmt="plain"), err=True)
    count = f"More than {_LISTED}" if len(rows) > _LISTED else str(len(rows))
    return PrefectECSError(
        f"{count} flow runs have the name {quoted(name.text)}; give an id.",
        code="ambiguous-run",
    )
