"""Who works on an image in the tests of this folder."""

from __future__ import annotations

import pytest
from running import Server
from watching_client import Client


@pytest.fixture
def client(server: Server, request: pytest.FixtureRequest) -> Client:
    """Another one in each test."""
    return Client(server, f"Dr. 李 {request.node.name}"[:100])
