"""The parts of docs/python-api.md, from the docstrings of the public classes.

The docstrings are in Google's style, as all of this project's.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from typing import Any, Iterator, List, Tuple

import prefect_ecs_plugin

#: A line of a section: a name, perhaps a type in parentheses, and a text.
_ENTRY = re.compile(r"(?P<name>\w+)(?: \((?P<type>[^)]*)\))?: (?P<text>.*)")

_SECTION = re.compile(r"\n\n(?=(?:Args|Raises|Attributes):\n)")


def classes() -> str:
    """ECSRun and ECSAgent: what they are, their arguments, what they raise."""
    found = [prefect_ecs_plugin.ECSRun, prefect_ecs_plugin.ECSAgent]
    return "\n".join(map(_class, found))


def errors() -> str:
    """The public errors, as a table."""
    names = [
        name
        for name in prefect_ecs_plugin.__all__
        if inspect.isclass(getattr(prefect_ecs_plugin, name))
        and issubclass(getattr(prefect_ecs_plugin, name), Exception)
    ]
    rows = ["| error | a kind of | when |", "| --- | --- | --- |"]
    for name in names:
        kind = getattr(prefect_ecs_plugin, name)
        bases = ", ".join(f"`{base.__name__}`" for base in kind.__bases__)
        rows.append(f"| `{name}` | {bases} | {_one_line(inspect.getdoc(kind) or '')} |")
    return "\n".join(rows) + "\n"


def _class(kind: Any) -> str:
    first, *rest = _SECTION.split(inspect.getdoc(kind) or "")
    sections = dict(_parsed(section) for section in rest)
    _, _, after = rest[-1].rpartition("\n\n") if "\n\n" in rest[-1] else ("", "", "")
    lines = [f"## {kind.__name__}\n", f"{first}\n", *_arguments(kind, sections["Args"])]
    lines += ["", "| raises | when |", "| --- | --- |"]
    lines += [f"| `{name}` | {text} |" for name, _, text in sections["Raises"]]
    return "\n".join([*lines, "", after and f"{after}\n"])


def _arguments(kind: Any, entries: List[Tuple[str, str, str]]) -> Iterator[str]:
    parameters = inspect.signature(kind).parameters
    yield "| argument | type | what it is |"
    yield "| --- | --- | --- |"
    for name, written, text in entries:
        hint = written or str(parameters[name].annotation).strip("'\"")
        yield f"| `{name}` | `{hint}` | {text} |"


def _parsed(section: str) -> Tuple[str, List[Tuple[str, str, str]]]:
    """A section's title, and its entries: name, type and text of each."""
    title, _, body = section.partition(":\n")
    body = textwrap.dedent(body.partition("\n\n")[0])
    entries = []
    for entry in re.split(r"\n(?=\S)", body):
        match = _ENTRY.match(_one_line(entry))
        assert match, f"not an entry of {title}: {entry!r}"
        entries.append((match["name"], match["type"] or "", match["text"]))
    return title, entries


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
