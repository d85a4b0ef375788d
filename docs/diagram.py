"""Draws docs/images/architecture.svg: the way of a run through the agent.

    python docs/diagram.py

Text stays text, and the colours follow the reader's light or dark mode. Names of
modules are marked with `class="module"`; tests/test_docs.py checks that they exist.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import List, NamedTuple, Tuple

PATH = Path(__file__).parent / "images" / "architecture.svg"

WIDTH = 894
#: Left and right edge of the three columns: the Prefect API, the agent, AWS.
API, AGENT, AWS = (8, 118), (236, 644), (776, 886)
#: From a box to the frame around it, and to the arrow of a relaunch.
FRAME, RELAUNCH = 14, 24

_HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" \
width="{width}" height="{height}" role="img">
<title>The way of a run through the agent</title>
<style>
  text {{ font: 13px system-ui, sans-serif; fill: #24292f; }}
  .module {{ font: 600 13px ui-monospace, Menlo, Consolas, monospace; }}
  .title {{ font-weight: 600; font-size: 14px; }}
  .label {{ font-size: 12px; fill: #57606a; }}
  .outside {{ fill: #ddf4ff; stroke: #0969da; }}
  .package {{ fill: none; stroke: #8c959f; stroke-dasharray: 5 4; }}
  .calls {{ fill: #fff8c5; stroke: #9a6700; }}
  .pure {{ fill: #dafbe1; stroke: #1a7f37; }}
  .arrow {{ stroke: #57606a; stroke-width: 1.5; fill: none; }}
  .tip {{ fill: #57606a; }}
  @media (prefers-color-scheme: dark) {{
    text {{ fill: #e6edf3; }}
    .label {{ fill: #9198a1; }}
    .outside {{ fill: #0c2d6b; stroke: #58a6ff; }}
    .package {{ stroke: #656c76; }}
    .calls {{ fill: #3b2f0b; stroke: #d29922; }}
    .pure {{ fill: #12301c; stroke: #3fb950; }}
    .arrow {{ stroke: #9198a1; }}
    .tip {{ fill: #9198a1; }}
  }}
</style>
<defs>
<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" \
orient="auto-start-reverse"><path class="tip" d="M0 0 L8 4 L0 8 z"/></marker>
</defs>"""


class Step(NamedTuple):
    """A box in the agent's column.

    Attributes:
        kind: `calls` if it talks to a service or keeps time, `pure` if it computes.
        modules: Their names, without that of the package.
        text: What they do.
        to_api: What goes to the Prefect API, or comes from it with `<` before it.
        to_aws: The same for AWS.
    """

    kind: str
    modules: str
    text: str
    to_api: str = ""
    to_aws: str = ""


ABOVE = [Step("calls", "agent", "polls the queue of due runs", "<due runs")]
LAUNCH = [
    Step("calls", "launch.claims", "mark the run as taken", "Submitted"),
    Step("pure", "flow_run, run_config", "API row: FlowRun and ECSRun"),
    Step("pure", "template, kwargs", "two requests, as plain dicts"),
    Step("pure", "launch.overflow", "large variables: definition"),
    Step("calls", "submission", "start one task", to_aws="RunTask"),
]
AFTER = [
    Step("calls", "monitoring.watcher", "100 tasks a call", to_aws="<DescribeTasks"),
    Step("pure", "monitoring.decision", "why did it stop? verdict"),
    Step(
        "calls",
        "monitoring.supervisor",
        "leave, relaunch, fail, cancel",
        "Failed",
        "StopTask",
    ),
]


class Drawing:
    """An SVG that grows downwards."""

    def __init__(self) -> None:
        self.lines: List[str] = []
        self.y = 16.0

    def rect(self, kind: str, x: Tuple[float, float], y: float, height: float) -> None:
        self.lines.append(
            f'<rect class="{kind}" x="{x[0]}" y="{y}" width="{x[1] - x[0]}" '
            f'height="{height}" rx="6"/>'
        )

    def text(self, kind: str, x: float, y: float, text: str, anchor: str = "") -> None:
        at = f' text-anchor="{anchor}"' if anchor else ""
        self.lines.append(
            f'<text class="{kind}" x="{x}" y="{y}"{at}>{escape(text)}</text>'
        )

    def arrow(self, path: str) -> None:
        self.lines.append(f'<path class="arrow" d="{path}" marker-end="url(#tip)"/>')

    def step(self, step: Step) -> None:
        """Draw a box, and the arrows from it to the sides."""
        middle = self.y + 17
        self.rect(step.kind, AGENT, self.y, 34)
        self.text("module", AGENT[0] + 12, middle + 5, step.modules)
        self.text("", AGENT[1] - 12, middle + 5, step.text, "end")
        for said, near, far in (
            (step.to_api, AGENT[0], API[1]),
            (step.to_aws, AGENT[1], AWS[0]),
        ):
            if said:
                sign = 1 if far > near else -1
                begin, end = near + 2 * sign, far - 3 * sign
                if said.startswith("<"):
                    begin, end = end, begin
                self.arrow(f"M{begin} {middle} H{end}")
                gap = near + (FRAME if sign < 0 else RELAUNCH) * sign + far
                self.text("label", gap / 2, middle - 6, said.lstrip("<"), "middle")
        self.y += 34

    def down(self) -> None:
        """Draw an arrow to the next box."""
        x = (AGENT[0] + AGENT[1]) / 2
        self.arrow(f"M{x} {self.y + 1} V{self.y + 15}")
        self.y += 18

    def package(self, title: str, modules: str, steps: List[Step]) -> None:
        """Draw a frame with the boxes in it."""
        top = self.y
        self.text("module", AGENT[0], top + 20, modules)
        self.text("label", AGENT[1], top + 20, title, "end")
        self.y += 32
        for number, step in enumerate(steps):
            if number:
                self.down()
            self.step(step)
        self.y += 12
        self.rect("package", (AGENT[0] - FRAME, AGENT[1] + FRAME), top, self.y - top)


def drawn() -> str:
    """The diagram, as SVG."""
    drawing = Drawing()
    drawing.step(ABOVE[0])
    drawing.down()
    launch = drawing.y
    drawing.package("one run, as steps that can wait", "launch.launcher", LAUNCH)
    drawing.down()
    drawing.package("after the launch", "monitoring", AFTER)
    x = AGENT[1] + FRAME
    drawing.arrow(
        f"M{x} {drawing.y - 6} H{AGENT[1] + RELAUNCH} V{launch + 15} H{x + 2}"
    )
    bottom = drawing.y
    for name, detail, column in (
        ("Prefect API", "GraphQL", API),
        ("AWS", "Amazon ECS", AWS),
    ):
        drawing.rect("outside", column, 16, bottom - 16)
        middle = (column[0] + column[1]) / 2
        drawing.text("title", middle, bottom / 2, name, "middle")
        drawing.text("label", middle, bottom / 2 + 20, detail, "middle")
    drawing.text("label", AGENT[1] + RELAUNCH + 6, launch + 20, "relaunch")
    key = bottom + 28
    left = float(AGENT[0])
    for kind, meaning in (
        ("calls", "talks to a service"),
        ("pure", "pure: computes, calls nothing"),
    ):
        drawing.rect(kind, (left, left + 22), key - 12, 16)
        drawing.text("label", left + 30, key, meaning)
        left += 190
    head = _HEAD.format(width=WIDTH, height=int(key + 16))
    return "\n".join([head, *drawing.lines, "</svg>", ""])


if __name__ == "__main__":
    PATH.write_text(drawn(), encoding="utf-8")
