"""`prefect agent ecs prune`: the options, the list or the document, the progress."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timedelta, timezone
from typing import (
    TYPE_CHECKING,
    AbstractSet,
    ContextManager,
    Iterable,
    List,
    Optional,
    Sequence,
)

import click

from ...template import agent_tag
from ..click_types import FiniteFloat, NamedCommand, one_line_errors
from . import definitions

if TYPE_CHECKING:
    from .account import Account
    from .definitions import Definition

HELP = """\
Deregister unused task definitions that this plugin registered.

They cost nothing, but a family can have at most 1,000,000 revisions, and the console
handles fewer. The command lists the definitions that carry this plugin's name and tag
and the agent's tag, that no task in any cluster runs with, that no registered flow
names as its task_definition_arn, and that are old enough. Without --yes it changes
nothing. An agent that needs one of them again registers it again.

\b
  prefect agent ecs prune
  prefect agent ecs prune --older-than 7 --yes

The command finds credentials and region as boto3 does. It uses at most half of AWS's
rate limits, one definition every two seconds, so that it does not delay agents.
"""


@click.command("prune", cls=NamedCommand, help=HELP)
@click.option(
    "--older-than",
    type=FiniteFloat(min=0, max=36500),
    default=30.0,
    show_default=True,
    metavar="DAYS",
    help="Only definitions registered at least this many days ago.",
)
@click.option(
    "--name",
    "-n",
    help="Name of the agent that registered them. Default: as for `start`, "
    "PREFECT__CLOUD__AGENT__NAME or `agent`.",
)
@click.option(
    "--all-agents",
    is_flag=True,
    help="Definitions of all agents, also those without an agent's tag.",
)
@click.option("--yes", is_flag=True, help="Deregister the listed definitions.")
@click.option(
    "--delete",
    is_flag=True,
    help="Also delete them, and those that were deregistered earlier.",
)
@click.option("--json", "as_json", is_flag=True, help="Write one JSON document.")
def prune(
    older_than: float,
    name: Optional[str],
    all_agents: bool,
    yes: bool,
    delete: bool,
    as_json: bool,
) -> None:
    with one_line_errors():
        from ...aws.session import AWSClients
        from .account import Account, agent_name, pinned_definitions

        account = Account(AWSClients()("ecs"))
        agent = None if all_agents else agent_tag(agent_name(name))["value"]
        pinned = pinned_definitions(lambda line: click.echo(line, err=True))
        found = find(account, timedelta(days=older_than), delete, agent, pinned)
        if found and not as_json:
            click.echo(_table(found))
        kept = remove(account, found, delete) if yes and found else []
        for reason in kept:
            click.echo(f"Not deleted: {reason} [definition-not-deleted]", err=True)
        if as_json:
            click.echo(_document(found, kept, changed=yes and bool(found)))
        else:
            click.echo(_summary(len(found), len(kept), yes, delete))
        sys.exit(1 if kept else 0)


def find(
    account: Account,
    age: timedelta,
    with_inactive: bool = False,
    agent: Optional[str] = None,
    pinned: AbstractSet[str] = frozenset(),
) -> List[Definition]:
    """Find the definitions that may be removed.

    Args:
        account: The account to search.
        age: Minimum age of a definition.
        with_inactive: Whether to include definitions that are already deregistered.
        agent: The value of the agent's tag; None for the definitions of all agents.
        pinned: The definitions that registered flows name.
    """
    statuses = ("ACTIVE", "INACTIVE") if with_inactive else ("ACTIVE",)
    arns = [arn for status in statuses for arn in account.definitions(status)]
    ours = [arn for arn in arns if definitions.may_be_ours(arn)]
    with _progress(ours, "Looking at task definitions") as shown:
        described = [account.described(arn) for arn in shown]
    used = account.used()  # after the long search, so that no new task is missed
    now = datetime.now(timezone.utc)
    return [
        each
        for each in described
        if definitions.is_prunable(each, used, now, age, agent)
        and not definitions.is_pinned(each, pinned)
    ]


def remove(account: Account, found: Sequence[Definition], delete: bool) -> List[str]:
    """Deregister definitions and, if asked to, delete them.

    Returns what ECS did not delete, with its reasons.
    """
    active = [each.arn for each in found if each.is_active]
    with _progress(active, "Deregistering") as arns:
        for arn in arns:
            account.deregister(arn)
    if not delete:
        return []
    from ...aws.ecs import batches
    from .account import DELETED_AT_ONCE

    kept: List[str] = []
    groups = list(batches([each.arn for each in found], DELETED_AT_ONCE))
    with click.progressbar(groups, label="Deleting", file=sys.stderr) as shown:
        for group in shown:
            kept += account.delete(group)
    return kept


def _progress(items: List[str], label: str) -> ContextManager[Iterable[str]]:
    """A progress bar; click prints only the label unless stderr is a terminal."""
    return click.progressbar(items, label=label, file=sys.stderr)


def _document(found: Sequence[Definition], kept: List[str], changed: bool) -> str:
    listed = [
        {
            "name": each.name,
            "arn": each.arn,
            "status": each.status,
            "registered_at": _registered_at(each).isoformat(),
        }
        for each in found
    ]
    document = {"definitions": listed, "changed": changed, "not_deleted": kept}
    return json.dumps(document, indent=2)


def _summary(found: int, kept: int, yes: bool, delete: bool) -> str:
    if not found:
        return "There is nothing to prune."
    if not yes:
        verb = "deletes" if delete else "deregisters"
        return f"Nothing was changed; --yes {verb} {_count(found)}."
    return f"{'Deleted' if delete else 'Deregistered'} {_count(found - kept)}."


def _table(found: Sequence[Definition]) -> str:
    now = datetime.now(timezone.utc)
    rows = [_row("REGISTERED", "STATUS", "TASK DEFINITION")]
    for each in found:
        days = (now - _registered_at(each)).days
        ago = f"{days} day{'' if days == 1 else 's'} ago" if days else "today"
        rows.append(_row(f"{ago:>13}", each.status, each.name))
    return "\n".join(rows)


def _registered_at(definition: Definition) -> datetime:
    assert definition.registered_at is not None  # is_prunable requires it
    return definition.registered_at


def _row(registered: str, status: str, name: str) -> str:
    """The longest column is last, for terminals of 80 columns."""
    return f"{registered:<13}   {status:<8}  {name}"


def _count(count: int) -> str:
    return f"{count} task definition{'' if count == 1 else 's'}"
