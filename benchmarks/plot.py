"""The start delay of each run, both agents and AWS's floor, as an SVG. Pure.

Written by hand: forty lines that need no library, and a drawing that is legible on
a light and on a dark page, in the size of the text around it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Iterator, List, Sequence, Tuple
from xml.sax.saxutils import escape

Point = Tuple[float, float]

_WIDTH, _HEIGHT = 840, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 30, 56, 52

_STYLE = """
  text { font: 14px system-ui, sans-serif; fill: #24292f; }
  .title { font-weight: 600; font-size: 16px; }
  .grid { stroke: #d0d7de; stroke-width: 1; }
  .line { fill: none; stroke-width: 2.5; stroke-linejoin: round; }
  .a { stroke: #0969da; } text.a { fill: #0969da; stroke: none; }
  .b { stroke: #bc4c00; } text.b { fill: #bc4c00; stroke: none; }
  .c { stroke: #57606a; stroke-dasharray: 6 5; }
  text.c { fill: #57606a; stroke: none; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .grid { stroke: #3d444d; }
    .a { stroke: #58a6ff; } text.a { fill: #58a6ff; }
    .b { stroke: #f0883e; } text.b { fill: #f0883e; }
    .c { stroke: #9198a1; } text.c { fill: #9198a1; }
  }
"""


@dataclass(frozen=True)
class Curve:
    """A curve and its name.

    Attributes:
        label: Written at its end.
        style: `a`, `b` or `c`, from `_STYLE`.
        points: x and y, in the axes' units.
        below: Whether the label stands below the end instead of above.
    """

    label: str
    style: str
    points: Sequence[Point]
    below: bool = False


def svg(title: str, x_label: str, y_label: str, curves: Sequence[Curve]) -> str:
    """A drawing of curves that begin at zero."""
    drawing = _Drawing(curves)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
            f'width="{_WIDTH}" height="{_HEIGHT}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            _text(_LEFT, 24, title, "title"),
            *drawing.grid(),
            *(drawing.curve(curve) for curve in curves),
            _text(_WIDTH - _RIGHT, _HEIGHT - 10, x_label, anchor="end"),
            _text(_LEFT, _TOP - 10, y_label),
            *(drawing.label(curve) for curve in curves),
            "</svg>\n",
        ]
    )


class _Drawing:
    """Knows where a point of the axes is on the page."""

    def __init__(self, curves: Sequence[Curve]) -> None:
        points = [point for curve in curves for point in curve.points]
        self._x_ticks = ticks(max(x for x, _ in points))
        self._y_ticks = ticks(max(y for _, y in points))

    def _at(self, x: float, y: float) -> Point:
        width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
        across, up = x / self._x_ticks[-1], y / self._y_ticks[-1]
        return _LEFT + across * width, _HEIGHT - _BOTTOM - up * height

    def grid(self) -> Iterator[str]:
        for y in self._y_ticks:
            left, at = self._at(0, y)
            yield (
                f'<line class="grid" x1="{left}" y1="{at:.1f}" '
                f'x2="{_WIDTH - _RIGHT}" y2="{at:.1f}"/>'
            )
            yield _text(left - 8, at + 5, f"{y:g}", anchor="end")
        for x in self._x_ticks:
            at, bottom = self._at(x, 0)
            yield _text(at, bottom + 20, f"{x:g}", anchor="middle")

    def curve(self, curve: Curve) -> str:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(self._place, curve.points))
        return f'<polyline class="line {curve.style}" points="{path}"/>'

    def label(self, curve: Curve) -> str:
        x, y = self._place(curve.points[-1])
        fits_beside = x < _WIDTH / 2
        dx, anchor = (10, "start") if fits_beside else (0, "end")
        dy = 5 if fits_beside else (50 if curve.below else -10)
        return _text(x + dx, y + dy, curve.label, curve.style, anchor)

    def _place(self, point: Point) -> Point:
        return self._at(*point)


def ticks(largest: float) -> List[float]:
    """Round numbers from zero to the largest or beyond, four to six of them."""
    size = 10.0 ** math.floor(math.log10(largest))
    step = next(size * part for part in (0.2, 0.5, 1, 2) if largest / size / part <= 5)
    return [step * number for number in range(math.ceil(largest / step) + 1)]


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> str:
    return (
        f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )
