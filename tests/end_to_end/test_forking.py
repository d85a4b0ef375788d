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

from prefect_ecs_plugin.sandbox.environment import KEPT

pytestmark = pytest.mark.skipif(
    not forking.POSSIBLE,
    reason="needs Linux, and is used by the tests that need the sandbox",
)

LOOK = """
import json, os, sys

print(json.dumps([sys.argv, dict(os.environ), os.getcwd(), __name__, sys.stdin.read()]))
print("a warning", file=sys.stderr)
sys.exit(7)
"""

#: Shows what may depend on the environment in which the modules are imported.
SHOW = """
import json, logging, sys
import prefect.cli, prefect_ecs_plugin.agent, prefect_ecs_plugin.cli.start

def shown(handler):
    formatter = handler.formatter or logging.Formatter()
    return [type(handler).__name__, formatter._fmt, formatter.datefmt]

loggers = {
    name: [logger.level, *map(shown, logger.handlers)]
    for name, logger in sorted(logging.root.manager.loggerDict.items())
    if getattr(logger, "handlers", None)
}
constants = {
    f"{module}.{name}": value
    for module in sorted(sys.modules)
    if module.startswith("prefect")
    for name, value in sorted(vars(sys.modules[module]).items())
    if isinstance(value, (str, int, float))
    and name not in ("__file__", "__cached__", "__path__")
}
print(json.dumps({
    "config": prefect.config,
    "context": {name: repr(value) for name, value in prefect.context.items()},
    "loggers": loggers,
    "constants": constants,
}, indent=1))
"""
CONFIG = """
[tasks.defaults]
max_retries = 3
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
        "",
    ]


def test_prefect_reads_the_programs_own_environment(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(CONFIG)
    environment = {
        **{name: os.environ[name] for name in KEPT & set(os.environ)},
        "HOME": str(tmp_path),
        "PREFECT__USER_CONFIG_PATH": str(tmp_path / "config.toml"),
        "PREFECT__BACKEND": "server",
        "PREFECT__CLOUD__API": "http://localhost:1",
        "PREFECT__CONTEXT__FLOW_RUN_ID": "11111111-2222-3333-4444-555555555555",
        "PREFECT__LOGGING__LEVEL": "DEBUG",
        "PREFECT__LOGGING__FORMAT": "%(message)s",
        "PREFECT__LOGGING__EXTRA_LOGGERS": "['mine']",
    }
    command = [sys.executable, "-c", SHOW]
    started = subprocess.run(
        command, env=environment, capture_output=True, check=True, timeout=DEADLINE
    )
    forked = forking.run(command, environment, DEADLINE, merges=False)
    expected, found = json.loads(started.stdout), json.loads(forked.stdout)
    assert expected["config"]["cloud"]["api"] == "http://localhost:1"
    assert expected["context"]["flow_run_id"].startswith("'11111111")
    assert {"prefect", "mine"} <= set(expected["loggers"])
    assert "prefect_ecs_plugin.aws.ecs.__name__" in expected["constants"]
    assert {name: found["constants"].pop(name) for name in expected["constants"]} == (
        expected.pop("constants")
    )
    del found["constants"]  # of modules that no such program imports
    assert found == expected


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
