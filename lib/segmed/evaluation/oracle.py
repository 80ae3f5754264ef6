"""The oracle: for each class the proposed mask that fits the truth best. An upper bound, and no method.

The truth itself chooses the mask, which nobody has when a new image comes. Numbers of the oracle say what automatic
masks could reach at most if somebody named them; they do not compare with those of methods that label by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from segmed.evaluation.segmentation_scores import ImageScore, score_mask, summarise

ORACLE_TITLE = "Oracle Dice (upper bound)"
ORACLE_NOTE = (
    "Oracle: the truth chooses the best of the proposed masks for each class, background among them. This is an upper "
    "bound and does not compare with methods that label by themselves."
)


def oracle_scores(
    proposed: Sequence[np.ndarray], labels: np.ndarray, patient: str = "", complement: bool = False
) -> list[ImageScore]:
    """The best proposed mask for each class of one slice. An upper bound: the truth chooses.

    Args:
        proposed: masks (H, W), boolean, such as of `automatic_masks`.
        labels: (H, W) whole numbers, 0 the background, which counts as a class.
        patient: kept in the scores.
        complement: whether what a mask leaves out may stand for the background, too.

    Returns:
        One score per class that is on the slice; Dice 0 where no mask touches the class.

    Raises:
        ValueError: masks of another shape.
    """
    wrong = [mask.shape for mask in proposed if mask.shape != labels.shape]
    if wrong:
        raise ValueError(f"Masks of shape {wrong[0]} do not lie on labels of shape {labels.shape}.")
    masks = np.stack([np.zeros(labels.shape, bool), *(np.asarray(mask, bool) for mask in proposed)])
    scores = []
    for value in (int(v) for v in np.unique(labels)):
        offered = np.concatenate([masks, ~masks[1:]]) if complement and value == 0 else masks
        best = offered[_best(offered, labels == value)]
        scores.append(score_mask(best, labels == value, patient=patient, label=value))
    return scores


def oracle_table(scores: Sequence[ImageScore], names: Mapping[int, str]) -> str:
    """Markdown: mean Dice by class over the slices that show it, and the mean over classes with the background.

    Args:
        scores: of `oracle_scores`, of all slices.
        names: of the classes; the background may be missing.

    Raises:
        ValueError: no scores.
    """
    summary = summarise(scores)  # refuses none at all
    lines = [f"| class | slices | {ORACLE_TITLE} |", "|---|---|---|"]
    for value in sorted({s.label for s in scores}):
        mine = [s for s in scores if s.label == value]
        name = names.get(value, "background" if value == 0 else str(value))
        lines.append(f"| {name} | {len(mine)} | {summarise(mine).dice:.4f} |")
    return "\n".join([*lines, f"| mean over classes | {summary.images} | {summary.dice:.4f} |", "", ORACLE_NOTE])


def _best(masks: np.ndarray, truth: np.ndarray) -> int:
    """The mask (M, H, W) of highest Dice with one that is not empty."""
    flat = masks.reshape(len(masks), -1)
    shared = (flat & truth.ravel()).sum(1)
    return int((2 * shared / (flat.sum(1) + truth.sum())).argmax())
