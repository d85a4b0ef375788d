"""What a check reports. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from itertools import groupby
from typing import Dict, Iterable, Iterator, List, Tuple

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
        about: The file, role or image in question, where there may be several.
        code: The kind of problem; empty for `ok`.
        flows: The flows in question; empty if it is all flows, or the agent itself.
    """

    status: Status
    message: str
    advice: str = ""
    check: str = ""
    about: str = ""
    code: str = ""
    flows: Tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The check's name and the objects in question."""
        flows = ", ".join(self.flows)
        if self.status is Status.OK and len(self.flows) > 2:
            flows = f"{len(self.flows)} flows"
        what = ", for ".join(filter(None, [self.about, flows]))
        return f"{self.check} ({what})" if what else self.check

    @property
    def text(self) -> str:
        """Message, advice and code in one line."""
        line = " ".join(f"{self.message} {self.advice}".split())
        return with_code(line, self.code)

    def of(self, check: str, about: str = "", flows: Tuple[str, ...] = ()) -> Finding:
        """A copy with what the finding does not have yet."""
        return replace(
            self,
            check=self.check or check,
            about=self.about or about,
            flows=self.flows or flows,
        )


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


def depends(*checks: str) -> Finding:
    """The check could not be made because others failed."""
    return skipped(
        f"Not checked because of: {', '.join(checks)}.", code="depends-on-failed-check"
    )


def failed_with(error: PrefectECSError, advice: str = "", about: str = "") -> Finding:
    """The error with which a run, or the agent, will fail."""
    return failed(sentence(error.message), advice, about, code=error.code)


def warned_with(text: str) -> Finding:
    """A warning that the agent would log."""
    return warning(sentence(text), code=code_of(text))


def has_failed(findings: Iterable[Finding]) -> bool:
    """Whether any check failed."""
    return any(finding.status is Status.FAILED for finding in findings)


# -- For people --------------------------------------------------------------------


def folded(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Make one finding of those of a check that say the same.

    What could not be checked because of another check becomes a number of checks. An
    equal result for several flows, or about several things that cannot be checked,
    becomes one finding that names them.
    """
    for series, group in groupby(findings, _series):
        if not series:
            yield from group
            continue
        alike: Dict[Finding, List[Finding]] = {}
        for finding in group:
            alike.setdefault(_common(finding), []).append(finding)
        yield from map(_folded, alike.values())


def _series(finding: Finding) -> str:
    """What is the same in successive findings of which some may become one."""
    if _depends(finding):
        return finding.message
    is_skipped = finding.status is Status.SKIPPED and finding.about
    return finding.check if finding.flows or is_skipped else ""


def _common(finding: Finding) -> Finding:
    """A finding without that in which those that become one may differ."""
    if _depends(finding):
        return replace(finding, check="", about="", flows=())
    if finding.status is Status.SKIPPED:
        return replace(finding, about="", flows=())
    return replace(finding, flows=())


def _folded(alike: List[Finding]) -> Finding:
    first = alike[0]
    if len(alike) == 1:
        return first
    if _depends(first):
        return replace(
            first,
            check=f"{len(alike)} checks",
            about="",
            flows=(),
            advice="--verbose lists them.",
        )
    about = dict.fromkeys(each.about for each in alike)
    flows = dict.fromkeys(flow for each in alike for flow in each.flows)
    return replace(first, about=", ".join(about), flows=tuple(flows))


def _depends(finding: Finding) -> bool:
    return finding.code == "depends-on-failed-check"


def tally(findings: Iterable[Finding]) -> str:
    """The failures, then counts by status.

    Such as `1 failed: template; 11 not checked because of it; 2 warnings, 9 ok`.
    """
    found = list(findings)
    failures = [each for each in found if each.status is Status.FAILED]
    dependent = [each for each in found if failures and _depends(each)]
    # Equal failures of several flows have one title.
    titles = dict.fromkeys(each.title for each in folded(failures))
    worst = f"{len(failures)} failed: {', '.join(titles)}" if failures else ""
    cause = "it" if len(failures) == 1 else "them"
    consequence = (
        f"{len(dependent)} not checked because of {cause}" if dependent else ""
    )
    rest = [each.status for each in found if each not in dependent]
    others = ", ".join(
        f"{rest.count(status)} {word}"
        for status, word in (
            (Status.WARNING, "warning" + "s" * (rest.count(Status.WARNING) > 1)),
            (Status.SKIPPED, "skipped"),
            (Status.OK, "ok"),
        )
        if status in rest
    )
    return "; ".join(filter(None, [worst, consequence, others]))
