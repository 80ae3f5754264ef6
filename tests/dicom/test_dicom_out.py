"""Label maps as DICOM SEG and RTSTRUCT: in their place in the patient, coded, named, and readable again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import segmed
from label_series import NAMES, SHAPE, WriteSeries, make_series, seen
from scipy import ndimage
from segmed.dicom.label_maps import label_to_seg
from segmed.dicom.rtstruct import write_rtstruct
from segmed.dicom.segmentation import read_segmentation, write_segmentation
from segmed.dicom.series import Series, open_series
from segmed.imaging.labels.provenance import Provenance
from segmed.imaging.labels.segments import Segments, StoredSegment
from segmed.imaging.labels.writing import name_values

needs_dciodvfy = pytest.mark.skipif(
    shutil.which("dciodvfy") is None,
    reason="dciodvfy is missing, so DICOM files are not verified: install dicom3tools",
)


def _sorted(points: np.ndarray) -> np.ndarray:
    return points[np.lexsort(points.round(2).T)]


def _world(labels: np.ndarray, value: int, series: Series) -> np.ndarray:
    voxels = np.argwhere(labels == value)
    return np.asarray((np.c_[voxels, np.ones(len(voxels))] @ series.affine.T)[:, :3])


def test_a_segmentation_lies_where_its_labels_lie(folder: Path, tmp_path: Path) -> None:
    series, labels = seen(folder)
    write_segmentation(labels, NAMES, series, tmp_path / "seg.dcm", "medsam", "7")
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert [seg.get_segment_description(n).segment_label for n in (1, 2, 3)] == list(NAMES.values())
    sources = {h.SOPInstanceUID: h for h in (pydicom.dcmread(p) for p in folder.iterdir())}
    orientation = np.array(
        seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient
    )
    points: dict[int, list[np.ndarray]] = {1: [], 2: [], 3: []}
    for frame, group in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        derived = group.DerivationImageSequence[0].SourceImageSequence[0]
        source = sources[derived.ReferencedSOPInstanceUID]
        corner = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        assert np.allclose(corner, np.array(source.ImagePositionPatient, float), atol=1e-4)
        assert np.allclose(orientation, np.array(source.ImageOrientationPatient, float), atol=1e-6)
        row, column = np.nonzero(frame)
        assert len(row) > 0
        between_rows, between_columns = map(float, source.PixelSpacing)
        place = corner + np.outer(column * between_columns, orientation[:3])
        place += np.outer(row * between_rows, orientation[3:])
        points[group.SegmentIdentificationSequence[0].ReferencedSegmentNumber].append(place)
    for number, value in enumerate(NAMES, start=1):
        found, expected = np.concatenate(points[number]), _world(labels, value, series)
        assert len(found) == len(expected)
        assert np.allclose(_sorted(found), _sorted(expected), atol=2e-3)


def test_a_segmentation_is_read_back_as_it_was(folder: Path, tmp_path: Path) -> None:
    series, labels = seen(folder)
    write_segmentation(labels, NAMES, series, tmp_path / "seg.dcm", "medsam", "7")
    stored = pydicom.dcmread(tmp_path / "seg.dcm")
    assert stored.NumberOfFrames < 3 * SHAPE[2]  # empty slices are not stored
    found, names = read_segmentation(tmp_path / "seg.dcm", series)
    assert (found.dtype, names) == (np.uint8, {1: "liver", 2: "Niere rechts (größer)", 3: "lesion"})
    assert np.array_equal(found, np.array([0, 1, 0, 2, 3])[labels])
    named = ["lesion", "liver", "spleen", "Niere rechts (größer)"]
    found, names = read_segmentation(tmp_path / "seg.dcm", series, named)
    assert names == {2: "liver", 4: "Niere rechts (größer)", 1: "lesion"}
    assert np.array_equal(found, np.array([0, 2, 0, 4, 1])[labels])
    found, names = read_segmentation(tmp_path / "seg.dcm", series, ["spleen"])
    assert names == {2: "liver", 3: "Niere rechts (größer)", 4: "lesion"}


def test_who_made_it_and_what_it_shows(tmp_path: Path, write_series: WriteSeries) -> None:
    series = open_series(make_series(tmp_path / "ct", write_series))
    names = ["liver", "spleen", "kidney_right", "liver tumour", "whatsit"]
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:5, 3, 3] = 3
    labels[3:5, 4, 3], labels[3:5, 5, 3], labels[3:5, 6, 3] = 4, 5, 200
    seg = write_segmentation(labels, names, series, tmp_path / "seg.dcm", "medsam", "7.1")
    read = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert [item.SegmentLabel for item in read.SegmentSequence] == [*names[2:], "label 200"]
    assert [item.SegmentedPropertyTypeCodeSequence[0].CodeValue for item in read.SegmentSequence] == [
        "64033007",
        "108369006",
        "85756007",
        "85756007",
    ]
    kidney, tumour = read.SegmentSequence[:2]
    side = kidney.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0]
    assert (side.CodeValue, side.CodeMeaning) == ("24028007", "Right")
    assert tumour.AnatomicRegionSequence[0].CodeValue == "10200004"
    algorithm = read.get_segment_description(1).algorithm_identification
    assert algorithm
    assert (algorithm.name, algorithm.version) == ("SegMed medsam", "7.1")
    assert {item.SegmentAlgorithmType for item in read.SegmentSequence} == {"SEMIAUTOMATIC"}
    assert (read.PatientID, read.StudyInstanceUID) == ("phantom", series.headers[0].StudyInstanceUID)
    assert read.SOPInstanceUID == seg.SOPInstanceUID
    auto = write_segmentation(labels, names, series, tmp_path / "seg.dcm", "segmed", "7.1", automatic=True)
    assert auto.SegmentSequence[0].SegmentAlgorithmType == "AUTOMATIC"
    drawn = write_segmentation(labels, names, series, tmp_path / "seg.dcm")
    assert drawn.SegmentSequence[0].SegmentAlgorithmType == "MANUAL"
    record = Provenance(
        "medsam_3d", "0003", "f" * 64, "a" * 64, "ct-soft-tissue", {"roi": [1, 5, 1, 5, 3, 3]}
    )
    info = {"provenance": {"kidney_right": record.to_json(), "whatsit": {"forged": 1}}}
    found = name_values(labels, dict(enumerate(names, 1)))
    kept = label_to_seg(found, info, tmp_path / "ct", series.grid, tmp_path / "seg.dcm", None)
    kinds = [item.SegmentAlgorithmType for item in kept.SegmentSequence]
    assert kinds == ["SEMIAUTOMATIC", "MANUAL", "MANUAL", "MANUAL"]
    (made,) = kept.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
    assert (made.AlgorithmName, made.AlgorithmVersion) == ("SegMed medsam_3d", "0003")
    assert f"weights={'f' * 64}" in made.AlgorithmParameters and "prompt=" in made.AlgorithmParameters
    lab = drawn.SegmentSequence[0].RecommendedDisplayCIELabValue
    assert len(lab) == 3
    assert all(0 <= v <= 65535 for v in lab)


def test_names_of_other_scripts(tmp_path: Path, write_series: WriteSeries) -> None:
    folder = make_series(tmp_path / "ct", write_series)
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        data.SpecificCharacterSet, data.PatientName = "ISO_IR 100", "Müller^Jörg"
        data.save_as(path)
    names = ["肝臓", "Печень\\левая", "Ä" * 80]
    labels = np.zeros(SHAPE, np.uint8)
    labels[2, 2, 2], labels[3, 3, 3], labels[4, 4, 4] = 1, 2, 3
    series = open_series(folder)
    write_segmentation(labels, names, series, tmp_path / "seg.dcm", "medsam")
    write_rtstruct(labels, names, series, tmp_path / "rt.dcm", "medsam")
    seg, rtstruct = (pydicom.dcmread(tmp_path / name) for name in ("seg.dcm", "rt.dcm"))
    expected = ["肝臓", "Печень/левая", "Ä" * 64]
    assert [item.SegmentLabel for item in seg.SegmentSequence] == expected
    assert [item.ROIName for item in rtstruct.StructureSetROISequence] == expected
    for data in (seg, rtstruct):
        assert data.SpecificCharacterSet == "ISO_IR 192"
        assert str(data.PatientName) == "Müller^Jörg"


@pytest.mark.parametrize("write", [write_segmentation, write_rtstruct])
def test_what_cannot_be_written_is_said(
    write: Callable[..., object], tmp_path: Path, write_series: WriteSeries
) -> None:
    series = open_series(make_series(tmp_path / "ct", write_series))
    out = tmp_path / "out.dcm"
    with pytest.raises(ValueError, match="The mask is empty, so there is nothing to write"):
        write(np.zeros(SHAPE, np.uint8), NAMES, series, out)
    with pytest.raises(ValueError, match=r"shape \(30, 26, 11\), but the series \(30, 26, 12\)"):
        write(np.ones((30, 26, 11), np.uint8), NAMES, series, out)
    with pytest.raises(ValueError, match="whole numbers from 0 on, not float32"):
        write(np.ones(SHAPE, np.float32), NAMES, series, out)
    with pytest.raises(ValueError, match="whole numbers from 0 on, not int16 from -1"):
        write(-np.ones(SHAPE, np.int16), NAMES, series, out)
    assert not out.exists()


def test_a_lax_archive_is_no_obstacle(tmp_path: Path, write_series: WriteSeries) -> None:
    """Values against the standard in patient and study are copied, and are not told to the log."""
    folder = make_series(tmp_path / "ct", write_series)
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        data.PatientName, data.PatientBirthDate, data.PatientSex = "Secretname", "1970", "X"
        data.StudyDate, data.StudyTime, data.LossyImageCompression = "20200231", "25:61", "01"
        del data.SliceThickness
        data.save_as(path)
    command = (
        "import sys, numpy as np\n"
        "from segmed.dicom.series import open_series\n"
        "from segmed.dicom.segmentation import write_segmentation\n"
        "from segmed.dicom.rtstruct import write_rtstruct\n"
        "labels = np.ones((30, 26, 12), np.uint8)\n"
        "for write in (write_segmentation, write_rtstruct):\n"
        "    write(labels, ['liver'], open_series(sys.argv[1]), sys.argv[2] + write.__name__, 'medsam')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", command, str(folder), str(tmp_path / "out_")],
        capture_output=True,
        encoding="utf-8",
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(segmed.__file__).parents[1])},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for name in ("write_segmentation", "write_rtstruct"):
        data = pydicom.dcmread(tmp_path / f"out_{name}")
        assert (str(data.PatientName), data.PatientSex, data.StudyDate) == ("Secretname", "X", "20200231")


@needs_dciodvfy
@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize("write", [write_segmentation, write_rtstruct])
def test_dciodvfy_finds_no_error(
    write: Callable[..., object], overlapping: bool, folder: Path, tmp_path: Path
) -> None:
    series, labels = seen(folder)
    shown: np.ndarray | Segments = labels
    if overlapping:
        wider = ndimage.binary_dilation(labels == 4).astype(np.uint8)
        shown = Segments(
            (labels, wider), (*name_values(labels, NAMES).segments, StoredSegment("around", 9, 1, 1))
        )
        assert shown.overlaps()
    write(shown, NAMES, series, tmp_path / "out.dcm", "medsam", "7")
    done = subprocess.run(
        ["dciodvfy", str(tmp_path / "out.dcm")], capture_output=True, encoding="utf-8", check=False
    )
    told = done.stdout + done.stderr
    assert [line for line in told.splitlines() if line.startswith("Error")] == []
    assert ("Segmentation" if write is write_segmentation else "RTStructureSet") in told.split()
