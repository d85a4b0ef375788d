"""A mapping out of YAML text, or one line that says where the text goes wrong.

Templates and files of run_task kwargs may be written by anybody who may register a
flow, so what one of them can cost is bounded. The text is read as a stream of events,
and refused at the first one that is over a limit: nothing is built before, and aliases
are counted with all that they stand for.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Union

import yaml

from ..errors import SourceError
from .excerpt import MAX_LINE, shortened

Text = Union[bytes, str]

#: Bytes of a text, and characters of its values after aliases are expanded.
MAX_BYTES = 1024 * 1024

#: Keys, values, lists and mappings of a text after aliases are expanded.
MAX_NODES = 10_000

#: Lists and mappings that stand in each other.
MAX_DEPTH = 50

#: Characters of a number: Python needs the square of their count to read it.
_MAX_NUMBER = 100

_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")

#: Characters of a path in a message.
_MAX_PATH = 200


def parse_mapping(text: Text, where: str) -> Dict[str, Any]:
    """The mapping that a YAML text holds.

    Args:
        text: the content of a file; bytes are UTF-8, or UTF-16 with its mark.
        where: the path that names the text in errors.

    Raises:
        SourceError: when the text is over a limit, does not parse, is empty or holds
            no mapping: one line of at most 500 characters with the path, and the line
            and column where there are any.
    """
    where = shortened(where, _MAX_PATH)
    value = _parse(text, where)
    if value is None:
        raise SourceError(
            f"{where} is empty, and a mapping of keys to values is wanted"
        )
    if not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else "a single value"
        raise SourceError(
            f"{where}, line 1, column 1: {kind}, and a mapping of keys to values is "
            "wanted"
        )
    return value


def read_file(path: str) -> bytes:
    """The content of a local file of YAML.

    Args:
        path: A local path. Only regular files are read, so that no pipe keeps the
            reader waiting and no device feeds it for ever.

    Raises:
        OSError: if it cannot be opened or read.
        SourceError: half a sentence, if it is no regular file or too long.
    """
    # O_NONBLOCK: opening a pipe that has no writer would wait for one.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with open(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise SourceError("it is a directory, and a file is wanted")
        if not stat.S_ISREG(mode):
            raise SourceError("it is a pipe or a device, and only files are read")
        content = file.read(MAX_BYTES + 1)
    check_length(len(content))
    return content


def check_length(length: int) -> None:
    """Refuse a text that is too long.

    Args:
        length: Bytes of it, or more than are allowed if it was not read to its end.

    Raises:
        SourceError: half a sentence, if it is.
    """
    if length > MAX_BYTES:
        raise SourceError(f"it is longer than {MAX_BYTES:,} bytes; shorten it")


def _parse(text: Text, where: str) -> Any:
    loader: Any = None
    try:
        check_length(len(text))
        loader = _Loader(text)
        _check_events(loader)
        loader.dispose()
        loader = _Loader(text)
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = _place(mark.line, mark.column) if mark else ""
        reason = error.problem or error.context or "it does not parse"
        raise _refusal(f"{where}{place}", reason) from error
    except yaml.reader.ReaderError as error:
        raise _refusal(f"{where}{_place_of(error, text)}", error.reason) from error
    except SourceError as error:
        raise _refusal(where, str(error)) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # ValueError: what looks like a date and is none, such as 2022-13-45.
        raise _refusal(where, str(error)) from error
    except RecursionError as error:
        raise SourceError(f"{where}: it is nested too deeply") from error
    finally:
        if loader is not None:
            loader.dispose()


def _refusal(place: str, reason: str) -> SourceError:
    line = f"{place}: {_one_line(reason)}"
    return SourceError(shortened(line, MAX_LINE))


def _place(line: int, column: int) -> str:
    """Both counted from 0 by PyYAML, and from 1 by editors."""
    return f", line {line + 1}, column {column + 1}"


def _place_of(error: yaml.reader.ReaderError, text: Text) -> str:
    # PyYAML counts the position of a character that it cannot read in characters,
    # and that of a byte that it cannot decode in bytes, which the text is then in.
    before = text[: error.position]
    if isinstance(before, bytes):
        before = before.decode("utf-8", "replace")
    return _place(before.count("\n"), len(before) - before.rfind("\n") - 1)


def _one_line(reason: str) -> str:
    return " ".join(reason.split())


# -- Numbers -----------------------------------------------------------------------


#: libyaml's is fifty times as fast, so that no text keeps other runs waiting.
_Fastest: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Fastest):  # type: ignore[misc]  # one of two, both without types
    """PyYAML's safe loader, which reads no number of endless digits."""

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


def _bounded(construct: Any) -> Any:
    def construct_number(loader: _Loader, node: yaml.ScalarNode) -> Any:
        if len(node.value) > _MAX_NUMBER:
            raise yaml.constructor.ConstructorError(
                None,
                None,
                f"a number of more than {_MAX_NUMBER} characters; quote it if it is "
                "text",
                node.start_mark,
            )
        return construct(loader, node)

    return construct_number


_Loader.add_constructor(_NUMBERS[0], _bounded(yaml.SafeLoader.construct_yaml_int))
_Loader.add_constructor(_NUMBERS[1], _bounded(yaml.SafeLoader.construct_yaml_float))


# -- What a text amounts to --------------------------------------------------------


@dataclass
class _Extent:
    """What a value amounts to, with the aliases in it expanded.

    Attributes:
        nodes: It and all values and keys in it.
        depth: Lists and mappings that stand in each other, itself included.
        characters: The characters of all values and keys in it.
        anchor: The name by which aliases refer to it.
    """

    nodes: int = 1
    depth: int = 0
    characters: int = 0
    anchor: Optional[str] = None

    def add(self, inner: _Extent) -> None:
        self.nodes += inner.nodes
        self.depth = max(self.depth, inner.depth + 1)
        self.characters += inner.characters


@dataclass
class _Extents:
    """Adds up what the events of a text amount to.

    Attributes:
        open: The lists and mappings that are not closed yet, the outermost first.
        anchored: What each anchor stands for; None while it is not closed.
    """

    open: List[_Extent] = field(default_factory=list)
    anchored: Dict[str, Optional[_Extent]] = field(default_factory=dict)
    nodes: int = 0
    characters: int = 0

    def read(self, event: yaml.Event) -> None:
        """Take in an event.

        Raises:
            MarkedYAMLError: at the event that is over a limit.
        """
        if isinstance(event, yaml.CollectionStartEvent):
            extent = _Extent(depth=1, anchor=event.anchor)
            if event.anchor:
                self.anchored[event.anchor] = None
            self._count(event, _Extent(depth=1))
            self.open.append(extent)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._close(self.open.pop())
        elif isinstance(event, yaml.ScalarEvent):
            scalar = _Extent(characters=len(event.value), anchor=event.anchor)
            self._count(event, scalar)
            self._close(scalar)
        elif isinstance(event, yaml.AliasEvent):
            extent = self._expanded(event)
            self._count(event, extent)
            self._close(_Extent(extent.nodes, extent.depth, extent.characters))

    def _expanded(self, event: yaml.AliasEvent) -> _Extent:
        if event.anchor not in self.anchored:
            name = shortened(str(event.anchor), 80)
            raise _over(event, f"found undefined alias '{name}'")
        extent = self.anchored[event.anchor]
        if extent is None:
            raise _over(event, "an anchor refers to what it stands in")
        return extent

    def _count(self, event: yaml.Event, extent: _Extent) -> None:
        self.nodes += extent.nodes
        self.characters += extent.characters
        if self.nodes > MAX_NODES:
            raise _over(
                event,
                f"more than {MAX_NODES:,} keys and values, those that aliases stand "
                "for included",
            )
        if self.characters > MAX_BYTES:
            raise _over(
                event,
                f"more than {MAX_BYTES:,} characters, those that aliases stand for "
                "included",
            )
        if len(self.open) + extent.depth > MAX_DEPTH:
            raise _over(event, f"nested more than {MAX_DEPTH} levels deep")

    def _close(self, extent: _Extent) -> None:
        if extent.anchor:
            self.anchored[extent.anchor] = extent
        if self.open:
            self.open[-1].add(extent)


def _over(event: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


def _check_events(loader: Any) -> None:
    extents = _Extents()
    while loader.check_event():
        extents.read(loader.get_event())
