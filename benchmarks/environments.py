"""A Python environment for each agent, alike in everything but the plugin."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Dict, List

ROOT = Path(__file__).resolve().parent.parent

#: Everything that is made here: environments, logs of the agents, results.
CACHE = ROOT / ".benchmarks"

PREFECT = "1.4.1"

#: The oldest mistake of an installation of Prefect 1 is marshmallow 4.
REQUIREMENTS = (f"prefect=={PREFECT}", "marshmallow<4", "boto3")

#: What the wheel is built from.
_SOURCES = ("prefect_ecs_plugin", "setup.py", "setup.cfg", "pyproject.toml")
_MORE_SOURCES = ("README.md", "LICENSE", "MANIFEST.in")


def prepare() -> Dict[str, Path]:
    """Make the environments, or bring those of the last time up to date.

    Returns:
        The `prefect` command of each: `plain` and `plugin`.
    """
    CACHE.mkdir(exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n")
    commands = {name: _environment(name) for name in ("plain", "plugin")}
    _install_plugin(CACHE / "plugin", ROOT)
    return {name: python.with_name("prefect") for name, python in commands.items()}


def prepare_two(commit: str) -> Dict[str, Path]:
    """Make an environment with this checkout, and one with another commit of it.

    Args:
        commit: Whatever git takes for a commit.

    Returns:
        The `prefect` command of each: `now` and `before`.
    """
    CACHE.mkdir(exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n")
    commands = {"now": _environment("plugin"), "before": _environment("before")}
    _install_plugin(CACHE / "plugin", ROOT)
    with tempfile.TemporaryDirectory() as temporary:
        archive = Path(temporary) / "commit.tar"
        _run(["git", "-C", str(ROOT), "archive", "-o", str(archive), commit])
        shutil.unpack_archive(archive, temporary)
        _install_plugin(CACHE / "before", Path(temporary))
    return {name: python.with_name("prefect") for name, python in commands.items()}


def versions() -> Dict[str, str]:
    """The libraries that decide how fast an agent is."""
    script = (
        "import importlib.metadata as m, sys;"
        "[print(n, m.version(n)) for n in sys.argv[1:]]"
    )
    names = ("prefect", "boto3", "urllib3", "requests", "marshmallow", "pendulum")
    python = CACHE / "plain" / "bin" / "python"
    told = subprocess.run(
        [str(python), "-c", script, *names], check=True, capture_output=True, text=True
    )
    return dict(line.split() for line in told.stdout.splitlines())


def _environment(name: str) -> Path:
    """The Python of an environment with Prefect and without the plugin."""
    directory = CACHE / name
    python = directory / "bin" / "python"
    stamp = directory / "made-from.txt"
    wanted = "\n".join([sys.version, *REQUIREMENTS, *_constraints()])
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"Making the environment {directory} ...", flush=True)
        shutil.rmtree(directory, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(directory)])
        constraints = directory / "constraints.txt"
        constraints.write_text("\n".join(_constraints()))
        _run([*_pip(python), "-c", str(constraints), *REQUIREMENTS])
        stamp.write_text(wanted)
    return python


def _constraints() -> List[str]:
    """The versions of the environment that runs this, so that both have the same."""
    skipped = {"prefect", "prefect-ecs-plugin", "py-spy"}  # the last for `flame` only
    return sorted(
        f"{found.metadata['Name']}=={found.version}"
        for found in importlib.metadata.distributions()
        if found.metadata["Name"].lower() not in skipped
    )


def _install_plugin(directory: Path, root: Path) -> None:
    """Install a checkout as a wheel, as a user would have it.

    Built from a copy: setuptools would take modules that are long gone from the
    checkout's own build directory.
    """
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary)
        for name in (*_SOURCES, *_MORE_SOURCES):
            source = root / name
            if source.is_dir():
                shutil.copytree(source, copy / name)
            elif source.exists():
                shutil.copy(source, copy / name)
        for start_up in root.glob("prefect_ecs_plugin.*"):
            if start_up.is_file():
                shutil.copy(start_up, copy / start_up.name)
        pip = _pip(directory / "bin" / "python")
        _run([*pip, "--no-deps", "--force-reinstall", str(copy)])


def _pip(python: Path) -> List[str]:
    quiet = ("--quiet", "--quiet", "--disable-pip-version-check")
    return [str(python), "-m", "pip", "install", *quiet]


def _run(command: List[str]) -> None:
    subprocess.run(command, check=True)
