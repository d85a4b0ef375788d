"""What containers get as secrets: it is there, and the execution role may read it.

No secret is read: AWS is asked for what it says about it.
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, Optional

from ...aws.secret_arn import SecretARN, parse
from ...errors import ConfigurationError
from .asking import AWS, NotAllowed, Refused, Unanswered
from .facts import CheckContext, Identity
from .findings import Finding, failed, ok, skipped, warning
from .permissions import Need, simulated
from .preview import LaunchPreview
from .roles import arn_of

_ABSENT = ("ResourceNotFoundException", "ParameterNotFound")

_ASK = "Grant iam:SimulatePrincipalPolicy to the identity that runs the check."


def secrets(facts: CheckContext, launch: LaunchPreview) -> Iterator[Finding]:
    """Whether ECS can fetch what the definition's `secrets` name."""
    assert facts.aws is not None  # preflight asks only where they are known
    assert facts.identity is not None
    role = launch.roles().get("executionRoleArn")
    for value_from in launch.secrets():
        arn = _arn(facts.aws, facts.identity, value_from)
        if arn is None:
            yield skipped("It is not the whole ARN.", about=value_from)
            continue
        yield _there(facts.aws, facts.identity, arn).of("", value_from)
        if role:
            role_arn = arn_of(role, facts.identity)
            yield _readable(facts.aws, role_arn, arn).of("", value_from)


def _arn(aws: AWS, identity: Identity, value_from: str) -> Optional[SecretARN]:
    """None for what ECS may take and cannot be asked for; ECS takes the bare name of a
    parameter of its own region too."""
    if not value_from.startswith("arn:"):
        where = f"{identity.partition}:ssm:{aws.region}:{identity.account}"
        value_from = f"arn:{where}:parameter/{value_from.lstrip('/')}"
    try:
        return parse("valueFrom", value_from)
    except ConfigurationError:
        return None


# -- Whether it is there -------------------------------------------------------------


def _there(aws: AWS, identity: Identity, arn: SecretARN) -> Finding:
    try:
        if arn.is_parameter:
            return _parameter(aws, identity, arn)
        return _secret(aws, arn)
    except Refused as error:
        if error.code not in _ABSENT:
            raise
        return _absent(arn)
    except Unanswered as error:
        return skipped(f"Whether it is there cannot be asked: {error}.")


def _absent(arn: SecretARN) -> Finding:
    kind = "parameter" if arn.is_parameter else "secret"
    return failed(
        f"There is no such {kind} in {arn.region}.", "Create it, or correct the ARN."
    )


def _secret(aws: AWS, arn: SecretARN) -> Finding:
    found = aws.ask(
        "secretsmanager", "describe_secret", region=arn.region, SecretId=arn.arn
    )
    if found.get("DeletedDate"):
        return failed(
            "It is deleted.", "Restore it with `aws secretsmanager restore-secret`."
        )
    stage = arn.version_stage or "AWSCURRENT"
    labels = (found.get("VersionIdsToStages") or {}).values()
    # A version that is named by its id need not have a label.
    if not arn.version_id and not any(stage in each for each in labels):
        return failed(
            f"It has no value with the label {stage}.",
            "Put one in with `aws secretsmanager put-secret-value`.",
        )
    if arn.json_key:
        return ok(f"it is there; its JSON key {arn.json_key!r} is not looked for")
    return ok("it is there")


def _parameter(aws: AWS, identity: Identity, arn: SecretARN) -> Finding:
    if arn.account == identity.account:
        try:
            found = aws.ask(
                "ssm", "describe_parameters", region=arn.region, **_named(arn)
            )
            return ok("it is there") if found["Parameters"] else _absent(arn)
        except NotAllowed:
            pass  # fewer identities may list parameters than read one
    # Without decryption a SecureString stays what it is.
    aws.ask("ssm", "get_parameter", region=arn.region, Name=arn.arn)
    return ok("it is there")


def _named(arn: SecretARN) -> Dict[str, Any]:
    """The parameter's name: the ARN lacks the slash that paths begin with."""
    name = arn.arn.partition(":parameter/")[2]
    names = [f"/{name}"] if "/" in name else [name, f"/{name}"]
    return {"ParameterFilters": [{"Key": "Name", "Option": "Equals", "Values": names}]}


# -- Whether the execution role may read it ------------------------------------------


def _readable(aws: AWS, role: str, arn: SecretARN) -> Finding:
    need = Need(arn.read_by_ecs, arn.arn, "the task does not start")
    try:
        answer = simulated(aws, role, need)
    except Unanswered as error:
        return skipped(f"Whether {role} may read it cannot be asked: {error}.", _ASK)
    if not answer:
        return ok(f"{role} may read it")
    message = f"{role} may not read it: {need.action} is denied"
    advice = f"Grant it {need.action} on {arn.arn}."
    if answer == "depends" or _has_policy(aws, arn):
        return warning(f"{message}; a condition or its own policy may help.", advice)
    return failed(f"{message}.", advice)


def _has_policy(aws: AWS, arn: SecretARN) -> bool:
    """Whether it has a policy of its own, which may allow what the role's do not."""
    if arn.is_parameter:
        return False
    try:
        found = aws.ask(
            "secretsmanager", "get_resource_policy", region=arn.region, SecretId=arn.arn
        )
    except Unanswered:
        return False
    return bool(found.get("ResourcePolicy"))
