"""Who may import whom: the house is as docs/architecture.md says."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Iterator, Set

import pytest

import prefect_ecs_plugin

HOUSE = Path(prefect_ecs_plugin.__file__).parent
DOCS = HOUSE.parent / "docs" / "architecture.md"

#: Rooms that need no server to be read, tested and changed.
PURE = [
    "agent_log",
    "api_key",
    "backoff",
    "console",
    "counting",
    "definitions",
    "errors",
    "excerpt",
    "flow_run",
    "hints",
    "known_secrets",
    "kwargs",
    "launch_record",
    "masking",
    "pacing",
    "polling",
    "retrying",
    "rights",
    "schedule",
    "secret_arn",
    "secret_names",
    "secret_patterns",
    "settings",
    "template",
    "troubles",
    "waiting",
    "watcher/poll_queue",
    *(f"rules/{path.stem}" for path in (HOUSE / "rules").glob("*.py")),
    *(f"task_state/{path.stem}" for path in (HOUSE / "task_state").glob("*.py")),
]

#: The rooms at the exit, the only ones that know boto3 or a client's errors.
KNOW_AWS = {
    "aws",
    "check/asking",
    "cluster",
    "ecs",
    "network",
    "prune/account",
    "secret_value",
    "sources",
}

#: The rooms at the door.
KNOW_PREFECT = {
    *(
        "agent",
        "api",
        "claims",
        "cli",
        "reporting",
        "run_config",
        "sources",
        "_commands",
    ),
    *(
        "prune/flows",
        "check/api",
        "check/api_access",
        "check/command",
        "check/flows",
        "check/preflight",
    ),
}

ROOMS = sorted(
    str(path.relative_to(HOUSE).with_suffix(""))
    for path in HOUSE.rglob("*.py")
    if "sandbox" not in path.parts
)


def imports(room: str) -> Iterator[str]:
    """Every module that a room imports, anywhere in it; types alone do not count."""
    tree = ast.parse((HOUSE / f"{room}.py").read_text(encoding="utf-8"))
    for node in _run_time_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                yield from (f".{module or alias.name}" for alias in node.names)
            else:
                yield module


def _run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(
            child.test
        )
        if not typing_only:
            yield from _run_time_nodes(child)


def packages(room: str) -> Set[str]:
    return {name.split(".")[0] for name in imports(room)}


@pytest.mark.parametrize("room", PURE)
def test_pure_rooms_know_neither_aws_nor_prefect(room: str) -> None:
    assert not packages(room) & {"boto3", "botocore", "prefect", "requests"}


@pytest.mark.parametrize("room", ROOMS)
def test_only_the_rooms_at_the_exit_know_aws(room: str) -> None:
    allowed = KNOW_AWS | {"shapes", "_commands"}  # they read botocore's model, version
    if room not in allowed:
        assert not packages(room) & {"boto3", "botocore"}


@pytest.mark.parametrize("room", ROOMS)
def test_only_the_rooms_at_the_door_know_prefect(room: str) -> None:
    if room not in KNOW_PREFECT:
        assert "prefect" not in packages(room)


@pytest.mark.parametrize("room", ROOMS)
def test_only_metrics_needs_its_extra(room: str) -> None:
    if room != "metrics":
        assert "prometheus_client" not in packages(room)


@pytest.mark.parametrize("room", ROOMS)
def test_nobody_but_the_command_line_knows_the_agent(room: str) -> None:
    if room not in ("cli", "__init__"):
        assert ".agent" not in set(imports(room))


@pytest.mark.parametrize("room", ROOMS)
def test_nothing_the_agent_runs_knows_the_sandbox(room: str) -> None:
    assert not [name for name in imports(room) if "sandbox" in name]


def test_importing_the_package_imports_nothing() -> None:
    """It is part of every start of Python, see `_startup`."""
    tree = ast.parse((HOUSE / "__init__.py").read_text(encoding="utf-8"))
    imports_ = (ast.Import, ast.ImportFrom)
    at_once = [node for node in tree.body if isinstance(node, imports_)]
    assert at_once == []


@pytest.mark.skipif(not DOCS.exists(), reason="the docs are not installed")
@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_on_the_map(room: str) -> None:
    folder = room.split("/")[0]
    assert f"`{folder}" in DOCS.read_text(encoding="utf-8")
