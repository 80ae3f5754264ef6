"""What clients show of an object while it is being segmented, and how the final answer corrects it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np

from segmed.imaging.planes import SLICES, PlaneView
from segmed.server.workspace.patches import Patch
from segmed.server.workspace.workspace import Workspace

Paint = Callable[[np.ndarray, np.ndarray], np.ndarray]
Masks = Mapping[int, np.ndarray]


class Preview:
    """The slices that clients were told of before the answer.

    Args:
        work: Workspace, which is not changed.
        view: View whose slices are shown.
        bare: Function that returns a stored slice (J, I) of the label map without the object.
        paint: Function that returns a slice with a mask, given the slice (Q, P) without the object and the
            mask.
    """

    def __init__(
        self, work: Workspace, view: PlaneView, bare: Callable[[int], np.ndarray], paint: Paint
    ) -> None:
        self._work, self._view, self._bare, self._paint = work, view, bare, paint
        self._shown: dict[int, np.ndarray] = {}

    def patches(self, found: Masks) -> list[Patch]:
        """Rectangles to show for masks (Q, P) by slice of the view."""
        patches = []
        for n, mask in found.items():
            shown = self._shown[n] if n in self._shown else self._slice(n)
            values = self._paint(self._without(n), mask)
            if (patch := Patch.cut(n, values, values != shown, self._view.axis)) is not None:
                patches.append(patch)
                self._shown[n] = values
        return patches

    def corrections(self) -> list[Patch]:
        """Rectangles on stored slices where clients show something else than the workspace contains now."""
        if not self._shown:
            return []
        differs: dict[int, np.ndarray]
        if self._view.axis == SLICES:
            differs = {k: shown != self._work.slice(k) for k, shown in self._shown.items()}
        else:
            now = self._work.volume().transpose(self._view.order)
            differs = self._view.stored_masks(
                {n: shown != now[:, :, n].T for n, shown in self._shown.items()}
            )
        patches = (Patch.cut(k, self._work.slice(k), where) for k, where in sorted(differs.items()))
        return [patch for patch in patches if patch is not None]

    def _slice(self, n: int) -> np.ndarray:
        return self._work.slice(n) if self._view.axis == SLICES else self._before[:, :, n].T

    def _without(self, n: int) -> np.ndarray:
        return self._bare(n) if self._view.axis == SLICES else self._bare_volume[:, :, n].T

    @cached_property
    def _before(self) -> np.ndarray:
        return self._work.volume().transpose(self._view.order)

    @cached_property
    def _bare_volume(self) -> np.ndarray:
        volume = np.zeros(self._work.shape, np.uint8, order="F")
        for k in self._work.filled():
            volume[:, :, k] = self._bare(k).T
        return volume.transpose(self._view.order)
