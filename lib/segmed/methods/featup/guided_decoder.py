"""SAM's mask decoder with FeatUp's guidance; a file of its own, because it imports transformers."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from transformers.models.sam.modeling_sam import SamMaskDecoder


class GuidedDecoder(SamMaskDecoder):
    """A mask decoder whose image embeddings may carry guidance, folded into further channels."""

    def forward(self, image_embeddings: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """As of SAM, with image embeddings (B, C, h, w) or (B, C + C / 8 · f², h, w)."""
        features, folded = image_embeddings.tensor_split([self.hidden_size], 1)
        factor = round((folded.shape[1] / self.upscale_conv2.out_channels) ** 0.5)
        self.upscale_conv2.guidance = F.pixel_shuffle(folded, factor) if factor else None
        try:
            return super().forward(features, *args, **kwargs)
        finally:
            self.upscale_conv2.guidance = None
