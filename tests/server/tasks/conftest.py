"""A stub of 3D Slicer in which each test runs the modules of MONAI Label."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from slicer_stub import Stub


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Stub]:
    stub = Stub(tmp_path)
    stub.settings["MONAILabel/autoRunSegmentationOnNextSample"] = False
    with stub.imported():
        yield stub
