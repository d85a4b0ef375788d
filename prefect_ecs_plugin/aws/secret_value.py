"""The value of a secret, for the agent's own API key.

No error contains any part of it: messages quote the ARN and AWS's own words only.
"""

from __future__ import annotations

import json
from typing import Any, Callable, Mapping, Optional

from botocore.exceptions import BotoCoreError, ClientError

from ..errors import ConfigurationError
from .secret_arn import GET_SECRET, SecretARN, parse

#: Makes a client for an AWS service in a region.
RegionalClientFactory = Callable[[str, str], Any]

_ABSENT = frozenset({"ResourceNotFoundException", "ParameterNotFound"})
_DENIED = frozenset({"AccessDenied", "AccessDeniedException"})


def read(option: str, text: str, clients: RegionalClientFactory) -> str:
    """Read a secret of Secrets Manager, or a parameter of SSM.

    Args:
        option: Where its ARN was given, for messages.
        text: The ARN, as ECS takes it in `valueFrom`.
        clients: Makes the client, in the secret's own region.

    Returns:
        The value, without white space around it.

    Raises:
        ConfigurationError: one line, if the ARN is none, or the value cannot be read
            or is no text.
    """
    arn = parse(option, text)
    try:
        value = _fetch(arn, clients)
    except ClientError as error:
        raise _refused(option, arn, error) from error
    except BotoCoreError as error:
        raise ConfigurationError(
            f"{option}: {arn.value_from} cannot be read: {error}",
            code="secret-unreadable",
        ) from error
    if not isinstance(value, str):
        raise ConfigurationError(
            f"{option}: {arn.arn} is binary, and an API key is text.",
            code="secret-is-binary",
        )
    return _text(option, arn, value)


def _fetch(arn: SecretARN, clients: RegionalClientFactory) -> Any:
    if arn.is_parameter:
        answer = clients("ssm", arn.region).get_parameter(
            Name=arn.arn, WithDecryption=True
        )
        return answer["Parameter"]["Value"]
    version = {"VersionStage": arn.version_stage, "VersionId": arn.version_id}
    given = {name: value for name, value in version.items() if value}
    client = clients("secretsmanager", arn.region)
    return client.get_secret_value(SecretId=arn.arn, **given).get("SecretString")


def _refused(option: str, arn: SecretARN, error: ClientError) -> ConfigurationError:
    details: Mapping[str, Any] = error.response.get("Error", {})
    code, message = str(details.get("Code", "")), details.get("Message", "")
    if code in _ABSENT:
        return ConfigurationError(
            f"{option}: {arn.arn} does not exist, or has no such version; check the "
            "ARN.",
            code="no-secret",
        )
    if code in _DENIED:
        action = "ssm:GetParameter" if arn.is_parameter else GET_SECRET
        return ConfigurationError(
            f"{option}: this identity may not read {arn.arn}: grant it {action}, and "
            "kms:Decrypt if the secret is encrypted with a key of your own. AWS says: "
            f"{message}",
            code="secret-access-denied",
        )
    return ConfigurationError(
        f"{option}: {arn.arn} cannot be read: {code}: {message}",
        code="secret-unreadable",
    )


def _text(option: str, arn: SecretARN, value: str) -> str:
    """The key in a secret's value.

    Raises:
        ConfigurationError: if the value contains no key, or not where the ARN says.
    """
    about = f"{option}: {arn.arn}"
    members = _members(value)
    if members is None:
        if arn.json_key:
            raise ConfigurationError(
                f"{about} is not a JSON object; leave out its JSON key "
                f"{arn.json_key!r}.",
                code="secret-not-json",
            )
        if not value.strip():
            raise ConfigurationError(f"{about} is empty.", code="secret-is-empty")
        return value.strip()
    if arn.is_parameter:
        raise ConfigurationError(
            f"{about} contains JSON, and a parameter's ARN cannot name a key in it; "
            "store the API key alone.",
            code="parameter-is-json",
        )
    if not arn.json_key:
        raise ConfigurationError(
            f"{about} contains JSON; name the key in it, as ...:JSON_KEY::.",
            code="no-json-key",
        )
    found = members.get(arn.json_key)
    if not (isinstance(found, str) and found.strip()):
        raise ConfigurationError(
            f"{about} has no text under the JSON key {arn.json_key!r}.",
            code="wrong-json-key",
        )
    return found.strip()


def _members(value: str) -> Optional[Mapping[str, Any]]:
    """The members of a JSON object; None if the value is not one."""
    try:
        parsed = json.loads(value)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None
