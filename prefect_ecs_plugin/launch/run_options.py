"""Options of the agent that a run may set for itself, in the env of its run config."""

from __future__ import annotations

from typing import NamedTuple, Optional

from ..errors import RunConfigError
from ..run_config import ECSRun
from ..settings import ON_INTERRUPTION as CHOICES
from ..validation.excerpt import quoted

#: The variable that says what to do if the run is interrupted.
ON_INTERRUPTION = "PREFECT_ECS_ON_INTERRUPTION"


class RunOptions(NamedTuple):
    """What a run asks for.

    Attributes:
        on_interruption: What to do if its task is interrupted; None for what the agent
            does with all runs.
    """

    on_interruption: Optional[str] = None


def read(run_config: ECSRun) -> RunOptions:
    """The options of a run.

    Args:
        run_config: Its run config.

    Raises:
        RunConfigError: if a value cannot be read.
    """
    env = run_config.env or {}
    wish = env.get(ON_INTERRUPTION)
    if wish is not None and wish not in CHOICES:
        raise RunConfigError(
            f"{ON_INTERRUPTION} in the env of the run config is {quoted(str(wish))}; "
            f"set it to one of {', '.join(CHOICES)}, or remove it",
            code="invalid-run-option",
        )
    return RunOptions(on_interruption=wish)
