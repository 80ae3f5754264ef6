"""Ends of objects seen in the planes across, and the vote of three planes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from segmed.evaluation.metrics import Overlap
from segmed.imaging.labels.masks import slice_box
from segmed.imaging.picture import Picture
from segmed.imaging.planes import PlaneView
from segmed.imaging.prompts import Box, Prompt, SlicePrompt
from segmed.inference.cross_planes import Course, CrossPlanes, views_across
from segmed.inference.neighbour_walk import NeighbourWalk
from segmed.inference.three_planes import Masks, ThreePlanes, reduced_picture

SHAPE = (48, 44, 40)


def _ball(radii: tuple[float, float, float] = (12, 9, 13)) -> np.ndarray:
    i, j, k = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    x, y, z = radii
    return np.asarray(((i - 23) / x) ** 2 + ((j - 21) / y) ** 2 + ((k - 19) / z) ** 2 < 1)


def _tube() -> np.ndarray:
    """A tube that runs obliquely through the whole volume."""
    i, j, k = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    return np.asarray((i - 8 - 0.8 * k) ** 2 + (j - 21) ** 2 < 25)


def _picture(truth: np.ndarray, edges: tuple[float, float, float] = (1, 1, 1)) -> Picture:
    return Picture(np.where(truth, 180, 60).astype(np.uint8), np.diag([*edges, 1.0]), "scan", "auto")


def _seen(picture: Picture, n: int, prompt: SlicePrompt) -> np.ndarray:
    """A model that sees an object in every plane."""
    return np.asarray(picture.slice(n) > 120)


def _planes(picture: Picture) -> CrossPlanes:
    return CrossPlanes(picture, views_across(picture), _seen)


def _course(picture: Picture, k: int, mask: np.ndarray) -> Course:
    course = _planes(picture).course(k, mask)
    assert course is not None
    return course


def test_the_planes_across_show_where_an_object_ends_and_how_wide_it_is() -> None:
    truth = _ball()
    course = _course(_picture(truth), 15, truth[:, :, 15].T)
    ks = np.flatnonzero(truth.any((0, 1)))
    assert course.end(1) == ks[-1]
    assert course.end(-1) == ks[0]
    start = np.array(slice_box(truth[:, :, 15].T))
    for k in (8, 12, 19, 25, 30):  # half of the way to the true box
        half = (start + slice_box(truth[:, :, k].T)) / 2
        assert np.abs(np.subtract(course.box_on(k), half)).max() <= 1


def test_thick_slices_are_looked_at_in_square_pixels_or_not_at_all() -> None:
    truth = _ball((12, 9, 4))
    course = _course(_picture(truth, (1, 1, 3)), 19, truth[:, :, 19].T)
    assert (course.end(-1), course.end(1)) == (16, 22)
    assert _planes(_picture(truth, (1, 1, 5))).course(19, truth[:, :, 19].T) is None
    resampled = PlaneView.of(SHAPE, np.diag([1, 1, 3, 1.0]), 0).picture(_picture(truth, (1, 1, 3)))
    assert views_across(resampled) == ()


def _walk(truth: np.ndarray, picture: Picture) -> NeighbourWalk:
    """A walk with a model that copies the neighbouring mask, clipped to its box, and never ends."""

    def copy(k: int, prompt: SlicePrompt) -> tuple[np.ndarray, float]:
        mask = truth[:, :, k].T.copy() if prompt.neighbour is None else prompt.neighbour.mask.copy()
        if prompt.neighbour is not None and prompt.box is not None:
            x0, y0, x1, y1 = (round(side) for side in prompt.box)
            mask[y0 : y1 + 1, x0 : x1 + 1] |= True
        return mask, 1.0

    rule = replace(NeighbourWalk.rule, min_likeness=0.0)
    prompt = Prompt(Box((11, 35), (12, 30), (19, 19)))
    return NeighbourWalk(prompt, SHAPE[2], picture.slice, copy, rule=rule)


def test_a_walk_ends_where_the_planes_across_show_the_end() -> None:
    truth = _ball()
    picture = _picture(truth)
    walk = _walk(truth, picture)
    assert len(walk.run()) == SHAPE[2]
    ks = np.flatnonzero(truth.any((0, 1)))
    bounded = replace(walk, course=_planes(picture).course).run()
    assert (min(bounded), max(bounded)) == (ks[0], ks[-1])
    assert bounded[int(ks[-1])].sum() < bounded[19].sum()  # it is as narrow as the planes show it


def test_an_object_that_leaves_the_planes_across_is_followed_by_asking_again() -> None:
    truth = _tube()
    picture = _picture(truth)
    asked: list[int] = []

    def course(k: int, mask: np.ndarray) -> Course:
        asked.append(k)
        return _course(picture, k, mask)

    first = _course(picture, 19, truth[:, :, 19].T)
    walk = NeighbourWalk(
        Prompt(foreground=((23, 21, 19),)), SHAPE[2], picture.slice, lambda k, _: (truth[:, :, k].T, 1.0)
    )
    assert sorted(replace(walk, course=course).run()) == list(range(SHAPE[2]))
    assert len(asked) > 2
    assert first.end(1) == SHAPE[2] - 1  # the plane along the tube shows all of it
    across = replace(first, chords={1: first.chords[1]})
    assert across.end(1) < 30  # the one across it does not


def _blunt(picture: Picture, prompt: Prompt) -> Masks:
    """A model that finds an object as wide at its ends as a quarter of the way to its middle."""
    assert prompt.box is not None
    low, high = prompt.box.k
    quarter = (high - low) // 4
    return {k: picture.slice(min(max(k, low + quarter), high - quarter)) > 120 for k in range(low, high + 1)}


def _vote(truth: np.ndarray, prompt: Prompt, masks: Masks) -> np.ndarray:
    picture = _picture(truth)
    voted = ThreePlanes(picture, views_across(picture), prompt, _blunt).vote(masks)
    out = np.zeros(SHAPE, bool)
    for k, mask in voted.items():
        out[:, :, k] = mask.T
    return out


def test_three_planes_outvote_the_ends_of_each() -> None:
    truth = _ball()
    box = Box((12, 34), (13, 29), (7, 31))
    masks = _blunt(_picture(truth), Prompt(box))
    before = np.zeros(SHAPE, bool)
    for k, mask in masks.items():
        before[:, :, k] = mask.T
    after = _vote(truth, Prompt(box), masks)
    assert Overlap.of(after, truth).dice() > Overlap.of(before, truth).dice() + 0.03


def test_what_the_user_drew_on_is_not_outvoted() -> None:
    truth = _ball()
    masks = _blunt(_picture(truth), Prompt(Box((12, 34), (13, 29), (7, 31))))
    flat = Prompt(Box((12, 34), (13, 29), (19, 19)))
    masks[19] = masks[19].copy()
    masks[19][21, 23] = False
    assert not _vote(truth, flat, masks)[23, 21, 19]
    # masks elsewhere, which the other planes do not confirm, stay as they are
    moved = {k: np.roll(mask, 12, 1) for k, mask in masks.items()}
    assert all((_vote(truth, flat, moved)[:, :, k] == mask.T).all() for k, mask in moved.items())
    clicked = replace(flat, background=((23, 21, 10),), box=Box((12, 34), (13, 29), (7, 31)))
    assert (_vote(truth, clicked, masks)[:, :, 10] == masks[10].T).all()


def test_large_objects_are_looked_at_in_averaged_voxels() -> None:
    picture = Picture(
        np.arange(7 * 6 * 2, dtype=np.uint8).reshape(7, 6, 2), np.diag([2, 1, 5, 1.0]), "a", "auto"
    )
    small = reduced_picture(picture, 3)
    assert small.shape == (2, 2, 2)
    assert small.array[0, 0, 0] == round(picture.array[:3, :3, 0].mean())
    assert small.affine[:3].tolist() == [[6, 0, 0, 2], [0, 3, 0, 1], [0, 0, 5, 0]]
    assert reduced_picture(picture, 1) is picture
