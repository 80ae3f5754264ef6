"""Plain SAM, with the published preparation of slices and resampling of masks.

Source: Kirillov et al., Segment Anything (ICCV 2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from segmed.imaging.prompts import SlicePrompt
from segmed.methods.base.graph import Graph, Run
from segmed.methods.base.segmenter import Logits, Segmenter
from segmed.sam.decoding import decode_all, decode_low_resolution
from segmed.sam.embedding import Embedding
from segmed.sam.frame import Frame
from segmed.sam.preparation import SAM, Preparation, preparation_of

if TYPE_CHECKING:
    from transformers import SamModel


class Sam(Segmenter):
    """SAM on slices that are prepared as its weights were trained, or as SAM was if they do not tell.

    Args:
        model: Any SAM-shaped model, encoder and decoder on one device.
        version: Version of the weights.
    """

    no_graphs = ""
    choose_best = True
    multimask = True
    default_preparation: ClassVar[Preparation] = SAM

    def __init__(self, model: SamModel, version: str = "0") -> None:
        super().__init__()
        self.model = model
        self.version = version
        self.input_size = int(model.prompt_encoder.input_image_size)
        self.preparation = preparation_of(model, self.default_preparation)
        self.keep_aspect = self.preparation.keep_aspect

    def fit(self, image: Tensor, frame: Frame) -> Tensor:
        return self.preparation.fit(image, frame)

    def encode(self, images: Tensor) -> Embedding:
        return self._encode(self.preparation.normalise(images))

    def decode(
        self, embedding: Embedding, prompts: Sequence[Sequence[SlicePrompt]] | None, size: tuple[int, int]
    ) -> Logits:
        low, quality = decode_low_resolution(self.model, embedding, prompts, self.choose_best)
        return Logits(self._restore(embedding.frame, low, size), quality.float())

    def candidates(
        self, embedding: Embedding, prompts: Sequence[SlicePrompt], size: tuple[int, int]
    ) -> Logits:
        """Decode three masks per prompt: the whole, a part, and a part of that."""
        if not self.multimask:
            return super().candidates(embedding, prompts, size)
        low, quality = decode_all(self.model, embedding, prompts)
        return Logits(self._restore(embedding.frame, low, size), quality.float())

    def graphs(self) -> tuple[Graph, ...]:
        if self.no_graphs:
            return super().graphs()
        from segmed.methods.sam.graphs import sam_graphs

        return sam_graphs(self.model)

    def run_by(self, runs: Mapping[str, Run]) -> None:
        from segmed.methods.sam.graphs import RunSam

        self.model = RunSam(self.model, runs)

    def _restore(self, frame: Frame, low: Tensor, size: tuple[int, int]) -> Tensor:
        """Resample the decoder's logits (B, K, h, w) to the size (H, W) of the output."""
        if self.preparation.restores_probabilities:
            return torch.logit(frame.restore(low.float().sigmoid(), size), eps=1e-6)
        return frame.restore(low.float(), size)

    def _encode(self, pixels: Tensor) -> Embedding:
        features = self.model.vision_encoder(pixels).last_hidden_state
        return Embedding(
            features.float(), Frame(pixels.shape[2], pixels.shape[3], pixels.shape[3], self.keep_aspect)
        )
