"""What a check reports. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Iterable

from ...errors import PrefectECSError, code_of, with_code, without_code


class Status(Enum):
    """The result of a check."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        status: The result.
        message: What was found; for a skipped check, why it was skipped.
        advice: What to do; empty if there is nothing to do.
        check: The check's name.
        about: The flow, role or image in question, where there may be several.
        code: The kind of problem; empty for `ok`.
    """

    status: Status
    message: str
    advice: str = ""
    check: str = ""
    about: str = ""
    code: str = ""

    @property
    def title(self) -> str:
        """The check's name and the object in question."""
        return f"{self.check} ({self.about})" if self.about else self.check

    @property
    def text(self) -> str:
        """Message, advice and code in one line."""
        line = " ".join(f"{self.message} {self.advice}".split())
        return with_code(line, self.code)

    def of(self, check: str, about: str = "") -> Finding:
        """A copy with a check's name, unless the finding has one already."""
        return replace(self, check=self.check or check, about=self.about or about)


def sentence(text: object) -> str:
    """Text without its code, ending with a full stop."""
    line = without_code(str(text))
    return line if line.endswith((".", "?", "!")) else f"{line}."


def ok(message: str, about: str = "") -> Finding:
    """Nothing to do."""
    return Finding(Status.OK, message, about=about)


def warning(message: str, advice: str = "", about: str = "", *, code: str) -> Finding:
    """Runs may fail."""
    return Finding(Status.WARNING, message, advice, about=about, code=code)


def failed(message: str, advice: str = "", about: str = "", *, code: str) -> Finding:
    """Runs, or the agent itself, will fail."""
    return Finding(Status.FAILED, message, advice, about=about, code=code)


def skipped(message: str, advice: str = "", about: str = "", *, code: str) -> Finding:
    """The check could not be made."""
    return Finding(Status.SKIPPED, message, advice, about=about, code=code)


def failed_with(error: PrefectECSError, advice: str = "", about: str = "") -> Finding:
    """The error with which a run, or the agent, will fail."""
    return failed(sentence(error.message), advice, about, code=error.code)


def warned_with(text: str) -> Finding:
    """A warning that the agent would log."""
    return warning(sentence(text), code=code_of(text))


def has_failed(findings: Iterable[Finding]) -> bool:
    """Whether any check failed."""
    return any(finding.status is Status.FAILED for finding in findings)


def tally(findings: Iterable[Finding]) -> str:
    """Counts by status, worst first: `1 failed: cluster; 2 warnings, 9 ok`."""
    found = list(findings)
    statuses = [finding.status for finding in found]
    counts = {status: statuses.count(status) for status in Status}
    plural = "s" if counts[Status.WARNING] > 1 else ""
    others = ", ".join(
        f"{counts[status]} {status.value}{plural * (status is Status.WARNING)}"
        for status in (Status.WARNING, Status.SKIPPED, Status.OK)
        if counts[status]
    )
    failures = [each.title for each in found if each.status is Status.FAILED]
    worst = f"{len(failures)} failed: {', '.join(failures)}" if failures else ""
    return "; ".join(filter(None, [worst, others]))
