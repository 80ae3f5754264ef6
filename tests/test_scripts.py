"""What the scripts import from the package exists: most of them are too slow to run in tests."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted((ROOT / "scripts").rglob("*.py"))


def imported(script: Path) -> list[tuple[str, str]]:
    """Modules of the package and what is imported from each, inside functions too."""
    tree = ast.parse(script.read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return [
        (str(n.module), alias.name)
        for n in found
        for alias in n.names
        if f"{n.module}.".startswith("segmed.")
    ]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: str(s.relative_to(ROOT)))
def test_imports_exist(script: Path) -> None:
    for module, name in imported(script):
        if not hasattr(importlib.import_module(module), name):
            importlib.import_module(f"{module}.{name}")  # a module of the package


def test_imports_are_found() -> None:
    assert ("segmed.sam.weights", "load_sam") in imported(ROOT / "scripts" / "pretrain_jbu.py")
