"""Label maps as RTSTRUCT: contours that, filled, are the mask again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from label_series import NAMES, SHAPE, WriteSeries, make_series, seen
from scipy import ndimage
from segmed.dicom.rtstruct import outlines, write_rtstruct
from segmed.dicom.rtstruct_reading import read_rtstruct
from skimage.measure import grid_points_in_poly


def _filled(polygon: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Pixels (H, W) whose centres lie in a polygon of (x, y)."""
    return np.asarray(grid_points_in_poly(shape, polygon[:, ::-1]))


def test_contours_filled_are_the_mask(folder: Path, tmp_path: Path) -> None:
    series, labels = seen(folder)
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
    series, labels = seen(make_series(tmp_path / "ct", write_series))
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


def test_structures_of_another_frame_of_reference_are_left_out(
    tmp_path: Path, write_series: WriteSeries
) -> None:
    series, labels = seen(make_series(tmp_path / "ct", write_series))
    file = tmp_path / "rt.dcm"
    write_rtstruct(labels, NAMES, series, file)
    data = pydicom.dcmread(file)
    data.StructureSetROISequence[0].ROIName = ["GTV", "node"]  # as pydicom reads GTV\\node
    data.StructureSetROISequence[1].ReferencedFrameOfReferenceUID = "1.2.3"
    foreign = str(data.StructureSetROISequence[1].ROIName)
    data.save_as(file)
    found, notes = read_rtstruct(file, series)
    names = [segment.name for segment in found.segments]
    assert names[0] == "GTV\\node" and foreign not in names and len(names) == 2
    assert any(note.startswith(f"{foreign} belongs to another frame of reference") for note in notes)
