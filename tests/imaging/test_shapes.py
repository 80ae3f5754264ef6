"""Interpolation between slices, and surfaces."""

from __future__ import annotations

import numpy as np
import pytest
from segmed.imaging.labels.interpolation import interpolated
from segmed.imaging.labels.surface import surface_mesh, to_gifti


def _disc(x: float, radius: float, y: float = 30) -> np.ndarray:
    rows, columns = np.ogrid[:60, :70]
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 < radius**2)


def test_discs_become_a_cone() -> None:
    between = interpolated({2: _disc(35, 20), 8: _disc(35, 8)})
    assert sorted(between) == [3, 4, 5, 6, 7]
    for k, mask in between.items():
        radius = np.sqrt(mask.sum() / np.pi)
        assert radius == pytest.approx(20 - 2 * (k - 2), abs=0.7)
        assert np.allclose(np.argwhere(mask).mean(0), (30, 35), atol=0.3)


def test_an_oblique_object_does_not_vanish() -> None:
    between = interpolated({0: _disc(12, 6), 10: _disc(56, 6)})
    for k, mask in between.items():
        assert np.argwhere(mask).mean(0)[1] == pytest.approx(12 + 4.4 * k, abs=0.8)
        assert mask.sum() == pytest.approx(np.pi * 36, rel=0.15)


def test_each_gap_is_filled_by_its_ends() -> None:
    masks = {0: _disc(20, 9), 1: _disc(20, 9), 4: _disc(20, 9), 6: _disc(20, 9), 9: np.zeros((60, 70), bool)}
    assert sorted(interpolated(masks)) == [2, 3, 5]
    assert interpolated({3: _disc(20, 9)}) == {}


@pytest.mark.parametrize("flip", [1, -1])
def test_the_surface_of_a_ball_lies_in_the_room(flip: int) -> None:
    i, j, k = np.indices((44, 50, 24))
    ball = (i - 20) ** 2 + (j - 25) ** 2 + (2 * (k - 11)) ** 2 < 15**2
    affine = np.diag([flip, 1, 2, 1.0])
    affine[:3, 3] = (7, -5, 3)
    vertices, faces = surface_mesh(ball, affine)
    centre = affine @ [20, 25, 11, 1]
    assert np.linalg.norm(vertices - centre[:3], axis=1) == pytest.approx(15, abs=1.2)
    a, b, c = (vertices[faces[:, n]] - centre[:3] for n in range(3))
    volume = float(np.einsum("nd,nd->n", a, np.cross(b, c)).sum() / 6)  # positive: the outside is in front
    assert volume == pytest.approx(4 / 3 * np.pi * 15**3, rel=0.06)
    assert to_gifti(vertices, faces).startswith(b"<?xml")


def test_a_large_object_is_sampled_more_coarsely() -> None:
    block = np.zeros((300, 300, 120), bool)
    block[20:280, 30:270, 10:110] = True
    vertices, _ = surface_mesh(block, np.eye(4))
    assert np.allclose(vertices.min(0), (19.5, 29.5, 9.5), atol=1.5)
    assert np.allclose(vertices.max(0), (279.5, 269.5, 109.5), atol=1.5)


def test_a_single_voxel_has_a_surface_and_nothing_has_none() -> None:
    one = np.zeros((5, 5, 1), bool)
    one[2, 2, 0] = True
    assert len(surface_mesh(one, np.eye(4))[1]) > 4
    with pytest.raises(ValueError, match="nothing to show"):
        surface_mesh(np.zeros((5, 5, 5), bool), np.eye(4))
