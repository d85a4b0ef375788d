"""Finds every message with a code in the package's source, without running it.

Three ways lead to a message with a code; `messages` knows them all:

* a call with `code="..."`: an error, a `Problem`, a finding of `check`, a table's row
  (`ConfigurationError(f"...", code="no-region")`). What it says are its arguments that
  are sentences, in their order;
* a string that ends with ` [code]`: a line of the log
  (`logger.warning("Flow run %s ... [stop-refused]", ...)`).

What differs from case to case becomes `...`. docs/generate.py lists what is found in
docs/troubleshooting.md, which so is the one snapshot of all these sentences:
tests/test_docs.py compares it with the source.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Tuple

#: A code, and a sentence that ends with one.
CODE = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*\Z")
_ENDS_WITH_CODE = re.compile(r"(.*\S) \[([a-z0-9]+(?:-[a-z0-9]+)*)\]\Z", re.DOTALL)

#: Arguments of calls that are no sentences.
_NO_SENTENCES = frozenset(
    {
        *("about", "check", "code", "error_code", "example", "name", "pattern"),
        *("place", "source", "stop_code", "text"),
    }
)

#: Calls whose first positional argument is no sentence but a place in a request.
_PLACE_FIRST = frozenset({"Problem", "problem"})

_GAP = "..."


@dataclass(frozen=True)
class Message:
    """A sentence that a user may meet.

    Attributes:
        code: Its code.
        text: What it says, with `...` for what differs from case to case.
        module: The file that says it, relative to the package.
    """

    code: str
    text: str
    module: str


def messages(package: Path) -> List[Message]:
    """Every message with a code, in the order of codes.

    Args:
        package: The package's folder. The servers of its `sandbox` are left out: their
            messages are those of ECS and of Prefect's server.
    """
    found = {
        Message(code, text, module)
        for module, tree in _modules(package)
        for code, text in _in_tree(tree)
    }
    return sorted(found, key=lambda each: (each.code, each.module, each.text))


def _modules(package: Path) -> Iterator[Tuple[str, ast.Module]]:
    for path in sorted(package.rglob("*.py")):
        module = path.relative_to(package).as_posix()
        if not module.startswith(("sandbox/aws/", "sandbox/prefect_api/")):
            yield module, ast.parse(path.read_text(encoding="utf-8"))


def _in_tree(tree: ast.Module) -> Iterator[Tuple[str, str]]:
    nodes = list(ast.walk(tree))
    f_strings = [node for node in nodes if isinstance(node, ast.JoinedStr)]
    parts = {part for node in f_strings for part in node.values}
    for node in nodes:
        if isinstance(node, ast.Call):
            yield from _in_call(node)
        elif isinstance(node, (ast.Constant, ast.JoinedStr)) and node not in parts:
            text = _sentence(node)
            match = _ENDS_WITH_CODE.match(text) if text else None
            if match:
                yield match[2], _tidy(match[1])


def _in_call(call: ast.Call) -> Iterator[Tuple[str, str]]:
    keywords: Dict[Optional[str], ast.expr] = {
        keyword.arg: keyword.value for keyword in call.keywords
    }
    code = keywords.get("code")
    if not (isinstance(code, ast.Constant) and isinstance(code.value, str)):
        return
    name = getattr(call.func, "id", getattr(call.func, "attr", ""))
    positional = call.args[1:] if name in _PLACE_FIRST else call.args
    named = [value for key, value in keywords.items() if key not in _NO_SENTENCES]
    sentences = [_sentence(each) for each in (*positional, *named)]
    said = [_tidy(each) for each in sentences if each]
    text = " ".join(each if each[-1:] in ".?!:;," else f"{each};" for each in said)
    text = text[:-1] if text.endswith(";") else text
    if code.value and text:
        yield code.value, text


def _sentence(node: ast.expr) -> str:
    """What an expression says: empty where it is no text at all."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else _GAP
            for part in node.values
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Mod)):
        left = _sentence(node.left)
        return left + (_sentence(node.right) or _GAP) if left else ""
    if isinstance(node, ast.IfExp):
        return _sentence(node.body) or _sentence(node.orelse)
    return ""


def _tidy(text: str) -> str:
    text = re.sub(r"%(\.\d+)?[sdfr]", _GAP, " ".join(text.split()))
    return re.sub(r"(\.\.\.\s*){2,}", _GAP + " ", text).strip()
