"""`prefect agent ecs sandbox`: the options, and what has to be there first."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Any, Dict, Optional, Tuple

import click

from prefect_ecs_plugin.cli.click_types import FiniteFloat
from prefect_ecs_plugin.cli.start_options import WithStartOptions, explicit_options
from prefect_ecs_plugin.errors import with_code
from prefect_ecs_plugin.sandbox import flow_files
from prefect_ecs_plugin.sandbox.flow_files import Param
from prefect_ecs_plugin.sandbox.interruptions import INTERRUPTIONS

if TYPE_CHECKING:
    from prefect_ecs_plugin.sandbox.display import Screen

INSTALL = "pip install 'prefect-ecs-plugin[sandbox]'"

#: The modules that the extra installs.
NEEDED = ("graphql", "moto", "flask", "flask_cors", "rich")

#: Options of `prefect agent ecs start` that make no sense here, and why.
REFUSED: Dict[str, str] = {
    "api": "the agent talks to the sandbox's own API",
    "key": "the sandbox's API takes no key and no real one is ever used",
    "key_from_secret": "the sandbox's API takes no key and no real one is ever read",
    "tenant_id": "the sandbox's API has one tenant only",
    "agent_config_id": "the sandbox's API has no agent configurations",
    "max_polls": "the sandbox stops its agent itself",
    "agent_address": "the sandbox listens on loopback, on ports of its own choice",
    "log_format": "the sandbox reads its agent's log, and shows what matters of it",
}

#: What can go wrong. `faults`, which has the last one, needs the extra.
FAULTS = (*INTERRUPTIONS, "stuck-start")

HELP = """\
Run flows as ECS tasks on this machine: no AWS account, no Prefect server.

Starts a Prefect API and an AWS on loopback, registers the flows in each FLOW.py or
folder (by default an example), runs every one once through `prefect agent ecs start`,
and shows what happens. The options of `start` are for that agent.

\b
  prefect agent ecs sandbox
  prefect agent ecs sandbox flows/ --param day=2022-01-31 --param etl:rows=10
  prefect agent ecs sandbox my_flow.py --task-definition template.yaml
  prefect agent ecs sandbox --keep-running

A task is a local process: the command of its `flow` container, run by this Python
with the environment that ECS would give it. What AWS would refuse is refused. This
Python's packages are the image; modules beside a flow's file are found too, which on
AWS have to be in the image.

What it is not: images are not pulled, sidecars do not run, roles and permissions are
not checked, CPU and memory are not limited, and there is one machine only.

Nothing outside this machine is touched: your AWS and Prefect settings, profiles, keys
and proxies are not seen by anything the sandbox starts.

A file or flow that cannot run is reported and skipped. Exit code 0 if none was skipped
and every flow run ended Success; 2 for bad values, before anything starts.
"""

NOTICE = """\
A sandbox, not AWS: images are not pulled, roles are not checked, CPU and memory
are not limited, one machine."""


def missing(version: Tuple[int, int] = sys.version_info[:2]) -> Optional[str]:
    """Return why the sandbox cannot run here, as one line, or None."""
    if version < (3, 10):
        found = ".".join(map(str, version))
        return with_code(
            f"The sandbox needs Python 3.10 or later; this is Python {found}.",
            code="old-python",
        )
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if not absent:
        return None
    return with_code(
        f"The sandbox needs {', '.join(absent)}: {INSTALL}",
        code="sandbox-not-installed",
    )


def screen() -> Screen:
    """Return a live table on a terminal that can have one, plain lines elsewhere."""
    from rich.console import Console

    from prefect_ecs_plugin.sandbox.display import Lines, LiveTable

    console = Console()
    if sys.stdout.isatty() and not console.is_dumb_terminal:
        return LiveTable(console)
    return Lines(click.echo)


def _refuse_empty_folders(
    ctx: click.Context, param: click.Parameter, paths: Tuple[str, ...]
) -> Tuple[str, ...]:
    for path in paths:
        if not flow_files.expanded([path]):
            raise click.BadParameter(
                f"the folder {path} has no *.py file [no-flow-files]", ctx, param
            )
    return paths


@click.command("sandbox", cls=WithStartOptions, refused=REFUSED, help=HELP)
@click.argument(
    "paths",
    metavar="[FLOW.py|FOLDER]...",
    nargs=-1,
    type=click.Path(exists=True),
    callback=_refuse_empty_folders,
)
@click.option(
    "--param",
    "params",
    callback=lambda ctx, param, texts: tuple(map(flow_files.param, texts)),
    metavar="[FLOW:]NAME=JSON",
    multiple=True,
    help="A value for the parameter NAME, of all flows that have it or of the one "
    "named FLOW; repeatable. Text that is not JSON is taken as a string.",
)
@click.option(
    "--keep-running",
    is_flag=True,
    help="Keep running when all runs have ended, and show how other terminals join in.",
)
@click.option(
    "--timeout",
    type=FiniteFloat(min=1),
    default=300.0,
    show_default=True,
    help="Seconds without any change after which to give a run up, counted from the "
    "agent's first look at the queue.",
)
@click.option(
    "--fault",
    "faults",
    type=click.Choice(FAULTS),
    multiple=True,
    help="What goes wrong with the first task of each run. spot: AWS takes its "
    "capacity. memory: its container is killed for memory. stuck-start: it stays "
    "PENDING until it is stopped; give a short --start-deadline too.",
)
@click.option(
    "--fault-after",
    type=FiniteFloat(min=0),
    default=5.0,
    show_default=True,
    help="How long after a flow has begun spot and memory happen, in seconds.",
)
def sandbox(
    paths: Tuple[str, ...],
    params: Tuple[Param, ...],
    keep_running: bool,
    timeout: float,
    faults: Tuple[str, ...],
    fault_after: float,
    **values: Any,
) -> None:
    reason = missing()
    if reason is not None:
        click.echo(reason, err=True)
        sys.exit(1)
    click.echo(NOTICE)
    shown = screen()
    shown.busy("Looking at the flows.", 0.0)
    from prefect_ecs_plugin.sandbox.session import Plan, run

    plan = Plan(
        paths=paths,
        params=params,
        agent_arguments=explicit_options(click.get_current_context()),
        labels=values.get("label") or (),
        api_key_secret_arn=values.get("api_key_secret_arn"),
        keep_running=keep_running,
        timeout=timeout,
        faults=faults,
        fault_after=fault_after,
        verbose=str(values.get("log_level")).upper() == "DEBUG",
    )
    sys.exit(run(plan, shown))
