"""What each option of the agent may be, in Python and on the command line."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, Dict, List, Tuple

import click
import pytest
from click.testing import CliRunner
from codes import code_of, codes_of, raises_code
from prefect.utilities.configuration import set_temporary_config

from prefect_ecs_plugin import ConfigurationError, ECSAgent
from prefect_ecs_plugin.cli.start import ecs
from prefect_ecs_plugin.config.options import CHECKS, Number, mistakes
from prefect_ecs_plugin.settings import ON_INTERRUPTION, PRICES

PARAMETERS = inspect.signature(ECSAgent).parameters
SECRET = "arn:aws:ssm:us-east-1:123456789012:parameter/key"

NUMBERS = {name: check for name, check in CHECKS.items() if isinstance(check, Number)}

#: The option, values that are wrong, and the code.
WRONG: Tuple[Tuple[str, Tuple[Any, ...], str], ...] = (
    ("labels", ("prod", b"prod", [1], 1, ["a", None]), "wrong-type"),
    ("template_hosts", ("example.com", [1], None), "wrong-type"),
    (
        "template_hosts",
        (["https://a.example"], ["a/x"], ["a:80"], [""]),
        "invalid-host",
    ),
    ("env_vars", (["A=1"], "A=1", {1: "a"}, {"A": {}}), "wrong-type"),
    ("botocore_config", ([], "retries"), "wrong-type"),
    ("launch_type", (1, ["EC2"]), "wrong-type"),
    ("launch_type", ("LAMBDA", ""), "unknown-launch-type"),
    ("log_format", ("xml", "", "JSON"), "unknown-log-format"),
    ("log_format", (1, None), "wrong-type"),
    ("on_interruption", ("stop", None, 1, True), "unknown-choice"),
    ("prices", ("AWS", None, 1), "unknown-choice"),
    ("agent_address", ("http://localhost", "8080", "http://x:y"), "no-port"),
    ("agent_address", (8080,), "wrong-type"),
    ("api_key_secret_arn", ("my-key", ""), "not-a-secret-arn"),
    ("limits", ("50", [1], 50), "wrong-type"),
    ("limits", (["many"], ["flow=etl"], ["-1"]), "invalid-limit"),
    ("limits", (["flow=etl:1", "flow=etl:2"],), "conflicting-limits"),
    ("limits", (["owner=me:1"],), "unknown-limit"),
    ("max_vcpus", ([1], True), "wrong-type"),
    ("max_vcpus", ("many", -1, float("nan"), float("inf"), ""), "invalid-limit"),
    ("flow_log_group", ("a b", ""), "invalid-log-group"),
    ("flow_log_group", (1,), "wrong-type"),
    ("task_role_arn", ("my role", "arn:aws:iam::1:user/me"), "invalid-role"),
    ("execution_role_arn", ("my role",), "invalid-role"),
    ("execution_role_arn", (1,), "wrong-type"),
    *((name, ("no", 1, None), "wrong-type") for name in ("watch", "spot_fallback")),
    ("no_cloud_logs", ("no", 1), "wrong-type"),
    *(
        (name, (1, [], b"x"), "wrong-type")
        for name in ("name", "cluster", "region_name", "task_definition_path")
    ),
    *((name, ("60", True, [1]), "wrong-type") for name in NUMBERS),
    *(
        (name, (float("nan"), float("inf"), -float("inf"), -0.1), "out-of-range")
        for name, number in NUMBERS.items()
        if not number.is_whole
    ),
    *((name, (number.least - 1,), "out-of-range") for name, number in NUMBERS.items()),
    *(
        (name, (1.5, float("nan")), "wrong-type")
        for name, number in NUMBERS.items()
        if number.is_whole
    ),
    ("launches_per_second", (0, 0.0), "out-of-range"),
    ("launch_timeout", (None,), "wrong-type"),
)

#: Options and values that are right.
RIGHT: Tuple[Tuple[str, Tuple[Any, ...]], ...] = (
    ("labels", (None, [], ("a", "b"), {"a"})),
    ("template_hosts", ((), ["a.example", "::1", "127.0.0.1"])),
    ("env_vars", (None, {}, {"A": "1", "B": 2, "C": True, "D": 0.5, "E": None})),
    ("launch_type", (None, "ec2", "FARGATE", "Fargate")),
    ("on_interruption", ON_INTERRUPTION),
    ("prices", PRICES),
    ("agent_address", (None, "", "http://0.0.0.0:8080", "127.0.0.1:80")),
    ("api_key_secret_arn", (None, SECRET)),
    ("flow_log_group", (None, "/ecs/prefect-flows")),
    ("limits", ((), ["50", "flow=etl:2"])),
    ("max_vcpus", (None, "quota", 64, 0.5, "64")),
    ("task_role_arn", (None, "", "flows", "arn:aws-cn:iam::123456789012:role/a/b")),
    ("task_definition_path", (None, "s3://b/k", Path("t.yaml"))),
    *((name, (number.least + 1,)) for name, number in NUMBERS.items()),
    *(
        (name, (number.least,))
        for name, number in NUMBERS.items()
        if not number.is_open
    ),
)


@pytest.mark.parametrize("name, values, code", WRONG)
def test_a_wrong_value(name: str, values: Tuple[Any, ...], code: str) -> None:
    for value in values:
        found = [*mistakes({**_defaults(), name: value}, PARAMETERS)]
        assert [each for each, _ in found] == [name], value
        assert codes_of(problem for _, problem in found) == [code], value


@pytest.mark.parametrize("name, values", RIGHT)
def test_a_right_value(name: str, values: Tuple[Any, ...]) -> None:
    for value in values:
        assert [*mistakes({**_defaults(), name: value}, PARAMETERS)] == []


def _defaults() -> Dict[str, Any]:
    return {name: each.default for name, each in PARAMETERS.items()}


def test_each_argument_has_its_row_in_their_order() -> None:
    assert [*CHECKS] == [*PARAMETERS]


@pytest.fixture
def no_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither credentials nor a region, and nothing that may be asked for them."""
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/absent")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.mark.usefixtures("no_aws")
@pytest.mark.parametrize(
    "arguments, codes",
    [
        ({"labels": "prod"}, ["wrong-type"]),
        ({"launch_timeout": -1}, ["out-of-range"]),
        (
            {"env_vars": ["A=1"], "launch_type": "LAMBDA", "start_attempts": "3"},
            ["wrong-type", "unknown-launch-type", "wrong-type"],
        ),
        ({"api_key_secret_arn": "x"}, ["not-a-secret-arn"]),
    ],
)
def test_mistakes_are_named_where_there_are_no_credentials(
    arguments: Dict[str, Any], codes: List[str]
) -> None:
    with raises_code(codes[-1], ConfigurationError) as raised:
        ECSAgent(**arguments)
    assert str(raised.value).startswith("ECSAgent: ")
    assert codes_of(str(raised.value).split("; ")[-1:]) == codes[-1:]
    assert [code for code in codes if f"[{code}]" not in str(raised.value)] == []


@pytest.mark.usefixtures("no_aws")
def test_labels_of_prefects_configuration_are_no_string_either() -> None:
    configured = set_temporary_config({"cloud.agent.labels": "prod"})
    with configured, raises_code("wrong-type", ConfigurationError):
        ECSAgent()


@pytest.mark.usefixtures("no_aws")
def test_valid_arguments_need_credentials() -> None:
    with raises_code("no-credentials", ConfigurationError):
        ECSAgent(labels=(each for each in "ab"), launch_timeout=0)


# -- The command line ---------------------------------------------------------------


def test_the_command_line_has_the_same_bounds_and_defaults() -> None:
    command = ecs.commands["start"]
    given = command.make_context("start", []).params
    options = {str(each.name): each for each in command.params}
    for name, number in NUMBERS.items():
        assert given[name] == PARAMETERS[name].default
        kind = options[name].type
        if isinstance(kind, (click.IntRange, click.FloatRange)):
            assert (kind.min, kind.max) == (number.least, None)
            assert isinstance(kind, click.IntRange) is number.is_whole


@pytest.mark.usefixtures("no_aws")
@pytest.mark.parametrize(
    "arguments, code",
    [
        (["--max-polls", "-1"], "out-of-range"),
        (["--agent-address", "http://localhost"], "no-port"),
        (["--template-host", "https://a.example"], "invalid-host"),
        (["--task-role-arn", "my role"], "invalid-role"),
    ],
)
@pytest.mark.parametrize("command", ["start", "check"])
def test_guarantee_6_what_click_could_know_is_a_usage_error(
    command: str, arguments: List[str], code: str
) -> None:
    ended = CliRunner().invoke(ecs, [command, *arguments])
    assert ended.exit_code == 2
    line = ended.output.strip().splitlines()[-1]
    assert line.startswith(f"Error: Invalid value for '{arguments[0]}'")
    assert code_of(line) == code
