"""ARNs of secrets as ECS takes them in `valueFrom`."""

from __future__ import annotations

from typing import Any

import pytest
from codes import raises_code

from prefect_ecs_plugin.aws.secret_arn import SecretARN, parse
from prefect_ecs_plugin.errors import ConfigurationError

SECRET = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prefect/key-AbC1eF"
PARAMETER = "arn:aws:ssm:eu-west-1:123456789012:parameter"


@pytest.mark.parametrize(
    "text, suffix, details",
    [
        (SECRET, "", ("", "", "")),
        (f"{SECRET}:key::", ":key::", ("key", "", "")),
        (f"{SECRET}::AWSPREVIOUS:", "::AWSPREVIOUS:", ("", "AWSPREVIOUS", "")),
        (f"{SECRET}:key::0a-1b", ":key::0a-1b", ("key", "", "0a-1b")),
        (f"{SECRET}:::", ":::", ("", "", "")),
        (SECRET.replace("aws", "aws-cn", 1), "", ("", "", "")),
        (SECRET.replace("aws", "aws-us-gov", 1), "", ("", "", "")),
        (f"{PARAMETER}/prefect/key", "", ("", "", "")),
        (f"{PARAMETER}/Key_1.x-y", "", ("", "", "")),
    ],
)
def test_what_ecs_takes(text: str, suffix: str, details: Any) -> None:
    found = parse("--x", text)
    assert found == SecretARN(text[: len(text) - len(suffix)], suffix)
    assert found.value_from == text
    assert (found.json_key, found.version_stage, found.version_id) == details
    assert (found.region, found.account) == ("eu-west-1", "123456789012")


@pytest.mark.parametrize(
    "text, right", [(SECRET, "secretsmanager:Get"), (f"{PARAMETER}/k", "ssm:Get")]
)
def test_what_the_execution_role_needs(text: str, right: str) -> None:
    found = parse("--x", text)
    assert found.read_by_ecs.startswith(right)
    assert found.is_parameter is right.startswith("ssm")


@pytest.mark.parametrize(
    "text, code",
    [
        ("", "not-a-secret-arn"),
        (SECRET[:-7], "not-a-secret-arn"),
        (f"{SECRET}:key", "not-a-secret-arn"),
        (f"{SECRET}:a:b:c:d", "not-a-secret-arn"),
        (f"{SECRET}:a:AWSCURRENT:0a", "two-secret-versions"),
        (f"{SECRET}:a b::", "not-a-secret-arn"),
        (f" {SECRET}", "not-a-secret-arn"),
        (f"{SECRET}\n", "not-a-secret-arn"),
        (f"{PARAMETER}/k:key::", "not-a-secret-arn"),
        ("/prefect/key", "not-a-secret-arn"),
        (SECRET.replace("123456789012", "12345"), "not-a-secret-arn"),
        (SECRET.replace("secretsmanager", "s3"), "not-a-secret-arn"),
    ],
)
def test_anything_else_is_refused(text: str, code: str) -> None:
    with raises_code(code, ConfigurationError) as error:
        parse("--x", text)
    assert str(error.value).startswith("--x")


def test_guarantee_7_a_key_given_in_place_of_its_arn_is_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as error:
        parse("--api-key-secret-arn", "pcu_the-key-itself")
    assert "pcu_" not in str(error.value)
