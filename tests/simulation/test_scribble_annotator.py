"""Simulated scribbles lie where they should, are repeatable, and differ."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from segmed.imaging.prompts import SlicePrompt
from segmed.simulation.scribble_annotator import KINDS, scribble, with_scribble

SIZE = (80, 100)


def _disc(x: int = 50, y: int = 40, radius: int = 22) -> np.ndarray:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 <= radius**2)


def _regions() -> dict[str, np.ndarray]:
    pixel = np.zeros(SIZE, bool)
    pixel[3, 5] = True
    ring = _disc() & ~_disc(radius=16)
    thin = np.zeros(SIZE, bool)
    thin[0, 3:90] = True
    return {
        "disc": _disc(),
        "pixel": pixel,
        "ring": ring,
        "thin": thin,
        "two": _disc(20, 20, 8) | _disc(80, 60, 9),
    }


@pytest.mark.parametrize("kind", [*KINDS, None])
@pytest.mark.parametrize("name", [*_regions()])
def test_strokes_stay_in_their_region_and_are_never_empty(name: str, kind: str | None) -> None:
    region = _regions()[name]
    for seed in range(6):
        drawn = scribble(region, np.random.default_rng(seed), kind)
        assert drawn.shape == region.shape and drawn.dtype == bool
        assert drawn.any() and not (drawn & ~region).any()
        assert (drawn == scribble(region, np.random.default_rng(seed), kind)).all()


@pytest.mark.parametrize("kind", [*KINDS])
def test_strokes_are_thin_and_seeds_draw_differently(kind: str) -> None:
    region = _disc()
    drawn = [scribble(region, np.random.default_rng(seed), kind) for seed in range(12)]
    assert all(d.sum() < 0.4 * region.sum() for d in drawn)
    assert all(ndimage.distance_transform_edt(d).max() <= 3 for d in drawn)
    assert len({d.tobytes() for d in drawn}) > 6


def test_each_kind_runs_where_it_says() -> None:
    region = np.zeros(SIZE, bool)
    region[30:50, 10:90] = True
    depth = ndimage.distance_transform_edt(region)

    def mean_depth(kind: str) -> float:
        drawn = [scribble(region, np.random.default_rng(seed), kind) for seed in range(30)]
        return float(np.mean([depth[d].mean() for d in drawn]))

    assert mean_depth("centre") > 7.5  # of 10
    assert 2 < mean_depth("contour") < 7
    edge = scribble(_disc(radius=30), np.random.default_rng(1), "contour")
    assert not edge[36:45, 46:55].any()  # not in the middle


def test_the_first_scribble_is_on_the_object_and_corrections_are_where_the_mask_is_wrong() -> None:
    truth = _disc()
    first = with_scribble(None, None, truth, np.random.default_rng(0))
    assert first.scribbles is not None
    assert (first.scribbles >= 0).all() and (first.scribbles[~truth] == 0).all()

    found = _disc(x=60)
    found[:, :45] = False  # more is missed on the left than is too much on the right
    second = with_scribble(first, found, truth, np.random.default_rng(1))
    assert second.scribbles is not None
    new = (second.scribbles != first.scribbles) & (second.scribbles == 1)
    assert new.any() and (new <= (truth & ~found)).all()

    third = with_scribble(second, _disc(radius=36), truth, np.random.default_rng(2))
    assert third.scribbles is not None
    beside = third.scribbles == -1
    assert beside.any() and not (beside & truth).any()
    assert ((third.scribbles == 1) == (second.scribbles == 1)).all()
    assert with_scribble(third, truth, truth, np.random.default_rng(3)) is third


def test_a_scribble_keeps_what_else_was_said() -> None:
    points = np.array([[50, 40]], np.float32)
    said = SlicePrompt((20, 10, 80, 70), points, np.array([1]), _disc(radius=5))
    more = with_scribble(said, _disc(radius=5), _disc(), np.random.default_rng(0), "centre")
    assert (more.box, more.mask is said.mask, more.points is points) == (said.box, True, True)
    assert more.scribbles is not None and (more.scribbles == 1).any()


def test_impossible_scribbles() -> None:
    with pytest.raises(ValueError, match="empty region"):
        scribble(np.zeros(SIZE, bool), np.random.default_rng(0))
    with pytest.raises(ValueError, match="Choose from line, centre, contour"):
        scribble(_disc(), np.random.default_rng(0), "dots")
