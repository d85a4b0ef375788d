"""Where a task runs: a launch type or a capacity provider, perhaps an instance."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from .ecs_limits import FARGATE_PROVIDERS, cpu_units, memory_mib
from .other_services import OtherServices
from .responses import bad_parameter


class NoCapacity(Exception):
    """No container instance has capacity: RunTask answers `failures` and no task.

    Args:
        failures: One for each instance.
    """

    def __init__(self, failures: List[Dict[str, str]]) -> None:
        super().__init__(failures)
        self.failures = failures


@dataclass(frozen=True)
class Place:
    """Where one task goes.

    Attributes:
        instance: Moto's container instance; None on Fargate, and for a capacity
            provider whose instances have not come up yet.
        waits: The task stays PROVISIONING until there are instances.
    """

    launch_type: str
    capacity_provider: Optional[str] = None
    instance: Any = None
    waits: bool = False


def places(
    request: Mapping[str, Any],
    cluster: Any,
    needs: Mapping[str, int],
    other_services: OtherServices,
) -> Iterator[Place]:
    """A place for each task of the request, found one after the other.

    Raises:
        Refusal: The strategy names a provider that the cluster lacks, or there is
            no container instance at all.
        NoCapacity: There are instances, and none has what the task needs.
    """
    launch_type = request.get("launchType")
    strategy = request.get("capacityProviderStrategy") or []
    if not launch_type and not strategy:
        strategy = cluster.default_capacity_provider_strategy or []
    _check_strategy(strategy, cluster)
    counts: Counter[str] = Counter()
    for _ in range(request.get("count", 1)):
        provider = _next_provider(strategy, counts)
        yield _place(launch_type, provider, cluster, needs, other_services)


def needs_of(
    request: Mapping[str, Any], definition: Mapping[str, Any]
) -> Dict[str, int]:
    """CPU units and MiB that a task takes from an instance."""
    overrides = request.get("overrides", {})
    containers = definition["containerDefinitions"]
    cpu = cpu_units(overrides.get("cpu", definition.get("cpu")))
    memory = memory_mib(overrides.get("memory", definition.get("memory")))
    if cpu is None:
        cpu = sum(container.get("cpu") or 0 for container in containers)
    if memory is None:
        memory = sum(
            each.get("memoryReservation") or each.get("memory") or 0
            for each in containers
        )
    return {"CPU": cpu, "MEMORY": memory}


def _check_strategy(strategy: Sequence[Mapping[str, Any]], cluster: Any) -> None:
    associated = cluster.capacity_providers or []
    if any(item["capacityProvider"] not in associated for item in strategy):
        # The words: https://github.com/dask/dask-cloudprovider/issues/328
        raise bad_parameter(
            "The specified capacity provider strategy cannot contain a capacity "
            "provider that is not associated with the cluster. Associate the capacity "
            "provider with the cluster or specify a valid capacity provider and try "
            "again.",
        )


def _next_provider(
    strategy: Sequence[Mapping[str, Any]], counts: Counter[str]
) -> Optional[str]:
    """First the one whose base is not reached, then by weight."""
    if not strategy:
        return None
    short = [item for item in strategy if counts[_name(item)] < item.get("base", 0)]
    weighed = [item for item in strategy if item.get("weight", 0) > 0]
    if short:
        chosen = short[0]
    elif weighed:
        chosen = min(
            weighed,
            key=lambda item: (
                (counts[_name(item)] - item.get("base", 0)) / item["weight"]
            ),
        )
    else:
        chosen = strategy[0]  # a single provider may have no weight
    counts[_name(chosen)] += 1
    return _name(chosen)


def _name(item: Mapping[str, Any]) -> str:
    return str(item["capacityProvider"])


def _place(
    launch_type: Optional[str],
    provider: Optional[str],
    cluster: Any,
    needs: Mapping[str, int],
    other_services: OtherServices,
) -> Place:
    if launch_type == "FARGATE" or provider in FARGATE_PROVIDERS:
        return Place("FARGATE", provider)
    instances = other_services.container_instances(cluster.name)
    failures = []
    for instance in instances:
        lacking = _lacking(instance, needs)
        if lacking is None:
            other_services.occupy(instance, needs, leave=False)
            return Place(launch_type or "EC2", provider, instance)
        failures.append(
            {"arn": instance.container_instance_arn, "reason": f"RESOURCE:{lacking}"}
        )
    if provider is not None:
        return Place("EC2", provider, waits=True)
    if not instances:
        # The words: https://github.com/aws/amazon-ecs-cli/issues/1122
        raise bad_parameter(
            "No Container Instances were found in your cluster.",
        )
    raise NoCapacity(failures)


def _lacking(instance: Any, needs: Mapping[str, int]) -> Optional[str]:
    """CPU or MEMORY, whichever the instance has too little of."""
    remaining = {
        resource["name"]: resource["integerValue"]
        for resource in instance.remaining_resources
    }
    for name, need in needs.items():
        if remaining[name] < need:
            return name
    return None
