"""The report as a table, as plain lines or as JSON."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from itertools import islice
from typing import Any, Callable, Iterable, List, Mapping, Sequence

import click
import yaml

from .findings import Finding, Status, folded, has_failed, tally

_COLOURS = {
    Status.OK: "green",
    Status.WARNING: "yellow",
    Status.FAILED: "red",
    Status.SKIPPED: "cyan",
}

#: Widths of the first two columns; a longer title gets lines of its own.
_STATUS = 9
_TITLE = 22

#: The requests of each flow, by operation.
Requests = Mapping[str, Mapping[str, Any]]


class Lines:
    """One line for each finding, for files and other programs.

    Args:
        echo: Prints a line.
        verbose: Whether to show each finding, and the requests of several files' flows.
    """

    def __init__(
        self, echo: Callable[[str], object] = click.echo, verbose: bool = False
    ) -> None:
        self._echo = echo
        self._verbose = verbose

    def show_all(self, findings: Iterable[Finding]) -> None:
        """Print the findings as they come."""
        for finding in findings if self._verbose else folded(findings):
            self.show(finding)

    def show(self, finding: Finding) -> None:
        """Print a finding at once."""
        self._echo(f"{finding.status.value}: {finding.title}: {finding.text}")

    def end(
        self, findings: Sequence[Finding], requests: Requests, of_one_file: bool
    ) -> None:
        """Print the requests and the tally.

        Args:
            findings: All of them.
            requests: The requests of each flow.
            of_one_file: Whether the flows are in one file. The requests of several
                files' flows would hide the findings.
        """
        are_shown = of_one_file or self._verbose
        if requests and not are_shown:
            self._echo(f"\n--verbose shows the requests for {len(requests)} flows.")
        for flow, sent in requests.items() if are_shown else ():
            text = yaml.safe_dump(sent, sort_keys=False, allow_unicode=True).rstrip()
            self._echo(f"\nRequests for flow {flow!r}:\n{text}")
        self._end_with(f"{tally(findings)}.")
        failures = (each for each in findings if each.status is Status.FAILED)
        for first in islice(folded(failures), 1):  # it may have left the screen
            self._end_with(f"Begin with {first.title}: {first.text}")

    def _end_with(self, line: str) -> None:
        self._echo(line)


class Table(Lines):
    """Columns in colours, wrapped to the terminal's width.

    Args:
        echo: Prints a line.
        width: Columns of the terminal.
        verbose: As of `Lines`.
    """

    def __init__(
        self,
        echo: Callable[[str], object] = click.echo,
        width: int = 80,
        verbose: bool = False,
    ) -> None:
        super().__init__(echo, verbose)
        self._width = max(width, _STATUS + _TITLE + 20)
        self._echo(click.style(_row("RESULT", "CHECK", "FINDING"), bold=True))

    def show(self, finding: Finding) -> None:
        """Print a row at once."""
        word = finding.status.value.ljust(_STATUS)
        coloured = click.style(word, fg=_COLOURS[finding.status])
        first, *others = self._cells(finding)
        self._echo("\n".join([coloured + first[_STATUS:], *others]))

    def _end_with(self, line: str) -> None:
        self._echo(textwrap.fill(line, self._width, break_on_hyphens=False))

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
        if len(finding.title) < _TITLE:
            return [_row("", finding.title, rows[0].strip()), *rows[1:]]
        titles = textwrap.wrap(
            finding.title, self._width - _STATUS, break_on_hyphens=False
        )
        return [" " * _STATUS + title for title in titles] + rows


def _row(status: str, title: str, text: str) -> str:
    return f"{status:<{_STATUS}}{title:<{_TITLE}}{text}"


class JSON(Lines):
    """One document, at the end."""

    def show(self, finding: Finding) -> None:
        """Print nothing yet."""

    def end(
        self, findings: Sequence[Finding], requests: Requests, of_one_file: bool
    ) -> None:
        """Print the document."""
        checks = [
            {
                "check": finding.check,
                "about": finding.about or ", ".join(finding.flows),
                "flows": list(finding.flows),
                "status": finding.status.value,
                "code": finding.code,
                "message": finding.message,
                "advice": finding.advice,
            }
            for finding in findings
        ]
        document = {
            "failed": has_failed(findings),
            "checks": checks,
            "requests": requests,
        }
        self._echo(json.dumps(document, indent=2))


def screen(as_json: bool, verbose: bool) -> Lines:
    """The format for stdout: JSON if asked for, a table on a terminal, else lines."""
    if as_json:
        return JSON()
    if not sys.stdout.isatty():
        return Lines(verbose=verbose)

    def echo(text: str) -> None:  # https://no-color.org
        click.echo(text, color=False if os.environ.get("NO_COLOR") else None)

    return Table(echo, shutil.get_terminal_size().columns, verbose)
