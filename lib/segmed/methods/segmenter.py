"""The one interface everything hangs on: encode a slice once, decode any prompt on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import SamModel

from segmed.imaging.prompts import SlicePrompt
from segmed.sam.embedding import Embedding
from segmed.sam.frame import Frame


@dataclass(frozen=True)
class Logits:
    """Masks of B slices and K objects before the threshold, which is 0.

    Attributes:
        masks: (B, K, H, W)
        quality: (B, K) predicted IoU, or None where a method has no such head.
        uncertainty: (B, K, H, W) variance of the probability, in [0, 0.25], where a method gives it.
    """

    masks: Tensor
    quality: Tensor | None = None
    uncertainty: Tensor | None = None


class Segmenter(nn.Module, ABC):
    """A method of segmentation.

    Attributes:
        version: names the weights; embeddings of different versions are never mixed.
        input_size: side of the square model input in px, or None if slices are taken as they are.
        keep_aspect: how slices are fitted into that square, see `Frame`.
        carries_mask: whether propagation hands on the neighbour's mask beside its box.
        margin: px by which propagation boxes the neighbour's mask wider; 5 is MedSAM's.
        labels: names of the classes of automatic methods, class 1 first.
        keeps_slices: whether embeddings are the slices themselves, as they are.
    """

    version: str = "0"
    input_size: int | None = None
    keep_aspect: bool = False
    carries_mask: bool = False
    margin: int = 5
    labels: tuple[str, ...] = ()
    keeps_slices: bool = False

    @abstractmethod
    def encode(self, images: Tensor) -> Embedding:
        """Prompt-independent features.

        Args:
            images: (B, 3, S, S) in [0, 1].

        Returns:
            Embedding whose frame takes prompts in pixels of `images`.
        """

    @abstractmethod
    def decode(
        self, embedding: Embedding, prompts: Sequence[Sequence[SlicePrompt]] | None, size: tuple[int, int]
    ) -> Logits:
        """Masks at any output size.

        Args:
            embedding: of B slices.
            prompts: B lists of K prompts in pixels of the slice, or None for automatic methods.
            size: (H, W) of the output.

        Raises:
            ValueError: the prompts do not fit the embedding, or the method needs a prompt and got none.
        """

    def fit(self, image: Tensor, frame: Frame) -> Tensor:
        """Resample (C, H, W) in [0, 255] into the model input (C, S, S) in [0, 1]."""
        return frame.fit(image, "bicubic").clamp(0, 255) / 255

    def prepare(self, image: np.ndarray) -> tuple[Tensor, Frame]:
        """A slice as stored in a picture to model input.

        Args:
            image: (H, W) or (H, W, 3) uint8.

        Returns:
            (3, S, S) in [0, 1], and how the slice lies in it.
        """
        height, width = image.shape[:2]
        frame = Frame(height, width, self.input_size or max(height, width), self.keep_aspect)
        channels = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
        tensor = torch.from_numpy(np.ascontiguousarray(channels)).float()
        tensor = self.fit(tensor, frame) if self.input_size else tensor / 255
        return tensor.expand(3, -1, -1), frame

    def embed(self, images: Sequence[np.ndarray]) -> Embedding:
        """Encode slices of one size, (H, W) or (H, W, 3) uint8 each."""
        prepared = [self.prepare(image) for image in images]
        device = next(self.parameters(), torch.empty(0)).device
        batch = torch.stack([tensor for tensor, _ in prepared]).to(device)
        return replace(self.encode(batch), frame=prepared[0][1])


@dataclass(frozen=True)
class Training:
    """How a method is built with weights that were trained.

    Attributes:
        kind: the `TrainableSegmenter`, called with a SamModel, a config and the version of the weights.
        config: class of that config; one with `labels` gets the names of the structures.
        finish: what to serve of it, such as merged weights.
    """

    kind: Callable[..., Any]
    config: type[Any]
    finish: Callable[[Any], Segmenter] = lambda segmenter: segmenter


@dataclass(frozen=True)
class Method:
    """How a method is offered.

    Attributes:
        name: as in `--conf models` and in the viewers.
        title: one sentence for the viewers.
        build: makes the Segmenter of untrained weights from a SamModel and their version; both are None and "" for
            methods that need no weights. None for methods that are of no use untrained.
        needs_backbone: whether SAM weights are required.
        weights: those that it brings along; `--conf backbone` does not replace them, `--conf backbone_<name>` does.
        training: None for methods that do not learn.
        automatic: whether it also labels whole volumes without a prompt.
        gives_uncertainty: whether it tells how unsure it is of each pixel.
    """

    name: str
    title: str
    build: Callable[[SamModel | None, str], Segmenter] | None = None
    needs_backbone: bool = True
    weights: str = ""
    training: Training | None = None
    automatic: bool = False
    gives_uncertainty: bool = False

    def offered_as(self) -> list[str]:
        """Names of the models in the viewers: the automatic one, with prompts on a slice, and through the volume."""
        prompted = f"{self.name}_prompt" if self.automatic else self.name
        return [*([self.name] if self.automatic else []), prompted, f"{prompted}_3d"]
