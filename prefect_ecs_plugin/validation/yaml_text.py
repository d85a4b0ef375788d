"""A mapping from YAML text, or one line that says where the text is wrong.

Everyone who may register a flow may write a template, so the cost of reading one is
bounded. The text is read as a stream of events and refused at the first event over a
limit: nothing is built before, and aliases are counted with their expansion.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Dict, List, Optional, Union

import yaml

from ..errors import SourceError
from .excerpt import quoted, shortened

Text = Union[bytes, str]

#: Bytes of a text, and characters of its values after aliases are expanded.
MAX_BYTES = 1024 * 1024

#: Keys, values, lists and mappings of a text after aliases are expanded.
MAX_NODES = 10_000

#: Levels to which lists and mappings are nested.
MAX_DEPTH = 50

#: Characters of a number: Python needs the square of their count to read it.
_MAX_NUMBER = 100

_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")

#: Characters of a path, and of what PyYAML says, in a message.
MAX_PATH = 200
_MAX_REASON = 220

#: Bytes that are read at once.
_CHUNK = 64 * 1024


def parse_mapping(
    text: Text, where: str, has_unique_keys: bool = False
) -> Dict[str, Any]:
    """The mapping that a YAML text holds.

    Args:
        text: The content of a file; bytes are UTF-8, or UTF-16 with its mark.
        where: The path of the text, for errors.
        has_unique_keys: Whether a key that stands twice in a mapping is an error; else
            its last value counts, as ever in YAML.

    Raises:
        SourceError: When the text is over a limit, does not parse, is empty or holds
            no mapping: one line of at most 500 characters with the path, and the line
            and column where there are any.
    """
    where = shortened(where, MAX_PATH)
    value = _parse(text, where, _UniqueKeys if has_unique_keys else _Loader)
    if value is None:
        raise SourceError(
            f"{where} is empty, but must be a mapping of keys to values",
            code="empty-file",
        )
    if not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else "a single value"
        raise SourceError(
            f"{where}, line 1, column 1: {kind}, but must be a mapping of keys to "
            "values",
            code="not-a-mapping",
        )
    return value


def read_file(path: str) -> bytes:
    """The content of a local file of YAML.

    Args:
        path: A local path. Only regular files are read, because a pipe may keep the
            reader waiting and a device may never end.

    Raises:
        SourceError: The reason without the path, if the file cannot be read, is not a
            regular file or is too long.
    """
    try:
        # O_NONBLOCK: opening a pipe that has no writer would wait for one.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise SourceError(
                    "it is a pipe or a device, not a file", code="not-a-file"
                )
            return read_bounded(file.read)
    except SourceError:
        raise
    except (OSError, ValueError) as error:  # ValueError: the path has a null byte
        raise SourceError(
            f"{getattr(error, 'strerror', None) or error}; check the path and its "
            "permissions",
            code="unreadable-file",
        ) from error


def read_bounded(read: Callable[[int], bytes]) -> bytes:
    """All that `read` returns, in chunks, until it returns nothing.

    Args:
        read: Takes the largest number of bytes to return.

    Raises:
        SourceError: The reason without the path, if it is too long.
    """
    content = bytearray()
    while len(content) <= MAX_BYTES:
        chunk = read(min(_CHUNK, MAX_BYTES + 1 - len(content)))
        if not chunk:
            break
        content += chunk
    check_length(len(content))
    return bytes(content)


def check_length(length: int) -> None:
    """Refuse a text that is too long.

    Args:
        length: Bytes of it, or more than are allowed if it was not read to its end.

    Raises:
        SourceError: The reason without the path, if it is too long.
    """
    if length > MAX_BYTES:
        raise SourceError(
            f"it is longer than {MAX_BYTES:,} bytes; shorten it", code="file-too-long"
        )


def _parse(text: Text, where: str, kind: Any) -> Any:
    loader: Any = None
    try:
        check_length(len(text))
        loader = _Loader(text)
        extents = _Extents()
        while loader.check_event():
            extents.read(loader.get_event())
        loader.dispose()
        loader = kind(text)
        return loader.get_single_data()
    except SourceError as error:
        raise SourceError(f"{where}: {error}", code=error.code) from error
    except _Refused as error:
        reason, place = error.problem, _place(error, text)
        raise SourceError(f"{where}{place}: {reason}", code=error.code) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # ValueError: what looks like a date, but is none, such as 2022-13-45.
        reason = getattr(error, "problem", None) or getattr(error, "context", None)
        reason = reason or getattr(error, "reason", None) or str(error)
        reason = shortened(" ".join(reason.split()), _MAX_REASON)
        raise SourceError(
            f"{where}{_place(error, text)}: {reason}", code="invalid-yaml"
        ) from error
    except RecursionError as error:
        raise SourceError(
            f"{where}: it is nested too deeply", code="yaml-limit"
        ) from error
    finally:
        if loader is not None:
            loader.dispose()


def _place(error: Exception, text: Text) -> str:
    """Line and column, which PyYAML counts from 0 and editors count from 1."""
    if isinstance(error, yaml.reader.ReaderError):
        # PyYAML counts the position of a character that it cannot read in characters,
        # and that of a byte that it cannot decode in bytes, which the text is then in.
        before = text[: error.position]
        if isinstance(before, bytes):
            before = before.decode("utf-8", "replace")
        line, column = before.count("\n"), len(before) - before.rfind("\n") - 1
    else:
        mark = getattr(error, "problem_mark", None)
        mark = mark or getattr(error, "context_mark", None)
        if mark is None:
            return ""
        line, column = mark.line, mark.column
    return f", line {line + 1}, column {column + 1}"


# -- Numbers -----------------------------------------------------------------------


#: libyaml's is fifty times as fast, so that no text keeps other runs waiting.
_Fastest: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Fastest):  # type: ignore[misc]  # one of two, both without types
    """PyYAML's safe loader, which refuses numbers of very many digits."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        """The tag of a node; only the beginning of a long value says what it is.

        PyYAML's patterns take 70 bytes for each character of a number.
        """
        resolve = super().resolve
        if kind is not yaml.ScalarNode or len(value) <= 2 * _MAX_NUMBER:
            return resolve(kind, value, implicit)
        begins = (value[: 2 * _MAX_NUMBER], value[: 2 * _MAX_NUMBER - 1])
        tags = [resolve(kind, begin, implicit) for begin in begins]
        return next((tag for tag in tags if tag in _NUMBERS), tags[0])

    def construct_scalar(self, node: yaml.ScalarNode) -> Any:
        """The text of a node, from which a number is made."""
        if node.tag in _NUMBERS and len(node.value) > _MAX_NUMBER:
            raise _Refused(
                node,
                f"a number of more than {_MAX_NUMBER} characters; quote it if it is "
                "text",
                code="yaml-limit",
            )
        return super().construct_scalar(node)


class _UniqueKeys(_Loader):
    """Refuses a key that stands twice in a mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        """The mapping of a node."""
        seen = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise _Refused(
                    key,
                    f"the key {quoted(name)} stands twice; remove one of them",
                    code="duplicate-key",
                )
            seen.add(name)
        return super().construct_mapping(node, deep=deep)


# -- The size of a text ------------------------------------------------------------


class _Refused(yaml.MarkedYAMLError):
    """A text is refused at an event or node."""

    def __init__(self, at: Any, problem: str, *, code: str) -> None:
        super().__init__(problem=problem, problem_mark=at.start_mark)
        self.code = code


@dataclass
class _Extent:
    """The size of a value, with the aliases in it expanded.

    Attributes:
        nodes: It and all values and keys in it.
        depth: Levels of lists and mappings, itself included.
        characters: The characters of all values and keys in it.
        anchor: The name by which aliases refer to it.
    """

    nodes: int = 1
    depth: int = 0
    characters: int = 0
    anchor: Optional[str] = None


@dataclass
class _Extents:
    """Adds up the size of a text, event by event.

    Attributes:
        open: The lists and mappings that are not closed yet, the outermost first.
        anchored: The value of each anchor; None while it is not closed.
    """

    open: List[_Extent] = field(default_factory=list)
    anchored: Dict[str, Optional[_Extent]] = field(default_factory=dict)
    nodes: int = 0
    characters: int = 0

    def read(self, event: yaml.Event) -> None:
        """Count an event.

        Raises:
            MarkedYAMLError: At the event that is over a limit.
        """
        if isinstance(event, yaml.CollectionStartEvent):
            extent = _Extent(depth=1, anchor=event.anchor)
            self._count(event, extent)
            self.open.append(extent)
            if event.anchor:
                self.anchored[event.anchor] = None
        elif isinstance(event, yaml.CollectionEndEvent):
            self._close(self.open.pop())
        elif isinstance(event, yaml.ScalarEvent):
            extent = _Extent(characters=len(event.value), anchor=event.anchor)
            self._count(event, extent)
            self._close(extent)
        elif isinstance(event, yaml.AliasEvent):
            extent = replace(self._expanded(event), anchor=None)
            self._count(event, extent)
            self._close(extent)

    def _expanded(self, event: yaml.AliasEvent) -> _Extent:
        if event.anchor not in self.anchored:
            name = shortened(str(event.anchor), 80)
            raise _Refused(event, f"undefined alias '{name}'", code="invalid-yaml")
        extent = self.anchored[event.anchor]
        if extent is None:
            raise _Refused(event, "an anchor contains itself", code="invalid-yaml")
        return extent

    def _count(self, event: yaml.Event, extent: _Extent) -> None:
        self.nodes += extent.nodes
        self.characters += extent.characters
        if self.nodes > MAX_NODES:
            raise _Refused(
                event,
                f"more than {MAX_NODES:,} keys and values after aliases are expanded",
                code="yaml-limit",
            )
        if self.characters > MAX_BYTES:
            raise _Refused(
                event,
                f"more than {MAX_BYTES:,} characters after aliases are expanded",
                code="yaml-limit",
            )
        if len(self.open) + extent.depth > MAX_DEPTH:
            raise _Refused(
                event, f"nested more than {MAX_DEPTH} levels deep", code="yaml-limit"
            )

    def _close(self, extent: _Extent) -> None:
        if extent.anchor:
            self.anchored[extent.anchor] = extent
        if self.open:
            outer = self.open[-1]
            outer.nodes += extent.nodes
            outer.depth = max(outer.depth, extent.depth + 1)
            outer.characters += extent.characters
