"""The AWS settings, who the agent is there, and whether the clocks agree."""

from __future__ import annotations

import inspect
from typing import Iterator, Optional

from ...aws.session import AWSClients
from ...errors import ConfigurationError
from .asking import AWS, NotKnown, Unanswered
from .facts import CheckContext, Identity
from .findings import Finding, failed, ok, skipped, warning

#: An agent may wait for minutes; a person at a terminal wants to know.
_PATIENCE = {"connect_timeout": 10, "read_timeout": 30}

#: Beyond this AWS takes a signature for a forgery.
#: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html
_TOO_LATE = 300.0
_LATE = 60.0

NEW_CREDENTIALS = (
    "Check AWS_PROFILE and the AWS_* variables; log in again (`aws sso login`) if the "
    "credentials are temporary."
)


def settings(facts: CheckContext) -> Iterator[Finding]:
    """Whether boto3 finds credentials and a region, as for the agent."""
    known = inspect.signature(AWSClients).parameters
    given = {name: value for name, value in facts.options.items() if name in known}
    try:
        clients = AWSClients(**{**given, "botocore_config": _PATIENCE})
    except ConfigurationError as error:
        yield failed(str(error))
        return
    facts.aws = AWS(clients, facts.now)
    yield ok(f"region {facts.aws.region}, credentials found")


def region(facts: CheckContext) -> Iterator[Finding]:
    """Whether there is such a region; a botocore of last year knows no new ones."""
    aws = _aws(facts)
    if aws.is_known_region("ecs"):
        yield ok(aws.region)
    else:
        yield warning(
            f"The region {aws.region!r} is not known to this botocore.",
            "Correct AWS_DEFAULT_REGION, or region in ~/.aws/config, unless it is new.",
        )


def identity(facts: CheckContext) -> Iterator[Finding]:
    """Who the credentials belong to."""
    try:
        answer = _aws(facts).ask("sts", "get_caller_identity")
    except NotKnown as error:
        yield failed(f"AWS does not accept the credentials: {error}.", NEW_CREDENTIALS)
        return
    except Unanswered as error:
        yield skipped(f"AWS STS was asked who this is: {error}.")
        return
    facts.identity = Identity(str(answer["Account"]), str(answer["Arn"]))
    yield ok(f"account {facts.identity.account}, {facts.identity.arn}")


def clock(facts: CheckContext) -> Iterator[Finding]:
    """Whether this machine's clock agrees with AWS's and the API's."""
    aws = facts.aws.skew if facts.aws is not None else None
    api = facts.api.skew if facts.api is not None else None
    skews = {"AWS": aws, "the Prefect API": api}
    told = {whose: skew for whose, skew in skews.items() if skew is not None}
    if not told:
        yield skipped("No answer said what time it is.")
        return
    whose = max(told, key=lambda each: abs(told[each]))
    yield _skewed(whose, told[whose], aws)


def _skewed(whose: str, skew: float, aws: Optional[float]) -> Finding:
    found = f"This clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} "
    advice = "Set it by NTP."
    if aws is not None and abs(aws) > _TOO_LATE:
        return failed(
            f"{found}that of {whose}, and AWS refuses requests over 5 minutes.", advice
        )
    if abs(skew) > _LATE:
        return warning(f"{found}that of {whose}; runs start at a wrong time.", advice)
    return ok(f"within {abs(skew):.0f} s of {whose}")


def _aws(facts: CheckContext) -> AWS:
    assert facts.aws is not None  # preflight asks only where it is known
    return facts.aws
