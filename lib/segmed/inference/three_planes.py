"""The same object followed along all three axes of a volume: voxels that two of the three masks share.

A mask that is passed from slice to slice errs most at the object's ends along its own axis; the masks along
the other axes see these ends in their slices. The three masks also begin on different slices, so that a wrong
beginning is outvoted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from segmed.imaging.labels.masks import bounding_box, largest_component
from segmed.imaging.picture import Picture
from segmed.imaging.planes import PlaneView
from segmed.imaging.prompts import Box, Point, Prompt
from segmed.inference.cross_planes import Chord

MOST_SLICES = 64  # slices across an object; of larger ones, voxels are averaged first
_LEAST_SLICES = 5  # of an object along any axis
_AGREEMENT = 0.7  # Dice of the vote with the mask of the slice that the user's box was drawn on

Masks = dict[int, np.ndarray]
Follow = Callable[[Picture, Prompt], Masks]


@dataclass(frozen=True)
class ThreePlanes:
    """A vote of three planes on one object.

    Attributes:
        picture: The volume.
        views: The views across its first two axes.
        prompt: The user's prompt, with a box.
        follow: Function that segments a view of the volume by a prompt with a box over its slices.
        clean: Whether parts that are not connected with the largest one are removed.
    """

    picture: Picture
    views: tuple[PlaneView, ...]
    prompt: Prompt
    follow: Follow
    clean: bool = True

    def vote(self, masks: Masks) -> Masks:
        """Masks by slice from those found along the slices and those of two other planes.

        Masks of slices with clicks stay as they are. So do all masks if a plane shows nothing, and if the
        vote contradicts the mask of the slice on which a flat box was drawn.
        """
        box = self._box(masks)
        if box is None or len(self.views) < 2:
            return masks
        along = np.zeros(self.picture.shape, np.uint8)
        for k, mask in masks.items():
            along[:, :, k] = mask.T
        votes = along.copy()
        for view in self.views:
            other = self._across(view, box, masks)
            if not other.any():
                return masks
            votes += other
        agreed = largest_component(votes >= 2) if self.clean else votes >= 2
        voted = {int(k): agreed[:, :, k].T for k in np.flatnonzero(agreed.any(axis=(0, 1)))}
        drawn = self._drawn_on(masks)
        if drawn is not None:
            kept, new = masks[drawn], voted.get(drawn, np.zeros_like(masks[drawn]))
            if 2 * (kept & new).sum() < _AGREEMENT * (kept.sum() + new.sum()):
                return masks
            voted[drawn] = kept
        marked = {k for _, _, k in (*self.prompt.foreground, *self.prompt.background)}
        return voted | {k: masks[k] for k in marked if k in masks}

    def _drawn_on(self, masks: Masks) -> int | None:
        """The slice on which a flat box was drawn."""
        box = self.prompt.box
        return box.k[0] if box is not None and box.is_flat and box.k[0] in masks else None

    def _box(self, masks: Masks) -> Box | None:
        """The user's box over the slices, or the box around the masks found from a flat one."""
        box = self.prompt.box
        if box is None or not masks:
            return None
        if box.is_flat:
            extent = bounding_box(np.stack(list(masks.values())).transpose(2, 1, 0))
            if extent is None:
                return None
            box = Box(extent[0], extent[1], (min(masks), max(masks)))
        sides = (box.i, box.j, box.k)
        return box if all(high - low + 1 >= _LEAST_SLICES for low, high in sides) else None

    def _across(self, view: PlaneView, box: Box, masks: Masks) -> np.ndarray:
        """The mask (I, J, K), uint8, found along the axis of a view within a box of voxels."""
        longest = max(high - low + 1 for low, high in (box.i, box.j))
        by = -(-longest // MOST_SLICES)
        coarse = reduced_picture(self.picture, by)
        view = PlaneView.of(coarse.shape, coarse.affine, view.axis)
        last = coarse.shape
        i, j = (
            (min(low // by, n - 1), min(high // by, n - 1))
            for (low, high), n in zip((box.i, box.j), last[:2], strict=True)
        )
        prompt = Prompt(view.box(Box(i, j, box.k)), *self._clicks(view, masks, by))
        found = self.follow(view.picture(coarse), prompt)
        plain = {n: view.reduced(mask) for n, mask in found.items()}
        volume = np.zeros(coarse.shape, np.uint8)
        for k, mask in view.stored_masks(plain).items():
            volume[:, :, k] = mask.T
        fine = volume.repeat(by, 0).repeat(by, 1)
        missing = [(0, n - m) for n, m in zip(self.picture.shape, fine.shape, strict=True)]
        return np.pad(fine, missing)

    def _clicks(self, view: PlaneView, masks: Masks, by: int) -> tuple[tuple[Point, ...], tuple[Point, ...]]:
        """Clicks that mark the object of the slice of a flat box in a view, foreground and background."""
        drawn = self._drawn_on(masks)
        if drawn is None:
            return (), ()
        chord = Chord.through(masks[drawn], drawn, view.axis)
        sides = view.shape

        def seen(point: Point) -> Point:
            return view.point(
                (min(point[0] // by, sides[0] - 1), min(point[1] // by, sides[1] - 1), point[2])
            )

        on, off = (tuple(dict.fromkeys(map(seen, p))) for p in (chord.foreground, chord.background))
        return on, tuple(p for p in off if p not in on)


def reduced_picture(picture: Picture, by: int) -> Picture:
    """A picture whose voxels are averaged over `by` × `by` voxels of each slice; what is left over is cut."""
    if by <= 1:
        return picture
    i, j = (n // by for n in picture.shape[:2])
    blocks = picture.array[: i * by, : j * by].reshape(i, by, j, by, *picture.array.shape[2:])
    affine = picture.affine.copy()
    affine[:3, 3] += affine[:3, :2].sum(1) * (by - 1) / 2
    affine[:3, :2] *= by
    array = blocks.mean(axis=(1, 3)).round().astype(np.uint8)
    return replace(picture, array=array, affine=affine, key=f"{picture.key}:by {by}")
