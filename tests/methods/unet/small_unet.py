"""Small networks of the U-Net family, an image and boxes for them, and the masks that they answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from segmed.imaging.prompts import SlicePrompt
from segmed.inference.loading import find_method
from segmed.methods import METHODS
from segmed.methods.unet_family import UnetFamily

LABELS = ("disc", "block")
SMALL: dict[str, Any] = {"encoder": "resnet18", "input_size": 32}
BOX, OTHER = SlicePrompt(box=(10, 8, 40, 30)), SlicePrompt(box=(45, 20, 60, 44))
IMAGE = np.random.default_rng(0).integers(0, 255, (50, 70), np.uint8)
NAMES = [name for name, method in METHODS.items() if method.place.startswith("segmed.methods.unet_family:")]


def built(name: str = "unet", seed: int = 0, **changes: Any) -> UnetFamily:
    training = find_method(name).training
    assert training is not None
    torch.manual_seed(seed)
    method: UnetFamily = training.kind(None, training.config(**{"labels": LABELS, **SMALL, **changes}))
    return method.eval()


@torch.no_grad()
def logits(method: Any, prompt: SlicePrompt | None = None, size: tuple[int, int] = (50, 70)) -> torch.Tensor:
    masks: torch.Tensor = method.decode(method.embed([IMAGE]), prompt and [[prompt]], size).masks
    return masks
