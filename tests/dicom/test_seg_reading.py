"""Segmentations and series that do not fit together, and segmentations of other makers."""

from __future__ import annotations

import shutil
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from label_series import NAMES, ORIENTATIONS, SHAPE, WriteSeries, edited, make_series, phantom_affine, seen
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid
from segmed.dicom.codes import UNKNOWN
from segmed.dicom.rtstruct import write_rtstruct
from segmed.dicom.segmentation import read_segmentation, write_segmentation
from segmed.dicom.segmentation_reading import read_dicom_segments
from segmed.dicom.series import Series, open_series, without_patient
from segmed.imaging.grid import read_grid


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
    folder = make_series(tmp_path / "ct", write_series)
    grid = read_grid(folder)
    with pytest.raises(ValueError, match=says):
        open_series(edited(folder, **elements), grid)


def test_slices_that_lie_elsewhere_than_their_image(tmp_path: Path, write_series: WriteSeries) -> None:
    grid = read_grid(make_series(tmp_path / "a", write_series, "axial"))
    with pytest.raises(ValueError, match="do not lie where its image has them"):
        open_series(make_series(tmp_path / "b", write_series, "coronal"), grid)


def test_a_radiograph_without_a_place_in_the_patient(tmp_path: Path, write_series: WriteSeries) -> None:
    stored = np.random.default_rng(3).integers(0, 900, (20, 14, 1)).astype(np.int16)
    folder = tmp_path / "dx"
    write_series(folder, stored, np.diag([1.0, 1, 1, 1]), modality="DX")
    edited(
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


def _raw_seg(series: Series, labels: np.ndarray, path: Path, **elements: object) -> pydicom.Dataset:
    seg = write_segmentation(labels, NAMES, series, path, "medsam")
    data = pydicom.dcmread(path)
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    data.save_as(path)
    assert seg.NumberOfFrames == data.NumberOfFrames
    return data


def test_fractional_segments_count_from_one_half(tmp_path: Path, write_series: WriteSeries) -> None:
    series = open_series(make_series(tmp_path / "ct", write_series))
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
    fine, coarse = (make_series(tmp_path / name, write_series, name) for name in ("axial", "coronal"))
    shape, affine = (16, 15, 13), np.eye(4)
    affine[:3, :3] = ORIENTATIONS["coronal"] * (1.5, 2.0, 2.2)
    affine[:3, 3] = phantom_affine("axial")[:3, 3] + [-0.3, -28, 29]
    shutil.rmtree(coarse)
    write_series(coarse, np.random.default_rng(1).integers(0, 900, shape).astype(np.int16), affine)
    edited(coarse, FrameOfReferenceUID="1.2.3")
    edited(fine, FrameOfReferenceUID="1.2.3")
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
    series, labels = seen(make_series(tmp_path / "ct", write_series))
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


def test_frames_without_a_position_and_numbers_given_twice(tmp_path: Path, write_series: WriteSeries) -> None:
    series, labels = seen(make_series(tmp_path / "ct", write_series))
    path = tmp_path / "seg.dcm"
    data = _raw_seg(series, labels, path)
    data.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0].ImagePositionPatient = ["", "", ""]
    data.save_as(path)
    with pytest.raises(ValueError, match=r"ImagePositionPatient of frame 2 .* 3 numbers.* Export it again"):
        read_segmentation(path, series)
    data = _raw_seg(series, labels, path)
    data.SegmentSequence[1].SegmentNumber = 1
    data.save_as(path)
    with pytest.raises(ValueError, match=r"Two segments .* have the number 1.* Export it again"):
        read_segmentation(path, series)


def test_slices_that_a_coarser_segmentation_leaves_out_are_told(
    tmp_path: Path, write_series: WriteSeries
) -> None:
    series = open_series(make_series(tmp_path / "ct", write_series))
    labels = np.zeros(SHAPE, np.uint8)
    labels[5:20, 4:18, 2:9:2] = 1
    file = tmp_path / "seg.dcm"
    write_segmentation(labels, ["liver"], series, file, "medsam")
    assert read_dicom_segments(file, series)[1] == ""
    data = pydicom.dcmread(file)
    step = float(np.linalg.norm(series.affine[:3, 2]))
    for group in (data.SharedFunctionalGroupsSequence[0], *data.PerFrameFunctionalGroupsSequence):
        for measures in group.get("PixelMeasuresSequence") or ():
            measures.SpacingBetweenSlices = 2 * step
    data.save_as(file)
    found, note = read_dicom_segments(file, series)
    assert found.layers[0].any() and "the slices between are empty" in note
