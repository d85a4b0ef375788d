"""Generated names for flow runs that are created without one."""

from __future__ import annotations

import random

_HOW = """
    amber brisk calm clear deft early even fair fleet frank glad keen kind lively
    lucid mellow neat nimble patient plain prompt quiet ready sound spry steady
    sunny swift tidy warm willing wry
"""
_WHO = """
    auk badger bittern crane curlew dipper dunlin egret finch gannet godwit grebe
    heron ibis jackdaw kestrel lapwing linnet marten merlin nuthatch otter petrel
    pipit plover raven shrike siskin stoat teal tern wren
"""


def flow_run_name() -> str:
    """Something to say aloud, such as `quiet-heron`; not unique."""
    return "-".join(random.choice(words.split()) for words in (_HOW, _WHO))
