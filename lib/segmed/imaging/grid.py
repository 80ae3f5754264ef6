"""Grids of images, read from their headers, and label maps resampled onto the grid of their image."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.processing import resample_from_to

from segmed.imaging.formats.channels import check_axes, is_colour
from segmed.imaging.formats.itk import itk_affine, quiet_itk
from segmed.imaging.formats.nifti_files import open_nifti
from segmed.imaging.formats.nifti_place import nifti_affines, same_place
from segmed.imaging.formats.pictures import PICTURE_EXTENSIONS, picture_facts
from segmed.imaging.formats.seg_nrrd import cropped, is_segmentation, read_segments, segmentation_header
from segmed.imaging.formats.text_headers import check_regular, for_itk
from segmed.imaging.labels.segments import Segments, StoredSegment, values_in
from segmed.imaging.reading import NIFTI_EXTENSIONS, itk_reader, kind_of, read_volume, reading_explained

_SAME_PLACE = 0.25  # voxels; resampling (nearest) would change nothing
_SAME_VOXEL = 0.1  # voxels
_LEAST_OVERLAP = 0.5
_MOST = 2**31 - 1


@dataclass(frozen=True)
class Grid:
    """Size and position of an image.

    Attributes:
        shape: Number of voxels along (i, j, k); k is 1 for pictures.
        affine: (4, 4), voxel to RAS mm; None where the file does not state it, as in pictures.
        channels: Number of values per voxel, 1 for grey, 3 or 4 for colour.
        components: Length of the fourth axis of a NIfTI file.
        others: Affines by which other readers place the same file, see `nifti_affines`.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray | None = None
    channels: int = 1
    components: int = 1
    others: tuple[np.ndarray, ...] = ()

    @property
    def places(self) -> tuple[np.ndarray, ...]:
        """All affines by which readers place the file, the decisive one first; none if it is not stated."""
        return () if self.affine is None else (self.affine, *self.others)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along (i, j, k); 1 where the file does not state it."""
        i, j, k = (
            (1.0, 1.0, 1.0) if self.affine is None else np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        )
        return i, j, k

    def lies_on(self, other: Grid) -> bool:
        """Whether both grids have the same voxels; for files without a position, the shape alone decides."""
        if self.affine is None or other.affine is None:
            return self.shape == other.shape
        return self.shape == other.shape and any(
            same_place(mine, theirs, self.shape, _SAME_PLACE)
            for mine in self.places
            for theirs in other.places
        )

    def can_move_to(self, other: Grid) -> bool:
        """Whether world coordinates bring this onto another grid: the affines differ, and the images overlap.

        The same affine with another shape is no such case: the files belong to different images. Nor is an
        overlap of less than half of the smaller one, as of a file with an axis mirrored by mistake."""
        if self.affine is None or other.affine is None:
            return False
        if same_place(self.affine, other.affine, other.shape, _SAME_PLACE):
            return self.shape == other.shape
        return self.overlaps(other)

    def overlaps(self, other: Grid) -> bool:
        """Whether both share at least half of the smaller one."""
        assert self.affine is not None and other.affine is not None
        mine, theirs = _extent(self.shape, self.affine), _extent(other.shape, other.affine)
        shared = np.clip(np.minimum(mine[1], theirs[1]) - np.maximum(mine[0], theirs[0]), 0, None).prod()
        return bool(shared >= _LEAST_OVERLAP * min((e[1] - e[0]).prod() for e in (mine, theirs)) > 0)


def read_grid(path: str | os.PathLike[str], labels: bool = False) -> Grid:
    """Size and position of an image from its header; voxels are read for DICOM only.

    Args:
        path: Path of the file, or of a folder of one DICOM series.
        labels: Whether the file is a label map, which may be a segmentation of several layers.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The header is damaged, or not that of a 2-D or 3-D image.
    """
    path = Path(path)
    extension = "" if path.is_dir() or not path.exists() else kind_of(path)
    if extension in ("", ".dcm"):
        volume = read_volume(path)
        return Grid(volume.shape, volume.affine, 3 if volume.is_colour else 1)
    check_regular(path)
    with reading_explained(path):
        if extension in NIFTI_EXTENSIONS:
            return _nifti_grid(path)
        if extension in PICTURE_EXTENSIONS:
            facts = picture_facts(path)
            return Grid(facts.shape, None, facts.channels)
        segmentation = labels and is_segmentation(path)
        with quiet_itk(), for_itk(path) as plain:
            if not segmentation:
                check_axes(path)
            reader = itk_reader(plain)
            reader.ReadImageInformation()
        i, j, k = (*reader.GetSize(), 1)[:3]
        channels = 1 if segmentation else reader.GetNumberOfComponents()
    is_colour(path, channels)
    return Grid((i, j, k), itk_affine(reader), channels)


def image_grid(path: str | os.PathLike[str], shape: tuple[int, int, int], affine: np.ndarray) -> Grid:
    """The grid of an image that has been read, with all places that readers give its file."""
    path = Path(path)
    kind = kind_of(path) if path.is_file() else ""
    if kind in PICTURE_EXTENSIONS:  # no place at all: whatever is as large lies on it
        return Grid(shape, affine, others=(np.eye(4),))
    if kind not in NIFTI_EXTENSIONS:
        return Grid(shape, affine)
    with reading_explained(path):
        others = nifti_affines(path, open_nifti(path))
    return Grid(shape, affine, others=tuple(o for o in others if not same_place(o, affine, shape)))


def read_labels(path: str | os.PathLike[str], grid: Grid) -> np.ndarray:
    """Read a label map, and resample it (nearest) by world coordinates where it lies on another grid.

    Args:
        path: Path of the label map. The first channel of colour files counts, the index of palettes, and
            where segments overlap, the smaller one.
        grid: Grid of the image.

    Returns:
        Label map (I, J, K) on the grid of the image, in the type of the file, or int32 where resampled.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is unreadable, or its label map cannot be resampled onto the grid.
    """
    return read_label_segments(path, grid).flat()


def read_label_segments(path: str | os.PathLike[str], grid: Grid) -> Segments:
    """As `read_labels`, with the names and colours in the file, and the layers of segments that overlap.

    Names of a label map without any are "". Its values are listed if they are whole numbers.
    """
    path = Path(path)
    if header := segmentation_header(path):
        found, affine = read_segments(path)
        i, j, k = found.layers[0].shape
        own, part = Grid((i, j, k), affine), cropped(header)
        layers = tuple(move_labels(layer, own, grid, path.name, part) for layer in found.layers)
        return Segments(layers, found.segments, found.general)
    volume = read_volume(path, labels=True)
    array = volume.array[..., 0] if volume.is_colour else volume.array
    moved = move_labels(array, read_grid(path, labels=True), grid, path.name)
    whole = np.issubdtype(moved.dtype, np.integer)
    return Segments(
        (moved,), tuple(StoredSegment("", v, 0, v) for v in (values_in(moved) if whole else ()) if v > 0)
    )


def move_labels(
    array: np.ndarray, own: Grid, grid: Grid, name: str = "The label map", part: bool = False
) -> np.ndarray:
    """A label map on the grid of its image, resampled (nearest) by world coordinates where it differs.

    Args:
        array: Label map (I, J, K) on its own grid.
        own: Grid of `array`.
        grid: Grid of the image.
        name: Name of the label map, for messages.
        part: Whether the label map is known to cover a part of a larger grid, which may begin at the same
            corner.

    Returns:
        Label map (I, J, K) on the grid of the image, in the type of `array`, or int32 where it was resampled.

    Raises:
        ValueError: The label map cannot be resampled onto the grid.
    """
    if own.lies_on(grid):
        return array
    pairs = [(Grid(own.shape, a), Grid(grid.shape, b)) for a in own.places for b in grid.places]
    usable = [(a, b) for a, b in pairs if a.can_move_to(b) or (part and a.overlaps(b))]
    if not usable:
        raise ValueError(
            f"{name} of the shape {own.shape} does not lie on its image of the shape {grid.shape}, and its "
            f"place in the patient does not explain it: {_difference(own, grid)}. Export the label map "
            "again, on the grid of the image."
        )
    for mine, theirs in usable:
        assert mine.affine is not None
        if (turned := _turned(array, mine.affine, theirs)) is not None:
            return turned
    own, grid = usable[0]
    # beyond the centres of the outer voxels there is still half a voxel, which matters for labels of one
    # slice
    plain = array if np.issubdtype(array.dtype, np.floating) else np.clip(array, -1, _MOST).astype(np.int32)
    image = nib.Nifti1Image(plain, own.affine)
    moved = resample_from_to(image, (grid.shape, grid.affine), order=0, mode="grid-constant")
    return np.asarray(moved.dataobj)


def _turned(array: np.ndarray, affine: np.ndarray, grid: Grid) -> np.ndarray | None:
    """Labels whose voxels are those of the image in another order, or a part of them; else None."""
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
    affine, *others = nifti_affines(path, image) if placed else (None,)
    return Grid((i, j, k), affine, 3 if colour else 1, components, tuple(others))


def _difference(own: Grid, grid: Grid) -> str:
    """How two grids differ, as the middle of a sentence."""
    differences = [
        f"{mine} voxels along {axis} where the image has {theirs}"
        for axis, mine, theirs in zip("ijk", own.shape, grid.shape, strict=True)
        if mine != theirs
    ]
    if own.affine is None or grid.affine is None:
        return ", ".join([*differences, "and one of the files does not say where it lies"])
    if not np.allclose(own.spacing, grid.spacing, rtol=0.01):
        sizes = [" × ".join(f"{s:.4g}" for s in one.spacing) for one in (own, grid)]
        differences.append(f"voxels of {sizes[0]} mm where the image has {sizes[1]} mm")
    low, high = _extent(own.shape, own.affine)
    theirs_low, theirs_high = _extent(grid.shape, grid.affine)
    apart = np.abs((low + high) / 2 - (theirs_low + theirs_high) / 2)
    if apart.max() > 0.5 * min(grid.spacing):
        differences.append(f"its middle lies {np.linalg.norm(apart):.4g} mm from that of the image")
    return ", ".join(differences) or "its axes run another way"


def _extent(shape: tuple[int, int, int], affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest world coordinates (3,) of the corners, in mm."""
    corners = np.stack(np.meshgrid(*[(-0.5, n - 0.5) for n in shape], indexing="ij"), -1).reshape(-1, 3)
    world = corners @ affine[:3, :3].T + affine[:3, 3]
    return world.min(0), world.max(0)
