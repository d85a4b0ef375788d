"""The agent's AWS session: whose credentials, whose retry settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict, Set

import pytest
from botocore.exceptions import EndpointConnectionError, ParamValidationError
from codes import raises_code

from prefect_ecs_plugin.aws.session import AWSClients
from prefect_ecs_plugin.errors import ConfigurationError
from prefect_ecs_plugin.observability.counters import AgentCounters


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No AWS settings but those of the test."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return tmp_path


KEYS: Dict[str, Any] = {
    "aws_access_key_id": "key",
    "aws_secret_access_key": "secret",
    "region_name": "eu-west-1",
}


def retries(**options: Any) -> Dict[str, Any]:
    client = AWSClients(**KEYS, **options)("ecs")
    return dict(client.meta.config.retries)


@pytest.mark.parametrize(
    "config, environment, file, expected",
    [
        ({}, {}, "", {"mode": "standard"}),
        ({}, {"AWS_RETRY_MODE": "adaptive"}, "", {"mode": "adaptive"}),
        ({}, {}, "retry_mode = adaptive", {"mode": "adaptive"}),
        ({}, {"AWS_RETRY_MODE": "legacy"}, "retry_mode = adaptive", {"mode": "legacy"}),
        (
            {"retries": {"mode": "adaptive"}},
            {"AWS_RETRY_MODE": "legacy"},
            "",
            {"mode": "adaptive"},
        ),
        (
            {},
            {"AWS_MAX_ATTEMPTS": "7"},
            "",
            {"mode": "standard", "total_max_attempts": 7},
        ),
        ({}, {}, "max_attempts = 6", {"mode": "standard", "total_max_attempts": 6}),
        (
            {"retries": {"max_attempts": 4}},
            {"AWS_MAX_ATTEMPTS": "7"},
            "",
            {"mode": "standard", "total_max_attempts": 5},
        ),
        (
            {"retries": {"max_attempts": 4}},
            {},
            "retry_mode = adaptive",
            {"mode": "adaptive", "total_max_attempts": 5},
        ),
    ],
)
def test_retry_settings_of_the_user_win_wherever_they_are(
    clean_environment: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: Any,
    environment: Dict[str, str],
    file: str,
    expected: Dict[str, Any],
) -> None:
    (clean_environment / "config").write_text(f"[default]\n{file}\n")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    seen = retries(botocore_config=config)
    assert {key: seen.get(key) for key in expected} == expected


@pytest.mark.parametrize(
    "config, environment, file, attempts",
    [
        ({}, {}, "", 1),
        ({"retries": {"mode": "standard"}}, {}, "", None),
        ({}, {"AWS_RETRY_MODE": "standard"}, "", None),
        ({}, {}, "retry_mode = standard", None),
        ({}, {"AWS_MAX_ATTEMPTS": "4"}, "", 4),
        ({}, {}, "max_attempts = 6", 6),
    ],
)
def test_ecs_is_retried_by_the_pacer_unless_the_user_speaks_of_retries(
    clean_environment: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: Any,
    environment: Dict[str, str],
    file: str,
    attempts: Any,
) -> None:
    (clean_environment / "config").write_text(f"[default]\n{file}\n")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert retries(botocore_config=config).get("total_max_attempts") == attempts
    s3 = AWSClients(**KEYS, botocore_config=config)("s3").meta.config.retries
    assert s3.get("total_max_attempts") != 1


@pytest.mark.parametrize(
    "config, file, validates",
    [
        ({}, "", {"StopTask"}),
        ({"parameter_validation": True}, "", {"StopTask", "RunTask"}),
        ({}, "parameter_validation = true", {"StopTask", "RunTask"}),
        ({"parameter_validation": False}, "", set()),
        ({}, "parameter_validation = false", set()),
    ],
)
def test_botocore_validates_all_but_run_task_unless_the_user_says_otherwise(
    clean_environment: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: Dict[str, Any],
    file: str,
    validates: Set[str],
) -> None:
    (clean_environment / "config").write_text(f"[default]\n{file}\n")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nothing answers
    ecs = AWSClients(**KEYS, botocore_config=config)("ecs")
    calls = {
        "StopTask": lambda: ecs.stop_task(task=["no string"]),
        "RunTask": lambda: ecs.run_task(taskDefinition=["no string"]),
    }
    for operation, call in calls.items():
        is_validated = operation in validates
        refusal = ParamValidationError if is_validated else EndpointConnectionError
        with pytest.raises(refusal):
            call()


def test_guarantee_8_the_users_botocore_config_is_not_changed() -> None:
    options = {"retries": {"max_attempts": 4}, "user_agent_extra": "mine"}
    AWSClients(**KEYS, botocore_config=options)
    assert options == {"retries": {"max_attempts": 4}, "user_agent_extra": "mine"}


@pytest.mark.parametrize(
    "given, expected", [({}, 33), ({"max_pool_connections": 5}, 5)]
)
def test_the_connection_pool_fits_unless_the_user_says_otherwise(
    given: Dict[str, Any], expected: int
) -> None:
    clients = AWSClients(**KEYS, botocore_config=given, max_pool_connections=33)
    assert clients("ecs").meta.config.max_pool_connections == expected


def test_credentials_come_from_the_users_profile(
    clean_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (clean_environment / "credentials").write_text(
        "[prod]\naws_access_key_id = from-profile\naws_secret_access_key = s\n"
    )
    (clean_environment / "config").write_text("[profile prod]\nregion = eu-north-1\n")
    monkeypatch.setenv("AWS_PROFILE", "prod")
    clients = AWSClients()
    assert clients.session.get_credentials().access_key == "from-profile"
    assert clients("ecs").meta.region_name == "eu-north-1"


@pytest.mark.parametrize(
    "options, environment, code, named",
    [
        ({"region_name": "eu-west-1"}, {}, "no-credentials", "AWS_ACCESS_KEY_ID"),
        ({**KEYS, "region_name": None}, {}, "no-region", "AWS_DEFAULT_REGION"),
        (KEYS, {"AWS_PROFILE": "absent"}, "aws-settings", "absent"),
        ({**KEYS, "botocore_config": {"nope": 1}}, {}, "aws-settings", "nope"),
    ],
)
def test_what_is_missing_is_named_with_what_to_set(
    monkeypatch: pytest.MonkeyPatch,
    options: Dict[str, Any],
    environment: Dict[str, str],
    code: str,
    named: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with raises_code(code, ConfigurationError) as error:
        AWSClients(**options)("ecs")
    assert named in str(error.value)


def _answer(status: int, code: str = "", message: str = "") -> Dict[str, Any]:
    metadata = {"HTTPStatusCode": status}
    error = {"Code": code, "Message": message}
    return {"ResponseMetadata": metadata, **({"Error": error} if code else {})}


@pytest.mark.parametrize(
    "answer, result",
    [
        ({}, "failed"),
        (_answer(200), "ok"),
        (_answer(400, "ThrottlingException", "Rate exceeded"), "throttled"),
        (_answer(503, "SlowDown"), "throttled"),
        (
            _answer(400, "ClientException", "Error Code: RequestLimitExceeded"),
            "throttled",
        ),
        (_answer(400, "ClientException", "Unable to describe"), "refused"),
        (_answer(403, "AccessDeniedException"), "refused"),
        (_answer(500, "ServerException"), "failed"),
        (_answer(503), "failed"),
    ],
)
def test_an_attempt_is_counted_by_how_it_went(
    answer: Dict[str, Any], result: str
) -> None:
    counts = AgentCounters()
    clients = AWSClients(**KEYS, counts=counts)
    ecs = clients("ecs")
    assert ecs.meta.events.emit(
        "needs-retry.ecs.RunTask",
        operation=ecs.meta.service_model.operation_model("RunTask"),
        response=(None, answer) if answer else None,
        caught_exception=None if answer else OSError("refused"),
        attempts=5,
        request_dict={"context": {}},
    )
    counted = {key: n for key, n in counts.aws_requests.items().items() if n}
    assert counted == {("ecs", "RunTask", result): 1}
