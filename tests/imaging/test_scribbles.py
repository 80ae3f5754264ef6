"""Strokes and lassos to clicks, boxes and masks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from segmed.imaging.prompts import Box, Prompt, SlicePrompt
from segmed.imaging.scribbles import (
    Scribbles,
    draw_lasso,
    draw_stroke,
    scribbles_to_clicks,
    spread_clicks,
    strokes_to_clicks,
)

SHAPE = (60, 40, 5)


def test_a_stroke_is_as_wide_as_it_says_and_runs_where_it_was_drawn() -> None:
    thin = draw_stroke([[10, 20], [50, 20]], 1, SHAPE)
    assert thin.shape == (40, 60)
    assert np.argwhere(thin).tolist() == [[20, x] for x in range(10, 51)]
    wide = draw_stroke([[10, 20], [50, 20]], 5, SHAPE)
    assert np.flatnonzero(wide[:, 30]).tolist() == [18, 19, 20, 21, 22]
    assert wide[20, 8]
    assert not wide[20, 7]


def test_a_stroke_follows_its_corners_and_a_dot_is_a_disc() -> None:
    bent = draw_stroke([[5, 5], [5, 30], [40, 30]], 1, SHAPE)
    assert bent[30, 5] and bent[18, 5] and bent[30, 22]
    assert not bent[18, 22]
    assert bent.sum() == 26 + 35
    dot = draw_stroke([[30.4, 19.6]], 7, SHAPE)
    assert dot.sum() == sum(x * x + y * y <= 9 for x in range(-3, 4) for y in range(-3, 4))
    assert dot[20, 30]


def test_what_lies_beyond_the_slice_is_left_out() -> None:
    cut = draw_stroke([[-20, 10], [5, 10]], 3, SHAPE)
    assert np.flatnonzero(cut.any(0)).tolist() == list(range(7))
    assert draw_stroke([[70, 10], [55, 10]], 1, SHAPE).sum() == 5


@pytest.mark.parametrize(
    ("points", "width", "sentence"),
    [
        ([], 3, "1 or more points"),
        ([[1, float("nan")]], 3, "finite"),
        ([[1, 2, 3]], 3, "points"),
        ([[1, 2]], 0, "width"),
        ([[1, 2]], float("nan"), "width"),
        ([[1, 2]], 1e6, "width"),
        ([[-30, -30]], 3, "beside the image"),
        ([[1e5, 3], [2, 2]], 3, "far beyond"),
    ],
)
def test_impossible_strokes(points: list[list[float]], width: float, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        draw_stroke(points, width, SHAPE)


def test_clicks_lie_on_the_stroke_and_are_spread_along_it() -> None:
    stroke = draw_stroke([[8, 8], [50, 8], [50, 34]], 5, SHAPE)
    clicks = spread_clicks(stroke, 5)
    assert len(clicks) == len(set(clicks)) == 5
    assert all(stroke[y, x] for x, y in clicks)
    depth = ndimage.distance_transform_edt(stroke)
    assert all(depth[y, x] >= 2 for x, y in clicks)  # on the line in the middle, not on the rim
    ends = np.array(clicks)
    for end in ([8, 8], [50, 34]):
        assert np.linalg.norm(ends - end, axis=1).min() <= 4
    gaps = np.linalg.norm(ends[:, None] - ends[None], axis=2) + 99 * np.eye(5)
    assert gaps.min() > 8


def test_each_stroke_gets_a_click_and_there_are_never_more_than_allowed() -> None:
    strokes = draw_stroke([[5, 5], [9, 5]], 3, SHAPE) | draw_stroke([[30, 20], [55, 35]], 3, SHAPE)
    strokes |= draw_stroke([[50, 4]], 3, SHAPE)
    parts, count = ndimage.label(strokes, np.ones((3, 3)))
    assert count == 3
    assert {int(parts[y, x]) for x, y in spread_clicks(strokes, 6)} == {1, 2, 3}
    for most in (1, 2, 6, 50):
        assert 1 <= len(spread_clicks(strokes, most)) <= most
    assert spread_clicks(np.ones((40, 60), bool), 6)
    assert spread_clicks(np.zeros((40, 60), bool)) == []


def test_a_labelled_volume_gives_clicks_as_voxels() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[10:40, 15:18, 2] = 3
    labels[50:53, 5:30, 4] = 2
    foreground, background = Scribbles.from_labels(labels, 3, 2).clicks(4)
    assert len(foreground) == len(background) == 4
    assert all(labels[point] == 3 for point in foreground)
    assert all(labels[point] == 2 for point in background)
    assert not Scribbles.from_labels(labels, None, 9)


def test_the_mask_prompt_is_the_present_mask_corrected() -> None:
    mask = np.zeros((40, 60), bool)
    mask[10:30, 10:30] = True
    added, removed = draw_stroke([[28, 20], [40, 20]], 3, SHAPE), draw_stroke([[12, 12], [12, 28]], 3, SHAPE)
    scribbles = Scribbles({2: added, 3: added}, {2: removed, 4: removed})
    prompts = scribbles.mask_prompts({1: mask, 2: mask})
    assert list(prompts) == [2]  # 1 was not painted, 3 and 4 have no mask: a stroke is no outline
    assert (prompts[2] == ((mask | added) & ~removed)).all()
    result = scribbles.correct({2: mask & False, 4: mask})
    assert (result[2] == added).all()
    assert (result[3] == added).all()
    assert (result[4] == (mask & ~removed)).all()
    assert list(scribbles.correct({})) == [2, 3]


def test_the_newer_stroke_counts_where_strokes_cross() -> None:
    across, down = draw_stroke([[5, 20], [50, 20]], 3, SHAPE), draw_stroke([[20, 5], [20, 35]], 3, SHAPE)
    scribbles = Scribbles().with_stroke(1, across, True).with_stroke(1, down, False)
    assert (scribbles.background[1] == down).all()
    assert (scribbles.foreground[1] == (across & ~down)).all()
    again = scribbles.with_stroke(1, across | down, True)
    assert 1 not in again.background
    assert (again.foreground[1] == (across | down)).all()


def test_a_lasso_gives_its_box_and_its_inside() -> None:
    box, inside = draw_lasso(3, [[10, 5], [30, 5], [30, 25], [10, 25]], SHAPE)
    assert box == Box((10, 30), (5, 25), (3, 3))
    assert inside.shape == (40, 60)
    assert inside[6:25, 11:30].all()
    assert inside.sum() <= 21 * 21
    triangle = draw_lasso(0, [[10, 5], [50, 5], [10, 35]], SHAPE)[1]
    assert triangle[10, 12] and not triangle[30, 45]
    assert abs(triangle.sum() - 600) < 60


def test_a_lasso_is_cut_at_the_image() -> None:
    box, inside = draw_lasso(0, [[-10, -10], [20, -10], [20, 90], [-10, 90]], SHAPE)
    assert box == Box((0, 20), (0, 39), (0, 0))
    assert inside[:, :20].all() and not inside[:, 21:].any()


@pytest.mark.parametrize(
    ("k", "points", "sentence"),
    [
        (5, [[1, 1], [9, 1], [9, 9]], "no slice 5"),
        (-1, [[1, 1], [9, 1], [9, 9]], "no slice -1"),
        (0, [[1, 1], [9, 1]], "3 or more"),
        (0, [[1, 1], [9, 1], [20, 1]], "encloses nothing"),
        (0, [[90, 1], [99, 1], [95, 20]], "encloses nothing"),
    ],
)
def test_impossible_lassos(k: int, points: list[list[float]], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        draw_lasso(k, points, SHAPE)


def test_strokes_travel_in_a_prompt_and_come_back() -> None:
    added, removed = draw_stroke([[28, 20], [40, 20]], 3, SHAPE), draw_stroke([[12, 12], [12, 28]], 3, SHAPE)
    maps = Scribbles({2: added, 3: added}, {2: removed, 4: removed}).maps()
    assert all(m.dtype == np.int8 and m.shape == (40, 60) for m in maps.values())
    assert ((maps[2] == 1) == added).all() and ((maps[2] == -1) == removed).all()
    back = Scribbles.from_maps(maps)
    assert {*back.foreground} == {2, 3} and {*back.background} == {2, 4}
    assert (back.foreground[3] == added).all() and (back.background[4] == removed).all()
    both = Scribbles({0: added}, {0: added}).maps()
    assert (both[0] == added).all()  # the foreground counts where both lie
    assert not Scribbles().maps()


def test_strokes_become_clicks_beside_those_of_the_user() -> None:
    added, removed = draw_stroke([[28, 20], [40, 20]], 3, SHAPE), draw_stroke([[12, 12], [12, 28]], 3, SHAPE)
    drawn = Scribbles({2: added}, {4: removed})
    said = Prompt(Box((2, 50), (2, 30), (2, 2)), ((5, 5, 2),), ((6, 6, 2),), scribbles=drawn.maps())
    clicked = strokes_to_clicks(said)
    into, beside = drawn.clicks()
    assert clicked.foreground == ((5, 5, 2), *into)
    assert clicked.background == ((6, 6, 2), *beside)
    assert (clicked.box, clicked.scribbles) == (said.box, {})
    assert strokes_to_clicks(clicked) is clicked

    one = scribbles_to_clicks(SlicePrompt(scribbles=added.astype(np.int8) - removed))
    assert one.scribbles is None
    assert [tuple(p) for p in one.foreground] == spread_clicks(added)
    assert [tuple(p) for p in one.background] == spread_clicks(removed)
    assert scribbles_to_clicks(one) is one
