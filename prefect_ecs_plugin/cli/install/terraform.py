"""The same resources as the CloudFormation template's, for Terraform. Pure."""

from __future__ import annotations

from typing import Any, List, Mapping, Tuple, Union

from . import policy, service
from .hcl import Block, Call, Expression, render
from .placeholders import Placeholders, Reference
from .plan import IMAGE_REPOSITORY, Plan

Body = List[Union[Tuple[str, Any], Block]]

_HEADER = """\
# The Prefect agent {name} as an Amazon ECS service, by prefect-ecs-plugin {version}.
# Review it, then apply it: terraform init && terraform apply
"""

_THEN = """\
#
# No agent runs until its API key is in the secret that this makes. Put it there, then
# apply again with -var desired_count=1:
#
#   aws secretsmanager put-secret-value --secret-id ARN --secret-string file://key
#
# ARN is the output api_key_secret_arn; neither way does Terraform's state see the key.
"""

_ACCOUNT = "${data.aws_caller_identity.current.account_id}"
_REGION = "${data.aws_region.current.id}"


def text(plan: Plan) -> str:
    """The configuration, with what to do with it at its top."""
    header = _HEADER.format(name=plan.name, version=plan.version)
    header += _THEN if plan.makes_secret else ""
    return header + "\n" + render(blocks(plan))


def blocks(plan: Plan) -> List[Block]:
    """The configuration as data."""
    names = _placeholders(plan)
    return [
        _versions(),
        *_variables(plan),
        Block(("data", "aws_caller_identity", "current")),
        Block(("data", "aws_partition", "current")),
        Block(("data", "aws_region", "current")),
        _log_group(plan),
        *_secret(plan),
        *_role(
            "execution",
            plan,
            policy.execution(plan, names),
            policy.trust(names, by_ecs_itself=True),
        ),
        *_role("agent", plan, policy.agent(plan, names), policy.trust(names)),
        *_security_group(plan),
        _task_definition(plan, names),
        _service(plan, names),
        *_outputs(plan),
    ]


def _placeholders(plan: Plan) -> Placeholders:
    suffix = "${data.aws_partition.current.dns_suffix}"
    registry = f"{_ACCOUNT}.dkr.ecr.{_REGION}.{suffix}"
    built = f"{registry}/{IMAGE_REPOSITORY}:${{var.image_tag}}"
    made = "${aws_secretsmanager_secret.api_key.arn}"
    return Placeholders(
        partition="${data.aws_partition.current.partition}",
        region=_REGION,
        account=_ACCOUNT,
        cluster="${var.cluster}",
        image=Reference("${var.image}" if plan.image else built),
        cpu=Reference("${var.cpu}"),
        memory=Reference("${var.memory}"),
        agent_role_arn=Reference("${aws_iam_role.agent.arn}"),
        execution_role_arn=Reference("${aws_iam_role.execution.arn}"),
        log_group="${aws_cloudwatch_log_group.agent.name}",
        api_key_arn=made if plan.makes_secret else "${var.api_key_secret_arn}",
    )


def _versions() -> Block:
    provider = {"source": "hashicorp/aws", "version": ">= 5.0"}
    return Block(
        ("terraform",),
        [
            ("required_version", ">= 1.3"),
            Block(("required_providers",), [("aws", provider)]),
        ],
    )


# -- Variables ------------------------------------------------------------------


def _variables(plan: Plan) -> List[Block]:
    strings = Expression("list(string)")
    number, flag, word = Expression("number"), Expression("bool"), Expression("string")
    found = [
        _variable(
            "cluster",
            "The cluster's name, for the agent and the tasks it launches.",
            word,
            plan.cluster.name,
        ),
        _variable(
            "subnets",
            "Where the agent runs, with a route to the Prefect API and to AWS.",
            strings,
            list(plan.subnets),
        ),
        _variable(
            "assign_public_ip",
            "True in subnets whose way out is an internet gateway, false behind NAT or "
            "VPC endpoints.",
            flag,
            plan.assign_public_ip,
        ),
        _variable("cpu", "The agent's CPU units (1024 = 1 vCPU).", number, plan.cpu),
        _variable("memory", "The agent's memory in MiB.", number, plan.memory),
        _variable(
            "desired_count",
            "How many agents run. More than one is safe: a run is one task.",
            number,
            plan.desired_count,
        ),
        _variable(
            "log_retention_in_days", "How long the agent's own log is kept.", number, 30
        ),
    ]
    if plan.makes_security_group:
        description = "The VPC of the subnets, for the agent's security group."
        found.append(_variable("vpc_id", description, word, plan.vpc_id))
    else:
        description = "The agent's security groups; it needs no way in, and HTTPS out."
        groups = list(plan.security_groups)
        found.append(_variable("security_groups", description, strings, groups))
    if plan.image:
        found.append(_variable("image", "The agent's image.", word, plan.image))
    else:
        description = f"The tag of {IMAGE_REPOSITORY} in this account's registry."
        found.append(_variable("image_tag", description, word, plan.image_tag))
    if plan.secret is not None:
        description = "The ARN of what holds the Prefect API key."
        found.append(
            _variable("api_key_secret_arn", description, word, plan.secret.arn)
        )
    return found


def _variable(name: str, description: str, kind: Expression, default: Any) -> Block:
    """A variable; one without a default has to be given."""
    given: Body = [] if default in (None, []) else [("default", default)]
    return Block(
        ("variable", name), [("description", description), ("type", kind), *given]
    )


# -- Resources ------------------------------------------------------------------


def _log_group(plan: Plan) -> Block:
    return Block(
        ("resource", "aws_cloudwatch_log_group", "agent"),
        [
            ("name", f"/ecs/{plan.name}"),
            ("retention_in_days", Expression("var.log_retention_in_days")),
            *([("kms_key_id", plan.log_kms_key)] if plan.log_kms_key else []),
        ],
    )


def _secret(plan: Plan) -> List[Block]:
    if not plan.makes_secret:
        return []
    return [
        Block(
            ("resource", "aws_secretsmanager_secret", "api_key"),
            [
                ("name_prefix", f"{plan.name}-api-key-"),
                ("description", f"The API key of the Prefect agent {plan.name}"),
            ],
        )
    ]


def _role(
    name: str, plan: Plan, rights: Mapping[str, Any], trust: Mapping[str, Any]
) -> List[Block]:
    return [
        Block(
            ("resource", "aws_iam_role", name),
            [
                # AWS appends 26 characters and takes 64.
                ("name_prefix", f"{plan.name[:24]}-{name}-"),
                ("assume_role_policy", Call("jsonencode", trust)),
            ],
        ),
        Block(
            ("resource", "aws_iam_role_policy", name),
            [
                ("name", "prefect-agent"),
                ("role", Expression(f"aws_iam_role.{name}.id")),
                ("policy", Call("jsonencode", rights)),
            ],
        ),
    ]


def _security_group(plan: Plan) -> List[Block]:
    if not plan.makes_security_group:
        return []
    rules = [
        Block(
            ("egress",),
            [
                ("description", "Prefect API, AWS and templates"),
                ("protocol", "tcp"),
                ("from_port", port),
                ("to_port", port),
                ("cidr_blocks", ["0.0.0.0/0"]),
                ("ipv6_cidr_blocks", ["::/0"]),
            ],
        )
        for port in plan.ports
    ]
    body: Body = [
        ("name_prefix", f"{plan.name}-"),
        ("description", f"Prefect agent {plan.name}: nothing in"),
        ("vpc_id", Expression("var.vpc_id")),
    ]
    return [Block(("resource", "aws_security_group", "agent"), [*body, *rules])]


def _task_definition(plan: Plan, names: Placeholders) -> Block:
    definition = service.task_definition(plan, names)
    platform = definition["runtimePlatform"]
    return Block(
        ("resource", "aws_ecs_task_definition", "agent"),
        [
            ("family", definition["family"]),
            ("requires_compatibilities", definition["requiresCompatibilities"]),
            ("network_mode", definition["networkMode"]),
            ("cpu", definition["cpu"]),
            ("memory", definition["memory"]),
            ("task_role_arn", definition["taskRoleArn"]),
            ("execution_role_arn", definition["executionRoleArn"]),
            (
                "container_definitions",
                Call("jsonencode", definition["containerDefinitions"]),
            ),
            Block(
                ("runtime_platform",),
                [
                    ("cpu_architecture", platform["cpuArchitecture"]),
                    ("operating_system_family", platform["operatingSystemFamily"]),
                ],
            ),
            *(
                Block(("volume",), [("name", volume["name"])])
                for volume in definition["volumes"]
            ),
        ],
    )


def _service(plan: Plan, names: Placeholders) -> Block:
    request = service.create_service(plan, (), ())
    deployment = request["deploymentConfiguration"]
    breaker = deployment["deploymentCircuitBreaker"]
    groups: Any = Expression("var.security_groups")
    if plan.makes_security_group:
        groups = [Expression("aws_security_group.agent.id")]
    return Block(
        ("resource", "aws_ecs_service", "agent"),
        [
            ("name", request["serviceName"]),
            ("cluster", names.cluster_arn),
            ("task_definition", Expression("aws_ecs_task_definition.agent.arn")),
            ("desired_count", Expression("var.desired_count")),
            ("launch_type", request["launchType"]),
            ("wait_for_steady_state", True),
            (
                "deployment_minimum_healthy_percent",
                deployment["minimumHealthyPercent"],
            ),
            ("deployment_maximum_percent", deployment["maximumPercent"]),
            # Without its rights an agent would stop at once.
            (
                "depends_on",
                [
                    Expression("aws_iam_role_policy.agent"),
                    Expression("aws_iam_role_policy.execution"),
                ],
            ),
            Block(("deployment_circuit_breaker",), list(breaker.items())),
            Block(
                ("network_configuration",),
                [
                    ("subnets", Expression("var.subnets")),
                    ("security_groups", groups),
                    ("assign_public_ip", Expression("var.assign_public_ip")),
                ],
            ),
        ],
    )


# -- Outputs --------------------------------------------------------------------


def _outputs(plan: Plan) -> List[Block]:
    found = [
        _output("service_name", "The service.", "aws_ecs_service.agent.name"),
        _output("agent_role_arn", "The agent's role.", "aws_iam_role.agent.arn"),
        _output(
            "execution_role_arn",
            "The execution role of the agent, and of flow runs that name none.",
            "aws_iam_role.execution.arn",
        ),
        _output(
            "log_group_name",
            "The agent's own log.",
            "aws_cloudwatch_log_group.agent.name",
        ),
    ]
    if plan.makes_secret:
        found.append(
            _output(
                "api_key_secret_arn",
                "The secret that the API key has to be put into.",
                "aws_secretsmanager_secret.api_key.arn",
            )
        )
    if plan.makes_security_group:
        found.append(
            _output(
                "security_group_id",
                "The agent's security group.",
                "aws_security_group.agent.id",
            )
        )
    return found


def _output(name: str, description: str, value: str) -> Block:
    return Block(
        ("output", name), [("description", description), ("value", Expression(value))]
    )
