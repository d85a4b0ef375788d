"""What the agent has to be allowed on AWS, as one table. Pure.

`install` prints it as a policy, `check` asks IAM about it, and docs/production.md shows
it. tests/cli/test_rights.py compares it with what the agent really calls. Each right is
as narrow as AWS lets it be:
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelasticcontainerservice.html
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple, Optional, Tuple

from ..template import FLOW_RUN_ID

#: The service that takes on the roles of tasks:
#: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-iam-roles.html
ECS_TASKS = "ecs-tasks.amazonaws.com"


class On(Enum):
    """What a right is granted on.

    `install` knows it as patterns, `check` as one example for each run. AWS takes
    nothing but `*` for REGISTERED, DESCRIBED, LISTED and NETWORK.
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


class Condition(NamedTuple):
    """What a request has to have, besides.

    Attributes:
        operator: IAM's name of the comparison.
        key: IAM's condition key.
        values: What it may be; empty for the ARN of the agent's cluster.
        example: What a request has there; by default the first of `values`.
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
class Right:
    """One action of AWS's that the agent has to be allowed.

    Attributes:
        action: Such as `ecs:RunTask`.
        statement: The name of the statement in the policy (its Sid).
        on: What it is granted on.
        where: The same for people, with the condition.
        purpose: What the agent does with it.
        without: What happens without it.
        is_needed: Whether runs fail without it.
        condition: What narrows it.
    """

    action: str
    statement: str
    on: On
    where: str
    purpose: str
    without: str
    is_needed: bool = False
    condition: Optional[Condition] = None


_EVERYTHING = "everything, for AWS takes nothing narrower"

#: What the agent's role has to be allowed.
AGENT: Tuple[Right, ...] = (
    Right(
        action="ecs:RunTask",
        statement="LaunchTasks",
        on=On.LAUNCHED,
        where="its families, in its cluster",
        purpose="launching",
        without="no run starts",
        is_needed=True,
        condition=IN_CLUSTER,
    ),
    Right(
        action="ecs:RegisterTaskDefinition",
        statement="RegisterTaskDefinitions",
        on=On.REGISTERED,
        where=_EVERYTHING,
        purpose="definitions, each registered once",
        without="no run starts",
        is_needed=True,
    ),
    Right(
        action="ecs:DescribeTaskDefinition",
        statement="FindTaskDefinitions",
        on=On.DESCRIBED,
        where=_EVERYTHING,
        purpose="finding definitions that are registered already",
        without="definitions are registered anew at each start",
    ),
    Right(
        action="ecs:DescribeTasks",
        statement="WatchTasks",
        on=On.TASKS,
        where="its cluster's tasks",
        purpose="why a task stopped",
        without="tasks are not watched",
    ),
    Right(
        action="ecs:ListTasks",
        statement="FindTasks",
        on=On.LISTED,
        where="its cluster",
        purpose="finding its tasks again after a restart",
        without="tasks are not found",
        condition=IN_CLUSTER,
    ),
    Right(
        action="ecs:StopTask",
        statement="StopTasks",
        on=On.TASKS,
        where=f"its cluster's tasks that have the tag `{FLOW_RUN_ID}`",
        purpose="runs that are cancelled",
        without="tasks are not stopped",
        condition=OF_A_RUN,
    ),
    Right(
        action="ecs:TagResource",
        statement="TagWhatItCreates",
        on=On.CREATED,
        where="its families and tasks, while they are created",
        purpose="the run's id on its task",
        without="tasks get no tags",
        condition=WHILE_CREATED,
    ),
    Right(
        action="ecs:DescribeClusters",
        statement="SeeCluster",
        on=On.CLUSTER,
        where="its cluster",
        purpose="a warning at its start",
        without="no warning about a cluster that is not there",
    ),
    Right(
        action="iam:PassRole",
        statement="PassRolesToTasks",
        on=On.ROLES,
        where="the roles it was told, to ECS tasks only",
        purpose="the roles of your tasks",
        without="no run starts",
        is_needed=True,
        condition=TO_ECS_TASKS,
    ),
    Right(
        action="ec2:DescribeVpcs",
        statement="FindDefaultVpc",
        on=On.NETWORK,
        where=_EVERYTHING,
        purpose="the default VPC, only where no `networkConfiguration` is given",
        without="runs in network mode awsvpc fail",
        is_needed=True,
    ),
    Right(
        action="ec2:DescribeSubnets",
        statement="FindDefaultSubnets",
        on=On.NETWORK,
        where=_EVERYTHING,
        purpose="its subnets, only where no `networkConfiguration` is given",
        without="runs in network mode awsvpc fail",
        is_needed=True,
    ),
    Right(
        action="logs:GetLogEvents",
        statement="ReadTaskLogs",
        on=On.LOGS,
        where="the flow runs' log groups",
        purpose="the last lines of a task that failed",
        without="no logs of failed tasks",
    ),
    Right(
        action="s3:GetObject",
        statement="ReadTemplates",
        on=On.FILES,
        where="the files of `--task-definition` and `--run-task-kwargs` on S3",
        purpose="reading them",
        without="the agent does not start",
        is_needed=True,
    ),
)
