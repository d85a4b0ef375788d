"""The agent's own key out of Secrets Manager or SSM, or one line that says why not."""

from __future__ import annotations

import json
import socket
from typing import Any, Callable, Dict

import pytest

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
    "value, suffix, words",
    [
        (b"\x00secret", "", "is binary, and an API key is text"),
        ("secret", ":key::", "holds no JSON object, so leave its JSON key 'key' out"),
        ('["secret"]', ":key::", "holds no JSON object"),
        ('{"a": "secret"}', ":key::", "has no text under the JSON key 'key'"),
        ('{"key": 12345}', ":key::", "has no text under the JSON key 'key'"),
        ('{"key": "secret"}', "", "holds JSON; name the key in it"),
        ("\n", "", "is empty"),
        ("secret", "::AWSPREVIOUS:", "is not there, or has no such version"),
    ],
)
def test_guarantee_7_what_is_no_key_is_one_line_without_it(
    stored: Any, clients: Any, value: Any, suffix: str, words: str
) -> None:
    arn = stored(value)
    with pytest.raises(ConfigurationError) as error:
        read("--x", arn + suffix, clients)
    assert words in str(error.value)
    assert str(error.value).startswith(f"--x: {arn} ")
    assert "12345" not in str(error.value).replace(ACCOUNT, "")
    assert "secret" not in str(error.value).replace(arn, "")


def test_a_parameter_has_no_json_keys(clients: Any) -> None:
    ssm = clients("ssm", "us-east-1")
    ssm.put_parameter(Name="key", Value='{"key": "k"}', Type="String")
    arn = ssm.get_parameter(Name="key")["Parameter"]["ARN"]
    with pytest.raises(ConfigurationError, match="holds JSON, of which a parameter's"):
        read("--x", arn, clients)


@pytest.mark.parametrize(
    "arn, fault, words",
    [
        (ABSENT, None, "is not there, or has no such version; check the ARN"),
        (
            f"arn:aws:ssm:us-east-1:{ACCOUNT}:parameter/absent",
            None,
            "is not there, or has no such version; check the ARN",
        ),
        (
            ABSENT,
            {"error_code": "AccessDeniedException", "message": "no"},
            r"may not read .*: grant it secretsmanager:GetSecretValue.*AWS says: no",
        ),
        (
            f"arn:aws:ssm:us-east-1:{ACCOUNT}:parameter/absent",
            {"error_code": "AccessDeniedException", "message": "no"},
            r"may not read .*: grant it ssm:GetParameter,",
        ),
        (
            ABSENT,
            {"error_code": "DecryptionFailure", "message": "no such key"},
            "cannot be read: DecryptionFailure: no such key",
        ),
        ("prefect", None, "'s value is not the whole ARN"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    aws: Any, clients: Any, arn: str, fault: Dict[str, str], words: str
) -> None:
    from prefect_ecs_plugin.sandbox.aws import Fault

    if fault:
        aws.fault = lambda *_: Fault(**fault)
    with pytest.raises(ConfigurationError, match=words) as error:
        read("--x", arn, clients)
    assert "\n" not in str(error.value)


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

    with pytest.raises(ConfigurationError, match=f"cannot be read: .*{url}"):
        read("--x", ABSENT, unreachable)
