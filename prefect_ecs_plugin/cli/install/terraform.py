"""The resources of the CloudFormation template as a Terraform configuration. Pure.

The configuration is a text with holes, and `hcl` writes the values of the holes as
`terraform fmt` does. Terraform's JSON syntax would need no writer, but in it a policy
becomes one long string with escaped quotes, which cannot be reviewed.
"""

from __future__ import annotations

import re
from string import Template
from typing import Any, Iterable, Iterator, List, Mapping, Sequence, Tuple

from . import policy, service
from .parameters import outputs, parameters
from .placeholders import Placeholders, Reference
from .plan import AS_THE_AGENT, IMAGE_REPOSITORY, Plan, comment

_HEADER = """\
# The Prefect agent {name} as an Amazon ECS service, by prefect-ecs-plugin {version}.
# Review it, then apply it: terraform init && terraform apply
#
{flows}
"""

_NEXT_STEPS = """\
#
# The agent starts once its API key is in the secret that this configuration creates.
# Store it there, then apply again with -var desired_count=1:
#
#   aws secretsmanager put-secret-value --secret-id ARN --secret-string file://key
#
# ARN is the output api_key_secret_arn. Terraform's state does not contain the key.
"""

_VERSIONS = """\
terraform {
  required_version = ">= 1.3"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}
"""

_VARIABLE = """\
variable "@name" {
  description = @description
  type        = @type
"""

_DATA = """\
data "aws_caller_identity" "current" {
}

data "aws_partition" "current" {
}

data "aws_region" "current" {
}
"""

_LOG_GROUP = """\
resource "aws_cloudwatch_log_group" "@label" {
  name              = @log_group
  retention_in_days = var.log_retention_in_days
  tags              = local.tags
"""

_SECRET = """\
resource "aws_secretsmanager_secret" "api_key" {
  name_prefix = @prefix
  description = @description
  tags        = local.tags
}
"""

#: AWS appends 26 characters to a role's prefix and accepts 64.
_ROLE = """\
resource "aws_iam_role" "@role" {
  name_prefix = @prefix
  tags        = local.tags
  assume_role_policy = jsonencode(@trust)
}

resource "aws_iam_role_policy" "@role" {
  name = "prefect-agent"
  role = aws_iam_role.@role.id
  policy = jsonencode(@document)
}
"""

_SECURITY_GROUP = """\
resource "aws_security_group" "@label" {
  name_prefix = @prefix
  description = @description
  vpc_id      = var.vpc_id
  tags        = local.tags
"""

_EGRESS = """\

  egress {
    description      = "Prefect API, AWS and templates"
    protocol         = "tcp"
    from_port        = @port
    to_port          = @port
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
"""

_EGRESS_ANYWHERE = """\

  egress {
    protocol         = "-1"
    from_port        = 0
    to_port          = 0
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
"""

_TASK_DEFINITION = """\
resource "aws_ecs_task_definition" "agent" {
  family                   = @family
  requires_compatibilities = @requiresCompatibilities
  network_mode             = @networkMode
  cpu                      = @cpu
  memory                   = @memory
  task_role_arn            = @taskRoleArn
  execution_role_arn       = @executionRoleArn
  tags                     = local.tags
  container_definitions = jsonencode(@containerDefinitions)

  runtime_platform {
    cpu_architecture        = @cpuArchitecture
    operating_system_family = @operatingSystemFamily
  }

  volume {
    name = @volume
  }
}
"""

#: Without its permissions an agent would stop at once, hence depends_on.
_SERVICE = """\
resource "aws_ecs_service" "agent" {
  name                               = @serviceName
  cluster                            = @cluster
  task_definition                    = aws_ecs_task_definition.agent.arn
  desired_count                      = var.desired_count
  launch_type                        = @launchType
  wait_for_steady_state              = true
  enable_ecs_managed_tags            = @enableECSManagedTags
  propagate_tags                     = @propagateTags
  tags                               = local.tags
  deployment_minimum_healthy_percent = @minimumHealthyPercent
  deployment_maximum_percent         = @maximumPercent
  depends_on = @policies

  deployment_circuit_breaker {
    enable   = @enable
    rollback = @rollback
  }

  network_configuration {
    subnets          = var.subnets
    security_groups  = @groups
    assign_public_ip = var.assign_public_ip
  }
}
"""

_ALARM = """\
resource "aws_cloudwatch_metric_alarm" "agent" {
  count               = var.desired_count > 0 ? 1 : 0
  alarm_name          = @alarmName
  alarm_description   = @alarmDescription
  namespace           = @namespace
  metric_name         = @metricName
  statistic           = @statistic
  period              = @period
  evaluation_periods  = @evaluationPeriods
  comparison_operator = @comparisonOperator
  threshold           = var.desired_count
  treat_missing_data  = @treatMissingData
  alarm_actions       = @topics
  ok_actions          = @topics
  tags                = local.tags
  dimensions = {
    ClusterName = var.cluster
    ServiceName = aws_ecs_service.agent.name
  }
}
"""

_OUTPUT = """\
output "@name" {
  description = @description
  value       = @value
}
"""


def text(plan: Plan) -> str:
    """The configuration, with the commands to apply it at its top."""
    header = _HEADER.format(
        name=plan.name, version=plan.version, flows=comment(plan.flows_in_words)
    )
    header += _NEXT_STEPS if plan.makes_secret else ""
    return "\n".join([header, *_sections(plan)])


def _sections(plan: Plan) -> Iterator[str]:
    names = _placeholders(plan)
    yield _VERSIONS
    for each in parameters(plan):
        has_default = each.default not in (None, [])
        yield _filled(
            _VARIABLE + ("  default     = @default\n" if has_default else "") + "}\n",
            name=_Expression(each.name),
            description=each.description,
            type=_Expression(each.terraform),
            default=each.default,
        )
    yield _DATA
    yield "\n".join(["locals {", *_indented(_attributes(_locals(plan))), "}", ""])
    yield _log_group(plan, "agent", f"/ecs/{plan.name}")
    if plan.makes_flow_log_group:
        yield _log_group(plan, "flows", plan.flow_log_group_name)
    if plan.makes_secret:
        description = f"The API key of the Prefect agent {plan.name}"
        yield _filled(_SECRET, prefix=f"{plan.name}-api-key-", description=description)
    yield from _roles(plan, names)
    if plan.makes_security_group:
        egress = "".join(_filled(_EGRESS, port=port) for port in plan.ports)
        description = f"Prefect agent {plan.name}: nothing in"
        yield _security_group(plan, "agent", description, egress)
    if plan.makes_flow_security_group:
        description = f"Flow runs of {plan.name}: nothing in"
        yield _security_group(plan, "flows", description, _EGRESS_ANYWHERE)
    yield from _service(plan, names)
    for output in outputs(plan):
        yield _filled(
            _OUTPUT,
            name=_Expression(output.name),
            description=output.description,
            value=_Expression(output.terraform),
        )


def _locals(plan: Plan) -> Iterator[Tuple[str, Any]]:
    """What quotes would break inside of a text, and the tags."""
    yield "tags", plan.tags
    network = plan.flow_network
    if network is None:
        return
    is_own = network.assign_public_ip is not None
    switch = "var.flow_assign_public_ip" if is_own else "var.assign_public_ip"
    subnets = "var.flow_subnets" if network.subnets else "var.subnets"
    yield "flow_public_ip", _Expression(f'{switch} ? "ENABLED" : "DISABLED"')
    yield "flow_subnets", _Expression(f'join(",", {subnets})')
    if network.security_groups:
        joined = _Expression('join(",", var.flow_security_groups)')
        yield "flow_security_groups", joined


def _log_group(plan: Plan, label: str, name: str) -> str:
    key = "  kms_key_id        = @key\n" if plan.log_kms_key else ""
    return _filled(
        _LOG_GROUP + key + "}\n",
        label=_Expression(label),
        log_group=name,
        key=plan.log_kms_key,
    )


def _roles(plan: Plan, names: Placeholders) -> Iterator[str]:
    by_ecs = policy.trust(names, by_ecs_itself=True)
    roles = [
        ("execution", policy.execution(plan, names), by_ecs),
        ("agent", policy.agent(plan, names), policy.trust(names)),
    ]
    if plan.makes_flow_role:
        roles.append(("flow_execution", policy.flow_execution(plan, names), by_ecs))
    for role, document, trust in roles:
        yield _filled(
            _ROLE,
            role=_Expression(role),
            prefix=f"{plan.name[:22]}-{role.replace('_', '-')}-",
            trust=trust,
            document=document,
        )


def _security_group(plan: Plan, label: str, description: str, egress: str) -> str:
    head = _filled(
        _SECURITY_GROUP,
        label=_Expression(label),
        prefix=f"{plan.name}-",
        description=description,
    )
    return head + egress + "}\n"


def _service(plan: Plan, names: Placeholders) -> Iterator[str]:
    """The task definition, the service and its alarm."""
    definition = service.task_definition(plan, names)
    (volume,) = definition["volumes"]
    yield _filled(
        _TASK_DEFINITION,
        **definition,
        **definition["runtimePlatform"],
        volume=volume["name"],
    )
    request = service.create_service(plan, (), ())
    deployment = request["deploymentConfiguration"]
    roles = ["agent", "execution", *(["flow_execution"] * plan.makes_flow_role)]
    groups: Any = _Expression("var.security_groups")
    if plan.makes_security_group:
        groups = [_Expression("aws_security_group.agent.id")]
    yield _filled(
        _SERVICE,
        **request,
        **deployment,
        **deployment["deploymentCircuitBreaker"],
        cluster=names.cluster_arn,
        groups=groups,
        policies=[_Expression(f"aws_iam_role_policy.{role}") for role in roles],
    )
    topics = [_Expression("var.alarm_topic")] if plan.alarm_topic else []
    yield _filled(_ALARM, **service.alarm(plan), topics=topics)


def _placeholders(plan: Plan) -> Placeholders:
    network = plan.flow_network or AS_THE_AGENT
    flow_groups = "${aws_security_group.flows.id}"
    if network.security_groups:
        flow_groups = "${local.flow_security_groups}"
    account = "${data.aws_caller_identity.current.account_id}"
    region = "${data.aws_region.current.id}"
    suffix = "${data.aws_partition.current.dns_suffix}"
    registry = f"{account}.dkr.ecr.{region}.{suffix}"
    built = f"{registry}/{IMAGE_REPOSITORY}:${{var.image_tag}}"
    made = "${aws_secretsmanager_secret.api_key.arn}"
    return Placeholders(
        partition="${data.aws_partition.current.partition}",
        region=region,
        account=account,
        cluster="${var.cluster}",
        image=Reference("${var.image}" if plan.image else built),
        cpu=Reference("${var.cpu}"),
        memory=Reference("${var.memory}"),
        agent_role_arn=Reference("${aws_iam_role.agent.arn}"),
        execution_role_arn=Reference("${aws_iam_role.execution.arn}"),
        flow_execution_role_arn=Reference("${aws_iam_role.flow_execution.arn}"),
        log_group="${aws_cloudwatch_log_group.agent.name}",
        flow_log_group=plan.flow_log_group or "${aws_cloudwatch_log_group.flows.name}",
        flow_subnets="${local.flow_subnets}",
        flow_security_groups=flow_groups,
        flow_public_ip="${local.flow_public_ip}",
        api_key_arn=made if plan.makes_secret else "${var.api_key_secret_arn}",
    )


# -- Values as HCL -----------------------------------------------------------------


class _Expression(str):
    """HCL as it is, such as `var.image`."""


class _Holes(Template):
    delimiter = "@"


_WIDTH = 88
_IDENTIFIER = re.compile(r"[A-Za-z_][\w-]*")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _filled(text: str, **values: Any) -> str:
    """A block whose holes are values of attributes, which are indented once.

    A default in several lines must not be aligned with the attributes before it.
    """
    filled = {name: "\n  ".join(hcl(value)) for name, value in values.items()}
    if filled.get("default", "").endswith("\n  ]"):
        text = text.replace("  default     =", "  default =")
    return _Holes(text).substitute(filled)


def hcl(value: Any) -> List[str]:
    """The lines of a value, laid out as `terraform fmt` lays them out."""
    if isinstance(value, Mapping):
        items = [
            (key if _IDENTIFIER.fullmatch(key) else _string(key), item)
            for key, item in value.items()
        ]
        return ["{", *_indented(_attributes(items)), "}"] if items else ["{}"]
    if isinstance(value, (list, tuple)):
        return _list(value)
    if isinstance(value, _Expression):
        return [str(value)]
    if isinstance(value, str):
        return [_string(value)]
    if value is None or isinstance(value, bool):
        return [{None: "null", True: "true", False: "false"}[value]]
    return [str(value)]


def _attributes(items: Iterable[Tuple[str, Any]]) -> List[str]:
    """Consecutive attributes of one line each have their values aligned."""
    lines: List[str] = []
    group: List[Tuple[str, str]] = []
    for name, value in items:
        first, *more = hcl(value)
        if more:
            lines += [*_aligned(group), f"{name} = {first}", *more]
            group = []
        else:
            group.append((name, first))
    return lines + _aligned(group)


def _aligned(group: Sequence[Tuple[str, str]]) -> List[str]:
    width = max((len(name) for name, _ in group), default=0)
    return [f"{name:<{width}} = {value}" for name, value in group]


def _string(text: str) -> str:
    """A quoted string; `${...}` has a meaning in a `Reference` only."""
    alone = re.fullmatch(r"\$\{([^{}]+)\}", text)
    if isinstance(text, Reference) and alone:
        return alone.group(1)
    quoted = "".join(_ESCAPES.get(character, character) for character in text)
    if not isinstance(text, Reference):
        quoted = quoted.replace("${", "$${").replace("%{", "%%{")
    return f'"{quoted}"'


def _list(value: Sequence[Any]) -> List[str]:
    items = [hcl(item) for item in value]
    line = "[" + ", ".join(first for first, *_ in items) + "]"
    if all(len(lines) == 1 for lines in items) and len(line) <= _WIDTH // 2:
        return [line]
    broken: List[str] = []
    for lines in items:
        broken += [*lines[:-1], lines[-1] + ","]
    return ["[", *_indented(broken), "]"]


def _indented(lines: Iterable[str]) -> List[str]:
    return ["  " + line for line in lines]
