"""Weights that the tests of the commands share."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_sam import save_folder, tiny_sam


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(tiny_sam(), tmp_path_factory.mktemp("sam"))
