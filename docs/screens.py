"""Takes the pictures of the sandbox under docs/images, from real runs of it.

    pip install pyte && python docs/screens.py

Each command runs in a pseudo-terminal. What the terminal shows at the end is drawn as
SVG, so text stays text. Names of runs, ARNs and times differ each time.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import sys
import tempfile
import termios
from pathlib import Path
from typing import Dict, List, NamedTuple

import pyte
from rich.console import Console
from rich.text import Text

IMAGES = Path(__file__).parent / "images"

#: A flow that is killed as ECS kills a container that has used up its memory.
KILLED = """\
import os
import signal

from prefect import Flow, task
from prefect_ecs_plugin import ECSRun


@task
def load_everything():
    os.kill(os.getpid(), signal.SIGKILL)


with Flow("import", run_config=ECSRun(cpu=256, memory=512)) as flow:
    load_everything()
"""

#: Flows of which one ends Success, one fails, one lacks a parameter and one is broken.
FOLDER = {
    "etl.py": """\
from prefect import Flow, Parameter, task
from helpers import double


@task(log_stdout=True)
def load(rows):
    print(double(rows), "rows")


with Flow("etl") as flow:
    load(Parameter("rows"))
""",
    "helpers.py": "def double(n):\n    return 2 * n\n",
    "report.py": """\
from prefect import Flow, Parameter, task


@task
def send(recipient):
    pass


with Flow("report") as flow:
    send(Parameter("recipient"))
""",
    "sales.py": """\
from prefect import Flow, task


@task
def divide():
    return 1 / 0


with Flow("sales") as flow:
    divide()
""",
    "typo.py": "from prefect import Flow\n\nwith Flow('typo' as flow:\n    pass\n",
}


class Screen(NamedTuple):
    """A picture: the command, and the size of the terminal."""

    command: List[str]
    columns: int = 96
    lines: int = 60


_SANDBOX = ["prefect", "agent", "ecs", "sandbox"]

#: The pictures by their names.
SCREENS: Dict[str, Screen] = {
    "sandbox": Screen(_SANDBOX),
    "failed-run": Screen([*_SANDBOX, "import.py"]),
    "folder": Screen([*_SANDBOX, "flows", "--param", "rows=21"], 80, 24),
}

_COLOURS = {"brown": "yellow", "default": ""}


def shown(wanted: Screen) -> pyte.Screen:
    """Run a command in a terminal and return what that shows at the end."""
    command = wanted.command
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "import.py").write_text(KILLED, encoding="utf-8")
        Path(folder, "flows").mkdir()
        for name, text in FOLDER.items():
            Path(folder, "flows", name).write_text(text, encoding="utf-8")
        child, terminal = pty.fork()
        if child == 0:
            os.chdir(folder)
            environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": ""}
            program = str(Path(sys.executable).with_name(command[0]))
            os.execve(program, command, environment)
        size = struct.pack("HHHH", wanted.lines, wanted.columns, 0, 0)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)
        screen = pyte.Screen(wanted.columns, wanted.lines)
        stream = pyte.ByteStream(screen)
        while True:
            try:
                output = os.read(terminal, 65536)
            except OSError:  # Linux's way to say that the program has ended
                break
            if not output:
                break
            stream.feed(output)
        os.waitpid(child, 0)
        os.close(terminal)
    return screen


def drawn(screen: pyte.Screen, command: List[str]) -> str:
    """What a terminal shows, as SVG; the command stands above it."""
    rows = [_row(screen, number) for number in range(screen.lines)]
    while rows and not rows[-1].plain.strip():
        rows.pop()
    console = Console(record=True, width=screen.columns, file=io.StringIO())
    console.print(Text("$ " + " ".join(command), style="bold"))
    for row in rows:
        console.print(row, no_wrap=True, overflow="crop")
    svg = console.export_svg(title="prefect-ecs-plugin", unique_id="screen")
    # No font is fetched from another host.
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)


def _row(screen: pyte.Screen, number: int) -> Text:
    row = Text()
    for column in range(screen.columns):
        cell = screen.buffer[number][column]
        style = f"{'bold ' if cell.bold else ''}{_COLOURS.get(cell.fg, cell.fg)}"
        row.append(cell.data, style.strip())
    row.rstrip()
    return row


def main() -> None:
    """Take all pictures."""
    for name, wanted in SCREENS.items():
        path = IMAGES / f"{name}.svg"
        picture = drawn(shown(wanted), wanted.command)
        path.write_text(picture + "\n", encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
