"""A user's shell, and the sandbox's command run from it as a child process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any, Dict, List, Mapping

from deadlines import DEADLINE

import prefect_ecs_plugin
from prefect_ecs_plugin.sandbox.environment import KEPT

#: Independent of whether and how the plugin is installed; test_distribution.py shows
#: that `prefect agent ecs` is the same group.
SCRIPT = (
    "from prefect_ecs_plugin.cli.start import ecs; ecs(prog_name='prefect agent ecs')"
)


def command() -> List[str]:
    """The sandbox's command line."""
    return [sys.executable, "-c", SCRIPT, "sandbox"]


def without_looks(shown: str) -> str:
    """What the sandbox showed, but for how often the agent looked at its tasks.

    It does so every few seconds, so that depends on how long they took.
    """
    return re.sub(r"\bDescribeTasks \d+, ", "", shown)


class Shell:
    """An environment and a working directory.

    What the sandbox starts bears a mark in its environment, and what it writes goes
    to an empty directory, so that whatever it leaves behind is found.

    Args:
        directory: An empty one.
        variables: What the user has set besides.
    """

    def __init__(self, directory: Path, variables: Mapping[str, str] = {}) -> None:
        self.mark = uuid.uuid4().hex
        self.work, self.tmp = directory / "work", directory / "tmp"
        self.work.mkdir()
        self.tmp.mkdir()
        self.environment: Dict[str, str] = {
            **{name: os.environ[name] for name in KEPT & set(os.environ)},
            **variables,
            "USER": self.mark,
            "TMPDIR": str(self.tmp),
            "PYTHONPATH": str(Path(prefect_ecs_plugin.__file__).parents[1]),
        }
        self.environment.pop("COLUMNS", None)
        self.environment.pop("LINES", None)

    def write(self, name: str, text: str) -> None:
        """Write a file in the working directory."""
        (self.work / name).write_text(text)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the sandbox to its end."""
        return subprocess.run(
            [*command(), *arguments],
            env=self.environment,
            cwd=self.work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start the sandbox."""
        return subprocess.Popen(
            [*command(), *arguments],
            env=self.environment,
            cwd=self.work,
            stdin=subprocess.DEVNULL,
            text=True,
            **options,
        )

    def left_behind(self) -> List[str]:
        """The processes and files that the sandbox has left."""
        import psutil

        processes = [
            " ".join(process.info["cmdline"] or [])
            for process in psutil.process_iter(["cmdline", "environ"])
            if (process.info["environ"] or {}).get("USER") == self.mark
        ]
        return processes + [str(path) for path in self.tmp.iterdir()]
