"""ECS in one region: which operation is whose.

Definitions and tasks are ours, being what moto gets wrong; clusters, container
instances, capacity providers and services are moto's.
"""

from __future__ import annotations

import threading
from typing import Any, Callable, Dict, Mapping, Optional

from botocore import loaders, model, validate

from .answers import THROTTLED, Refusal
from .buckets import Limits
from .definitions import Definitions, Tags
from .lifecycle import Lifecycle
from .neighbours import ACCOUNT, Moto, OtherServices
from .regions import check_region
from .tasks import Tasks

Handler = Callable[[Mapping[str, Any]], Dict[str, Any]]

# Operations on tasks that moto would answer with tasks that do not exist.
_NOT_SERVED = frozenset({"StartTask", "ExecuteCommand"})

# Operations on services, which are moto's but run definitions of ours. Their tasks
# are numbers that moto makes up: nothing runs.
_OF_SERVICES = frozenset({"CreateService", "UpdateService", "CreateTaskSet"})


class Model:
    """What botocore's own model says a request may look like."""

    def __init__(self) -> None:
        description = loaders.Loader().load_service_model("ecs", "service-2")
        self._service = model.ServiceModel(description, "ecs")
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
            sentence = " ".join(report.generate_report().split())
            raise Refusal("InvalidParameterException", sentence)


class RegionalECS:
    """ECS of one account in one region.

    Args:
        region: Which region.
        lock: Held whenever a task is changed.
        limited: Whether AWS's request limits hold.
        visible_after: How many seconds a new task is MISSING.
        clock: Seconds that only grow, for the limits.
        now: The time of day in seconds since 1970.

    Raises:
        Refusal: There is no such region.
    """

    def __init__(
        self,
        region: str,
        lock: threading.RLock,
        moto: Moto,
        lifecycle: Lifecycle,
        limited: bool,
        visible_after: Callable[[], float],
        clock: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self._region = region
        arn_prefix = f"arn:aws:ecs:{region}:{ACCOUNT}:"
        self._limits = Limits(clock) if limited else None
        self.neighbours = OtherServices(moto, region)
        self.definitions = Definitions(arn_prefix, now)
        self.tasks = Tasks(
            arn_prefix,
            lock,
            self.definitions,
            self.neighbours,
            lifecycle,
            self._throttle_launch,
            visible_after,
            now,
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
            "ListTagsForResource": self._list_tags,
        }

    def throttle(self, operation: str) -> None:
        """Refuse a call that is one too many."""
        if self._limits and not self._limits.allow_call(operation):
            raise THROTTLED

    def _throttle_launch(self, provider: str, number: int) -> None:
        if self._limits and not self._limits.allow_launch(provider, number):
            raise THROTTLED

    def handler(self, operation: str, params: Mapping[str, Any]) -> Optional[Handler]:
        """Who answers this request; None: moto, told what it has to know."""
        if operation in _NOT_SERVED:
            raise Refusal(
                "UnsupportedFeatureException",
                f"The sandbox does not serve {operation}.",
            )
        if operation in self._tag_handlers:
            ours = self._tags(params) is not None
            return self._tag_handlers[operation] if ours else None
        if operation in _OF_SERVICES and "taskDefinition" in params:
            definition = self.definitions.runnable(params["taskDefinition"])
            self.neighbours.show_definition(definition)
        if operation == "DescribeClusters":
            for name in params.get("clusters", ()):  # moto reads the short name only
                check_region(name, self._region)
            self.neighbours.count_tasks(self.tasks.counts())
        return self._handlers.get(operation)

    def _tags(self, params: Mapping[str, Any]) -> Optional[Tags]:
        """The tags of a task or a definition, None for other things."""
        arn = params["resourceArn"]
        task = self.tasks.get(arn)
        return task.tags if task else self.definitions.tags(arn)

    def _tag(self, params: Mapping[str, Any]) -> Dict[str, Any]:
        tags = self._tags(params) or []
        merged = {tag["key"]: tag for tag in [*tags, *params["tags"]]}
        tags[:] = merged.values()
        return {}

    def _untag(self, params: Mapping[str, Any]) -> Dict[str, Any]:
        tags = self._tags(params) or []
        tags[:] = [tag for tag in tags if tag["key"] not in params["tagKeys"]]
        return {}

    def _list_tags(self, params: Mapping[str, Any]) -> Dict[str, Any]:
        return {"tags": list(self._tags(params) or [])}
