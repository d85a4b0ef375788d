"""Where an agent's time goes: sampled stacks -> shares, and a flame graph. Pure.

A stack is a list of frames from the outermost to the innermost, each written as py-spy
does: `Session.send (requests/sessions.py)`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Dict, Iterator, List, Sequence, Tuple
from xml.sax.saxutils import escape

_PLUGIN = "prefect_ecs_plugin/"
_OBSERVABILITY = f"{_PLUGIN}observability/"

#: What the agent does, and the beginnings of the paths of the files that do it. A stack
#: belongs to the first part that one of its frames is of.
PARTS: Tuple[Tuple[str, Tuple[str, ...]], ...] = (
    (
        "redaction of secrets",
        tuple(
            _OBSERVABILITY + name for name in ("redaction", "secret_", "known_secrets")
        ),
    ),
    ("logging", ("logging/", f"{_OBSERVABILITY}log_formats")),
    ("calls to ECS: botocore, rate limits", ("botocore/", "boto3/", f"{_PLUGIN}aws/")),
    (
        "requests to the Prefect API",
        ("requests/", "prefect/client/", f"{_PLUGIN}prefect_api/"),
    ),
    (
        "rendering of requests, rules",
        (
            *(f"{_PLUGIN}template.", f"{_PLUGIN}kwargs.", f"{_PLUGIN}run_config."),
            *(f"{_PLUGIN}flow_run.", f"{_PLUGIN}validation/", f"{_PLUGIN}config/"),
            *(f"{_PLUGIN}launch/overflow", f"{_PLUGIN}launch/api_key"),
        ),
    ),
    ("claims, launches, dispatcher", (_PLUGIN,)),
    ("everything else", ("",)),
)

Stack = Tuple[str, ...]

_WIDTH, _ROW, _MARGIN = 940, 17, 10
_LETTER = 5.9

#: Of all samples; what is narrower is not drawn.
_NARROWEST = 0.003

_STYLE = """
  text { font: 11px system-ui, sans-serif; fill: #1f2328; pointer-events: none; }
  .title, .legend { font-size: 13px; } .title { font-weight: 600; }
  rect { stroke: #fff; stroke-width: .6; }
  .p0 { fill: #ffb3ba; } .p1 { fill: #ffd8a8; } .p2 { fill: #a5d8ff; }
  .p3 { fill: #b2f2bb; } .p4 { fill: #eebefa; } .p5 { fill: #ffec99; }
  .p6 { fill: #dee2e6; }
  @media (prefers-color-scheme: dark) {
    .title, .legend { fill: #e6edf3; } rect { stroke: #0d1117; }
  }
"""


def parsed(raw: str) -> Dict[Stack, int]:
    """Read what `py-spy record --format raw` writes.

    Args:
        raw: A line for each stack: frames between semicolons, and how many samples.

    Returns:
        How many samples there are of each stack, without the frames that start a thread
        or the command. Of frames that follow each other in one file the first stays.
    """
    found: Counter[Stack] = Counter()
    for line in raw.splitlines():
        frames, _, samples = line.rpartition(" ")
        found[_shortened(frames.split(";"))] += int(samples)
    return dict(found)


def _shortened(frames: Sequence[str]) -> Stack:
    own = [number for number, frame in enumerate(frames) if _PLUGIN in _file(frame)]
    kept: List[str] = []
    for frame in frames[own[0] if own else 0 :]:
        if not kept or _file(kept[-1]) != _file(frame):
            kept.append(frame)
    return tuple(kept)


def _file(frame: str) -> str:
    return frame.rpartition(" (")[2].rstrip(")")


def part_of(stack: Sequence[str]) -> int:
    """The part that a stack belongs to, as its number in `PARTS`."""
    files = [_file(frame) for frame in stack]
    for number, (_, beginnings) in enumerate(PARTS):
        if any(file.startswith(beginnings) for file in files):
            return number
    return len(PARTS) - 1


def shares(stacks: Dict[Stack, int]) -> List[Tuple[str, float]]:
    """The part of the samples that each of `PARTS` has, the largest first."""
    counts = Counter({name: 0 for name, _ in PARTS})
    for stack, samples in stacks.items():
        counts[PARTS[part_of(stack)][0]] += samples
    total = max(1, sum(counts.values()))
    return [(name, samples / total) for name, samples in counts.most_common()]


@dataclass
class _Node:
    """A frame, where it was called from, and what it calls."""

    stack: Stack
    samples: int = 0
    callees: Dict[str, _Node] = field(default_factory=dict)


def svg(title: str, stacks: Dict[Stack, int]) -> str:
    """A flame graph, the outermost frames on top; it needs no script.

    Args:
        title: Written above it.
        stacks: How many samples there are of each.
    """
    root = _Node(())
    for stack, samples in stacks.items():
        node = root
        node.samples += samples
        for depth, frame in enumerate(stack, 1):
            node = node.callees.setdefault(frame, _Node(stack[:depth]))
            node.samples += samples
    drawing = _Drawing(root.samples, top=_MARGIN + 28 + 20 * (len(PARTS) // 2 + 1))
    boxes = list(drawing.boxes(root, _MARGIN))
    height = drawing.bottom + _MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
            f'width="{_WIDTH}" height="{height}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            f'<text class="title" x="{_MARGIN}" y="{_MARGIN + 13}">'
            f"{escape(title)}</text>",
            *_legend(shares(stacks)),
            *boxes,
            "</svg>\n",
        ]
    )


def _legend(parts: Sequence[Tuple[str, float]]) -> Iterator[str]:
    """The parts with their colours and shares, in two columns."""
    names = [name for name, _ in PARTS]
    for number, (name, share) in enumerate(parts):
        x = _MARGIN + number % 2 * _WIDTH // 2
        y = _MARGIN + 24 + number // 2 * 20
        colour = names.index(name)
        yield f'<rect class="p{colour}" x="{x}" y="{y}" width="14" height="14"/>'
        text = escape(f"{share:.0%} {name}")
        yield f'<text class="legend" x="{x + 20}" y="{y + 12}">{text}</text>'


class _Drawing:
    """Places frames below those that call them.

    Args:
        samples: How many there are.
        top: Where the first row is.
    """

    def __init__(self, samples: int, top: int) -> None:
        self._samples = max(1, samples)
        self._top = top
        self.bottom = top

    def boxes(self, node: _Node, left: float) -> Iterator[str]:
        """What a frame calls, from left to right, the largest first."""
        for callee in sorted(node.callees.values(), key=lambda each: -each.samples):
            share = callee.samples / self._samples
            width = share * (_WIDTH - 2 * _MARGIN)
            if share >= _NARROWEST:
                yield self._box(callee, left, width, share)
                yield from self.boxes(callee, left)
            left += width

    def _box(self, node: _Node, left: float, width: float, share: float) -> str:
        y = self._top + (len(node.stack) - 1) * _ROW
        self.bottom = max(self.bottom, y + _ROW)
        frame = node.stack[-1]
        title = escape(f"{frame}: {share:.1%}")
        box = (
            f'<rect class="p{part_of(node.stack)}" x="{left:.1f}" y="{y}" '
            f'width="{width:.1f}" height="{_ROW}"><title>{title}</title></rect>'
        )
        label = _fitting(frame, width)
        if not label:
            return box
        return f'{box}<text x="{left + 3:.1f}" y="{y + 12}">{escape(label)}</text>'


def _fitting(frame: str, width: float) -> str:
    """As much of a frame's name as there is space for; empty if that says nothing."""
    name, _, file = frame.partition(" (")
    library = "" if file.startswith(_PLUGIN) else file.partition("/")[0].rstrip(")")
    whole = f"{library}: {name}" if library and "/" in file else name
    letters = int((width - 6) / _LETTER)
    if len(whole) > letters:
        whole = f"{whole[: letters - 1]}…" if letters > 4 else ""
    return whole
