"""The one kind of error that a caller of the API is meant to see."""

from __future__ import annotations


class Refused(Exception):
    """The API will not do it; the message is what the caller is told."""
