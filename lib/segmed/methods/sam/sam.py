"""Plain SAM, with the published preparation of slices and resampling of masks.

Source: Kirillov et al., Segment Anything (ICCV 2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from segmed.imaging.prompts import SlicePrompt
from segmed.methods.base.graph import Graph, Run
from segmed.methods.base.method import Parts
from segmed.methods.base.segmenter import Logits, Segmenter
from segmed.sam.decoding import decode_all, decode_low_resolution
from segmed.sam.embedding import Embedding
from segmed.sam.frame import Frame

if TYPE_CHECKING:
    from transformers import SamModel


class Sam(Segmenter):
    """SAM on slices scaled by their longer side, normalised and zero-padded; logits are resampled.

    Args:
        model: Any SAM-shaped model, encoder and decoder on one device.
        version: Version of the weights.
    """

    no_graphs = ""
    keep_aspect = True
    choose_best = True
    multimask = True
    mean: Tensor
    sd: Tensor

    def __init__(self, model: SamModel, version: str = "0") -> None:
        super().__init__()
        self.model = model
        self.version = version
        self.input_size = int(model.prompt_encoder.input_image_size)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("sd", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)

    def fit(self, image: Tensor, frame: Frame) -> Tensor:
        # Padding with the mean becomes zero by the normalisation.
        image = image.expand(3, -1, -1) / 255
        return frame.fit(image, "bilinear", fill=self.mean.cpu()).clamp(0, 1)

    def encode(self, images: Tensor) -> Embedding:
        return self._encode((images - self.mean) / self.sd)

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
        return frame.restore(low.float(), size)

    def _encode(self, pixels: Tensor) -> Embedding:
        features = self.model.vision_encoder(pixels).last_hidden_state
        return Embedding(
            features.float(), Frame(pixels.shape[2], pixels.shape[3], pixels.shape[3], self.keep_aspect)
        )


def _build(model: SamModel | None, version: str) -> Sam:
    assert model is not None
    return Sam(model, f"sam-{version}")


PARTS = Parts(_build)
