"""The secrets of containers: whether they exist and the execution role may read them.

The check reads no secret's value, only its description.
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, Optional

from ...aws.secret_arn import SecretARN, parse
from ...errors import ConfigurationError
from ..aws_client import AWS, AWSRefusal, AWSUnavailable, MissingPermission
from .context import CheckContext, Identity, LaunchPreview
from .findings import Finding, failed, ok, skipped, warning
from .permissions import Need, simulated
from .roles import arn_of

#: AWS's error codes for a secret or a parameter that does not exist.
_NOT_FOUND = ("ResourceNotFoundException", "ParameterNotFound")


def secrets(context: CheckContext, launch: LaunchPreview) -> Iterator[Finding]:
    """Whether ECS can fetch the `secrets` of the definition."""
    aws, identity = context.known_aws, context.known_identity
    role = launch.roles().get("executionRoleArn")
    for value_from in launch.secrets():
        arn = _arn(aws, identity, value_from)
        if arn is None:
            yield skipped(
                "Only a whole ARN can be checked.",
                about=value_from,
                code="partial-secret-arn",
            )
            continue
        yield _exists(aws, identity, arn).of("", value_from)
        if role:
            role_arn = arn_of(role, identity)
            yield _readable(aws, role_arn, arn).of("", value_from)


def _arn(aws: AWS, identity: Identity, value_from: str) -> Optional[SecretARN]:
    """None for what ECS may accept but cannot be looked up. ECS also accepts the bare
    name of a parameter of its own region."""
    if not value_from.startswith("arn:"):
        where = f"{identity.partition}:ssm:{aws.region}:{identity.account}"
        value_from = f"arn:{where}:parameter/{value_from.lstrip('/')}"
    try:
        return parse("valueFrom", value_from)
    except ConfigurationError:
        return None


def _exists(aws: AWS, identity: Identity, arn: SecretARN) -> Finding:
    try:
        if arn.is_parameter:
            return _parameter(aws, identity, arn)
        return _secret(aws, arn)
    except AWSUnavailable as error:
        if isinstance(error, AWSRefusal):
            if error.aws_code not in _NOT_FOUND:
                raise
            return _not_found(arn)
        return skipped(
            f"Whether the secret exists is unknown: {error}.", code=error.code
        )


def _not_found(arn: SecretARN) -> Finding:
    kind = "parameter" if arn.is_parameter else "secret"
    return failed(
        f"There is no such {kind} in {arn.region}.",
        "Create it, or correct the ARN.",
        code="no-secret",
    )


def _secret(aws: AWS, arn: SecretARN) -> Finding:
    found = aws.ask(
        "secretsmanager", "describe_secret", region=arn.region, SecretId=arn.arn
    )
    if found.get("DeletedDate"):
        return failed(
            "The secret is deleted.",
            "Restore it with `aws secretsmanager restore-secret`.",
            code="secret-deleted",
        )
    stage = arn.version_stage or "AWSCURRENT"
    labels = (found.get("VersionIdsToStages") or {}).values()
    # A version that the ARN names by its id may have no label.
    if not arn.version_id and not any(stage in each for each in labels):
        return failed(
            f"The secret has no value with the label {stage}.",
            "Store one with `aws secretsmanager put-secret-value`.",
            code="secret-without-value",
        )
    if arn.json_key:
        return ok(f"it exists; its JSON key {arn.json_key!r} is not checked")
    return ok("it exists")


def _parameter(aws: AWS, identity: Identity, arn: SecretARN) -> Finding:
    if arn.account == identity.account:
        try:
            found = aws.ask(
                "ssm", "describe_parameters", region=arn.region, **_named(arn)
            )
            return ok("it exists") if found["Parameters"] else _not_found(arn)
        except MissingPermission:
            pass  # the permission to read one parameter is more common
    # Without decryption a SecureString stays encrypted.
    aws.ask("ssm", "get_parameter", region=arn.region, Name=arn.arn)
    return ok("it exists")


def _named(arn: SecretARN) -> Dict[str, Any]:
    """A filter for the name of a parameter; the ARN lacks a path's first slash."""
    name = arn.arn.partition(":parameter/")[2]
    names = [f"/{name}"] if "/" in name else [name, f"/{name}"]
    return {"ParameterFilters": [{"Key": "Name", "Option": "Equals", "Values": names}]}


def _readable(aws: AWS, role: str, arn: SecretARN) -> Finding:
    """Whether the execution role may read the secret."""
    need = Need(arn.read_by_ecs, arn.arn, "the task does not start")
    try:
        answer = simulated(aws, role, need)
    except AWSUnavailable as error:
        return skipped(
            f"Whether {role} may read the secret is unknown: {error}.",
            "Grant iam:SimulatePrincipalPolicy to the identity that runs the check.",
            code=error.code,
        )
    if not answer:
        return ok(f"{role} may read it")
    advice = f"Grant it {need.action} on {arn.arn}."
    if answer == "depends" or _has_policy(aws, arn):
        return warning(
            f"{role} may lack {need.action} on the secret, unless a condition or the "
            "secret's own policy allows it.",
            advice,
            code="secret-maybe-not-readable",
        )
    return failed(
        f"{role} lacks {need.action} on the secret.", advice, code="secret-not-readable"
    )


def _has_policy(aws: AWS, arn: SecretARN) -> bool:
    """Whether the secret has its own policy, which may allow more than the role's."""
    if arn.is_parameter:
        return False
    try:
        found = aws.ask(
            "secretsmanager", "get_resource_policy", region=arn.region, SecretId=arn.arn
        )
    except AWSUnavailable:
        return False
    return bool(found.get("ResourcePolicy"))
