"""`prefect agent ecs check`: the options, which include those of `start`."""

from __future__ import annotations

import sys
from typing import Any, List

import click
from prefect.cli.agent import start_agent

from ...errors import PrefectECSError
from ..click_types import check_values
from ..option_sources import sources
from ..start import given_key
from ..start_options import WithStartOptions
from .flow_files import FlowFile, flow_files_of

HELP = """\
Report what would fail, before the agent starts.

The command takes the options of `start` and checks everything that an agent with these
options needs: the Prefect API, AWS, the template and the run-task kwargs, the network,
roles, images and permissions. It starts, registers and changes nothing.

\b
  prefect agent ecs check --cluster prod --task-definition template.yaml
  prefect agent ecs check --flow my_flow.py
  prefect agent ecs check --flow etl.py --flow 'report_*.py' --json

Each check is ok, warning or failed, or skipped if it could not be made. The exit code
is 1 if any check failed.
"""


@click.command("check", cls=WithStartOptions, help=HELP)
@click.option(
    "--flow",
    "flow_files",
    metavar="PATH",
    multiple=True,
    callback=lambda context, param, values: flow_files_of(values),
    help="Show and check the requests for the flows in this file, with secrets masked. "
    "The command runs the file, as `prefect register` does. A folder stands for the "
    ".py files below it that have a flow, and a pattern in quotes, such as "
    "'flows/*.py', for those that match.",
)
@click.option(
    "--verbose",
    is_flag=True,
    help="Show each check that another check's failure has prevented, each flow on a "
    "line of its own, and the requests also if --flow names several files.",
)
@click.option("--json", "as_json", is_flag=True, help="Write one JSON document.")
def check(
    flow_files: List[FlowFile], verbose: bool, as_json: bool, **options: Any
) -> None:
    from .output import screen
    from .runner import CheckRunner

    check_values(options)
    try:
        options["key"] = given_key(**options)
    except PrefectECSError as error:
        options["key_error"] = error
    made: List[CheckRunner] = []

    def runner(**given: Any) -> CheckRunner:
        shown = screen(as_json, verbose)
        given["sources"] = sources(click.get_current_context())
        made.append(CheckRunner(shown, flow_files=flow_files, **given))
        return made[0]

    start_agent(runner, **options)
    sys.exit(1 if made[0].has_failed else 0)
