"""Strokes reach models as strokes: from the page and from 3D Slicer's label map."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from segmed.imaging.picture import Picture
from segmed.imaging.prompts import Prompt
from segmed.server.http.errors import BadRequest
from segmed.server.http.requests import InferParams
from segmed.server.tasks.scribbles import ScribblesInferTask
from segmed.server.workspace.bodies import Stroke
from segmed.server.workspace.open_object import OpenObject

SHAPE = (24, 18, 6)


def test_the_page_hands_on_strokes_beside_clicks() -> None:
    opened, _ = OpenObject("liver", 1).with_clicks(SHAPE, None, [[5, 5, 1]], [])
    opened = opened.with_strokes(
        SHAPE,
        [
            Stroke(k=2, foreground=True, points=[[4, 4], [12, 4]], width=1),
            Stroke(k=2, foreground=False, points=[[10, 2], [10, 9]], width=1),  # the newer one counts
        ],
    )
    scribbles = opened.scribbles(SHAPE)
    prompt = opened.prompt(SHAPE, scribbles)
    assert (prompt.foreground, prompt.background, prompt.mask) == (((5, 5, 1),), (), None)
    assert [*prompt.scribbles] == [2] and prompt.slices() == [1, 2]
    strokes = prompt.scribbles[2]
    assert (strokes[4, [*range(4, 10), 11, 12]] == 1).all() and (strokes[2:10, 10] == -1).all()
    assert np.count_nonzero(strokes) == 8 + 8
    there = opened.with_masks({2: np.ones((SHAPE[1], SHAPE[0]), bool)})
    corrected = replace(there, box=None).prompt(SHAPE, scribbles)
    assert corrected.mask is not None and not corrected.mask[10, 5, 2] and corrected.mask[11, 4, 2]
    assert (corrected.scribbles[2] == strokes).all()
    asked = replace(there, box=None).prompt(SHAPE, scribbles, with_result=True, by_strokes=False)
    assert asked.mask is not None and asked.mask[:, :, 2].all()  # the model corrects the mask itself


class _Model(SimpleNamespace):
    """Stands for a prompt model, which keeps what it was asked and finds nothing."""

    def segment(
        self, picture: Picture, prompt: Prompt, device: str | None
    ) -> tuple[dict[int, np.ndarray], list[str]]:
        self.asked.append(prompt)
        return {}, []

    corrects = volume = False

    def corrects_masks(self, device: str | None) -> bool:
        return self.corrects

    def provenance(self, *said: object) -> SimpleNamespace:
        return SimpleNamespace(to_json=dict)


@pytest.fixture
def model() -> _Model:
    picture = Picture(np.zeros(SHAPE, np.uint8), np.eye(4), "x", "auto")
    engine = SimpleNamespace(
        settings=SimpleNamespace(labels=["liver"], window="auto"),
        picture=lambda path, window=None: picture,
        devices=lambda: ["cpu"],
        denoisers=(),
    )
    return _Model(engine=engine, description="A model", method="x", asked=[])


def _ask(model: _Model, labels: np.ndarray, folder: Path, **params: Any) -> dict[str, Any]:
    nib.save(nib.Nifti1Image(labels, np.eye(4)), folder / "label.nii.gz")
    names = [{"name": name} for name in ("liver", "background_scribbles", "foreground_scribbles")]
    told = InferParams(label_info=names, selected_label_name="liver", **params)
    path, facts = ScribblesInferTask(model)(  # type: ignore[arg-type]
        {"image": "x", "label_path": str(folder / "label.nii.gz"), "params": told}
    )
    Path(str(path)).unlink()
    return facts


def test_slicer_hands_on_strokes_and_the_mask_so_far(model: _Model, tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:9, 5, 2], labels[15, 2:9, 2], labels[15, 2:9, 4] = 3, 2, 2
    _ask(model, labels, tmp_path)
    labels[3:9, 6:9, 2] = 1
    _ask(model, labels, tmp_path)
    first, second = model.asked
    assert first.foreground == first.background == () and first.mask is None
    assert {*first.scribbles} == {2, 4} and first.slices() == [2]
    assert (
        first.scribbles[2] == np.where(labels[:, :, 2] == 3, 1, np.where(labels[:, :, 2] == 2, -1, 0)).T
    ).all()
    assert (first.scribbles[4] <= 0).all() and first.scribbles[4].dtype == np.int8
    assert second.mask is not None and second.mask[3, 5, 2] and second.mask[3, 8, 2]


def test_a_model_that_corrects_masks_sees_them_as_they_were_before_the_strokes(
    model: _Model, tmp_path: Path
) -> None:
    """A mask that agrees with the strokes would have nothing left to correct."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:12, 4:14, 2] = 1
    labels[9, 5:12, 2], labels[16:20, 9, 2] = 2, 3  # on the object and beside it
    model.corrects = True
    _ask(model, labels, tmp_path)
    wanted = np.zeros(SHAPE[:2], bool)
    wanted[3:12, 4:14] = True
    assert (model.asked[0].mask[:, :, 2] == wanted).all()
    on_slice = model.asked[0].on_slice(2)
    assert on_slice is not None and not on_slice.is_satisfied
    labels[3:12, 4:14, 4] = 1
    _ask(model, labels, tmp_path)
    assert not model.asked[1].mask[:, :, 4].any()
    model.volume = True
    _ask(model, labels, tmp_path)
    assert (model.asked[2].mask[:, :, 4] == wanted).all()


def test_strokes_beside_the_object_alone_are_refused_unless_a_box_names_it(
    model: _Model, tmp_path: Path
) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[15, 2:9, 2] = 2
    with pytest.raises(BadRequest, match="no scribbles on the object"):
        _ask(model, labels, tmp_path)
    _ask(model, labels, tmp_path, roi=[2, 12, 3, 14, 2, 2])
    on_slice = model.asked[0].on_slice(2)
    assert on_slice is not None and on_slice.box == (2.0, 3.0, 12.0, 14.0)
    assert on_slice.scribbles is not None and on_slice.scribbles.min() == -1
