"""The agent's own key out of Secrets Manager or SSM, or one line that says why not."""

from __future__ import annotations

import json
import socket
from typing import Any, Callable, Dict

import pytest
from codes import raises_code

from prefect_ecs_plugin.aws.secret_value import read
from prefect_ecs_plugin.errors import ConfigurationError

ACCOUNT = "123456789012"
ABSENT = f"arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:absent-AbCdEf"
KEY = "pcu_the-key"


@pytest.fixture
def clients(aws: Any, client_of: Callable[..., Any]) -> Callable[[str, str], Any]:
    return lambda service, region: aws.client(service, region_name=region)


@pytest.fixture
def stored(clients: Any) -> Callable[..., str]:
    """Makes a secret and returns its ARN."""

    def stored(value: Any, region: str = "us-east-1") -> str:
        kind = "SecretBinary" if isinstance(value, bytes) else "SecretString"
        manager = clients("secretsmanager", region)
        made = manager.create_secret(Name="prefect", **{kind: value})
        return str(made["ARN"])

    return stored


@pytest.mark.parametrize(
    "value, suffix",
    [
        (KEY, ""),
        (f"{KEY}\n", ""),
        (json.dumps({"key": KEY, "other": 1}), ":key::"),
        (KEY, "::AWSCURRENT:"),
    ],
)
def test_secrets(stored: Any, clients: Any, value: str, suffix: str) -> None:
    assert read("--x", stored(value) + suffix, clients) == KEY


def test_a_secret_of_another_region(stored: Any, clients: Any) -> None:
    assert read("--x", stored(KEY, region="eu-west-1"), clients) == KEY


def test_a_version_that_was(stored: Any, clients: Any) -> None:
    arn = stored("old")
    clients("secretsmanager", "us-east-1").put_secret_value(
        SecretId=arn, SecretString=KEY
    )
    assert read("--x", f"{arn}::AWSPREVIOUS:", clients) == "old"


@pytest.mark.parametrize("kind", ["String", "SecureString"])
@pytest.mark.parametrize("name", ["key", "/prefect/key"])
def test_parameters(clients: Any, kind: str, name: str) -> None:
    ssm = clients("ssm", "us-east-1")
    ssm.put_parameter(Name=name, Value=KEY, Type=kind)
    arn = ssm.get_parameter(Name=name)["Parameter"]["ARN"]
    assert read("--x", arn, clients) == KEY


@pytest.mark.parametrize(
    "value, suffix, code",
    [
        (b"\x00secret", "", "secret-is-binary"),
        ("secret", ":key::", "secret-not-json"),
        ('["secret"]', ":key::", "secret-not-json"),
        ('{"a": "secret"}', ":key::", "wrong-json-key"),
        ('{"key": 12345}', ":key::", "wrong-json-key"),
        ('{"key": "secret"}', "", "no-json-key"),
        ("\n", "", "secret-is-empty"),
        ("secret", "::AWSPREVIOUS:", "no-secret"),
    ],
)
def test_guarantee_7_what_is_no_key_is_one_line_without_it(
    stored: Any, clients: Any, value: Any, suffix: str, code: str
) -> None:
    arn = stored(value)
    with raises_code(code, ConfigurationError) as error:
        read("--x", arn + suffix, clients)
    message = error.value.message
    assert message.startswith(f"--x: {arn} ")
    assert "12345" not in message.replace(ACCOUNT, "")
    assert "secret" not in message.replace(arn, "")


def test_a_parameter_has_no_json_keys(clients: Any) -> None:
    ssm = clients("ssm", "us-east-1")
    ssm.put_parameter(Name="key", Value='{"key": "k"}', Type="String")
    arn = ssm.get_parameter(Name="key")["Parameter"]["ARN"]
    with raises_code("parameter-is-json", ConfigurationError):
        read("--x", arn, clients)


@pytest.mark.parametrize(
    "arn, fault, code, words",
    [
        (ABSENT, None, "no-secret", ABSENT),
        (
            f"arn:aws:ssm:us-east-1:{ACCOUNT}:parameter/absent",
            None,
            "no-secret",
            "parameter/absent",
        ),
        (
            ABSENT,
            {"error_code": "AccessDeniedException", "message": "no"},
            "secret-access-denied",
            "secretsmanager:GetSecretValue",
        ),
        (
            f"arn:aws:ssm:us-east-1:{ACCOUNT}:parameter/absent",
            {"error_code": "AccessDeniedException", "message": "no"},
            "secret-access-denied",
            "ssm:GetParameter,",
        ),
        (
            ABSENT,
            {"error_code": "DecryptionFailure", "message": "no such key"},
            "secret-unreadable",
            "DecryptionFailure: no such key",
        ),
        ("prefect", None, "not-a-secret-arn", "--x"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    aws: Any, clients: Any, arn: str, fault: Dict[str, str], code: str, words: str
) -> None:
    from prefect_ecs_plugin.sandbox.aws import Fault

    if fault:
        aws.fault = lambda *_: Fault(**fault)
    with raises_code(code, ConfigurationError) as error:
        read("--x", arn, clients)
    assert words in str(error.value)


def test_no_answer_is_one_line() -> None:
    import boto3
    from botocore.config import Config

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"

    def unreachable(service: str, region: str) -> Any:
        return boto3.client(
            service,
            region_name=region,
            endpoint_url=url,
            aws_access_key_id="x",
            aws_secret_access_key="x",
            config=Config(retries={"total_max_attempts": 1}),
        )

    with raises_code("secret-unreadable", ConfigurationError) as error:
        read("--x", ABSENT, unreachable)
    assert url in str(error.value)
