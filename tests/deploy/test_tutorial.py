"""The tutorial runs from the first cell to the last, and does what its sentences promise."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from running import ROOT

NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"
MAX_PICTURES = 200_000  # bytes of all pictures in the file


def _cells() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if cell["cell_type"] == "code"]


def test_the_file_keeps_small_pictures_and_nothing_else() -> None:
    assert all(cell["execution_count"] is None for cell in _cells())
    outputs = [output for cell in _cells() for output in cell["outputs"]]
    assert all(set(output["data"]) == {"image/png"} for output in outputs)
    assert sum(len(output["data"]["image/png"]) for output in outputs) < MAX_PICTURES


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What its cells print."""
    nbformat = pytest.importorskip("nbformat", reason="pip install -r requirements-tutorial.txt")
    nbclient = pytest.importorskip("nbclient", reason="pip install -r requirements-tutorial.txt")
    pytest.importorskip("ipykernel", reason="pip install -r requirements-tutorial.txt")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT / "lib")
    try:
        folder: Path = tmp_path_factory.mktemp("tutorial")
        client = nbclient.NotebookClient(
            notebook, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
        )
        client.execute()
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    return "".join(output.get("text", "") for output in outputs)


def test_the_default_model_finds_the_liver(printed: str) -> None:
    found = re.search(r"Dice (\d\.\d+), surface Dice", printed)
    assert found and float(found[1]) > 0.85, printed


def test_fine_tuning_teaches_the_margin(printed: str) -> None:
    scores = re.findall(r"Dice (\d\.\d+) before, (\d\.\d+) after", printed)
    assert len(scores) == 2, printed
    assert all(float(after) > float(before) + 0.02 for before, after in scores), printed
    assert re.search(r"^version \S+: served$", printed, re.MULTILINE), printed
