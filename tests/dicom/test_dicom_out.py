"""Label maps as DICOM SEG and RTSTRUCT: in their place in the patient, coded, named, and readable again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
import segmed
import typer
from pydicom.sr._concepts_dict import concepts
from pydicom.sr.coding import Code
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid
from scipy import ndimage
from segmed.commands.exports.export import export
from segmed.data.datasets import amos, btcv, flare
from segmed.data.phantom.volume import _ORGANS
from segmed.dicom import codes as codes_module
from segmed.dicom.codes import UNKNOWN, find_codes, read_codes
from segmed.dicom.label_maps import label_to_seg
from segmed.dicom.rtstruct import outlines, write_rtstruct
from segmed.dicom.segmentation import read_segmentation, write_segmentation
from segmed.dicom.series import Series, open_series, without_patient
from segmed.imaging.grid import read_grid
from segmed.imaging.labels.masks import write_mask
from segmed.imaging.labels.provenance import Provenance
from segmed.imaging.labels.segments import Segments, StoredSegment
from segmed.imaging.labels.writing import name_values
from segmed.imaging.reading import read_volume
from skimage.measure import grid_points_in_poly
from typer.testing import CliRunner

WriteSeries = Callable[..., list[Path]]

SHAPE, SPACING = (30, 26, 12), (0.8, 1.1, 2.5)
NAMES = {1: "liver", 3: "Niere rechts (größer)", 4: "lesion"}
_TURN = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
ORIENTATIONS = {
    "axial": np.diag([-1.0, -1.0, 1.0]),
    "axial from the top": np.diag([-1.0, -1.0, -1.0]),
    "sagittal": np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]]),
    "coronal": np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "oblique": _TURN,
    "tilted gantry": np.array([[-1, 0, 0], [0, -1, 0.25], [0, 0, 1.0]]),
}
needs_dciodvfy = pytest.mark.skipif(
    shutil.which("dciodvfy") is None,
    reason="dciodvfy is missing, so DICOM files are not verified: install dicom3tools",
)


def _affine(orientation: str) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = ORIENTATIONS[orientation] * SPACING
    affine[:3, 3] = [31.25, -47.5, 12.75]
    return affine


def _labels() -> np.ndarray:
    """Three lopsided labels, one of them with a hole and with parts, on some of the slices."""
    field = ndimage.gaussian_filter(np.random.default_rng(2).standard_normal(SHAPE), (3, 3, 1.5))
    labels = np.zeros(SHAPE, np.uint8)
    labels[field > 0.04] = 1
    labels[field < -0.06] = 3
    labels[4:14, 5:20, 2:5] = 4
    labels[7:10, 9:15, 2:4] = 0
    labels[8, 11:13, 3] = 4
    labels[:, :, [0, 9, 11]] = 0
    return labels


@pytest.fixture(params=ORIENTATIONS)
def folder(request: pytest.FixtureRequest, tmp_path: Path, write_series: WriteSeries) -> Path:
    return _series(tmp_path / "ct", write_series, request.param)


def _series(folder: Path, write_series: WriteSeries, orientation: str = "axial") -> Path:
    stored = np.random.default_rng(1).integers(0, 900, SHAPE).astype(np.int16)
    names = [f"{(7 * k) % SHAPE[2]:02d}.dcm" for k in range(SHAPE[2])]  # not in the order of the slices
    write_series(folder, stored, _affine(orientation), names)
    return folder


def _seen(folder: Path) -> tuple[Series, np.ndarray]:
    """The series, and a label map that follows what stands in its pixels, so it has to keep to the order."""
    stored = np.random.default_rng(1).integers(0, 900, SHAPE).astype(np.int16)
    image = read_volume(folder).array
    order = [
        next(s for s in range(SHAPE[2]) if np.array_equal(stored[:, :, s], image[:, :, k])) for k in range(12)
    ]
    return open_series(folder), np.ascontiguousarray(_labels()[:, :, order])


def _sorted(points: np.ndarray) -> np.ndarray:
    return points[np.lexsort(points.round(2).T)]


def _world(labels: np.ndarray, value: int, series: Series) -> np.ndarray:
    voxels = np.argwhere(labels == value)
    return np.asarray((np.c_[voxels, np.ones(len(voxels))] @ series.affine.T)[:, :3])


# --- DICOM SEG ---


def test_a_segmentation_lies_where_its_labels_lie(folder: Path, tmp_path: Path) -> None:
    series, labels = _seen(folder)
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
    series, labels = _seen(folder)
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
    series = open_series(_series(tmp_path / "ct", write_series))
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
    folder = _series(tmp_path / "ct", write_series)
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
    series = open_series(_series(tmp_path / "ct", write_series))
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
    folder = _series(tmp_path / "ct", write_series)
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


# --- a series that labels cannot be attached to ---


def _edited(folder: Path, **elements: object) -> Path:
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        for keyword, value in elements.items():
            if value is None:
                del data[keyword]
            else:
                setattr(data, keyword, value)
        data.save_as(path)
    return folder


@pytest.mark.parametrize(
    ("elements", "says"),
    [
        ({"FrameOfReferenceUID": None}, "does not say where its slices lie"),
        ({"StudyInstanceUID": None}, "StudyInstanceUID is missing in the series ct"),
        ({"NumberOfFrames": 2}, "multi-frame"),
    ],
)
def test_a_series_that_nothing_can_refer_to(
    elements: dict[str, object], says: str, tmp_path: Path, write_series: WriteSeries
) -> None:
    folder = _series(tmp_path / "ct", write_series)
    grid = read_grid(folder)
    with pytest.raises(ValueError, match=says):
        open_series(_edited(folder, **elements), grid)


def test_slices_that_lie_elsewhere_than_their_image(tmp_path: Path, write_series: WriteSeries) -> None:
    grid = read_grid(_series(tmp_path / "a", write_series, "axial"))
    with pytest.raises(ValueError, match="do not lie where its image has them"):
        open_series(_series(tmp_path / "b", write_series, "coronal"), grid)


def test_a_radiograph_without_a_place_in_the_patient(tmp_path: Path, write_series: WriteSeries) -> None:
    stored = np.random.default_rng(3).integers(0, 900, (20, 14, 1)).astype(np.int16)
    folder = tmp_path / "dx"
    write_series(folder, stored, np.diag([1.0, 1, 1, 1]), modality="DX")
    _edited(
        folder,
        SOPClassUID=DigitalXRayImageStorageForPresentation,
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
    )
    series = open_series(folder)
    assert not series.placed
    labels = np.zeros((20, 14, 1), np.uint8)
    labels[3:9, 4:6] = 1
    write_segmentation(labels, ["lung"], series, tmp_path / "seg.dcm", "medsam")
    assert np.array_equal(read_segmentation(tmp_path / "seg.dcm", series)[0], labels)
    with pytest.raises(ValueError, match="no place for contours"):
        write_rtstruct(labels, ["lung"], series, tmp_path / "rt.dcm")


# --- segmentations of other makers ---


def _raw_seg(series: Series, labels: np.ndarray, path: Path, **elements: object) -> pydicom.Dataset:
    seg = write_segmentation(labels, NAMES, series, path, "medsam")
    data = pydicom.dcmread(path)
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    data.save_as(path)
    assert seg.NumberOfFrames == data.NumberOfFrames
    return data


def test_fractional_segments_count_from_one_half(tmp_path: Path, write_series: WriteSeries) -> None:
    series = open_series(_series(tmp_path / "ct", write_series))
    share = np.zeros((12, 26, 30))
    share[4, 6:9, 5:20], share[5, 6:9, 5:20], share[6, 6:9, 5:20] = 0.9, 0.5 + 1 / 255, 0.45
    seg = highdicom.seg.Segmentation(
        [without_patient(header) for header in series.headers],
        share,
        "FRACTIONAL",
        [highdicom.seg.SegmentDescription(1, "liver", UNKNOWN.category, UNKNOWN.type, "MANUAL")],
        generate_uid(),
        1,
        generate_uid(),
        1,
        "someone",
        "else",
        "1",
        "1",
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    seg.save_as(tmp_path / "seg.dcm")
    found, names = read_segmentation(tmp_path / "seg.dcm", series)
    assert names == {1: "liver"}
    assert np.array_equal(found.T, share >= 0.5)


def test_another_series_of_the_same_patient_position(tmp_path: Path, write_series: WriteSeries) -> None:
    """Labels of fine axial slices are brought onto coarse coronal ones."""
    fine, coarse = (_series(tmp_path / name, write_series, name) for name in ("axial", "coronal"))
    shape, affine = (16, 15, 13), np.eye(4)
    affine[:3, :3] = ORIENTATIONS["coronal"] * (1.5, 2.0, 2.2)
    affine[:3, 3] = _affine("axial")[:3, 3] + [-0.3, -28, 29]
    shutil.rmtree(coarse)
    write_series(coarse, np.random.default_rng(1).integers(0, 900, shape).astype(np.int16), affine)
    _edited(coarse, FrameOfReferenceUID="1.2.3")
    _edited(fine, FrameOfReferenceUID="1.2.3")
    source, target = open_series(fine), open_series(coarse)
    labels = np.zeros(SHAPE, np.uint8)
    labels[5:20, 4:18, 3:10] = 1
    write_segmentation(labels, NAMES, source, tmp_path / "seg.dcm", "medsam")
    found, _ = read_segmentation(tmp_path / "seg.dcm", target)
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3)
    world = np.c_[voxels, np.ones(len(voxels))] @ target.affine.T
    there = np.rint(world @ np.linalg.inv(source.affine).T)[:, :3].astype(int)
    inside = ((there >= 0) & (there < SHAPE)).all(1)
    expected = np.zeros(len(voxels), np.uint8)
    expected[inside] = labels[tuple(there[inside].T)]
    assert expected.sum() > 100
    assert (found.ravel() != expected).sum() <= 0.02 * expected.sum()  # ties of rounding


def test_segmentations_that_do_not_belong_to_the_series(tmp_path: Path, write_series: WriteSeries) -> None:
    series, labels = _seen(_series(tmp_path / "ct", write_series))
    path = tmp_path / "seg.dcm"
    with pytest.raises(FileNotFoundError, match="no segmentation at"):
        read_segmentation(path, series)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"seg\.dcm cannot be read"):
        read_segmentation(path, series)
    with pytest.raises(ValueError, match=r"\.dcm is not a DICOM SEG"):
        read_segmentation(next((tmp_path / "ct").iterdir()), series)
    _raw_seg(series, labels, path, FrameOfReferenceUID="1.2.3")
    with pytest.raises(ValueError, match="another frame of reference"):
        read_segmentation(path, series)
    data = _raw_seg(series, labels, path)
    for group in data.PerFrameFunctionalGroupsSequence:
        group.PlanePositionSequence[0].ImagePositionPatient[2] += 1000
    data.save_as(path)
    with pytest.raises(ValueError, match="does not lie on the series"):
        read_segmentation(path, series)
    del data.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    data.save_as(path)
    with pytest.raises(ValueError, match="does not say the PlaneOrientationSequence"):
        read_segmentation(path, series)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"seg\.dcm cannot be read"):
        read_segmentation(path, series)


# --- RTSTRUCT ---


def _filled(polygon: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Pixels (H, W) whose centres lie in a polygon of (x, y)."""
    return np.asarray(grid_points_in_poly(shape, polygon[:, ::-1]))


def test_contours_filled_are_the_mask(folder: Path, tmp_path: Path) -> None:
    series, labels = _seen(folder)
    write_rtstruct(labels, NAMES, series, tmp_path / "rt.dcm", "medsam", "7")
    data = pydicom.dcmread(tmp_path / "rt.dcm")
    place = {header.SOPInstanceUID: k for k, header in enumerate(series.headers)}
    to_voxel = np.linalg.inv(series.affine)
    assert [roi.ROIName for roi in data.StructureSetROISequence] == list(NAMES.values())
    for roi, value in zip(data.ROIContourSequence, NAMES, strict=True):
        filled = np.zeros(SHAPE, bool)
        for contour in roi.ContourSequence:
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            assert len(points) == contour.NumberOfContourPoints >= 4
            voxels = np.c_[points, np.ones(len(points))] @ to_voxel.T
            k = place[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
            assert np.abs(voxels[:, 2] - k).max() < 1e-3
            filled[:, :, k] ^= _filled(voxels[:, :2], (26, 30)).T
        wrong = filled != (labels == value)
        assert wrong.sum() <= 0.002 * filled.sum()


def test_a_ring_is_one_contour_with_its_hole_left_out() -> None:
    mask = np.zeros((20, 24), bool)
    mask[2:17, 3:20] = True
    mask[5:9, 6:9] = mask[5:12, 12:17] = False
    mask[7:9, 14:16] = True  # an island
    mask[18, 1] = True
    found = outlines(mask)
    assert len(found) == 3
    assert len(found[-1]) == 4
    filled = np.zeros(mask.shape, bool)
    for polygon in found:
        filled |= _filled(polygon, (mask.shape[0], mask.shape[1]))
    assert np.array_equal(filled, mask)
    assert max(len(polygon) for polygon in found) < 32  # straight edges have points at their ends only


def test_random_masks_are_outlined_exactly() -> None:
    for seed in range(20):
        mask = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((40, 50)), 1) > 0.03
        filled = np.zeros(mask.shape, bool)
        for polygon in outlines(mask):
            filled ^= _filled(polygon, (mask.shape[0], mask.shape[1]))
        assert (filled != mask).sum() <= 2


def test_a_structure_set_refers_to_its_series(tmp_path: Path, write_series: WriteSeries) -> None:
    series, labels = _seen(_series(tmp_path / "ct", write_series))
    write_rtstruct(labels, NAMES, series, tmp_path / "rt.dcm", "medsam", "7", automatic=True)
    data = pydicom.dcmread(tmp_path / "rt.dcm")
    frame = data.ReferencedFrameOfReferenceSequence[0]
    referenced = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert frame.FrameOfReferenceUID == series.headers[0].FrameOfReferenceUID
    assert referenced.SeriesInstanceUID == series.headers[0].SeriesInstanceUID
    assert len(referenced.ContourImageSequence) == SHAPE[2]
    assert (data.PatientID, data.Modality) == ("phantom", "RTSTRUCT")
    assert {roi.ROIGenerationAlgorithm for roi in data.StructureSetROISequence} == {"AUTOMATIC"}
    assert data.StructureSetROISequence[0].ROIGenerationDescription == "SegMed medsam 7"
    assert len({tuple(roi.ROIDisplayColor) for roi in data.ROIContourSequence}) == 3
    codes = [item.RTROIIdentificationCodeSequence[0].CodeValue for item in data.RTROIObservationsSequence]
    assert codes == ["10200004", "85756007", "52988006"]


# --- verified by others ---


@needs_dciodvfy
@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize("write", [write_segmentation, write_rtstruct])
def test_dciodvfy_finds_no_error(
    write: Callable[..., object], overlapping: bool, folder: Path, tmp_path: Path
) -> None:
    series, labels = _seen(folder)
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


# --- codes ---


def test_every_code_stands_in_the_dictionary() -> None:
    dictionary: Any = concepts
    known = {
        (scheme, value) for scheme, names in dictionary.items() for found in names.values() for value in found
    }
    for found in codes_module._WHOLE_NAMES.values():
        for code in (found.type, found.category, found.modifier, found.region):
            assert code is None or (code.scheme_designator, code.value) in known


@pytest.mark.parametrize(
    ("name", "value", "side", "region"),
    [
        ("liver", "10200004", None, None),
        ("Right Kidney", "64033007", "24028007", None),
        ("kidney_left", "64033007", "7771000", None),
        ("kidneys", "64033007", None, None),
        ("left adrenal gland", "23451007", "7771000", None),
        ("postcava", "64131007", None, None),
        ("left atrium", "82471001", None, None),
        ("liver tumour", "108369006", None, "10200004"),
        ("left kidney cyst", "367643001", "7771000", "64033007"),
        ("enhancing tumour", "C113842", None, "12738006"),
        ("polyp", "68496003", None, None),
        ("lesion", "52988006", None, None),
        ("left thing", "85756007", "7771000", None),
        ("", "85756007", None, None),
    ],
)
def test_codes_by_name(name: str, value: str, side: str | None, region: str | None) -> None:
    found = find_codes(name)
    assert found.type.value == value
    assert (found.modifier.value if found.modifier else None) == side
    assert (found.region.value if found.region else None) == region


def test_every_organ_of_the_datasets_is_coded() -> None:
    names = {name for module in (flare, amos, btcv) for name in module.LABELS.values()} | set(_ORGANS)
    assert {name for name in names if find_codes(name).type == UNKNOWN.type} == set()


def test_codes_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "codes.json"
    path.write_text(
        json.dumps(
            {"My_Organ": {"type": ["1234", "99ME", "My organ"]}, "liver": {"type": ["5", "99ME", "Leber"]}}
        )
    )
    own = read_codes(path)
    assert find_codes("my organ", own).type == Code("1234", "99ME", "My organ")
    assert find_codes("Liver", own).type.value == "5"
    assert find_codes("spleen", own).type.value == "78961009"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no names"),
        ('{"a": 3}', "codes of 'a'"),
        ('{"a": {"category": ["1", "SCT", "b"]}}', "codes of 'a'"),
        ('{"a": {"type": ["1", "SCT", "b"], "colour": 3}}', "codes of 'a'"),
        ('{"a": {"type": ["1", "SCT"]}}', "three texts"),
        ('{"a": {"type": ["1", "SCT", 7]}}', "three texts"),
        ('{"a": {"type": ["12345678901234567", "SCT", "b"]}}', "at most 16 letters"),
    ],
)
def test_codes_that_are_not_understood(content: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "codes.json").write_text(content)
    with pytest.raises(ValueError, match=says):
        read_codes(tmp_path / "codes.json")
    with pytest.raises(FileNotFoundError, match="no file of codes"):
        read_codes(tmp_path / "none.json")


# --- the command ---

app = typer.Typer()
app.command()(export)


def _run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    return done.exit_code, " ".join(done.output.split())


def test_export(tmp_path: Path, write_series: WriteSeries) -> None:
    folder = _series(tmp_path / "ct", write_series)
    series, labels = _seen(folder)
    label, out = tmp_path / "label.nii.gz", tmp_path / "out.dcm"
    write_mask(labels, read_volume(folder).affine, label)
    code, text = _run(label, "--series", folder, "--names", "liver, spleen", "--model", "medsam", "-o", out)
    assert code == 0, text
    assert "label 1: liver (SCT 10200004, Liver)" in text
    assert "label 3: label 3 (SCT 85756007, Tissue)" in text
    found, names = read_segmentation(out, series)
    assert names == {1: "liver", 2: "label 3", 3: "label 4"}
    assert np.array_equal(found, np.array([0, 1, 0, 2, 3])[labels])
    code, text = _run(label, "--series", folder, "--to", "rtstruct", "-o", out)
    assert (code, pydicom.dcmread(out).Modality) == (0, "RTSTRUCT")


def test_export_brings_a_label_map_of_another_grid_onto_the_series(
    tmp_path: Path, write_series: WriteSeries
) -> None:
    """Such as one that a converter has turned, with its rows from front to back."""
    folder = _series(tmp_path / "ct", write_series)
    series, labels = _seen(folder)
    turned = read_volume(folder).affine @ np.array(
        [[1.0, 0, 0, 0], [0, -1, 0, 25], [0, 0, 1, 0], [0, 0, 0, 1]]
    )
    nib.save(nib.Nifti1Image(np.ascontiguousarray(labels[:, ::-1]), turned), tmp_path / "label.nii.gz")
    code, text = _run(tmp_path / "label.nii.gz", "--series", folder, "-o", tmp_path / "out.dcm")
    assert code == 0, text
    assert np.array_equal(
        read_segmentation(tmp_path / "out.dcm", series)[0], np.array([0, 1, 0, 2, 3])[labels]
    )


def test_export_says_what_is_wrong(tmp_path: Path, write_series: WriteSeries) -> None:
    folder = _series(tmp_path / "ct", write_series)
    affine = read_volume(folder).affine
    label, out = tmp_path / "label.nii.gz", tmp_path / "out.dcm"

    def save(array: np.ndarray, place: np.ndarray = affine) -> None:
        nib.save(nib.Nifti1Image(array, place), label)

    save(np.zeros(SHAPE, np.uint8))
    assert "The mask is empty" in _run(label, "--series", folder, "-o", out)[1]
    save(np.full(SHAPE, 0.5, np.float32))
    assert "holds fractions" in _run(label, "--series", folder, "-o", out)[1]
    away = affine.copy()
    away[:3, 3] += 500
    save(np.ones(SHAPE, np.uint8), away)
    code, text = _run(label, "--series", folder, "-o", out)
    assert (code, "does not lie on its image" in text) == (2, True)
    assert "cannot be written" in _run(label, "--series", folder, "-o", tmp_path / "no" / "out.dcm")[1]
    assert "There is no image at" in _run(label, "--series", tmp_path / "no", "-o", out)[1]
    assert not out.exists()
