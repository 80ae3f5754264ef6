"""Labelled series of a PACS as a dataset of another program."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from dicom_phantom import phantom_series
from orthanc import Pacs, pacs
from segmed.cli import app
from segmed.dicom.series import open_series
from segmed.imaging.labels.segments import Segments, StoredSegment
from segmed.imaging.labels.writing import write_labels
from typer.testing import CliRunner

__all__ = ["pacs"]


def _segmed(*words: str | Path) -> None:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output


def test_what_has_a_segmentation_is_exported(pacs: Pacs, tmp_path: Path) -> None:
    for name in ("labelled", "without"):
        folder = tmp_path / name
        phantom = phantom_series(folder, shape=(32, 28, 4), spacing=(11.0, 11.0, 45.0))
        pacs.upload(folder)
    series = tmp_path / "labelled"
    grid = open_series(series).grid
    truth = np.zeros(grid.shape, np.uint8)
    truth[5:12, 6:15, 1:3], truth[20:24, 6:9, 2] = 2, 7
    segments = Segments((truth,), (StoredSegment("liver", 2, 0, 2), StoredSegment("lesion", 7, 0, 7)))
    assert grid.affine is not None and phantom.labels.shape == truth.shape
    write_labels(segments, grid.affine, tmp_path / "truth.nii.gz")
    (tmp_path / "seg").mkdir()
    _segmed(
        "export", tmp_path / "truth.nii.gz", "--series", series, "--to", "seg", "-o", tmp_path / "seg/a.dcm"
    )
    pacs.upload(tmp_path / "seg")

    out = tmp_path / "Dataset501_Liver"
    _segmed("export", pacs.url, "--to", "nnunet", "--modality", "CT", "-o", out)
    facts = json.loads((out / "dataset.json").read_text())
    assert facts["numTraining"] == 1 and set(facts["labels"]) == {"background", "liver", "lesion"}
    (label,) = (out / "labelsTr").iterdir()
    found = nib.load(label)
    assert np.allclose(found.affine, grid.affine, atol=1e-3)
    for name, value in (("liver", 2), ("lesion", 7)):
        mask = np.asarray(found.dataobj) == facts["labels"][name]
        assert np.array_equal(mask, truth == value)
    patient = pydicom.dcmread(next(series.glob("*.dcm")), stop_before_pixels=True).PatientID
    assert patient and patient not in label.name, "datasets do not name patients"
