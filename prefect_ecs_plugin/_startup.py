"""Waits for the import of `prefect.cli.agent`, and then calls `_commands`.

Prefect 1 loads no plugins, so this runs at every start of Python, from the start-up
file beside the package (`prefect_ecs_plugin.pth`; from Python 3.15 on
`prefect_ecs_plugin.start`, https://peps.python.org/pep-0829/). Therefore it imports
nothing but `sys`, not even `typing` or `__future__`, until a program imports
`prefect.cli.agent`; its finder returns None for every other module.

A damaged install (a file missing, cut off or overwritten) must not affect other
programs or other commands of Prefect, and must not turn `prefect agent ecs` into
Prefect's own. So any error in `_commands` is caught here, and `prefect agent ecs`
becomes a command that says what to do. If this file itself is damaged, the start-up
file does the same.
"""

import sys

TYPE_CHECKING = False  # True for type checkers, so typing is not imported
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any, Optional, Sequence, Set

    import click

TARGET = "prefect.cli.agent"
REMEDY = "pip install --force-reinstall --no-deps prefect-ecs-plugin"


class Finder:
    """Finds `prefect.cli.agent` through the other finders, and no other module."""

    def __init__(self) -> None:
        # Threads that are searching. Another finder of this kind calls this one while
        # this one calls it; without this set the two would recurse forever.
        self._searching: Set[int] = set()

    def find_spec(
        self,
        fullname: str,
        path: "Optional[Sequence[str]]" = None,
        target: "Optional[ModuleType]" = None,
    ) -> "Optional[ModuleSpec]":
        if fullname != TARGET:
            return None
        from _thread import get_ident  # built in; `threading` would be an import

        thread = get_ident()
        if thread in self._searching:
            return None
        self._searching.add(thread)
        try:
            spec = self._ask_other_finders(path, target)
        finally:
            self._searching.discard(thread)
        if spec is not None and spec.loader is not None:
            spec.loader = Loader(spec.loader)  # type: ignore[assignment]  # a duck
        return spec

    def _ask_other_finders(
        self, path: "Optional[Sequence[str]]", target: "Optional[ModuleType]"
    ) -> "Optional[ModuleSpec]":
        for finder in list(sys.meta_path):
            # Before Python 3.12 a finder may have only the older find_module. Python
            # calls it itself if no finder knows the module.
            find_spec = getattr(finder, "find_spec", None)
            if find_spec is None or isinstance(finder, Finder):
                continue
            spec: Optional[ModuleSpec] = find_spec(TARGET, path, target)
            if spec is not None:
                return spec
        return None


class Loader:
    """Loads the module with its own loader, then attaches the command.

    All other attributes (the source, the code, data) are those of the module's own
    loader. The module gets that loader back before it runs, so `prefect.cli.agent`
    looks as it does without this plugin.
    """

    def __init__(self, loader: "Any") -> None:
        self.loader = loader

    def create_module(self, spec: "ModuleSpec") -> "Optional[ModuleType]":
        create = getattr(self.loader, "create_module", None)
        module: Optional[ModuleType] = create(spec) if create else None
        return module

    def exec_module(self, module: "ModuleType") -> None:
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        if hasattr(self.loader, "exec_module"):
            self.loader.exec_module(module)
        else:  # zipimport before Python 3.10; it fills the module in sys.modules
            self.loader.load_module(module.__name__)
        _attach(module)

    def __getattr__(self, name: str) -> "Any":
        return getattr(self.loader, name)


def _attach(module: "ModuleType") -> None:
    """Attach the command to `prefect.cli.agent`, or a stand-in if that fails."""
    try:
        from prefect_ecs_plugin._commands import IS_WHOLE, attach  # noqa: F401

        attach(module)
    except Exception as error:  # a damaged file can raise anything
        import click

        group = getattr(module, "agent", None)
        if isinstance(group, click.Group):  # Prefect 2 and 3 have none
            reason = f"{type(error).__name__}: {error}"
            group.add_command(
                stand_in(
                    "ecs",
                    f"prefect-ecs-plugin is damaged ({reason}): {REMEDY} "
                    "[damaged-install]",
                )
            )


def stand_in(name: str, reason: str) -> "click.Command":
    """A command that accepts any arguments, `--help` too, prints a reason, and exits 1.

    Args:
        name: The command's name.
        reason: A sentence; line breaks become spaces.
    """
    import click  # Prefect's module has imported it

    line = " ".join(reason.split())

    def say_why(**_: "Any") -> None:
        click.echo(f"Error: {name}: {line}", err=True)
        sys.exit(1)

    return click.Command(
        name,
        callback=say_why,
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True, "help_option_names": []},
        short_help=f"Not usable: {line}",
    )


def install() -> None:
    """Put the finder first on `sys.meta_path`, unless it is there already."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())


#: The last line: importing it from a file that was cut off raises ImportError.
IS_WHOLE = True
