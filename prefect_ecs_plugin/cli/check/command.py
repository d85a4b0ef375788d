"""`prefect agent ecs check`: the options, which include those of `start`."""

from __future__ import annotations

import sys
from typing import Any, List, Optional

import click
from prefect.cli.agent import start_agent

from ...errors import PrefectECSError
from ..click_types import check_values
from ..start import given_key
from ..start_options import WithStartOptions

HELP = """\
Report what would fail, before the agent starts.

The command takes the options of `start` and checks everything that an agent with these
options needs: the Prefect API, AWS, the template and the run-task kwargs, the network,
roles, images and permissions. It starts, registers and changes nothing.

\b
  prefect agent ecs check --cluster prod --task-definition template.yaml
  prefect agent ecs check --flow my_flow.py

Each check is ok, warning or failed, or skipped if it could not be made. The exit code
is 1 if any check failed.
"""


@click.command("check", cls=WithStartOptions, help=HELP)
@click.option(
    "--flow",
    "flow_path",
    metavar="FLOW.py",
    type=click.Path(exists=True, dir_okay=False),
    help="Show and check the requests for the flows in this file, with secrets masked. "
    "The command runs the file, as `prefect register` does.",
)
@click.option("--json", "as_json", is_flag=True, help="Write one JSON document.")
def check(flow_path: Optional[str], as_json: bool, **options: Any) -> None:
    from .output import screen
    from .runner import CheckRunner

    check_values(options)
    try:
        options["key"] = given_key(**options)
    except PrefectECSError as error:
        options["key_error"] = error
    made: List[CheckRunner] = []

    def runner(**given: Any) -> CheckRunner:
        made.append(CheckRunner(screen(as_json), flow_path=flow_path, **given))
        return made[0]

    start_agent(runner, **options)
    sys.exit(1 if made[0].has_failed else 0)
