"""What a check says. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Iterable

from ...errors import with_code


class Status(Enum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """One line of the preflight.

    Attributes:
        status: How it ended.
        message: What was found; for a check that was skipped, why.
        advice: What to do, empty where there is nothing to do.
        check: The check's name.
        about: Which flow, role or image it is about, where there may be several.
        code: Names what was found, unless all is well.
    """

    status: Status
    message: str
    advice: str = ""
    check: str = ""
    about: str = ""
    code: str = ""

    @property
    def title(self) -> str:
        """The check's name, and what it is about."""
        return f"{self.check} ({self.about})" if self.about else self.check

    @property
    def text(self) -> str:
        """What was found and what to do, as one line of sentences, and the code."""
        sentences = (self.message, self.advice)
        line = " ".join(" ".join(text.split()) for text in sentences if text)
        return with_code(line, self.code)

    def of(self, check: str, about: str = "") -> Finding:
        """The same finding under a check's name, unless it has one of its own."""
        return replace(self, check=self.check or check, about=self.about or about)


def sentence(text: object) -> str:
    """Text, such as an error's, with a full stop where it lacks one."""
    line = str(text)
    return line if line.endswith((".", "?", "!")) else f"{line}."


def ok(message: str, about: str = "") -> Finding:
    """Nothing to do."""
    return Finding(Status.OK, message, about=about)


def warning(
    message: str, advice: str = "", about: str = "", *, code: str = ""
) -> Finding:
    """It may work all the same."""
    return Finding(Status.WARNING, message, advice, about=about, code=code)


def failed(
    message: str, advice: str = "", about: str = "", *, code: str = ""
) -> Finding:
    """It will not work."""
    return Finding(Status.FAILED, message, advice, about=about, code=code)


def skipped(
    message: str, advice: str = "", about: str = "", *, code: str = ""
) -> Finding:
    """It could not be found out."""
    return Finding(Status.SKIPPED, message, advice, about=about, code=code)


def has_failed(findings: Iterable[Finding]) -> bool:
    """Whether any check failed."""
    return any(finding.status is Status.FAILED for finding in findings)


def tally(findings: Iterable[Finding]) -> str:
    """How many checks ended how, worst first: `1 failed: cluster; 2 warnings, 9 ok`."""
    found = list(findings)
    statuses = [finding.status for finding in found]
    order = (Status.WARNING, Status.SKIPPED, Status.OK)
    counts = ((status, statuses.count(status)) for status in order)
    others = ", ".join(_counted(count, status) for status, count in counts if count)
    failures = [each.title for each in found if each.status is Status.FAILED]
    if not failures:
        return others
    worst = f"{len(failures)} failed: {', '.join(failures)}"
    return f"{worst}; {others}" if others else worst


def _counted(count: int, status: Status) -> str:
    plural = "s" if status is Status.WARNING and count > 1 else ""
    return f"{count} {status.value}{plural}"
