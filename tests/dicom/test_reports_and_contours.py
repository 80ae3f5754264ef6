"""RTSTRUCT read back, and reports of measurements that refer to a SEG."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_phantom import PLANES, phantom_series
from highdicom.sr import srread
from segmed.cli import app
from segmed.dicom.rtstruct import write_rtstruct
from segmed.dicom.rtstruct_reading import read_rtstruct
from segmed.dicom.series import open_series
from segmed.imaging.formats.seg_nrrd import read_segments
from segmed.imaging.labels.masks import write_mask
from typer.testing import CliRunner


@pytest.mark.parametrize("plane", PLANES)
def test_contours_come_back_as_they_were(plane: str, tmp_path: Path) -> None:
    phantom = phantom_series(tmp_path / "series", plane)
    labels = phantom.labels.copy()
    labels[labels == 2] = 0
    whole = (labels == 1) & ~np.roll(labels == 1, 3, 0)
    labels[whole] = 2  # thin parts beside it
    i, j, k = np.argwhere(labels == 1).mean(0).astype(int)
    labels[i - 1 : i + 2, j - 1 : j + 2, k] = 0  # a hole
    series = open_series(tmp_path / "series")
    write_rtstruct(labels, {1: "liver", 2: "rim"}, series, tmp_path / "rt.dcm")
    found, notes = read_rtstruct(tmp_path / "rt.dcm", series)
    names = [segment.name for segment in found.segments]
    assert names[:2] == ["liver", "rim"] and notes == []
    for segment, value in zip(found.segments, np.unique(labels[labels > 0]), strict=True):
        assert np.array_equal(found.mask(segment), labels == value), segment.name
    assert all(segment.colour for segment in found.segments)


def test_contours_of_others_are_told_or_refused(tmp_path: Path) -> None:
    phantom = phantom_series(tmp_path / "series")
    series = open_series(tmp_path / "series")
    write_rtstruct(phantom.labels, {1: "liver"}, series, tmp_path / "rt.dcm")
    data = pydicom.dcmread(tmp_path / "rt.dcm")
    first = data.ROIContourSequence[0]
    first.ContourSequence[0].ContourGeometricType = "POINT"
    away = np.array(first.ContourSequence[1].ContourData, float).reshape(-1, 3)
    away[:, 2] += 1000
    first.ContourSequence[1].ContourData = [f"{v:.3f}" for v in away.ravel()]
    del data.ROIContourSequence[1]
    data.save_as(tmp_path / "changed.dcm")
    _, notes = read_rtstruct(tmp_path / "changed.dcm", series)
    assert any("2 contours lie on no slice" in note for note in notes)
    assert any("has no voxel" in note for note in notes)
    for roi in data.StructureSetROISequence:
        roi.ReferencedFrameOfReferenceUID = "1.2.3"
    data.save_as(tmp_path / "elsewhere.dcm")
    with pytest.raises(ValueError, match="another frame of reference"):
        read_rtstruct(tmp_path / "elsewhere.dcm", series)
    with pytest.raises(ValueError, match="is no RTSTRUCT"):
        read_rtstruct(next((tmp_path / "series").glob("*.dcm")), series)
    (tmp_path / "junk.dcm").write_bytes(b"junk" * 100)
    with pytest.raises(ValueError, match="cannot be read as DICOM"):
        read_rtstruct(tmp_path / "junk.dcm", series)
    with pytest.raises(FileNotFoundError):
        read_rtstruct(tmp_path / "gone.dcm", series)


def test_an_import_writes_names_and_layers(tmp_path: Path) -> None:
    phantom = phantom_series(tmp_path / "series")
    series = open_series(tmp_path / "series")
    write_rtstruct(phantom.labels, {1: "liver"}, series, tmp_path / "rt.dcm")
    words = ["import", str(tmp_path / "rt.dcm"), "--series", str(tmp_path / "series")]
    done = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "rt.seg.nrrd")])
    assert done.exit_code == 0, done.output
    found, affine = read_segments(tmp_path / "rt.seg.nrrd")
    assert found.segments[0].name == "liver"
    assert np.array_equal(found.mask(found.segments[0]), phantom.labels == 1)
    assert np.allclose(affine, phantom.affine, atol=1e-3)
    assert CliRunner().invoke(app, [*words[:2], "-o", "x.nrrd"]).exit_code == 2


def test_a_report_states_what_was_measured(tmp_path: Path) -> None:
    phantom = phantom_series(tmp_path / "series")
    write_mask(phantom.labels, phantom.affine, tmp_path / "labels.nii.gz")
    words = ["export", str(tmp_path / "labels.nii.gz"), "--series", str(tmp_path / "series"), "--to", "sr"]
    words += ["--names", "liver,spleen", "--model", "medsam", "-o", str(tmp_path / "report.dcm")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    report = srread(tmp_path / "report.dcm")
    seg = pydicom.dcmread(tmp_path / "report-seg.dcm")
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert len(groups) == len(np.unique(phantom.labels)) - 1
    voxel = abs(np.linalg.det(phantom.affine[:3, :3])) / 1000
    for number, group in enumerate(groups, 1):
        referenced = group.referenced_segment[0].ReferencedSOPSequence[0]
        assert int(referenced.ReferencedSegmentNumber) == number
        assert referenced.ReferencedSOPInstanceUID == seg.SOPInstanceUID
        volume = next(m for m in group.get_measurements() if m.name.meaning == "Volume")
        assert volume.value == pytest.approx((phantom.labels == number).sum() * voxel, rel=1e-3)
    mean = next(m for m in groups[0].get_measurements() if m.name.meaning == "Mean")
    assert mean.unit.value == "[hnsf'U]"
    if shutil.which("dciodvfy"):
        for file in ("report.dcm", "report-seg.dcm"):
            said = subprocess.run(["dciodvfy", str(tmp_path / file)], capture_output=True, text=True)
            assert "Error" not in said.stderr, said.stderr
