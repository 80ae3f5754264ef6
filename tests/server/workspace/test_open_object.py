"""The object that a user works on: its prompts, and what it paints over the label map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from segmed.imaging.planes import PlaneView
from segmed.imaging.scribbles import Scribbles
from segmed.server.segmenting.plane_prompts import with_drawing
from segmed.server.workspace.bodies import Lasso, Stroke
from segmed.server.workspace.open_object import OpenObject
from segmed.server.workspace.workspace import Workspace

SHAPE = (24, 18, 6)
H, W = 18, 24


def _object(**what: object) -> OpenObject:
    return replace(OpenObject("liver", 1), **what)


def _square(a: int, b: int) -> np.ndarray:
    out = np.zeros((H, W), bool)
    out[a:b, a:b] = True
    return out


def test_the_new_mask_replaces_what_the_object_had_painted_and_gives_back_what_was_there() -> None:
    work = Workspace(SHAPE, ["liver", "spleen"])
    work.change({2: np.where(_square(6, 10), 2, 0).astype(np.uint8)})
    start = work.volume()
    scribbles = _object().scribbles(SHAPE)
    opened, slices = _object().painted({2: _square(2, 8)}, scribbles, {2: work.slice(2)})
    work.change(slices, opened)
    assert (work.slice(2) == np.where(_square(2, 8), 1, np.where(_square(6, 10), 2, 0))).all()
    bare = {k: opened.without_it(k, work.slice(k)) for k in (2, 3)}
    assert (bare[2] == start[:, :, 2].T).all()
    second, slices = opened.painted({3: _square(0, 4)}, scribbles, bare)
    patches = work.change(slices, second)
    assert [p.k for p in patches] == [2, 3]
    assert (work.slice(2) == start[:, :, 2].T).all()
    assert (work.slice(3) == _square(0, 4)).all()
    work.undo()
    assert work.opened == opened
    work.redo()
    assert work.opened == second


def test_an_accepted_object_stays_accepted() -> None:
    work = Workspace(SHAPE, ["liver"])
    opened, slices = _object().painted({2: _square(2, 8)}, _object().scribbles(SHAPE), {2: work.slice(2)})
    work.change(slices, opened)
    work.accept()
    assert work.opened is None
    work.undo()
    assert work.opened is None
    work.redo()
    assert work.opened is None
    assert work.volume().sum() == 36


def test_scribbles_count_more_than_the_model() -> None:
    strokes = [
        Stroke(k=2, foreground=True, points=[[20, 3], [20, 15]], width=1),
        Stroke(k=2, foreground=False, points=[[4, 4], [7, 4]], width=1),
        Stroke(k=4, foreground=False, points=[[0, 0], [23, 0]], width=1),
    ]
    opened = _object().with_strokes(SHAPE, strokes)
    scribbles = opened.scribbles(SHAPE)
    base = {2: np.zeros((H, W), np.uint8), 4: np.full((H, W), 1, np.uint8)}
    _, slices = opened.painted({2: _square(2, 8)}, scribbles, base)
    assert (slices[2][3:16, 20] == 1).all()
    assert (slices[2][4, 4:8] == 0).all()
    assert slices[2].sum() == 36 + 13 - 4
    assert (slices[4][0] == 0).all() and (slices[4][1:] == 1).all()  # beside what the model answered, too


def test_refining_takes_the_old_label_away_where_it_is_segmented_anew() -> None:
    old = np.where(_square(0, 12), 1, 0).astype(np.uint8)
    opened = replace(_object().with_masks({1: _square(0, 12), 2: _square(0, 12)}), adopts=True)
    prompt = opened.prompt(SHAPE, opened.scribbles(SHAPE))
    assert prompt.mask is not None
    assert prompt.slices() == [1, 2]
    assert (_square(0, 12) == prompt.mask[:, :, 1].T).all()
    opened, slices = opened.painted({1: _square(2, 5)}, opened.scribbles(SHAPE), {1: old, 2: old})
    assert (slices[1] == _square(2, 5)).all()
    assert (slices[2] == old).all()
    assert (opened.without_it(1, slices[1]) == old).all()


def test_prompts_add_up_and_a_new_box_replaces_the_old_one() -> None:
    opened, _ = _object().with_clicks(SHAPE, [2, 9, 3, 8, 1, 1], [[5, 5, 1]], [])
    opened, notes = opened.with_clicks(SHAPE, None, [[6, 6, 1], [99, 0, 0]], [[1, 1, 1]])
    assert opened.to_json() == {
        "label": "liver",
        "box": [2, 9, 3, 8, 1, 1],
        "foreground": [[5, 5, 1], [6, 6, 1]],
        "background": [[1, 1, 1]],
    }
    assert "was ignored" in notes[0]
    opened = opened.with_lasso(SHAPE, Lasso(k=3, points=[[4, 4], [12, 4], [12, 12], [4, 12]]))
    assert opened.to_json()["box"] == [4, 12, 4, 12, 3, 3]
    assert opened.prompt(SHAPE, opened.scribbles(SHAPE)).on_slice(3).mask[8, 8]  # type: ignore[union-attr,index]
    opened, _ = opened.with_clicks(SHAPE, [0, 9, 0, 9, 1, 1], [], [])
    assert opened.prompt(SHAPE, opened.scribbles(SHAPE)).mask is None
    with pytest.raises(ValueError, match="500 clicks"):
        _object().with_clicks(SHAPE, None, [[n % 24, n // 24 % 18, n // 432] for n in range(501)], [])


def test_only_a_lasso_that_is_sent_as_it_was_drawn_is_an_outline() -> None:
    lasso = Lasso(k=3, points=[[4, 4], [12, 4], [12, 12], [4, 12]])
    drawn = with_drawing(_object(), PlaneView.of(SHAPE, np.eye(4), 2), [], lasso)
    clicked, _ = drawn.with_clicks(SHAPE, None, [[8, 8, 3]], [])
    asked = clicked.prompt(SHAPE, Scribbles())
    assert asked.is_outline and asked.mask is not None and asked.mask[8, 8, 3]
    assert not clicked.prompt(SHAPE, Scribbles(), with_result=True).is_outline
    assert not replace(clicked, adopts=True).prompt(SHAPE, Scribbles()).is_outline


def test_lines_are_kept_as_they_were_drawn() -> None:
    stroke = Stroke(k=1, foreground=False, points=[[2, 2], [3, 2], [9, 2]])
    lasso = Lasso(k=3, points=[[4, 4], [12, 4], [12, 12], [4, 12]])
    opened = with_drawing(_object(), PlaneView.of(SHAPE, np.eye(4), 2), [stroke], lasso)
    lines = opened.to_json()["lines"]
    assert lines == [
        {"axis": 2, "k": 1, "points": [[2, 2], [9, 2]], "foreground": False, "closed": False},
        {"axis": 2, "k": 3, "points": lasso.points, "foreground": True, "closed": True},
    ]
    boxed, _ = opened.with_clicks(SHAPE, [2, 9, 3, 8, 1, 1], [], [])
    for other in (boxed, opened.in_plane(1)):  # in which the lasso counts no more
        assert other.to_json()["lines"] == lines[:1]
