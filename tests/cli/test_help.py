"""The help and the version of every command."""

from __future__ import annotations

import re
from typing import Dict

import click
import pytest
from click.testing import CliRunner, Result

from prefect_ecs_plugin import __version__
from prefect_ecs_plugin.cli.click_types import FiniteFloat, group_of
from prefect_ecs_plugin.cli.start import ecs, start
from prefect_ecs_plugin.cli.start_options import WithStartOptions

GROUPS = ("Prefect", "AWS", "Launching", "Watching", "Secrets", "Output")


def commands() -> Dict[str, click.Command]:
    context = click.Context(ecs)
    found = {
        name: ecs.get_command(context, name) for name in ecs.list_commands(context)
    }
    return {"": ecs, **{name: each for name, each in found.items() if each is not None}}


each_command = pytest.mark.parametrize("name", commands())
sharing = pytest.mark.parametrize(
    "name",
    [name for name, each in commands().items() if isinstance(each, WithStartOptions)],
)


def run(*arguments: str) -> Result:
    given = [argument for argument in arguments if argument]
    return CliRunner().invoke(ecs, given, prog_name="prefect agent ecs")


@each_command
@pytest.mark.parametrize("option", ["--help", "--help-all"])
def test_help_fits_80_columns_and_has_an_example(name: str, option: str) -> None:
    if option == "--help-all" and name not in ("check", "install", "sandbox"):
        assert run(name, option).exit_code == 2
        return
    result = run(name, option)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert max(map(len, lines)) <= 80
    usage, *rest = lines
    assert usage.startswith(f"Usage: prefect agent ecs {name}".rstrip())
    example = rf" +prefect agent ecs {name or 'start'}"
    assert any(re.match(example, line) for line in rest)
    assert "RANGE" not in result.output
    assert "[x>" not in result.output
    assert lines[-1] == f"From prefect-ecs-plugin {__version__}."


@each_command
def test_h_is_help(name: str) -> None:
    assert run(name, "-h").output == run(name, "--help").output


@each_command
def test_the_versions_are_one_line(name: str) -> None:
    result = run(name, "--version")
    assert result.exit_code == 0
    assert re.fullmatch(
        rf"prefect-ecs-plugin {re.escape(__version__)} "
        r"\(Prefect 1\.\d\S*, boto3 1\.\S+, Python 3\.\S+\)\n",
        result.output,
    )


def test_summaries_are_whole_sentences() -> None:
    listed = " ".join(run("--help").output.partition("Commands:\n")[2].split())
    assert "..." not in listed
    for name, command in commands().items():
        first = " ".join((command.help or "").split("\n\n")[0].split())
        assert not name or f"{name} {first}" in listed


def test_the_options_of_start_are_in_groups() -> None:
    assert {group_of(option) for option in start.params} == set(GROUPS)
    lines = run("start", "--help").output.splitlines()
    titles = [line[:-1] for line in lines if re.fullmatch(r"[A-Z]\w+:", line)]
    assert titles == [*GROUPS, "Options"]


@sharing
def test_the_options_of_start_are_named_by_reference(name: str) -> None:
    command = commands()[name]
    assert isinstance(command, WithStartOptions)
    short, whole = (run(name, option).output for option in ("--help", "--help-all"))
    assert "`prefect agent ecs start`" in " ".join(short.split())
    assert not re.search(r"^  --launch-timeout", short, re.MULTILINE)
    own = {param.name for param in command.params}
    for option in start.params:
        spelling = max(option.opts, key=len)
        is_refused = option.name in command.refused
        is_listed = re.search(rf"^  (-\w, )?{spelling}(?![\w-])", whole, re.MULTILINE)
        assert bool(is_listed) is not is_refused or option.name in own
        if is_refused:
            assert spelling in short


def test_values_are_written_as_a_user_would() -> None:
    @click.command(cls=type(start))
    @click.option("--many", multiple=True, help="Several")
    @click.option("--size", type=FiniteFloat(min=0), default=2.0, help="Any size.")
    @click.option("--count", type=click.IntRange(min=1), default=3, help="How many.")
    @click.option("--kind", type=click.Choice(["A", "b"]), help="A kind.")
    def command() -> None:
        """Do nothing."""

    output = CliRunner().invoke(command, ["--help"]).output
    for line in (
        "  --many TEXT      Several. Can be given several times.",
        "  --size NUMBER    Any size. Default: 2.",
        "  --count INTEGER  How many. Default: 3.",
        "  --kind A|b       A kind.",
    ):
        assert line in output.splitlines()
