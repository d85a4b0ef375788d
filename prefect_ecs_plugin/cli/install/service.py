"""The agent's task definition and service, as requests of ECS's API. Pure."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence

from .placeholders import Placeholders, Reference
from .plan import Plan

#: The agent's container; the names of log streams contain it.
CONTAINER = "agent"

#: The user and group of the agent; the image has no account with this number.
USER = "10001:10001"

#: The only folder that the agent can write to. The image has to declare it as VOLUME,
#: so that users other than root can write there:
#: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/bind-mounts.html
_SCRATCH, _SCRATCH_PATH = "tmp", "/tmp"

#: The variable that holds the run-task kwargs of flow runs, as one line of YAML.
_KWARGS = "FLOW_RUN_TASK_KWARGS"

#: Every image of the agent has Python. urllib would use a proxy.
_HEALTH = (
    "import http.client, sys; "
    "agent = http.client.HTTPConnection('127.0.0.1', {port}, timeout=4); "
    "agent.request('GET', '/api/health'); "
    "sys.exit(agent.getresponse().status != 200)"
)

#: ECS starts a new agent before it stops the old one. Two agents at a time are safe: a
#: flow run gets one task, whichever agent launches it.
DEPLOYMENT: Dict[str, Any] = {
    "deploymentCircuitBreaker": {"enable": True, "rollback": True},
    "maximumPercent": 200,
    "minimumHealthyPercent": 100,
}


def task_definition(plan: Plan, names: Placeholders) -> Dict[str, Any]:
    """The RegisterTaskDefinition request of the agent itself."""
    return {
        "family": plan.name,
        "requiresCompatibilities": ["FARGATE"],
        "networkMode": "awsvpc",
        "cpu": names.cpu,
        "memory": names.memory,
        "runtimePlatform": {
            "cpuArchitecture": "X86_64",
            "operatingSystemFamily": "LINUX",
        },
        "taskRoleArn": names.agent_role_arn,
        "executionRoleArn": names.execution_role_arn,
        "containerDefinitions": [_container(plan, names)],
        "volumes": [{"name": _SCRATCH}],
        "tags": _tags(plan),
    }


def _container(plan: Plan, names: Placeholders) -> Dict[str, Any]:
    return {
        "name": CONTAINER,
        "image": names.image,
        "essential": True,
        "command": command(plan, names),
        "environment": [
            {"name": "HOME", "value": _SCRATCH_PATH},
            {"name": "PREFECT__BACKEND", "value": plan.backend},
            *_flow_network(plan, names),
        ],
        **_secrets(plan, names),
        "healthCheck": {
            "command": ["CMD", "python", "-c", _HEALTH.format(port=plan.health_port)],
            "interval": 30,
            "timeout": 5,
            "retries": 3,
            "startPeriod": 60,
        },
        "stopTimeout": plan.stop_timeout,
        "user": USER,
        "readonlyRootFilesystem": True,
        "linuxParameters": {"capabilities": {"drop": ["ALL"]}},
        "mountPoints": [{"sourceVolume": _SCRATCH, "containerPath": _SCRATCH_PATH}],
        "logConfiguration": {
            "logDriver": "awslogs",
            "options": {
                "awslogs-group": Reference(names.log_group),
                "awslogs-region": Reference(names.region),
                "awslogs-stream-prefix": plan.name,
                # A log that is not written must not block the agent.
                "mode": "non-blocking",
            },
        },
    }


def command(plan: Plan, names: Placeholders) -> List[str]:
    """The agent's command line. It always names the cluster, as the policy does."""
    own: List[str] = [
        f"--name={plan.name}",
        Reference(f"--cluster={names.cluster}"),
        f"--agent-address={plan.agent_address}",
        f"--log-format={plan.log_format}",
        Reference(f"--flow-log-group={names.flow_log_group}"),
    ]
    if plan.flow_network is not None:
        own.append(f"--run-task-kwargs=env://{_KWARGS}")
    if plan.makes_flow_role:
        own.append(Reference(f"--execution-role-arn={names.flow_execution_role_arn}"))
    if plan.has_api_key:
        own.append(Reference(f"--api-key-secret-arn={_key(plan, names)}"))
    return ["prefect", "agent", "ecs", "start", *own, *plan.arguments]


def _flow_network(plan: Plan, names: Placeholders) -> List[Dict[str, str]]:
    if plan.flow_network is None:
        return []
    awsvpc = (
        f"subnets: [{names.flow_subnets}], "
        f"securityGroups: [{names.flow_security_groups}], "
        f"assignPublicIp: {names.flow_public_ip}"
    )
    network = f"{{networkConfiguration: {{awsvpcConfiguration: {{{awsvpc}}}}}}}"
    return [{"name": _KWARGS, "value": Reference(network)}]


def _tags(plan: Plan) -> List[Dict[str, str]]:
    return [{"key": key, "value": value} for key, value in plan.tags.items()]


def _secrets(plan: Plan, names: Placeholders) -> Dict[str, Any]:
    if not plan.has_api_key:
        return {}
    key = {"name": "PREFECT__CLOUD__API_KEY", "valueFrom": _key(plan, names)}
    return {"secrets": [key]}


def _key(plan: Plan, names: Placeholders) -> Reference:
    return Reference(names.api_key_arn + (plan.secret.suffix if plan.secret else ""))


def create_service(
    plan: Plan, subnets: Sequence[str], security_groups: Sequence[str]
) -> Dict[str, Any]:
    """The CreateService request without the cluster and the task definition."""
    return {
        "serviceName": plan.name,
        "launchType": "FARGATE",
        "deploymentConfiguration": DEPLOYMENT,
        "networkConfiguration": {
            "awsvpcConfiguration": {
                "subnets": list(subnets),
                "securityGroups": list(security_groups),
                "assignPublicIp": "ENABLED" if plan.assign_public_ip else "DISABLED",
            }
        },
        "enableECSManagedTags": True,
        "propagateTags": "SERVICE",
        "tags": _tags(plan),
    }


def alarm(plan: Plan) -> Dict[str, Any]:
    """The PutMetricAlarm request without the dimensions and the threshold.

    Each running task of a service is one sample of its CPUUtilization in a minute, also
    without Container Insights. The threshold is the number of agents:
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/cloudwatch-metrics.html
    """
    return {
        "alarmName": plan.name,
        "alarmDescription": f"Agents of {plan.name} have been missing for 5 minutes.",
        "namespace": "AWS/ECS",
        "metricName": "CPUUtilization",
        "statistic": "SampleCount",
        "period": 60,
        "evaluationPeriods": 5,
        "comparisonOperator": "LessThanThreshold",
        "treatMissingData": "breaching",
    }
