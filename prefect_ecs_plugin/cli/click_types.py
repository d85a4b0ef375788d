"""What the commands of `prefect agent ecs` have in common."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import Any, Iterable, Iterator, Mapping, Optional

import click

from ..errors import PrefectECSError
from ..observability.redaction import redact_text


class FiniteFloat(click.FloatRange):
    """A range of numbers, in which click itself finds `nan` and `inf` too."""

    def convert(
        self,
        value: Any,
        param: Optional[click.Parameter],
        ctx: Optional[click.Context],
    ) -> float:
        """The number that was typed."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class NamedGroup(click.Group):
    """Says in its help which package it comes from; looked up only when asked."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the package's name and version below the options."""
        from ..version import installed_version

        formatter.write_paragraph()
        formatter.write_text(f"From prefect-ecs-plugin {installed_version()}.")


class NamedCommand(click.Command):
    """The same for a single command."""

    format_epilog = NamedGroup.format_epilog


def check_values(options: Mapping[str, Any]) -> None:
    """Refuse values of `start`'s options that click alone would take.

    Raises:
        click.UsageError: which, and why.
    """
    _check_environment(options["env"])
    if options.get("key") and options.get("key_from_secret"):
        raise click.UsageError(
            "--key and --key-from-secret exclude each other: an agent has one API key."
        )


def _check_environment(entries: Iterable[str]) -> None:
    for entry in entries:
        if "=" not in entry or entry.startswith("="):
            raise click.BadParameter(
                f"{entry!r} is not of the form NAME=value", param_hint="'--env'"
            )


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Show an error of this plugin's as click shows its own, and exit 1."""
    try:
        yield
    except PrefectECSError as error:
        raise click.ClickException(redact_text(" ".join(str(error).split()))) from error
