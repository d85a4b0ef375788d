"""`prefect agent ecs status`: the options; refreshes the screen."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Optional

import click

from ...errors import PrefectECSError
from ..click_types import NamedCommand, one_line_errors

if TYPE_CHECKING:
    from rich.console import Console

    from ..runs import PrefectAPI

#: Seconds between two looks.
_PAUSE = 5.0

HELP = """\
Show what the ECS agents have taken, and what waits for what.

Flow runs that are due or under way, by state, flow and label; what waits, for what and
since when; the tasks by cluster and status; limits for which runs wait; the agents and
their last look at the queue.

\b
  prefect agent ecs status
  prefect agent ecs status --watch
  prefect agent ecs status --json

The command reads the Prefect API that this machine is configured for, and lists and
describes the tasks of the clusters that launch records name. It changes nothing.
"""


@click.command("status", cls=NamedCommand, help=HELP)
@click.option(
    "--watch",
    is_flag=True,
    help="Fill the terminal and refresh it every 5 seconds, until Ctrl-C.",
)
@click.option("--json", "as_json", is_flag=True, help="Write one JSON document.")
def status(watch: bool, as_json: bool) -> None:
    if watch and as_json:
        raise click.UsageError(
            "--watch and --json exclude each other [conflicting-options]"
        )
    with one_line_errors():
        from ..runs import PrefectAPI
        from ..terminal import echo
        from . import screen
        from .overview import overview
        from .reading import Clusters, read

        api = PrefectAPI()
        if watch and sys.stdout.isatty():
            keep_showing(api)
            return
        found = overview(read(api, Clusters()))
        if as_json:
            click.echo(screen.as_json(found))
        else:
            echo("\n".join(screen.lines(found)))


def keep_showing(api: PrefectAPI, console: Optional[Console] = None) -> None:
    """Fill a terminal and refresh it until Ctrl-C.

    Args:
        api: The Prefect API.
        console: The terminal; None for that of this process.

    Raises:
        PrefectECSError: if rich is missing.
    """
    try:
        from rich.live import Live
        from rich.text import Text
    except ImportError as error:
        raise PrefectECSError(
            "--watch needs rich: pip install 'prefect-ecs-plugin[status]'",
            code="status-not-installed",
        ) from error
    from ...observability.redaction import redact_text
    from ..terminal import wrapped
    from . import screen
    from .overview import overview
    from .reading import Clusters, read

    clusters = Clusters()
    with suppress(KeyboardInterrupt), Live(
        console=console, screen=True, auto_refresh=False
    ) as live:
        while True:
            try:
                found = overview(read(api, clusters))
                text = "\n".join(screen.lines(found, live.console.height))
            except PrefectECSError as error:  # it may pass
                text = "\n".join(wrapped(redact_text(str(error)), ""))
            live.update(Text.from_ansi(text, no_wrap=True), refresh=True)
            time.sleep(_PAUSE)
