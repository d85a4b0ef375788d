"""The version of this plugin, as its distribution has it."""

from __future__ import annotations


def installed_version() -> str:
    """The version, such as `0.1.0`; `unknown` in a checkout that is not installed."""
    from importlib.metadata import version

    try:
        return version("prefect-ecs-plugin") or "unknown"
    except Exception:  # never installed, or damaged metadata
        return "unknown"
