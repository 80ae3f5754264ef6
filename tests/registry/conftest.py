"""Data and an empty registry that the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest
from segmed.registry.versions import Registry
from training_fixtures import discs, held_out, one_thread

__all__ = ["discs", "held_out", "one_thread"]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models")
