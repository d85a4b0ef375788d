"""The CloudFormation template: the service and its resources without the network. Pure.

The template is plain data with CloudFormation's functions in their long form
(`{"Ref": ...}`), which tests compare; `dump` writes the short form (`!Ref`).
"""

from __future__ import annotations

import re
from typing import Any, Dict, Mapping

import yaml

from . import policy, service
from .parameters import Parameter, outputs, parameters, pascal_case
from .placeholders import Placeholders, Reference
from .plan import AS_THE_AGENT, IMAGE_REPOSITORY, Plan, comment

#: Members whose keys are not ECS's own, so they are not converted.
_MAPS = frozenset({"options"})

#: The condition of the alarm, and the number of agents.
_IS_RUNNING = "IsRunning"
_COUNT = {"Ref": "DesiredCount"}

_EVERYWHERE = (("CidrIp", "0.0.0.0/0"), ("CidrIpv6", "::/0"))

#: Names in a `Reference` for parameters that are lists, joined by commas.
_JOINED = {
    "SubnetIds": "Subnets",
    "FlowSubnetIds": "FlowSubnets",
    "FlowSecurityGroupIds": "FlowSecurityGroups",
}

_HEADER = """\
# The Prefect agent {name} as an Amazon ECS service, by prefect-ecs-plugin {version}.
# Review it, then apply it:
#
#   aws cloudformation deploy --stack-name {name} --template-file {name}.yaml \\
#     --capabilities CAPABILITY_IAM{overrides}
#
{flows}
"""

_NEXT_STEPS = """\
#
# The agent starts once its API key is in the secret that this template creates. Store
# it there, then run the command above again with --parameter-overrides DesiredCount=1:
#
#   aws secretsmanager put-secret-value --secret-id ARN --secret-string file://key
#
# ARN is the stack's output ApiKeySecretArn. `file://` keeps the key out of the shell's
# history.
"""


def text(plan: Plan) -> str:
    """The template as YAML, with the commands to apply it at its top."""
    body = template(plan)
    missing = [
        name for name, value in body["Parameters"].items() if "Default" not in value
    ]
    overrides = "".join(f" {name}=..." for name in missing)
    header = _HEADER.format(
        name=plan.name,
        version=plan.version,
        overrides=" \\\n#     --parameter-overrides" + overrides if missing else "",
        flows=comment(plan.flows_in_words),
    )
    return header + (_NEXT_STEPS if plan.makes_secret else "") + dump(body)


def template(plan: Plan) -> Dict[str, Any]:
    """The template as data."""
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"Prefect agent {plan.name} (prefect-ecs-plugin {plan.version})",
        "Parameters": {
            pascal_case(each.name): _parameter(each) for each in parameters(plan)
        },
        "Conditions": {_IS_RUNNING: {"Fn::Not": [{"Fn::Equals": [_COUNT, 0]}]}},
        "Resources": _resources(plan, _placeholders(plan)),
        "Outputs": {
            pascal_case(each.name): {
                "Description": each.description,
                "Value": each.cloudformation,
            }
            for each in outputs(plan)
        },
    }


def _placeholders(plan: Plan) -> Placeholders:
    network = plan.flow_network or AS_THE_AGENT
    flow_group = "${FlowSecurityGroup.GroupId}"
    if network.security_groups:
        flow_group = "${FlowSecurityGroupIds}"
    own_ip = network.assign_public_ip is not None
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
        flow_execution_role_arn=Reference("${FlowExecutionRole.Arn}"),
        log_group="${LogGroup}",
        flow_log_group=plan.flow_log_group or "${FlowLogGroup}",
        flow_subnets="${FlowSubnetIds}" if network.subnets else "${SubnetIds}",
        flow_security_groups=flow_group,
        flow_public_ip="${FlowAssignPublicIp}" if own_ip else "${AssignPublicIp}",
        api_key_arn="${ApiKeySecret}" if plan.makes_secret else "${ApiKeySecretArn}",
    )


def _parameter(each: Parameter) -> Dict[str, Any]:
    default = each.default
    if isinstance(default, list):
        default = ",".join(default)
    elif isinstance(default, bool):
        default = "ENABLED" if default else "DISABLED"
    elif each.cloudformation == "String" and default is not None:
        default = str(default)
    return {
        "Description": each.description,
        "Type": each.cloudformation,
        **({} if default in (None, "") else {"Default": default}),
        **each.constraints,
    }


# -- Resources ------------------------------------------------------------------


def _resources(plan: Plan, names: Placeholders) -> Dict[str, Any]:
    resources = {
        "LogGroup": _log_group(plan, f"/ecs/{plan.name}"),
        **_secret(plan),
        "ExecutionRole": _role(
            f"Execution role of the Prefect agent {plan.name}.",
            policy.execution(plan, names),
            policy.trust(names, by_ecs_itself=True),
        ),
        "AgentRole": _role(
            f"Role of the Prefect agent {plan.name}.",
            policy.agent(plan, names),
            policy.trust(names),
        ),
        **_security_group(plan),
        **_for_flows(plan, names),
        "TaskDefinition": {
            "Type": "AWS::ECS::TaskDefinition",
            "Properties": _resolved(pascal(service.task_definition(plan, names))),
        },
        "Service": {"Type": "AWS::ECS::Service", "Properties": _service(plan)},
        "Alarm": _alarm(plan),
    }
    tags = [{"Key": key, "Value": value} for key, value in plan.tags.items()]
    for resource in resources.values():
        resource["Properties"]["Tags"] = tags
    return resources


def _for_flows(plan: Plan, names: Placeholders) -> Dict[str, Any]:
    """The log group, the execution role and the security group of flow runs."""
    made: Dict[str, Any] = {}
    if plan.makes_flow_log_group:
        made["FlowLogGroup"] = _log_group(plan, plan.flow_log_group_name)
    if plan.makes_flow_role:
        made["FlowExecutionRole"] = _role(
            f"Execution role of flow runs of the Prefect agent {plan.name}.",
            policy.flow_execution(plan, names),
            policy.trust(names, by_ecs_itself=True),
        )
    if plan.makes_flow_security_group:
        made["FlowSecurityGroup"] = {
            "Type": "AWS::EC2::SecurityGroup",
            "Properties": {
                "GroupDescription": f"Flow runs of {plan.name}: nothing in",
                "VpcId": {"Ref": "VpcId"},
                "SecurityGroupEgress": [
                    {"IpProtocol": "-1", network: everywhere}
                    for network, everywhere in _EVERYWHERE
                ],
            },
        }
    return made


def _log_group(plan: Plan, name: str) -> Dict[str, Any]:
    return {
        "Type": "AWS::Logs::LogGroup",
        "DeletionPolicy": "Delete",
        "UpdateReplacePolicy": "Delete",
        "Properties": {
            "LogGroupName": name,
            "RetentionInDays": {"Ref": "LogRetentionInDays"},
            **({"KmsKeyId": plan.log_kms_key} if plan.log_kms_key else {}),
        },
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


def _alarm(plan: Plan) -> Dict[str, Any]:
    topic = [{"Ref": "AlarmTopic"}]
    return {
        "Type": "AWS::CloudWatch::Alarm",
        "Condition": _IS_RUNNING,
        "Properties": {
            **pascal(service.alarm(plan)),
            "Dimensions": [
                {"Name": "ClusterName", "Value": {"Ref": "Cluster"}},
                {"Name": "ServiceName", "Value": {"Fn::GetAtt": ["Service", "Name"]}},
            ],
            "Threshold": _COUNT,
            **({"AlarmActions": topic, "OKActions": topic} if plan.alarm_topic else {}),
        },
    }


def _role(
    description: str, permissions: Mapping[str, Any], trust: Mapping[str, Any]
) -> Dict[str, Any]:
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "Description": description,
            "AssumeRolePolicyDocument": _resolved(trust),
            "Policies": [
                {
                    "PolicyName": "prefect-agent",
                    "PolicyDocument": _resolved(permissions),
                }
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
                    for network, everywhere in _EVERYWHERE
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


# -- CloudFormation's spelling --------------------------------------------------


def pascal(value: Any) -> Any:
    """A request of ECS's API in CloudFormation's spelling: `ContainerDefinitions`."""
    if isinstance(value, list):
        return [pascal(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key[0].upper() + key[1:]: item if key in _MAPS else pascal(item)
        for key, item in value.items()
    }


def _resolved(value: Any) -> Any:
    """Replace each `Reference` by CloudFormation's function, and protect `${...}` in
    other text."""
    if isinstance(value, Reference):
        return _function(value)
    if isinstance(value, Mapping):
        return {key: _resolved(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item) for item in value]
    if isinstance(value, str) and "${" in value:
        return {"Fn::Join": ["$", value.split("$")]}  # linters take it for Fn::Sub
    return value


def _function(reference: Reference) -> Any:
    alone = re.fullmatch(r"\$\{([\w:]+)(?:\.(\w+))?\}", reference)
    if alone is None:
        lists = {
            name: {"Fn::Join": [",", {"Ref": parameter}]}
            for name, parameter in _JOINED.items()
            if f"${{{name}}}" in reference
        }
        text = str(reference)
        return {"Fn::Sub": [text, lists] if lists else text} if "${" in text else text
    name, attribute = alone.groups()
    return {"Fn::GetAtt": [name, attribute]} if attribute else {"Ref": name}


class _Dumper(yaml.SafeDumper):
    """Writes CloudFormation's functions in their short form, and no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _represent_dict(dumper: yaml.SafeDumper, data: Dict[str, Any]) -> yaml.Node:
    name, value = next(iter(data.items())) if len(data) == 1 else ("", "")
    if name == "Fn::GetAtt":
        return dumper.represent_scalar("!GetAtt", ".".join(value))
    if name == "Fn::Sub" and isinstance(value, list):
        return dumper.represent_sequence("!Sub", value)
    if name in ("Ref", "Fn::Sub"):
        return dumper.represent_scalar("!" + name.rpartition("::")[2], value)
    return dumper.represent_dict(data.items())


_Dumper.add_representer(dict, _represent_dict)


def dump(template: Mapping[str, Any]) -> str:
    """A template as YAML; equal templates give equal text."""
    dumped = yaml.dump(
        template, Dumper=_Dumper, sort_keys=False, width=88, allow_unicode=True
    )
    return str(dumped)
