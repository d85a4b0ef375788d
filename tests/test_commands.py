"""The command that `prefect agent` gets, and the stand-in where it cannot be loaded."""

from __future__ import annotations

import configparser
import re
import sys
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path
from types import ModuleType
from typing import Any, Iterator, List, Optional

import click
import pytest
from click.testing import CliRunner, Result
from codes import code_of, raises_code

from prefect_ecs_plugin import _commands
from prefect_ecs_plugin._startup import stand_in
from prefect_ecs_plugin.errors import ConfigurationError

SETUP_CFG = Path(__file__).parent.parent / "setup.cfg"


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    _commands.command.cache_clear()
    yield
    _commands.command.cache_clear()


def run(command: click.Command, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments, prog_name="prefect agent")


def attached(group: Any) -> click.Group:
    module = ModuleType("prefect.cli.agent")
    module.agent = group  # type: ignore[attr-defined]
    _commands.attach(module)
    assert isinstance(module.agent, click.Group)
    return module.agent


def replaced(monkeypatch: pytest.MonkeyPatch, **names: Any) -> None:
    """Put a module in the place of the one that has the command."""
    module = ModuleType("prefect_ecs_plugin.cli.start")
    vars(module).update(names)
    monkeypatch.setitem(sys.modules, "prefect_ecs_plugin.cli.start", module)


# The group


@pytest.fixture
def prefects() -> click.Group:
    """A group like `prefect agent`, with Prefect's own `ecs` and `local`."""
    group = click.Group("agent")
    for name in ("ecs", "local"):
        group.add_command(click.Command(name, callback=lambda: click.echo("Prefect's")))
    return group


def test_our_command_takes_the_place_of_prefects_own(
    prefects: click.Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = click.Command("ecs", callback=lambda: click.echo("Ours"))
    replaced(monkeypatch, ecs=ours)
    group = attached(prefects)
    names = group.list_commands(click.Context(group))
    answers = {name: run(group, name).output for name in names}
    assert answers == {"ecs": "Ours\n", "local": "Prefect's\n"}


def test_it_is_there_without_a_command_of_prefects_own() -> None:
    group = attached(click.Group("agent"))
    assert group.list_commands(click.Context(group)) == ["ecs"]


def test_nothing_is_loaded_before_the_command_is_used(
    prefects: click.Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load() -> click.Command:
        raise AssertionError("loaded")

    monkeypatch.setattr(_commands, "command", load)
    prefect = click.Group("prefect")
    prefect.add_command(attached(prefects))
    prefect.add_command(click.Command("version", callback=lambda: click.echo("1.4.1")))
    assert run(prefect, "--help").exit_code == 0
    assert run(prefect, "version").output == "1.4.1\n"
    assert run(prefect, "agent", "local").output == "Prefect's\n"


def test_attaching_twice_is_attaching_once(prefects: click.Group) -> None:
    once = type(attached(prefects))
    assert type(attached(prefects)) is once


def test_a_group_of_another_class_keeps_it() -> None:
    class Patched(click.Group):
        def get_help(self, ctx: click.Context) -> str:
            return "Patched"

    group = attached(Patched("agent"))
    assert isinstance(group, Patched)
    assert isinstance(group, _commands.AgentGroup)
    assert group.get_help(click.Context(group)) == "Patched"


@pytest.mark.parametrize("agent", [None, "text", click.Command("agent")])
def test_what_is_no_group_is_left_alone(agent: Any) -> None:
    module = ModuleType("prefect.cli.agent")
    module.agent = agent  # type: ignore[attr-defined]
    before = type(agent)
    _commands.attach(module)
    assert type(module.agent) is before  # type: ignore[attr-defined]


# Stand-ins


ARGUMENTS = [
    [],
    ["--help"],
    ["-h"],
    ["start"],
    ["start", "--help"],
    ["start", "--label", "prod", "-e", "A=B"],
    ["--unknown=1", "--", "-x"],
]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=" ".join)
def test_a_stand_in_says_why_on_one_line_whatever_is_asked(
    arguments: List[str],
) -> None:
    result = run(stand_in("ecs", "It is\n  broken."), *arguments)
    assert (result.exit_code, result.output) == (1, "Error: ecs: It is broken.\n")


class Damaged(ModuleType):
    """A module that raises an error when the command is taken from it."""

    def __init__(self, error: BaseException) -> None:
        super().__init__("prefect_ecs_plugin.cli.start")
        self.error = error

    def __getattr__(self, name: str) -> Any:
        raise self.error


@pytest.mark.parametrize(
    "error, reason",
    [
        (RuntimeError("one\ntwo"), "(RuntimeError: one two)"),
        (SystemExit(3), "(SystemExit: 3)"),
        (SyntaxError("invalid"), "(SyntaxError: invalid)"),
        (ModuleNotFoundError("No module named 'x'"), "No module named 'x'"),
        (AttributeError("ecs"), "ImportError"),
    ],
)
def test_a_command_that_cannot_be_loaded_becomes_a_stand_in(
    error: BaseException,
    reason: str,
    prefects: click.Group,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "prefect_ecs_plugin.cli.start"
    monkeypatch.setitem(sys.modules, name, Damaged(error))
    group = attached(prefects)
    result = run(group, "ecs", "start", "--help")
    assert result.exit_code == 1
    assert result.output.startswith("Error: ecs: ")
    assert code_of(result.output.rstrip()) == "damaged-install"
    assert reason in result.output
    assert "pip install --force-reinstall" in result.output
    assert result.output.count("\n") == 1
    listed = run(group, "--help")
    assert listed.exit_code == 0
    assert re.search(r"ecs +Not usable: prefect-ecs-plugin", listed.output)


def test_an_error_of_ours_is_its_own_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ConfigurationError("AWS_REGION is wrong", code="a-code")
    name = "prefect_ecs_plugin.cli.start"
    monkeypatch.setitem(sys.modules, name, Damaged(error))
    output = run(_commands.command()).output
    assert output == "Error: ecs: AWS_REGION is wrong [a-code]\n"


# boto3 and botocore


def installed(monkeypatch: pytest.MonkeyPatch, **versions: Optional[str]) -> None:
    monkeypatch.setattr(_commands, "_installed_version", versions.__getitem__)


@pytest.mark.parametrize(
    "boto3, botocore, values",
    [
        (None, None, ["boto3 1.29", "none"]),
        (None, "1.40.0", ["boto3 1.29", "none"]),
        ("1.9.253", "1.12.253", ["boto3 1.29", "1.9.253"]),
        ("1.40.0", None, ["botocore 1.32", "none"]),
        ("1.29.0", "1.31.85", ["botocore 1.32", "1.31.85"]),
    ],
)
def test_missing_or_old_aws_libraries_are_named_with_the_remedy(
    boto3: Optional[str],
    botocore: Optional[str],
    values: List[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed(monkeypatch, boto3=boto3, botocore=botocore)
    result = run(_commands.command(), "start", "--help")
    assert result.exit_code == 1
    assert result.output.count("\n") == 1
    assert code_of(result.output.rstrip()) == "old-aws-library"
    remedies = ["pip install prefect[aws]", "conda install", sys.prefix]
    for value in [*values, *remedies]:
        assert value in result.output


@pytest.mark.parametrize("boto3, botocore", [("1.29", "1.32"), ("1.100.0", "2.0rc1")])
def test_new_enough_aws_libraries_pass(
    boto3: str, botocore: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, boto3=boto3, botocore=botocore)
    _commands.require_aws_libraries()


def distribution(folder: Path, name: str, version: str) -> Distribution:
    """An installed distribution."""
    path = folder / f"{name}-{version}.dist-info"
    path.mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (path / "METADATA").write_text(metadata, encoding="utf-8")
    return PathDistribution(path)


def test_a_version_is_read_with_and_without_metadata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "copied_library.py").write_text("__version__ = '7.1'", encoding="utf-8")
    (tmp_path / "real_library.py").write_text("", encoding="utf-8")
    distribution(tmp_path, "real_library", "2.3")
    versions = [
        _commands._installed_version(name)
        for name in ("copied_library", "real_library", "absent_library")
    ]
    assert versions == ["7.1", "2.3", None]


def test_the_lower_bounds_are_those_of_setup_cfg() -> None:
    parser = configparser.ConfigParser()
    parser.read(SETUP_CFG, encoding="utf-8")
    requirements = parser["options"]["install_requires"].split()
    for library, minimum in _commands.MINIMUM_VERSIONS.items():
        assert f"{library}>={minimum}" in requirements


def test_too_old_libraries_raise_a_configuration_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed(monkeypatch, boto3=None, botocore=None)
    with raises_code("old-aws-library", ConfigurationError):
        _commands.require_aws_libraries()


# The script


def test_prefect_ecs_runs_our_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["prefect-ecs", "start", "--help"])
    with pytest.raises(SystemExit) as stop:
        _commands.main()
    assert stop.value.code == 0
    assert "Usage: prefect-ecs start [OPTIONS]" in capsys.readouterr().out
