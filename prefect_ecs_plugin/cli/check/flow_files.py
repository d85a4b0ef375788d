"""The files that `--flow` names: files, folders and patterns."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from typing import Dict, Iterator, List, Sequence

import click


@dataclass(frozen=True)
class FlowFile:
    """A file to look for flows in.

    Attributes:
        path: As the user wrote it, or below the folder that the user named.
        is_named: Whether the user named this file, not a folder or a pattern.
    """

    path: str
    is_named: bool

    def __str__(self) -> str:
        """The path, as the check of the options shows the values of `--flow`."""
        return self.path


def flow_files_of(values: Sequence[str]) -> List[FlowFile]:
    """The files that some values of `--flow` name, each once, in order.

    Args:
        values: Paths of files and folders, and patterns as `glob` reads them; `**`
            stands for any number of folders.

    Raises:
        click.BadParameter: if a value names no file.
    """
    found: Dict[str, FlowFile] = {}
    for value in values:
        files = list(_files(value))
        if not files:
            raise click.BadParameter(
                f"there is no .py file in the folder {value!r} [no-flow-file]"
                if os.path.isdir(value)
                else f"there is no file {value!r} [no-flow-file]"
            )
        for file in files:
            # A file that is named itself stays so, whatever else matches it.
            key = os.path.realpath(file.path)
            if file.is_named or key not in found:
                found[key] = file
    return list(found.values())


def _files(value: str) -> Iterator[FlowFile]:
    if os.path.isdir(value):
        yield from _below(value)
    elif os.path.exists(value):
        yield FlowFile(value, is_named=True)
    else:
        for path in sorted(glob.glob(value, recursive=True)):
            if os.path.isdir(path):
                yield from _below(path)
            else:
                yield FlowFile(path, is_named=False)


def _below(folder: str) -> Iterator[FlowFile]:
    """The .py files below a folder, without hidden folders and virtualenvs."""
    for at, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if _is_searched(at, name))
        for name in sorted(names):
            if name.endswith(".py"):
                yield FlowFile(os.path.join(at, name), is_named=False)


def _is_searched(at: str, name: str) -> bool:
    is_virtualenv = os.path.exists(os.path.join(at, name, "pyvenv.cfg"))
    return not (name.startswith((".", "__")) or is_virtualenv)


def is_run(file: FlowFile) -> bool:
    """Whether the command runs a file to find its flows.

    What has nothing to do with Prefect, such as setup.py or a test, is run only if the
    user names it.

    Raises:
        OSError: if the file cannot be read.
    """
    if file.is_named:
        return True
    if not file.path.endswith(".py"):
        return False
    with open(file.path, "rb") as content:
        return b"prefect" in content.read()
