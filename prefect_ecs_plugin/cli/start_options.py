"""Commands that have the options of `prefect agent ecs start` besides their own."""

from __future__ import annotations

from typing import Any, Container, Iterator, List, Mapping, Tuple

import click

from .click_types import (
    NamedCommand,
    OffFlag,
    eager_flag,
    shown_options,
    unbroken,
    write_options,
)
from .option_sources import given_options

#: In a context's `meta`: whether the help shows the options of `start` too.
_SHOWS_ALL = "prefect_ecs_plugin.help_all"


class WithStartOptions(NamedCommand):
    """A command that also has the options of `prefect agent ecs start`.

    Its own options replace those of the same name. Its --help names the others by
    reference, and --help-all shows them.

    Args:
        refused: Options of `start` that the command refuses, and why.
        attributes: Those of any command.
    """

    def __init__(
        self, *args: Any, refused: Mapping[str, str] = {}, **attributes: Any
    ) -> None:
        super().__init__(*args, **attributes)
        self.refused = refused

    def get_params(self, ctx: click.Context) -> List[click.Parameter]:
        """Its own parameters, those of `start`, and those that print and exit."""
        *params, version, help_option, config = super().get_params(ctx)
        own = {param.name for param in params}
        shared = start_options(self.refused, own)
        return [*params, *shared, version, _HELP_ALL, help_option, config]

    def format_options(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write its own options, and whose others it has."""
        if ctx.meta.get(_SHOWS_ALL):
            super().format_options(ctx, formatter)
            return
        shared = start_options()
        own = [param for param in self.get_params(ctx) if param not in shared]
        write_options(shown_options(own), formatter)
        group = ctx.parent.command_path if ctx.parent else "prefect agent ecs"
        refused = [
            max(param.opts, key=len) for param in shared if param.name in self.refused
        ]
        but = f", but for {', '.join(refused)}" if refused else ""
        formatter.write_paragraph()
        formatter.write_text(
            unbroken(f"And the options of `{group} start`{but}. --help-all shows them.")
        )


def _whole_help(ctx: click.Context) -> str:
    ctx.meta[_SHOWS_ALL] = True
    return ctx.get_help()


_HELP_ALL = eager_flag(
    "--help-all", _whole_help, "Show this message with all options and exit."
)


def start_options(
    refused: Mapping[str, str] = {}, but: Container[object] = ()
) -> List[click.Parameter]:
    """The options of `prefect agent ecs start`.

    Args:
        refused: Options that the command refuses, and why. They are hidden; a user
            who gives one sees the reason.
        but: Names of options to leave out.
    """
    from .start import start

    return [
        _refusing(param, refused[param.name]) if param.name in refused else param
        for param in start.params
        if param.name not in but
    ]


def _refusing(option: click.Parameter, reason: str) -> click.Option:
    def refuse(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value is not None:
            raise click.UsageError(
                f"{param.opts[0]} cannot be used here: {reason} [refused-option]"
            )

    declared = [*option.opts, str(option.name)]
    return click.Option(declared, hidden=True, expose_value=False, callback=refuse)


def explicit_options(
    ctx: click.Context, but: Container[object] = ()
) -> Tuple[str, ...]:
    """The options of `start` that have a value, as arguments for another command line.

    A value may come from the command line, a variable or the file of --config.

    Args:
        ctx: The command's context.
        but: Names of options to leave out.
    """
    arguments: List[str] = []
    shared = {option.name for option in start_options(but=but)}
    for given in given_options(ctx):
        if given.option.name in shared:
            arguments += _again(given.option, given.value)
    return tuple(arguments)


def _again(option: click.Option, value: Any) -> Iterator[str]:
    if option.is_flag:
        is_on = not value if isinstance(option, OffFlag) else value
        if is_on:
            yield option.opts[0]
    elif value is not None:
        for item in value if isinstance(value, tuple) else (value,):
            # With "=" a value may begin with a dash.
            yield f"{max(option.opts, key=len)}={item}"
