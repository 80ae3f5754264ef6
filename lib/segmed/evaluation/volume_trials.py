"""Trials on one object of a volume: a flat box, a box over its slices, a click, and corrections."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from segmed.evaluation.metrics import Overlap
from segmed.evaluation.surface import surface_dice
from segmed.imaging.labels.masks import stack_slices
from segmed.imaging.picture import Picture
from segmed.imaging.prompts import Prompt
from segmed.inference.predictor import Predictor
from segmed.simulation.volume_annotator import box_over_slices, flat_box, middle_click, with_correction

FLAT, THICK, CLICK = "flat box", "box over slices", "1 click"
STARTS = (FLAT, THICK, CLICK)
LOSS = "largest loss"
_ALLOWED_LOSS = 0.01  # largest allowed loss of Dice by one correction


@dataclass(frozen=True)
class VolumeTrial:
    """One prediction of a method.

    Attributes:
        column: Name of the trial.
        mask: The predicted mask (I, J, K), boolean.
        seconds: Duration of the prediction in seconds.
    """

    column: str
    mask: np.ndarray
    seconds: float


def correction_columns(count: int) -> list[str]:
    """Names of the columns after 1 to `count` corrections of the flat box."""
    return [f"{n} correction{'s' if n > 1 else ''}" for n in range(1, count + 1)]


def volume_trials(
    predictor: Predictor,
    picture: Picture,
    truth: np.ndarray,
    wanted: Collection[str] = STARTS,
    corrections: int = 8,
    send_mask: bool = False,
) -> Iterator[VolumeTrial]:
    """Segment one object by each prompt.

    Args:
        predictor: The predictor of the method.
        picture: The whole volume.
        truth: The true mask (I, J, K), boolean.
        wanted: The wanted ones of `STARTS`; corrections start from the flat box.
        corrections: Number of corrections; if nothing is wrong, the remaining ones repeat the mask and take
            no time.
        send_mask: Whether prompts of corrections contain the mask, see `with_correction`.

    Raises:
        ValueError: If the method does not take such a prompt.
    """
    spacing = np.linalg.norm(picture.affine[:3, :3], axis=0).tolist()

    def answer(column: str, prompt: Prompt) -> VolumeTrial:
        start = time.perf_counter()
        masks = predictor.segment_volume(picture, prompt)
        return VolumeTrial(column, stack_slices(masks, picture.shape) > 0, time.perf_counter() - start)

    prompt = Prompt(flat_box(truth))
    if FLAT in wanted or corrections:
        trial = answer(FLAT, prompt)
        yield trial
        for column in correction_columns(corrections):
            corrected = with_correction(prompt, trial.mask, truth, spacing, send_mask)
            same = corrected is prompt
            trial = VolumeTrial(column, trial.mask, 0.0) if same else answer(column, corrected)
            prompt = corrected
            yield trial
    if THICK in wanted:
        yield answer(THICK, Prompt(box_over_slices(truth)))
    if CLICK in wanted:
        yield answer(CLICK, Prompt(foreground=(middle_click(truth),)))


def volume_numbers(
    trial: VolumeTrial, truth: np.ndarray, affine: np.ndarray, tolerance: float
) -> dict[str, float]:
    """Dice, NSD (tolerance in mm) and seconds of a prediction, by column."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    return {
        trial.column: Overlap.of(trial.mask, truth).dice(),
        f"{trial.column} NSD": surface_dice(trial.mask, truth, tolerance, spacing),
        f"{trial.column} s": trial.seconds,
    }


def largest_loss(values: Mapping[str, float], corrections: int, ending: str = "") -> float:
    """The largest loss of Dice by one correction, or 0 if there is none.

    Args:
        values: Dice by column.
        corrections: Number of corrections.
        ending: Suffix of the columns' names.
    """
    curve = [values[f"{name}{ending}"] for name in (FLAT, *correction_columns(corrections))]
    return max([0.0, *(before - after for before, after in itertools.pairwise(curve))])


def keeps_its_promise(loss: float) -> bool:
    """Whether no correction loses more than 0.01 of Dice."""
    return loss <= _ALLOWED_LOSS + 1e-9
