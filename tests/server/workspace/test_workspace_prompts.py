"""Prompts, strokes and label maps that the web page and OHIF send to a workspace over HTTP."""

from __future__ import annotations

import json
import zlib

import numpy as np
import pytest
import requests
from page_client import K, Page, box_around, change_of, dice_on, middle_of
from segmed.data.phantom import Phantom
from segmed.evaluation.metrics import Overlap


def test_a_box_then_clicks_that_add_up(page: Page, truth: np.ndarray) -> None:
    told = page.prompt(box=box_around(truth))
    assert told["slices"] == [K]
    assert told["prompt"]["box"] == box_around(truth)
    assert (told["can_undo"], told["can_redo"]) == (True, False)
    assert told["labels"] == {"liver": 1, "spleen": 2}
    assert dice_on(page.labels, truth) > 0.85
    assert np.flatnonzero(page.labels.any((0, 1))).tolist() == [K]
    first = page.labels.copy()
    middle = middle_of(truth)
    told = page.prompt(background=[middle])
    assert page.labels[tuple(middle)] == 0
    asked = {"label": "liver", "box": box_around(truth), "foreground": [], "background": [middle]}
    assert told["prompt"] == asked
    assert 0 < (page.labels != first).sum() < truth[:, :, K].sum()
    second = page.labels.copy()
    page.do("undo")
    assert (page.labels == first).all()
    assert page.told["prompt"]["background"] == []
    page.do("redo")
    assert (page.labels == second).all()
    page.do("undo")
    page.do("undo")
    assert not page.labels.any()
    assert (page.told["can_undo"], page.told["can_redo"]) == (False, True)
    assert page.told["prompt"] == {"box": None, "foreground": [], "background": []}
    assert (page.there() == page.labels).all()


def test_the_answer_holds_only_what_changed(page: Page, truth: np.ndarray) -> None:
    page.prompt(box=box_around(truth))
    (change,) = page.told["changes"]
    i, j = np.nonzero(page.labels[:, :, K])
    assert change["i"] == [i.min(), i.max() + 1]
    assert change["j"] == [j.min(), j.max() + 1]
    assert len(json.dumps(page.told)) < 2500
    assert page.prompt(box=box_around(truth))["changes"] == []


def test_the_object_is_compared_between_models_and_through_the_volume(page: Page, truth: np.ndarray) -> None:
    page.prompt(box=box_around(truth))
    by_one = page.labels.copy()
    page.prompt(model="segmed")  # nothing new is said: the same prompt for another model
    assert page.told["prompt"]["box"] == box_around(truth)
    assert dice_on(page.labels, truth) > 0.85
    assert (page.labels != by_one).any()
    page.prompt(model="classical_3d")
    assert len(page.told["slices"]) > 5
    assert Overlap.of(page.labels > 0, truth).dice() > 0.75
    assert (page.there() == page.labels).all()
    for _ in range(2):
        page.do("undo")
    assert (page.labels == by_one).all()


def test_accepting_begins_another_object_and_labels_are_united(page: Page, truth: np.ndarray) -> None:
    page.prompt(box=box_around(truth))
    first = page.labels.copy()
    page.do("accept")
    assert page.told["prompt"]["box"] is None
    page.prompt(box=[2, 12, 2, 10, K, K])
    assert (page.labels[first > 0] == 1).all()
    assert (page.labels > 0).sum() > (first > 0).sum()
    page.prompt("spleen", box=box_around(truth), overwrite=True)  # another object, which is to lie on top
    assert (page.labels[first > 0] == 2).all()
    page.do("undo")
    assert (page.labels[first > 0] == 1).all()


def test_scribbles_are_kept_voxel_by_voxel(page: Page, truth: np.ndarray) -> None:
    page.prompt(box=box_around(truth))
    _, i1, j0, _, _, _ = box_around(truth)
    i, j, _ = middle_of(truth)
    stroke = {"k": K, "foreground": False, "points": [[i - 3, j], [i + 3, j]], "width": 3}
    outside = {"k": K, "foreground": True, "points": [[i1 + 4, j0], [i1 + 4, j0 + 4]], "width": 1}
    page.prompt(scribbles=[stroke, outside])
    assert (page.labels[i - 3 : i + 4, j - 1 : j + 2, K] == 0).all()
    assert (page.labels[i1 + 4, j0 : j0 + 5, K] == 1).all()
    page.prompt(foreground=[[i, j, K]])  # strokes stay when more is said
    assert (page.labels[i1 + 4, j0 : j0 + 5, K] == 1).all()
    assert (page.labels[i - 3 : i + 4, j - 1, K] == 0).all()


def test_a_stroke_alone_finds_the_object(page: Page, truth: np.ndarray) -> None:
    i, j, _ = middle_of(truth)
    points = [[i - 4, j], [i + 4, j]]
    page.prompt(model="segmed", scribbles=[{"k": K, "foreground": True, "points": points, "width": 2}])
    assert dice_on(page.labels, truth) > 0.3  # a short stroke is often taken for a part
    assert (page.labels[i - 4 : i + 5, j, K] == 1).all()
    assert page.told["prompt"]["foreground"] == []


def test_a_box_counts_although_the_mask_agrees_with_an_earlier_stroke(page: Page, truth: np.ndarray) -> None:
    i0, _, j0, j1, k0, k1 = box_around(truth)
    i, j, _ = middle_of(truth)
    page.prompt(model="segmed", box=box_around(truth))
    points = [[i - 4, j], [i - 1, j]]
    page.prompt(model="segmed", scribbles=[{"k": K, "foreground": True, "points": points, "width": 1}])
    page.prompt(model="segmed", box=[i0, i, j0, j1, k0, k1])
    assert page.labels[i0 + 4 : i, j, K].all() and not page.labels[i + 3 : i + 5, :, K].any()


def test_a_stroke_brings_more_than_its_own_pixels(page: Page, truth: np.ndarray) -> None:
    i0, i1, j0, j1, k0, k1 = box_around(truth)
    page.prompt(model="segmed", box=[i0, (i0 + i1) // 2, j0, j1, k0, k1])
    half = (page.labels > 0).sum()
    i = i0 + 3 * (i1 - i0) // 4
    j = int(np.flatnonzero(truth[i, :, K]).mean())
    stroke = {"k": K, "foreground": True, "points": [[i, j - 3], [i, j + 3]], "width": 2}
    page.prompt(model="segmed", scribbles=[stroke])
    assert (page.labels > 0).sum() > half + 60
    assert dice_on(page.labels, truth) > 0.8


def test_a_lasso_around_the_object(page: Page, truth: np.ndarray) -> None:
    i0, i1, j0, j1, _, _ = box_around(truth)
    line = [[i0 - 2, j0 - 2], [i1 + 2, j0 - 2], [i1 + 2, j1 + 2], [i0 - 2, j1 + 2]]
    page.prompt(model="segmed", lasso={"k": K, "points": line})
    assert page.told["prompt"]["box"] == [i0 - 2, i1 + 2, j0 - 2, j1 + 2, K, K]
    assert dice_on(page.labels, truth) > 0.8


@pytest.mark.parametrize("model", ["segmed", "segmed_3d"])
def test_a_lasso_is_segmented_although_it_agrees_with_an_earlier_click(
    page: Page, truth: np.ndarray, model: str
) -> None:
    i0, i1, j0, j1, _, _ = box_around(truth)
    page.prompt(model=model, foreground=[middle_of(truth)])
    line = [[i0 - 2, j0 - 2], [i1 + 2, j0 - 2], [i1 + 2, j1 + 2], [i0 - 2, j1 + 2]]
    page.prompt(model=model, lasso={"k": K, "points": line})
    inside = (i1 - i0 + 5) * (j1 - j0 + 5)
    assert (page.labels[:, :, K] > 0).sum() < 0.95 * inside
    assert dice_on(page.labels, truth) > 0.8


@pytest.mark.parametrize("model", ["segmed", "classical"])
def test_an_existing_label_is_refined(page: Page, truth: np.ndarray, model: str) -> None:
    rough = np.roll(truth[:, :, K], 2, 0)
    spilled = rough.copy()
    i, j = np.nonzero(truth[:, :, K])
    i, j = int(i.max()), int(j[i.argmax()])
    spilled[i + 3 : i + 9, j - 3 : j + 4] = True
    page.do("paint", label="liver", changes=[change_of(K, [0, 96], [0, 80], spilled.T)])
    before = dice_on(page.labels, truth)
    page.prompt(model=model, refine=True, background=[[i + 6, j, K]])
    assert not page.labels[
        i + 5 : i + 8, j - 1 : j + 2, K
    ].any()  # where it was excluded the old label is gone, too
    assert dice_on(page.labels, truth) > max(0.85, before)
    page.do("undo")
    assert ((page.labels[:, :, K] > 0) == spilled).all()
    page.do("accept")
    page.prompt(
        model=model, background=[[i + 6, j, K]]
    )  # a background click alone means the label that is there
    assert not page.labels[i + 5 : i + 8, j - 1 : j + 2, K].any()


def test_brush_and_eraser(page: Page, truth: np.ndarray) -> None:
    page.prompt(box=box_around(truth))
    before = page.labels.copy()
    told = page.do("paint", label="Läsion 腫瘍", changes=[change_of(3, [5, 9], [6, 8], np.full((2, 4), 3))])
    assert told["labels"] == {"liver": 1, "spleen": 2, "Läsion 腫瘍": 3}
    assert (page.labels[5:9, 6:8, 3] == 3).all()
    assert told["prompt"]["box"] is None
    i0, i1, j0, j1, _, _ = box_around(truth)
    page.do("paint", label="liver", changes=[change_of(K, [i0, i1], [j0, j1], np.zeros((j1 - j0, i1 - i0)))])
    assert not page.labels[i0:i1, j0:j1, K].any()
    for _ in range(2):
        page.do("undo")
    assert (page.labels == before).all()
    page.do("clear")
    assert not page.there().any()
    page.do("undo")
    assert (page.there() == before).all()


@pytest.mark.parametrize("turned", ["as it is", "flipped", "columns and rows", "part", "coarser"])
def test_a_label_map_of_a_viewer_comes_onto_the_grid(page: Page, phantom: Phantom, turned: str) -> None:
    labels, affine = phantom.labels.clip(0, 4).astype(np.uint8), phantom.affine.copy()
    n = labels.shape
    if turned == "flipped":
        step = np.diag([-1.0, 1, -1, 1])
        step[0, 3], step[2, 3] = n[0] - 1, n[2] - 1
        sent, affine = labels[::-1, :, ::-1], affine @ step
    elif turned == "columns and rows":
        sent, affine = labels.transpose(2, 0, 1), affine[:, [2, 0, 1, 3]]
    elif turned == "part":
        sent, affine[:, 3] = labels[10:80, 5:70, 3:20], affine @ [10, 5, 3, 1]
    elif turned == "coarser":
        sent, affine = labels[::2], affine @ np.diag([2.0, 1, 1, 1])
    else:
        sent = labels
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    for direction in (
        lps[:3, :3] / spacing,
        (lps[:3, :3] / spacing).T,
    ):  # by rows as ITK, by columns as OpenGL
        params = {
            "client": page.client,
            "size": list(sent.shape),
            "origin": lps[:3, 3].tolist(),
            "spacing": spacing.tolist(),
            "direction": direction.ravel().tolist(),
            "names": {"1": "spleen", "2": "liver", "4": "Läsion 腫瘍"},
        }
        data = zlib.compress(sent.tobytes(order="F"))
        answer = requests.post(
            f"{page.url}/labelmap", data={"params": json.dumps(params)}, files={"file": data}, timeout=60
        )
        page.take(answer)
        values = page.told["labels"]
        assert sorted(values) == sorted(["liver", "spleen", "label 3", "Läsion 腫瘍"])
        assert sorted(values.values()) == [1, 2, 3, 4]
        expected = np.array([0, *(values[n] for n in ("spleen", "liver", "label 3", "Läsion 腫瘍"))])[labels]
        if turned == "coarser":
            assert (page.labels == expected).mean() > 0.97
            assert (page.labels[::2] == expected[::2]).all()
        elif turned == "part":
            assert (page.labels[10:80, 5:70, 3:20] == expected[10:80, 5:70, 3:20]).all()
            assert not page.labels[:10].any() and not page.labels[:, :, 20:].any()
        else:
            assert (page.labels == expected).all()
        assert (page.there() == page.labels).all()
        page.do("undo")
        assert not page.labels.any()
