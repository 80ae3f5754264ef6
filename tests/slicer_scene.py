"""What 3D Slicer holds open: a volume, its segments, and a box, with the geometry as its MONAI Label module
does it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Roi:
    """A drawn box, in RAS mm; that it can be turned is lost on the module."""

    centre: tuple[float, float, float]
    size: tuple[float, float, float]

    @classmethod
    def between(cls, a: Sequence[float], b: Sequence[float]) -> Roi:
        low, high = np.minimum(a, b), np.maximum(a, b)
        return cls(tuple((low + high) / 2), tuple(high - low))


@dataclass
class Segment:
    """Voxels (I, J, K) of a structure, and the clicks that were made for it, as voxel indices."""

    mask: np.ndarray
    foreground: list[list[int]] = field(default_factory=list)
    background: list[list[int]] = field(default_factory=list)


class Scene:
    """One open volume.

    Args:
        folder: for temporary files.

    Attributes:
        image: the open volume.
        segments: by name, in order.
        roi: the box that is drawn, if one is.
        answer: the last mask as ITK reads it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.segments: dict[str, Segment] = {}
        self.roi: Roi | None = None
        self.image: sitk.Image
        self.answer: sitk.Image

    def open(self, path: Path, names: Sequence[str]) -> None:
        """A volume, with an empty segment for each of these names."""
        self.image, self.segments, self.roi = sitk.ReadImage(str(path)), {}, None
        for name in names:
            self.segment_of(name)

    def ijk(self, ras: Sequence[float]) -> list[int]:
        """The voxel at a point of the patient; it may lie outside of the volume."""
        return [round(float(v)) for v in (np.linalg.inv(self.affine) @ [*ras, 1.0])[:3]]

    def ras(self, ijk: Sequence[float]) -> list[float]:
        """Where a voxel lies."""
        return [float(v) for v in (self.affine @ [*ijk, 1.0])[:3]]

    @property
    def affine(self) -> np.ndarray:
        """(4, 4), voxel to RAS mm, of the open volume."""
        axes = np.array(self.image.GetDirection()).reshape(3, 3) * self.image.GetSpacing()
        lps = np.eye(4)
        lps[:3, :3], lps[:3, 3] = axes, self.image.GetOrigin()
        return np.asarray(_LPS_TO_RAS @ lps)

    def roi_ijk(self) -> list[int]:
        """The box as it is sent: its two outermost corners in RAS, of which only these are converted."""
        assert self.roi is not None
        centre, half = np.array(self.roi.centre), np.array(self.roi.size) / 2
        low, high = self.ijk(centre - half), self.ijk(centre + half)
        return [v for pair in zip(low, high, strict=True) for v in pair]

    def show(self, file: str, labels: Sequence[str], k: int | None = None) -> None:
        """Segments from a mask: value n is name n, but on one slice the nth value that is there."""
        assert file.endswith((".nrrd", ".nii.gz")), "the extension decides how the file is read"
        labels = [label for label in labels if label != "background"]
        self.answer = sitk.ReadImage(file)
        there = sitk.Resample(self.answer, self.image, sitk.Transform(), sitk.sitkNearestNeighbor)
        values = sitk.GetArrayFromImage(there).T
        if k is None:
            for n, name in enumerate(labels, 1):
                self.segment_of(name).mask = values == n
            return
        for n, value in enumerate(v for v in np.unique(values) if v):
            name = labels[n] if n < len(labels) else ""
            if name in self.segments:
                self.segments[name].mask[:, :, k : k + 1] = False
                self.segments[name].mask |= values == value

    def segment_of(self, name: str) -> Segment:
        """The segment of that name, made if it is not there."""
        return self.segments.setdefault(name, Segment(np.zeros(self.image.GetSize(), bool)))

    def export(self, names: Sequence[str]) -> str:
        """One label map with the values 1, 2, … in this order."""
        merged = np.zeros(self.image.GetSize()[::-1], np.uint8)
        for n, name in enumerate(names, 1):
            merged[self.segments[name].mask.T] = n
        image = sitk.GetImageFromArray(merged)
        image.CopyInformation(self.image)
        return self.saved(image)

    def saved(self, image: sitk.Image) -> str:
        """A new file with this image."""
        with tempfile.NamedTemporaryFile(suffix=".nii.gz", dir=self.folder) as file:
            path = file.name
        sitk.WriteImage(image, path)
        return path
