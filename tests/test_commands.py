"""What `prefect agent` is made to offer, and what it says where it cannot."""

from __future__ import annotations

import configparser
import re
import sys
from importlib.metadata import Distribution, EntryPoint, PathDistribution
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Dict, Iterator, List, Optional

import click
import pytest
from click.testing import CliRunner, Result

from prefect_ecs_plugin import _commands
from prefect_ecs_plugin._commands import GROUP, Offer
from prefect_ecs_plugin.errors import ConfigurationError

SETUP_CFG = Path(__file__).parent.parent / "setup.cfg"
GOOD = """
import click

@click.command()
def command():
    click.echo("It runs")

not_a_command = "text"
"""


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    _commands.offers.cache_clear()
    _commands.command.cache_clear()
    yield
    _commands.offers.cache_clear()
    _commands.command.cache_clear()


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Makes a module that can be imported from a source; returns its name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made: List[str] = []

    def make(source: str) -> str:
        name = f"offered_{tmp_path.name}_{len(made)}"
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        made.append(name)
        return name

    return make


def distribution(
    folder: Path, name: str, entry_points: Optional[str], version: str = "1.0"
) -> Distribution:
    """An installed distribution of that name; what it offers as its file says it."""
    path = folder / f"{name}-{version}.dist-info"
    path.mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (path / "METADATA").write_text(metadata, encoding="utf-8")
    if entry_points is not None:
        (path / "entry_points.txt").write_text(entry_points, encoding="utf-8")
    return PathDistribution(path)


def offer(value: str, name: str = "other") -> Offer:
    return Offer(EntryPoint("thing", value, GROUP), name, "1.0")


def run(command: click.Command, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments, prog_name="prefect agent")


def attached(group: Any) -> click.Group:
    module = ModuleType("prefect.cli.agent")
    module.agent = group  # type: ignore[attr-defined]
    _commands.attach(module)
    assert isinstance(module.agent, click.Group)
    return module.agent


# What distributions offer


def test_every_entry_point_of_the_group_is_an_offer(tmp_path: Path) -> None:
    text = f"[{GROUP}]\necs = a.b:c\nnomad = d:e\n[console_scripts]\nx = y:z\n"
    found = _commands.collect(
        [distribution(tmp_path, "one", text), distribution(tmp_path, "two", None)]
    )
    assert {name: [str(o) for o in offers] for name, offers in found.items()} == {
        "ecs": ["one 1.0"],
        "nomad": ["one 1.0"],
    }
    assert found["ecs"][0].entry_point.value == "a.b:c"


def test_of_two_installations_of_one_distribution_the_first_counts(
    tmp_path: Path,
) -> None:
    text = f"[{GROUP}]\necs = a:b\n"
    found = _commands.collect(
        [
            distribution(tmp_path / "first", "Some_Thing", text, "2.0"),
            distribution(tmp_path / "second", "some-thing", text, "1.0"),
        ]
    )
    assert [str(o) for o in found["ecs"]] == ["some-thing 2.0"]


def test_a_distribution_without_a_name_is_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"[{GROUP}]\necs = a:b\n"
    nameless = distribution(tmp_path, "one", text)
    (tmp_path / "one-1.0.dist-info" / "METADATA").unlink()
    found = _commands.collect([nameless, distribution(tmp_path, "two", text)])
    assert [str(o) for o in found["ecs"]] == ["two 1.0"]
    assert capsys.readouterr().err.startswith("Warning: entry points passed over (")


def test_two_distributions_may_offer_the_same_name(tmp_path: Path) -> None:
    text = f"[{GROUP}]\necs = a:b\n"
    found = _commands.collect(
        [distribution(tmp_path, "one", text), distribution(tmp_path, "two", text)]
    )
    assert [str(o) for o in found["ecs"]] == ["one 1.0", "two 1.0"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "METADATA").unlink(),
        lambda path: (path / "METADATA").write_text("", encoding="utf-8"),
        lambda path: (path / "entry_points.txt").write_bytes(b"\xff\xfe\x00" * 9),
        lambda path: (path / "entry_points.txt").write_text(
            f"[{GROUP}\n= = =\n\x00[", encoding="utf-8"
        ),
    ],
)
def test_damaged_metadata_harms_no_other_distribution(
    tmp_path: Path, damage: Callable[[Path], Any]
) -> None:
    text = f"[{GROUP}]\nthing = a:b\n"
    damaged = distribution(tmp_path, "damaged", text)
    damage(tmp_path / "damaged-1.0.dist-info")
    found = _commands.collect(
        [damaged, distribution(tmp_path, "sound", f"[{GROUP}]\necs = c:d\n")]
    )
    assert [str(o) for o in found["ecs"]] == ["sound 1.0"]


def test_our_command_is_offered_where_metadata_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.metadata.distributions", lambda: iter(()))
    (ours,) = _commands.offers()["ecs"]
    assert ours.entry_point.value == "prefect_ecs_plugin.cli.start:ecs"


# The group


@pytest.fixture
def prefects() -> click.Group:
    """A group like `prefect agent`, with Prefect's own `ecs` and `local`."""
    group = click.Group("agent")
    for name in ("ecs", "local"):
        group.add_command(click.Command(name, callback=lambda: click.echo("Prefect's")))
    return group


def offering(monkeypatch: pytest.MonkeyPatch, **offers: List[Offer]) -> None:
    monkeypatch.setattr(_commands, "offers", lambda: offers)


def test_an_offered_command_takes_the_place_of_prefects_own(
    prefects: click.Group, module: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ecs, nomad = (offer(f"{module(GOOD)}:command") for _ in range(2))
    offering(monkeypatch, ecs=[ecs], nomad=[nomad])
    group = attached(prefects)
    context = click.Context(group)
    assert group.list_commands(context) == ["ecs", "local", "nomad"]
    answers = {name: run(group, name).output for name in group.list_commands(context)}
    assert answers == {
        "ecs": "It runs\n",
        "local": "Prefect's\n",
        "nomad": "It runs\n",
    }


def test_nothing_is_looked_up_before_a_command_is_asked_for(
    prefects: click.Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked() -> Dict[str, List[Offer]]:
        raise AssertionError("looked up")

    monkeypatch.setattr(_commands, "offers", asked)
    prefect = click.Group("prefect")
    prefect.add_command(attached(prefects))
    prefect.add_command(click.Command("version", callback=lambda: click.echo("1.4.1")))
    assert run(prefect, "--help").exit_code == 0
    assert run(prefect, "version").output == "1.4.1\n"


def test_a_broken_command_is_not_loaded_for_the_sake_of_another(
    prefects: click.Group, module: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    offering(monkeypatch, ecs=[offer(f"{module('raise BaseException')}:command")])
    assert run(attached(prefects), "local").output == "Prefect's\n"


def test_a_command_is_loaded_once(
    prefects: click.Group, module: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    offering(monkeypatch, ecs=[offer(f"{module(GOOD)}:command")])
    group = attached(prefects)
    context = click.Context(group)
    assert group.get_command(context, "ecs") is group.get_command(context, "ecs")


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
    result = run(_commands.stand_in("ecs", "It is\n  broken."), *arguments)
    assert (result.exit_code, result.output) == (1, "Error: ecs: It is broken.\n")


SOMETHING_RAISED = {
    "raise RuntimeError('one\\ntwo')": "(RuntimeError: one two)",
    "raise SystemExit(3)": "(SystemExit: 3)",
    "import no_such_module_anywhere": "No module named 'no_such_module_anywhere'",
    "def (": "SyntaxError",
    "command = 'text'": "is not a click command",
    "other = 1": "AttributeError",
}


@pytest.mark.parametrize("source, reason", SOMETHING_RAISED.items())
def test_a_command_that_cannot_be_loaded_becomes_a_stand_in(
    source: str, reason: str, module: Callable[[str], str]
) -> None:
    command = _commands.load("thing", offer(f"{module(source)}:command"))
    result = run(command, "start", "--help")
    assert result.exit_code == 1
    assert result.output.startswith("Error: thing: other 1.0 cannot be loaded (")
    assert reason in result.output
    assert "reinstall other, or uninstall it" in result.output
    assert result.output.count("\n") == 1


def test_an_error_of_ours_is_its_own_sentence(module: Callable[[str], str]) -> None:
    source = (
        "from prefect_ecs_plugin.errors import ConfigurationError\n"
        "raise ConfigurationError('AWS_REGION is wrong.')"
    )
    command = _commands.load("thing", offer(f"{module(source)}:command"))
    assert run(command).output == "Error: thing: AWS_REGION is wrong.\n"


def test_a_name_that_two_distributions_offer_runs_neither(
    prefects: click.Group, module: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    value = f"{module(GOOD)}:command"
    offering(monkeypatch, ecs=[offer(value, "one"), offer(value, "two")])
    result = run(attached(prefects), "ecs", "start")
    assert result.exit_code == 1
    assert result.output == (
        "Error: ecs: one 1.0 and two 1.0 both offer this command: "
        "uninstall one of them.\n"
    )


def test_the_list_of_commands_says_which_one_is_broken(
    prefects: click.Group, module: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    offering(monkeypatch, nomad=[offer(f"{module('1 / 0')}:command")])
    result = run(attached(prefects), "--help")
    assert result.exit_code == 0
    assert re.search(r"nomad +Not usable: other 1\.0", result.output)


# boto3 and botocore


def installed(monkeypatch: pytest.MonkeyPatch, **versions: Optional[str]) -> None:
    monkeypatch.setattr(_commands, "_installed_version", versions.__getitem__)


@pytest.mark.parametrize(
    "boto3, botocore, words",
    [
        (None, None, "needs boto3 1.29 or later and there is none in"),
        (None, "1.40.0", "needs boto3 1.29 or later and there is none in"),
        ("1.9.253", "1.12.253", "needs boto3 1.29 or later, and"),
        ("1.40.0", None, "needs botocore 1.32 or later and there is none in"),
        ("1.29.0", "1.31.85", "needs botocore 1.32 or later, and"),
    ],
)
def test_missing_or_old_aws_libraries_are_named_with_the_remedy(
    boto3: Optional[str],
    botocore: Optional[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed(monkeypatch, boto3=boto3, botocore=botocore)
    ours = Offer(EntryPoint("ecs", "json:dumps", GROUP), "prefect-ecs-plugin", "0.1.0")
    result = run(_commands.load("ecs", ours), "start", "--help")
    assert result.exit_code == 1
    assert result.output.count("\n") == 1
    assert words in result.output
    assert "pip install prefect[aws]" in result.output
    assert "conda install" in result.output
    assert sys.prefix in result.output


@pytest.mark.parametrize("boto3, botocore", [("1.29", "1.32"), ("1.100.0", "2.0rc1")])
def test_new_enough_aws_libraries_pass(
    boto3: str, botocore: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, boto3=boto3, botocore=botocore)
    _commands.require_aws_libraries()


def test_other_peoples_commands_need_no_boto3(
    module: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, boto3=None, botocore=None)
    command = _commands.load("thing", offer(f"{module(GOOD)}:command"))
    assert run(command).output == "It runs\n"


def test_a_version_is_read_with_and_without_metadata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "copied_library.py").write_text("__version__ = '7.1'", encoding="utf-8")
    (tmp_path / "real_library.py").write_text("", encoding="utf-8")
    distribution(tmp_path, "real_library", None, "2.3")
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
    with pytest.raises(ConfigurationError):
        _commands.require_aws_libraries()


# The script


def test_prefect_ecs_runs_our_command_whatever_else_is_offered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    offering(monkeypatch, ecs=[offer("json:dumps", "other")])
    monkeypatch.setattr(sys, "argv", ["prefect-ecs", "start", "--help"])
    with pytest.raises(SystemExit) as stop:
        _commands.main()
    assert stop.value.code == 0
    assert "Usage: prefect-ecs start [OPTIONS]" in capsys.readouterr().out
