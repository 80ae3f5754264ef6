"""The one interface everything hangs on: encode a slice once, decode any prompt on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from segmed.imaging.prompts import Prompt, SlicePrompt, has_strokes
from segmed.imaging.scribbles import scribbles_to_clicks, spread_clicks
from segmed.sam.embedding import Embedding
from segmed.sam.frame import Frame

if TYPE_CHECKING:
    from segmed.methods.detection import Boxes


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


@dataclass(frozen=True)
class StackPrompt:
    """What a user said about one object in a stack of slices.

    Attributes:
        shown: prompts by slice, at least one.
        excluded: clicks (N, 2) beside the object, by slices on which nothing else was said; strokes count as clicks.
    """

    shown: Mapping[int, SlicePrompt]
    excluded: Mapping[int, np.ndarray]

    @classmethod
    def of(cls, prompt: Prompt) -> StackPrompt:
        """Of a prompt in a volume; the inner slices of a thick box and all of a mask are shown, too."""
        marked = set(prompt.slices())
        if prompt.box is not None and not prompt.box.is_flat:
            marked |= set(range(prompt.box.k[0], prompt.box.k[1] + 1))
        if prompt.mask is not None:
            marked |= {int(k) for k in np.flatnonzero(prompt.mask.any(axis=(0, 1)))}
        shown = {k: p for k in sorted(marked) if (p := prompt.on_slice(k)) is not None}
        beside = [k for _, _, k in prompt.background] + [k for k, s in prompt.scribbles.items() if has_strokes(s, -1)]
        away = {k: [(i, j) for i, j, kk in prompt.background if kk == k] for k in beside if k not in shown}
        for k in away.keys() & prompt.scribbles.keys():
            away[k] += spread_clicks(prompt.scribbles[k] == -1)
        return cls(shown, {k: np.array(points, np.float32) for k, points in away.items()})


class Segmenter(nn.Module, ABC):
    """A method of segmentation.

    Attributes:
        version: names the weights; embeddings of different versions are never mixed.
        input_size: side of the square model input in px, or None if slices are taken as they are.
        keep_aspect: how slices are fitted into that square, see `Frame`.
        carries_mask: whether propagation hands on the neighbour's mask beside its box.
        margin: px by which propagation boxes the neighbour's mask wider; 5 is MedSAM's.
        labels: names of the classes of automatic methods, class 1 first.
        keeps_slices: whether embeddings are the slices themselves and no features of them.
        has_memory: whether `segment_stack` carries objects through slices, in place of boxes around neighbours.
        corrects_masks: whether corrections are best made with the mask before, which the page then sends; slices whose
            mask already agrees with the prompt stay as they are.
        follows_neighbours: whether `decode` reads `SlicePrompt.neighbour`, so that propagation hands on the neighbour's
            image and mask in place of a box.
        finds_boxes: whether `detect` finds the objects of a slice as boxes.
        takes_scribbles: whether `decode` reads the scribbles of prompts; for others the predictor makes clicks of them.
    """

    version: str = "0"
    input_size: int | None = None
    keep_aspect: bool = False
    carries_mask: bool = False
    margin: int = 5
    labels: tuple[str, ...] = ()
    keeps_slices: bool = False
    has_memory: bool = False
    finds_boxes: bool = False
    takes_scribbles: bool = False
    follows_neighbours: bool = False
    corrects_masks: bool = False

    def understood(self, prompt: SlicePrompt) -> SlicePrompt:
        """The prompt as `decode` takes it: with clicks in place of scribbles where the method reads none."""
        return prompt if self.takes_scribbles else scribbles_to_clicks(prompt)

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

    def candidates(self, embedding: Embedding, prompts: Sequence[SlicePrompt], size: tuple[int, int]) -> Logits:
        """All masks that the method has for each prompt on one slice, where `decode` settles for one.

        Args:
            embedding: of one slice.
            prompts: N of them.
            size: (H, W) of the output.

        Returns:
            Masks (N, M, H, W) and predicted IoU (N, M); M = 1 unless the method has more.
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
        """Carry objects through slices by the method's own memory; only where `has_memory`.

        Args:
            embedding: of slice k.
            depth: number of slices.
            prompts: of each object.
            size: (H, W) of the output.

        Yields:
            Object, slice and logits (H, W), slice by slice so that other users get their turn in between; slices
            beyond the end of an object are left out.
        """
        raise NotImplementedError(f"{type(self).__name__} has no memory of its own.")

    def detect(self, embedding: Embedding, confidence: float | None = None, most: int | None = None) -> list[Boxes]:
        """The boxes of the objects on each slice; only where `finds_boxes`.

        Args:
            embedding: of B slices.
            confidence: lowest score of a box in [0, 1], None for the method's own.
            most: boxes per slice, None for the method's own.

        Returns:
            One `Boxes` per slice, in its pixels.
        """
        raise NotImplementedError(f"{type(self).__name__} finds no boxes.")

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
        kind: the `TrainableSegmenter`, called with a SamModel (None for methods that need no weights), a config and the
            version of the weights.
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
        build: makes the Segmenter of untrained weights from a SamModel (or what `read` gives) and their version; both
            are None and "" for methods that need no weights. None for methods that are of no use untrained.
        needs_backbone: whether SAM weights are required.
        read: reads weights of another architecture than SAM's from a source, for an input size (None for their own) and
            a number format, and gives them with their version; `--conf backbone_<name>` alone names their source.
        example: a name of published weights that suit it, for messages; "" for those of SAM.
        weights: those that it brings along; `--conf backbone` does not replace them, `--conf backbone_<name>` does.
        training: None for methods that do not learn.
        automatic: whether it also labels whole volumes without a prompt.
        gives_uncertainty: whether it tells how unsure it is of each pixel.
        detects: whether it finds boxes, which are offered as a model of their own; the one with masks is `auto` then.
    """

    name: str
    title: str
    build: Callable[[Any, str], Segmenter] | None = None
    needs_backbone: bool = True
    read: Callable[[str, int | None, torch.dtype], tuple[nn.Module, str]] | None = None
    example: str = ""
    weights: str = ""
    training: Training | None = None
    automatic: bool = False
    gives_uncertainty: bool = False
    detects: bool = False

    def offered_as(self) -> list[str]:
        """Names of the models in the viewers: the automatic one, with prompts on a slice, and through the volume.

        Of a detector: the one that outlines what was found, and the boxes alone.
        """
        if self.detects:
            return ["auto", self.name]
        prompted = f"{self.name}_prompt" if self.automatic else self.name
        return [*([self.name] if self.automatic else []), prompted, f"{prompted}_3d"]
