"""Structures of a phantom and of a DICOM SEG in OHIF: where they lie, and how far they agree."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
from ohif_page import Ohif, Places
from segmed.data.phantom import Phantom

VIEWS = {"axial": "mpr-axial", "sagittal": "mpr-sagittal", "coronal": "mpr-coronal", "oblique": "mpr-axial"}
LIVER, SPLEEN, KIDNEY = 1, 2, 3


def middle_of(phantom: Phantom, value: int, ohif: Ohif) -> tuple[int, np.ndarray, np.ndarray]:
    """The stored slice with most of a structure; its corners (2, 3) and a voxel deep inside, as the server
    counts."""
    inside = phantom.labels == value
    k = int(inside.sum((0, 1)).argmax())
    i, j = np.nonzero(inside[:, :, k])
    nearest = np.argmin((i - i.mean()) ** 2 + (j - j.mean()) ** 2)
    stored = np.array(
        [[i.min() - 1, j.min() - 1, k], [i.max() + 1, j.max() + 1, k], [i[nearest], j[nearest], k]]
    )
    *corners, middle = ohif.voxel(stored @ phantom.affine[:3, :3].T + phantom.affine[:3, 3])
    return k, np.array(corners), middle


def structure_of(phantom: Phantom, value: int, k: int | None = None) -> Places:
    labels = np.where(phantom.labels == value, value, 0)
    if k is not None:
        labels[:, :, np.arange(labels.shape[2]) != k] = 0
    return Places.of(labels, phantom.affine, phantom.names)


def overlap(places: Places, truth: Places, name: str) -> float:
    """Dice coefficient of two sets of voxel centres."""
    a, b = (set(map(tuple, one.by_name[name].round(1).tolist())) for one in (places, truth))
    return 2 * len(a & b) / (len(a) + len(b))


def seg_places(seg: pydicom.Dataset) -> Places:
    """By what the file itself says of each of its frames."""
    names = {int(item.SegmentNumber): str(item.SegmentLabel) for item in seg.SegmentSequence}
    found: dict[str, list[np.ndarray]] = {}
    shared = seg.SharedFunctionalGroupsSequence[0]
    row, column = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    down, across = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    for frame, item in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        corner = np.array(item.PlanePositionSequence[0].ImagePositionPatient, float)
        y, x = np.nonzero(frame)
        lps = corner + np.outer(x * across, row) + np.outer(y * down, column)
        of_frame = item if "SegmentIdentificationSequence" in item else shared
        name = names[int(of_frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber)]
        found.setdefault(name, []).append(lps * [-1, -1, 1])
    return Places({name: np.concatenate(parts) for name, parts in found.items()})


def assert_verified(path: Path) -> None:
    if shutil.which("dciodvfy") is None:
        return
    told = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, encoding="utf-8", check=False)
    assert not [line for line in (told.stdout + told.stderr).splitlines() if line.startswith("Error")]
