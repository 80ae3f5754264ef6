"""A server that the tests of all clients share."""

from __future__ import annotations

import nibabel as nib
import pytest
from running import Server, Start, start_shared
from segmed.client import SegMedClient, Work
from segmed.data.phantom import Phantom, make_phantom

__all__ = ["Start", "start_shared"]


@pytest.fixture(scope="session")
def body() -> Phantom:
    return make_phantom("CT", shape=(96, 80, 24), spacing=(3.6, 3.6, 8.0), seed=5)


@pytest.fixture(scope="session")
def served(start_shared: Start, body: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """Serves two copies of a volume; models `classical` and `segmed`."""
    studies = tmp_path_factory.mktemp("studies")
    for name in ("ct", "other"):
        nib.save(nib.Nifti1Image(body.image, body.affine), studies / f"{name}.nii.gz")
    return start_shared(studies, "--conf", "models", "classical,segmed", "--conf", "labels", "liver,spleen")


@pytest.fixture
def client(served: Server, request: pytest.FixtureRequest) -> SegMedClient:
    return SegMedClient(served.url, f"Frau Müller {request.node.name}"[:120])


@pytest.fixture
def work(client: SegMedClient) -> Work:
    return client.open("ct")
