"""Puts this plugin's `ecs` command in the place of Prefect's own.

Guarantees:

- A command that cannot be loaded is replaced by one that says why and exits 1, never by
  Prefect's own: otherwise users would run the wrong agent without noticing.
- The command is imported only when `prefect agent` lists its commands or runs this one,
  so `prefect version` and other programs do not pay for it.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib.util import find_spec
from types import ModuleType
from typing import List, Optional

import click

from ._startup import REMEDY, stand_in
from .errors import ConfigurationError, PrefectECSError

# As in setup.cfg, which an environment can contradict: `pip install --no-deps`, conda,
# or a later install of something that wants an older one.
MINIMUM_VERSIONS = {"boto3": "1.29", "botocore": "1.32"}


class AgentGroup(click.Group):
    """`prefect agent` with this plugin's `ecs`, which is loaded lazily:
    https://click.palletsprojects.com/en/stable/complex/#lazily-loading-subcommands
    """

    def list_commands(self, ctx: click.Context) -> List[str]:
        return sorted({*super().list_commands(ctx), "ecs"})

    def get_command(self, ctx: click.Context, cmd_name: str) -> Optional[click.Command]:
        return command() if cmd_name == "ecs" else super().get_command(ctx, cmd_name)


def attach(module: ModuleType) -> None:
    """Let the click group `agent` of Prefect's module serve this plugin's command.

    Args:
        module: `prefect.cli.agent`, just executed. A module without that group, as
            Prefect 2 and 3 have it, is left alone.
    """
    group = getattr(module, "agent", None)
    if isinstance(group, click.Group) and not isinstance(group, AgentGroup):
        # The group exists and `prefect` is about to use it, so it cannot be replaced.
        # Its own class, which other code may have changed, stays a base.
        group.__class__ = type("AgentGroup", (AgentGroup, type(group)), {})


@lru_cache(maxsize=None)
def command() -> click.Command:
    """The command `ecs`, or a stand-in that says why it cannot be loaded."""
    try:
        # Python imports a package without its `__init__.py` too.
        from . import __version__  # noqa: F401

        require_aws_libraries()
        from .cli.start import ecs
    except PrefectECSError as error:
        return stand_in("ecs", str(error))
    except (Exception, SystemExit) as error:  # a damaged file can raise anything
        reason = f"{type(error).__name__}: {error}"
        return stand_in(
            "ecs",
            f"prefect-ecs-plugin cannot be loaded ({reason}): {REMEDY} "
            "[damaged-install]",
        )
    return ecs


def require_aws_libraries() -> None:
    """Check that boto3 and botocore are installed and new enough; import neither.

    Raises:
        ConfigurationError: with the command that installs them.
    """
    from packaging.version import Version

    for library, minimum in MINIMUM_VERSIONS.items():
        version = _installed_version(library)
        if version is None or Version(version) < Version(minimum):
            raise ConfigurationError(
                f"prefect-ecs-plugin needs {library} {minimum} or later, and "
                f"{sys.prefix} has {version or 'none'}: pip install prefect[aws] "
                f"'{library}>={minimum}' (with conda: conda install "
                f"'{library}>={minimum}')",
                code="old-aws-library",
            )


def _installed_version(library: str) -> Optional[str]:
    from importlib import import_module, metadata

    if find_spec(library) is None:
        return None
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:  # copied there, without its metadata
        return str(import_module(library).__version__)


def main() -> None:
    """The script `prefect-ecs`: the command without `prefect agent`."""
    command()(prog_name="prefect-ecs")


#: The last line, see `_startup`.
IS_WHOLE = True
