"""The findings as a table, as plain lines or as JSON."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from typing import Any, Callable, Dict, List, Mapping, Sequence

import click
import yaml

from .findings import Finding, Status, has_failed, tally

_COLOURS = {
    Status.OK: "green",
    Status.WARNING: "yellow",
    Status.FAILED: "red",
    Status.SKIPPED: "cyan",
}

#: Columns of the table; what does not fit into the second gets a line of its own.
_STATUS = 9
_TITLE = 22

#: What would be sent, by operation, of each flow.
Requests = Mapping[str, Mapping[str, Any]]


class Lines:
    """One line for each finding, for files and other programs.

    Args:
        echo: Prints a line.
    """

    def __init__(self, echo: Callable[[str], object] = click.echo) -> None:
        self._echo = echo

    def show(self, finding: Finding) -> None:
        """Print a finding as soon as it is there."""
        self._echo(self._text(finding))

    def end(self, findings: Sequence[Finding], requests: Requests) -> None:
        """Print what would be sent, and the count."""
        for flow, sent in requests.items():
            self._echo(f"\nWhat would be sent for flow {flow!r}:\n{_yaml(sent)}")
        self._echo(self._wrapped(f"{tally(findings)}."))

    def _wrapped(self, text: str) -> str:
        return text

    def _text(self, finding: Finding) -> str:
        return f"{finding.status.value}: {finding.title}: {finding.text}"


class Table(Lines):
    """The same in columns, wrapped to the terminal, in colours.

    Args:
        echo: Prints a line.
        width: Columns of the terminal.
    """

    def __init__(
        self, echo: Callable[[str], object] = click.echo, width: int = 80
    ) -> None:
        super().__init__(echo)
        self._width = max(width, _STATUS + _TITLE + 20)
        self._echo(click.style(_row("RESULT", "CHECK", "WHAT WAS FOUND"), bold=True))

    def _text(self, finding: Finding) -> str:
        word = finding.status.value.ljust(_STATUS)
        coloured = click.style(word, fg=_COLOURS[finding.status])
        first, *others = self._cells(finding)
        return "\n".join([coloured + first[_STATUS:], *others])

    def _wrapped(self, text: str) -> str:
        return textwrap.fill(text, self._width, break_on_hyphens=False)

    def _cells(self, finding: Finding) -> List[str]:
        """The lines of a row; a title that is too long stands above its text."""
        indent = " " * (_STATUS + _TITLE)
        rows = textwrap.wrap(
            finding.text,
            self._width,
            initial_indent=indent,
            subsequent_indent=indent,
            break_on_hyphens=False,
        ) or [indent]
        titles = textwrap.wrap(
            finding.title, self._width - _STATUS, break_on_hyphens=False
        )
        if len(finding.title) < _TITLE:
            return [_row("", finding.title, rows[0].strip()), *rows[1:]]
        return [" " * _STATUS + title for title in titles] + rows


def _row(status: str, title: str, text: str) -> str:
    return f"{status:<{_STATUS}}{title:<{_TITLE}}{text}"


class JSON(Lines):
    """Everything in one document, at the end."""

    def show(self, finding: Finding) -> None:
        """Nothing yet."""

    def end(self, findings: Sequence[Finding], requests: Requests) -> None:
        """Print the document."""
        document = {
            "failed": has_failed(findings),
            "checks": [_plain(finding) for finding in findings],
            "requests": requests,
        }
        self._echo(json.dumps(document, indent=2))


def screen(as_json: bool) -> Lines:
    """What fits where the output goes; https://no-color.org is honoured."""
    if as_json:
        return JSON()
    if not sys.stdout.isatty():
        return Lines()
    return Table(_echo, shutil.get_terminal_size().columns)


def _echo(text: str) -> None:
    click.echo(text, color=False if os.environ.get("NO_COLOR") else None)


def _plain(finding: Finding) -> Dict[str, str]:
    return {
        "check": finding.check,
        "about": finding.about,
        "status": finding.status.value,
        "code": finding.code,
        "message": finding.message,
        "advice": finding.advice,
    }


def _yaml(value: Any) -> str:
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True)).rstrip()
