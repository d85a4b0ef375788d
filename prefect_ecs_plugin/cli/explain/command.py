"""`prefect agent ecs explain`: the options."""

from __future__ import annotations

import click

from ..click_types import NamedCommand, one_line_errors
from ..runs import RunName, run_argument

HELP = """\
Explain what happened to a flow run, on one page.

RUN is its id, its name or its URL in Prefect's UI. The page has the cause of its end
and what to do about it, or what it waits for; a timeline from its scheduled start to
its end, with the longest phase marked; its last log lines; and the requests that made
its task. Secrets are masked. What could not be read is said.

\b
  prefect agent ecs explain curious-otter
  prefect agent ecs explain 1b4e28ba-2fa1-11d2-883f-0016d3cca427 --json
  prefect agent ecs explain \\
      http://prefect.example.com/flow-run/1b4e28ba-2fa1-11d2-883f-0016d3cca427

The command reads the Prefect API that this machine is configured for, and calls AWS at
most six times, with the credentials that boto3 finds. It changes nothing. ECS keeps
stopped tasks for an hour; of an older run the page has what the agent wrote into its
log.
"""


@click.command("explain", cls=NamedCommand, help=HELP)
@run_argument
@click.option(
    "--log-lines",
    type=click.IntRange(0, 1000),
    default=10,
    show_default=True,
    metavar="N",
    help="How many of the last lines of its log to show.",
)
@click.option("--requests", is_flag=True, help="Show both requests to ECS whole.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON document.")
def explain(name: RunName, log_lines: int, requests: bool, as_json: bool) -> None:
    with one_line_errors():
        from ..runs import PrefectAPI
        from ..terminal import echo
        from . import account, page, reading

        api = PrefectAPI()
        seen = reading.read(api, api.find(name), log_lines)
        explained = account.explain(seen, log_lines)
        echo(page.as_json(explained) if as_json else page.page(explained, requests))
