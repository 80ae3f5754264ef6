"""Series whose headers do not state the place of their slices: steps in mm, and a warning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UltrasoundMultiFrameImageStorage, XRayAngiographicImageStorage
from segmed.dicom.series import open_series
from segmed.imaging.decoding.tasks import TASKS, told_picture, told_volume
from segmed.imaging.reading import read_volume

AFFINE = np.diag([-0.8, -0.9, 2.5, 1.0])
VOXELS = np.random.default_rng(0).integers(0, 1500, (9, 7, 4)).astype(np.int16)
Write = Callable[..., list[Path]]


def _without_place(paths: list[Path], **elements: object) -> Path:
    """The series without positions, and with these elements; None takes one out."""
    for path in paths:
        data = pydicom.dcmread(path)
        for name, value in {
            **elements,
            "ImagePositionPatient": None,
            "ImageOrientationPatient": None,
        }.items():
            if value is None:
                del data[name]
            else:
                setattr(data, name, value)
        data.save_as(path)
    return paths[0].parent


@pytest.mark.parametrize(
    ("elements", "step", "words"),
    [
        ({}, 2.5, "2.5 mm between them are taken from SliceThickness"),
        ({"SpacingBetweenSlices": "3.5"}, 3.5, "3.5 mm between them are taken from SpacingBetweenSlices"),
        ({"SliceThickness": None}, 1, "1 mm between them is assumed"),
    ],
)
def test_slices_without_positions(
    tmp_path: Path,
    write_series: Write,
    caplog: pytest.LogCaptureFixture,
    elements: dict[str, object],
    step: float,
    words: str,
) -> None:
    folder = _without_place(write_series(tmp_path / "s", VOXELS, AFFINE), **elements)
    assert np.allclose(read_volume(folder).spacing, (0.8, 0.9, step))
    said = f"The slices of s do not say where they lie in the patient, and {words}"
    assert caplog.text.count(said) == 1
    with pytest.raises(ValueError, match=f"no segmentation can be attached.*{said}"):  # the note when saving
        open_series(folder)


def _film(write_series: Write, folder: Path, modality: str, **elements: object) -> Path:
    def frames(data: Dataset) -> None:
        data.NumberOfFrames, data.PixelData = 4, np.ascontiguousarray(VOXELS.T, "<i2").tobytes()
        kind = XRayAngiographicImageStorage if modality == "XA" else UltrasoundMultiFrameImageStorage
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = kind

    paths = write_series(folder, VOXELS[:, :, :1], AFFINE, modality=modality)
    _without_place(paths, **elements)
    data = pydicom.dcmread(paths[0])
    frames(data)
    data.save_as(paths[0])
    return paths[0]


@pytest.mark.parametrize("modality", ["XA", "US"])
def test_time_is_no_distance(
    tmp_path: Path, write_series: Write, caplog: pytest.LogCaptureFixture, modality: str
) -> None:
    time = {"FrameTime": "66", "FrameIncrementPointer": 0x00181063}
    path = _film(write_series, tmp_path / "s", modality, **time)
    volume = read_volume(path)
    assert np.array_equal(volume.array, VOXELS) and np.allclose(volume.spacing[2], 1)
    assert "follow one another in time, and 1 mm is assumed" in caplog.text
    with pytest.raises(ValueError, match=r"multi-frame.*follow one another in time"):
        open_series(path)


def test_frames_with_a_stated_distance_need_no_warning(
    tmp_path: Path, write_series: Write, caplog: pytest.LogCaptureFixture
) -> None:
    path = _film(write_series, tmp_path / "s", "NM", SpacingBetweenSlices="4")
    caplog.clear()  # of what pydicom says on writing
    assert read_volume(path).spacing[2] == 4 and not caplog.text


def test_pixels_without_a_size(tmp_path: Path, write_series: Write, caplog: pytest.LogCaptureFixture) -> None:
    paths = write_series(tmp_path / "s", VOXELS, AFFINE)
    caplog.clear()  # of what pydicom says on writing
    assert np.allclose(read_volume(tmp_path / "s").affine, AFFINE) and not caplog.text
    for path in paths:
        data = pydicom.dcmread(path)
        del data.PixelSpacing
        data.save_as(path)
    volume = read_volume(tmp_path / "s")
    assert volume.spacing == (1, 1, 2.5)
    assert volume.note.startswith("s does not state the size of its pixels, and 1 mm is assumed")
    assert volume.note in caplog.text
    for path in paths:
        data = pydicom.dcmread(path)
        data.SequenceOfUltrasoundRegions = [Dataset()]
        data.save_as(path)
    assert "for ultrasound regions only" in read_volume(tmp_path / "s").note
    for path in paths:
        data = pydicom.dcmread(path)
        del data.SequenceOfUltrasoundRegions
        data.save_as(path)
    # from decoding processes, the sentence reaches the page
    assert told_volume(*TASKS["volume"](tmp_path / "s")).note == volume.note
    assert told_picture(*TASKS["picture"](tmp_path / "s", "auto")).note == volume.note
