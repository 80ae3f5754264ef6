"""The oracle: for each class the proposed mask that fits the truth best, as an upper bound.

The choice needs the truth, which is not available for new images. The scores of the oracle are the best that
automatic masks could reach if somebody named them; they cannot be compared with methods that label by
themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from segmed.evaluation.segmentation_scores import ImageScore, score_mask, summarise

ORACLE_TITLE = "Oracle Dice (upper bound)"
ORACLE_NOTE = (
    "Oracle: the truth chooses the best of the proposed masks for each class, background among them. This is "
    "an upper bound and does not compare with methods that label by themselves."
)


def oracle_scores(
    proposed: Sequence[np.ndarray], labels: np.ndarray, patient: str = "", complement: bool = False
) -> list[ImageScore]:
    """Score the best proposed mask for each class of one slice: an upper bound, as the truth chooses.

    Args:
        proposed: Boolean masks (H, W), such as those of `automatic_masks`.
        labels: Label map (H, W), integer, where 0 is the background, which counts as a class.
        patient: Name of the patient for the scores.
        complement: Whether the complement of a mask may be chosen for the background.

    Returns:
        One score per class on the slice; Dice 0 if no mask overlaps the class.

    Raises:
        ValueError: If a mask has another shape than the labels.
    """
    wrong = [mask.shape for mask in proposed if mask.shape != labels.shape]
    if wrong:
        raise ValueError(
            f"Masks of shape {wrong[0]} do not fit labels of shape {labels.shape}; give both on one grid."
        )
    masks = np.stack([np.zeros(labels.shape, bool), *(np.asarray(mask, bool) for mask in proposed)])
    scores = []
    for value in (int(v) for v in np.unique(labels)):
        offered = np.concatenate([masks, ~masks[1:]]) if complement and value == 0 else masks
        best = offered[_best(offered, labels == value)]
        scores.append(score_mask(best, labels == value, patient=patient, label=value))
    return scores


def oracle_table(scores: Sequence[ImageScore], names: Mapping[int, str]) -> str:
    """Markdown table of the mean Dice by class over the slices with it, and over all classes.

    Args:
        scores: Scores from `oracle_scores` for all slices.
        names: Names of the classes by value; that of the background may be missing.

    Raises:
        ValueError: If there are no scores.
    """
    summary = summarise(scores)  # raises ValueError without scores
    lines = [f"| class | slices | {ORACLE_TITLE} |", "|---|---|---|"]
    for value in sorted({s.label for s in scores}):
        mine = [s for s in scores if s.label == value]
        name = names.get(value, "background" if value == 0 else str(value))
        lines.append(f"| {name} | {len(mine)} | {summarise(mine).dice:.4f} |")
    return "\n".join(
        [*lines, f"| mean over classes | {summary.images} | {summary.dice:.4f} |", "", ORACLE_NOTE]
    )


def _best(masks: np.ndarray, truth: np.ndarray) -> int:
    """Index of the mask (M, H, W) with the highest Dice, 2 |m ∩ t| / (|m| + |t|), for a truth t."""
    flat = masks.reshape(len(masks), -1)
    shared = (flat & truth.ravel()).sum(1)
    return int((2 * shared / (flat.sum(1) + truth.sum())).argmax())
