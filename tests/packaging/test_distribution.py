"""The distribution as people install it, in environments of its own.

The quick tests build a wheel and use it beside the libraries of this environment. The
others, marked `packaging`, install everything afresh, Prefect 1.0 and 1.4 among it:

    pytest -m packaging tests/packaging/test_distribution.py
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import py_compile
import random
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import time
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ["prefect_ecs_plugin", "docs"]
PREFECT_VERSIONS = ["1.0.0", "1.4.1"]
VERSION = re.findall("^version = (.*)$", (ROOT / "setup.cfg").read_text("utf-8"), re.M)[
    0
]
OURS = f"From prefect-ecs-plugin {VERSION}."
START_UP_FILES = {"prefect_ecs_plugin.pth", "prefect_ecs_plugin.start"}
#: Seconds; an installation on a slow machine with a slow network takes minutes.
DEADLINE = 3600.0
START_HELP = ["agent", "ecs", "start", "--help"]

packaging = pytest.mark.packaging


# What is made once, whichever worker asks for it first

Once = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Fills a folder with that name, unless another worker has done so or is at it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # there each worker has its own
    shared = shared / "once"
    shared.mkdir(exist_ok=True)

    def folder_of(name: str, fill: Callable[[Path], None]) -> Path:
        folder, ended = shared / name, shared / f"{name} has ended"
        try:
            folder.mkdir()
        except FileExistsError:
            wait_for(ended)
            assert ended.read_text() == "well", f"{name} could not be made"
            return folder
        outcome = "badly"
        try:
            fill(folder)
            outcome = "well"
        finally:
            written = shared / f"{name} ends"
            written.write_text(outcome)
            written.rename(ended)
        return folder

    return folder_of


def wait_for(path: Path) -> None:
    """Wait until a file is there."""
    deadline = time.monotonic() + DEADLINE
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.1)


# Environments


@dataclass(frozen=True)
class Environment:
    """A virtual environment on the disk."""

    folder: Path

    @property
    def scripts(self) -> Path:
        return self.folder / ("Scripts" if os.name == "nt" else "bin")

    @property
    def site_packages(self) -> Path:
        variables = {"base": str(self.folder), "platbase": str(self.folder)}
        return Path(sysconfig.get_path("purelib", vars=variables))

    def run(
        self, program: str, *arguments: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one of its programs, as a user with an empty home would."""
        return run([str(self.scripts / program), *arguments], environment)

    def python(self, code: str, *options: str) -> str:
        """What its Python prints; nothing on stderr."""
        done = self.run("python", *options, "-c", code)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def pip(self, *arguments: str) -> None:
        succeed([str(self.scripts / "python"), "-m", "pip", *arguments])

    def files(self) -> List[str]:
        """Everything it has of this plugin."""
        found = [*self.site_packages.iterdir(), *self.scripts.iterdir()]
        names = (path.name for path in found)
        return sorted(name for name in names if re.search("prefect.ecs", name))


def clean_environment(**variables: str) -> Dict[str, str]:
    # Nothing of this process's own environment: neither its folders nor its settings.
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "PREFECT", "AWS", "VIRTUAL_ENV", "PYTEST"))
    }
    return {**kept, **variables}


def run(
    command: List[str], environment: Optional[Dict[str, str]] = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=clean_environment(**(environment or {})),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        cwd=str(Path(sys.prefix).anchor),
    )


def succeed(command: List[str], **environment: str) -> None:
    done = run(command, environment)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout: builds leave folders behind, and here they may."""
    copy = tmp_path_factory.mktemp("sources") / "checkout"
    copy.mkdir()
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(str(path), str(copy))
    for folder in filter(Path.is_dir, (ROOT / name for name in SOURCES)):
        ignored = shutil.ignore_patterns("__pycache__", ".*_cache")
        shutil.copytree(str(folder), str(copy / folder.name), ignore=ignored)
    return copy


@pytest.fixture(scope="session")
def wheel(sources: Path, once: Once) -> Path:
    """The wheel that pip builds from the checkout."""
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir"]
    folder = once("wheel", lambda new: succeed([*command, str(new), str(sources)]))
    (wheel,) = folder.glob("*.whl")
    return wheel


# The wheel, quickly


def test_the_wheel_has_every_file_of_the_package_and_the_start_up_files(
    wheel: Path, sources: Path
) -> None:
    package = sources / "prefect_ecs_plugin"
    expected = {
        path.relative_to(sources).as_posix()
        for path in package.rglob("*")
        if path.is_file()
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == expected | START_UP_FILES


@pytest.fixture(scope="session")
def beside_this(wheel: Path, once: Once) -> Environment:
    """The wheel in an environment that finds its libraries in the one of the tests."""

    def fill(folder: Path) -> None:
        environment = Environment(folder)
        venv.create(str(folder), with_pip=False, symlinks=os.name != "nt")
        python = str(environment.scripts / "python")
        pip = [sys.executable, "-m", "pip", "--python", python]
        succeed([*pip, "install", "--no-deps", "--no-index", str(wheel)])
        # A path line is no start-up file: those of the folder it names are not run.
        here = Path(sysconfig.get_path("purelib"))
        libraries = environment.site_packages / "a_libraries.pth"
        libraries.write_text(str(here), encoding="utf-8")
        # Save that of setuptools, with which Prefect 1.0 finds distutils on
        # Python 3.12.
        if (here / "distutils-precedence.pth").exists():
            shutil.copy(
                str(here / "distutils-precedence.pth"), environment.site_packages
            )

    return Environment(once("beside", fill))


def test_prefect_agent_ecs_is_ours_once_the_wheel_is_installed(
    beside_this: Environment,
) -> None:
    done = beside_this.run("python", "-m", "prefect", *START_HELP)
    assert (done.returncode, done.stderr) == (0, "")
    assert OURS in done.stdout


def test_prefect_ecs_is_the_same_command(beside_this: Environment) -> None:
    done = beside_this.run("prefect-ecs", "start", "--help")
    assert done.stdout.startswith("Usage: prefect-ecs start [OPTIONS]")
    assert OURS in done.stdout


LOADED = "import sys; print('\\n'.join(sorted(sys.modules)))"


def test_a_python_that_does_nothing_has_loaded_the_finder_alone(
    beside_this: Environment,
) -> None:
    with_plugin = set(beside_this.python(LOADED).split())
    without = set(beside_this.python(LOADED, "-S").split())
    site = set(beside_this.python("import site; " + LOADED, "-S").split()) - without
    assert {name for name in with_plugin - without - site if "prefect" in name} == {
        "prefect_ecs_plugin",
        "prefect_ecs_plugin._startup",
    }


def test_a_process_of_multiprocessing_has_the_command_too(
    beside_this: Environment, tmp_path: Path
) -> None:
    script = tmp_path / "spawns.py"
    script.write_text(
        "import multiprocessing\n"
        "def work():\n"
        "    import prefect.cli.agent as module\n"
        "    return type(module.agent).__name__\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.apply(work))\n",
        encoding="utf-8",
    )
    assert beside_this.run("python", str(script)).stdout == "AgentGroup\n"


# A torn install


#: What can happen to a file on a disk that was full, or to a copy that was interrupted.
DAMAGES: Dict[str, Callable[[bytes], Optional[bytes]]] = {
    "deleted": lambda content: None,
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "overwritten": lambda content: b"\xff\xfe\x80 not UTF-8\n" + content[16:],
    "zeroed": lambda content: bytes(len(content)),
    "random": lambda content: bytes(
        random.Random(0).choices(range(256), k=len(content))
    ),
}
#: Files that every start of Python or of `prefect` reads, but for the two that Python
#: itself reads.
READ_AT_STARTS = [
    *("__init__.py", "_startup.py", "_commands.py", "errors.py"),
    *("cli/__init__.py", "cli/start.py"),
]


@pytest.fixture(scope="session")
def torn(
    beside_this: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Environment:
    """An installed copy of this worker's own, to be damaged and mended."""
    folder = tmp_path_factory.mktemp("torn") / "venv"
    shutil.copytree(str(beside_this.folder), str(folder), symlinks=True)
    copy = Environment(folder)
    for cache in copy.site_packages.rglob("__pycache__"):
        shutil.rmtree(str(cache))
    return copy


@contextlib.contextmanager
def damaged(path: Path, damage: str) -> Iterator[None]:
    """A file that is damaged for a while."""
    content = path.read_bytes()
    new = DAMAGES[damage](content)
    path.unlink()
    if new is not None:
        path.write_bytes(new)
    try:
        yield
    finally:
        path.write_bytes(content)


def run_torn(torn: Environment, *arguments: str) -> Any:
    # Neither are caches written, which would outlive the damage.
    return torn.run("python", *arguments, PYTHONDONTWRITEBYTECODE="1")


#: Runs `prefect` with each command line that it reads, in processes of their own, but
#: imports Prefect once: that takes most of the time, and the plugin waits for a module
#: which each process imports by itself. Python has not looked into the environment yet
#: (-S); each process does, and so runs the start-up files as they are then.
PREFECT_COMMANDS = """
import json, os, site, sys, tempfile

libraries = sys.argv[1]
sys.path.append(libraries)
import prefect
sys.path.remove(libraries)
assert not {"prefect.cli", "prefect_ecs_plugin"} & set(sys.modules)

def ended(arguments):
    streams = [tempfile.TemporaryFile(), tempfile.TemporaryFile()]
    pid = os.fork()
    if not pid:
        for number, stream in enumerate(streams, 1):
            os.dup2(stream.fileno(), number)
        sys.argv = ["prefect", *arguments]
        try:
            site.main()
            from prefect.cli import cli
            cli(prog_name="prefect")
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            sys.stdout.flush()
            sys.stderr.flush()  # Python 3.8 keeps back what goes into a file
            # Without taking all the modules apart, which takes as long again.
            os._exit(1 if isinstance(end.code, str) else end.code or 0)
    code = os.WEXITSTATUS(os.waitpid(pid, 0)[1])
    for stream in streams:
        stream.seek(0)
    return [code, *(stream.read().decode() for stream in streams)]

for line in sys.stdin:
    print(json.dumps(ended(json.loads(line))), flush=True)
os._exit(0)
"""

Runs = Callable[..., Any]


@pytest.fixture(scope="session")
def prefect(torn: Environment) -> Iterator[Runs]:
    """Runs `prefect` in the environment, which may be damaged by then."""
    if not hasattr(os, "fork"):
        yield lambda *arguments: run_torn(torn, "-m", "prefect", *arguments)
        return
    python, libraries = torn.scripts / "python", sysconfig.get_path("purelib")
    process = subprocess.Popen(
        [str(python), "-S", "-c", PREFECT_COMMANDS, libraries],
        env=clean_environment(PYTHONDONTWRITEBYTECODE="1"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=str(Path(sys.prefix).anchor),
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        assert process.stdin is not None
        assert process.stdout is not None
        print(json.dumps(arguments), file=process.stdin, flush=True)
        ended = json.loads(process.stdout.readline())
        return subprocess.CompletedProcess(arguments, *ended)

    yield run
    process.communicate()


def assert_only_our_command_suffers(torn: Environment, prefect: Runs) -> None:
    """Other programs and other commands see nothing of it; ours says what to do."""
    done = run_torn(torn, "-c", "pass", "agent", "ecs")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for others in (["version"], ["agent", "local", "start", "--help"]):
        done = prefect(*others)
        assert (done.returncode, without_warnings(done.stderr)) == (0, ""), others
    assert_works_or_says_what_to_do(prefect("agent", "ecs", "--help"))


def without_warnings(stderr: str) -> str:
    """Damaged metadata may be warned of."""
    return re.sub("^Warning: entry points passed over .*\\n", "", stderr)


def assert_works_or_says_what_to_do(done: Any) -> None:
    """Ours or one line, never Prefect's own."""
    stderr = without_warnings(done.stderr)
    if done.returncode == 0:
        assert "Run flows as Amazon ECS tasks." in done.stdout, done.stdout
        assert stderr == ""
    else:
        assert (done.returncode, done.stdout) == (1, ""), stderr
        assert re.fullmatch(
            "Error: ecs: .*pip install --force-reinstall .*prefect-ecs-plugin "
            r"\[damaged-install\]\n",
            stderr,
        )


@pytest.mark.parametrize("damage", ["deleted", "truncated", "overwritten"])
@pytest.mark.parametrize("name", READ_AT_STARTS)
def test_a_torn_install_breaks_nobody(
    torn: Environment, prefect: Runs, name: str, damage: str
) -> None:
    with damaged(torn.site_packages / "prefect_ecs_plugin" / name, damage):
        assert_only_our_command_suffers(torn, prefect)


@pytest.mark.parametrize("damage", ["deleted", "empty", "truncated", "zeroed"])
@pytest.mark.parametrize("name", sorted(START_UP_FILES))
def test_a_torn_start_up_file_breaks_nobody(
    torn: Environment, prefect: Runs, name: str, damage: str
) -> None:
    """Bytes that are no text in it would stop Python itself before 3.12; so would they
    in any .pth file."""
    with damaged(torn.site_packages / name, damage):
        done = run_torn(torn, "-c", "pass")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert prefect("version").returncode == 0


@pytest.mark.parametrize("name", ["_startup.py", "_commands.py"])
def test_a_file_that_was_cut_off_between_statements_is_noticed(
    torn: Environment, prefect: Runs, name: str
) -> None:
    """What is left is valid Python, but IS_WHOLE at its end is gone."""
    path = torn.site_packages / "prefect_ecs_plugin" / name
    content = path.read_bytes()
    last = ast.parse(content).body[-1]
    assert ast.get_source_segment(content.decode(), last) == "IS_WHOLE = True"
    path.write_bytes(b"".join(content.splitlines(True)[: last.lineno - 1]))
    try:
        assert_only_our_command_suffers(torn, prefect)
        assert prefect("agent", "ecs").returncode == 1
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("name", READ_AT_STARTS)
def test_a_torn_cache_breaks_nobody(
    torn: Environment, prefect: Runs, name: str
) -> None:
    path = torn.site_packages / "prefect_ecs_plugin" / name
    cache = Path(py_compile.compile(str(path), doraise=True))
    with damaged(cache, "truncated"):
        assert_only_our_command_suffers(torn, prefect)
    cache.unlink()


def other_files(wheel: Path, damage: str) -> List[str]:
    """All but those of the tests above.

    Prefect's own libraries read the metadata of every distribution, and metadata that
    are no text end them, whichever distribution they are of.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist()) - START_UP_FILES
    names -= {f"prefect_ecs_plugin/{name}" for name in READ_AT_STARTS}
    if damage == "random":
        names = {name for name in names if ".dist-info/" not in name}
    return sorted(names)


@packaging
@pytest.mark.parametrize("damage", ["deleted", "truncated", "random"])
def test_whatever_file_is_torn_it_breaks_nobody(
    torn: Environment, prefect: Runs, wheel: Path, damage: str
) -> None:
    def starts_anew(*arguments: str) -> Any:
        return run_torn(torn, "-m", "prefect", *arguments)

    for name in other_files(wheel, damage):
        print(name)  # the last one is shown when it fails
        # Metadata are read by the libraries that Prefect imports.
        runs = starts_anew if ".dist-info/" in name else prefect
        with damaged(torn.site_packages / name, damage):
            assert_only_our_command_suffers(torn, runs)


# Fresh environments


@pytest.fixture(scope="session")
def bases(wheel: Path, once: Once) -> Callable[[str], Environment]:
    """Makes environments with Prefect and all this plugin needs, but not the plugin."""

    def base(version: str) -> Environment:
        def fill(folder: Path) -> None:
            environment = Environment(folder)
            venv.create(str(folder), with_pip=True)
            # pip 24.1 and later find fault with the metadata of Prefect 1.0.
            environment.pip("install", "pip<24.1")
            environment.pip("install", f"prefect=={version}", str(wheel))
            environment.pip("uninstall", "--yes", "prefect-ecs-plugin")

        return Environment(once(f"prefect-{version}", fill))

    return base


def clone(base: Environment, folder: Path) -> Environment:
    """The same environment elsewhere, in seconds: its files are linked, not copied."""
    copy = Environment(folder)
    venv.create(str(folder), with_pip=False)
    shutil.rmtree(str(copy.site_packages))
    shutil.copytree(
        str(base.site_packages), str(copy.site_packages), copy_function=link
    )
    for script in filter(Path.is_file, base.scripts.iterdir()):
        moved = copy.scripts / script.name
        if not moved.exists():
            here, there = os.fsencode(base.folder), os.fsencode(folder)
            moved.write_bytes(script.read_bytes().replace(here, there))
            moved.chmod(0o755)
    return copy


def link(source: str, target: str) -> None:
    os.link(source, target)


@pytest.fixture(params=PREFECT_VERSIONS)
def bare(
    request: pytest.FixtureRequest, bases: Callable[[str], Environment], tmp_path: Path
) -> Environment:
    """A fresh environment with Prefect alone, in each version."""
    return clone(bases(request.param), tmp_path / "venv")


@pytest.fixture
def newest(bases: Callable[[str], Environment], tmp_path: Path) -> Environment:
    """A fresh environment with the newest Prefect 1 alone."""
    return clone(bases(PREFECT_VERSIONS[-1]), tmp_path / "venv")


@pytest.fixture
def installed(newest: Environment, wheel: Path) -> Environment:
    """The newest Prefect 1 and this plugin."""
    newest.pip("install", "--no-deps", "--no-index", str(wheel))
    return newest


@pytest.fixture(scope="session")
def tools(once: Once) -> Environment:
    """uv, pipx and build."""

    def fill(folder: Path) -> None:
        venv.create(str(folder), with_pip=True)
        Environment(folder).pip("install", "uv", "pipx", "build")

    return Environment(once("tools", fill))


def assert_ours(environment: Environment) -> None:
    """Every way to the command leads to this plugin's; other agents are untouched."""
    for command in (
        ["prefect", *START_HELP],
        ["python", "-m", "prefect", *START_HELP],
        ["python", "-I", "-m", "prefect", *START_HELP],
        ["python", "-E", "-m", "prefect", *START_HELP],
        ["prefect", "agent", "ecs", "--help"],
        ["prefect-ecs", "start", "--help"],
    ):
        done = environment.run(*command)
        assert (done.returncode, done.stderr) == (0, ""), command
        assert OURS in done.stdout, command


def assert_prefects_own(environment: Environment) -> None:
    done = environment.run("prefect", *START_HELP)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Start an ECS agent" in done.stdout
    assert "prefect-ecs-plugin" not in done.stdout


def helps_of_the_rest(environment: Environment) -> List[str]:
    """What Prefect says where this plugin has no business."""
    return [
        environment.run("prefect", *arguments).stdout
        for arguments in (
            ["--help"],
            ["version"],
            ["agent", "local", "--help"],
            ["agent", "local", "start", "--help"],
            ["agent", "docker", "start", "--help"],
            ["agent", "nothing"],
        )
    ]


@pytest.fixture(scope="session")
def sdist(sources: Path, tools: Environment) -> Path:
    succeed(
        [str(tools.scripts / "python"), "-m", "build", "--sdist", str(sources)],
    )
    (archive,) = (sources / "dist").glob("*.tar.gz")
    return archive


@packaging
def test_installed_from_the_wheel_and_uninstalled(
    bare: Environment, wheel: Path
) -> None:
    """Uninstalling brings Prefect's own command back, and leaves nothing behind."""
    rest = helps_of_the_rest(bare)
    bare.pip("install", "--no-deps", "--no-index", str(wheel))
    assert_ours(bare)
    assert helps_of_the_rest(bare) == rest
    bare.pip("uninstall", "--yes", "prefect-ecs-plugin")
    assert bare.files() == []
    assert_prefects_own(bare)
    assert helps_of_the_rest(bare) == rest


@packaging
def test_installed_from_the_sdist(newest: Environment, sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {Path(name).name for name in archive.getnames()}
    assert names >= {*START_UP_FILES, "LICENSE", "README.md", "CHANGELOG.md"}
    newest.pip("install", "--no-deps", str(sdist))
    assert_ours(newest)
    assert set(newest.files()) >= START_UP_FILES


@packaging
@pytest.mark.parametrize("mode", ["lenient", "strict"])
def test_installed_as_editable_and_uninstalled(
    newest: Environment, sources: Path, mode: str
) -> None:
    setting = f"--config-settings=editable_mode={mode}"
    newest.pip("install", "--no-deps", setting, "--editable", str(sources))
    assert_ours(newest)
    assert str(sources) in newest.python(
        "import os, prefect_ecs_plugin.cli.start as module; "
        "print(os.path.realpath(module.__file__))"
    )
    newest.pip("uninstall", "--yes", "prefect-ecs-plugin")
    assert_prefects_own(newest)
    assert newest.files() == []


@packaging
@pytest.mark.parametrize("editable", [False, True])
def test_installed_by_uv_and_uninstalled(
    newest: Environment, wheel: Path, sources: Path, tools: Environment, editable: bool
) -> None:
    what = ["--editable", str(sources)] if editable else [str(wheel)]
    uv = [str(tools.scripts / "uv"), "pip"]
    where = ["--python", str(newest.scripts / "python")]
    succeed([*uv, "install", *where, "--no-deps", *what])
    assert_ours(newest)
    succeed([*uv, "uninstall", *where, "prefect-ecs-plugin"])
    assert_prefects_own(newest)
    assert newest.files() == []


@packaging
def test_injected_by_pipx(tools: Environment, wheel: Path, tmp_path: Path) -> None:
    places = {
        "PIPX_HOME": str(tmp_path / "home"),
        "PIPX_BIN_DIR": str(tmp_path / "bin"),
    }
    pipx = [str(tools.scripts / "pipx")]
    python = str(tools.scripts / "python")
    succeed([*pipx, "install", "--python", python, "prefect==1.4.1"], **places)
    succeed([*pipx, "inject", "prefect", str(wheel)], **places)
    command = [str(tmp_path / "bin" / "prefect"), *START_HELP]
    assert OURS in run(command).stdout
    succeed([*pipx, "uninject", "prefect", "prefect-ecs-plugin"], **places)
    assert "Start an ECS agent" in run(command).stdout


@packaging
def test_prefect_installed_again_after_the_plugin(installed: Environment) -> None:
    installed.pip("install", "--no-deps", "--force-reinstall", "prefect==1.4.1")
    assert_ours(installed)


@packaging
def test_another_prefect_1_installed_after_the_plugin(installed: Environment) -> None:
    installed.pip("install", "--no-deps", "prefect==1.0.0")
    assert_ours(installed)


@packaging
def test_a_folder_that_was_deleted_by_hand_does_no_harm(installed: Environment) -> None:
    shutil.rmtree(str(installed.site_packages / "prefect_ecs_plugin"))
    assert installed.python("print('started')") == "started\n"
    assert_prefects_own(installed)


@packaging
def test_the_script_works_where_start_up_files_are_skipped(
    installed: Environment,
) -> None:
    done = installed.run(
        "python",
        "-S",
        str(installed.scripts / "prefect-ecs"),
        *START_HELP[2:],
        PYTHONPATH=str(installed.site_packages),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert OURS in done.stdout


@packaging
def test_the_script_works_from_a_target_folder(
    newest: Environment, wheel: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    newest.pip("install", "--no-deps", "--target", str(target), str(wheel))
    script = str(target / "bin" / "prefect-ecs")
    done = newest.run("python", script, *START_HELP[2:], PYTHONPATH=str(target))
    assert (done.returncode, done.stderr) == (0, "")
    assert OURS in done.stdout


# What cannot work says so


def assert_says_why(environment: Environment, *words: str) -> None:
    """One line and exit code 1, whatever is asked; no other program notices."""
    for command in (
        ["prefect", "agent", "ecs", "start"],
        ["prefect", *START_HELP],
        ["prefect", "agent", "ecs", "--help"],
        ["prefect-ecs", "start", "--label", "prod"],
    ):
        done = environment.run(*command)
        assert (done.returncode, done.stdout) == (1, ""), command
        assert done.stderr.startswith("Error: ecs: "), command
        assert done.stderr.count("\n") == 1, command
        for word in words:
            assert word in done.stderr, command
    listed = environment.run("prefect", "agent", "--help")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "Not usable" in listed.stdout
    local = environment.run("prefect", "agent", "local", "start", "--help")
    assert (local.returncode, local.stderr) == (0, "")


@packaging
def test_without_boto3_one_line_says_what_to_install(installed: Environment) -> None:
    installed.pip("uninstall", "--yes", "boto3", "botocore")
    assert_says_why(installed, "pip install prefect[aws]", "[old-aws-library]")


@packaging
def test_with_an_old_boto3_one_line_says_what_to_install(
    installed: Environment,
) -> None:
    installed.pip("install", "--no-deps", "boto3==1.9.253")
    assert_says_why(installed, "1.9.253", "pip install prefect[aws] 'boto3>=")


@packaging
def test_a_damaged_command_is_never_prefects_own(installed: Environment) -> None:
    cli = installed.site_packages / "prefect_ecs_plugin" / "cli" / "start.py"
    cli.unlink()
    cli.write_text("raise RuntimeError('two\\nlines')", encoding="utf-8")
    assert_says_why(installed, "(RuntimeError: two lines)", "[damaged-install]")


@packaging
def test_a_second_copy_on_the_path_is_no_rival(
    installed: Environment, wheel: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    installed.pip("install", "--no-deps", "--target", str(target), str(wheel))
    done = installed.run("prefect", *START_HELP, PYTHONPATH=str(target))
    assert (done.returncode, done.stderr) == (0, "")
    assert OURS in done.stdout


@packaging
def test_the_plugin_leaves_no_trace_in_a_python_that_does_nothing(
    newest: Environment, wheel: Path
) -> None:
    without = set(newest.python(LOADED).split())
    newest.pip("install", "--no-deps", "--no-index", str(wheel))
    assert set(newest.python(LOADED).split()) - without == {
        "prefect_ecs_plugin",
        "prefect_ecs_plugin._startup",
    }
