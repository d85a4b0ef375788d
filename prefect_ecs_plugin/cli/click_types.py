"""Types, classes and checks that the commands of `prefect agent ecs` share."""

from __future__ import annotations

import math
import sys
from contextlib import contextmanager
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
)

import click

from ..errors import PrefectECSError
from ..observability.redaction import redact_text
from .option_sources import CONFIG, name_in, options_in, plain_number, variable_of
from .terminal import printable


class Integer(click.IntRange):
    """A range of integers; a message calls another value no valid integer."""

    name = "integer"


class FiniteFloat(click.FloatRange):
    """A range of numbers without `nan` and `inf`, which click itself accepts."""

    name = "number"

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


# -- Help --------------------------------------------------------------------------

#: The title in --help of options without a group.
_UNGROUPED = "Options"

#: Stands for a hyphen while a help text is wrapped.
_NON_BREAKING_HYPHEN = "\u2011"

#: A summary in a list of commands is never cut.
UNCUT = 1000


def option_group(title: str, options: Sequence[Any]) -> Callable[[Any], Any]:
    """A decorator that adds options, which --help shows under a title.

    Args:
        title: Such as `AWS`.
        options: What `click.option` returns, in the order in which they are shown.
    """

    def decorate(function: Any) -> Any:
        for add in reversed(options):
            add(function)
            function.__click_params__[-1].group = title
        return function

    return decorate


def group_of(option: click.Parameter) -> str:
    """The title under which --help shows an option."""
    return str(getattr(option, "group", _UNGROUPED))


def by_group(options: Sequence[click.Option]) -> Dict[str, List[click.Option]]:
    """Options by the titles of their groups; those without a group are last, and of
    these the ones that print and exit."""

    def place(option: click.Option) -> Tuple[bool, bool]:
        return group_of(option) == _UNGROUPED, option.is_eager and option.is_flag

    grouped: Dict[str, List[click.Option]] = {}
    for option in sorted(options, key=place):
        grouped.setdefault(group_of(option), []).append(option)
    return grouped


def shown_options(params: Sequence[click.Parameter]) -> List[click.Option]:
    """The options that --help shows."""
    return [
        param
        for param in params
        if isinstance(param, click.Option) and not param.hidden
    ]


def value_name(option: click.Option) -> str:
    """How help writes an option's value, such as `INTEGER`; empty for a flag."""
    if option.is_flag or option.count:
        return ""
    if option.metavar:
        return option.metavar
    if isinstance(option.type, click.Choice):
        return "|".join(map(str, option.type.choices))
    return option.type.name.replace(" range", "").upper()


def whole_help(option: click.Option) -> str:
    """An option's help text on one line, with the period that Prefect leaves out."""
    return " ".join((option.help or "").split()).rstrip(".") + "."


def default_of(option: click.Option) -> str:
    """An option's default as a user would write it; empty for none, and for flags."""
    # click 8.3 has a value of its own for "no default".
    if isinstance(option.default, (str, int, float)) and not option.is_flag:
        return plain_number(option.default)
    return ""


def unbroken(text: str) -> str:
    """A text whose options are not broken at a hyphen when it is wrapped."""
    return text.replace("-", _NON_BREAKING_HYPHEN)


def write_options(
    options: Sequence[click.Option], formatter: click.HelpFormatter
) -> None:
    """Write options into a help text, by their groups."""
    for title, group in by_group(options).items():
        with formatter.section(title):
            formatter.write_dl([(_spelling(each), _meaning(each)) for each in group])


def _spelling(option: click.Option) -> str:
    names = ", ".join(sorted(option.opts, key=len))
    return f"{names} {value_name(option)}".rstrip()


def _meaning(option: click.Option) -> str:
    repeated = " Can be given several times." if option.multiple else ""
    default = default_of(option)
    words = f"{whole_help(option)}{repeated}{default and f' Default: {default}.'}"
    return unbroken(words)


class _Named(click.Command):
    """What the group and the commands have in common.

    Each has -h and --version; its help groups the options, and names this package.
    A command's options also come from variables and from the file of --config.
    """

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        for option in options_in(self.params).values():
            option.envvar = variable_of(option)

    def get_help_option_names(self, ctx: click.Context) -> List[str]:
        """-h and --help, whatever the group above has."""
        return ["-h", "--help"]

    def get_params(self, ctx: click.Context) -> List[click.Parameter]:
        """Its own parameters, --version and, last, --help."""
        *params, help_option = super().get_params(ctx)
        return [*params, _VERSION, help_option]

    def parse_args(self, ctx: click.Context, args: List[str]) -> List[str]:
        """Parse; an error names the variable that an invalid value comes from."""
        try:
            return super().parse_args(ctx, args)
        except click.BadParameter as error:
            if isinstance(error.param, click.Option) and error.param_hint is None:
                error.param_hint = f"'{name_in(ctx, error.param)}'"
            raise

    def get_help(self, ctx: click.Context) -> str:
        """The help, wrapped."""
        return super().get_help(ctx).replace(_NON_BREAKING_HYPHEN, "-")

    def format_options(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write the options, by their groups."""
        write_options(shown_options(self.get_params(ctx)), formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the package's name and version below the options."""
        from ..version import installed_version

        formatter.write_paragraph()
        formatter.write_text(f"From prefect-ecs-plugin {installed_version()}.")


class NamedCommand(_Named):
    """A command of `prefect agent ecs`."""

    def get_params(self, ctx: click.Context) -> List[click.Parameter]:
        """Its own parameters, --version, --help and --config.

        --config is last, so that no file is read if --help is given.
        """
        return [*super().get_params(ctx), CONFIG]


class NamedGroup(_Named, click.Group):
    """The group `prefect agent ecs`."""

    def format_options(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write the options, then the commands."""
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write the commands, each with the whole first sentence of its help."""
        found = [
            (name, self.get_command(ctx, name)) for name in self.list_commands(ctx)
        ]
        rows = [
            (name, command.get_short_help_str(UNCUT))
            for name, command in found
            if command is not None and not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class OffFlag(click.Option):
    """A flag that turns something off: the parameter is False where it is given."""

    def __init__(self, declared: Sequence[str], **attributes: Any) -> None:
        super().__init__(
            declared,
            is_flag=True,
            callback=lambda ctx, param, value: not value,
            **attributes,
        )


def eager_flag(
    name: str, show: Callable[[click.Context], str], help: str
) -> click.Option:
    """A flag such as --help: it prints a text and ends the command.

    Args:
        name: Such as `--version`.
        show: Returns the text.
        help: The flag's own help text.
    """

    def callback(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            click.echo(show(ctx), color=ctx.color)
            ctx.exit()

    return click.Option(
        [name],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=callback,
        help=help,
    )


def _versions(_: click.Context) -> str:
    from ..version import installed_version

    python = ".".join(map(str, sys.version_info[:3]))
    return (
        f"prefect-ecs-plugin {installed_version()} (Prefect "
        f"{installed_version('prefect')}, boto3 {installed_version('boto3')}, "
        f"Python {python})"
    )


_VERSION = eager_flag("--version", _versions, "Show the versions and exit.")


# -- Values ------------------------------------------------------------------------


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
    for number, entry in enumerate(options["env"], 1):
        if "=" not in entry or entry.startswith("="):
            # It is not shown: it may be a part of a secret that a blank has split.
            raise click.BadParameter(
                f"value {number} of {len(options['env'])} is not of the form "
                "NAME=value; a variable's text is split at blanks "
                "[invalid-option-value]",
                param_hint=f"'{name_in(ctx, params['env'])}'",
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
        line = redact_text(" ".join(str(error).split()))
        raise click.ClickException(printable(line)) from error
