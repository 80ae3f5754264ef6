"""The shipped default model gives the same logits as when it was shipped, on ten small synthetic images.

After new weights: `python tests/methods/test_golden_segmed.py` writes the file again; look at what changed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from segmed.data.synthetic.sample import PhantomConfig, generate
from segmed.evaluation.metrics import Overlap
from segmed.imaging.labels.masks import slice_box
from segmed.imaging.prompts import Neighbour, SlicePrompt
from segmed.inference.loading import BackboneConfig, Loader

GOLDEN = Path(__file__).with_name("golden_segmed.npz")
_STEP = 6  # px between the logits that are kept
_FAMILIES = ("blobs", "body", "lesions", "shells", "cells")


def images() -> list[tuple[np.ndarray, np.ndarray]]:
    """Ten images (96, 96, 3) uint8 with an object (96, 96) boolean each, stored beside the logits."""
    kept = np.load(GOLDEN)
    return list(zip(kept["images"], kept["truth"], strict=True))


def prompts(image: np.ndarray, truth: np.ndarray) -> dict[str, SlicePrompt]:
    """One of each kind."""
    y, x = (int(v[len(v) // 2]) for v in np.nonzero(truth))
    return {
        "box": SlicePrompt(box=slice_box(truth)),
        "click": SlicePrompt(points=np.array([[x, y]], np.float32), labels=np.ones(1, np.int64)),
        "mask": SlicePrompt(mask=np.roll(truth, 2, 1)),
        "neighbour": SlicePrompt(neighbour=Neighbour(np.roll(truth, 2, 0), np.roll(image, 2, 0))),
    }


@torch.inference_mode()
def logits(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Logits of all prompts, one pixel in six: (4, 16, 16) float32."""
    model = Loader().get("segmed", BackboneConfig())
    said = list(prompts(image, truth).values())
    found = model.decode(model.embed([image]), [said], (96, 96)).masks[0]
    return np.asarray(found[:, _STEP // 2 :: _STEP, _STEP // 2 :: _STEP].numpy(), np.float32)


@pytest.mark.parametrize("n", range(10))
def test_logits_are_those_of_the_release(n: int) -> None:
    image, truth = images()[n]
    wanted = np.load(GOLDEN)["logits"][n]
    assert np.abs(logits(image, truth) - wanted).max() < 1e-3


@torch.inference_mode()
def test_boxes_of_the_golden_images_give_their_objects() -> None:
    model = Loader().get("segmed", BackboneConfig())
    scores = []
    for image, truth in images():
        found = (
            model.decode(model.embed([image]), [[SlicePrompt(box=slice_box(truth))]], (96, 96)).masks[0, 0]
            > 0
        )
        scores.append(Overlap.of(found.numpy(), truth).dice())
    assert np.mean(scores) > 0.8


def write() -> None:
    """Draw the images and keep them with the logits of the present weights."""
    drawn = generate(10, 96, 11, "cpu", PhantomConfig(_FAMILIES, tiny_share=0))
    chosen = []
    for b in range(10):
        areas = drawn.targets[b].flatten(1).sum(1)
        image = (drawn.images[b].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        chosen.append((image, drawn.targets[b, int(areas.argmax())].numpy()))
    found = [logits(image, truth) for image, truth in chosen]
    pictures, truth = (np.stack(part) for part in zip(*chosen, strict=True))
    np.savez_compressed(GOLDEN, images=pictures, truth=truth, logits=np.stack(found))


if __name__ == "__main__":
    write()
