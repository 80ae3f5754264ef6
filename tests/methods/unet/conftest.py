"""Cases to train on, and a guard against downloads, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from segmed.data.slices import SliceDataset
from small_training import make_discs


@pytest.fixture(autouse=True)
def no_downloads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something would be downloaded")

    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", refuse)
    yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SliceDataset:
    return make_discs(tmp_path_factory.mktemp("cases"), volumes=4)
