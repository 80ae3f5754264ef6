"""Fixtures that several parts share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import pytest
from segmed.data.phantom import Phantom, dicom, make_phantom

WriteSeries = Callable[..., list[Path]]


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    """A coarse CT phantom."""
    return make_phantom("CT", shape=(96, 80, 16), spacing=(3.6, 3.6, 12.0), seed=3)


@pytest.fixture(scope="session")
def phantom_file(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom's image as NIfTI."""
    path = tmp_path_factory.mktemp("phantom") / "phantom.nii.gz"
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), path)
    return path


@pytest.fixture
def write_series() -> WriteSeries:
    """Writes stored voxels as one DICOM series."""
    return dicom.write_series
