"""The AWS settings, the agent's identity at AWS, and the clock."""

from __future__ import annotations

import inspect
from typing import Iterator

from ...aws.session import AWSClients
from ...errors import ConfigurationError
from ..aws_client import AWS, AWSUnavailable, InvalidCredentials
from .context import CheckContext, Identity
from .findings import Finding, failed, failed_with, ok, skipped, warning

#: The agent may wait for minutes, a user at a terminal should not.
_TIMEOUTS = {"connect_timeout": 10, "read_timeout": 30}

#: AWS rejects a signature whose time differs by more than this, in seconds.
#: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html
_MAX_SKEW = 300.0
_LARGE_SKEW = 60.0

NEW_CREDENTIALS = (
    "Check AWS_PROFILE and the AWS_* variables; log in again (`aws sso login`) if the "
    "credentials are temporary."
)


def settings(context: CheckContext) -> Iterator[Finding]:
    """Whether boto3 finds credentials and a region, as it would for the agent."""
    known = inspect.signature(AWSClients).parameters
    given = {name: value for name, value in context.options.items() if name in known}
    try:
        clients = AWSClients(**{**given, "botocore_config": _TIMEOUTS})
    except ConfigurationError as error:
        yield failed_with(error)
        return
    context.aws = AWS(clients, context.now)
    yield ok(f"region {context.aws.region}, credentials found")


def region(context: CheckContext) -> Iterator[Finding]:
    """Whether the region exists. An older botocore does not know newer regions."""
    aws = context.known_aws
    if aws.is_known_region("ecs"):
        yield ok(aws.region)
    else:
        yield warning(
            f"This version of botocore does not know the region {aws.region!r}.",
            "Correct AWS_DEFAULT_REGION, or region in ~/.aws/config, unless the region "
            "is new.",
            code="unknown-region",
        )


def identity(context: CheckContext) -> Iterator[Finding]:
    """The user or role that the credentials belong to."""
    try:
        answer = context.known_aws.ask("sts", "get_caller_identity")
    except InvalidCredentials as error:
        yield failed(
            f"AWS does not accept the credentials: {error}.",
            NEW_CREDENTIALS,
            code="invalid-credentials",
        )
        return
    except AWSUnavailable as error:
        context.aws_is_usable = _ecs_answers(context.known_aws)
        if context.aws_is_usable:
            yield skipped(
                f"AWS STS does not name the agent's identity: {error}.", code=error.code
            )
        else:
            yield failed(
                f"Neither STS nor ECS can be reached: {error}.",
                "Check AWS_DEFAULT_REGION, the proxy's settings and the connection "
                "from here to AWS.",
                code="aws-unreachable",
            )
        return
    context.aws_is_usable = True
    context.identity = Identity(str(answer["Account"]), str(answer["Arn"]))
    yield ok(f"account {context.identity.account}, {context.identity.arn}")


def _ecs_answers(aws: AWS) -> bool:
    """Whether ECS answers at all: a network may reach ECS without STS."""
    try:
        aws.ask("ecs", "describe_clusters", clusters=["default"])
    except AWSUnavailable as error:
        return error.code != "aws-unreachable"
    return True


def clock(context: CheckContext) -> Iterator[Finding]:
    """Whether this machine's clock agrees with those of AWS and the Prefect API."""
    aws = context.aws.skew if context.aws is not None else None
    api = context.api.skew if context.api is not None else None
    skews = [
        (abs(skew), skew, whose)
        for whose, skew in (("AWS", aws), ("the Prefect API", api))
        if skew is not None
    ]
    if not skews:
        yield skipped("No answer contained the time.", code="clock-unknown")
        return
    seconds, skew, whose = max(skews)
    difference = f"{seconds:.0f} s {'ahead of' if skew > 0 else 'behind'}"
    if aws is not None and abs(aws) > _MAX_SKEW:
        yield failed(
            f"This machine's clock is {difference} that of {whose}; AWS rejects "
            "requests if the difference exceeds 5 minutes.",
            "Set the clock by NTP.",
            code="clock-skew",
        )
    elif seconds > _LARGE_SKEW:
        yield warning(
            f"This machine's clock is {difference} that of {whose}; runs start at the "
            "wrong time.",
            "Set the clock by NTP.",
            code="clock-skew",
        )
    else:
        yield ok(f"within {seconds:.0f} s of {whose}")
