"""Commands that have the options of `prefect agent ecs start` besides their own."""

from __future__ import annotations

from typing import Any, Container, Iterator, List, Mapping, Tuple

import click

from .click_types import NamedCommand


class WithStartOptions(NamedCommand):
    """A command that also has the options of `prefect agent ecs start`.

    Its own options replace those of the same name.

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
        """Its own parameters and those of `start`; --help stays last."""
        params = super().get_params(ctx)
        own = {param.name for param in params}
        return params[:-1] + start_options(self.refused, own) + params[-1:]


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
    """The options of `start` that the user gave, as arguments for another command line.

    Args:
        ctx: The command's context.
        but: Names of options to leave out.
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
            yield f"{max(option.opts, key=len)}={item}"
