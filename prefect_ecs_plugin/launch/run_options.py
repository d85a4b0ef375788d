"""Options of the agent that a run may set for itself, in the env of its run config."""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Optional

from ..errors import RunConfigError
from ..run_config import ECSRun
from ..settings import ON_INTERRUPTION as CHOICES
from ..validation import rules
from ..validation.excerpt import quoted

#: The variables: what to do if the run is interrupted, and how much memory its task
#: may have at most after one was killed for memory.
ON_INTERRUPTION = "PREFECT_ECS_ON_INTERRUPTION"
MAX_MEMORY = "PREFECT_ECS_MAX_MEMORY"


class RunOptions(NamedTuple):
    """What a run asks for; None for what the agent does with all runs.

    Attributes:
        on_interruption: What to do if its task is interrupted.
        max_memory: The MiB that its task may have at most.
    """

    on_interruption: Optional[str] = None
    max_memory: Optional[int] = None


def read(run_config: ECSRun) -> RunOptions:
    """The options of a run.

    Args:
        run_config: Its run config.

    Raises:
        RunConfigError: if a value cannot be read.
    """
    env = run_config.env or {}
    wish, most = env.get(ON_INTERRUPTION), env.get(MAX_MEMORY)
    if wish is not None and wish not in CHOICES:
        raise _invalid(ON_INTERRUPTION, wish, f"one of {', '.join(CHOICES)}")
    mib = rules.memory_mib(most)
    if most is not None and not mib:
        raise _invalid(MAX_MEMORY, most, "MiB, such as 8192")
    return RunOptions(on_interruption=wish, max_memory=mib)


def check_memory(
    run_config: ECSRun, merged: Mapping[str, Any], definition: Mapping[str, Any]
) -> None:
    """Refuse a run that may have less memory than it asks for.

    Args:
        run_config: Its run config.
        merged: The agent's and the run's run_task kwargs, merged.
        definition: The task definition it will run.

    Raises:
        RunConfigError: if so.
    """
    most = read(run_config).max_memory
    overrides = merged.get("overrides") or {}
    own = rules.memory_mib(
        run_config.memory or overrides.get("memory") or definition.get("memory")
    )
    if most is not None and own is not None and most < own:
        raise _invalid(MAX_MEMORY, most, f"no less than the task's {own} MiB")


def _invalid(name: str, value: Any, right: str) -> RunConfigError:
    return RunConfigError(
        f"{name} in the env of the run config is {quoted(str(value))}; set it to "
        f"{right}, or remove it",
        code="invalid-run-option",
    )
