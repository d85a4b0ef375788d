"""`prefect agent ecs check`: the options, which are those of `start`, and the end."""

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
Say what would fail, before anything runs.

Takes the options of `start` and looks at everything that an agent with these options
needs: the Prefect API, AWS, the template and the run-task kwargs, the network, roles,
images and permissions. Nothing is started, registered or changed.

\b
  prefect agent ecs check --cluster prod --task-definition template.yaml
  prefect agent ecs check --flow my_flow.py

Each check is ok, warning, failed, or skipped where it cannot be made. Exit code 1 if
one has failed.
"""


@click.command("check", cls=WithStartOptions, help=HELP)
@click.option(
    "--flow",
    "flow_path",
    metavar="FLOW.py",
    type=click.Path(exists=True, dir_okay=False),
    help="Show what would be sent for the flows in this file, secrets masked, and "
    "check that. The file is run, as by `prefect register`.",
)
@click.option("--json", "as_json", is_flag=True, help="Write one JSON document.")
def check(flow_path: Optional[str], as_json: bool, **options: Any) -> None:
    from .output import screen
    from .preflight import Preflight

    check_values(options)
    try:
        options["key"] = given_key(**options)
    except PrefectECSError as error:
        options["key_trouble"] = str(error)
    made: List[Preflight] = []

    def preflight(**given: Any) -> Preflight:
        made.append(Preflight(screen(as_json), flow_path=flow_path, **given))
        return made[0]

    start_agent(preflight, **options)
    sys.exit(1 if made[0].has_failed else 0)
