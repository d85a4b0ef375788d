"""One task: ECS's record of it, its description by DescribeTasks, its view for tests,
and the events of its changes."""

from __future__ import annotations

import logging
import queue
import threading
import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Callable, Deque, Dict, List, Mapping, Optional, Tuple, Union

Tags = List[Dict[str, str]]
logger = logging.getLogger(__name__)

# How many of a task's last lines are kept for `TaskView.lines`.
KEPT_LINES = 10_000

PROVISIONING = "PROVISIONING"
PENDING = "PENDING"
ACTIVATING = "ACTIVATING"
RUNNING = "RUNNING"
DEACTIVATING = "DEACTIVATING"
STOPPING = "STOPPING"
DEPROVISIONING = "DEPROVISIONING"
STOPPED = "STOPPED"

#: The states in which a task is still on its way to RUNNING.
STARTING = frozenset({PROVISIONING, PENDING, ACTIVATING})


@dataclass
class Container:
    """A container of a task.

    Attributes:
        definition: Its definition in the task definition.
        override: What the RunTask request says of it, perhaps nothing.
        token: Identifies it in the metadata endpoint's URL; it cannot be guessed.
    """

    definition: Mapping[str, Any]
    override: Mapping[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    last_status: str = PENDING
    exit_code: Optional[int] = None
    reason: Optional[str] = None

    @property
    def name(self) -> str:
        """`flow`, or a sidecar's name."""
        return str(self.definition["name"])

    @property
    def essential(self) -> bool:
        """Whether the task stops with it."""
        return bool(self.definition.get("essential", True))


@dataclass
class Task:
    """A task as ECS keeps it; changed only by the lifecycle, under its lock.

    Attributes:
        request: The RunTask request that made it.
        definition: The task definition as described.
        capacity_provider: FARGATE, FARGATE_SPOT or another; None for a launch type.
        instance: Moto's container instance, for EC2.
        needs: CPU units and MiB it takes from that instance.
        attachment: What it has of the network, None unless awsvpc.
    """

    arn: str
    cluster: str
    cluster_arn: str
    definition: Mapping[str, Any]
    request: Mapping[str, Any]
    launch_type: str
    created_at: float
    containers: Dict[str, Container]
    tags: Tags = field(default_factory=list)
    capacity_provider: Optional[str] = None
    instance: Any = None
    needs: Mapping[str, int] = field(default_factory=dict)
    attachment: Optional[Dict[str, Any]] = None
    availability_zone: str = ""
    last_status: str = PROVISIONING
    desired_status: str = RUNNING
    stop_code: Optional[str] = None
    stopped_reason: Optional[str] = None
    times: Dict[str, Any] = field(default_factory=dict)
    version: int = 1
    holds_slot: bool = False
    lines: Deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))

    @property
    def id(self) -> str:
        """The last part of the ARN."""
        return self.arn.rpartition("/")[2]

    @property
    def region(self) -> str:
        """The region in the ARN."""
        return self.arn.split(":")[3]

    @property
    def on_fargate(self) -> bool:
        """Whether Fargate runs it."""
        return self.launch_type == "FARGATE"

    @property
    def started_by(self) -> Optional[str]:
        """The request's startedBy."""
        return self.request.get("startedBy")

    @property
    def stop_timeout(self) -> float:
        """Seconds between SIGTERM and SIGKILL: the longest of its containers'."""
        return max(
            float(container.definition.get("stopTimeout", 30))
            for container in self.containers.values()
        )

    def describe(self, with_tags: bool = True) -> Dict[str, Any]:
        """The task as RunTask, DescribeTasks and StopTask answer it."""
        described = {
            **self._facts(),
            **self.times,
            "containers": [
                self._container(container) for container in self.containers.values()
            ],
            "tags": list(self.tags) if with_tags else [],
        }
        return {key: value for key, value in described.items() if value is not None}

    def _facts(self) -> Dict[str, Any]:
        overrides = self.request.get("overrides", {})
        platform_version = self.request.get("platformVersion", "LATEST")
        storage = self.definition.get("ephemeralStorage", {"sizeInGiB": 20})
        on_fargate = {
            "ephemeralStorage": dict(overrides.get("ephemeralStorage", storage)),
            "platformFamily": _platform_family(self.definition),
            "platformVersion": (
                "1.4.0" if platform_version == "LATEST" else platform_version
            ),
        }
        return {
            "attachments": [dict(self.attachment)] if self.attachment else [],
            "attributes": [_architecture(self.definition)],
            "availabilityZone": self.availability_zone or None,
            "capacityProviderName": self.capacity_provider,
            "clusterArn": self.cluster_arn,
            "containerInstanceArn": getattr(
                self.instance, "container_instance_arn", None
            ),
            "cpu": overrides.get("cpu", self.definition.get("cpu")),
            "createdAt": self.created_at,
            "desiredStatus": self.desired_status,
            "enableExecuteCommand": self.request.get("enableExecuteCommand", False),
            "group": self.request.get("group", f"family:{self.definition['family']}"),
            "healthStatus": "UNKNOWN",
            "lastStatus": self.last_status,
            "launchType": self.launch_type,
            "memory": overrides.get("memory", self.definition.get("memory")),
            "overrides": self._overrides(),
            "startedBy": self.started_by,
            "stopCode": self.stop_code,
            "stoppedReason": self.stopped_reason,
            "taskArn": self.arn,
            "taskDefinitionArn": self.definition["taskDefinitionArn"],
            "version": self.version,
            **(on_fargate if self.on_fargate else {}),
        }

    def _overrides(self) -> Dict[str, Any]:
        """As given; ECS names the containers that have no override, too."""
        return {
            "inferenceAcceleratorOverrides": [],
            **self.request.get("overrides", {}),
            "containerOverrides": [
                {"name": container.name, **container.override}
                for container in self.containers.values()
            ],
        }

    def _container(self, container: Container) -> Dict[str, Any]:
        arn = self.arn.replace(":task/", ":container/")
        described = {
            "containerArn": f"{arn}/{container.id}",
            "taskArn": self.arn,
            "name": container.name,
            "image": container.definition["image"],
            "lastStatus": container.last_status,
            "exitCode": container.exit_code,
            "reason": container.reason,
            "networkBindings": [],
            "networkInterfaces": self._interfaces(),
            "healthStatus": "UNKNOWN",
            "cpu": str(container.definition.get("cpu", 0)),
            "memory": _text(container.definition.get("memory")),
            "memoryReservation": _text(container.definition.get("memoryReservation")),
        }
        return {key: value for key, value in described.items() if value is not None}

    def _interfaces(self) -> List[Dict[str, str]]:
        if self.attachment is None or "id" not in self.attachment:
            return []
        details = {item["name"]: item["value"] for item in self.attachment["details"]}
        if "privateIPv4Address" not in details:
            return []
        return [
            {
                "attachmentId": self.attachment["id"],
                "privateIpv4Address": details["privateIPv4Address"],
            }
        ]


def _platform_family(definition: Mapping[str, Any]) -> str:
    """`Linux`, or a Windows as DescribeTasks spells it."""
    family = definition.get("runtimePlatform", {}).get("operatingSystemFamily")
    words = str(family or "LINUX").split("_")
    return "_".join(word.capitalize() for word in words)


def _architecture(definition: Mapping[str, Any]) -> Dict[str, str]:
    """The attribute of a task that names its architecture."""
    architecture = definition.get("runtimePlatform", {}).get("cpuArchitecture")
    value = str(architecture or "x86_64").lower()
    return {"name": "ecs.cpu-architecture", "value": value}


def _text(value: Any) -> Optional[str]:
    return None if value is None else str(value)


@dataclass(frozen=True)
class TaskView:
    """A task as it was at one moment.

    Attributes:
        container: The container that runs the flow (`flow`, else the first one);
            exit_code and container_reason are its own.
        created_at: Seconds since 1970, as started_at and stopped_at.
        lines: What the container wrote, stdout and stderr together.
        description: The whole task as DescribeTasks shows it.
    """

    task_arn: str
    cluster: str
    definition_arn: str
    started_by: Optional[str]
    launch_type: str
    capacity_provider: Optional[str]
    last_status: str
    desired_status: str
    container: str
    exit_code: Optional[int]
    container_reason: Optional[str]
    stop_code: Optional[str]
    stopped_reason: Optional[str]
    created_at: float
    started_at: Optional[float]
    stopped_at: Optional[float]
    lines: Tuple[str, ...] = ()
    description: Mapping[str, Any] = field(default_factory=dict, repr=False)


def main_container(task: Task) -> Container:
    """`flow`, else the task's first container."""
    first = next(iter(task.containers.values()))
    return task.containers.get("flow", first)


def view(task: Task) -> TaskView:
    """The task as it is now."""
    container = main_container(task)
    return TaskView(
        task_arn=task.arn,
        cluster=task.cluster,
        definition_arn=task.definition["taskDefinitionArn"],
        started_by=task.started_by,
        launch_type=task.launch_type,
        capacity_provider=task.capacity_provider,
        last_status=task.last_status,
        desired_status=task.desired_status,
        container=container.name,
        exit_code=container.exit_code,
        container_reason=container.reason,
        stop_code=task.stop_code,
        stopped_reason=task.stopped_reason,
        created_at=task.created_at,
        started_at=task.times.get("startedAt"),
        stopped_at=task.times.get("stoppedAt"),
        lines=tuple(task.lines),
        description=task.describe(),
    )


@dataclass(frozen=True)
class TaskChanged:
    """A task has another status than before; `task` is how it was then."""

    task: TaskView


@dataclass(frozen=True)
class LineWritten:
    """A container wrote a line.

    Attributes:
        at: Seconds since 1970.
    """

    task_arn: str
    started_by: Optional[str]
    container: str
    line: str
    at: float


Event = Union[TaskChanged, LineWritten]
Subscriber = Callable[[Event], None]


class Events:
    """Delivers events on a thread of its own, so that subscribers delay no caller.

    Args:
        subscribers: Called with every event; the list may grow.
    """

    def __init__(self, subscribers: List[Subscriber]) -> None:
        self._subscribers = subscribers
        self._queue: queue.SimpleQueue[Optional[Event]] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._deliver, name="sandbox-aws-events", daemon=True
        )
        self._thread.start()

    @property
    def wanted(self) -> bool:
        """Whether there is a subscriber."""
        return bool(self._subscribers)

    def publish(self, event: Event) -> None:
        """Deliver it to every subscriber, soon."""
        self._queue.put(event)

    def stop(self) -> None:
        """Deliver what is still waiting, and end."""
        self._queue.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=10)

    def _deliver(self) -> None:
        while True:
            event = self._queue.get()
            if event is None:
                return
            for subscriber in list(self._subscribers):
                try:
                    subscriber(event)
                except Exception:  # the other subscribers get the event all the same
                    logger.exception("A subscriber of the sandbox's events failed.")
