"""Data that the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest
from miniature import LAYOUTS
from small_training import small_sam
from training_fixtures import one_thread

__all__ = ["one_thread"]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("datasets")
    for name in LAYOUTS:
        (root / name).mkdir()
    return {name: write(root / name) for name, write in LAYOUTS.items()}


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    small_sam().save_pretrained(folder)
    return folder
