"""Scribbles and lassos as the user drew them, so that a viewer can show them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from skimage.measure import approximate_polygon

_TOLERANCE = 0.3  # px, which nobody sees


@dataclass(frozen=True)
class DrawnLine:
    """A line on one slice, for the eye only: models and label maps use the pixels of `OpenObject`.

    Attributes:
        axis: Axis of the image across the slice.
        k: Index of the slice along that axis.
        points: Places (p, q) on the two other axes, in voxels.
        foreground: Whether it marks the object.
        closed: Whether it is a lasso.
    """

    axis: int
    k: int
    points: tuple[tuple[float, float], ...]
    foreground: bool = True
    closed: bool = False

    @classmethod
    def through(
        cls,
        axis: int,
        k: int,
        points: Sequence[Sequence[float]],
        foreground: bool = True,
        closed: bool = False,
    ) -> DrawnLine:
        """A line through points, without those that lie on it anyway (Douglas and Peucker, 1973)."""
        thin = approximate_polygon(np.asarray(points, float)[:, :2], _TOLERANCE)
        return cls(
            axis, k, tuple((round(float(p), 1), round(float(q), 1)) for p, q in thin), foreground, closed
        )

    @property
    def nbytes(self) -> int:
        return 100 + 120 * len(self.points)

    def to_json(self) -> dict[str, Any]:
        """The line as JSON values."""
        points = [list(point) for point in self.points]
        told = {"axis": self.axis, "k": self.k, "points": points}
        return {**told, "foreground": self.foreground, "closed": self.closed}
