"""Charts side by side, as Grafana lays them out, in one SVG. Pure.

Its like is `plot`, whose ticks it uses: written by hand, legible on a light and on a
dark page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator, List, Mapping, Optional, Sequence, Tuple
from xml.sax.saxutils import escape

from .plot import ticks

#: Values over time; None where there is none.
Series = Sequence[Optional[float]]

_COLUMNS = 2
_WIDTH, _HEIGHT = 560, 290
_GAP, _HEAD = 16, 92
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 52, 76

#: Fills that differ for the colour-blind too (Okabe and Ito's), light and dark.
_COLOURS = (
    ("#0072b2", "#56a8e0"),
    ("#d55e00", "#f08a4b"),
    ("#009e73", "#3fc79a"),
    ("#cc79a7", "#e39cc4"),
    ("#e69f00", "#f2bd4b"),
    ("#56b4e9", "#8fd0f5"),
    ("#6e7781", "#9198a1"),
)


@dataclass(frozen=True)
class Panel:
    """One chart.

    Attributes:
        title: As on the dashboard.
        unit: What the values are.
        series: By their name in the legend.
        stacked: Whether they are shown on top of each other.
        dashed: The series that is a limit rather than a measurement.
    """

    title: str
    unit: str
    series: Mapping[str, Series]
    stacked: bool = False
    dashed: str = ""


@dataclass(frozen=True)
class Mark:
    """A moment at which something happened.

    Attributes:
        second: When.
        words: What, for the head of the drawing.
    """

    second: float
    words: str


def svg(
    title: str, seconds: Sequence[float], panels: Sequence[Panel], marks: Sequence[Mark]
) -> str:
    """A drawing of panels over the same time.

    Args:
        title: What it shows.
        seconds: When the values were taken.
        panels: Drawn two beside each other.
        marks: Drawn into each panel.
    """
    rows = -(-len(panels) // _COLUMNS)
    width = _COLUMNS * (_WIDTH + _GAP) + _GAP
    height = _HEAD + rows * (_HEIGHT + _GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_style()}</style>",
        f'<rect class="page" width="{width}" height="{height}"/>',
        _text(_GAP, 34, title, "title"),
        _text(_GAP, 62, _legend_of(marks)),
    ]
    for number, panel in enumerate(panels):
        row, column = divmod(number, _COLUMNS)
        x, y = _GAP + column * (_WIDTH + _GAP), _HEAD + row * (_HEIGHT + _GAP)
        drawing = "\n".join(_Drawing(panel, seconds, marks).parts())
        parts.append(f'<g transform="translate({x},{y})">\n{drawing}\n</g>')
    return "\n".join([*parts, "</svg>\n"])


class _Drawing:
    """Draws one panel, from its own corner on."""

    def __init__(
        self, panel: Panel, seconds: Sequence[float], marks: Sequence[Mark]
    ) -> None:
        self._panel, self._seconds, self._marks = panel, seconds, marks
        self._bands = list(_bands(panel))
        tops = [top for _, _, band in self._bands for _, top in filter(None, band)]
        self._y_ticks = ticks(max([*tops, 1e-9]))
        self._x_ticks = ticks(max(seconds))

    def parts(self) -> Iterator[str]:
        yield f'<rect class="panel" width="{_WIDTH}" height="{_HEIGHT}" rx="4"/>'
        yield _text(14, 26, self._panel.title, "name")
        yield _text(_WIDTH - _RIGHT, 26, self._panel.unit, anchor="end")
        yield from self._grid()
        for number, _, band in self._bands:
            yield from self._band(number, band)
        yield from self._legend()

    def _grid(self) -> Iterator[str]:
        for y in self._y_ticks:
            at = self._y(y)
            yield _line("grid", _LEFT, at, _WIDTH - _RIGHT, at)
            yield _text(_LEFT - 6, at + 5, f"{y:g}", anchor="end")
        for x in self._x_ticks:
            if x <= self._seconds[-1]:
                yield _text(
                    self._x(x), _HEIGHT - _BOTTOM + 18, f"{x:g} s", "", "middle"
                )
        for number, mark in enumerate(self._marks, 1):
            at = self._x(mark.second)
            yield _line("mark", at, _TOP, at, _HEIGHT - _BOTTOM)
            yield _text(at, _TOP - 5, str(number), "", "middle")

    def _band(self, number: int, band: Sequence[Optional[Point]]) -> Iterator[str]:
        for piece in _pieces(list(zip(self._seconds, band))):
            tops = [f"{self._x(at):.1f},{self._y(top):.1f}" for at, _, top in piece]
            if self._panel.stacked:  # areas alone: one of no height is not to be seen
                floor = [
                    f"{self._x(at):.1f},{self._y(low):.1f}" for at, low, _ in piece
                ]
                points = " ".join([*tops, *reversed(floor)])
                yield f'<polygon class="area s{number}" points="{points}"/>'
                continue
            is_limit = self._bands[number][1] == self._panel.dashed
            style = f"line s{number}" + (" dashed" if is_limit else "")
            yield f'<polyline class="{style}" points="{" ".join(tops)}"/>'

    def _legend(self) -> Iterator[str]:
        x, y = float(_LEFT), _HEIGHT - 32.0
        for number, name, _ in self._bands:
            width = 18 + sum(9.5 if letter.isupper() else 7 for letter in name)
            if x + width > _WIDTH - _RIGHT:
                x, y = float(_LEFT), y + 20
            yield f'<rect class="key s{number}" x="{x}" y="{y - 11}" {_KEY}/>'
            yield _text(x + 18, y, name)
            x += width + 14

    def _x(self, second: float) -> float:
        return _LEFT + second / self._seconds[-1] * (_WIDTH - _LEFT - _RIGHT)

    def _y(self, value: float) -> float:
        height = _HEIGHT - _TOP - _BOTTOM
        return _HEIGHT - _BOTTOM - value / self._y_ticks[-1] * height


#: The lower and the upper end of a band at one moment.
Point = Tuple[float, float]

_KEY = 'width="12" height="12" rx="2"'


def _bands(panel: Panel) -> Iterator[Tuple[int, str, List[Optional[Point]]]]:
    """Each series from where the one below it ends, or from zero."""
    below = [0.0] * max(map(len, panel.series.values()), default=0)
    for number, (name, values) in enumerate(panel.series.items()):
        band: List[Optional[Point]] = []
        for at, value in enumerate(values):
            band.append(None if value is None else (below[at], below[at] + value))
            if panel.stacked and value is not None:
                below[at] += value
        yield number, name, band


def _pieces(
    points: Sequence[Tuple[float, Optional[Point]]],
) -> Iterator[List[Tuple[float, float, float]]]:
    """What can be drawn without lifting the pen."""
    piece: List[Tuple[float, float, float]] = []
    for at, point in points:
        if point is None:
            if piece:
                yield piece
            piece = []
        else:
            piece.append((at, *point))
    if piece:
        yield piece


def _legend_of(marks: Sequence[Mark]) -> str:
    return "  \u00b7  ".join(f"{n}: {mark.words}" for n, mark in enumerate(marks, 1))


def _style() -> str:
    return f"""
  text {{ font: 13px system-ui, sans-serif; fill: #24292f; }}
  .title {{ font-size: 19px; font-weight: 600; }}
  .name {{ font-size: 15px; font-weight: 600; }}
  .page {{ fill: #ffffff; }} .panel {{ fill: #f6f8fa; stroke: #d0d7de; }}
  .grid {{ stroke: #d8dee4; }} .mark {{ stroke: #8c959f; stroke-dasharray: 2 4; }}
  .line {{ fill: none; stroke-width: 2; stroke-linejoin: round; }}
  .area {{ fill-opacity: 0.8; stroke: none; }}
  .dashed {{ stroke-dasharray: 7 5; stroke-width: 1.5; }}
{_colours(0)}
  @media (prefers-color-scheme: dark) {{
    text {{ fill: #e6edf3; }}
    .page {{ fill: #0d1117; }} .panel {{ fill: #161b22; stroke: #30363d; }}
    .grid {{ stroke: #30363d; }} .mark {{ stroke: #6e7681; }}
{_colours(1)}
  }}
"""


def _colours(page: int) -> str:
    rules = []
    for number, colours in enumerate(_COLOURS):
        colour, name = colours[page], f"s{number}"
        rules.append(f"  .line.{name} {{ stroke: {colour}; }}")
        rules.append(f"  .area.{name}, .key.{name} {{ fill: {colour}; }}")
    return "\n".join(rules)


def _line(style: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return (
        f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" '
        f'x2="{x2:.1f}" y2="{y2:.1f}"/>'
    )


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> str:
    named = f' class="{style}"' if style else ""
    return (
        f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )
