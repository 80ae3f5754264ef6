"""A method that answers the masks it was told, such answers, and a picture to score."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from segmed.active.scoring.scorer_config import ScorerConfig
from segmed.imaging.picture import Picture
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.base.segmenter import Logits, Segmenter
from segmed.sam.embedding import Embedding
from segmed.sam.frame import Frame
from torch import Tensor, nn

Answer = Callable[[np.ndarray, SlicePrompt, tuple[int, int]], np.ndarray]


class Told(Segmenter):
    """Gives what `answer` says of the slice (H, W) and each prompt, as logits (h, w); predicted IoU 0.7."""

    input_size = 64

    def __init__(self, answer: Answer, drop: float = 0.0) -> None:
        super().__init__()
        self.answer = answer
        self.layer = nn.Dropout(drop).eval()

    def encode(self, images: Tensor) -> Embedding:
        return Embedding(images, Frame(64, 64, 64))

    def decode(
        self, embedding: Embedding, prompts: Sequence[Sequence[SlicePrompt]] | None, size: tuple[int, int]
    ) -> Logits:
        assert prompts is not None
        image = embedding.features[0, 0].numpy()
        masks = torch.stack([torch.from_numpy(self.answer(image, p, size)).float() for p in prompts[0]])[None]
        return Logits(self.layer(masks), torch.full(masks.shape[:2], 0.7))


def disc(image: np.ndarray, prompt: SlicePrompt, size: tuple[int, int]) -> np.ndarray:
    """A sure disc in the middle, whatever the prompt."""
    y, x = np.mgrid[: size[0], : size[1]]
    return np.where((y - size[0] / 2) ** 2 + (x - size[1] / 2) ** 2 < (size[0] / 4) ** 2, 20.0, -20.0)


def drawn_box(image: np.ndarray, prompt: SlicePrompt, size: tuple[int, int]) -> np.ndarray:
    """The box itself, or one around the click."""
    x0, y0, x1, y1 = prompt.box or (*(prompt.points[0] - 12), *(prompt.points[0] + 12))
    y, x = np.mgrid[: size[0], : size[1]]
    return np.where((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1), 20.0, -20.0)


def bright(image: np.ndarray, prompt: SlicePrompt, size: tuple[int, int]) -> np.ndarray:
    return np.where(image > 0.5, 20.0, -20.0)


def left(image: np.ndarray, prompt: SlicePrompt, size: tuple[int, int]) -> np.ndarray:
    return np.where(np.arange(size[1]) < size[1] // 4, 20.0, -20.0) * np.ones(size)


def elsewhere(image: np.ndarray, prompt: SlicePrompt, size: tuple[int, int]) -> np.ndarray:
    """Nothing at the upper left."""
    lone = prompt.box is None and bool((prompt.points[0] < 8).all())
    return np.full(size, -20.0) if lone else disc(image, prompt, size)


def noisy_picture(slices: int = 4, seed: int = 0) -> Picture:
    generator = np.random.default_rng(seed)
    array = generator.integers(0, 60, (64, 64, slices)).astype(np.uint8)
    array[20:40, 24:50] += 180
    return Picture(array, np.eye(4), "p", "auto")


CONFIG = ScorerConfig(passes=0)
