"""Run Prefect 1 flows as Amazon ECS tasks.

`ECSAgent` deploys flow runs, `ECSRun` configures a flow for it; the errors both
raise derive from `PrefectECSError`. Nothing is imported before it is asked for.
"""

# Part of every start of Python (see _startup.py), so not even `typing` is imported.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List

    from .agent import ECSAgent
    from .errors import (
        ConfigurationError,
        LaunchError,
        PrefectECSError,
        RunConfigError,
        SourceError,
        UnsupportedRunConfig,
    )
    from .run_config import ECSRun

    __version__: str

__all__ = [
    "ConfigurationError",
    "ECSAgent",
    "ECSRun",
    "LaunchError",
    "PrefectECSError",
    "RunConfigError",
    "SourceError",
    "UnsupportedRunConfig",
    "__version__",
]

_MODULES = {"ECSAgent": "agent", "ECSRun": "run_config"}


def __getattr__(name: str) -> "Any":
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    if name == "__version__":
        return importlib.import_module(".version", __name__).installed_version()
    module = importlib.import_module(f".{_MODULES.get(name, 'errors')}", __name__)
    return getattr(module, name)


def __dir__() -> "List[str]":
    return __all__
