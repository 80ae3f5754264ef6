"""Series that the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest
from label_series import ORIENTATIONS, WriteSeries, make_series


@pytest.fixture(params=ORIENTATIONS)
def folder(request: pytest.FixtureRequest, tmp_path: Path, write_series: WriteSeries) -> Path:
    return make_series(tmp_path / "ct", write_series, request.param)
