"""Measures of a model's uncertainty on one slice, from probabilities or several masks of an object.

All measures are larger where a label helps more. Costs are those of computing the arrays, in passes of the
encoder and the decoder per slice; a cached embedding saves the former."""

from __future__ import annotations

import numpy as np

_POSSIBLE = 0.05  # least mean probability of a pixel that an object may cover


def predictive_entropy(probability: np.ndarray) -> float:
    """Entropy of the prediction, over the pixels that an object may cover.

    Cost: 1 encode, 1 decode. Source: Shannon entropy as in Settles, Active Learning Literature Survey (2009).
    The background, which is certain and large, would otherwise hide small objects.

    Args:
        probability: Probability (H, W) of an object, or (C, H, W) of classes, which sum to 1, with class 0
            the background.

    Returns:
        Mean entropy in [0, 1]; 1 where nothing is known.
    """
    classes = _as_classes(probability)
    entropy = _entropy(classes) / np.log(len(classes))
    return _mean(entropy, classes)


def bald(samples: np.ndarray) -> float:
    """Disagreement of an ensemble, or of passes with dropout: the mutual information of mask and model.

    Cost: P decodes with dropout in the decoder; P encodes too for an ensemble of models. Sources: Houlsby et
    al., Bayesian Active Learning for Classification and Preference Learning (2011); Gal et al., Deep Bayesian
    Active Learning with Image Data (2017); Lakshminarayanan et al., Simple and Scalable Predictive
    Uncertainty Estimation using Deep Ensembles (2017).

    Args:
        samples: Probabilities (P, H, W) of an object, or (P, C, H, W) of classes, P at least 2.

    Returns:
        Mutual information in [0, 1], in units of the largest entropy; 0 where all agree.

    Raises:
        ValueError: There are fewer than two samples.
    """
    _check_several(samples)
    each = np.stack([_as_classes(sample) for sample in samples])
    mean = each.mean(0)
    # I(mask; model) = H(mean_p q_p) - mean_p H(q_p), per pixel (H, W)
    information = _entropy(mean) - np.stack([_entropy(one) for one in each]).mean(0)
    return _mean(np.clip(information, 0, None) / np.log(len(mean)), mean)


def bald_of_variance(probability: np.ndarray, variance: np.ndarray) -> float:
    """`bald` to second order, for methods that return the variance of their probability and no samples.

    Cost: 1 encode, 1 decode. The mutual information of a coin whose probability p varies is Var[p] / (2 p (1
    - p)) nats to second order in the deviation of p.

    Args:
        probability: Mean probability (H, W).
        variance: Variance (H, W) in [0, 0.25].
    """
    p = np.clip(np.asarray(probability, np.float64), 1e-6, 1 - 1e-6)
    information = np.clip(variance / (2 * p * (1 - p)) / np.log(2), 0, 1)
    return _mean(information, _as_classes(p))


def vote_entropy(masks: np.ndarray) -> float:
    """Disagreement between the masks of augmented versions of an image, such as mirrored ones.

    Cost: P encodes, P decodes. Source: Wang et al., Aleatoric uncertainty estimation with test-time
    augmentation for medical image segmentation with convolutional neural networks (2019).

    Args:
        masks: Masks (P, H, W), boolean, mapped back onto the image, P at least 2.

    Returns:
        Mean entropy of the votes in [0, 1] over the pixels that any mask covers; 0 where all are empty.

    Raises:
        ValueError: There are fewer than two masks.
    """
    _check_several(masks)
    votes = np.asarray(masks, bool).mean(0)
    covered = votes > 0
    return float((_entropy(_as_classes(votes)) / np.log(2))[covered].mean()) if covered.any() else 0.0


def prompt_disagreement(masks: np.ndarray) -> float:
    """Dependence of the mask on the exact prompt: 1 - mean pairwise Dice.

    Cost: 1 encode, P decodes, so very little once a slice is encoded. Sources: query by committee (Seung,
    Opper and Sompolinsky, 1992) whose members are prompts; Deng et al., SAM-U: Multi-box prompts triggered
    uncertainty estimation for reliable SAM in medical image (2023).

    Args:
        masks: Masks (P, H, W), boolean, from P variants of one prompt, P at least 2.

    Returns:
        Disagreement in [0, 1]; two empty masks agree.

    Raises:
        ValueError: There are fewer than two masks.
    """
    _check_several(masks)
    flat = np.asarray(masks, bool).reshape(len(masks), -1).astype(np.float32)
    # pairwise Dice (P, P) = 2 |A ∩ B| / (|A| + |B|)
    both, area = flat @ flat.T, flat.sum(1)
    total = area[:, None] + area
    dice = np.where(total > 0, 2 * both / np.maximum(total, 1), 1.0)
    return float(1 - dice[np.triu_indices(len(flat), 1)].mean())


def predicted_error(quality: float) -> float:
    """1 - the IoU that the model predicts for its mask, clipped to [0, 1].

    Cost: 1 encode, 1 decode. Sources: the IoU head of Kirillov et al., Segment Anything (2023); as a
    criterion, Yoo and Kweon, Learning Loss for Active Learning (2019)."""
    return float(np.clip(1 - quality, 0, 1))


def _as_classes(probability: np.ndarray) -> np.ndarray:
    p = np.clip(np.asarray(probability, np.float64), 0, 1)
    if p.ndim == 2:
        return np.stack([1 - p, p])
    if p.ndim != 3 or len(p) < 2:
        raise ValueError(
            f"Probabilities of shape {p.shape} are neither (H, W) of an object nor (C, H, W) of two or more "
            "classes. Give one of these."
        )
    return p


def _entropy(classes: np.ndarray) -> np.ndarray:
    """Entropy (H, W) in nats."""
    safe = np.where(classes > 0, classes, 1.0)
    return np.asarray(-(classes * np.log(safe)).sum(0))


def _mean(values: np.ndarray, classes: np.ndarray) -> float:
    """Mean over the pixels where an object is possible; over all pixels where there are none."""
    possible = 1 - classes[0] >= _POSSIBLE
    return float(values[possible].mean() if possible.any() else values.mean())


def _check_several(samples: np.ndarray) -> None:
    if len(samples) < 2:
        raise ValueError(f"{len(samples)} samples cannot disagree; give two or more.")
