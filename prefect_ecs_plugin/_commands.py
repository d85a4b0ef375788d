"""Attaches the commands of installed distributions to `prefect agent`.

A distribution offers a command by an entry point of the group `prefect.cli.agent`, as
this one does for `ecs`. What holds for every one of them:

- An offered command takes the place of Prefect's own with the same name.
- A command that cannot be loaded is replaced by one that says why and exits 1, never
  by Prefect's own: silence would mean that a user runs the wrong agent.
- One distribution's mistake touches no other command.
- Nothing is looked up before `prefect agent` is asked for its commands, and no command
  is loaded before it is asked for itself: `prefect version` pays for none of this.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Dict, Iterable, List, Optional

import click

from ._startup import stand_in
from .errors import ConfigurationError, PrefectECSError

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

GROUP = "prefect.cli.agent"
OURS = "prefect-ecs-plugin"
OUR_COMMAND = "prefect_ecs_plugin.cli.start:ecs"

# As in setup.cfg, which an environment can contradict: `pip install --no-deps`, conda,
# or a later install of something that wants an older one.
MINIMUM_VERSIONS = {"boto3": "1.29", "botocore": "1.32"}


@dataclass(frozen=True)
class Offer:
    """A command for `prefect agent`, and who offers it.

    Attributes:
        entry_point: Where the command is.
        distribution: Name of the distribution, as PyPI writes it.
        version: Its version.
    """

    entry_point: EntryPoint
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


class AgentGroup(click.Group):
    """`prefect agent`, with the offered commands before Prefect's own.

    Click's way of loading subcommands late:
    https://click.palletsprojects.com/en/stable/complex/#lazily-loading-subcommands
    """

    def list_commands(self, ctx: click.Context) -> List[str]:
        return sorted({*super().list_commands(ctx), *offers()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> Optional[click.Command]:
        if cmd_name in offers():
            return command(cmd_name)
        return super().get_command(ctx, cmd_name)


def attach(module: ModuleType) -> None:
    """Let the click group `agent` of Prefect's module serve the offered commands.

    Args:
        module: `prefect.cli.agent`, just executed. One without that group, as Prefect
            2 and 3 have it, is left alone.
    """
    group = getattr(module, "agent", None)
    if isinstance(group, click.Group) and not isinstance(group, AgentGroup):
        # The group is there already and `prefect` is about to take it, so it cannot be
        # replaced. Its own class stays a base, whatever a patched click made of it.
        group.__class__ = type("AgentGroup", (AgentGroup, type(group)), {})


@lru_cache(maxsize=None)
def command(name: str) -> click.Command:
    """The offered command of that name, or the stand-in that says why there is none.

    Args:
        name: What follows `prefect agent`, a key of `offers()`.
    """
    candidates = offers()[name]
    if len(candidates) > 1:
        both = " and ".join(map(str, candidates))
        return stand_in(name, f"{both} both offer this command: uninstall one of them.")
    return load(name, candidates[0])


def load(name: str, offer: Offer) -> click.Command:
    """Import an offered command.

    Args:
        name: What follows `prefect agent`.
        offer: Where to find it.

    Returns:
        The command, or a stand-in when anything at all is wrong with it.
    """
    try:
        if offer.distribution == OURS:
            # Python imports a package without its `__init__.py` all the same.
            from . import __version__  # noqa: F401

            require_aws_libraries()
        loaded = offer.entry_point.load()
        if not isinstance(loaded, click.Command):
            raise TypeError(f"{offer.entry_point.value} is not a click command")
    except PrefectECSError as error:
        return stand_in(name, str(error))
    except (Exception, SystemExit) as error:  # code of others may raise anything
        return stand_in(
            name,
            f"{offer} cannot be loaded ({type(error).__name__}: {error}): reinstall "
            f"{offer.distribution}, or uninstall it if you do not want this command.",
        )
    return loaded


def require_aws_libraries() -> None:
    """Look whether boto3 and botocore are here and new enough, without importing them.

    Raises:
        ConfigurationError: With what to install.
    """
    from packaging.version import Version

    for library, minimum in MINIMUM_VERSIONS.items():
        version = _installed_version(library)
        needed = f"{OURS} needs {library} {minimum} or later"
        if version is None:
            raise ConfigurationError(
                f"{needed} and there is none in {sys.prefix}: pip install "
                f"prefect[aws] (with conda: conda install {library})"
            )
        if Version(version) < Version(minimum):
            raise ConfigurationError(
                f"{needed}, and {sys.prefix} has {version}: pip install prefect[aws] "
                f"'{library}>={minimum}' (with conda: conda install "
                f"'{library}>={minimum}')"
            )


def _installed_version(library: str) -> Optional[str]:
    from importlib import import_module, metadata

    if find_spec(library) is None:
        return None
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:  # copied there, without its metadata
        return str(import_module(library).__version__)


@lru_cache(maxsize=None)
def offers() -> Dict[str, List[Offer]]:
    """Every command offered in this environment, by name; read once per process."""
    from importlib.metadata import EntryPoint, distributions

    found = collect(distributions())
    # Without metadata (a bundle, a copied folder) there is no entry point to read, and
    # yet this code runs because a user put it there.
    ours = Offer(EntryPoint("ecs", OUR_COMMAND, GROUP), OURS, "of unknown version")
    found.setdefault("ecs", [ours])
    return found


def collect(distributions: Iterable[Distribution]) -> Dict[str, List[Offer]]:
    """Read what distributions offer for `prefect agent`.

    Args:
        distributions: In the order of sys.path. Of two installations of one
            distribution the first counts, as it does for `import`.
    """
    found: Dict[str, List[Offer]] = {}
    seen = set()
    for distribution in distributions:
        offered = _read(distribution)
        if not offered or offered[0].distribution in seen:
            continue
        seen.add(offered[0].distribution)
        for offer in offered:
            found.setdefault(offer.entry_point.name, []).append(offer)
    return found


def _read(distribution: Distribution) -> List[Offer]:
    """The offers of one distribution; none, and a warning, if they are unreadable."""
    try:
        # Nearly every distribution ends here: reading is quick, parsing is not.
        if GROUP not in (distribution.read_text("entry_points.txt") or ""):
            return []
        if not distribution.metadata["Name"]:  # its METADATA is gone or was cut off
            raise ValueError("a distribution without a name")
        name = _canonical(str(distribution.metadata["Name"]))
        return [
            Offer(entry_point, name, distribution.version)
            for entry_point in distribution.entry_points
            if entry_point.group == GROUP
        ]
    except Exception as error:  # broken metadata raises what its parser happens to
        line = " ".join(f"{type(error).__name__}: {error}".split())
        click.echo(f"Warning: entry points passed over ({line})", err=True)
        return []


def _canonical(name: str) -> str:
    """https://packaging.python.org/en/latest/specifications/name-normalization/"""
    from packaging.utils import canonicalize_name

    return str(canonicalize_name(name))


def main() -> None:
    """The script `prefect-ecs`: this plugin's command without `prefect agent`."""
    found = {offer.distribution: offer for offer in offers()["ecs"]}
    from importlib.metadata import EntryPoint

    ours = Offer(EntryPoint("ecs", OUR_COMMAND, GROUP), OURS, "of unknown version")
    load("ecs", found.get(OURS, ours))(prog_name="prefect-ecs")


#: The last line, see `_startup`.
IS_WHOLE = True
