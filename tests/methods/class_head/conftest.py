"""The small SAM that the tests of this folder share."""

from __future__ import annotations

import pytest
from tiny_sam import tiny_sam
from transformers import SamModel


@pytest.fixture(scope="module")
def base() -> SamModel:
    return tiny_sam(0, 128)
