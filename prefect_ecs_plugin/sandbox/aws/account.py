"""The account: ECS in its regions, and what moves the tasks in all of them.

Definitions and tasks are the sandbox's own, because moto gets them wrong; clusters,
container instances, capacity providers and services are moto's.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Callable, Dict, List, Mapping, Optional

from botocore import loaders, model, validate

from .. import access
from .buckets import Limits
from .definitions import Definitions, Tags
from .lifecycle import BeforeStart, Lifecycle, Phases, Runner, Slots, Timers
from .other_services import ACCOUNT, Moto, OtherServices
from .responses import THROTTLED, FaultHook, Refusal, bad_parameter, check_region
from .running import ProcessRunner, default_most
from .task import Events, Task
from .tasks import Tasks

Handler = Callable[[Mapping[str, Any]], Dict[str, Any]]

# Operations on tasks to which moto would respond with tasks that do not exist.
_NOT_SERVED = frozenset({"StartTask", "ExecuteCommand"})

# Operations on services, which are moto's but run definitions of ours. Their tasks
# are numbers that moto makes up: nothing runs.
_OF_SERVICES = frozenset({"CreateService", "UpdateService", "CreateTaskSet"})


@dataclass(eq=False, repr=False)
class Settings:
    """What an account is started with.

    Args:
        region: Where the default cluster is. Other regions are served, empty.
        runs_tasks: False: tasks go to RUNNING without a process.
        container_environment: What the "image" brings: PATH, HOME, ... The
            task definition's environment and overrides lie over it.
        limits: Refuse with ThrottlingException what is over AWS's documented
            token buckets.
        latency: Seconds to wait before an operation (`ecs.RunTask`) takes effect. It
            may be changed at any time, as the last three.
        task_seconds: Without processes: how long a task runs before it exits 0.
            None: until it is stopped.
        max_processes: How many tasks may run at once; further ones wait
            PROVISIONING. By default max(4, 2 x cpus) with processes, without: any
            number.
        phases: How long tasks stay in each state on their way.
        clock: Seconds that only grow, for the token buckets.
        now: The time of day in seconds since 1970.
        visible_after: Seconds for which DescribeTasks and ListTasks do not know a
            new task (ECS is eventually consistent).
        fault: Asked with operation and parameters before each request; its result,
            if any, is what goes wrong.
        before_start: Asked with the task before it starts; its result, if any, is
            how it fails (`StartFailure`) or waits (`Hold`).

    Attributes:
        access_key: Requests signed with any other are refused, but for those that
            this account's STS and IAM issue.
        secret_key: That key's secret, which AWS's clients sign with.
    """

    region: str = "us-east-1"
    runs_tasks: bool = True
    container_environment: Mapping[str, str] = field(default_factory=dict)
    limits: bool = False
    latency: Optional[Callable[[str], float]] = None
    task_seconds: Optional[float] = None
    max_processes: Optional[int] = None
    phases: Phases = field(default_factory=Phases)
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    visible_after: float = 0.0
    fault: Optional[FaultHook] = None
    before_start: Optional[BeforeStart] = None

    def __post_init__(self) -> None:
        self.access_key, self.secret_key = access.new_access_key()


class Account:
    """An account that starts empty but for the cluster `default`.

    Args:
        settings: What it is started with.
        url: Where its containers find their metadata, and AWS.
        events: Told what happens.

    Attributes:
        lock: Held whenever a task is changed.
    """

    def __init__(self, settings: Settings, url: str, events: Events) -> None:
        self.lock = threading.RLock()
        self.moto = Moto()
        self.settings = settings
        self._regions: Dict[str, RegionalECS] = {}
        self._timers = Timers()
        most = settings.max_processes
        if settings.runs_tasks:
            most = default_most() if most is None else most
            self.runner: Runner = ProcessRunner(
                self.lock,
                self._timers,
                events,
                settings.container_environment,
                url,
                self._other_services,
            )
        else:
            self.runner = Runner(self._timers, settings.task_seconds)
        self.lifecycle = Lifecycle(
            lock=self.lock,
            timers=self._timers,
            events=events,
            phases=settings.phases,
            slots=Slots(most),
            runner=self.runner,
            released=lambda task: self._other_services(task).leave(task),
            before_start=lambda task: (
                settings.before_start(task) if settings.before_start else None
            ),
            now=settings.now,
        )
        with ExitStack() as closing:
            closing.callback(self.close)
            self.region(settings.region).other_services.create_default_cluster()
            closing.pop_all()

    def close(self) -> None:
        """Kill everything that still runs."""
        self._timers.stop()
        self.runner.close()

    def region(self, name: str) -> RegionalECS:
        """ECS in that region.

        Raises:
            Refusal: There is no such region.
        """
        with self.lock:
            if name not in self._regions:
                self._regions[name] = RegionalECS(self, name)
            return self._regions[name]

    def knows_key(self, access_key: str) -> bool:
        """Whether requests may be signed with this key: the session's own, or one that
        its STS or IAM has issued."""
        own = self.settings.access_key
        return access.same(access_key, own) or self.moto.has_issued(access_key)

    def credentials(self) -> Dict[str, str]:
        """What the containers of a task with a role get."""
        settings = self.settings
        keys = {"AccessKeyId": settings.access_key}
        return {**keys, "SecretAccessKey": settings.secret_key}

    def tasks(self) -> List[Task]:
        """Every task there was, in the order of their launches."""
        regions = list(self._regions.values())
        return [task for region in regions for task in region.tasks.all()]

    def task(self, arn: str) -> Task:
        """A task by its ARN.

        Raises:
            KeyError: There is no such task.
        """
        for region in list(self._regions.values()):
            task = region.tasks.get(arn)
            if task is not None:
                return task
        raise KeyError(f"There is no task {arn}.")

    def _other_services(self, task: Task) -> OtherServices:
        return self.region(task.region).other_services


class RegionalECS:
    """ECS of one account in one region.

    Raises:
        Refusal: There is no such region.
    """

    def __init__(self, account: Account, region: str) -> None:
        settings = account.settings
        self._region = region
        arn_prefix = f"arn:aws:ecs:{region}:{ACCOUNT}:"
        self._limits = Limits(settings.clock) if settings.limits else None
        self.other_services = OtherServices(account.moto, region)
        self.definitions = Definitions(arn_prefix, settings.now)
        self.tasks = Tasks(
            arn_prefix,
            account.lock,
            self.definitions,
            self.other_services,
            account.lifecycle,
            self._throttle_launch,
            lambda: settings.visible_after,
            settings.now,
        )
        self._handlers: Dict[str, Handler] = {
            "RegisterTaskDefinition": self.definitions.register,
            "DeregisterTaskDefinition": self.definitions.deregister,
            "DescribeTaskDefinition": self.definitions.describe,
            "DeleteTaskDefinitions": self.definitions.delete,
            "ListTaskDefinitions": self.definitions.list,
            "ListTaskDefinitionFamilies": self.definitions.list_families,
            "RunTask": self.tasks.run,
            "StopTask": self.tasks.stop,
            "DescribeTasks": self.tasks.describe,
            "ListTasks": self.tasks.list,
        }
        self._tag_handlers: Dict[str, Handler] = {
            "TagResource": self._tag,
            "UntagResource": self._untag,
            "ListTagsForResource": lambda params: {"tags": list(self._tags(params))},
        }

    def throttle(self, operation: str) -> None:
        """Refuse a call that is one too many."""
        if self._limits and not self._limits.allow_call(operation):
            raise THROTTLED

    def _throttle_launch(self, provider: str, number: int) -> None:
        if self._limits and not self._limits.allow_launch(provider, number):
            raise THROTTLED

    def handler(self, operation: str, params: Mapping[str, Any]) -> Optional[Handler]:
        """What responds to this request; None: moto, told what it has to know."""
        if operation in _NOT_SERVED:
            message = f"The sandbox does not serve {operation}."
            raise Refusal("UnsupportedFeatureException", message)
        if operation in self._tag_handlers:
            ours = self._tagged(params["resourceArn"]) is not None
            return self._tag_handlers[operation] if ours else None
        if operation in _OF_SERVICES and "taskDefinition" in params:
            definition = self.definitions.runnable(params["taskDefinition"])
            self.other_services.show_definition(definition)
        if operation == "DescribeClusters":
            for name in params.get("clusters", ()):  # moto reads the short name only
                check_region(name, self._region)
            self.other_services.count_tasks(self.tasks.counts())
        return self._handlers.get(operation)

    def _tagged(self, arn: str) -> Optional[Tags]:
        """The tags of a task or a definition, None for other things."""
        task = self.tasks.get(arn)
        return task.tags if task else self.definitions.tags(arn)

    def _tags(self, params: Mapping[str, Any]) -> Tags:
        return self._tagged(params["resourceArn"]) or []

    def _tag(self, params: Mapping[str, Any]) -> Dict[str, Any]:
        tags = self._tags(params)
        merged = {tag["key"]: tag for tag in [*tags, *params["tags"]]}
        tags[:] = merged.values()
        return {}

    def _untag(self, params: Mapping[str, Any]) -> Dict[str, Any]:
        tags = self._tags(params)
        tags[:] = [tag for tag in tags if tag["key"] not in params["tagKeys"]]
        return {}


class Model:
    """What botocore's own model says a request may look like."""

    def __init__(self) -> None:
        self._service = _service_model()
        self._operations = frozenset(self._service.operation_names)
        self._validator = validate.ParamValidator()

    def check(self, operation: str, params: Mapping[str, Any]) -> None:
        """Refuse members that the model does not know, wrong types, missing members.

        ECS itself ignores unknown members and nulls, but AWS's own clients never send
        them. A request that contains one is a mistake, and the caller should see it.
        """
        if operation not in self._operations:
            raise Refusal("UnknownOperationException", f"There is no {operation}.")
        shape = self._service.operation_model(operation).input_shape
        report = self._validator.validate(params, shape)
        if report.has_errors():
            raise bad_parameter(" ".join(report.generate_report().split()))


@lru_cache(maxsize=None)
def _service_model() -> model.ServiceModel:
    """Botocore's model of ECS, which takes longer to read than all the rest."""
    description = loaders.Loader().load_service_model("ecs", "service-2")
    return model.ServiceModel(description, "ecs")
