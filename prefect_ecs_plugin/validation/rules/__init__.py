"""What ECS accepts: tables and small functions, and nothing that needs a server.

One implementation for everybody who asks: `ECSRun` when a flow is written, the
agent before it sends a request, and the sandbox in place of ECS.

    problem     Problem, and Rule: a check with the place where AWS documents it
    values      reading members out of a request that may be written wrong
    sizes       "1 vCPU", "2 GB", and the sizes that Fargate has
    tags        what may be a tag
    definition  what RegisterTaskDefinition refuses
    fargate     what it refuses besides when the definition is to run on Fargate
    run_task    what RunTask refuses
    one_task    what its kwargs may not say, because one run is one task

A `Problem` is `certain` if ECS always refuses the request. If ECS only may refuse it,
or if the documentation announces a refusal that was never observed, `certain` is False
and the problem is a warning: a request that ECS accepts is never an error here.
"""

from __future__ import annotations

from .definition import (
    MAX_CONTAINERS,
    MAX_DEFINITION_BYTES,
    MAX_FAMILY,
    check_definition,
    is_family,
)
from .fargate import size as check_fargate_size
from .one_task import check_one_task
from .problem import Problem, Rule
from .run_task import (
    MAX_CLIENT_TOKEN,
    MAX_COUNT,
    MAX_OVERRIDES,
    MAX_STARTED_BY,
    check_run_task,
    overrides_length,
    placed_on_fargate,
)
from .sizes import FARGATE_SIZES, cpu_units, fits_fargate, memory_mib
from .tags import MAX_TAGS, as_tag_value

__all__ = [
    "FARGATE_SIZES",
    "MAX_CLIENT_TOKEN",
    "MAX_CONTAINERS",
    "MAX_COUNT",
    "MAX_DEFINITION_BYTES",
    "MAX_FAMILY",
    "MAX_OVERRIDES",
    "MAX_STARTED_BY",
    "MAX_TAGS",
    "Problem",
    "Rule",
    "as_tag_value",
    "check_definition",
    "check_fargate_size",
    "check_one_task",
    "check_run_task",
    "cpu_units",
    "fits_fargate",
    "is_family",
    "memory_mib",
    "overrides_length",
    "placed_on_fargate",
]
