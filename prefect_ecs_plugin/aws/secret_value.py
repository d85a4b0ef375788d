"""The value of a secret, for the agent's own API key.

No error holds any part of it: what is quoted is the ARN and AWS's own words.
"""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, Mapping, NoReturn

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
    ask = _parameter if arn.is_parameter else _secret
    try:
        value = ask(arn, clients)
    except ClientError as error:
        _explain(option, arn, error)
    except BotoCoreError as error:
        raise ConfigurationError(
            f"{option}: {arn.value_from} cannot be read: {error}"
        ) from error
    return _text(option, arn, value)


def _parameter(arn: SecretARN, clients: RegionalClientFactory) -> Any:
    client = clients("ssm", arn.region)
    return client.get_parameter(Name=arn.arn, WithDecryption=True)["Parameter"]["Value"]


def _secret(arn: SecretARN, clients: RegionalClientFactory) -> Any:
    version: Dict[str, str] = {
        "VersionStage": arn.version_stage,
        "VersionId": arn.version_id,
    }
    given = {name: value for name, value in version.items() if value}
    client = clients("secretsmanager", arn.region)
    return client.get_secret_value(SecretId=arn.arn, **given).get("SecretString")


def _explain(option: str, arn: SecretARN, error: ClientError) -> NoReturn:
    details: Mapping[str, Any] = error.response.get("Error", {})
    code = str(details.get("Code", ""))
    if code in _ABSENT:
        sentence = f"{arn.arn} is not there, or has no such version; check the ARN."
    elif code in _DENIED:
        action = "ssm:GetParameter" if arn.is_parameter else GET_SECRET
        sentence = (
            f"this identity may not read {arn.arn}: grant it {action}, and kms:Decrypt "
            f"for a key of your own. AWS says: {details.get('Message', '')}"
        )
    else:
        sentence = f"{arn.arn} cannot be read: {code}: {details.get('Message', '')}"
    raise ConfigurationError(f"{option}: {sentence}") from error


def _text(option: str, arn: SecretARN, value: Any) -> str:
    """The key in a secret's value.

    Raises:
        ConfigurationError: if there is none.
    """
    members = _members(value) if isinstance(value, str) else None
    problem = _problem(arn, value, members)
    if problem:
        raise ConfigurationError(f"{option}: {arn.arn} {problem}.")
    found = value if members is None else members.get(arn.json_key)
    if isinstance(found, str) and found.strip():
        return found.strip()
    what = f"has no text under the JSON key {arn.json_key!r}" if members else "is empty"
    raise ConfigurationError(f"{option}: {arn.arn} {what}.")


def _problem(arn: SecretARN, value: Any, members: Any) -> str:
    """What is wrong about the whole value; empty where nothing is."""
    if not isinstance(value, str):
        return "is binary, and an API key is text"
    if arn.json_key and members is None:
        return f"holds no JSON object, so leave its JSON key {arn.json_key!r} out"
    if members is not None and arn.is_parameter:
        return "holds JSON, of which a parameter's ARN can name no part"
    if members is not None and not arn.json_key:
        return "holds JSON; name the key in it, as ...:JSON_KEY::"
    return ""


def _members(value: str) -> Any:
    """The members of a JSON object, None where it is none."""
    try:
        parsed = json.loads(value)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None
