"""Waits for one import, `prefect.cli.agent`, and hands it to `_commands`.

Prefect 1 loads no plugins, so this runs at every start of Python, from the start-up
file beside the package (`prefect_ecs_plugin.pth`; from Python 3.15 on
`prefect_ecs_plugin.start`, https://peps.python.org/pep-0829/). Therefore it imports
nothing but `sys`, not even `typing` or `__future__`, until a program imports
`prefect.cli.agent`; and it answers None for every other module.

A damaged install (a file missing, cut off or overwritten) must harm no other program
and no other command of Prefect's, nor turn `prefect agent ecs` into Prefect's own. So
any error in `_commands` is caught here, and `prefect agent ecs` is then a command that
says what to do. If this file itself is damaged, the start-up file does the same.
"""

import sys

TYPE_CHECKING = False  # type checkers take it for True; typing need not be imported
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any, Optional, Sequence, Set

    import click

TARGET = "prefect.cli.agent"
REMEDY = "pip install --force-reinstall --no-deps prefect-ecs-plugin"


class Finder:
    """Finds `prefect.cli.agent` by asking every other finder, and nothing else."""

    def __init__(self) -> None:
        # Threads in the middle of a search. Another finder of this kind asks us back
        # while we ask it; without this the two would call each other for ever.
        self._searching: Set[int] = set()

    def find_spec(
        self,
        fullname: str,
        path: "Optional[Sequence[str]]" = None,
        target: "Optional[ModuleType]" = None,
    ) -> "Optional[ModuleSpec]":
        return self._find(path, target) if fullname == TARGET else None

    def _find(
        self, path: "Optional[Sequence[str]]", target: "Optional[ModuleType]"
    ) -> "Optional[ModuleSpec]":
        from _thread import get_ident  # built in; `threading` would be an import

        thread = get_ident()
        if thread in self._searching:
            return None
        self._searching.add(thread)
        try:
            return _attaching(self._ask_the_others(path, target))
        finally:
            self._searching.discard(thread)

    def _ask_the_others(
        self, path: "Optional[Sequence[str]]", target: "Optional[ModuleType]"
    ) -> "Optional[ModuleSpec]":
        for finder in list(sys.meta_path):
            # Before Python 3.12 a finder may have the older find_module alone. It is
            # passed over: Python asks it itself when no finder knows the module.
            find_spec = getattr(finder, "find_spec", None)
            if find_spec is None or isinstance(finder, Finder):
                continue
            spec: Optional[ModuleSpec] = find_spec(TARGET, path, target)
            if spec is not None:
                return spec
        return None


def _attaching(spec: "Optional[ModuleSpec]") -> "Optional[ModuleSpec]":
    if spec is not None and spec.loader is not None:
        spec.loader = Loader(spec.loader)  # type: ignore[assignment]  # a duck
    return spec


class Loader:
    """Loads the module as its own loader does, then attaches the commands.

    Everything else that a loader can be asked (its source, its code, its data) is the
    own loader's answer, and once the module runs it has that loader back: no caller who
    looks at `prefect.cli.agent` later finds a trace of this.
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
    """Attach the commands to `prefect.cli.agent`, or the stand-in if that fails."""
    try:
        from prefect_ecs_plugin._commands import IS_WHOLE, attach  # noqa: F401

        attach(module)
    except Exception as error:  # a file that is damaged can raise anything
        _attach_stand_in(module, error)


def _attach_stand_in(module: "ModuleType", error: Exception) -> None:
    import click

    group = getattr(module, "agent", None)
    if isinstance(group, click.Group):  # Prefect 2 and 3 have none
        reason = f"prefect-ecs-plugin is damaged ({type(error).__name__}: {error}): "
        group.add_command(stand_in("ecs", reason + REMEDY))


def stand_in(name: str, reason: str) -> "click.Command":
    """A command that takes any arguments, `--help` too, says why, and exits 1.

    Args:
        name: What follows `prefect agent`.
        reason: A sentence; line breaks in it become blanks.
    """
    import click  # as Prefect's module has done already

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
    """Put the finder first on `sys.meta_path`, once however often it is called."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())


#: The last line: who imports it gets an ImportError from a file that was cut off.
IS_WHOLE = True
