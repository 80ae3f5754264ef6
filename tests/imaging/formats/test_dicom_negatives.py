"""MONOCHROME1: measured values are those of the file, radiographs are shown with bright bones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from corpus.dicom_frames import write_frames
from segmed.imaging.reading import read_volume

AFFINE = np.array([[-0.8, 0, 0, 40], [0, -0.9, 0, 50], [0, 0, 2.5, -30], [0, 0, 0, 1.0]])
VOXELS = np.random.default_rng(0).integers(0, 1500, (9, 7, 4)).astype(np.int16)


def _negative(path: Path, slope: float = 1, intercept: float = 0) -> None:
    data = pydicom.dcmread(path)
    data.PhotometricInterpretation = "MONOCHROME1"
    data.RescaleSlope, data.RescaleIntercept = f"{slope}", f"{intercept}"
    data.save_as(path)


@pytest.mark.parametrize(
    ("modality", "scales", "negative"),
    [
        ("PT", [(0.0125, 0)] * 4, range(4)),
        ("PT", [(0.0125, 0), (0.02, 0)] * 2, range(4)),
        ("CT", [(1, -1024)] * 4, range(4)),
        ("CT", [(1, 0)] * 4, (2, 3)),
        ("MR", [(1, 0)] * 4, range(4)),
    ],
)
def test_measured_values_are_not_inverted(
    tmp_path: Path,
    write_series: Callable[..., list[Path]],
    modality: str,
    scales: list[tuple[float, float]],
    negative: Sequence[int],
) -> None:
    for k, path in enumerate(write_series(tmp_path / "s", VOXELS, AFFINE, modality=modality)):
        if k in negative:
            _negative(path, *scales[k])
    expected = np.stack([VOXELS[:, :, k] * s + i for k, (s, i) in enumerate(scales)], axis=-1)
    assert np.allclose(read_volume(tmp_path / "s").array, expected, rtol=1e-5)


@pytest.mark.parametrize("scales", [None, [(1 + 0.5 * k, k) for k in range(4)]])
def test_nor_are_those_of_frames(tmp_path: Path, scales: list[tuple[float, float]] | None) -> None:
    path = write_frames(VOXELS, [2.5 * k for k in range(4)], scales)(tmp_path / "a.dcm")
    data = pydicom.dcmread(path)
    data.PhotometricInterpretation = "MONOCHROME1"
    data.save_as(path)
    expected = [VOXELS[:, :, k] * s + i for k, (s, i) in enumerate(scales or [(1, 0)] * 4)]
    assert np.allclose(read_volume(path).array, np.stack(expected, axis=-1))


@pytest.mark.parametrize("modality", ["CR", "DX", "MG"])
def test_bones_of_radiographs_are_bright(
    tmp_path: Path, write_series: Callable[..., list[Path]], modality: str
) -> None:
    (path,) = write_series(tmp_path / "s", VOXELS[:, :, :1], AFFINE, modality=modality)
    _negative(path)
    assert np.array_equal(read_volume(path).array, -1 - VOXELS[:, :, :1])


def test_one_that_is_cut_off_is_refused(tmp_path: Path, write_series: Callable[..., list[Path]]) -> None:
    paths = write_series(tmp_path / "s", VOXELS, AFFINE)
    for path in paths:
        _negative(path)
    paths[2].write_bytes(paths[2].read_bytes()[:-40])
    with pytest.raises(ValueError, match="1 of the 4 DICOM files of s cannot be read"):
        read_volume(tmp_path / "s")
