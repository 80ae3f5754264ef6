"""The adapters of SAM-Med2D, beside the MLP of each layer of SAM's own encoder.

Source: Cheng et al., SAM-Med2D (2023), and its public code (Apache-2.0).
"""

from __future__ import annotations

from torch import Tensor, nn
from transformers import SamVisionConfig
from transformers.models.sam.modeling_sam import SamMLPBlock, SamVisionEncoder

_RATIO = 4  # of a token's channels to those inside the channel attention


class Med2dAdapter(nn.Module):
    """Attention over channels, then a convolution to half the scale and back, (B, H, W, C) → (B, H, W, C).

    Args:
        width: Channels C of a token.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(width, width // _RATIO, bias=False)
        self.excite = nn.Linear(width // _RATIO, width, bias=False)
        self.down = nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False)
        self.up = nn.ConvTranspose2d(width, width, 4, stride=2, padding=1, bias=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        share = self.excite(self.squeeze(tokens.mean((1, 2))).relu()).sigmoid()
        weighted = (tokens * share[:, None, None]).permute(0, 3, 1, 2)
        mixed = self.up(self.down(weighted).relu()).relu()
        return self.norm(tokens + mixed.permute(0, 2, 3, 1))


class AdaptedMlp(SamMLPBlock):
    """The MLP of a layer with an adapter that reads the same tokens; both outputs are added.

    Args:
        config: Configuration of the encoder.
    """

    def __init__(self, config: SamVisionConfig) -> None:
        super().__init__(config)
        self.adapter = Med2dAdapter(config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return super().forward(hidden_states) + self.adapter(hidden_states)


def add_adapters(encoder: SamVisionEncoder) -> None:
    """Give each layer of an encoder an adapter, with random weights."""
    for layer in encoder.layers:
        layer.mlp = AdaptedMlp(encoder.config)
