"""Bottleneck adapters, and modules that wrap the layers of SAM with them without rewriting any forward pass.

An untrained adapter adds nothing, because its last layer is zero. Sources: Houlsby et al.,
Parameter-Efficient Transfer Learning for NLP (ICML 2019); Wu et al., Medical SAM Adapter (2023), for the
places in SAM and the depth adapter.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

Activation = Literal["relu", "gelu"]
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


class Adapter(nn.Module):
    """A bottleneck, W_up act(W_down x) with or without x added: (…, D) → (…, D).

    Args:
        width: Channels D of input and output.
        ratio: Ratio of the bottleneck's channels to D; at least one channel is kept.
        activation: Activation in the bottleneck.
        skip: Whether the input is added to the output.
        like: A tensor whose device and number format the weights get.
    """

    def __init__(self, width: int, ratio: float, activation: Activation, skip: bool, like: Tensor) -> None:
        super().__init__()
        bottleneck = max(1, int(width * ratio))
        with torch.device("cpu"):
            self.down, self.up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)
        self.activation = ACTIVATIONS[activation]()
        self.skip = skip
        self.to(like)

    def forward(self, x: Tensor) -> Tensor:
        change = self.up(self.activation(self.down(x.to(self.down.weight.dtype)))).to(x.dtype)
        return x + change if self.skip else change


class AdaptedAttention(nn.Module):
    """Vision attention with an adapter on its output, and optionally attention along a stack.

    The output is space(A(x)) + depth(A'(x)), where A attends within slices and A', with the same weights,
    along them. Adapters work token by token, so it makes no difference that windowed layers pass windows
    here.

    Args:
        base: The attention of an encoder layer.
        space: Adapter with skip for the output within slices.
        depth: Adapter without skip for the output of the same attention along neighbouring slices, or None.
        stack: Number of consecutive slices of a batch that are neighbours; 1 leaves `depth` unused. Remaining
            slices at the end of the batch form a shorter stack.
        windows: Windows per slice in this layer.
    """

    def __init__(
        self, base: nn.Module, space: Adapter, depth: Adapter | None, stack: int, windows: int
    ) -> None:
        super().__init__()
        self.base = base
        self.space = space
        self.depth = depth
        self.stack = stack
        self.windows = windows

    def forward(self, hidden_states: Tensor, **options: Any) -> tuple[Tensor, Tensor | None]:
        """Attend and adapt: (B · windows, H, W, D) → the same shape, and attention weights if any."""
        attended, weights = self.base(hidden_states, **options)
        adapted = self.space(attended)
        if self.depth is not None and self.stack > 1:
            parts = hidden_states.split(self.stack * self.windows)
            adapted = adapted + self.depth(torch.cat([self._along_stack(part) for part in parts]))
        return adapted, weights

    def _along_stack(self, tokens: Tensor) -> Tensor:
        """Attend among tokens at equal positions of N slices, (N · windows, H, W, D) → the same shape."""
        slices = tokens.shape[0] // self.windows
        columns = tokens.reshape(slices, -1, tokens.shape[-1]).transpose(0, 1)
        # (windows · H · W, N, 1, D): as a map of N × 1 tokens, so that relative positions count slices.
        attended, _ = self.base(columns.unsqueeze(2).contiguous())
        return attended.squeeze(2).transpose(0, 1).reshape(tokens.shape)


class AdaptedConvolutions(nn.Module):
    """A block of convolutions with an adapter with skip on its output, which is adapted pixel by pixel.

    Args:
        base: A block of a convolutional stem, (B, C, H, W) → (B, C, H, W).
        after: The adapter, on C channels.
    """

    def __init__(self, base: nn.Module, after: Adapter) -> None:
        super().__init__()
        self.base = base
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and adapt: (B, C, H, W) → the same shape."""
        return self.after(self.base(x).movedim(1, -1)).movedim(-1, 1)


class ParallelMlp(nn.Module):
    """An MLP with an adapter without skip beside it: mlp(x) + 0.5 · adapter(x) (Wu et al., 2023).

    Args:
        base: The MLP of a layer of the encoder or the decoder.
        beside: The parallel adapter.
    """

    scale = 0.5

    def __init__(self, base: nn.Module, beside: Adapter) -> None:
        super().__init__()
        self.base = base
        self.beside = beside

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token, (…, D) → (…, D)."""
        return self.base(x) + self.scale * self.beside(x)
