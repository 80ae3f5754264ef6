"""The interface of all methods, which encode a slice once and decode any prompt on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from segmed.imaging.prompts import Prompt, SlicePrompt, has_strokes
from segmed.imaging.scribbles import scribbles_to_clicks, spread_clicks
from segmed.methods.base.graph import Graph, Run
from segmed.sam.embedding import Embedding
from segmed.sam.frame import Frame

if TYPE_CHECKING:
    from segmed.methods.detector.boxes import Boxes


@dataclass(frozen=True)
class Logits:
    """Masks of B slices and K objects before the threshold, which is 0.

    Attributes:
        masks: Logits (B, K, H, W).
        quality: Predicted IoU (B, K), or None if the method does not predict it.
        uncertainty: Variance of the probability (B, K, H, W), in [0, 0.25], or None if the method does not
            give it.
    """

    masks: Tensor
    quality: Tensor | None = None
    uncertainty: Tensor | None = None


@dataclass(frozen=True)
class StackPrompt:
    """The prompts for one object in a stack of slices.

    Attributes:
        shown: Prompts by slice index, at least one.
        excluded: Background clicks (N, 2) by slice index, for slices without any other prompt; strokes become
            clicks.
    """

    shown: Mapping[int, SlicePrompt]
    excluded: Mapping[int, np.ndarray]

    @classmethod
    def of(cls, prompt: Prompt) -> StackPrompt:
        """Convert a prompt in a volume; all slices of a thick box and of a mask count as prompted."""
        prompted = set(prompt.slices())
        if prompt.box is not None and not prompt.box.is_flat:
            prompted |= set(range(prompt.box.k[0], prompt.box.k[1] + 1))
        if prompt.mask is not None:
            prompted |= {int(k) for k in np.flatnonzero(prompt.mask.any(axis=(0, 1)))}
        shown = {k: p for k in sorted(prompted) if (p := prompt.on_slice(k)) is not None}
        beside = [k for _, _, k in prompt.background] + [
            k for k, s in prompt.scribbles.items() if has_strokes(s, -1)
        ]
        away = {k: [(i, j) for i, j, kk in prompt.background if kk == k] for k in beside if k not in shown}
        for k in away.keys() & prompt.scribbles.keys():
            away[k] += spread_clicks(prompt.scribbles[k] == -1)
        return cls(shown, {k: np.array(points, np.float32) for k, points in away.items()})


class Segmenter(nn.Module, ABC):
    """A method of segmentation.

    Attributes:
        version: Version of the weights; embeddings of different versions are never mixed.
        input_size: Side of the square model input in px, or None if slices are not resampled.
        keep_aspect: Whether slices are fitted into that square without distortion, see `Frame`.
        carries_mask: Whether propagation prompts with the neighbour's mask in addition to its box.
        margin: Margin in px of that box around the neighbour's mask; 5 for MedSAM.
        labels: Names of the classes of automatic methods, class 1 first.
        keeps_slices: Whether embeddings are the slices themselves rather than features of them.
        describes_slices: Whether `described_features` has features of slices, for methods that keep slices.
        has_memory: Whether `segment_stack` tracks objects through slices, so that no boxes are propagated.
        corrects_masks: Whether corrections work best with the previous mask, which the page then sends;
            slices whose mask already agrees with the prompt are not changed.
        follows_neighbours: Whether `decode` reads `SlicePrompt.neighbour`, so that propagation prompts with
            the neighbour's image and mask instead of a box.
        finds_boxes: Whether `detect` finds the objects of a slice as boxes.
        takes_scribbles: Whether `decode` reads the scribbles of prompts; otherwise the predictor converts
            them to clicks, as it does in volumes for methods that follow neighbours.
        no_graphs: Why `graphs` has none, as the end of a sentence; "" for methods that have them.
        notice: A message that users get with every answer, such as the reason for another runtime.
    """

    version: str = "0"
    input_size: int | None = None
    keep_aspect: bool = False
    carries_mask: bool = False
    margin: int = 5
    labels: tuple[str, ...] = ()
    keeps_slices: bool = False
    describes_slices: bool = False
    has_memory: bool = False
    finds_boxes: bool = False
    takes_scribbles: bool = False
    follows_neighbours: bool = False
    corrects_masks: bool = False
    no_graphs: str = "it is no network"
    notice: str = ""

    def understood(self, prompt: SlicePrompt) -> SlicePrompt:
        """Convert a prompt for `decode`: scribbles become clicks unless the method reads scribbles."""
        return prompt if self.takes_scribbles else scribbles_to_clicks(prompt)

    @abstractmethod
    def encode(self, images: Tensor) -> Embedding:
        """Compute prompt-independent features.

        Args:
            images: Model inputs (B, 3, S, S) in [0, 1].

        Returns:
            An embedding whose frame expects prompts in pixels of `images`.
        """

    @abstractmethod
    def decode(
        self, embedding: Embedding, prompts: Sequence[Sequence[SlicePrompt]] | None, size: tuple[int, int]
    ) -> Logits:
        """Decode masks at any output size.

        Args:
            embedding: Features of B slices.
            prompts: B lists of K prompts in pixels of the slice, or None for automatic methods.
            size: Rows and columns (H, W) of the output.

        Raises:
            ValueError: If the prompts do not fit the embedding, or the method needs a prompt and got none.
        """

    def candidates(
        self, embedding: Embedding, prompts: Sequence[SlicePrompt], size: tuple[int, int]
    ) -> Logits:
        """Decode all candidate masks for each prompt on one slice, of which `decode` returns one.

        Args:
            embedding: Features of one slice.
            prompts: N prompts in pixels of the slice.
            size: Rows and columns (H, W) of the output.

        Returns:
            Masks (N, M, H, W) and predicted IoU (N, M); M = 1 unless the method has more candidates.
        """
        one = self.decode(embedding, [prompts], size)
        return Logits(one.masks[0][:, None], None if one.quality is None else one.quality[0][:, None])

    def segment_stack(
        self,
        embedding: Callable[[int], Embedding],
        depth: int,
        prompts: Sequence[StackPrompt],
        size: tuple[int, int],
    ) -> Iterator[tuple[int, int, Tensor]]:
        """Track objects through slices by the method's own memory; only for methods with `has_memory`.

        Args:
            embedding: Function that returns the features of slice k.
            depth: Number of slices.
            prompts: The prompts of each object.
            size: Rows and columns (H, W) of the output.

        Yields:
            Object, slice and logits (H, W), slice by slice so that requests of other users can run in
            between; slices beyond the end of an object are omitted.
        """
        raise NotImplementedError(f"{type(self).__name__} has no memory of its own.")

    def described_features(self, embedding: Embedding) -> Tensor | None:
        """Features to compare images by; only for methods with `describes_slices`.

        Args:
            embedding: Embedding of B slices.

        Returns:
            Feature maps (B, C, H, W), or None if another runtime holds the network.
        """
        raise NotImplementedError(f"{type(self).__name__} has no features of its own.")

    def detect(
        self, embedding: Embedding, confidence: float | None = None, most: int | None = None
    ) -> list[Boxes]:
        """Detect the objects on each slice as boxes; only for methods with `finds_boxes`.

        Args:
            embedding: Features of B slices.
            confidence: Lowest score of a box in [0, 1], or None for the method's own.
            most: Largest number of boxes per slice, or None for the method's own.

        Returns:
            One `Boxes` per slice, in px of the slice.
        """
        raise NotImplementedError(f"{type(self).__name__} finds no boxes.")

    def graphs(self) -> tuple[Graph, ...]:
        """The networks of the method, on its own weights, for export and for other runtimes.

        Raises:
            ValueError: If there are none.
        """
        raise ValueError(f"There is no graph of this method: {self.no_graphs}.")

    def run_by(self, runs: Mapping[str, Run]) -> None:
        """From now on, compute each graph by the function of its name; weights in PyTorch are given up."""
        raise NotImplementedError(f"{type(self).__name__} has no graphs.")

    def fit(self, image: Tensor, frame: Frame) -> Tensor:
        """Resample (C, H, W) in [0, 255] into the model input (C, S, S) in [0, 1]."""
        return frame.fit(image, "bicubic").clamp(0, 255) / 255

    def prepare(self, image: np.ndarray) -> tuple[Tensor, Frame]:
        """Convert a slice of a picture to a model input.

        Args:
            image: The slice, (H, W) or (H, W, 3), uint8.

        Returns:
            The model input (3, S, S) in [0, 1], and the placement of the slice in it.
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
