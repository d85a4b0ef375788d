"""The CloudFormation template: the service and everything it needs but the network.

Pure. The template is plain data with CloudFormation's functions in their long form
(`{"Ref": ...}`), as tests compare it; `dump` writes the short one (`!Ref`).
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, Mapping, Optional

import yaml

from . import policy, service
from .placeholders import Placeholders, Reference
from .plan import IMAGE_REPOSITORY, Plan

#: What a log group may keep, in days.
#: https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutRetentionPolicy.html
RETENTIONS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1827, 3653)

#: Members that are maps: their keys are the user's or another service's, not ECS's.
_MAPS = frozenset({"options"})

_HEADER = """\
# The Prefect agent {name} as an Amazon ECS service, by prefect-ecs-plugin {version}.
# Review it, then apply it:
#
#   aws cloudformation deploy --stack-name {name} --template-file {name}.yaml \\
#     --capabilities CAPABILITY_IAM{overrides}
"""

_THEN = """\
#
# No agent runs until its API key is in the secret that this makes. Put it there, then
# run the command above again with --parameter-overrides DesiredCount=1:
#
#   aws secretsmanager put-secret-value --secret-id ARN --secret-string file://key
#
# ARN is the stack's output ApiKeySecretArn; `file://` keeps the key out of your
# shell's history.
"""


def text(plan: Plan) -> str:
    """The template as YAML, with what to do with it at its top."""
    body = template(plan)
    missing = [
        name for name, value in body["Parameters"].items() if "Default" not in value
    ]
    overrides = "".join(f" {name}=..." for name in missing)
    header = _HEADER.format(
        name=plan.name,
        version=plan.version,
        overrides=" \\\n#     --parameter-overrides" + overrides if missing else "",
    )
    return header + (_THEN if plan.makes_secret else "") + dump(body)


def template(plan: Plan) -> Dict[str, Any]:
    """The template as data."""
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"Prefect agent {plan.name} (prefect-ecs-plugin {plan.version})",
        "Parameters": _parameters(plan),
        "Resources": _resources(plan, _placeholders(plan)),
        "Outputs": _outputs(plan),
    }


def _placeholders(plan: Plan) -> Placeholders:
    registry = "${AWS::AccountId}.dkr.ecr.${AWS::Region}.${AWS::URLSuffix}"
    built = f"{registry}/{IMAGE_REPOSITORY}:${{ImageTag}}"
    return Placeholders(
        partition="${AWS::Partition}",
        region="${AWS::Region}",
        account="${AWS::AccountId}",
        cluster="${Cluster}",
        image=Reference("${Image}" if plan.image else built),
        cpu=Reference("${Cpu}"),
        memory=Reference("${Memory}"),
        agent_role_arn=Reference("${AgentRole.Arn}"),
        execution_role_arn=Reference("${ExecutionRole.Arn}"),
        log_group="${LogGroup}",
        api_key_arn="${ApiKeySecret}" if plan.makes_secret else "${ApiKeySecretArn}",
    )


# -- Parameters -----------------------------------------------------------------


def _parameters(plan: Plan) -> Dict[str, Any]:
    return {
        "Cluster": _parameter(
            "The cluster's name, for the agent and the tasks it launches.",
            plan.cluster.name,
            AllowedPattern="[A-Za-z0-9_-]{1,255}",
        ),
        **_network_parameters(plan),
        **_image_parameter(plan),
        "Cpu": _parameter(
            "The agent's CPU units (1024 = 1 vCPU).",
            str(plan.cpu),
            AllowedValues=["256", "512", "1024", "2048", "4096", "8192", "16384"],
        ),
        "Memory": _parameter("The agent's memory in MiB.", str(plan.memory)),
        **_secret_parameter(plan),
        "DesiredCount": {
            **_parameter(
                "How many agents run. More than one is safe: a run is one task."
                + (" 0 until the API key is in its secret." * plan.makes_secret),
                plan.desired_count,
                "Number",
            ),
            "MinValue": 0,
        },
        "LogRetentionInDays": _parameter(
            "How long the agent's own log is kept.",
            30,
            "Number",
            AllowedValues=list(RETENTIONS),
        ),
    }


def _parameter(
    description: str, default: Any = None, kind: str = "String", **more: Any
) -> Dict[str, Any]:
    given = {} if default in (None, "") else {"Default": default}
    return {"Description": description, "Type": kind, **given, **more}


def _network_parameters(plan: Plan) -> Dict[str, Any]:
    found: Dict[str, Any] = {}
    if plan.makes_security_group:
        found["VpcId"] = _parameter(
            "The VPC of the subnets; the agent's security group is made in it.",
            plan.vpc_id,
            "AWS::EC2::VPC::Id",
        )
    found["Subnets"] = _parameter(
        "Where the agent runs, with a route to the Prefect API and to AWS.",
        ",".join(plan.subnets),
        "List<AWS::EC2::Subnet::Id>",
    )
    if not plan.makes_security_group:
        found["SecurityGroups"] = _parameter(
            "The agent's security groups; it needs no way in, and HTTPS out.",
            ",".join(plan.security_groups),
            "List<AWS::EC2::SecurityGroup::Id>",
        )
    found["AssignPublicIp"] = _parameter(
        "ENABLED in subnets whose way out is an internet gateway, DISABLED behind NAT "
        "or VPC endpoints.",
        "ENABLED" if plan.assign_public_ip else "DISABLED",
        AllowedValues=["ENABLED", "DISABLED"],
    )
    return found


def _image_parameter(plan: Plan) -> Dict[str, Any]:
    if plan.image:
        return {"Image": _parameter("The agent's image.", plan.image)}
    description = f"The tag of {IMAGE_REPOSITORY} in this account's registry."
    return {"ImageTag": _parameter(description, plan.image_tag)}


def _secret_parameter(plan: Plan) -> Dict[str, Any]:
    if plan.secret is None:
        return {}
    kind = "SSM parameter" if plan.keeps_key_in_parameter else "Secrets Manager secret"
    description = f"The ARN of the {kind} that holds the Prefect API key."
    return {"ApiKeySecretArn": _parameter(description, plan.secret.arn)}


# -- Resources ------------------------------------------------------------------


def _resources(plan: Plan, names: Placeholders) -> Dict[str, Any]:
    definition = service.task_definition(plan, names)
    return {
        "LogGroup": {
            "Type": "AWS::Logs::LogGroup",
            "DeletionPolicy": "Delete",
            "UpdateReplacePolicy": "Delete",
            "Properties": {
                "LogGroupName": f"/ecs/{plan.name}",
                "RetentionInDays": {"Ref": "LogRetentionInDays"},
                **({"KmsKeyId": plan.log_kms_key} if plan.log_kms_key else {}),
            },
        },
        **_secret(plan),
        "ExecutionRole": _role(
            f"With it ECS starts the Prefect agent {plan.name} and its flow runs.",
            policy.execution(plan, names),
            policy.trust(names, by_ecs_itself=True),
        ),
        "AgentRole": _role(
            f"What the Prefect agent {plan.name} may do.",
            policy.agent(plan, names),
            policy.trust(names),
        ),
        **_security_group(plan),
        "TaskDefinition": {
            "Type": "AWS::ECS::TaskDefinition",
            "Properties": _resolved(pascal(definition)),
        },
        "Service": {"Type": "AWS::ECS::Service", "Properties": _service(plan)},
    }


def _secret(plan: Plan) -> Dict[str, Any]:
    if not plan.makes_secret:
        return {}
    return {
        "ApiKeySecret": {
            "Type": "AWS::SecretsManager::Secret",
            "DeletionPolicy": "Delete",
            "UpdateReplacePolicy": "Retain",
            "Properties": {
                "Description": f"The API key of the Prefect agent {plan.name}"
            },
        }
    }


def _role(
    description: str, rights: Mapping[str, Any], trust: Mapping[str, Any]
) -> Dict[str, Any]:
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "Description": description,
            "AssumeRolePolicyDocument": _resolved(trust),
            "Policies": [
                {"PolicyName": "prefect-agent", "PolicyDocument": _resolved(rights)}
            ],
        },
    }


def _security_group(plan: Plan) -> Dict[str, Any]:
    if not plan.makes_security_group:
        return {}
    return {
        "SecurityGroup": {
            "Type": "AWS::EC2::SecurityGroup",
            "Properties": {
                "GroupDescription": f"Prefect agent {plan.name}: nothing in",
                "VpcId": {"Ref": "VpcId"},
                "SecurityGroupEgress": [
                    {
                        "IpProtocol": "tcp",
                        "FromPort": port,
                        "ToPort": port,
                        network: everywhere,
                        "Description": "Prefect API, AWS and templates",
                    }
                    for port in plan.ports
                    for network, everywhere in (
                        ("CidrIp", "0.0.0.0/0"),
                        ("CidrIpv6", "::/0"),
                    )
                ],
            },
        }
    }


def _service(plan: Plan) -> Dict[str, Any]:
    properties = pascal(service.create_service(plan, (), ()))
    group: Any = {"Ref": "SecurityGroups"}
    if plan.makes_security_group:
        group = [{"Fn::GetAtt": ["SecurityGroup", "GroupId"]}]
    properties["NetworkConfiguration"] = {
        "AwsvpcConfiguration": {
            "Subnets": {"Ref": "Subnets"},
            "SecurityGroups": group,
            "AssignPublicIp": {"Ref": "AssignPublicIp"},
        }
    }
    return {
        **properties,
        "Cluster": {"Ref": "Cluster"},
        "TaskDefinition": {"Ref": "TaskDefinition"},
        "DesiredCount": {"Ref": "DesiredCount"},
    }


# -- Outputs --------------------------------------------------------------------


def _outputs(plan: Plan) -> Dict[str, Any]:
    found = {
        "ServiceName": _output("The service.", {"Fn::GetAtt": ["Service", "Name"]}),
        "AgentRoleArn": _output(
            "The agent's role.", {"Fn::GetAtt": ["AgentRole", "Arn"]}
        ),
        "ExecutionRoleArn": _output(
            "The execution role of the agent, and of flow runs that name none.",
            {"Fn::GetAtt": ["ExecutionRole", "Arn"]},
        ),
        "LogGroupName": _output("The agent's own log.", {"Ref": "LogGroup"}),
    }
    if plan.makes_secret:
        description = "The secret that the API key has to be put into."
        found["ApiKeySecretArn"] = _output(description, {"Ref": "ApiKeySecret"})
    if plan.makes_security_group:
        group = {"Fn::GetAtt": ["SecurityGroup", "GroupId"]}
        found["SecurityGroupId"] = _output("The agent's security group.", group)
    return found


def _output(description: str, value: Any) -> Dict[str, Any]:
    return {"Description": description, "Value": value}


# -- CloudFormation's manner of writing -----------------------------------------


def pascal(value: Any) -> Any:
    """A request of ECS's API as CloudFormation spells it: `containerDefinitions` is
    `ContainerDefinitions` there."""
    if isinstance(value, list):
        return [pascal(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key[0].upper() + key[1:]: item if key in _MAPS else pascal(item)
        for key, item in value.items()
    }


def _resolved(value: Any) -> Any:
    """The same with every `Reference` as the function that CloudFormation resolves,
    and with `${...}` of the user's as text."""
    if isinstance(value, Reference):
        return _function(value)
    if isinstance(value, Mapping):
        return {key: _resolved(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item) for item in value]
    if isinstance(value, str) and "${" in value:
        return {"Fn::Join": ["$", value.split("$")]}  # linters take it for a Sub's
    return value


def _function(reference: Reference) -> Any:
    alone = re.fullmatch(r"\$\{([\w:]+)(?:\.(\w+))?\}", reference)
    if alone is None:
        return {"Fn::Sub": str(reference)} if "${" in reference else str(reference)
    name, attribute = alone.groups()
    return {"Fn::GetAtt": [name, attribute]} if attribute else {"Ref": name}


class _Dumper(yaml.SafeDumper):
    """Writes CloudFormation's functions in their short form, and no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _represent_dict(dumper: yaml.SafeDumper, data: Dict[str, Any]) -> yaml.Node:
    short = _short(data)
    if short is None:
        return dumper.represent_dict(data.items())
    return dumper.represent_scalar(*short)


def _short(data: Mapping[str, Any]) -> Optional[List[str]]:
    if len(data) != 1:
        return None
    ((name, value),) = data.items()
    if name in ("Ref", "Fn::Sub"):
        return ["!" + name.rpartition("::")[2], value]
    return ["!GetAtt", ".".join(value)] if name == "Fn::GetAtt" else None


_Dumper.add_representer(dict, _represent_dict)


def dump(template: Mapping[str, Any]) -> str:
    """A template as YAML; equal templates give equal text."""
    dumped = yaml.dump(
        template, Dumper=_Dumper, sort_keys=False, width=88, allow_unicode=True
    )
    return str(dumped)
