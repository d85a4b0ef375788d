"""Values as HCL, laid out as `terraform fmt` lays them out. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Iterable, List, Mapping, Sequence, Tuple, Union

from .placeholders import Reference

_INDENT = "  "
_WIDTH = 88
_IDENTIFIER = re.compile(r"[A-Za-z_][\w-]*")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Expression(str):
    """HCL as it is: `var.image`, `jsonencode(...)`."""


@dataclass(frozen=True)
class Call:
    """A function of one argument."""

    function: str
    argument: Any


@dataclass(frozen=True)
class Block:
    """`resource "aws_ecs_service" "agent" { ... }`.

    Attributes:
        head: The block's type and labels.
        body: Attributes as (name, value), and nested blocks.
    """

    head: Tuple[str, ...]
    body: Sequence[Union[Tuple[str, Any], Block]] = ()


def render(blocks: Iterable[Block]) -> str:
    """Blocks as the text of a file."""
    return "\n".join("\n".join(_block(block)) + "\n" for block in blocks)


def _block(block: Block) -> List[str]:
    kind, *labels = block.head
    head = " ".join([kind, *(f'"{label}"' for label in labels)])
    lines: List[str] = [f"{head} {{"]
    attributes = [item for item in block.body if not isinstance(item, Block)]
    lines += _indented(_attributes(attributes))
    for item in block.body:
        if isinstance(item, Block):
            lines += [""] if len(lines) > 1 else []
            lines += _indented(_block(item))
    return [*lines, "}"]


def _attributes(items: Iterable[Tuple[str, Any]]) -> List[str]:
    """Attributes whose values are one line each stand under each other."""
    lines: List[str] = []
    group: List[Tuple[str, str]] = []
    for name, value in items:
        first, *more = _value(value)
        if more:
            lines += [*_aligned(group), f"{name} = {first}", *more]
            group = []
        else:
            group.append((name, first))
    return lines + _aligned(group)


def _aligned(group: Sequence[Tuple[str, str]]) -> List[str]:
    width = max((len(name) for name, _ in group), default=0)
    return [f"{name:<{width}} = {value}" for name, value in group]


def _value(value: Any) -> List[str]:
    """A value's lines."""
    if isinstance(value, Call):
        first, *more = _value(value.argument)
        opened = [f"{value.function}({first}", *more]
        return [*opened[:-1], opened[-1] + ")"]
    if isinstance(value, Mapping):
        return _object(value)
    if isinstance(value, (list, tuple)):
        return _list(value)
    return [_scalar(value)]


def _scalar(value: Any) -> str:
    if isinstance(value, Expression):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    return _string(value) if isinstance(value, str) else str(value)


def _string(text: str) -> str:
    """A quoted string; only a `Reference` has `${...}` that means something."""
    alone = re.fullmatch(r"\$\{([^{}]+)\}", text)
    if isinstance(text, Reference) and alone:
        return alone.group(1)
    quoted = "".join(_ESCAPES.get(character, character) for character in text)
    if not isinstance(text, Reference):
        quoted = quoted.replace("${", "$${").replace("%{", "%%{")
    return f'"{quoted}"'


def _object(value: Mapping[str, Any]) -> List[str]:
    if not value:
        return ["{}"]
    items = [
        (key if _IDENTIFIER.fullmatch(key) else _string(key), item)
        for key, item in value.items()
    ]
    return ["{", *_indented(_attributes(items)), "}"]


def _list(value: Sequence[Any]) -> List[str]:
    items = [_value(item) for item in value]
    line = "[" + ", ".join(first for first, *_ in items) + "]"
    if all(len(lines) == 1 for lines in items) and len(line) <= _WIDTH // 2:
        return [line]
    broken: List[str] = []
    for lines in items:
        broken += [*lines[:-1], lines[-1] + ","]
    return ["[", *_indented(broken), "]"]


def _indented(lines: Iterable[str]) -> List[str]:
    return [_INDENT + line if line else line for line in lines]
