"""A viewer's numbers to boxes and clicks."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from segmed.imaging.prompts import Box, Prompt, SlicePrompt, parse_prompt

SHAPE = (64, 48, 20)


# --- boxes ---


@pytest.mark.parametrize(
    ("roi", "expected"),
    [
        ([10, 30, 5, 25, 2, 8], Box((10, 30), (5, 25), (2, 8))),
        ([30, 10, 25, 5, 8, 2], Box((10, 30), (5, 25), (2, 8))),
        ([30, 10, 5, 25, 8, 2], Box((10, 30), (5, 25), (2, 8))),
        ([10.4, 29.6, 4.6, 25.2, 1.9, 8.1], Box((10, 30), (5, 25), (2, 8))),
        ([-5, 30, 5, 99, -3, 40], Box((0, 30), (5, 47), (0, 19))),
        ([-1e9, 1e9, -1e9, 1e9, -1e9, 1e9], Box((0, 63), (0, 47), (0, 19))),
        ([10, 30, 5, 25, 8, 8], Box((10, 30), (5, 25), (8, 8))),
        ([62, 63, 46, 47, 19, 19], Box((62, 63), (46, 47), (19, 19))),
        (np.array([10, 30, 5, 25, 2, 8], np.float32), Box((10, 30), (5, 25), (2, 8))),
    ],
)
def test_box(roi: Any, expected: Box) -> None:
    assert Box.from_roi(roi, SHAPE) == expected


@pytest.mark.parametrize(
    ("roi", "sentence"),
    [
        ([64, 70, 5, 25, 2, 8], "outside the image: i from 64 to 70, but the image ends at 63"),
        ([10, 30, -9, -1, 2, 8], "outside the image: j from -9 to -1, but the image ends at 47"),
        ([10, 30, 5, 25, 20, 30], "outside the image: k from 20 to 30, but the image ends at 19"),
        ([10, 10, 5, 25, 2, 8], r"The box is empty: i (10, 10), j (5, 25)"),
        ([10, 30, 7.2, 6.8, 2, 8], r"The box is empty: i (10, 30), j (7, 7)"),
        ([-5, 0, 5, 25, 2, 8], r"The box is empty: i (0, 0)"),
    ],
)
def test_box_without_any_of_the_image(roi: list[float], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Box.from_roi(roi, SHAPE)


@pytest.mark.parametrize(
    "roi",
    [
        [],
        [1, 2, 3, 4],
        [1, 2, 3, 4, 5],
        [1, 2, 3, 4, 5, 6, 7],
        [math.nan, 30, 5, 25, 2, 8],
        [10, math.inf, 5, 25, 2, 8],
        [10, None, 5, 25, 2, 8],
        ["10", "30", "5", "25", "2", "8"],
        [True, 30, 5, 25, 2, 8],
    ],
)
def test_box_of_other_than_six_finite_numbers(roi: list[Any]) -> None:
    with pytest.raises(ValueError, match="A box needs six finite numbers"):
        Box.from_roi(roi, SHAPE)


def test_long_nonsense_is_not_repeated_in_full() -> None:
    with pytest.raises(ValueError, match="six finite numbers") as caught:
        Box.from_roi([math.nan] * 10_000, SHAPE)
    assert len(str(caught.value)) < 250


def test_flat_box_and_middle_slice() -> None:
    assert Box((0, 9), (0, 9), (4, 4)).is_flat
    assert not Box((0, 9), (0, 9), (4, 5)).is_flat
    assert Box((0, 9), (0, 9), (4, 9)).middle_slice == 6
    assert Box((0, 9), (0, 9), (4, 4)).middle_slice == 4


def test_one_column_image_takes_a_box() -> None:
    assert Box.from_roi([0, 0, 2, 9, 0, 0], (1, 20, 1)) == Box((0, 0), (2, 9), (0, 0))


# --- clicks ---


def test_clicks_are_rounded_and_kept_in_order_once() -> None:
    prompt, warnings = parse_prompt(
        SHAPE, None, [[5.4, 6.6, 7], [1, 2, 3], [5, 7, 7], [1, 2, 3]], [[9, 9, 9], [9, 9, 9]]
    )
    assert prompt.foreground == ((5, 7, 7), (1, 2, 3))
    assert prompt.background == ((9, 9, 9),)
    assert prompt.box is None
    assert warnings == []


@pytest.mark.parametrize("outside", [[64, 5, 5], [5, 48, 5], [5, 5, 20], [-1, 5, 5], [5, -1, 5], [5, 5, -1]])
def test_clicks_outside_are_ignored_and_reported(outside: list[float]) -> None:
    prompt, warnings = parse_prompt(SHAPE, None, [[3, 4, 5], outside])
    assert prompt.foreground == ((3, 4, 5),)
    i, j, k = outside
    assert warnings == [
        f"The click at ({i}, {j}, {k}) lies outside the image of 64×48×20 voxels and was ignored."
    ]


def test_clicks_in_the_corners_are_inside() -> None:
    corners = [(0, 0, 0), (63, 47, 19)]
    prompt, warnings = parse_prompt(SHAPE, None, corners)
    assert (prompt.foreground, warnings) == (tuple(corners), [])


def test_only_clicks_outside_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"click at \(99, 4, 5\) lies outside .* Click on the image\."):
        parse_prompt(SHAPE, None, [[99, 4, 5]])


def test_a_click_outside_beside_a_box_or_a_mask_is_only_reported() -> None:
    mask = np.zeros(SHAPE, bool)
    for roi, previous in (([1, 9, 1, 9, 3, 3], None), (None, mask)):
        prompt, warnings = parse_prompt(SHAPE, roi, [[99, 4, 5]], [[4, 99, 5]], previous)
        assert (prompt.foreground, prompt.background, len(warnings)) == ((), (), 2)


def test_two_numbers_are_enough_on_a_single_slice() -> None:
    prompt, _ = parse_prompt((64, 48, 1), None, [[3, 4], [5, 6, 0]], [[7, 8]])
    assert (prompt.foreground, prompt.background) == (((3, 4, 0), (5, 6, 0)), ((7, 8, 0),))
    with pytest.raises(ValueError, match="three finite voxel indices"):
        parse_prompt(SHAPE, None, [[3, 4]])


@pytest.mark.parametrize(
    "click",
    [[], [1], [1, 2, 3, 4], [1, 2, math.nan], [1, -math.inf, 3], [1, "2", 3], [1, None, 3], [True, 2, 3]],
)
@pytest.mark.parametrize("where", ["foreground", "background"])
def test_a_click_of_other_than_three_finite_numbers(where: str, click: list[Any]) -> None:
    with pytest.raises(ValueError, match="A click needs three finite voxel indices"):
        parse_prompt(SHAPE, [1, 9, 1, 9, 3, 3], *([click], []) if where == "foreground" else ([], [click]))


@pytest.mark.parametrize("roi", [None, []])
def test_nothing_or_only_background_is_an_error(roi: list[float] | None) -> None:
    with pytest.raises(ValueError, match="There is nothing to segment: draw a box or click into the object"):
        parse_prompt(SHAPE, roi)
    with pytest.raises(ValueError, match="There is nothing to segment"):
        parse_prompt(SHAPE, roi, background=[[1, 2, 3]])


def test_a_mask_of_another_size_is_an_error() -> None:
    with pytest.raises(
        ValueError, match=r"mask of shape \(4, 4, 4\) does not lie on the image of shape \(64, 48, 20\)"
    ):
        parse_prompt(SHAPE, [1, 9, 1, 9, 3, 3], mask=np.ones((4, 4, 4), bool))


# --- slices ---


def _mask(*ks: int) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[3:6, 4:9, list(ks)] = True
    return mask


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (Prompt(Box((1, 9), (1, 9), (4, 9))), [6]),
        (Prompt(Box((1, 9), (1, 9), (4, 4))), [4]),
        (Prompt(foreground=((1, 1, 7), (2, 2, 3), (3, 3, 7))), [3, 7]),
        (Prompt(foreground=((1, 1, 7),), background=((1, 1, 2),)), [7]),
        (Prompt(Box((1, 9), (1, 9), (4, 9)), foreground=((2, 2, 5),)), [5]),
        (Prompt(Box((1, 9), (1, 9), (4, 9)), foreground=((2, 2, 15),)), [6, 15]),
        (Prompt(mask=_mask(2, 11)), [2, 11]),
        (Prompt(Box((1, 9), (1, 9), (4, 9)), mask=_mask(2, 11)), [6]),
        (Prompt(mask=np.zeros(SHAPE, bool)), []),
    ],
)
def test_slices(prompt: Prompt, expected: list[int]) -> None:
    assert prompt.slices() == expected


def test_on_slice_takes_the_box_within_its_slices_and_the_clicks_of_the_slice() -> None:
    prompt, _ = parse_prompt(SHAPE, [10, 30, 5, 25, 4, 6], [[12, 8, 4], [13, 9, 9]], [[40, 40, 4], [1, 2, 5]])
    at = {k: prompt.on_slice(k) for k in range(SHAPE[2])}
    assert sorted(k for k, p in at.items() if p is not None) == [4, 5, 6, 9]
    four, five, six, nine = (at[k] for k in (4, 5, 6, 9))
    assert four and five and six and nine
    assert four.box == five.box == six.box == (10.0, 5.0, 30.0, 25.0)
    assert nine.box is None
    assert four.points.tolist() == [[12, 8], [40, 40]]
    assert four.labels.tolist() == [1, 0]
    assert (four.foreground.tolist(), four.background.tolist()) == ([[12, 8]], [[40, 40]])
    assert (five.points.tolist(), five.labels.tolist()) == ([[1, 2]], [0])
    assert (six.points.shape, six.labels.shape) == ((0, 2), (0,))
    assert nine.points.tolist() == [[13, 9]]


def test_on_slice_is_nothing_where_there_are_background_clicks_only() -> None:
    assert Prompt(foreground=((1, 2, 3),), background=((1, 2, 4),)).on_slice(4) is None


def test_on_slice_turns_the_mask_into_rows_and_columns() -> None:
    prompt = Prompt(mask=_mask(2))
    found = prompt.on_slice(2)
    assert found is not None
    assert found.mask is not None
    assert found.mask.shape == (48, 64)
    assert np.argwhere(found.mask).min(0).tolist() == [4, 3]
    assert np.argwhere(found.mask).max(0).tolist() == [8, 5]
    assert prompt.on_slice(3) is None


def test_slice_prompt_checks_itself() -> None:
    with pytest.raises(ValueError, match=r"Points of shape \(2, 2\) do not match 1 labels"):
        SlicePrompt(points=np.zeros((2, 2)), labels=np.ones(1))
    for labels in ([], [0, 0]):
        with pytest.raises(ValueError, match="A prompt needs a box, a foreground click or a mask"):
            SlicePrompt(points=np.zeros((len(labels), 2)), labels=np.array(labels, np.int64))
    assert SlicePrompt(box=(0, 0, 4, 4)).points.shape == (0, 2)


def _strokes(size: tuple[int, int] = (48, 64), **pixels: list[tuple[int, int]]) -> np.ndarray:
    """(H, W) int8 with pixels (x, y) `into` and `beside` the object."""
    out = np.zeros(size, np.int8)
    for name, value in (("into", 1), ("beside", -1)):
        for x, y in pixels.get(name, []):
            out[y, x] = value
    return out


def test_a_foreground_scribble_alone_is_a_prompt() -> None:
    strokes = _strokes(into=[(5, 4)], beside=[(20, 30)])
    assert SlicePrompt(scribbles=strokes).points.shape == (0, 2)
    prompt, _ = parse_prompt(SHAPE, scribbles={3: strokes})
    assert prompt.slices() == [3]
    three = prompt.on_slice(3)
    assert three is not None and three.scribbles is strokes
    assert prompt.on_slice(4) is None
    with pytest.raises(ValueError, match="foreground scribble"):
        SlicePrompt(scribbles=_strokes(beside=[(5, 4)]))
    with pytest.raises(ValueError, match="nothing to segment"):
        Prompt(scribbles={3: _strokes(beside=[(5, 4)])})


def test_strokes_point_at_slices_as_clicks_do() -> None:
    into, beside = _strokes(into=[(5, 4)]), _strokes(beside=[(5, 4)])
    box = Box((2, 20), (3, 20), (4, 8))
    assert Prompt(box, scribbles={7: into}).slices() == [7]
    assert Prompt(box, scribbles={7: beside}).slices() == [6]
    assert Prompt(foreground=((1, 1, 9),), scribbles={2: into, 4: beside}).slices() == [2, 9]
    mask = _mask(2)
    mask[..., 5] = mask[..., 2]
    assert Prompt(mask=mask, scribbles={5: beside, 7: beside}).slices() == [5]
    five = Prompt(mask=mask, scribbles={5: beside}).on_slice(5)
    assert five is not None and five.mask is not None and five.scribbles is beside
    assert Prompt(box, scribbles={20: beside}).on_slice(20) is None


@pytest.mark.parametrize(
    ("scribbles", "says"),
    [
        (np.ones((48, 64), bool), "int8"),
        (np.ones((48, 64, 1), np.int8), "3-D"),
        (np.full((48, 64), 2, np.int8), "values from 2 to 2"),
        (np.full((48, 64), -2, np.int8), "values from -2 to -2"),
        (np.ones((64, 48), np.int8), "do not lie on the mask"),
    ],
)
def test_wrong_scribbles_are_refused(scribbles: np.ndarray, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        SlicePrompt(box=(0, 0, 4, 4), mask=np.zeros((48, 64), bool), scribbles=scribbles)
    with pytest.raises(ValueError, match=says):
        Prompt(mask=_mask(2), scribbles={2: scribbles})


@pytest.mark.parametrize(("k", "size"), [(SHAPE[2], (48, 64)), (-1, (48, 64)), (0, (64, 48))])
def test_scribbles_beside_the_image_are_refused(k: int, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="do not lie on the image"):
        parse_prompt(SHAPE, scribbles={k: _strokes(size, into=[(1, 1)])})
