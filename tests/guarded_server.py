"""A server that asks for a login, with one user of each role; conftest files import the fixture `guarded`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import requests
from identity_provider import IdentityProvider, identity_provider
from running import Server, Start, free_port
from segmed.server.access.users import ROLES, Users

PASSWORD = "correct horse battery"


@dataclass
class Guarded:
    """The server, its file of users, a token of each, and the provider that vouches for others."""

    server: Server
    users: Users
    tokens: dict[str, str]
    provider: IdentityProvider

    def ask(self, role: str, method: str, path: str, **more: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.tokens[role]}"}
        return requests.request(method, self.server.url + path, headers=headers, timeout=60, **more)


@pytest.fixture(scope="session")
def guarded(start_shared: Start, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    studies, home = tmp_path_factory.mktemp("guarded"), tmp_path_factory.mktemp("users")
    users = Users(home / "users.json")
    for role in ROLES:
        users.add(role, role, PASSWORD)
    tokens = {role: users.make_token(role) for role in ROLES}
    image = np.random.default_rng(0).normal(100, 10, (40, 36, 5)).astype(np.int16)
    image[10:25, 8:20] += 300
    nib.save(nib.Nifti1Image(image, np.eye(4)), studies / "ct.nii.gz")
    port, oidc = free_port(), home / "oidc.json"
    with identity_provider() as provider:
        oidc.write_text(json.dumps(provider.settings(f"http://127.0.0.1:{port}")), encoding="utf-8")
        oidc.chmod(0o600)
        files = ("--users", str(users.path), "--oidc", str(oidc))
        server = start_shared(studies, *files, "--conf", "models", "classical", port=port)
        yield Guarded(server, users, tokens, provider)
