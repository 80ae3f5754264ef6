"""An image as it is stored: its voxels, their position in the patient, and the modality."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Volume:
    """One 3-D image. A 2-D image is a volume of one slice.

    Attributes:
        array: Voxels in stored order, (I, J, K) for grey images or (I, J, K, 3) for colour; x = i, y = j, and
            slices are taken along k.
        affine: (4, 4), maps (i, j, k, 1) to right-anterior-superior millimetres.
        modality: DICOM term (`CT`, `MR`, `US`, …), or "" where the file does not state it.
        source: Path or description that the image was read from; only for messages and never sent to a
            client.
        note: A sentence on sizes that the file does not state and that were assumed, or "".
    """

    array: np.ndarray
    affine: np.ndarray = field(default_factory=lambda: np.eye(4))
    modality: str = ""
    source: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        colour = self.array.ndim == 4 and self.array.shape[3] == 3
        if self.array.ndim != 3 and not colour:
            raise ValueError(
                f"An image of shape {self.array.shape} cannot be segmented: SegMed takes one 2-D or 3-D "
                "image, grey or RGB. Save one time point or one channel of it as a file of its own and open "
                "that."
            )
        if 0 in self.array.shape:
            raise ValueError(
                f"The image is empty (shape {self.array.shape}). Export it again from its source."
            )
        if self.affine.shape != (4, 4) or not np.isfinite(self.affine).all():
            raise ValueError(
                "The image's affine is not a finite 4×4 matrix, so its place in the patient is unknown. "
                "Repair the header, for instance by loading and saving the image in 3D Slicer."
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Size in voxels along (i, j, k)."""
        i, j, k = self.array.shape[:3]
        return i, j, k

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along (i, j, k)."""
        i, j, k = (float(x) for x in np.linalg.norm(self.affine[:3, :3], axis=0))
        return i, j, k

    @property
    def is_colour(self) -> bool:
        return self.array.ndim == 4

    @property
    def nbytes(self) -> int:
        return int(self.array.nbytes)

    def slice(self, k: int) -> np.ndarray:
        """Slice k as rows and columns of a picture: (J, I) or (J, I, 3), row y = j, column x = i.

        Raises:
            ValueError: There is no slice k in this image.
        """
        if not 0 <= k < self.shape[2]:
            raise ValueError(f"Slice {k} does not exist: the image has slices 0 to {self.shape[2] - 1}.")
        return np.swapaxes(self.array[:, :, k], 0, 1)
