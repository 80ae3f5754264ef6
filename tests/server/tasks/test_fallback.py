"""The server without the weights of its default model."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import nrrd
import pytest
from segmed.data.phantom import Phantom
from segmed.evaluation.metrics import Overlap
from segmed.methods import METHODS
from segmed.registry.versions import Registry
from segmed.sam import sources
from segmed.server.config.settings import ServerSettings
from segmed.server.engine import Engine
from segmed.server.http.requests import InferParams
from segmed.server.tasks.infer import PromptInferTask


def test_classical_answers_and_the_viewer_is_told(
    phantom: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sources.EMBEDDED_FOLDERS, "segmed-default", tmp_path / "gone")
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), tmp_path / "ct.nii.gz")
    settings = ServerSettings.from_conf({})
    assert "segmed" in settings.models
    liver = phantom.labels[:, :, 14] == 1
    i, j = (axis.nonzero()[0] for axis in (liver.any(1), liver.any(0)))
    params = InferParams(roi=[int(i[0]), int(i[-1]), int(j[0]), int(j[-1]), 14, 14])
    task = PromptInferTask(METHODS["segmed"], False, Engine(settings, Registry(tmp_path / "none")))
    file, told = task({"image": str(tmp_path / "ct.nii.gz"), "params": params})
    assert file
    mask, _ = nrrd.read(file)
    Path(file).unlink()
    assert Overlap.of(mask[:, :, 14] > 0, liver).dice() > 0.85
    assert any("'classical' answers" in warning for warning in told["warnings"])
