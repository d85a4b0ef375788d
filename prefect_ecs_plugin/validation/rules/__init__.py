"""What ECS accepts: tables and small functions, and nothing that needs a server.

`ECSRun` applies these rules when a flow is written, the agent before it sends a
request, `check` to flows and templates.

    request     Part, Problem, and Rule: a check with the place where AWS documents it
    sizes       "1 vCPU", "2 GB", and the sizes that Fargate has
    tags        what may be a tag
    definition  what RegisterTaskDefinition refuses
    fargate     what it also refuses when the definition is to run on Fargate
    run_task    what RunTask refuses, and what its kwargs cannot say

A `Problem` is `certain` if ECS always refuses the request. Where ECS may accept the
request, or the documentation announces a refusal that was never observed, `certain` is
False and the problem is a warning: a request that ECS accepts is never an error here.
"""

from __future__ import annotations

from .definition import MAX_FAMILY, check_definition
from .fargate import MAX_STOP_TIMEOUT
from .fargate import size as check_fargate_size
from .request import Part, Problem, raise_certain
from .run_task import (
    MAX_OVERRIDES,
    check_one_task,
    check_run_task,
    overrides_length,
    placed_on_fargate,
)
from .sizes import (
    FARGATE_SIZES,
    container_memory,
    cpu_units,
    fits_fargate,
    memory_mib,
    more_memory,
)
from .tags import MAX_TAGS, as_tag_value

__all__ = [
    "FARGATE_SIZES",
    "MAX_FAMILY",
    "MAX_OVERRIDES",
    "MAX_STOP_TIMEOUT",
    "MAX_TAGS",
    "Part",
    "Problem",
    "as_tag_value",
    "check_definition",
    "check_fargate_size",
    "check_one_task",
    "check_run_task",
    "container_memory",
    "cpu_units",
    "fits_fargate",
    "memory_mib",
    "more_memory",
    "overrides_length",
    "placed_on_fargate",
    "raise_certain",
]
