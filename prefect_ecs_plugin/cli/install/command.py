"""`prefect agent ecs install`: the options, and what is printed where.

The result alone goes to stdout, so that it can be sent to a file; what to do with it
and what to know about it goes to stderr.
"""

from __future__ import annotations

import os
import re
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import click

from ...aws.secret_arn import parse
from ...errors import ConfigurationError
from ...observability.redaction import is_secret_name
from ..click_types import check_values, one_line_errors
from ..start_options import WithStartOptions, explicit_options
from . import plan as planning
from .plan import Plan

#: Options of `prefect agent ecs start` that make no sense here, and why.
REFUSED: Dict[str, str] = {
    "key": "an API key is never printed; put it in Secrets Manager and name the "
    "secret with --api-key-secret-arn, or leave that out and one is made",
    "key_from_secret": "the service gets the key as a secret of its task definition; "
    "name that with --api-key-secret-arn",
    "max_polls": "an agent that ends after some polls would be started again by ECS",
}

#: Options of `start` that get a place of their own on the agent's command line.
_PLACED = frozenset({"name", "cluster", "agent_address", "api_key_secret_arn"})

_KEY_OPTION = "--api-key-secret-arn"

#: Seconds as `start` takes them; the name of its parameter.
_GRACE = "shutdown_grace"

HELP = """\
Print what it takes to run the agent as an ECS service.

Nothing is made: review what is printed, and apply it with AWS's own tools. It is one
CloudFormation template by default, with the service, the agent's task definition,
log group, roles with no more rights than the agent needs, and a security group that
lets nothing in. Other options are those of `prefect agent ecs start`; the agent will
be started with them.

\b
  prefect agent ecs install --label prod --vpc-id vpc-0123456789abcdef0 \\
      --subnets subnet-0123456789abcdef0,subnet-0fedcba9876543210 \\
      --api-key-secret-arn arn:aws:secretsmanager:... > prefect-agent.yaml
  aws cloudformation deploy --stack-name prefect-agent \\
      --template-file prefect-agent.yaml --capabilities CAPABILITY_IAM

The API key is never printed: it stays in the secret that --api-key-secret-arn names.
"""


def _ids(kind: str) -> Callable[..., Tuple[str, ...]]:
    """Checks ids of EC2's, given one by one or with commas between them."""
    pattern = re.compile(rf"{kind}-([0-9a-f]{{8}}|[0-9a-f]{{17}})")

    def checked(
        ctx: click.Context, param: click.Parameter, value: Any
    ) -> Tuple[str, ...]:
        given = value if isinstance(value, tuple) else (value,)
        ids = [part.strip() for text in given if text for part in text.split(",")]
        for part in ids:
            if not pattern.fullmatch(part):
                raise click.BadParameter(
                    f"{part!r} is not an id like {kind}-0123456789abcdef0", ctx, param
                )
        return _unique(ids)

    return checked


def _name(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,62}", value):
        return value
    raise click.BadParameter(
        f"{value!r} is not a name that AWS takes everywhere: a letter, then up to 62 "
        "letters, digits and -",
        ctx,
        param,
    )


@click.command("install", cls=WithStartOptions, refused=REFUSED, help=HELP)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["cloudformation", "task-definition", "terraform", "policy"]),
    default="cloudformation",
    show_default=True,
    help="cloudformation or terraform: everything. task-definition: JSON for `aws ecs "
    "register-task-definition --cli-input-json`. policy: the agent role's alone.",
)
@click.option(
    "--name",
    "-n",
    default="prefect-agent",
    show_default=True,
    callback=_name,
    help="The agent's name in Prefect, the service's and the task definition's in ECS.",
)
@click.option(
    "--cluster",
    default="default",
    show_default=True,
    help="The name or ARN of the cluster, for the agent and the tasks it launches.",
)
@click.option(
    "--vpc-id",
    callback=_ids("vpc"),
    help="The VPC of the subnets, in which the agent's security group is made.",
)
@click.option(
    "--subnets",
    multiple=True,
    callback=_ids("subnet"),
    help="Where the agent runs: ids, with commas between them.",
)
@click.option(
    "--security-groups",
    multiple=True,
    callback=_ids("sg"),
    help="The agent's security groups, in place of one that is made.",
)
@click.option(
    "--assign-public-ip",
    type=click.Choice(["ENABLED", "DISABLED"], case_sensitive=False),
    default="ENABLED",
    show_default=True,
    help="DISABLED behind NAT or VPC endpoints.",
)
@click.option(
    "--image",
    help="The agent's image. Default: prefect-ecs-agent:VERSION in the account's own "
    "registry, as docs/production.md builds it.",
)
@click.option(
    "--cpu", default="256", show_default=True, help="The agent's own CPU units."
)
@click.option(
    "--memory", default="512", show_default=True, help="The agent's own memory, in MiB."
)
@click.option(
    "--backend",
    type=click.Choice(["cloud", "server"]),
    default="cloud",
    show_default=True,
    help="Prefect Cloud, which wants an API key, or a Prefect Server at --api.",
)
@click.option(
    _KEY_OPTION,
    help="The Secrets Manager secret (a JSON key allowed) or SSM parameter that holds "
    "the Prefect API key. Default: a secret without a value is made.",
)
@click.option(
    "--api-key-kms-key",
    help="The ARN of the KMS key that encrypts that secret, if it is your own.",
)
@click.option(
    "--log-kms-key",
    help="The ARN of a KMS key to encrypt the agent's own log with.",
)
@click.option(
    "--family",
    multiple=True,
    help="Families of task definitions that run configs bring or name, besides the "
    "agent's own; * stands for anything.",
)
@click.option(
    "--pass-role",
    multiple=True,
    help="ARNs of roles that run configs name for their tasks, besides the agent's own "
    "--task-role-arn and --execution-role-arn.",
)
@click.option(
    "--flow-log-group",
    multiple=True,
    help="CloudWatch log groups of flow runs, for the last lines of those that fail.",
)
@click.option(
    "--region",
    help="For task-definition and policy. Default: the cluster ARN's, or that of "
    "AWS_REGION or AWS_DEFAULT_REGION.",
)
@click.option("--agent-role-arn", help="For task-definition: the agent's own role.")
@click.option(
    "--agent-execution-role-arn",
    help="For task-definition and policy: the execution role of the agent, and of runs "
    "that name none.",
)
@click.option(
    "--agent-address",
    default="http://127.0.0.1:8080",
    show_default=True,
    help="Where the agent answers for its health.",
)
@click.pass_context
def install(ctx: click.Context, /, **values: Any) -> None:
    check_values(values)
    with one_line_errors():
        click.echo(_printed(ctx, values, _tell), nl=False)


def _tell(line: str) -> None:
    click.echo(line, err=True)


def _printed(
    ctx: click.Context, values: Mapping[str, Any], tell: Callable[[str], None]
) -> str:
    output_format = values["output_format"]
    _check_exclusions(output_format, values)
    _check_forms(values)
    plan = _plan(ctx, values, tell)
    text, next_steps = _text(output_format, plan, values)
    _warn(plan, values, tell)
    for step in next_steps:
        tell(step)
    return text


def _text(
    output_format: str, plan: Plan, values: Mapping[str, Any]
) -> Tuple[str, List[str]]:
    """What is printed, and what to do with it where that is not said in it."""
    if output_format == "cloudformation":
        from . import cloudformation

        return cloudformation.text(plan), []
    if output_format == "terraform":
        from . import terraform

        return terraform.text(plan), []
    from . import plain

    account = plain.AccountInfo(
        region=_region(values, plan),
        agent_role_arn=_role("--agent-role-arn", values),
        execution_role_arn=_role("--agent-execution-role-arn", values),
    )
    if output_format == "policy":
        return plain.agent_policy(plan, account), []
    definition = plain.task_definition(plan, account)
    commands = [f"\n{command}" for command in plain.commands(plan, account)]
    return definition, [f"Save it as {plan.name}.json, then:", *commands]


def _region(values: Mapping[str, Any], plan: Plan) -> Optional[str]:
    """The option's, the cluster's, or what the AWS CLI reads from the environment."""
    named, own = values["region"], plan.cluster.region
    if named and own and named != own:
        raise ConfigurationError(
            f"--region {named} and --cluster exclude each other: its ARN says {own}."
        )
    around = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    region = named or own or around
    return planning.checked("--region", region) if region else None


# -- What goes together -----------------------------------------------------------


def _check_exclusions(output_format: str, values: Mapping[str, Any]) -> None:
    """Name the two that do not go together, and why.

    Raises:
        ConfigurationError: with the two of them.
    """
    whole = output_format in ("cloudformation", "terraform")
    for option, excluded, reason in (
        ("--agent-role-arn", whole, "it makes the agent's role"),
        ("--agent-execution-role-arn", whole, "it makes the execution role"),
        ("--region", whole, "it is applied to the region that you apply it in"),
        ("--agent-role-arn", output_format == "policy", "the policy names no role"),
    ):
        if excluded and values[_parameter(option)]:
            raise ConfigurationError(
                f"{option} and --format {output_format} exclude each other: {reason}."
            )
    if values["backend"] == "server" and not values["api"]:
        raise ConfigurationError(
            "--backend server needs --api, the URL at which tasks reach your server."
        )
    if values["backend"] == "server" and values["tenant_id"]:
        raise ConfigurationError(
            "--backend server and --tenant-id exclude each other: a tenant is chosen "
            "with an API key, which a Prefect Server does not have."
        )


def _check_forms(values: Mapping[str, Any]) -> None:
    """Refuse what no agent would start with, and what AWS has no name like.

    Raises:
        ConfigurationError: with the first of them.
    """
    for option, parameter in (
        ("--api", "api"),
        ("--task-definition", "task_definition_path"),
        ("--run-task-kwargs", "run_task_kwargs_path"),
    ):
        planning.check_no_password(option, values[parameter])
    for option in ("--image", "--tenant-id", "--api"):
        if values[_parameter(option)]:
            planning.checked(option, values[_parameter(option)])
    for group in values["flow_log_group"]:
        planning.checked("--flow-log-group", group)
    if values["vpc_id"][1:]:
        raise ConfigurationError("--vpc-id: give one VPC; a service runs in one.")


def _warn(plan: Plan, values: Mapping[str, Any], tell: Callable[[str], None]) -> None:
    """Say what is allowed and may not be meant."""
    if values["vpc_id"] and values["security_groups"]:
        tell("--vpc-id is not used: with --security-groups none is made in it.")
    for entry in values["env"]:
        name = entry.partition("=")[0]
        if is_secret_name(name) or name.upper().endswith("_PAT"):
            tell(
                f"--env {name}: its value stands in plain text in what is printed; a "
                "secret belongs into the `secrets` of the flows' task definition."
            )
    if planning.is_own(values["api"]):
        tell(
            f"--api {values['api']}: to a task that is the task itself, not this "
            "machine; name the server as the VPC knows it."
        )
    if plan.execution_role_arn and plan.has_api_key:
        tell(
            "--execution-role-arn: ECS reads the API key of flow runs with this role, "
            f"so it has to be allowed {plan.reads_key} on its secret."
        )
    if not plan.flow_roles and values["output_format"] == "policy":
        tell(
            "The policy lets the agent pass no role to its tasks: name theirs with "
            "--execution-role-arn, --task-role-arn or --pass-role."
        )


# -- Options into a plan ----------------------------------------------------------


def _plan(
    ctx: click.Context, values: Mapping[str, Any], tell: Callable[[str], None]
) -> Plan:
    from ...version import installed_version
    from . import flows

    cpu, memory = planning.size(values["cpu"], values["memory"])
    secret_arn = values["api_key_secret_arn"]
    agent_address = planning.agent_address(values["agent_address"])
    cluster = planning.cluster(values["cluster"])
    roles = _flow_roles(values)
    found = flows.read(values, tell)
    files = [values["task_definition_path"], values["run_task_kwargs_path"]]
    return Plan(
        name=values["name"],
        version=installed_version(),
        arguments=explicit_options(ctx, but=_PLACED),
        cluster=cluster,
        backend=values["backend"],
        agent_address=agent_address,
        image=values["image"],
        cpu=cpu,
        memory=memory,
        stop_timeout=planning.stop_timeout(values.get(_GRACE, planning.SHUTDOWN_GRACE)),
        vpc_id=next(iter(values["vpc_id"]), None),
        subnets=values["subnets"],
        security_groups=values["security_groups"],
        assign_public_ip=values["assign_public_ip"] == "ENABLED",
        ports=planning.ports([values["api"], *files]),
        secret=parse(_KEY_OPTION, secret_arn) if secret_arn else None,
        execution_role_arn=values["execution_role_arn"],
        flow_roles=_unique(
            roles,
            [planning.role_arn("the template's role", arn) for arn in found.roles],
        ),
        families=_unique(found.families, values["family"]),
        log_groups=_unique(found.log_groups, values["flow_log_group"]),
        objects=_unique(*(planning.s3_object(file) for file in files)),
        infers_network=found.infers_network,
        key_kms_key=_kms_key("--api-key-kms-key", values),
        log_kms_key=_kms_key("--log-kms-key", values),
    )


def _flow_roles(values: Mapping[str, Any]) -> List[str]:
    named = [
        ("--task-role-arn", values["task_role_arn"]),
        ("--execution-role-arn", values["execution_role_arn"]),
        *(("--pass-role", arn) for arn in values["pass_role"]),
    ]
    return [planning.role_arn(option, arn) for option, arn in named if arn]


def _role(option: str, values: Mapping[str, Any]) -> Optional[str]:
    arn = values[_parameter(option)]
    return planning.role_arn(option, arn) if arn else None


def _kms_key(option: str, values: Mapping[str, Any]) -> Optional[str]:
    arn = values[_parameter(option)]
    return planning.kms_key_arn(option, arn) if arn else None


def _parameter(option: str) -> str:
    return option[2:].replace("-", "_")


def _unique(*lists: Sequence[str]) -> Tuple[str, ...]:
    return tuple(dict.fromkeys(item for items in lists for item in items))
