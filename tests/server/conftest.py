"""Servers that the tests of this folder share."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import pytest
from orthanc import Pacs, pacs
from PIL import Image
from running import ROOT, Server, Start, start, start_shared
from segmed.data.phantom import Phantom, make_phantom
from slicer_fixtures import bodies, own_volume, slicer_server
from tiny_sam import save_folder, tiny_sam

__all__ = [
    "ROOT",
    "Pacs",
    "Server",
    "Start",
    "bodies",
    "own_volume",
    "pacs",
    "slicer_server",
    "start",
    "start_shared",
]


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    return make_phantom("CT", shape=(96, 80, 24), spacing=(3.6, 3.6, 8.0), seed=5)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(tiny_sam(), tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture(scope="session")
def server(
    start_shared: Start, phantom: Phantom, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Server:
    """Serves a volume, a picture and what should not be opened; models classical, sam and medsam."""
    studies = tmp_path_factory.mktemp("studies")
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), studies / "ct.nii.gz")
    grey = ((phantom.image[:, :, 12].T.clip(-160, 240) + 160) / 400 * 255).astype("uint8")
    Image.fromarray(grey).save(studies / "photo.png")
    (studies / "broken.nii.gz").write_bytes(b"no image")
    shutil.copy(studies / "ct.nii.gz", studies / "ct for saving.nii.gz")
    return start_shared(studies, "--conf", "backbone", str(weights), "--conf", "labels", "liver,spleen")
