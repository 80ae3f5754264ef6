"""The planes of a volume: axial, coronal or sagittal slices of it, with square pixels for the models.

A plane is named by anatomy and belongs to the axis of the stored array that runs most nearly across it.
Slices across the third axis are used as they are stored. Slices across another axis often have pixels that
are many times longer than wide, which no model has seen; they are resampled to the smaller of both edges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import nibabel as nib
import numpy as np
from PIL import Image

from segmed.imaging.picture import Picture
from segmed.imaging.prompts import Box, Point

PlaneName = Literal["axial", "coronal", "sagittal"]
SLICES = 2  # axis across the stored slices
_MOST_STRETCH = 8.0  # ratio of edges up to which pixels become square
_ACROSS = {"sagittal": 0, "coronal": 1, "axial": 2}  # world axes in RAS
Masks = Mapping[int, np.ndarray]


def plane_axes(affine: np.ndarray) -> dict[str, int]:
    """For each plane, the axis (0, 1 or 2) of the stored array that runs across it.

    Args:
        affine: (4, 4), voxel to RAS mm.
    """
    world = nib.io_orientation(affine)[:, 0]
    known = [int(axis) for axis in world if np.isfinite(axis)]
    left = iter(sorted({0, 1, 2} - set(known)))  # a picture without a third dimension
    order = [int(axis) if np.isfinite(axis) else next(left) for axis in world]
    return {name: order.index(axis) for name, axis in _ACROSS.items()}


def axis_across(plane: PlaneName | None, affine: np.ndarray) -> int:
    """The axis of the stored array across a plane; across the stored slices for None."""
    assert plane is None or plane in get_args(PlaneName)
    return SLICES if plane is None else plane_axes(affine)[plane]


@dataclass(frozen=True)
class PlaneView:
    """A volume as slices across one of its axes.

    Slice n of the view has the two other axes (p, q) of the stored array in their order as x and y. *Plain*
    slices (Q, P) have the stored voxels as pixels, *square* slices (H, W) are resampled.

    Attributes:
        shape: Shape (I, J, K) of the stored array.
        axis: Axis of the stored array across the view.
        edges: Edges of the voxels along the stored axes in mm.
    """

    shape: tuple[int, int, int]
    axis: int
    edges: tuple[float, float, float]

    @classmethod
    def of(cls, shape: tuple[int, int, int], affine: np.ndarray, axis: int) -> PlaneView:
        """The view of a volume across an axis, given its affine (4, 4), voxel to mm."""
        edges = np.linalg.norm(affine[:3, :3], axis=0)
        return cls(shape, axis, (float(edges[0]), float(edges[1]), float(edges[2])))

    @property
    def order(self) -> tuple[int, int, int]:
        """The stored axes p and q in the plane, and the axis across it."""
        p, q = (axis for axis in range(3) if axis != self.axis)
        return p, q, self.axis

    @property
    def plain_size(self) -> tuple[int, int]:
        """Size (P, Q) of plain slices."""
        p, q, _ = self.order
        return self.shape[p], self.shape[q]

    @cached_property
    def stretch(self) -> tuple[float, float]:
        """Square pixels per voxel along x and y."""
        if self.axis == SLICES:
            return 1.0, 1.0
        edges = [max(self.edges[axis], 1e-6) for axis in self.order[:2]]
        ratios = [min(edge / min(edges), _MOST_STRETCH) for edge in edges]
        return ratios[0], ratios[1]

    @property
    def square_size(self) -> tuple[int, int]:
        """Size (W, H) of square slices."""
        width, height = (max(1, round(n * by)) for n, by in zip(self.plain_size, self.stretch, strict=True))
        return width, height

    @property
    def square_shape(self) -> tuple[int, int, int]:
        """Shape (W, H, N) of the view."""
        return *self.square_size, self.shape[self.axis]

    def picture(self, picture: Picture) -> Picture:
        """The image in this view; slices are resampled when they are asked for."""
        if self.axis == SLICES:
            return picture
        order = self.order
        affine = picture.affine.copy()
        affine[:, :3] = picture.affine[:, order]
        scale = [n / m for n, m in zip(self.plain_size, self.square_size, strict=True)]
        affine[:3, 3] += affine[:3, :2] @ [(by - 1) / 2 for by in scale]
        affine[:3, :2] *= scale
        rest = tuple(range(3, picture.array.ndim))
        array = picture.array.transpose(*order, *rest)
        key = f"{picture.key}:across {self.axis}"
        return _ViewedPicture(array, affine, key, picture.window, picture.levels, view=self)

    def point(self, point: Point) -> Point:
        """A stored voxel as square pixel and slice."""
        p, q, axis = self.order
        x, y = (self._enlarged(point[at], n) for n, at in enumerate((p, q)))
        return round(x), round(y), point[axis]

    def box(self, box: Box) -> Box:
        """A box of stored voxels in square pixels and slices."""
        ranges = (box.i, box.j, box.k)
        p, q, axis = self.order
        x, y = ((self._edge(ranges[at], n)) for n, at in enumerate((p, q)))
        return Box(x, y, ranges[axis])

    def enlarged(self, plain: np.ndarray) -> np.ndarray:
        """A plain slice (Q, P) of small integers or booleans as a square one (H, W), by the nearest voxel."""
        if plain.shape[::-1] == self.square_size:
            return plain
        rows, columns = (
            np.minimum((np.arange(m) + 0.5) * n / m, n - 1).astype(int)
            for m, n in zip(self.square_size[::-1], plain.shape, strict=True)
        )
        return np.asarray(plain[np.ix_(rows, columns)])

    def reduced(self, square: np.ndarray) -> np.ndarray:
        """A square mask (H, W) as a plain one (Q, P): voxels of which at least half is covered."""
        if square.shape[::-1] == self.plain_size:
            return square
        grey = Image.fromarray(square.astype(np.uint8) * 255)
        return np.asarray(grey.resize(self.plain_size, Image.Resampling.BOX)) > 127

    def square_masks(self, masks: Masks) -> dict[int, np.ndarray]:
        """Masks (J, I) of stored slices k as square masks of this view, where there are any."""
        return {n: self.enlarged(plain) for n, plain in self.plain_masks(masks).items()}

    def plain_masks(self, masks: Masks) -> dict[int, np.ndarray]:
        """Masks (J, I) of stored slices k as plain masks of this view, where there are any."""
        if self.axis == SLICES:
            return {k: mask for k, mask in masks.items() if mask.any()}
        turned = self._volume(masks).transpose(self.order)
        return {int(n): turned[:, :, n].T for n in np.flatnonzero(turned.any(axis=(0, 1)))}

    def stored_masks(self, plain: Masks, over: Masks | None = None) -> dict[int, np.ndarray]:
        """Plain masks of this view as masks (J, I) of the stored slices that they touch.

        Args:
            plain: Masks (Q, P) by slice of the view.
            over: Masks (J, I) of stored slices that are kept outside of these slices of the view.
        """
        if self.axis == SLICES:
            return {**(over or {}), **plain}
        volume = self._volume(over or {})
        turned = volume.transpose(self.order)
        for n, mask in plain.items():
            turned[:, :, n] = mask.T
        return {int(k): volume[:, :, k].T.copy() for k in np.flatnonzero(volume.any(axis=(0, 1)))}

    def _volume(self, masks: Masks) -> np.ndarray:
        volume = np.zeros(self.shape, bool, order="F")
        for k, mask in masks.items():
            volume[:, :, k] = mask.T
        return volume

    def _enlarged(self, at: float, n: int) -> float:
        """A place along x (0) or y (1) of a plain slice in square pixels."""
        size, plain = self.square_size[n], self.plain_size[n]
        return min(max((at + 0.5) * size / plain - 0.5, 0.0), size - 1.0)

    def _edge(self, ends: tuple[int, int], n: int) -> tuple[int, int]:
        """A range of voxels, ends inclusive, in square pixels."""
        size, plain = self.square_size[n], self.plain_size[n]
        low, high = ends[0] * size / plain, (ends[1] + 1) * size / plain - 1
        return round(low), min(size - 1, max(round(low), round(high)))


@dataclass(frozen=True)
class _ViewedPicture(Picture):
    """A picture whose slices are resampled one by one."""

    view: PlaneView | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        assert self.view is not None
        return self.view.square_shape

    def slice(self, k: int) -> np.ndarray:
        assert self.view is not None
        plain = np.ascontiguousarray(super().slice(k))
        if plain.shape[1::-1] == self.view.square_size:
            return plain
        # A copy, because tensors need arrays that can be written to.
        return np.array(Image.fromarray(plain).resize(self.view.square_size, Image.Resampling.BILINEAR))
