"""Options from the command line, from variables and from the file of --config."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import click
import pytest
from click.testing import CliRunner
from codes import code_of
from prefect.cli import cli as prefect_cli

from prefect_ecs_plugin.cli import option_sources
from prefect_ecs_plugin.cli.option_sources import sources, unknown_variables
from prefect_ecs_plugin.cli.start import ecs
from prefect_ecs_plugin.cli.start_options import explicit_options

ALL = {
    name: command
    for name in ecs.list_commands(click.Context(ecs))
    for command in [ecs.get_command(click.Context(ecs), name)]
    if command is not None
}
#: Each is accepted by the option, and is not its default.
GIVEN: Dict[str, Any] = {
    "label": ["prod", "eu"],
    "env": ["A=1", "B=2"],
    "cluster": "prod",
    "launch-type": "EC2",
    "launch-timeout": 5,
    "max-memory": 4096,
    "no-watch": True,
    "no-cloud-logs": True,
    "key": "k3y",
}
PARSED: Dict[str, Any] = {
    "label": ("prod", "eu"),
    "env": ("A=1", "B=2"),
    "cluster": "prod",
    "launch_type": "EC2",
    "launch_timeout": 5.0,
    "max_memory": 4096,
    "watch": False,
    "no_cloud_logs": True,
    "key": "k3y",
}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(option_sources.PREFIX):
            monkeypatch.delenv(name)


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], str]:
    def written(text: str) -> str:
        path = tmp_path / "agent.yaml"
        path.write_text(text)
        return str(path)

    return written


def parsed(name: str, *arguments: str) -> click.Context:
    return ALL[name].make_context(name, list(arguments))


def some(context: click.Context) -> Dict[str, Any]:
    return {name: context.params[name] for name in PARSED}


def as_arguments() -> Iterator[str]:
    for key, value in GIVEN.items():
        for each in value if isinstance(value, list) else [value]:
            yield f"--{key}" if each is True else f"--{key}={each}"


def as_variables() -> Iterator[List[str]]:
    for key, value in GIVEN.items():
        text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
        yield [f"PREFECT_ECS_{key.upper().replace('-', '_')}", text]


def as_file(**more: Any) -> str:
    import yaml

    return str(yaml.safe_dump({"start": {**GIVEN, **more}}))


# -- The order ---------------------------------------------------------------------


def test_each_source_gives_every_kind_of_option(
    monkeypatch: pytest.MonkeyPatch, config: Callable[[str], str]
) -> None:
    assert some(parsed("start", *as_arguments())) == PARSED
    assert some(parsed("start", "--config", config(as_file()))) == PARSED
    for variable, text in as_variables():
        monkeypatch.setenv(variable, text)
    assert some(parsed("start")) == PARSED


def test_the_command_line_comes_first_then_variables_then_the_file(
    monkeypatch: pytest.MonkeyPatch, config: Callable[[str], str]
) -> None:
    path = config("start: {cluster: file, name: file, max-runtime: 1}\n")
    monkeypatch.setenv("PREFECT_ECS_CONFIG", path)
    monkeypatch.setenv("PREFECT_ECS_CLUSTER", "variable")
    monkeypatch.setenv("PREFECT_ECS_NAME", "variable")
    monkeypatch.setenv("PREFECT_ECS_LAUNCH_TYPE", "")
    context = parsed("start", "--cluster", "line")
    names = ("cluster", "name", "max_runtime", "launch_type", "launch_timeout")
    values = [context.params[name] for name in names]
    assert values == ["line", "variable", 1.0, None, 1800.0]
    assert sources(context) == {
        "the command line": ["--cluster line"],
        "the environment": ["PREFECT_ECS_NAME variable"],
        path: ["max-runtime 1"],
    }


@pytest.mark.parametrize("text, watch", [("0", True), ("false", True), ("1", False)])
def test_a_flag_in_a_variable_may_be_off(
    monkeypatch: pytest.MonkeyPatch, text: str, watch: bool
) -> None:
    monkeypatch.setenv("PREFECT_ECS_NO_WATCH", text)
    assert parsed("start").params["watch"] is watch
    given = explicit_options(parsed("check"))
    assert given == (() if watch else ("--no-watch",))


@pytest.mark.parametrize("name", ALL)
def test_every_option_has_its_variable(name: str) -> None:
    params = ALL[name].get_params(click.Context(ALL[name]))
    for key, option in option_sources.options_in(params).items():
        if not option.hidden:
            variable = f"PREFECT_ECS_{key.upper().replace('-', '_')}"
            assert option.envvar == variable


# -- What other commands read ------------------------------------------------------

SEVERAL = """
start: {cluster: prod, max-runtime: 3, key: k3y, max-polls: 5}
install: {cluster: other, vpc-id: vpc-0123456789abcdef0}
sandbox: {keep-running: true}
"""


def test_commands_with_the_options_of_start_read_its_section(
    config: Callable[[str], str],
) -> None:
    path = config(SEVERAL)
    names = ("check", "install", "sandbox", "prune")
    found = {name: parsed(name, "--config", path).params for name in names}
    assert found["check"]["key"] == "k3y"
    assert found["install"]["cluster"] == "other"
    assert found["install"]["vpc_id"] == ("vpc-0123456789abcdef0",)
    assert found["sandbox"]["keep_running"] is True
    for name in ("install", "sandbox"):
        assert found[name]["max_runtime"] == 3.0
        assert not found[name].keys() & {"key", "max_polls"}  # which they refuse
    assert found["prune"]["name"] is None


def test_a_command_hands_on_what_variables_and_the_file_give(
    monkeypatch: pytest.MonkeyPatch, config: Callable[[str], str]
) -> None:
    monkeypatch.setenv("PREFECT_ECS_LABEL", "a b")
    monkeypatch.setenv("PREFECT_ECS_KEY", "k3y")
    context = parsed("sandbox", "--config", config(SEVERAL), "--max-delay=7")
    given = {"--label=a", "--label=b", "--cluster=prod"}
    given |= {"--max-runtime=3.0", "--max-delay=7.0"}
    assert set(explicit_options(context)) == given


# -- Mistakes ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, words",
    [
        ("strat: {cluster: a}", ["section 'strat'", "start"]),
        ("nothing-like-it: {}", ["section 'nothing-like-it'"]),
        ("start: {lable: [a]}", ["start", "'lable'", "label"]),
        ("start: {launch_type: EC2}", ["'launch_type'", "launch-type"]),
        ("start: {config: b.yaml}", ["'config'"]),
        ("start: {1: b}", ["'1'"]),
        ("start: [cluster]", ["start", "mapping"]),
        ("start: {cluster: [a]}", ["start.cluster", "TEXT"]),
        ("start: {cluster: true}", ["start.cluster", "TEXT"]),
        ("start: {cluster: 2026-01-01}", ["start.cluster", "TEXT"]),
        ("start: {label: [a, [b]]}", ["start.label", "TEXT"]),
        ("start: {max-memory: lots}", ["start.max-memory", "'lots'"]),
        ("start: {max-memory: 0}", ["start.max-memory", "0"]),
        ("start: {launch-timeout: .nan}", ["start.launch-timeout", "nan"]),
        ("start: {no-watch: 1}", ["start.no-watch", "true or false"]),
        ("start: {launch-type: LAMBDA}", ["start.launch-type", "LAMBDA"]),
    ],
)
def test_a_mistake_in_the_file_is_one_line(
    config: Callable[[str], str], text: str, words: List[str]
) -> None:
    path = config(text)
    result = CliRunner().invoke(ecs, ["start", "--config", path])
    assert result.exit_code == 2
    usage, _, _, line = result.output.splitlines()
    assert usage.startswith("Usage: ")
    assert line.startswith(f"Error: {path}: ")
    assert code_of(line) == "invalid-config"
    for word in words:
        assert word in line


def test_a_secret_of_the_wrong_type_is_not_shown(config: Callable[[str], str]) -> None:
    path = config("start: {key: [s3cret]}")
    result = CliRunner().invoke(ecs, ["start", "--config", path])
    assert "start.key" in result.output
    assert "s3cret" not in result.output


@pytest.mark.parametrize(
    "text, code", [("a: [", "invalid-yaml"), (None, "unreadable-file")]
)
def test_a_file_that_cannot_be_read_is_one_line(
    config: Callable[[str], str], text: Any, code: str
) -> None:
    path = config(text) if text else "/absent.yaml"
    result = CliRunner().invoke(ecs, ["prune", "--config", path])
    assert result.exit_code == 1
    assert code_of(result.output.rstrip()) == code
    assert result.output.count("\n") == 1


def test_a_file_on_s3_without_credentials_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    result = CliRunner().invoke(ecs, ["prune", "--config", "s3://bucket/start.yaml"])
    assert result.exit_code == 1
    assert code_of(result.output.rstrip()) == "no-credentials"
    assert result.output.count("\n") == 1


@pytest.mark.parametrize(
    "variable, text",
    [
        ("PREFECT_ECS_MAX_MEMORY", "lots"),
        ("PREFECT_ECS_LAUNCH_TYPE", "LAMBDA"),
        ("PREFECT_ECS_NO_WATCH", "maybe"),
        ("PREFECT_ECS_KEY_FROM_SECRET", "no-arn"),
    ],
)
def test_an_invalid_value_of_a_variable_is_named_by_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str
) -> None:
    monkeypatch.setenv(variable, text)
    result = CliRunner().invoke(ecs, ["start"])
    assert result.exit_code == 2
    assert variable in result.output.splitlines()[-1]


def test_help_works_with_a_file_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_ECS_CONFIG", "/absent.yaml")
    assert CliRunner().invoke(ecs, ["start", "--help"]).exit_code == 0


@pytest.mark.parametrize("name", ["start", "check", "install"])
def test_a_part_of_a_variables_secret_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """click splits a variable at blanks."""
    monkeypatch.setenv("PREFECT_ECS_ENV", "PASSWORD=correct h0rse")
    result = CliRunner().invoke(ecs, [name])
    assert result.exit_code == 2
    assert "PREFECT_ECS_ENV" in result.output.splitlines()[-1]
    assert "h0rse" not in result.output


# -- What is shown -----------------------------------------------------------------


def test_sources_show_no_secret(config: Callable[[str], str]) -> None:
    arguments = ["--env", "TOKEN=s3cret", "--api", "http://me:s3cret@host/"]
    context = parsed("check", "--config", config("start: {key: s3cret}"), *arguments)
    shown = sources(context)
    assert "s3cret" not in str(shown)
    assert set(shown["the command line"]) == {"--env ***", "--api http://me:***@host/"}


def test_sources_show_the_files_of_flows_by_their_paths(tmp_path: Path) -> None:
    file = tmp_path / "flow.py"
    file.touch()
    shown = sources(parsed("check", "--flow", str(file)))
    assert shown == {"the command line": [f"--flow {file}"]}


def test_a_variable_of_no_option_is_told_with_the_likely_one() -> None:
    given = ["PREFECT_ECS_LABLE", "PREFECT_ECS_OLDER_THAN", "PREFECT_ECS_CONFIG", "A"]
    assert unknown_variables([*given, "PREFECT_ECS_QQQQQQ"]) == {
        "PREFECT_ECS_LABLE": ["PREFECT_ECS_LABEL"],
        "PREFECT_ECS_QQQQQQ": [],
    }


# -- Completion --------------------------------------------------------------------


@pytest.mark.parametrize(
    "program, command, words",
    [
        ("prefect", prefect_cli, "prefect agent ecs"),
        ("prefect-ecs", ecs, "prefect-ecs"),
    ],
)
def test_commands_and_options_complete(
    program: str, command: click.Command, words: str
) -> None:
    def completed(typed: str) -> List[str]:
        line = f"{words} {typed}"
        variables = {
            f"_{program.upper().replace('-', '_')}_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split()) - 1),
        }
        result = CliRunner().invoke(command, [], prog_name=program, env=variables)
        return result.output.split()

    assert completed("st") == ["plain,start", "plain,status"]
    assert completed("start --launch-t") == [
        "plain,--launch-type",
        "plain,--launch-timeout",
    ]
    assert completed("check --clu") == ["plain,--cluster"]
