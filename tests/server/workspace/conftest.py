"""Who works on an image, and what is true of it, in the tests of this folder."""

from __future__ import annotations

import numpy as np
import pytest
from page_client import Page
from running import Server  # type: ignore[import-not-found]
from segmed.data.phantom import Phantom


@pytest.fixture(scope="module")
def truth(phantom: Phantom) -> np.ndarray:
    return np.asarray(phantom.labels == 1)


@pytest.fixture
def page(server: Server, request: pytest.FixtureRequest) -> Page:
    return Page(server, f"Frau Müller {request.node.name}")
