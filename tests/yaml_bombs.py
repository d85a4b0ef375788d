"""Short texts of YAML that stand for very large values."""

from __future__ import annotations


def bomb(levels: int = 30) -> str:
    """A mapping of lists whose aliases multiply.

    Args:
        levels: How many lists, each of nine of the one before: 9**levels values.
    """
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        inner = ", ".join([f"*a{level - 1}"] * 9)
        lines.append(f"a{level}: &a{level} [{inner}]")
    return "\n".join(lines)
