"""The arrows between packages: who may import whom, and who may import which large dependency."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import segmed

LIBRARY = Path(segmed.__file__).parent

# from the top down; a package imports from lower rows only, and from itself
LEVELS = (
    ("commands",),
    ("batch",),
    ("server",),
    ("benchmark",),
    ("reports",),
    ("active",),
    ("training", "pretraining"),
    ("registry",),
    ("evaluation",),
    ("inference",),
    ("methods",),
    ("sam", "simulation", "denoising"),
    ("data", "weights"),
    ("dicom",),
    ("imaging",),
    ("client",),
)
MOST_FILES = 17  # with __init__.py
MOST_LINES = 300
RANK = {package: row for row, packages in enumerate(LEVELS) for package in packages}

# dependency: the packages, or single files, that may import it
OWNERS = {
    "monailabel": ("server/",),
    "ultralytics": ("methods/detector/yolo.py",),
    "transformers": ("sam/", "methods/"),
    "peft": ("sam/", "methods/"),
    "huggingface_hub": ("weights/", "methods/imagenet_encoders.py"),
    "ray": ("benchmark/ray_session.py",),
    "fastapi": ("server/",),
    "starlette": ("server/",),
}


def imported_names(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a module of `package` imports, wherever in the file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def violations(root: Path) -> list[str]:
    """One line for each import against the arrows in the package tree at `root`."""
    found = []
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        here = relative.parts[0] if len(relative.parts) > 1 else ""
        if here and here not in RANK:
            found.append(f"{relative}: the package {here} has no place in the list of levels")
            continue
        for line, name in imported_names(
            path.read_text(encoding="utf-8"), ".".join([root.name, *relative.parts[:-1]])
        ):
            top, _, rest = name.partition(".")
            where = f"{relative}:{line}"
            owners = OWNERS.get(top)
            if owners and not any(relative.as_posix().startswith(owner) for owner in owners):
                found.append(f"{where}: {top} belongs to {', '.join(owners)}")
            there = rest.split(".")[0]
            if top != root.name or not here or there == here:
                continue
            if there == "cli" or (there in RANK and RANK[there] <= RANK[here]):
                found.append(f"{where}: {here} must not import {there}")
    return found


def test_the_library_keeps_to_the_arrows() -> None:
    assert len(list(LIBRARY.rglob("*.py"))) > 20
    assert violations(LIBRARY) == []


def test_rooms_stay_small() -> None:
    folders = [LIBRARY, *(path for path in LIBRARY.rglob("*") if path.is_dir())]
    crowded = {f.name: n for f in folders if (n := len(list(f.glob("*.py")))) > MOST_FILES}
    long = {
        p.name: n for p in LIBRARY.rglob("*.py") if (n := len(p.read_text("utf-8").splitlines())) > MOST_LINES
    }
    assert (crowded, long) == ({}, {})


def test_private_names_stay_in_their_rooms() -> None:
    for path in LIBRARY.rglob("*.py"):
        room = ".".join(["segmed", *path.relative_to(LIBRARY).parts[:-1]])
        for line, name in imported_names(path.read_text(encoding="utf-8"), room):
            private = name.startswith("segmed.") and name.rpartition(".")[2].startswith("_")
            assert not private or name.startswith(f"{room}.") or name == "segmed.__version__", (
                f"{path}:{line}: {name}"
            )


def test_every_package_has_its_place() -> None:
    packages = {p.name for p in LIBRARY.iterdir() if (p / "__init__.py").is_file()}
    assert packages <= set(RANK)
    assert {"imaging", "data", "sam", "methods", "evaluation", "server"} <= packages


def _violations_of(tmp_path: Path, file: str, source: str) -> list[str]:
    path = tmp_path / "segmed" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")
    return violations(tmp_path / "segmed")


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("imaging/a.py", "from segmed.data.phantom import make_phantom"),
        ("imaging/a.py", "import segmed.sam.frame"),
        ("imaging/a.py", "def f():\n    from segmed.methods import METHODS"),
        ("imaging/a.py", "from segmed import sam"),
        ("imaging/a.py", "from .. import sam"),
        ("imaging/a.py", "from ..sam.frame import Frame"),
        ("imaging/deep/a.py", "from ...sam import frame"),
        ("data/a.py", "from segmed.sam.frame import Frame"),
        ("sam/a.py", "from segmed.methods import METHODS"),
        ("sam/a.py", "if TYPE_CHECKING:\n    from segmed.methods.base.segmenter import Segmenter"),
        ("methods/a.py", "from segmed.server.config.settings import ServerSettings"),
        ("methods/a.py", "from segmed.evaluation.metrics import Overlap"),
        ("methods/a.py", "import segmed.training"),
        ("methods/a.py", "import segmed.active"),
        ("methods/a.py", "import os, segmed.server"),
        ("evaluation/a.py", "from segmed.server import app"),
        ("evaluation/a.py", "from segmed.training import loop"),
        ("evaluation/a.py", "from segmed.training import loop"),
        ("server/a.py", "from segmed.cli import app"),
        ("methods/a.py", "import importlib\nimportlib.import_module('segmed.server.app')"),
        ("methods/a.py", "import monailabel"),
        ("cli.py", "def f():\n    from monailabel.main import Main"),
        ("methods/sam/sam.py", "from ultralytics import YOLO"),
        ("server/yolo.py", "from ultralytics import YOLO"),
        ("server/a.py", "from transformers import SamModel"),
        ("imaging/a.py", "import transformers.models.sam"),
        ("training/a.py", "import peft"),
        ("cli.py", "import peft"),
        ("sam/a.py", "from huggingface_hub import snapshot_download"),
        ("weights/a.py", "from segmed.sam.weights import EMBEDDED"),
        ("plugins/a.py", "import os"),
        ("dicom/a.py", "from fastapi import APIRouter"),
        ("dicom/a.py", "import monailabel"),
        ("inference/a.py", "from segmed.evaluation.cases import Case"),
        ("methods/sam/a.py", "from segmed.inference.predictor import Predictor"),
        ("registry/a.py", "from segmed.training.loop import TrainingRun"),
        ("active/store/a.py", "from segmed.reports.report import collect"),
    ],
)
def test_a_violation_is_found(tmp_path: Path, file: str, source: str) -> None:
    assert len(_violations_of(tmp_path, file, source)) == 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("cli.py", "import segmed.server, segmed.methods, segmed.imaging.labels.masks"),
        ("__init__.py", "import os"),
        (
            "server/a.py",
            "import monailabel\nfrom segmed.methods import METHODS\nfrom segmed.training import loop",
        ),
        (
            "server/a.py",
            "import segmed\nfrom segmed import __version__\nfrom . import b\nfrom segmed.server import c",
        ),
        ("evaluation/a.py", "import segmed.methods, segmed.sam, segmed.data, segmed.imaging"),
        ("methods/detector/yolo.py", "import ultralytics, transformers, peft"),
        ("sam/a.py", "import transformers, peft\nfrom segmed.imaging.prompts import Box"),
        ("data/a.py", "from segmed.imaging.reading import read_volume"),
        (
            "imaging/a.py",
            "from segmed.imaging.volume import Volume\nfrom .volume import Volume\nimport samples",
        ),
    ],
)
def test_what_is_allowed_is_not_found(tmp_path: Path, file: str, source: str) -> None:
    assert _violations_of(tmp_path, file, source) == []
