"""One row of the table: a file, how it is made, and what has to happen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Row:
    """A file, or a folder of one DICOM series.

    Attributes:
        name: of the file or folder.
        make: writes it under the path it is given.
        truth: voxels (I, J, K) or (I, J, K, 3) that are to be read; None if it is to be refused.
        words: of the refusal, which say the true reason.
        affine: (4, 4) voxel to RAS mm that is to be read; None to leave it open.
        sent: words by which a server refuses the upload of a file that may be read where it lies.
        thread: where somebody has reported the kind in public; "" for none.
        labels: values (I, J, K) that it has as a label map, where they differ from `truth`.
    """

    name: str
    make: Callable[[Path], object]
    truth: np.ndarray | None = None
    words: str = ""
    affine: np.ndarray | None = None
    sent: str = ""
    thread: str = ""
    labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        assert (self.truth is None) == bool(self.words), self.name


I, J, K = 12, 10, 6  # noqa: E741 - size of most of them
AFFINE = np.array([[-0.8, 0, 0, 40], [0, -0.9, 0, 50], [0, 0, 2.5, -30], [0, 0, 0, 1.0]])
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def brick(dtype: type = np.int16, seed: int = 0) -> np.ndarray:
    """(I, J, K) noise with a bright brick."""
    voxels = np.random.default_rng(seed).integers(20, 60, (I, J, K))
    voxels[3:8, 2:7, 1:5] += 60
    return voxels.astype(dtype)


def colours() -> np.ndarray:
    """(I, J, K, 3) uint8."""
    return np.random.default_rng(1).integers(0, 256, (I, J, K, 3)).astype(np.uint8)
