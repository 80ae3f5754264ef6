"""The embedded model with a mask decoder tuned on the user's data, in the windows that it looks at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import SamModel

from segmed.imaging.prompts import SlicePrompt
from segmed.methods.decoder_tuning import RECIPES, DecoderTuningConfig, tuned_names
from segmed.methods.segmed.segmenter import Segmed
from segmed.methods.segmed.views import View
from segmed.methods.segmenter import Method, Training
from segmed.methods.trainable import TrainableSegmenter
from segmed.sam.embedding import Embedding
from segmed.sam.weights import EMBEDDED
from segmed.sam.window import sampling_grid, windows_around

_SIDE = 256  # px, longer side of the slices that are learnt from
_ZOOM = (1.4, 2.0)  # of the windows, in sides of the box, as the embedded weights were trained


class SegmedTuning(Segmed, TrainableSegmenter):
    """`Segmed` while it learns: slices in a square, one window around each box.

    Args:
        model: a small SAM as for `Segmed`.
        config: what trains.
        version: names the weights.
    """

    name: ClassVar[str] = "segmed"
    input_size = _SIDE
    keep_aspect = True

    def __init__(self, model: SamModel, config: DecoderTuningConfig | None = None, version: str = "0") -> None:
        super().__init__(model, version)
        self.config = config or DecoderTuningConfig()
        self.recipe = RECIPES[self.config.preset]

    def trained_names(self) -> list[str]:
        return tuned_names(self, self.config.preset)

    def loss_from(
        self,
        embedding: Embedding,
        prompts: Sequence[Sequence[SlicePrompt]] | None,
        truth: Tensor,
        progress: float = 1.0,
    ) -> Tensor:
        """The loss in the windows, at the decoder's resolution.

        Args:
            embedding: slices in the square.
            prompts: B lists of K prompts with a box each.
            truth: (B, K, S, S) in [0, 1].
            progress: not used.

        Raises:
            ValueError: a prompt without a box.
        """
        items = [(b, n, prompt) for b, row in enumerate(prompts or []) for n, prompt in enumerate(row)]
        if not items or any(prompt.box is None for _, _, prompt in items):
            raise ValueError("segmed is trained with boxes. Give one list of prompts with a box each per slice.")
        boxes = torch.tensor([prompt.box for _, _, prompt in items], dtype=torch.float32)
        low, high = _ZOOM
        windows = windows_around(boxes, low * (high / low) ** torch.rand(len(boxes)))
        none = torch.zeros(0, 2), torch.zeros(0, dtype=torch.long)
        views = [View(item[0], window, box, *none) for item, window, box in zip(items, windows, boxes, strict=True)]
        masks, _ = self._look(embedding, views)
        side = truth.shape[-1]
        grid = sampling_grid(windows, side, side, masks.shape[-1]).to(truth.device)
        wanted = torch.stack([truth[b, n] for b, n, _ in items])[:, None].float()
        return self.recipe.loss_of(masks[:, None], F.grid_sample(wanted, grid, align_corners=False))


def _untrained(model: SamModel | None, version: str) -> Segmed:
    assert model is not None
    return Segmed(model, f"segmed-{version}")


def _served(tuned: SegmedTuning) -> Segmed:
    return Segmed(tuned.model, tuned.version)


METHOD = Method(
    "segmed",
    "SegMed's own small model: a box or clicks",
    _untrained,
    weights=EMBEDDED,
    training=Training(SegmedTuning, DecoderTuningConfig, _served),
)
