"""The grid that voxels lie on, told from headers, and label maps brought onto the grid of their image."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.processing import resample_from_to

from segmed.imaging.channels import check_axes, is_colour
from segmed.imaging.itk import itk_affine, quiet_itk
from segmed.imaging.nifti_files import open_nifti
from segmed.imaging.pictures import PICTURE_EXTENSIONS, picture_facts
from segmed.imaging.reading import (
    NIFTI_EXTENSIONS,
    _explained,
    itk_reader,
    kind_of,
    read_volume,
)
from segmed.imaging.text_headers import check_regular, for_itk

__all__ = ["PICTURE_EXTENSIONS", "Grid", "move_labels", "read_grid", "read_labels"]
_SAME_AFFINE = 1e-2  # mm
_SAME_VOXEL = 0.1  # voxels
_LEAST_OVERLAP = 0.5


@dataclass(frozen=True)
class Grid:
    """Size and place of an image.

    Attributes:
        shape: voxels along (i, j, k); k is 1 for pictures.
        affine: (4, 4), voxel to RAS mm; None where the file does not tell, as pictures never do.
        channels: values per voxel, 1 for grey, 3 or 4 for colour.
        components: length of the fourth axis of a NIfTI file.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray | None = None
    channels: int = 1
    components: int = 1

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along (i, j, k); 1 where the file does not tell."""
        i, j, k = (1.0, 1.0, 1.0) if self.affine is None else np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return i, j, k

    def lies_on(self, other: Grid) -> bool:
        """Whether voxels of both are the same; a file that does not tell its place is believed by its shape."""
        if self.affine is None or other.affine is None:
            return self.shape == other.shape
        return self.shape == other.shape and np.allclose(self.affine, other.affine, atol=_SAME_AFFINE)

    def can_move_to(self, other: Grid) -> bool:
        """Whether world coordinates bring this onto another grid: the affines differ, and the images overlap.

        The same affine with another shape is no such case: the files belong to different images. Nor is an overlap of
        less than half of the smaller one, as of a file with an axis mirrored by mistake.
        """
        if self.affine is None or other.affine is None or np.allclose(self.affine, other.affine, atol=_SAME_AFFINE):
            return False
        mine, theirs = _extent(self.shape, self.affine), _extent(other.shape, other.affine)
        shared = np.clip(np.minimum(mine[1], theirs[1]) - np.maximum(mine[0], theirs[0]), 0, None).prod()
        return bool(shared >= _LEAST_OVERLAP * min((e[1] - e[0]).prod() for e in (mine, theirs)) > 0)


def read_grid(path: str | os.PathLike[str]) -> Grid:
    """Size and place of an image by its header; voxels are read of DICOM only.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: the header is damaged, or not that of a 2-D or 3-D image.
    """
    path = Path(path)
    extension = "" if path.is_dir() or not path.exists() else kind_of(path)
    if extension in ("", ".dcm"):
        volume = read_volume(path)
        return Grid(volume.shape, volume.affine, 3 if volume.is_colour else 1)
    check_regular(path)
    with _explained(path):
        if extension in NIFTI_EXTENSIONS:
            return _nifti_grid(path)
        if extension in PICTURE_EXTENSIONS:
            facts = picture_facts(path)
            return Grid(facts.shape, None, facts.channels)
        with quiet_itk(), for_itk(path) as plain:
            check_axes(path)
            reader = itk_reader(plain)
            reader.ReadImageInformation()
        i, j, k = (*reader.GetSize(), 1)[:3]
        channels = reader.GetNumberOfComponents()
    is_colour(path, channels)
    return Grid((i, j, k), itk_affine(reader), channels)


def read_labels(path: str | os.PathLike[str], grid: Grid) -> np.ndarray:
    """Read a label map, and resample it (nearest) by world coordinates where it lies on another grid.

    Args:
        path: of the label map; of colour files the first channel counts.
        grid: of the image.

    Returns:
        (I, J, K) of the image, in the type of the file, or int32 where resampled.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: unreadable, or neither on the grid nor to be brought onto it.
    """
    own, volume = read_grid(path), read_volume(path, labels=True)
    array = volume.array[..., 0] if volume.is_colour else volume.array
    return move_labels(array, own, grid, Path(path).name)


def move_labels(array: np.ndarray, own: Grid, grid: Grid, name: str = "The label map") -> np.ndarray:
    """A label map on the grid of its image, resampled (nearest) by world coordinates where its own is another.

    Args:
        array: (I, J, K) on its own grid.
        own: that grid.
        grid: of the image.
        name: of the label map in messages.

    Returns:
        (I, J, K) of the image, in the type of `array`, or int32 where its voxels are not those of the image.

    Raises:
        ValueError: neither on the grid nor to be brought onto it.
    """
    if own.lies_on(grid):
        return array
    if not own.can_move_to(grid):
        raise ValueError(
            f"{name} of the shape {own.shape} does not lie on its image of the shape {grid.shape}, and its "
            "place in the patient does not explain it. Export the label map again, on the grid of the image."
        )
    assert own.affine is not None
    if (turned := _turned(array, own.affine, grid)) is not None:
        return turned
    # beyond the centres of the outer voxels there is still half a voxel, which matters for labels of one slice
    moved = resample_from_to(
        nib.Nifti1Image(array.astype(np.int32), own.affine), (grid.shape, grid.affine), order=0, mode="grid-constant"
    )
    return np.asarray(moved.dataobj)


def _turned(array: np.ndarray, affine: np.ndarray, grid: Grid) -> np.ndarray | None:
    """Labels whose voxels are those of the image in another order, or some of them; None where they are not."""
    assert grid.affine is not None
    to_voxel = np.linalg.inv(grid.affine) @ affine
    steps = np.rint(to_voxel[:3, :3])
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [*(np.array(array.shape) - 1), 1]
    exact = corners @ np.block([[steps, np.rint(to_voxel[:3, 3:])], [np.array([0, 0, 0, 1])]]).T
    if not (np.abs(steps).sum(0) == 1).all() or not (np.abs(steps).sum(1) == 1).all():
        return None
    if np.abs(corners @ to_voxel.T - exact).max() > _SAME_VOXEL:
        return None
    axes = np.abs(steps).argmax(1)  # of the array, for each axis of the image
    moved = array.transpose(axes)
    moved = moved[tuple(slice(None, None, int(steps[n, axes[n]])) for n in range(3))]
    low = exact[:, :3].min(0).astype(int)
    first, last = np.maximum(low, 0), np.minimum(low + moved.shape, grid.shape)
    out = np.zeros(grid.shape, array.dtype, order="F")
    if (first < last).all():
        there = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
        out[there] = moved[tuple(slice(a, b) for a, b in zip(first - low, last - low, strict=True))]
    return out


def _nifti_grid(path: Path) -> Grid:
    image = open_nifti(path)
    shape, header = tuple(int(n) for n in image.shape), image.header
    colour = header.get_data_dtype().fields is not None
    i, j, k, components, *further = (*shape, 1, 1, 1)
    if len(shape) < 2 or min(shape) < 1 or any(n != 1 for n in further):
        raise ValueError(f"a shape of {shape}")
    placed = int(header["qform_code"]) > 0 or int(header["sform_code"]) > 0
    return Grid((i, j, k), np.asarray(image.affine, float) if placed else None, 3 if colour else 1, components)


def _extent(shape: tuple[int, int, int], affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest world coordinates (3,) of the corners, in mm."""
    corners = np.stack(np.meshgrid(*[(-0.5, n - 0.5) for n in shape], indexing="ij"), -1).reshape(-1, 3)
    world = corners @ affine[:3, :3].T + affine[:3, 3]
    return world.min(0), world.max(0)
