"""Data that the tests of training share."""

from __future__ import annotations

import pytest
from segmed.data.slices import SliceDataset
from small_training import make_discs


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> SliceDataset:
    """Two volumes, three slices with two discs in each."""
    return make_discs(tmp_path_factory.mktemp("discs"))


@pytest.fixture(scope="session")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> SliceDataset:
    """Two further ones."""
    return make_discs(tmp_path_factory.mktemp("held_out"), first=7)
