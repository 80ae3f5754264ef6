"""The grid of a label map that a viewer sends."""

from __future__ import annotations

import numpy as np

from segmed.imaging.grid import Grid
from segmed.server.http.errors import BadRequest
from segmed.server.workspace.bodies import LabelMapParams

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])


def parse_grid(given: LabelMapParams, image: Grid) -> Grid:
    """The grid that a viewer states.

    Libraries write a direction by rows or by columns; the one is used that puts the voxels onto the image.

    Raises:
        BadRequest: No image has such a grid.
    """
    flat = np.array(given.direction).reshape(3, 3)
    grids = []
    for direction in (flat, flat.T):
        affine = np.eye(4)
        affine[:3, :3] = _RAS_TO_LPS @ (direction * given.spacing)
        affine[:3, 3] = _RAS_TO_LPS @ given.origin
        if not min(given.spacing) > 0 or abs(np.linalg.det(affine)) < 1e-9:
            raise BadRequest(
                "Spacing or direction of the label map do not form a grid. Send three axes in mm."
            )
        size = given.size
        grids.append(Grid((size[0], size[1], size[2]), affine))
    return max(grids, key=lambda grid: _on_image(grid, image))


def _on_image(grid: Grid, image: Grid) -> float:
    """Share of the corners of a grid that lie on the image."""
    assert grid.affine is not None and image.affine is not None
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [*(np.array(grid.shape) - 1), 1]
    voxels = (np.linalg.inv(image.affine) @ grid.affine @ corners.T)[:3].T
    return float(((voxels > -0.6) & (voxels < np.array(image.shape) - 0.4)).all(1).mean())
