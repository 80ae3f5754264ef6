"""Data that tests of training share; conftest files import the fixtures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from segmed.data.slices import SliceDataset
from small_training import make_discs


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Runs are equal bit for bit on one thread; more of them add in another order each time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> SliceDataset:
    """Two volumes, three slices with two discs in each."""
    return make_discs(tmp_path_factory.mktemp("discs"))


@pytest.fixture(scope="session")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> SliceDataset:
    """Two further ones."""
    return make_discs(tmp_path_factory.mktemp("held_out"), first=7)
