"""Programs forked from a process that has their packages are like any others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import forking
import pytest
from deadlines import DEADLINE

pytestmark = pytest.mark.skipif(
    not forking.POSSIBLE or sys.version_info < (3, 10),
    reason="needs Linux, and is used by the tests that need the sandbox",
)

LOOK = """
import json, os, sys

before = [name for name in sys.modules if name.startswith("prefect.")]
print(json.dumps([sys.argv, dict(os.environ), os.getcwd(), __name__, before]))
print("a warning", file=sys.stderr)
sys.exit(7)
"""


def ended(code: str, *arguments: str, **options: Any) -> Any:
    return forking.run(
        [sys.executable, "-c", code, *arguments], {"A": "1"}, DEADLINE, **options
    )


def test_a_program_has_its_own_arguments_environment_directory_and_exit_code(
    tmp_path: Path,
) -> None:
    done = ended(LOOK, "--option", cwd=tmp_path, merges=False)
    assert (done.returncode, done.stderr) == (7, "a warning\n")
    assert json.loads(done.stdout) == [
        ["-c", "--option"],
        {"A": "1"},
        str(tmp_path),
        "__main__",
        [],
    ]


def test_a_script_finds_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("print('found')")
    (tmp_path / "script.py").write_text("import beside")
    command = [sys.executable, str(tmp_path / "script.py")]
    assert forking.run(command, {}, DEADLINE).stdout == "found\n"


def test_a_program_that_breaks_off_says_why_and_has_exit_code_1() -> None:
    done = ended("1 / 0")
    assert done.returncode == 1
    assert done.stdout.endswith("ZeroDivisionError: division by zero\n")


def test_a_signal_ends_a_program_and_is_its_exit_code() -> None:
    code = "import time; print('up', flush=True); time.sleep(3600)"
    program = forking.Forked([sys.executable, "-c", code], {})
    assert program.stdout.readline() == "up\n"
    assert os.getpgid(program.pid) == os.getsid(program.pid) == program.pid
    assert program.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(0.0)
    os.killpg(program.pid, signal.SIGTERM)
    assert program.wait(DEADLINE) == program.poll() == -signal.SIGTERM
    assert program.stdout.read() == ""
    program.stdout.close()


def test_children_of_a_world_are_forked(tmp_path: Path) -> None:
    from world import ForkedChild

    with ForkedChild([sys.executable, "-c", "pass"], {"A": "1"}) as child:
        assert isinstance(child._process, forking.Forked)
