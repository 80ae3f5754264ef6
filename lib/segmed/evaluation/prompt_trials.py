"""Trials on one object of a slice: tight and jittered boxes, clicks, scribbles, and baselines."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

import numpy as np

from segmed.evaluation.baselines import grabcut, inscribed_ellipse
from segmed.evaluation.cases import Case, SliceObject
from segmed.imaging.prompts import SlicePrompt
from segmed.imaging.scribbles import Scribbles
from segmed.methods.base.segmenter import Segmenter
from segmed.simulation.scribble_annotator import with_scribble
from segmed.simulation.slice_annotator import jittered, with_click

BOXES = {"box": 0.0, "box ±5 %": 0.05, "box ±10 %": 0.10, "box ±20 %": 0.20}
CLICKS = {"1 click": 1, "3 clicks": 3, "5 clicks": 5}
SCRIBBLES = {"scribble": 1, "scribble + 3 corrections": 4}
BASELINES = ("ellipse", "grabcut", "classical")
Predict = Callable[[SlicePrompt], np.ndarray]
Trial = tuple[str, np.ndarray]


def slice_predictor(method: Segmenter, case: Case, k: int) -> Predict:
    """A function that predicts masks (H, W) for prompts on one slice, which is encoded once."""
    embedding = method.embed([case.picture.slice(k)])
    size = case.picture.shape[1], case.picture.shape[0]

    def predict(prompt: SlicePrompt) -> np.ndarray:
        if prompt.mask is not None and not method.corrects_masks:
            drawn = Scribbles.from_maps({} if prompt.scribbles is None else {0: prompt.scribbles})
            prompt = replace(prompt, mask=drawn.mask_prompts({0: prompt.mask}).get(0))
        logits = method.decode(embedding, [[method.understood(prompt)]], size)
        return np.asarray((logits.masks[0, 0] > 0).cpu().numpy())

    return predict


def prompt_trials(item: SliceObject, predict: Predict, wanted: Collection[str], seed: int) -> Iterator[Trial]:
    """Predict masks (H, W) for all wanted kinds of prompts, with the names of their columns.

    Args:
        item: The object.
        predict: The method on the slice of the object.
        wanted: Names of the columns.
        seed: Seed of jittered boxes and scribbles, the same for all compared methods.

    Raises:
        ValueError: If the method does not take such a prompt.
    """
    size = item.mask.shape[0], item.mask.shape[1]
    for name, share in BOXES.items():
        if name in wanted:
            box = jittered(item.box, share, size, np.random.default_rng(seed))
            yield name, predict(SlicePrompt(box=box))
    prompt, found = None, None
    for turn in range(1, _turns(CLICKS, wanted) + 1):
        prompt = with_click(prompt, found, item.mask)
        # as in the viewers, clicks after the first one correct the present mask
        found = predict(replace(prompt, mask=_to_correct(found)))
        yield from ((name, found) for name, clicks in CLICKS.items() if clicks == turn and name in wanted)
    generator = np.random.default_rng(seed)
    prompt, found = None, None
    for turn in range(1, _turns(SCRIBBLES, wanted) + 1):
        prompt = with_scribble(prompt, found, item.mask, generator)
        found = scribbled(predict, prompt, found)
        yield from (
            (name, found) for name, strokes in SCRIBBLES.items() if strokes == turn and name in wanted
        )


def scribbled(predict: Predict, prompt: SlicePrompt, present: np.ndarray | None) -> np.ndarray:
    """Predict the mask (H, W) for a scribble in the same way as the server.

    The present mask, if any, becomes part of the prompt, and the predicted mask is corrected by the strokes.
    """
    assert prompt.scribbles is not None
    found = predict(replace(prompt, mask=_to_correct(present)))
    return Scribbles.from_maps({0: prompt.scribbles}).correct({0: found})[0]


def _to_correct(present: np.ndarray | None) -> np.ndarray | None:
    """The present mask (H, W) as part of a prompt; an empty one shows no object."""
    return present if present is not None and present.any() else None


def baseline_trials(
    item: SliceObject, image: np.ndarray, classical: Predict, wanted: Collection[str]
) -> Iterator[Trial]:
    """Masks (H, W) of the wanted baselines without training, with the names of their columns."""
    if "ellipse" in wanted:
        yield "ellipse", inscribed_ellipse(item.box, (item.mask.shape[0], item.mask.shape[1]))
    if "grabcut" in wanted:
        yield "grabcut", grabcut(image, item.box)
    if "classical" in wanted:
        yield "classical", classical(item.prompt)


def _turns(columns: dict[str, int], wanted: Collection[str]) -> int:
    return max([0, *(n for name, n in columns.items() if name in wanted)])
