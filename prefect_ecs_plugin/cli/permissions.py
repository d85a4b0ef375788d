"""The IAM permissions that the agent needs, as one table. Pure.

`install` prints it as a policy, `check` asks IAM about it, and docs/production.md lists
it. tests/cli/test_permissions.py compares it with the calls that the agent makes. Each
permission is as narrow as AWS allows:
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelasticcontainerservice.html
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple, Optional, Tuple

from ..aws import fargate_quota
from ..template import FLOW_RUN_ID

#: The service that assumes the roles of tasks:
#: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-iam-roles.html
ECS_TASKS = "ecs-tasks.amazonaws.com"


#: The quotas that the agent reads, as in their ARNs:
#: https://docs.aws.amazon.com/service-authorization/latest/reference/list_servicequotas.html
QUOTAS = tuple(f"fargate/{code}" for code in fargate_quota.CODES.values())


class On(Enum):
    """The kind of resource that a permission is granted on.

    `install` writes it as patterns, `check` asks about one example for each run. AWS
    accepts nothing but `*` for REGISTERED, DESCRIBED, LISTED, NETWORK, USAGE and
    PRICES.
    """

    LAUNCHED = auto()  #: definitions of the agent's families
    REGISTERED = auto()  #: a new definition
    DESCRIBED = auto()  #: any definition
    CREATED = auto()  #: tasks and definitions
    TASKS = auto()  #: tasks of the cluster
    LISTED = auto()  #: a search for tasks of the cluster
    CLUSTER = auto()  #: the cluster
    ROLES = auto()  #: the roles of tasks
    NETWORK = auto()  #: the default VPC
    LOGS = auto()  #: log streams of tasks
    FILES = auto()  #: files on S3
    QUOTAS = auto()  #: quotas of vCPUs, with `--max-vcpus quota`
    USAGE = auto()  #: metrics of the account, with `--max-vcpus quota`
    PRICES = auto()  #: AWS's Price List, with `--prices aws`


class Condition(NamedTuple):
    """A condition on the request.

    Attributes:
        operator: IAM's name of the comparison.
        key: IAM's condition key.
        values: The allowed values; empty for the ARN of the agent's cluster.
        example: A value that a request has; by default the first of `values`.
    """

    operator: str
    key: str
    values: Tuple[str, ...] = ()
    example: str = ""


IN_CLUSTER = Condition("ArnLike", "ecs:cluster")
TO_ECS_TASKS = Condition("StringEquals", "iam:PassedToService", (ECS_TASKS,))
WHILE_CREATED = Condition(
    "StringEquals", "ecs:CreateAction", ("RunTask", "RegisterTaskDefinition")
)
#: Only tasks that a Prefect agent started for a flow run have this tag.
OF_A_RUN = Condition(
    "StringLike", f"aws:ResourceTag/{FLOW_RUN_ID}", ("?*",), example="a-run"
)


@dataclass(frozen=True)
class Permission:
    """One IAM action that the agent needs.

    Attributes:
        action: Such as `ecs:RunTask`.
        statement: The name of the policy's statement (its Sid).
        on: The kind of resource that it is granted on.
        where: The resources and the condition, for the docs.
        purpose: The agent's use of it.
        without: The consequence if it is missing.
        is_needed: Whether runs fail without it.
        condition: Narrows it further.
    """

    action: str
    statement: str
    on: On
    where: str
    purpose: str
    without: str
    is_needed: bool = False
    condition: Optional[Condition] = None


_EVERYTHING = "all resources, as AWS accepts nothing narrower"

#: The permissions of the agent's role.
AGENT: Tuple[Permission, ...] = (
    Permission(
        action="ecs:RunTask",
        statement="LaunchTasks",
        on=On.LAUNCHED,
        where="its families, in its cluster",
        purpose="launching tasks",
        without="no run starts",
        is_needed=True,
        condition=IN_CLUSTER,
    ),
    Permission(
        action="ecs:RegisterTaskDefinition",
        statement="RegisterTaskDefinitions",
        on=On.REGISTERED,
        where=_EVERYTHING,
        purpose="registering each definition once",
        without="no run starts",
        is_needed=True,
    ),
    Permission(
        action="ecs:DescribeTaskDefinition",
        statement="FindTaskDefinitions",
        on=On.DESCRIBED,
        where=_EVERYTHING,
        purpose="finding registered definitions",
        without="each start registers the definitions again",
    ),
    Permission(
        action="ecs:DescribeTasks",
        statement="WatchTasks",
        on=On.TASKS,
        where="its cluster's tasks",
        purpose="finding out why a task stopped",
        without="tasks are not watched",
    ),
    Permission(
        action="ecs:ListTasks",
        statement="FindTasks",
        on=On.LISTED,
        where="its cluster",
        purpose="finding its tasks again after a restart",
        without="tasks are not found",
        condition=IN_CLUSTER,
    ),
    Permission(
        action="ecs:StopTask",
        statement="StopTasks",
        on=On.TASKS,
        where=f"its cluster's tasks that have the tag `{FLOW_RUN_ID}`",
        purpose="stopping the tasks of cancelled runs, and those that take too long",
        without="tasks are not stopped",
        condition=OF_A_RUN,
    ),
    Permission(
        action="ecs:TagResource",
        statement="TagWhatItCreates",
        on=On.CREATED,
        where="its families and tasks, while they are created",
        purpose="tagging a task with its run's id",
        without="tasks get no tags",
        condition=WHILE_CREATED,
    ),
    Permission(
        action="ecs:DescribeClusters",
        statement="SeeCluster",
        on=On.CLUSTER,
        where="its cluster",
        purpose="a warning when the agent starts",
        without="no warning about a missing cluster",
    ),
    Permission(
        action="iam:PassRole",
        statement="PassRolesToTasks",
        on=On.ROLES,
        where="the named roles, to ECS tasks only",
        purpose="giving tasks their roles",
        without="no run starts",
        is_needed=True,
        condition=TO_ECS_TASKS,
    ),
    Permission(
        action="ec2:DescribeVpcs",
        statement="FindDefaultVpc",
        on=On.NETWORK,
        where=_EVERYTHING,
        purpose="finding the default VPC, if no `networkConfiguration` is given",
        without="runs in network mode awsvpc fail",
        is_needed=True,
    ),
    Permission(
        action="ec2:DescribeSubnets",
        statement="FindDefaultSubnets",
        on=On.NETWORK,
        where=_EVERYTHING,
        purpose="finding its subnets, if no `networkConfiguration` is given",
        without="runs in network mode awsvpc fail",
        is_needed=True,
    ),
    Permission(
        action="logs:GetLogEvents",
        statement="ReadTaskLogs",
        on=On.LOGS,
        where="the flow runs' log groups",
        purpose="reading the last log lines of a failed task",
        without="run logs lack the last lines of failed tasks",
    ),
    Permission(
        action="s3:GetObject",
        statement="ReadFiles",
        on=On.FILES,
        where="the files of `--task-definition`, `--run-task-kwargs` and `--limits` on "
        "S3",
        purpose="reading them",
        without="the agent does not start",
        is_needed=True,
    ),
    Permission(
        action="servicequotas:GetServiceQuota",
        statement="ReadQuotas",
        on=On.QUOTAS,
        where="the vCPU quotas of `FARGATE` and `FARGATE_SPOT`",
        purpose="reading them, with `--max-vcpus quota`",
        without="the quotas are no limit",
    ),
    Permission(
        action="cloudwatch:GetMetricStatistics",
        statement="ReadUsage",
        on=On.USAGE,
        where=_EVERYTHING,
        purpose="reading how much of these quotas is used, with `--max-vcpus quota`",
        without="the quotas are no limit",
    ),
    Permission(
        action="pricing:GetProducts",
        statement="ReadPrices",
        on=On.PRICES,
        where=_EVERYTHING,
        purpose="reading the prices of Fargate, with `--prices aws`",
        without="the prices in the package are used",
    ),
)

#: What a person needs for `explain`, `logs`, `exec` and `status`.
PERSON: Tuple[Permission, ...] = (
    Permission(
        action="ecs:ListTasks",
        statement="FindTasks",
        on=On.LISTED,
        where="the agents' clusters",
        purpose="finding the tasks of a run",
        without="tasks are found by the run's log only",
        condition=IN_CLUSTER,
    ),
    Permission(
        action="ecs:DescribeTasks",
        statement="SeeTasks",
        on=On.TASKS,
        where="the clusters' tasks",
        purpose="the timeline, the stop reason and the exit codes",
        without="what an agent wrote about a task is shown",
    ),
    Permission(
        action="ecs:DescribeTaskDefinition",
        statement="SeeDefinitions",
        on=On.DESCRIBED,
        where=_EVERYTHING,
        purpose="the request, and where containers log",
        without="neither is shown",
    ),
    Permission(
        action="logs:GetLogEvents",
        statement="ReadTaskLogs",
        on=On.LOGS,
        where="the flow runs' log groups",
        purpose="the last log lines, and `logs`",
        without="`explain` shows the run's log at the Prefect API, `logs` fails",
    ),
    Permission(
        action="ecs:ExecuteCommand",
        statement="ExecuteCommands",
        on=On.TASKS,
        where=f"the clusters' tasks that have the tag `{FLOW_RUN_ID}`",
        purpose="`exec`",
        without="`exec` fails",
        condition=OF_A_RUN,
    ),
)
