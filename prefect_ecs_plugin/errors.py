"""What can go wrong, in a few kinds.

Every message is one line that says what happened, to which run or file, and what
to do next. Whoever catches one of these shows `str(error)` and nothing more; the
traceback belongs to the debug level.
"""

from __future__ import annotations


class PrefectECSError(Exception):
    """The base of every error this plugin raises on purpose."""


class ConfigurationError(PrefectECSError, ValueError):
    """An option, a template or a run config is written wrong.

    At agent level it keeps the agent from starting. It is a `ValueError` because
    Prefect's own run configs raise that for the same mistakes.
    """


class SourceError(ConfigurationError):
    """A template or a file of run_task kwargs cannot be read or parsed."""


class RunConfigError(ConfigurationError):
    """A flow run's run config is damaged or cannot be used."""


class UnsupportedRunConfig(RunConfigError):
    """A flow run has a run config that is made for another kind of agent."""


class LaunchError(PrefectECSError):
    """A flow run cannot be launched, and asking again would not help."""
