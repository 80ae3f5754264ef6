"""Whether a method gives the same masks on another runtime, on slices of the demo study."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache

import numpy as np
import torch

from segmed.data.phantom import make_phantom
from segmed.imaging.labels.masks import slice_box
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.base.segmenter import Segmenter

#: Smallest mean Dice of the masks with those of PyTorch.
ENOUGH = 0.99
_SLICES = (18, 28)  # of the demo study's volumes; liver, spleen, kidneys and aorta are on them
_SMALLEST = 60  # px of a structure that is prompted


@lru_cache(maxsize=1)
def _samples() -> list[tuple[np.ndarray, list[SlicePrompt]]]:
    """8-bit slices (H, W) of a CT and an MR phantom, each with a box or a click for its structures."""
    samples = []
    for modality, k in zip(("CT", "MR"), _SLICES, strict=True):
        phantom = make_phantom(modality, seed=7)
        grey, labels = phantom.image[:, :, k].T.astype(np.float32), phantom.labels[:, :, k].T
        low, high = np.percentile(grey, (1, 99))
        image = (np.clip((grey - low) / (high - low), 0, 1) * 255).astype(np.uint8)
        masks = [labels == value for value in phantom.names]
        prompts = [SlicePrompt(box=slice_box(mask)) for mask in masks if mask.sum() >= _SMALLEST]
        if modality == "MR":
            places = [np.argwhere(mask).mean(0)[::-1] for mask in masks if mask.sum() >= _SMALLEST]
            prompts += [
                SlicePrompt(points=np.array([place], np.float32), labels=np.ones(1, np.int64))
                for place in places[:2]
            ]
        samples.append((image, prompts))
    return samples


@torch.inference_mode()
def demo_masks(segmenter: Segmenter) -> list[np.ndarray]:
    """The masks (H, W), boolean, of a method on the slices of the demo study."""
    found = []
    for image, prompts in _samples():
        embedding = segmenter.embed([image])
        size = image.shape[0], image.shape[1]
        for prompt in prompts:
            with suppress(ValueError):  # a click, for a method that needs boxes
                masks = segmenter.decode(embedding, [[segmenter.understood(prompt)]], size).masks
                found.append((masks[0, 0] > 0).cpu().numpy())
        if segmenter.labels:
            with suppress(ValueError):  # a method that needs prompts although it knows names
                classes = segmenter.decode(embedding, None, size).masks[0].argmax(0).cpu().numpy()
                found += [classes == n for n in range(1, len(segmenter.labels) + 1)]
    return found


def mean_dice(found: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    """Mean Dice of pairs of masks; two empty ones agree."""
    dice = []
    for a, b in zip(found, wanted, strict=True):
        both = int(a.sum()) + int(b.sum())
        dice.append(2 * int((a & b).sum()) / both if both else 1.0)
    return float(np.mean(dice))
