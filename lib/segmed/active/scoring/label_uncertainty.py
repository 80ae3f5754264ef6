"""The uncertainty of a label map that a model has just made, from a few of its slices."""

from __future__ import annotations

import math

import numpy as np
import torch

from segmed.active.scoring.scorer import informative_slices, pool_slices
from segmed.active.scoring.scorer_config import ScorerConfig
from segmed.active.scoring.slice_probe import SliceProbe
from segmed.active.scoring.uncertainty import predictive_entropy
from segmed.imaging.labels.masks import slice_box
from segmed.imaging.picture import Picture
from segmed.inference.predictor import Predictor


def label_uncertainty(
    predictor: Predictor, picture: Picture, labels: np.ndarray, config: ScorerConfig | None = None
) -> float:
    """How uncertain a model is about its label map; larger where a person should look.

    Methods that label by themselves give the entropy of their classes. For prompted methods, it is the
    dependence of the masks on the exact box (see `prompt_disagreement`), with the boxes of the masks that
    they gave. A few evenly spaced slices are scored, whose embeddings may still be in the predictor's cache.

    Args:
        predictor: The model, with its queue of the device.
        picture: The image (I, J, K).
        labels: The label map (I, J, K) that it gave.
        config: Thoroughness of the scoring.

    Returns:
        Uncertainty in [0, 1], the mean of the worst slices; NaN where a prompted method found nothing.
    """
    config = config or ScorerConfig()
    automatic = bool(predictor.segmenter.labels)
    labelled = np.flatnonzero(labels.any(axis=(0, 1)))
    if automatic:
        ks = informative_slices(picture, config.slices)
    else:
        count = min(config.slices, len(labelled))
        ks = [int(labelled[int((n + 0.5) / count * len(labelled))]) for n in range(count)]
    scores = []
    for k in ks:

        @torch.inference_mode()
        def score(k: int = k) -> float:
            probe = SliceProbe(
                predictor.segmenter, picture.slice(k), config, predictor.embedding(picture, [k])
            )
            if automatic:
                return predictive_entropy(probe.classes())
            drawn = labels[:, :, k].T
            masks = [drawn == value for value in np.unique(drawn[drawn > 0])]
            masks.sort(key=lambda mask: -int(mask.sum()))
            boxes = [slice_box(mask) for mask in masks[: config.objects]]
            return probe.score_boxes(boxes, np.random.default_rng([config.seed, k]))["jitter"]

        scores.append({"uncertainty": float(predictor.run(score))})
    return pool_slices(scores, config.worst).get("uncertainty", math.nan)
