"""Series and multi-frame objects: values of each slice by its own scale, slices at their own places, or
refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from corpus.dicom_frames import write_frames
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from segmed.imaging.formats.dicom_reading import open_dicom
from segmed.imaging.reading import read_volume

AFFINE = np.array([[-0.8, 0, 0, 40], [0, -0.9, 0, 50], [0, 0, 2.5, -30], [0, 0, 0, 1.0]])
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
Write = Callable[..., list[Path]]


@pytest.fixture
def voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1500, (9, 7, 6)).astype(np.int16)


def _edit(path: Path, change: Callable[[Dataset], object]) -> None:
    data = pydicom.dcmread(path)
    change(data)
    data.save_as(path)


# --- values ---


@pytest.mark.parametrize(
    ("modality", "scales", "kind"),
    [
        ("PT", [(1, 0)] + [(0.0125, 0)] * 5, np.float32),
        ("PT", [(0.5 + 0.25 * k, 0) for k in range(6)], np.float32),
        ("CT", [(1, 0)] + [(1, -1024)] * 5, np.int32),
        ("CT", [(1, -1024)] * 5 + [(1, 0)], np.int32),
        ("CT", [(2, -1000)] * 6, np.int32),
        ("CT", [(1, 0)] * 5 + [(1.526e-05, 0)], np.float32),  # a mask of probabilities
        ("CT", [(1.526e-05, 0)] * 6, np.float32),
        ("MR", [(1 + k, k) for k in range(6)], np.int32),
        ("CT", [(1, 0)] * 6, np.int16),
        ("CT", [(1, -100000)] + [(1, 0)] * 5, np.int32),
    ],
)
def test_each_slice_has_its_own_scale(
    tmp_path: Path,
    voxels: np.ndarray,
    write_series: Write,
    modality: str,
    scales: list[tuple[float, float]],
    kind: type,
) -> None:
    paths = write_series(tmp_path / "s", voxels, AFFINE, modality=modality)
    for path, (slope, intercept) in zip(paths, scales, strict=True):
        _edit(
            path,
            lambda d, s=slope, i=intercept: (
                setattr(d, "RescaleSlope", f"{s:.10g}"),
                setattr(d, "RescaleIntercept", f"{i}"),
            ),
        )
    expected = np.stack(
        [voxels[:, :, k] * float(f"{s:.10g}") + i for k, (s, i) in enumerate(scales)], axis=-1
    )
    volume = read_volume(tmp_path / "s")
    assert volume.array.dtype == kind
    assert np.allclose(volume.array, expected, rtol=1e-5, atol=1e-7)


def test_types_of_slices_are_joined(tmp_path: Path, voxels: np.ndarray, write_series: Write) -> None:
    paths = write_series(tmp_path / "s", voxels, AFFINE)
    high = voxels[:, :, 2].astype(np.uint16) + 50000

    def unsigned(data: Dataset) -> None:
        data.PixelRepresentation, data.PixelData = 0, np.ascontiguousarray(high.T).tobytes()

    _edit(paths[2], unsigned)
    volume = read_volume(tmp_path / "s")
    assert volume.array.dtype == np.int32 and np.array_equal(volume.array[:, :, 2], high)
    assert np.array_equal(volume.array[:, :, 3], voxels[:, :, 3])


# --- several images at one place ---


def _series_of_times(
    folder: Path, write_series: Write, places: int, times: int, tag: str = "", values: Sequence[object] = ()
) -> Path:
    """`times` images at each of `places` places, place after place."""
    stored = np.zeros((9, 7, places * times), np.int16)
    for n, path in enumerate(write_series(folder, stored, AFFINE)):
        corner = LPS @ AFFINE @ [0, 0, n // times, 1]
        _edit(path, lambda d, c=corner: setattr(d, "ImagePositionPatient", [f"{v:.6g}" for v in c[:3]]))
        if tag:
            _edit(path, lambda d, v=values[n % times]: setattr(d, tag, v))
    return folder


@pytest.mark.parametrize(
    ("tag", "values", "words"),
    [
        ("TemporalPositionIdentifier", (1, 2, 3), r"3 time points \(TemporalPositionIdentifier\)"),
        ("TriggerTime", (0, 40, 80), r"3 cardiac phases \(TriggerTime\)"),
        ("EchoTime", (5, 10, 15), r"3 echoes \(EchoTime\)"),
        ("DiffusionBValue", (0.0, 500.0, 1000.0), r"3 b-values \(DiffusionBValue\)"),
        ("AcquisitionTime", ("101500", "101600", "101700"), r"3 time points \(AcquisitionTime\)"),
        ("AcquisitionNumber", (1, 1, 2), "several acquisitions"),
        ("", (), "doubled slices"),
    ],
)
@pytest.mark.parametrize(("places", "where"), [(4, "each of its 4 places"), (1, "one place")])
def test_several_images_at_one_place_are_refused(
    tmp_path: Path,
    write_series: Write,
    tag: str,
    values: tuple[object, ...],
    words: str,
    places: int,
    where: str,
) -> None:
    folder = _series_of_times(tmp_path / "s", write_series, places, 3, tag, values)
    with pytest.raises(ValueError, match=f"s holds 3 images at {where}: {words}.* One 3-D image"):
        read_volume(folder)


def test_some_doubled_places_are_refused(tmp_path: Path, voxels: np.ndarray, write_series: Write) -> None:
    paths = write_series(tmp_path / "s", voxels, AFFINE)
    place = pydicom.dcmread(paths[2]).ImagePositionPatient
    _edit(paths[3], lambda d: setattr(d, "ImagePositionPatient", place))
    with pytest.raises(ValueError, match="1 of the 5 places of s hold several slices"):
        read_volume(tmp_path / "s")


def test_slices_without_a_place_among_others_are_refused(
    tmp_path: Path, voxels: np.ndarray, write_series: Write
) -> None:
    paths = write_series(tmp_path / "s", voxels, AFFINE)
    _edit(paths[3], lambda d: delattr(d, "ImagePositionPatient"))
    with pytest.raises(ValueError, match="1 of the 6 slices of s do not say where they lie"):
        read_volume(tmp_path / "s")


def test_slices_of_several_spacings_are_refused(
    tmp_path: Path, voxels: np.ndarray, write_series: Write
) -> None:
    paths = write_series(tmp_path / "s", voxels, AFFINE)
    _edit(paths[3], lambda d: setattr(d, "PixelSpacing", ["1.8", "1.8"]))
    with pytest.raises(ValueError, match="differ in their pixel spacing"):
        read_volume(tmp_path / "s")


# --- names of files and objects ---


def test_equal_instance_uids_drop_no_slice_and_copies_count_once(
    tmp_path: Path, voxels: np.ndarray, write_series: Write
) -> None:
    paths = write_series(tmp_path / "s", voxels, AFFINE)
    for path in paths:
        _edit(path, lambda d: setattr(d, "SOPInstanceUID", "1.2.3"))
    shutil.copy(paths[2], tmp_path / "s" / "002 (1).dcm")
    assert np.array_equal(read_volume(tmp_path / "s").array, voxels)
    assert len(open_dicom(tmp_path / "s").ordered) == 6


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_files_without_preamble_or_series_are_read(
    tmp_path: Path, voxels: np.ndarray, write_series: Write, syntax: str
) -> None:
    for path in write_series(tmp_path / "s", voxels, AFFINE):
        data = pydicom.dcmread(path)
        bare = Dataset()
        bare.update({e.tag: e for e in data if e.keyword != "SeriesInstanceUID"})
        bare.is_little_endian, bare.is_implicit_VR = True, syntax == ImplicitVRLittleEndian
        path.unlink()
        bare.save_as(path.with_suffix(""), write_like_original=True)
    assert (tmp_path / "s" / "000").read_bytes()[128:132] != b"DICM"
    volume = read_volume(tmp_path / "s")
    assert np.array_equal(volume.array, voxels)
    assert np.allclose(volume.affine, AFFINE, atol=1e-4)
    assert read_volume(tmp_path / "s" / "003").shape == (9, 7, 1)


def test_text_and_other_files_beside_a_series_are_passed_over(
    tmp_path: Path, voxels: np.ndarray, write_series: Write
) -> None:
    write_series(tmp_path / "s", voxels, AFFINE)
    (tmp_path / "s" / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(40))
    (tmp_path / "s" / "._000.dcm").write_bytes(bytes(128) + b"DICM" + bytes(40))
    (tmp_path / "s" / "notes").write_bytes(
        b"\x08\x00\x05\x00 is how this text begins, and it is no DICOM at all"
    )
    assert read_volume(tmp_path / "s").shape == (9, 7, 6)


# --- multi-frame ---


def _enhanced(path: Path, voxels: np.ndarray, heights: Sequence[float], *scales: Any, **how: Any) -> Path:
    return write_frames(voxels, heights, *scales, **how)(path)


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4, 5), (5, 4, 3, 2, 1, 0), (3, 0, 5, 1, 4, 2)])
def test_frames_are_sorted_by_place(tmp_path: Path, voxels: np.ndarray, order: tuple[int, ...]) -> None:
    path = _enhanced(tmp_path / "s" / "a.dcm", voxels[:, :, list(order)], [-30 + 2.5 * n for n in order])
    for place in (path, path.parent):
        volume = read_volume(place)
        assert np.array_equal(volume.array, voxels)
        assert np.allclose(volume.affine, AFFINE, atol=1e-4)
        assert volume.modality == "MR"


def test_frames_have_scales_of_their_own(tmp_path: Path, voxels: np.ndarray) -> None:
    heights = [2.5 * n for n in range(6)]
    scales = [(1 + 0.5 * n, n) for n in range(6)]
    found = read_volume(_enhanced(tmp_path / "a.dcm", voxels, heights, scales)).array
    assert np.allclose(found, np.stack([voxels[:, :, n] * s + i for n, (s, i) in enumerate(scales)], axis=-1))
    found = read_volume(_enhanced(tmp_path / "b.dcm", voxels, heights, shared=(2, -7))).array
    assert np.array_equal(found, voxels.astype(int) * 2 - 7)
    assert np.array_equal(read_volume(_enhanced(tmp_path / "c.dcm", voxels, heights)).array, voxels)


@pytest.mark.parametrize(
    ("heights", "edit", "words"),
    [
        ([0, 2, 4, 10, 12, 14], None, "do not lie at even distances"),
        ([0, 2, 4, 0, 2, 4], None, r"holds 2 images at each of its 3 places"),
        ([0, 0, 0, 0, 0, 0], None, r"holds 6 images at one place"),
        (
            [0, 2, 4, 0, 2, 4],
            lambda n, g: setattr(g.FrameContentSequence[0], "TemporalPositionIndex", n // 3 + 1),
            r"2 time points \(TemporalPositionIndex\)",
        ),
        (
            [0, 2, 4, 6, 8, 10],
            lambda n, g: setattr(g.FrameContentSequence[0], "StackID", str(n // 3)),
            "holds 2 stacks",
        ),
        (
            [0, 2, 4, 6, 8, 10],
            lambda n, g: n == 4 and delattr(g, "PlanePositionSequence"),
            "1 of the 6 slices",
        ),
    ],
)
def test_frames_that_are_no_stack_are_refused(
    tmp_path: Path,
    voxels: np.ndarray,
    heights: list[float],
    edit: Callable[[int, Dataset], object] | None,
    words: str,
) -> None:
    path = _enhanced(tmp_path / "s" / "a.dcm", voxels, heights, edit=edit or (lambda n, group: None))
    for place in (path, path.parent):
        with pytest.raises(ValueError, match=words):
            read_volume(place)


def test_one_volume_in_several_objects_is_put_together(tmp_path: Path, voxels: np.ndarray) -> None:
    first = _enhanced(tmp_path / "s" / "a.dcm", voxels[:, :, 3:], [-22.5, -20, -17.5])
    second = _enhanced(tmp_path / "s" / "b.dcm", voxels[:, :, :3], [-30, -27.5, -25])
    one = pydicom.dcmread(first)
    _edit(second, lambda d: setattr(d, "SeriesInstanceUID", one.SeriesInstanceUID))
    with pytest.raises(ValueError, match="one SeriesInstanceUID, but are of 2 studies"):
        read_volume(tmp_path / "s")
    _edit(second, lambda d: setattr(d, "StudyInstanceUID", one.StudyInstanceUID))
    volume = read_volume(tmp_path / "s")
    assert np.array_equal(volume.array, voxels) and np.allclose(volume.affine, AFFINE, atol=1e-4)


def test_a_series_of_two_patients_is_refused(tmp_path: Path, voxels: np.ndarray, write_series: Write) -> None:
    paths = write_series(tmp_path / "s", voxels, AFFINE)
    for path, patient in zip(paths, ["A", "A ", "B"], strict=False):
        _edit(path, lambda d, patient=patient: setattr(d, "PatientID", patient))
    with pytest.raises(ValueError, match=r"one SeriesInstanceUID, but are of \d patients"):
        read_volume(tmp_path / "s")


def test_two_films_in_one_series_are_not_joined(
    tmp_path: Path, voxels: np.ndarray, write_series: Write
) -> None:
    for path in write_series(tmp_path / "s", voxels[:, :, :2], AFFINE, modality="US"):

        def film(data: Dataset) -> None:
            data.NumberOfFrames, data.PixelData = 3, data.PixelData * 3
            del data.ImagePositionPatient, data.ImageOrientationPatient

        _edit(path, film)
    with pytest.raises(ValueError, match="2 DICOM objects, of which 2 are multi-frame"):
        read_volume(tmp_path / "s")
    assert read_volume(tmp_path / "s" / "000.dcm").shape == (9, 7, 3)
