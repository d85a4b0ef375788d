"""Who may import whom, as docs/architecture.md says."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from deadlines import DEADLINE

import prefect_ecs_plugin

PACKAGE = Path(prefect_ecs_plugin.__file__).parent
ROOT = PACKAGE.parent
DOCS = ROOT / "docs" / "architecture.md"

#: Modules of the package, without those of the sandbox and of the commands, whose
#: `__init__` is their map.
MODULES = sorted(
    path.parent if path.stem == "__init__" else path
    for path in PACKAGE.rglob("*.py")
    if not {"sandbox", "check", "costs", "install", "prune", "rules"}
    & set(path.relative_to(PACKAGE).parts[:-1])
    and path.parent != PACKAGE.parent
)


def test_imports_keep_the_contracts() -> None:
    pytest.importorskip("importlinter", reason="import-linter is part of the extra dev")
    run = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", run],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_the_package_imports_nothing() -> None:
    """It is part of every start of Python, see `_startup`."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    imports = (ast.Import, ast.ImportFrom)
    assert [node for node in tree.body if isinstance(node, imports)] == []


@pytest.mark.skipif(not DOCS.exists(), reason="the docs are not installed")
@pytest.mark.parametrize(
    "module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_every_module_is_on_the_map(module: Path) -> None:
    if module != PACKAGE:
        assert f"`{module.stem}" in DOCS.read_text(encoding="utf-8")
