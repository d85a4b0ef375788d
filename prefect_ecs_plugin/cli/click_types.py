"""Types, classes and checks that the commands of `prefect agent ecs` share."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import Any, Iterator, Mapping, Optional

import click

from ..errors import PrefectECSError
from ..observability.redaction import redact_text


class FiniteFloat(click.FloatRange):
    """A range of numbers without `nan` and `inf`, which click itself accepts."""

    def convert(
        self,
        value: Any,
        param: Optional[click.Parameter],
        ctx: Optional[click.Context],
    ) -> float:
        """The number."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(
                f"{value} is not a finite number [invalid-option-value]", param, ctx
            )
        return number


class NamedGroup(click.Group):
    """A group whose help names this package and its version."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the package's name and version below the options."""
        from ..version import installed_version

        formatter.write_paragraph()
        formatter.write_text(f"From prefect-ecs-plugin {installed_version()}.")


class NamedCommand(click.Command):
    """A command whose help names this package and its version."""

    format_epilog = NamedGroup.format_epilog


def check_values(options: Mapping[str, Any]) -> None:
    """Refuse values of `start`'s options that click itself accepts.

    Raises:
        click.UsageError: with the option and the reason.
    """
    from ..config.options import mistakes  # imports more than `--help` needs

    ctx = click.get_current_context()
    params = {param.name: param for param in ctx.command.get_params(ctx)}
    for name, problem in mistakes(options):
        message = f"{problem.message} [{problem.code}]"
        raise click.BadParameter(message, ctx, params.get(name))
    for entry in options["env"]:
        if "=" not in entry or entry.startswith("="):
            raise click.BadParameter(
                f"{entry!r} is not of the form NAME=value [invalid-option-value]",
                param_hint="'--env'",
            )
    if options.get("key") and options.get("key_from_secret"):
        raise click.UsageError(
            "--key and --key-from-secret exclude each other: an agent has one API key "
            "[conflicting-options]"
        )


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Show an error of this plugin as click shows its own, and exit 1."""
    try:
        yield
    except PrefectECSError as error:
        raise click.ClickException(redact_text(" ".join(str(error).split()))) from error
