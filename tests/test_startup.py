"""The finder: what a start of Python pays for, and what it does to one import.

Finders belong to a whole interpreter, so most of this happens in one of its own, with a
stand-in for Prefect: a package `prefect.cli.agent` of a few lines.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tempfile
import textwrap
import zipfile
from pathlib import Path
from typing import Dict, Optional, Sequence

import click
import pytest
from deadlines import DEADLINE

import prefect_ecs_plugin

PLUGIN = Path(prefect_ecs_plugin.__file__).parent.parent
CLICK = Path(click.__file__).parent.parent

PREFECT: Dict[str, str] = {
    "prefect/__init__.py": "",
    "prefect/cli/__init__.py": "from .agent import agent as _agent",
    "prefect/cli/agent.py": """
        import click

        @click.group()
        def agent():
            pass

        @agent.command()
        def ecs():
            click.echo("Prefect's own")
        """,
    "prefect/__main__.py": """
        from .cli import _agent

        _agent()
        """,
}
ATTACHED = """
def attached(module):
    return type(module.agent).__name__ == "AgentGroup"
"""


def write(folder: Path, files: Dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
    return folder


def python(*arguments: str, path: Sequence[Path]) -> subprocess.CompletedProcess[str]:
    """Run a Python without site-packages, but for what `path` names."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        env=environment,
        cwd=tempfile.gettempdir(),  # which `-c` and `-m` put before that path
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


def check(code: str, path: Sequence[Path]) -> None:
    """Run code that asserts; the finder is installed before it.

    Click's folder is that of the real Prefect too, therefore it comes last.
    """
    start = "from prefect_ecs_plugin import _startup\n_startup.install()\n" + ATTACHED
    done = python("-c", start + textwrap.dedent(code), path=[*path, PLUGIN, CLICK])
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def prefect(tmp_path: Path) -> Path:
    """A folder with the stand-in for Prefect."""
    return write(tmp_path / "site", PREFECT)


# What every start of Python pays


def test_a_start_imports_the_finder_and_nothing_else() -> None:
    code = """
    import sys
    before = set(sys.modules)
    from prefect_ecs_plugin import _startup
    _startup.install()
    print(sorted(set(sys.modules) - before))
    """
    done = python("-c", textwrap.dedent(code), path=[PLUGIN])
    assert done.stderr == ""
    assert (
        done.stdout.strip() == "['prefect_ecs_plugin', 'prefect_ecs_plugin._startup']"
    )


def test_installing_twice_puts_one_finder_first() -> None:
    check(
        """
        import sys
        _startup.install()
        finders = [isinstance(f, _startup.Finder) for f in sys.meta_path]
        assert finders == [True] + [False] * (len(finders) - 1)
        """,
        [],
    )


@pytest.mark.parametrize(
    "name", ["prefect", "prefect.cli", "prefect.cli.agents", "agent", "json", ""]
)
def test_no_other_module_concerns_the_finder(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect_ecs_plugin._startup import Finder

    class Asked:
        def find_spec(self, *_: object) -> None:
            raise AssertionError("the finder asked another one")

    finder = Finder()
    monkeypatch.setattr(sys, "meta_path", [finder, Asked()])
    assert finder.find_spec(name, None) is None


# The one import


def test_the_group_is_attached_on_import(prefect: Path) -> None:
    check("import prefect.cli.agent as m; assert attached(m)", [prefect])


def test_the_module_keeps_its_own_loader_and_source(prefect: Path) -> None:
    check(
        """
        import importlib.machinery, inspect, prefect.cli.agent as m
        for loader in (m.__loader__, m.__spec__.loader):
            assert type(loader) is importlib.machinery.SourceFileLoader
        assert "Prefect's own" in inspect.getsource(m)
        """,
        [prefect],
    )


def test_a_search_without_an_import_answers_like_the_modules_own_loader(
    prefect: Path,
) -> None:
    check(
        """
        import importlib.util, prefect.cli, sys
        del sys.modules["prefect.cli.agent"]
        spec = importlib.util.find_spec("prefect.cli.agent")
        assert "Prefect's own" in spec.loader.get_source("prefect.cli.agent")
        assert spec.loader.get_filename() == spec.origin
        assert "prefect.cli.agent" not in sys.modules
        """,
        [prefect],
    )


def test_a_reload_attaches_again(prefect: Path) -> None:
    check(
        """
        import importlib, prefect.cli.agent as m
        first = m.agent
        importlib.reload(m)
        assert m.agent is not first and attached(m)
        """,
        [prefect],
    )


def test_prefect_run_as_a_module_is_attached_too(prefect: Path) -> None:
    hook = "from prefect_ecs_plugin import _startup; _startup.install()"
    write(prefect, {"prefect/__init__.py": hook})
    done = python("-m", "prefect", "ecs", path=[prefect, PLUGIN, CLICK])
    # The command itself needs Prefect, which the stand-in is not.
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ecs: prefect-ecs-plugin ")


def test_a_module_in_a_zip_file_is_attached(tmp_path: Path) -> None:
    """Before Python 3.10 zipimport has load_module alone."""
    archive = tmp_path / "site.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name, text in PREFECT.items():
            file.writestr(name, textwrap.dedent(text))
    check(
        """
        import prefect.cli.agent as m, sys
        assert attached(m) and sys.modules["prefect.cli.agent"] is m
        assert "site.zip" in m.__file__ and "zip" in type(m.__loader__).__name__
        """,
        [archive],
    )


def test_a_module_that_fails_fails_as_ever_and_can_be_imported_later(
    prefect: Path,
) -> None:
    agent = prefect / "prefect" / "cli" / "agent.py"
    source = agent.read_text(encoding="utf-8")
    agent.write_text("raise RuntimeError('damaged')", encoding="utf-8")
    check(
        f"""
        import importlib, sys
        try:
            import prefect.cli.agent
        except RuntimeError as error:
            assert str(error) == "damaged"
        else:
            raise AssertionError
        assert "prefect.cli.agent" not in sys.modules
        open({str(agent)!r}, "w").write({source!r} + "# longer than before")
        importlib.invalidate_caches()
        import prefect.cli.agent as m
        assert attached(m)
        """,
        [prefect],
    )


def test_without_prefect_the_import_fails_as_ever(tmp_path: Path) -> None:
    for name in ("__init__.py", "_startup.py"):  # an installed one lies beside Prefect
        text = (PLUGIN / "prefect_ecs_plugin" / name).read_text(encoding="utf-8")
        write(tmp_path, {f"prefect_ecs_plugin/{name}": text})
    code = """
    from prefect_ecs_plugin import _startup
    _startup.install()
    try:
        import prefect.cli.agent
    except ModuleNotFoundError as error:
        print(error.name)
    """
    done = python("-c", textwrap.dedent(code), path=[tmp_path])
    assert (done.stdout.strip(), done.stderr) == ("prefect", "")


def test_a_package_without_that_module_is_no_concern(prefect: Path) -> None:
    (prefect / "prefect" / "cli" / "agent.py").unlink()
    (prefect / "prefect" / "cli" / "__init__.py").write_text("", encoding="utf-8")
    check(
        """
        try:
            import prefect.cli.agent
        except ModuleNotFoundError as error:
            assert error.name == "prefect.cli.agent"
        else:
            raise AssertionError
        """,
        [prefect],
    )


def test_a_later_prefect_without_the_group_is_left_alone(prefect: Path) -> None:
    agent = prefect / "prefect" / "cli" / "agent.py"
    agent.write_text("agent = agent_app = object()", encoding="utf-8")
    check("import prefect.cli.agent as m; assert type(m.agent) is object", [prefect])


# Beside other finders


@pytest.mark.parametrize("place", ["insert(0, ", "append("])
def test_another_finder_that_asks_all_others_gets_an_answer(
    prefect: Path, place: str
) -> None:
    check(
        f"""
        import sys

        class AsksEverybody:
            def find_spec(self, name, path=None, target=None):
                for finder in sys.meta_path:
                    if finder is not self:
                        spec = finder.find_spec(name, path, target)
                        if spec is not None:
                            return spec

        sys.meta_path.{place}AsksEverybody())
        import prefect.cli.agent as m
        assert attached(m)
        """,
        [prefect],
    )


def test_a_finder_that_answers_itself_is_heard(prefect: Path) -> None:
    check(
        """
        import importlib.abc, importlib.util, sys

        class Answers(importlib.abc.MetaPathFinder, importlib.abc.Loader):
            def find_spec(self, name, path=None, target=None):
                if name == "prefect.cli.agent":
                    return importlib.util.spec_from_loader(name, self)

            def exec_module(self, module):
                import click
                module.agent = click.Group("agent")
                module.patched = True

        sys.meta_path.insert(1, Answers())
        import prefect.cli.agent as m
        assert m.patched and attached(m)
        """,
        [prefect],
    )


def test_a_finder_of_the_old_kind_is_passed_over(prefect: Path) -> None:
    check(
        """
        import sys

        class FromPython2:
            def find_module(self, name, path=None):
                return None

        finder = FromPython2()
        sys.meta_path.insert(1, finder)
        spec = sys.meta_path[0].find_spec("prefect.cli.agent", ["nowhere"])
        assert spec is None
        """,
        [prefect],
    )


def test_threads_that_import_and_search_at_once_see_one_attached_module(
    prefect: Path,
) -> None:
    agent = prefect / "prefect" / "cli" / "agent.py"
    agent.write_text(
        "import time; time.sleep(0.05)\n" + agent.read_text(encoding="utf-8"),
        encoding="utf-8",
    )
    check(
        """
        import importlib, sys, threading
        finder = sys.meta_path[0]
        import prefect
        path = [prefect.__path__[0] + "/cli"]
        found, errors = set(), []
        start = threading.Barrier(8)

        def work(search):
            start.wait()
            try:
                if search:
                    for _ in range(200):
                        assert finder.find_spec("prefect.cli.agent", path) is not None
                else:
                    found.add(importlib.import_module("prefect.cli.agent"))
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(i % 2,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors, errors
        (module,) = found
        assert attached(module) and not finder._searching
        """,
        [prefect],
    )


# The start-up files


def start_up_line(name: str) -> str:
    """The one line of a start-up file that is no comment."""
    path = PLUGIN / name
    if not path.exists():
        pytest.skip("the start-up files lie in the checkout")
    lines = path.read_text(encoding="ascii").splitlines()
    (line,) = [line for line in lines if line and not line.startswith("#")]
    return line


def run_start_up_line(path: Sequence[Path]) -> subprocess.CompletedProcess[str]:
    line = start_up_line("prefect_ecs_plugin.pth")
    assert line.startswith("import ")  # else site takes it for a folder's name
    show = "print([type(finder).__name__ for finder in sys.meta_path][0])"
    return python("-c", f"exec({line!r}); {show}", path=path)


def test_the_pth_line_installs_the_finder() -> None:
    done = run_start_up_line([PLUGIN])
    assert (done.stdout.strip(), done.stderr) == ("Finder", "")


def test_the_pth_file_shows_its_code() -> None:
    comments = (PLUGIN / "prefect_ecs_plugin.pth").read_text("ascii").splitlines()
    shown = [line[len("#   ") :] for line in comments if line.startswith("#   ")]
    (call,) = ast.parse(start_up_line("prefect_ecs_plugin.pth")).body[1:]
    assert isinstance(call, ast.Expr)
    assert isinstance(call.value, ast.Call)
    assert ast.literal_eval(call.value.args[0]).splitlines() == shown


@pytest.mark.parametrize(
    "left_over",
    [None, "prefect_ecs_plugin/notes.txt", "prefect_ecs_plugin/__init__.py"],
)
def test_a_pth_file_that_outlived_the_package_does_no_harm(
    tmp_path: Path, left_over: Optional[str]
) -> None:
    path = [write(tmp_path, {left_over: ""} if left_over else {})]
    done = run_start_up_line(path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() != "Finder"


def test_the_start_file_names_the_installer() -> None:
    """The one form PEP 829 allows is `package.module:callable`."""
    module, _, name = start_up_line("prefect_ecs_plugin.start").partition(":")
    assert (module, name) == ("prefect_ecs_plugin._startup", "install")
    imported = __import__(module, fromlist=[name])
    assert callable(getattr(imported, name))
