"""CPU and memory of a task, and the sizes that Fargate has.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_definition_parameters.html#task_size
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html#fargate-tasks-size
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Dict, Mapping, Optional, Tuple, Union

from ...flow_run import FLOW_CONTAINER

Size = Union[int, float, str, None]

# CPU units to the MiB of memory that go with them.
FARGATE_SIZES: Dict[int, Tuple[int, ...]] = {
    256: (512, 1024, 2048),
    512: tuple(range(1024, 4096 + 1, 1024)),
    1024: tuple(range(2048, 8192 + 1, 1024)),
    2048: tuple(range(4096, 16384 + 1, 1024)),
    4096: tuple(range(8192, 30720 + 1, 1024)),
    8192: tuple(range(16384, 61440 + 1, 4096)),
    16384: tuple(range(32768, 122880 + 1, 8192)),
}

_UNITS_PER_VCPU = 1024
_MIB_PER_GB = 1024
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)\s*\Z", re.IGNORECASE)


def cpu_units(cpu: Size) -> Optional[int]:
    """CPU units of a task's `cpu`, or None where ECS cannot read it.

    Args:
        cpu: CPU units (`1024`, `"1024"`) or vCPUs (`"1 vCPU"`, `".5 vcpu"`).
    """
    return _amount(cpu, "vcpu", _UNITS_PER_VCPU)


def memory_mib(memory: Size) -> Optional[int]:
    """MiB of a task's `memory`, or None where ECS cannot read it.

    Args:
        memory: MiB (`2048`, `"2048"`) or GB (`"2 GB"`, `"0.5gb"`).
    """
    return _amount(memory, "gb", _MIB_PER_GB)


def _amount(size: Size, unit: str, factor: int) -> Optional[int]:
    if size is None or isinstance(size, bool):
        return None
    match = _AMOUNT.match(str(size))
    if match is None or match[2].lower() not in ("", unit):
        return None
    amount = Decimal(match[1]) * (factor if match[2] else 1)
    return int(amount) if amount == int(amount) else None


def fits_fargate(cpu: Size, memory: Size) -> bool:
    """Whether Fargate has tasks of exactly this cpu and memory."""
    units, mib = cpu_units(cpu), memory_mib(memory)
    return units is not None and mib in FARGATE_SIZES.get(units, ())


def may_be_on_fargate(cpu: Size, memory: Size) -> bool:
    """Whether Fargate has a size with a cpu, a memory, or both.

    Args:
        cpu: As it was written; None if it is not known.
        memory: Likewise.

    Returns:
        True too for what ECS cannot read: another rule reports that.
    """
    units, mib = cpu_units(cpu), memory_mib(memory)
    if (cpu is not None and units is None) or (memory is not None and mib is None):
        return True
    return any(
        units in (None, each) and (mib is None or mib in sizes)
        for each, sizes in FARGATE_SIZES.items()
    )


def beyond_the_table(cpu: Size, memory: Size) -> bool:
    """Whether one exceeds all sizes known here, so that AWS may have added it."""
    most = max(size for sizes in FARGATE_SIZES.values() for size in sizes)
    return (cpu_units(cpu) or 0) > max(FARGATE_SIZES) or (
        cpu is None and (memory_mib(memory) or 0) > most
    )


def more_memory(cpu: Size, memory: Size, most: int) -> Optional[Tuple[int, int]]:
    """The cpu and memory of a Fargate task with at least twice the memory.

    Args:
        cpu: The cpu so far; the new size has more only if the memory needs it.
        memory: The memory so far.
        most: How many MiB it may have; the largest size up to that, if twice the
            memory is more.

    Returns:
        CPU units and MiB; None if there is no size with more memory.
    """
    units, mib = cpu_units(cpu), memory_mib(memory)
    if units is None or mib is None:
        return None
    larger = [
        (each, size)
        for each, sizes in FARGATE_SIZES.items()
        for size in sizes
        if each >= units and mib < size <= most
    ]
    enough = [pair for pair in larger if pair[1] >= 2 * mib]
    if enough:
        return min(enough)
    return max(larger, key=lambda pair: (pair[1], -pair[0]), default=None)


def container_memory(
    overrides: Mapping[str, Any], definition: Mapping[str, Any]
) -> Optional[int]:
    """The hard limit of the flow's container in MiB, the override's before its own.

    Args:
        overrides: Those of a task, or of a RunTask request.
        definition: The task definition.
    """
    given = overrides.get("containerOverrides") or ()
    for container in [*given, *(definition.get("containerDefinitions") or ())]:
        if container.get("name") == FLOW_CONTAINER and container.get("memory"):
            return int(container["memory"])
    return None


def sizes_near(cpu: Size) -> str:
    """Which sizes Fargate has for `cpu`, as words for a message."""
    if cpu is None:
        return "memory must be one that goes with a cpu, such as 512, 2048 or 8192"
    memories = FARGATE_SIZES.get(cpu_units(cpu) or 0)
    if memories is None:
        return f"cpu must be one of {', '.join(map(str, FARGATE_SIZES))}"
    step = memories[-1] - memories[-2]
    span = f"{memories[0]} to {memories[-1]} in steps of {step}"
    if memories[1] - memories[0] != step:
        span = "one of " + ", ".join(map(str, memories))
    return f"for cpu {cpu_units(cpu)}, memory must be {span}"
