"""Where a secret is kept: an ARN as ECS takes it in `valueFrom`. Pure.

    arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME-6RaNdM
    arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME-6RaNdM:JSON_KEY:STAGE:VERSION_ID
    arn:aws:ssm:REGION:ACCOUNT:parameter/NAME

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/secrets-envvar-secrets-manager.html
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/secrets-envvar-ssm-paramstore.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import ConfigurationError

_SECRET = re.compile(
    r"(?P<arn>arn:aws[\w-]*:secretsmanager:[a-z0-9-]+:\d{12}"
    r":secret:[\w/+=.@-]+-[A-Za-z0-9]{6})"
    r"(?P<suffix>:[^:\s]*:[^:\s]*:[^:\s]*)?",
    re.ASCII,
)
_PARAMETER = re.compile(
    r"arn:aws[\w-]*:ssm:[a-z0-9-]+:\d{12}:parameter/[\w./-]+", re.ASCII
)

#: The permission to read a secret of Secrets Manager.
GET_SECRET = "secretsmanager:GetSecretValue"


@dataclass(frozen=True)
class SecretARN:
    """A secret of Secrets Manager or a parameter of SSM.

    Attributes:
        arn: Its ARN.
        suffix: `:JSON_KEY:STAGE:VERSION_ID` of a secret, or nothing.
    """

    arn: str
    suffix: str = ""

    @property
    def value_from(self) -> str:
        """As it was written, and as a definition's `secrets` take it."""
        return self.arn + self.suffix

    @property
    def is_parameter(self) -> bool:
        """Whether it is kept by SSM's parameter store."""
        return self.arn.split(":")[2] == "ssm"

    @property
    def region(self) -> str:
        """The region in which it is kept."""
        return self.arn.split(":")[3]

    @property
    def account(self) -> str:
        """The account that owns it."""
        return self.arn.split(":")[4]

    @property
    def read_by_ecs(self) -> str:
        """The permission that the execution role needs."""
        return "ssm:GetParameters" if self.is_parameter else GET_SECRET

    @property
    def json_key(self) -> str:
        """Which member of a secret of JSON; empty for the whole secret."""
        return self._detail(1)

    @property
    def version_stage(self) -> str:
        """The label of a version; empty for AWSCURRENT."""
        return self._detail(2)

    @property
    def version_id(self) -> str:
        """A version; empty for the one with the label."""
        return self._detail(3)

    def _detail(self, index: int) -> str:
        return self.suffix.split(":")[index] if self.suffix else ""


def parse(option: str, text: str) -> SecretARN:
    """Take an ARN apart.

    Args:
        option: Where it was given, for the message.
        text: The ARN.

    Raises:
        ConfigurationError: if it is none that ECS takes as `valueFrom`. ECS also takes
            a secret's ARN without its six random characters, but no policy could
            name it.
    """
    match = _SECRET.fullmatch(text)
    if match:
        found = SecretARN(match["arn"], match["suffix"] or "")
        if found.version_stage and found.version_id:
            raise ConfigurationError(
                f"{option}: {text!r} names both a version's stage and its id; "
                "leave one of them empty.",
                code="two-secret-versions",
            )
        return found
    if _PARAMETER.fullmatch(text):
        return SecretARN(text)
    # A value that is not an ARN may be the secret itself; it is not repeated.
    given = f"{option}: {text!r}" if text.startswith("arn:") else f"{option}'s value"
    raise ConfigurationError(
        f"{given} is not the whole ARN of a Secrets Manager secret "
        "(arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME-6RaNdM, or that and "
        ":JSON_KEY::) or of an SSM parameter "
        "(arn:aws:ssm:REGION:ACCOUNT:parameter/NAME).",
        code="not-a-secret-arn",
    )
