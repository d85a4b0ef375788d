"""What gives options their values besides the command line: variables, and a file.

The command line comes first, then the environment, then the file of --config, then the
default. click itself keeps this order; this module names the variables, reads the file,
and says where a value came from.
"""

from __future__ import annotations

from typing import (
    Any,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
)

import click
from click.core import ParameterSource

from ..errors import ConfigurationError, without_code
from ..observability.redaction import redact_text
from ..validation.excerpt import quoted

PREFIX = "PREFECT_ECS_"

_LINE = "the command line"
_ENVIRONMENT = "the environment"

#: In a context's `meta`: the path of the file of --config.
_FILE = "prefect_ecs_plugin.config"

#: The section of the file for the options that other commands share with `start`.
SHARED = "start"

#: Options whose values are secrets, or may hold some; what is shown in place of them.
_SECRET = frozenset({"key", "env"})
_HIDDEN = "***"


class Given(NamedTuple):
    """An option that has a value of the user's.

    Attributes:
        option: The option.
        value: Its value.
        name: What the user wrote: the option, its variable or its key in the file.
        source: `the command line`, `the environment`, or the file's path.
    """

    option: click.Option
    value: Any
    name: str
    source: str

    def __str__(self) -> str:
        """The name and the value, without secrets."""
        if self.option.is_flag:
            return self.name
        if self.option.name in _SECRET:
            return f"{self.name} {_HIDDEN}"
        values = self.value if isinstance(self.value, (tuple, list)) else [self.value]
        return redact_text(f"{self.name} {' '.join(map(plain_number, values))}")


def plain_number(value: Any) -> str:
    """A value as a user would write it: `30` for 30.0."""
    is_whole = isinstance(value, float) and value.is_integer()
    return str(int(value) if is_whole else value)


def key_of(option: click.Parameter) -> str:
    """The key of an option in a file, such as `launch-type`."""
    return max(option.opts, key=len).lstrip("-")


def variable_of(option: click.Parameter) -> str:
    """The variable of an option, such as `PREFECT_ECS_LAUNCH_TYPE`."""
    return PREFIX + key_of(option).replace("-", "_").upper()


def options_in(params: Sequence[click.Parameter]) -> Dict[str, click.Option]:
    """The options among parameters that a file can set, by their keys."""
    return {
        key_of(param): param
        for param in params
        if isinstance(param, click.Option) and not param.is_eager
    }


def given_options(ctx: click.Context) -> Iterator[Given]:
    """The options that the user gave, wherever."""
    for option in options_in(ctx.command.get_params(ctx)).values():
        source = ctx.get_parameter_source(str(option.name))
        if source not in (None, ParameterSource.DEFAULT):
            value = ctx.params.get(str(option.name))
            yield Given(option, value, name_in(ctx, option), _source(ctx, source))


def sources(ctx: click.Context) -> Dict[str, List[str]]:
    """What came from where: options with their values, without secrets, by source."""
    found: Dict[str, List[str]] = {_LINE: [], _ENVIRONMENT: []}
    for given in given_options(ctx):
        found.setdefault(given.source, []).append(str(given))
    return {source: names for source, names in found.items() if names}


def unknown_variables(environment: Iterable[str]) -> Dict[str, List[str]]:
    """The variables that look like those of options and are none, with likely ones.

    Args:
        environment: Names of variables.
    """
    from ..validation.coercion import likely_meant
    from .start import ecs

    ctx = click.Context(ecs)
    commands = [ecs.get_command(ctx, name) for name in ecs.list_commands(ctx)]
    known = {
        variable_of(option)[len(PREFIX) :]
        for command in commands
        if command is not None
        for option in [CONFIG, *options_in(command.params).values()]
    }
    given = [name[len(PREFIX) :] for name in environment if name.startswith(PREFIX)]
    return {
        PREFIX + name: [PREFIX + each for each in likely_meant(name, known)]
        for name in given
        if name not in known
    }


def name_in(ctx: click.Context, option: click.Parameter) -> str:
    """What the user wrote to give an option: it, its variable, or its key in a file."""
    source = ctx.get_parameter_source(str(option.name))
    if source is ParameterSource.ENVIRONMENT:
        return variable_of(option)
    if source is ParameterSource.DEFAULT_MAP:
        return key_of(option)
    return max(option.opts, key=len)


def _source(ctx: click.Context, source: Optional[ParameterSource]) -> str:
    if source is ParameterSource.ENVIRONMENT:
        return _ENVIRONMENT
    if source is ParameterSource.DEFAULT_MAP:
        return str(ctx.meta[_FILE])
    return _LINE


# -- The file ----------------------------------------------------------------------


def _read_file(ctx: click.Context, _: click.Parameter, path: Optional[str]) -> None:
    """Make a file's values the defaults of a command's options."""
    if path is None or ctx.resilient_parsing:
        return
    from ..config.sources import load_mapping

    try:
        content = load_mapping(path, _client)
    except ConfigurationError as error:  # without AWS credentials too
        raise click.ClickException(f"--config: {error}") from error
    try:
        ctx.default_map = _values(ctx, path, content)
    except ConfigurationError as error:
        raise click.UsageError(str(error), ctx) from error
    ctx.meta[_FILE] = path


def _client(service: str) -> Any:
    from ..aws.session import AWSClients

    return AWSClients()(service)


def _values(
    ctx: click.Context, path: str, content: Mapping[str, Any]
) -> Dict[str, Any]:
    """The values that a file gives to the options of a command, by parameter name.

    Raises:
        ConfigurationError: for the first mistake in the sections that the command
            reads; of the other sections only the names are checked.
    """
    from .start import ecs, start

    _check_names(f"{path}: section", content, ecs.list_commands(ctx))
    options = options_in(ctx.command.get_params(ctx))
    shared = options_in(start.params)
    own = str(ctx.command.name)
    sections = {SHARED: shared} if shared.keys() <= options.keys() else {}
    found: Dict[str, Any] = {}
    for name, known in {**sections, own: options}.items():
        for key, value in _section(path, name, content, known).items():
            option = options[key]
            # What a command refuses it does not get from the section of `start`.
            if name == own or not option.hidden:
                where = f"{path}: {name}.{key}"
                found[str(option.name)] = _value(ctx, where, option, value)
    return found


def _section(
    path: str, name: str, content: Mapping[str, Any], known: Iterable[str]
) -> Dict[str, Any]:
    """The keys of a section that have a value."""
    section = content.get(name) or {}
    if not isinstance(section, Mapping):
        raise ConfigurationError(
            f"{path}: {name}: is not a mapping; write one option per line, such as "
            "launch-type: EC2.",
            code="invalid-config",
        )
    _check_names(f"{path}: {name}: option", section, known)
    return {str(key): value for key, value in section.items() if value is not None}


def _check_names(what: str, given: Iterable[Any], known: Iterable[str]) -> None:
    from ..validation.coercion import likely_meant

    for name in given:
        if name not in known:
            meant = likely_meant(str(name), known)
            hint = f"did you mean {' or '.join(meant)}?" if meant else "correct it."
            raise ConfigurationError(
                f"{what} {quoted(str(name))} is unknown: {hint}", code="invalid-config"
            )


def _value(ctx: click.Context, where: str, option: click.Option, value: Any) -> Any:
    """A value of the file in the type of its option."""
    values = value if isinstance(value, list) and option.multiple else [value]
    kind = bool if option.is_flag else (str, int, float)
    for each in values:
        if not isinstance(each, kind) or isinstance(each, bool) != option.is_flag:
            wanted = option.metavar or option.type.name.upper()
            given = _HIDDEN if option.name in _SECRET else quoted(str(each))
            raise ConfigurationError(
                f"{where} takes {'true or false' if option.is_flag else wanted}, not "
                f"{given}.",
                code="invalid-config",
            )
    try:
        return option.type_cast_value(ctx, values if option.multiple else value)
    except click.BadParameter as error:
        reason = without_code(error.message).rstrip(".")
        raise ConfigurationError(
            f"{where}: {reason}.", code="invalid-config"
        ) from error


CONFIG = click.Option(
    ["--config"],
    metavar="FILE",
    is_eager=True,
    expose_value=False,
    envvar=f"{PREFIX}CONFIG",
    callback=_read_file,
    help="A YAML file of options, by command; local or remote. An option that is not "
    "on the command line comes from its variable, such as PREFECT_ECS_LAUNCH_TYPE, "
    "else from the file.",
)
