"""Views of a volume across its axes: names, square pixels, and masks and prompts there and back."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from segmed.imaging.picture import Picture
from segmed.imaging.planes import PlaneView, axis_across, plane_axes
from segmed.imaging.prompts import Box

SHAPE = (30, 24, 10)
AFFINE = np.diag([1.0, 1.0, 4.0, 1.0])


def _picture(affine: np.ndarray = AFFINE) -> Picture:
    values = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
    return Picture(values, affine, "key", "auto")


@pytest.mark.parametrize(
    ("code", "wanted"),
    [("RAS", (0, 1, 2)), ("LPS", (0, 1, 2)), ("PSR", (2, 0, 1)), ("SAL", (2, 1, 0)), ("IRP", (1, 2, 0))],
)
def test_planes_by_anatomy(code: str, wanted: tuple[int, int, int]) -> None:
    """Which axis of an image that is stored as `code` runs from left to right, and so on."""
    towards = dict(
        zip("LRPAIS", [(-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)], strict=True)
    )
    turned = np.eye(4)
    turned[:3, :3] = np.transpose([towards[letter] for letter in code])
    assert nib.aff2axcodes(turned) == tuple(code)
    axes = plane_axes(turned)
    assert (axes["sagittal"], axes["coronal"], axes["axial"]) == wanted
    assert axis_across(None, turned) == 2


@pytest.mark.parametrize("axis", [0, 1])
def test_slices_have_square_pixels(axis: int) -> None:
    picture = _picture()
    view = PlaneView.of(SHAPE, AFFINE, axis)
    seen = view.picture(picture)
    assert seen.shape == (SHAPE[1 - axis], 40, SHAPE[axis])
    assert seen.slice(3).shape == (40, SHAPE[1 - axis])
    edges = np.linalg.norm(seen.affine[:3, :3], axis=0)
    assert np.allclose(edges, 1)
    # the corners of the volume lie at the same places
    corner = seen.affine @ [-0.5, -0.5, -0.5, 1]
    assert np.allclose(corner, AFFINE @ [-0.5, -0.5, -0.5, 1])
    plain = np.take(picture.array, 3, axis).T  # (Q, P)
    assert np.abs(seen.slice(3)[2::4].astype(int) - plain).mean() < 60
    assert seen.key != picture.key


def test_stored_slices_stay_as_they_are() -> None:
    picture = _picture()
    view = PlaneView.of(SHAPE, AFFINE, 2)
    assert view.picture(picture) is picture
    assert view.point((3, 4, 5)) == (3, 4, 5)
    assert view.box(Box((1, 9), (2, 8), (3, 3))) == Box((1, 9), (2, 8), (3, 3))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_masks_come_back(axis: int) -> None:
    rng = np.random.default_rng(axis)
    volume = rng.random(SHAPE) > 0.7
    stored = {k: volume[:, :, k].T for k in range(SHAPE[2])}
    view = PlaneView.of(SHAPE, AFFINE, axis)
    square = view.square_masks(stored)
    back = view.stored_masks({n: view.reduced(mask) for n, mask in square.items()})
    assert all((back[k] == stored[k]).all() for k in stored if stored[k].any())


def test_new_slices_lie_over_the_masks_of_other_planes() -> None:
    view = PlaneView.of(SHAPE, AFFINE, 1)
    old = {4: np.ones((SHAPE[1], SHAPE[0]), bool)}
    new = np.zeros((SHAPE[2], SHAPE[0]), bool)
    new[2:6, 5:9] = True
    stored = view.stored_masks({7: new}, old)
    assert sorted(stored) == [2, 3, 4, 5]
    assert stored[4][7].nonzero()[0].tolist() == [5, 6, 7, 8]
    assert stored[4][8].all()
    assert stored[3].sum() == 4


def test_prompts_lie_where_they_were() -> None:
    view = PlaneView.of(SHAPE, AFFINE, 0)
    x, y, n = view.point((11, 3, 6))
    assert (x, n) == (3, 11)
    assert 4 * 6 <= y < 4 * 7
    assert view.box(Box((11, 11), (2, 9), (1, 3))) == Box((2, 9), (4, 15), (11, 11))
    assert view.enlarged(np.eye(10, 24, dtype=np.int8)).shape == (40, 24)
