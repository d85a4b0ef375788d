"""`prefect agent ecs install`: the options, the output and the warnings.

Only the result goes to stdout, so that it can be written to a file; warnings, and the
commands to apply the result, go to stderr.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import contextmanager
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
)

import click

from ...aws import container_logs
from ...aws.secret_arn import parse
from ...errors import ConfigurationError
from ...limits import QUOTA
from ...observability import log_formats
from ...observability.secret_names import is_secret_name
from ..click_types import check_values, one_line_errors
from ..start_options import WithStartOptions, explicit_options
from . import plan as planning
from .plan import FlowNetwork, Plan

#: Options of `prefect agent ecs start` that this command refuses, and why.
REFUSED: Dict[str, str] = {
    "key": "the output never contains an API key; store it in Secrets Manager and name "
    "the secret with --api-key-secret-arn, or omit that option to create a secret",
    "key_from_secret": "the service gets the key as a secret of its task definition; "
    "name that secret with --api-key-secret-arn",
    "max_polls": "ECS would restart an agent that ends after some polls",
}

#: Options of `start` that `service.command` writes itself.
_PLACED = frozenset(
    {
        *("name", "cluster", "agent_address", "api_key_secret_arn"),
        *("log_format", "flow_log_group"),
    }
)

_KEY_OPTION = "--api-key-secret-arn"

HELP = """\
Print a template that runs the agent as an ECS service.

The command changes nothing: review its output, and apply it with AWS's own tools. By
default it prints one CloudFormation template with the service, the agent's task
definition, log groups, roles with only the permissions that the agent needs, security
groups without inbound rules, and an alarm. Flows run in the agent's subnets. It also
takes the options of `prefect agent ecs start`, and the service starts the agent with
them.

\b
  prefect agent ecs install --label prod --vpc-id vpc-0123456789abcdef0 \\
      --subnets subnet-0123456789abcdef0,subnet-0fedcba9876543210 \\
      --api-key-secret-arn arn:aws:secretsmanager:... > prefect-agent.yaml
  aws cloudformation deploy --stack-name prefect-agent \\
      --template-file prefect-agent.yaml --capabilities CAPABILITY_IAM

The output never contains the API key: it stays in the secret that --api-key-secret-arn
names.

With --diff it prints what has changed since a file was printed with the same options,
and exits with 0 for no difference, 1 for a difference and 2 for an error:

\b
  prefect agent ecs install --label prod --diff prefect-agent.yaml
"""


def _ids(kind: str) -> Callable[..., Tuple[str, ...]]:
    """A callback that checks ids of EC2, given one by one or separated by commas."""
    pattern = re.compile(rf"{kind}-([0-9a-f]{{8}}|[0-9a-f]{{17}})")

    def checked(
        ctx: click.Context, param: click.Parameter, value: Any
    ) -> Tuple[str, ...]:
        given = value if isinstance(value, tuple) else (value,)
        ids = [part.strip() for text in given if text for part in text.split(",")]
        for part in ids:
            if not pattern.fullmatch(part):
                raise click.BadParameter(
                    f"{part!r} is not an id such as {kind}-0123456789abcdef0 "
                    "[invalid-option-value]",
                    ctx,
                    param,
                )
        return _unique(ids)

    return checked


def _name(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,62}", value):
        return value
    raise click.BadParameter(
        f"{value!r} is not a name that all AWS services accept: a letter, then up to "
        "62 letters, digits and - [invalid-option-value]",
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
    help="cloudformation or terraform: all resources. task-definition: JSON for `aws "
    "ecs register-task-definition --cli-input-json`. policy: the agent role's policy.",
)
@click.option(
    "--name",
    "-n",
    default="prefect-agent",
    show_default=True,
    callback=_name,
    help="The name of the agent in Prefect, and of the service and its task definition "
    "in ECS.",
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
    help="The VPC of the subnets, for the new security groups.",
)
@click.option(
    "--subnets",
    multiple=True,
    callback=_ids("subnet"),
    help="The agent's subnets: ids, separated by commas.",
)
@click.option(
    "--security-groups",
    multiple=True,
    callback=_ids("sg"),
    help="The agent's security groups. Default: a new security group.",
)
@click.option(
    "--assign-public-ip",
    type=click.Choice(["ENABLED", "DISABLED"], case_sensitive=False),
    default="ENABLED",
    show_default=True,
    help="DISABLED behind NAT or VPC endpoints.",
)
@click.option(
    "--flow-subnets",
    multiple=True,
    callback=_ids("subnet"),
    help="The subnets of flow runs, in the same VPC. Default: the agent's subnets.",
)
@click.option(
    "--flow-security-groups",
    multiple=True,
    callback=_ids("sg"),
    help="The security groups of flow runs. Default: a new one, open to the outside "
    "only.",
)
@click.option(
    "--flow-assign-public-ip",
    type=click.Choice(["ENABLED", "DISABLED"], case_sensitive=False),
    help="Whether flow runs get a public IP. Default: as the agent.",
)
@click.option(
    "--image",
    help="The agent's image, REPOSITORY:TAG or REPOSITORY@sha256:... Default: "
    "prefect-ecs-agent:VERSION in the account's own registry, as docs/production.md "
    "builds it.",
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
    help="Prefect Cloud, which requires an API key, or a Prefect Server at --api.",
)
@click.option(
    _KEY_OPTION,
    help="The Secrets Manager secret (a JSON key is allowed) or SSM parameter that "
    "contains the Prefect API key. Default: a new secret without a value.",
)
@click.option(
    "--api-key-kms-key",
    help="The ARN of the KMS key that encrypts this secret, if it is your own.",
)
@click.option(
    "--log-kms-key",
    help="The ARN of a KMS key that encrypts the new log groups.",
)
@click.option(
    "--family",
    multiple=True,
    help="Families of task definitions that run configs contain or name, besides the "
    "agent's own; * is a wildcard.",
)
@click.option(
    "--pass-role",
    multiple=True,
    help="ARNs of roles that run configs name for their tasks, besides --task-role-arn "
    "and --execution-role-arn.",
)
@click.option(
    "--flow-log-group",
    metavar="NAME",
    help="An existing CloudWatch log group for flow runs whose task definition names "
    "none. Default: a new one, such as /ecs/prefect-flows.",
)
@click.option(
    "--read-log-group",
    multiple=True,
    help="Log groups that run configs name, for the last lines of failed tasks.",
)
@click.option(
    "--flow-repository",
    multiple=True,
    help="The account's ECR repositories with the images of flows; * is a wildcard. "
    "Default: all.",
)
@click.option(
    "--log-format",
    type=click.Choice(log_formats.FORMATS),
    default="json",
    show_default=True,
    help="The format of the agent's own log.",
)
@click.option(
    "--alarm-topic",
    metavar="ARN",
    help="The SNS topic that is told when agents are missing for five minutes.",
)
@click.option(
    "--tag",
    multiple=True,
    metavar="KEY=VALUE",
    help="A tag for all resources and for the agent's tasks; repeat the option for "
    "several tags.",
)
@click.option(
    "--region",
    help="For task-definition and policy. Default: the region of the cluster's ARN, "
    "AWS_REGION or AWS_DEFAULT_REGION.",
)
@click.option("--agent-role-arn", help="For task-definition: the agent's role.")
@click.option(
    "--agent-execution-role-arn",
    help="For task-definition and policy: the execution role of the agent, and of flow "
    "runs that name none.",
)
@click.option(
    "--agent-address",
    default="http://127.0.0.1:8080",
    show_default=True,
    help="The URL of the agent's health check.",
)
@click.option(
    "--diff",
    metavar="FILE",
    help="Print what differs from this file, an earlier output; - is stdin. Exit "
    "status: 0 no difference, 1 difference, 2 error.",
)
@click.pass_context
def install(ctx: click.Context, /, **values: Any) -> None:
    check_values(values)
    with _as_diff_exits(values["diff"] is not None), one_line_errors():
        _check_combinations(values)
        _check_forms(values)
        plan = _plan(ctx, values)
        text, next_steps = _output(plan, values)
        _warn(plan, values)
        if values["diff"] is not None:
            _print_diff(values["diff"], text, values["output_format"])
            return
        for step in next_steps:
            tell(step)
        click.echo(text, nl=False)


@contextmanager
def _as_diff_exits(is_diff: bool) -> Iterator[None]:
    """Exit with 2 after an error of --diff, as 1 means a difference."""
    try:
        yield
    except click.ClickException as error:
        if not is_diff:
            raise
        error.show()
        sys.exit(2)


def _print_diff(file: str, text: str, output_format: str) -> None:
    """Print what differs between a file and the text, and exit with 1 if they do."""
    from . import diff

    try:
        with click.open_file(file, encoding="utf-8") as stream:
            old = stream.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"--diff: cannot read {file}: {error}.", code="unreadable-file"
        ) from error
    found = diff.lines(old, text, output_format, file)
    for line in found:
        click.echo(line)
    sys.exit(1 if found else 0)


def tell(line: str) -> None:
    """Print a line to stderr."""
    click.echo(line, err=True)


def _output(plan: Plan, values: Mapping[str, Any]) -> Tuple[str, List[str]]:
    """The text to print, and commands to apply it unless the text contains them."""
    output_format = values["output_format"]
    if output_format == "cloudformation":
        from . import cloudformation

        return cloudformation.text(plan), []
    if output_format == "terraform":
        from . import terraform

        return terraform.text(plan), []
    from . import plain

    account = plain.AccountInfo(
        region=_region(values, plan),
        agent_role_arn=_checked("--agent-role-arn", values),
        execution_role_arn=_checked("--agent-execution-role-arn", values),
    )
    if output_format == "policy":
        return plain.agent_policy(plan, account), []
    definition = plain.task_definition(plan, account)
    commands = [f"\n{command}" for command in plain.commands(plan, account)]
    words = plain.to_replace(plan)
    replacing = f" Replace {', '.join(words)} in it and below." if words else ""
    first = f"Save it as {plan.name}.json.{replacing} Then run:"
    return definition, [first, *commands]


def _region(values: Mapping[str, Any], plan: Plan) -> Optional[str]:
    """The region of the option, of the cluster, or of the AWS CLI's variables."""
    named, own = values["region"], plan.cluster.region
    if named and own and named != own:
        raise ConfigurationError(
            f"--region {named} does not match --cluster, whose ARN is in {own}.",
            code="conflicting-options",
        )
    default = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    region = named or own or default
    return planning.checked("--region", region) if region else None


# -- Checks ------------------------------------------------------------------------


def _check_combinations(values: Mapping[str, Any]) -> None:
    """Refuse options that exclude or require each other.

    Raises:
        ConfigurationError: with both options and the reason.
    """
    output_format = values["output_format"]
    creates_all = output_format in ("cloudformation", "terraform")
    for option, is_excluded, reason in (
        ("--agent-role-arn", creates_all, "the output contains the agent's role"),
        (
            "--agent-execution-role-arn",
            creates_all,
            "the output contains the execution role",
        ),
        ("--region", creates_all, "the output applies to any region"),
        ("--agent-role-arn", output_format == "policy", "the policy names no role"),
    ):
        if is_excluded and values[_parameter(option)]:
            raise ConfigurationError(
                f"{option} and --format {output_format} exclude each other: {reason}.",
                code="conflicting-options",
            )
    _check_flow_network(values)
    if values["backend"] == "server" and not values["api"]:
        raise ConfigurationError(
            "--backend server requires --api, the URL at which tasks reach the server.",
            code="missing-option",
        )
    if values["backend"] == "server" and values["tenant_id"]:
        raise ConfigurationError(
            "--backend server and --tenant-id exclude each other: an API key selects "
            "the tenant, and a Prefect Server has no API keys.",
            code="conflicting-options",
        )


#: The options of `FlowNetwork`.
_FLOW_NETWORK = (
    "--flow-subnets",
    "--flow-security-groups",
    "--flow-assign-public-ip",
)


def _check_flow_network(values: Mapping[str, Any]) -> None:
    given = [option for option in _FLOW_NETWORK if values[_parameter(option)]]
    if given and values["run_task_kwargs_path"]:
        raise ConfigurationError(
            f"{given[0]} and --run-task-kwargs exclude each other: write the network "
            "of flow runs into that file.",
            code="conflicting-options",
        )
    if values["launch_type"] == "EC2" and values["flow_assign_public_ip"] == "ENABLED":
        raise ConfigurationError(
            "--flow-assign-public-ip ENABLED and --launch-type EC2 exclude each other: "
            "only tasks on Fargate can get a public IP.",
            code="conflicting-options",
        )


def _check_forms(values: Mapping[str, Any]) -> None:
    """Refuse malformed values.

    Raises:
        ConfigurationError: for the first of them.
    """
    for option, parameter in (
        ("--api", "api"),
        ("--task-definition", "task_definition_path"),
        ("--run-task-kwargs", "run_task_kwargs_path"),
        ("--limits", "limits_path"),
    ):
        planning.check_no_password(option, values[parameter])
    for option in ("--image", "--tenant-id", "--api"):
        _checked(option, values)
    for option in ("--read-log-group", "--flow-repository", "--tag"):
        for value in values[_parameter(option)]:
            planning.checked(option, value)
    if values["flow_log_group"] is not None:
        container_logs.check_group("--flow-log-group", values["flow_log_group"])
    if values["vpc_id"][1:]:
        raise ConfigurationError(
            "--vpc-id: give one VPC only; a service cannot use several.",
            code="several-vpcs",
        )


def _warn(plan: Plan, values: Mapping[str, Any]) -> None:
    """Warn of options that are valid but probably a mistake."""
    if values["vpc_id"] and not (
        plan.makes_security_group or plan.makes_flow_security_group
    ):
        tell(
            "--vpc-id has no effect: no new security group is needed in that VPC "
            "[unused-option]"
        )
    for entry in values["env"]:
        name = entry.partition("=")[0]
        if is_secret_name(name) or name.upper().endswith("_PAT"):
            tell(
                f"--env {name}: the output contains its value in plain text; put a "
                "secret into the `secrets` of the flows' task definition "
                "[plain-text-secret]"
            )
    if planning.is_loopback(values["api"]):
        tell(
            f"--api {values['api']}: in a task, this address is the task itself, not "
            "this machine; give the server's address in the VPC [loopback-api]"
        )
    if plan.execution_role_arn and plan.has_api_key:
        tell(
            "--execution-role-arn: ECS reads the API key of flow runs with this role, "
            f"so the role needs {plan.reads_key} on the key's secret [role-reads-key]"
        )
    if plan.execution_role_arn:
        tell(
            "--execution-role-arn: ECS writes the log of flow runs with this role, so "
            "the role needs logs:CreateLogStream and logs:PutLogEvents on the log "
            f"group {plan.flow_log_group_name} [role-writes-log]"
        )
    if not plan.flow_roles and values["output_format"] == "policy":
        tell(
            "The policy does not let the agent pass any role to its tasks: name their "
            "roles with --execution-role-arn, --task-role-arn or --pass-role "
            "[no-roles-to-pass]"
        )


# -- The plan ----------------------------------------------------------------------


def _plan(ctx: click.Context, values: Mapping[str, Any]) -> Plan:
    from ...version import installed_version
    from . import flows

    cpu, memory = planning.size(values["cpu"], values["memory"])
    secret_arn = values["api_key_secret_arn"]
    agent_address = planning.checked("--agent-address", values["agent_address"])
    planning.ports([agent_address])  # refuses a port beyond 65535
    cluster = planning.cluster(values["cluster"])
    named = [
        ("--task-role-arn", values["task_role_arn"]),
        ("--execution-role-arn", values["execution_role_arn"]),
        *(("--pass-role", arn) for arn in values["pass_role"]),
    ]
    roles = [planning.checked(option, arn) for option, arn in named if arn]
    found = flows.read(values, tell)
    flows.check_limits(values, tell)
    network = _flow_network(values, found.infers_network)
    tags = [entry.partition("=") for entry in values["tag"]]
    files = [
        values[name]
        for name in ("task_definition_path", "run_task_kwargs_path", "limits_path")
    ]
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
        stop_timeout=planning.stop_timeout(values["shutdown_grace"]),
        vpc_id=next(iter(values["vpc_id"]), None),
        subnets=values["subnets"],
        security_groups=values["security_groups"],
        assign_public_ip=values["assign_public_ip"] == "ENABLED",
        ports=planning.ports([values["api"], *files]),
        secret=parse(_KEY_OPTION, secret_arn) if secret_arn else None,
        execution_role_arn=values["execution_role_arn"],
        flow_roles=_unique(roles, found.roles),
        families=_unique(found.families, values["family"]),
        flow_network=network,
        flow_log_group=values["flow_log_group"],
        log_groups=_unique(found.log_groups, values["read_log_group"]),
        flow_repositories=_unique(values["flow_repository"]) or ("*",),
        objects=_unique(*(planning.s3_object(file) for file in files)),
        infers_network=found.infers_network and network is None,
        follows_quota=values["max_vcpus"] == QUOTA,
        reads_prices=values["prices"] == "aws",
        key_kms_key=_checked("--api-key-kms-key", values),
        log_kms_key=_checked("--log-kms-key", values),
        log_format=values["log_format"],
        alarm_topic=_checked("--alarm-topic", values),
        own_tags=tuple((key, value) for key, _, value in tags),
    )


def _flow_network(
    values: Mapping[str, Any], infers_network: bool
) -> Optional[FlowNetwork]:
    """The network of flow runs; None where the files of the agent have it, and where
    no network is needed.

    A policy without subnets is for an agent that does not run as this service.
    """
    given = any(values[_parameter(option)] for option in _FLOW_NETWORK)
    is_service = values["output_format"] != "policy" or values["subnets"]
    is_placed = given or (infers_network and is_service)
    if values["run_task_kwargs_path"] or not is_placed:
        return None
    public_ip = values["flow_assign_public_ip"]
    if values["launch_type"] == "EC2":  # ECS refuses a public IP there
        public_ip = "DISABLED"
    return FlowNetwork(
        subnets=values["flow_subnets"],
        security_groups=values["flow_security_groups"],
        assign_public_ip=public_ip == "ENABLED" if public_ip else None,
    )


def _checked(option: str, values: Mapping[str, Any]) -> Optional[str]:
    value = values[_parameter(option)]
    return planning.checked(option, value) if value else None


def _parameter(option: str) -> str:
    return option[2:].replace("-", "_")


def _unique(*lists: Sequence[str]) -> Tuple[str, ...]:
    return tuple(dict.fromkeys(item for items in lists for item in items))
