"""What the commands of `prefect agent ecs` have in common."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import (
    Any,
    Container,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Tuple,
)

import click

from .errors import PrefectECSError
from .masking import hidden


class Amount(click.FloatRange):
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
        from . import __version__

        formatter.write_paragraph()
        formatter.write_text(f"From prefect-ecs-plugin {__version__}.")


class NamedCommand(click.Command):
    """The same for a single command."""

    format_epilog = NamedGroup.format_epilog


class LikeStart(NamedCommand):
    """A command that also has the options of `prefect agent ecs start`.

    Of two options with the same name its own counts.

    Args:
        refused: Options of `start` that make no sense here, and why.
        attributes: Those of any command.
    """

    def __init__(
        self, *args: Any, refused: Mapping[str, str] = {}, **attributes: Any
    ) -> None:
        super().__init__(*args, **attributes)
        self.refused = refused

    def get_params(self, ctx: click.Context) -> List[click.Parameter]:
        """Its own parameters and those of the agent's command; --help stays last."""
        params = super().get_params(ctx)
        own = {param.name for param in params}
        return params[:-1] + start_options(self.refused, own) + params[-1:]


def start_options(
    refused: Mapping[str, str] = {}, but: Container[object] = ()
) -> List[click.Parameter]:
    """The options of `prefect agent ecs start`.

    Args:
        refused: Those that make no sense with another command, and why: they are
            hidden, and the reason is given to whoever types one.
        but: The names of some that are left out.
    """
    from .cli import start  # it imports Prefect, which --help of others does without

    return [
        _refusing(param, refused[param.name]) if param.name in refused else param
        for param in start.params
        if param.name not in but
    ]


def _refusing(option: click.Parameter, reason: str) -> click.Option:
    def refuse(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value is not None:
            raise click.UsageError(f"{param.opts[0]} cannot be used here: {reason}.")

    declared = [*option.opts, str(option.name)]
    return click.Option(declared, hidden=True, expose_value=False, callback=refuse)


def typed(ctx: click.Context, but: Container[object] = ()) -> Tuple[str, ...]:
    """The options of `start` that stand on a command line, to be typed once more.

    Args:
        ctx: The command's context.
        but: The names of some that are left out.
    """
    arguments: List[str] = []
    for option in start_options(but=but):
        source = ctx.get_parameter_source(str(option.name))
        if source is click.core.ParameterSource.COMMANDLINE:
            arguments += _again(option, ctx.params.get(str(option.name)))
    return tuple(arguments)


def _again(option: click.Parameter, value: Any) -> Iterator[str]:
    if value is True:
        yield option.opts[0]
    elif value is not None and value is not False:
        for item in value if isinstance(value, tuple) else (value,):
            # With "=" a value may begin with a dash.
            yield f"{_long(option)}={item}"


def _long(option: click.Parameter) -> str:
    return next((name for name in option.opts if name.startswith("--")), option.opts[0])


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
        raise click.ClickException(hidden(" ".join(str(error).split()))) from error
