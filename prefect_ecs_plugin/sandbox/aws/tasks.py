"""RunTask, StopTask, DescribeTasks and ListTasks."""

from __future__ import annotations

import json
import threading
import uuid
from collections import Counter
from dataclasses import dataclass
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Tuple,
)

from . import ecs_limits
from .definitions import Definitions
from .lifecycle import USER_INITIATED, Lifecycle
from .other_services import OtherServices
from .placement import NoCapacity, Place, needs_of, places
from .responses import Refusal, bad_parameter, check_region, page
from .task import RUNNING, Container, Task

#: A stopped task can be described for about an hour.
REMEMBERED = 3600.0

_ALONE = ("containerInstance", "family", "serviceName", "launchType")


@dataclass
class Tasks:
    """The tasks of one account in one region.

    Attributes:
        arn_prefix: `arn:aws:ecs:REGION:ACCOUNT:`.
        lock: Held whenever a task is changed.
        throttle_launch: Told provider and number before a launch on Fargate.
        visible_after: How many seconds a new task is MISSING for describing and
            listing calls.
    """

    arn_prefix: str
    lock: threading.RLock
    definitions: Definitions
    other_services: OtherServices
    lifecycle: Lifecycle
    throttle_launch: Callable[[str, int], None]
    visible_after: Callable[[], float]
    now: Callable[[], float]

    def __post_init__(self) -> None:
        self._tokens = ClientTokens(self.now)
        self._tasks: Dict[str, Task] = {}

    # Operations

    def run(self, params: Mapping[str, Any]) -> Dict[str, Any]:
        """RunTask."""
        with self.lock:
            cluster = self.other_services.active_cluster(params.get("cluster"))
            earlier = self._tokens.earlier(cluster.name, params)
            if earlier is None:
                try:
                    earlier = self._launch(cluster, params)
                except NoCapacity as no_capacity:
                    return {"tasks": [], "failures": no_capacity.failures}
            return {
                "tasks": [self._tasks[arn].describe() for arn in earlier],
                "failures": [],
            }

    def stop(self, params: Mapping[str, Any]) -> Dict[str, Any]:
        """StopTask; of a stopped task it only says so."""
        with self.lock:
            cluster = self.other_services.active_cluster(params.get("cluster"))
            task = self._find(cluster.name, params["task"])
            if task is None:
                raise bad_parameter("The referenced task was not found.")
            reason = params.get("reason", "Task stopped by user")
            self.lifecycle.stop(task, USER_INITIATED, reason)
            return {"task": task.describe()}

    def execute_command(self, params: Mapping[str, Any]) -> Dict[str, Any]:
        """ExecuteCommand; nothing listens at the URL of the session."""
        with self.lock:
            cluster = self.other_services.active_cluster(params.get("cluster"))
            task = self._find(cluster.name, params["task"])
            if task is None:
                raise bad_parameter("The referenced task was not found.")
            name = params.get("container") or next(iter(task.containers))
            if name not in task.containers:
                raise bad_parameter("The container was not found in the task.")
            described = task.describe()
            if task.last_status != RUNNING or not described["enableExecuteCommand"]:
                raise bad_parameter(
                    "The execute command failed because execute command was not "
                    "enabled when the task was run or the execute command agent "
                    "isn't running. Wait and try again or run a new task with execute "
                    "command enabled and try again."
                )
            session = f"ecs-execute-command-{uuid.uuid4().hex[:17]}"
            return {
                "clusterArn": task.cluster_arn,
                "containerName": name,
                "interactive": params["interactive"],
                "session": {
                    "sessionId": session,
                    "streamUrl": f"wss://127.0.0.1/v1/data-channel/{session}",
                    "tokenValue": uuid.uuid4().hex,
                },
                "taskArn": task.arn,
            }

    def describe(self, params: Mapping[str, Any]) -> Dict[str, Any]:
        """DescribeTasks: a hundred at most, MISSING for those it does not know."""
        names = params["tasks"]
        if not 1 <= len(names) <= 100:
            raise bad_parameter("Tasks can have 1 to 100 items.")
        with_tags = "TAGS" in params.get("include", ())
        with self.lock:
            cluster = self.other_services.active_cluster(params.get("cluster"))
            tasks, failures = [], []
            for name in names:
                task = self._find(cluster.name, name)
                if task and self._is_visible(task):
                    tasks.append(task.describe(with_tags))
                else:
                    arn = self._arn(cluster.name, name)
                    failures.append({"arn": arn, "reason": "MISSING"})
        return {"tasks": tasks, "failures": failures}

    def list(self, params: Mapping[str, Any]) -> Dict[str, Any]:
        """ListTasks: the RUNNING ones unless told otherwise; startedBy goes alone."""
        if "startedBy" in params and any(name in params for name in _ALONE):
            raise bad_parameter(
                "startedBy must be the only filter that is specified.",
            )
        with self.lock:
            cluster = self.other_services.active_cluster(params.get("cluster"))
            arns = [
                task.arn
                for task in self._tasks.values()
                if task.cluster == cluster.name
                and self._is_visible(task)
                and all(want == have for want, have in _wanted(task, params))
            ]
        return page(arns, params, "taskArns")

    # For other modules of the sandbox

    def all(self) -> List[Task]:
        """Every task there was, the forgotten ones included."""
        with self.lock:
            return list(self._tasks.values())

    def get(self, arn: str) -> Optional[Task]:
        """A task by its ARN."""
        return self._tasks.get(arn)

    def counts(self) -> Dict[str, Counter[str]]:
        """How many RUNNING and PENDING tasks DescribeClusters shows, by cluster."""
        counts: Dict[str, Counter[str]] = {}
        for task in self.all():
            running = "RUNNING" if task.last_status == RUNNING else "PENDING"
            if task.desired_status == RUNNING:
                counts.setdefault(task.cluster, Counter())[running] += 1
        return counts

    # RunTask

    def _launch(self, cluster: Any, params: Mapping[str, Any]) -> List[str]:
        definition = self.definitions.runnable(params["taskDefinition"])
        self._check(params, definition)
        needs = needs_of(params, definition)
        found = list(_all_or_none(cluster, params, needs, self.other_services))
        self._throttle(found)
        tasks = [
            self._task(cluster, params, definition, needs, place) for place in found
        ]
        arns = [task.arn for task in tasks]
        self._tokens.remember(cluster.name, params, arns)
        for task, place in zip(tasks, found):
            self._tasks[task.arn] = task
            if not place.waits:
                self.lifecycle.launch(task)
        return arns

    def _check(self, params: Mapping[str, Any], definition: Mapping[str, Any]) -> None:
        refusal = ecs_limits.run_task_refusal(params, definition)
        if refusal is not None:
            raise bad_parameter(refusal)
        network = _awsvpc(params)
        if network:
            self.other_services.check_network(
                network["subnets"], network.get("securityGroups", [])
            )

    def _throttle(self, found: List[Place]) -> None:
        providers = Counter(
            place.capacity_provider or "FARGATE"
            for place in found
            if place.launch_type == "FARGATE"
        )
        for provider, number in providers.items():
            self.throttle_launch(provider, number)

    def _task(
        self,
        cluster: Any,
        params: Mapping[str, Any],
        definition: Mapping[str, Any],
        needs: Mapping[str, int],
        place: Place,
    ) -> Task:
        network = _awsvpc(params)
        task = Task(
            arn=self._arn(cluster.name, uuid.uuid4().hex),
            cluster=cluster.name,
            cluster_arn=cluster.arn,
            definition=definition,
            request=params,
            launch_type=place.launch_type,
            created_at=self.now(),
            containers=_containers(params, definition),
            tags=self._tags(cluster.name, params, definition),
            capacity_provider=place.capacity_provider,
            instance=place.instance,
            needs=needs,
        )
        if network:
            subnet = network["subnets"][0]
            task.attachment = _attachment(subnet, len(self._tasks))
            task.availability_zone = self.other_services.availability_zone(subnet)
        return task

    def _tags(
        self, cluster: str, params: Mapping[str, Any], definition: Mapping[str, Any]
    ) -> List[Dict[str, str]]:
        tags: Dict[str, str] = {}
        if params.get("enableECSManagedTags"):
            tags["aws:ecs:clusterName"] = cluster
        if params.get("propagateTags") == "TASK_DEFINITION":
            inherited = self.definitions.tags(definition["taskDefinitionArn"]) or []
            tags.update((tag["key"], tag.get("value", "")) for tag in inherited)
        tags.update(
            (tag["key"], tag.get("value", "")) for tag in params.get("tags", [])
        )
        return [{"key": key, "value": value} for key, value in tags.items()]

    # Finding

    def _arn(self, cluster: str, name: str) -> str:
        is_arn = name.startswith("arn:")
        return name if is_arn else f"{self.arn_prefix}task/{cluster}/{name}"

    def _find(self, cluster: str, name: str) -> Optional[Task]:
        """By ARN or id.

        Raises:
            Refusal: The ARN names another cluster or another region.
        """
        check_region(name, self.arn_prefix.split(":")[3])
        of = name.split("/")[1] if name.count("/") == 2 else cluster
        if of != cluster:
            raise bad_parameter(
                f"Invalid identifier: Identifier is for cluster {of}. "
                f"Your cluster is {cluster}",
            )
        return self._tasks.get(self._arn(cluster, name))

    def _is_visible(self, task: Task) -> bool:
        now = self.now()
        stopped_at = task.times.get("stoppedAt", now)
        new = now - task.created_at < self.visible_after()
        return not new and now - stopped_at <= REMEMBERED


def _all_or_none(
    cluster: Any,
    params: Mapping[str, Any],
    needs: Mapping[str, int],
    other_services: OtherServices,
) -> List[Place]:
    """Places for all tasks; if one finds no capacity, the others' places are freed."""
    found: List[Place] = []
    try:
        for place in places(params, cluster, needs, other_services):
            found.append(place)
    except (NoCapacity, Refusal):
        for place in found:
            if place.instance is not None:
                other_services.occupy(place.instance, needs, leave=True)
        raise
    return found


def _wanted(task: Task, params: Mapping[str, Any]) -> Iterator[Tuple[Any, Any]]:
    yield params.get("desiredStatus", RUNNING), task.desired_status
    if "startedBy" in params:
        yield params["startedBy"], task.started_by
    if "family" in params:
        yield params["family"], task.definition["family"]
    if "launchType" in params:
        yield params["launchType"], task.launch_type
    if "containerInstance" in params:
        arn = getattr(task.instance, "container_instance_arn", "")
        yield params["containerInstance"].rpartition("/")[2], arn.rpartition("/")[2]
    if "serviceName" in params:
        yield params["serviceName"], None  # a task that RunTask made has no service


def _awsvpc(params: Mapping[str, Any]) -> Dict[str, Any]:
    configuration = params.get("networkConfiguration", {})
    return dict(configuration.get("awsvpcConfiguration", {}))


def _containers(
    params: Mapping[str, Any], definition: Mapping[str, Any]
) -> Dict[str, Container]:
    overrides = params.get("overrides", {}).get("containerOverrides", [])
    by_name = {override.get("name"): override for override in overrides}
    return {
        container["name"]: Container(container, by_name.get(container["name"], {}))
        for container in definition["containerDefinitions"]
    }


def _attachment(subnet: str, number: int) -> Dict[str, Any]:
    """An ENI, as DescribeTasks shows it; it is not in EC2 (moto)."""
    address = f"172.31.{number // 250 % 256}.{number % 250 + 4}"
    details = {
        "subnetId": subnet,
        "networkInterfaceId": f"eni-{number:017x}",
        "privateIPv4Address": address,
    }
    return {
        "id": str(uuid.uuid4()),
        "type": "ElasticNetworkInterface",
        "status": "PRECREATED",
        "details": [{"name": name, "value": value} for name, value in details.items()],
    }


#: Seconds, see https://docs.aws.amazon.com/AmazonECS/latest/APIReference/ECS_Idempotency.html
TOKEN_LIFETIME = 24 * 3600.0


class ClientTokens:
    """The launches that tokens stand for, by cluster: the same launch is made once.

    Args:
        now: The time of day in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        # (cluster, token) -> fingerprint of the request, ARNs, time
        self._launches: Dict[Tuple[str, str], Tuple[str, List[str], float]] = {}

    def earlier(self, cluster: str, request: Mapping[str, Any]) -> Optional[List[str]]:
        """The tasks of the same launch made before, None if there was none.

        Raises:
            Refusal: ConflictException: the token stands for another request.
        """
        launch = self._launches.get((cluster, request.get("clientToken", "")))
        if launch is None or self._now() - launch[2] > TOKEN_LIFETIME:
            return None
        fingerprint, task_arns, _ = launch
        if fingerprint != _fingerprint(request):
            raise Refusal(
                "ConflictException",
                "The RunTask request could not be processed due to conflicts. The "
                "provided clientToken is already in use with a different RunTask "
                "request. The resourceIds are the existing task ARNs which are "
                "already associated with the clientToken.",
                resourceIds=list(task_arns),
            )
        return task_arns

    def remember(
        self, cluster: str, request: Mapping[str, Any], task_arns: List[str]
    ) -> None:
        """These tasks have been made for the request."""
        token = request.get("clientToken")
        if token:
            launch = (_fingerprint(request), task_arns, self._now())
            self._launches[cluster, token] = launch


def _fingerprint(request: Mapping[str, Any]) -> str:
    """The request without its cluster, which has several spellings."""
    rest = {name: value for name, value in request.items() if name != "cluster"}
    return json.dumps(rest, sort_keys=True)
