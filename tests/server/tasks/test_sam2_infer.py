"""SAM2 through the real server: on a slice, and through the volume by its memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
import pytest
from running import Server, Start
from segmed.data.phantom import Phantom
from tiny_sam2 import save_sam2, tiny_sam2

K = 14


@pytest.fixture(scope="module")
def server(start: Start, phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """Serves one volume; the weights of SAM2 are random."""
    studies = tmp_path_factory.mktemp("studies")
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), studies / "ct.nii.gz")
    folder: Path = save_sam2(tiny_sam2(1), tmp_path_factory.mktemp("weights") / "sam2")
    return start(studies, "--conf", "backbone_sam2", str(folder), "--conf", "models", "sam2,classical")


def _infer(server: Server, model: str, **said: Any) -> tuple[np.ndarray, Any]:
    file, told = server.client.infer(model, "ct", {"result_extension": ".nrrd", "device": "cpu", **said})
    return nrrd.read(file)[0], told


def test_it_answers_on_a_slice_and_through_the_volume(server: Server, phantom: Phantom) -> None:
    models = server.client.info()["models"]
    assert {"sam2", "sam2_3d"} <= set(models)
    assert "its memory" in models["sam2_3d"]["description"]
    i, j = (np.flatnonzero((phantom.labels[:, :, K] == 1).any(axis)) for axis in (1, 0))
    roi = [int(i[0]), int(i[-1]), int(j[0]), int(j[-1]), K, K]
    flat, _ = _infer(server, "sam2", roi=roi)
    full, told = _infer(server, "sam2_3d", roi=roi)
    assert flat.shape == full.shape == phantom.labels.shape
    assert [int(k) for k in np.flatnonzero(flat.any((0, 1)))] == [K]
    assert np.mean(full[:, :, K] == flat[:, :, K]) > 0.99  # one prompt, one mask
    assert full.any((0, 1)).all()  # random weights that see the object everywhere
    assert told["label_names"] == {"object": 1}


def test_a_click_on_a_followed_slice_corrects_the_volume(server: Server, phantom: Phantom) -> None:
    i, j = (np.flatnonzero((phantom.labels[:, :, K] == 1).any(axis)) for axis in (1, 0))
    roi = [int(i[0]), int(i[-1]), int(j[0]), int(j[-1]), K, K]
    full, _ = _infer(server, "sam2_3d", roi=roi)
    corrected, _ = _infer(server, "sam2_3d", roi=roi, foreground=[[int(i[0]), int(j[0]), K + 3]])
    assert (corrected[:, :, K] == full[:, :, K]).all()
    changed = (corrected != full).any((0, 1))
    assert changed[K + 1 : K + 3].any()  # followed again, with the corrected slice in the memory
