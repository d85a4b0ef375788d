"""The versions of this plugin and of others, as their distributions have them."""

from __future__ import annotations


def installed_version(distribution: str = "prefect-ecs-plugin") -> str:
    """The version, such as `0.1.0`; `unknown` in a checkout that is not installed."""
    from importlib.metadata import version

    try:
        return version(distribution) or "unknown"
    except Exception:  # never installed, or damaged metadata
        return "unknown"
