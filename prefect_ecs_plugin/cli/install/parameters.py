"""The parameters and outputs of the CloudFormation template and Terraform. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, Mapping

from .plan import IMAGE_REPOSITORY, Plan

#: The days for which CloudWatch Logs can keep a log.
#: https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutRetentionPolicy.html
RETENTIONS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1827, 3653)

#: CloudFormation's types and values of network parameters.
_SUBNETS = "List<AWS::EC2::Subnet::Id>"
_SECURITY_GROUPS = "List<AWS::EC2::SecurityGroup::Id>"
_SWITCH = {"AllowedValues": ["ENABLED", "DISABLED"]}

#: The days for which logs are kept by default.
DEFAULT_RETENTION = 30


@dataclass(frozen=True)
class Parameter:
    """A parameter of the template, and a variable of the Terraform configuration.

    Attributes:
        name: Terraform's name; CloudFormation's is the same in Pascal case.
        description: One sentence or more.
        default: None or empty if a value has to be given.
        terraform: Terraform's type.
        cloudformation: CloudFormation's type.
        constraints: CloudFormation's further properties.
    """

    name: str
    description: str
    default: Any
    terraform: str = "string"
    cloudformation: str = "String"
    constraints: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Output:
    """An output of both formats.

    Attributes:
        name: Terraform's name; CloudFormation's is the same in Pascal case.
        description: One sentence.
        terraform: The value as Terraform's expression.
        cloudformation: The value as CloudFormation's function.
    """

    name: str
    description: str
    terraform: str
    cloudformation: Dict[str, Any]


def pascal_case(name: str) -> str:
    """`vpc_id` as `VpcId`."""
    return "".join(word.capitalize() for word in name.split("_"))


def parameters(plan: Plan) -> Iterator[Parameter]:
    """The parameters, with the plan's values as defaults."""
    yield Parameter(
        "cluster",
        "The name of the cluster for the agent and the tasks that it launches.",
        plan.cluster.name,
        constraints={"AllowedPattern": "[A-Za-z0-9_-]{1,255}"},
    )
    yield from _network(plan)
    yield from _flow_network(plan)
    if plan.image:
        yield Parameter(
            "image",
            "The agent's image, as REPOSITORY:TAG or REPOSITORY@DIGEST. The agent's "
            "execution role can pull it from the repository of the default only.",
            plan.image,
        )
    else:
        description = f"The tag of {IMAGE_REPOSITORY} in this account's registry."
        yield Parameter("image_tag", description, plan.image_tag)
    yield Parameter(
        "cpu",
        "The agent's CPU units (1024 = 1 vCPU).",
        plan.cpu,
        "number",
        constraints={
            "AllowedValues": ["256", "512", "1024", "2048", "4096", "8192", "16384"]
        },
    )
    yield Parameter("memory", "The agent's memory in MiB.", plan.memory, "number")
    if plan.secret is not None:
        is_parameter = plan.keeps_key_in_parameter
        kind = "SSM parameter" if is_parameter else "Secrets Manager secret"
        yield Parameter(
            "api_key_secret_arn",
            f"The ARN of the {kind} that contains the Prefect API key.",
            plan.secret.arn,
        )
    yield Parameter(
        "desired_count",
        "The number of agents. Several are safe: each flow run gets one task."
        + (" 0 until the API key is in its secret." * plan.makes_secret),
        plan.desired_count,
        "number",
        "Number",
        {"MinValue": 0},
    )
    yield Parameter(
        "log_retention_in_days",
        "The number of days to keep the logs of the agent and of flow runs.",
        DEFAULT_RETENTION,
        "number",
        "Number",
        {"AllowedValues": list(RETENTIONS)},
    )
    if plan.alarm_topic:
        yield Parameter(
            "alarm_topic",
            "The ARN of the SNS topic that is told when agents are missing.",
            plan.alarm_topic,
        )


def _network(plan: Plan) -> Iterator[Parameter]:
    if plan.makes_security_group or plan.makes_flow_security_group:
        yield Parameter(
            "vpc_id",
            "The VPC of the subnets, for the new security groups.",
            plan.vpc_id,
            cloudformation="AWS::EC2::VPC::Id",
        )
    yield Parameter(
        "subnets",
        "The agent's subnets, with a route to the Prefect API and to AWS.",
        list(plan.subnets),
        "list(string)",
        _SUBNETS,
    )
    if not plan.makes_security_group:
        yield Parameter(
            "security_groups",
            "The agent's security groups. They must allow outbound HTTPS, and nothing "
            "inbound.",
            list(plan.security_groups),
            "list(string)",
            _SECURITY_GROUPS,
        )
    yield Parameter(
        "assign_public_ip",
        "Whether the agent gets a public IP address. It needs one in subnets with an "
        "internet gateway, and none behind NAT or VPC endpoints.",
        plan.assign_public_ip,
        "bool",
        constraints=_SWITCH,
    )


def _flow_network(plan: Plan) -> Iterator[Parameter]:
    """What differs from the agent's network."""
    network = plan.flow_network
    if network is None:
        return
    if network.subnets:
        yield Parameter(
            "flow_subnets",
            "The subnets of flow runs, with a route to the Prefect API and to AWS.",
            list(network.subnets),
            "list(string)",
            _SUBNETS,
        )
    if network.security_groups:
        yield Parameter(
            "flow_security_groups",
            "The security groups of flow runs. They must allow outbound HTTPS.",
            list(network.security_groups),
            "list(string)",
            _SECURITY_GROUPS,
        )
    if network.assign_public_ip is not None:
        yield Parameter(
            "flow_assign_public_ip",
            "Whether flow runs get a public IP address.",
            network.assign_public_ip,
            "bool",
            constraints=_SWITCH,
        )


def outputs(plan: Plan) -> Iterator[Output]:
    """The outputs."""
    yield Output(
        "service_name",
        "The service.",
        "aws_ecs_service.agent.name",
        {"Fn::GetAtt": ["Service", "Name"]},
    )
    yield Output(
        "agent_role_arn",
        "The agent's role.",
        "aws_iam_role.agent.arn",
        {"Fn::GetAtt": ["AgentRole", "Arn"]},
    )
    yield Output(
        "execution_role_arn",
        "The agent's execution role.",
        "aws_iam_role.execution.arn",
        {"Fn::GetAtt": ["ExecutionRole", "Arn"]},
    )
    yield Output(
        "log_group_name",
        "The agent's own log.",
        "aws_cloudwatch_log_group.agent.name",
        {"Ref": "LogGroup"},
    )
    if plan.makes_secret:
        yield Output(
            "api_key_secret_arn",
            "The secret in which to store the API key.",
            "aws_secretsmanager_secret.api_key.arn",
            {"Ref": "ApiKeySecret"},
        )
    if plan.makes_security_group:
        yield Output(
            "security_group_id",
            "The agent's security group.",
            "aws_security_group.agent.id",
            {"Fn::GetAtt": ["SecurityGroup", "GroupId"]},
        )
    yield from _flow_outputs(plan)


def _flow_outputs(plan: Plan) -> Iterator[Output]:
    if plan.makes_flow_role:
        yield Output(
            "flow_execution_role_arn",
            "The execution role of flow runs that name none.",
            "aws_iam_role.flow_execution.arn",
            {"Fn::GetAtt": ["FlowExecutionRole", "Arn"]},
        )
    if plan.makes_flow_log_group:
        yield Output(
            "flow_log_group_name",
            "The log of flow runs whose task definition names no other.",
            "aws_cloudwatch_log_group.flows.name",
            {"Ref": "FlowLogGroup"},
        )
    if plan.makes_flow_security_group:
        yield Output(
            "flow_security_group_id",
            "The security group of flow runs. Databases and the like have to admit it.",
            "aws_security_group.flows.id",
            {"Fn::GetAtt": ["FlowSecurityGroup", "GroupId"]},
        )
