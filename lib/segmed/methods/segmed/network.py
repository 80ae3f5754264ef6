"""The network of the default model: from an image window and prompt channels to masks of the window.

Prompts enter as channels, as in ScribblePrompt (Wong et al., ECCV 2024): one half of the encoder depends on
the image only and is computed once per window; the prompt is added at a quarter of the resolution, so that
the deep half of the encoder depends on both. Three masks for a single click (part, object, whole) and one for
all other prompts, each with its predicted IoU, follow Segment Anything (Kirillov et al., 2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segmed.methods.segmed.encoder import EfficientNetLite0
from segmed.methods.segmed.prompt_channels import CHANNELS

if TYPE_CHECKING:
    from segmed.methods.segmed.click_choice import ClickChoice

MASKS = 4  # the first for unambiguous prompts, the others for a single click
_PROMPT = (16, 24)  # channels of the drawn prompt at 1/2 and at 1/4
_DECODER = (96, 64, 48, 32)  # channels at 1/16, 1/8, 1/4 and 1/2


@dataclass(frozen=True)
class WindowFeatures:
    """The features of B windows from the image half of the encoder.

    Attributes:
        half: Features (B, 16, S/2, S/2).
        quarter: Features (B, 24, S/4, S/4).
    """

    half: Tensor
    quarter: Tensor


class PromptNetwork(nn.Module):
    """The network from windows and prompt channels to logits and predicted IoU.

    Attributes:
        choice: Chooses among the masks of a few clicks, and belongs to the weights; without it, the
            agreement of all masks decides.
    """

    def __init__(self) -> None:
        super().__init__()
        self.choice: ClickChoice | None = None
        self.encoder = EfficientNetLite0()
        at_half, at_quarter = self.encoder.early_channels
        eighth, sixteenth, deepest = self.encoder.late_channels
        self.prompt_half = nn.Sequential(_conv(3 + CHANNELS, _PROMPT[0], 4, 2), nn.ReLU())
        self.prompt_quarter = nn.Sequential(
            _conv(_PROMPT[0], _PROMPT[1], 4, 2), nn.ReLU(), nn.Conv2d(_PROMPT[1], at_quarter, 1)
        )
        a, b, c, d = _DECODER
        self.reduce = nn.Conv2d(deepest, a, 1)
        self.up16 = Up(a, sixteenth, a)
        self.up8 = Up(a, eighth, b)
        self.up4 = Up(b, at_quarter + at_quarter, c)
        self.up2 = Up(c, at_half + _PROMPT[0], d)
        self.masks = nn.Conv2d(d, 4 * MASKS, 1)  # 2 x 2 pixels of each mask
        self.quality = nn.Sequential(nn.Linear(2 * d + a + 2, 64), nn.ReLU(), nn.Linear(64, 1))

    def features(self, images: Tensor) -> WindowFeatures:
        """Compute the image half of the encoder for windows (B, 3, S, S) in [0, 1], S a multiple of 32."""
        return WindowFeatures(*self.encoder.early(images))

    def forward(self, features: WindowFeatures, images: Tensor, channels: Tensor) -> tuple[Tensor, Tensor]:
        """Predict the masks of windows for one prompt each.

        Args:
            features: Features of the windows.
            images: The same windows (B, 3, S, S) in [0, 1].
            channels: Prompt channels (B, C, S, S), see `prompt_channels`.

        Returns:
            Logits (B, 4, S, S) and predicted IoU (B, 4) in [0, 1].
        """
        drawn_half = self.prompt_half(torch.cat([images - 0.5, channels], 1))
        drawn_quarter = self.prompt_quarter(drawn_half)
        eighth, sixteenth, deepest = self.encoder.late(features.quarter + drawn_quarter)
        bottom = F.relu(self.reduce(deepest))
        x = self.up16(bottom, sixteenth)
        x = self.up8(x, eighth)
        x = self.up4(x, torch.cat([features.quarter, drawn_quarter], 1))
        x = self.up2(x, torch.cat([features.half, drawn_half], 1))
        halves = self.masks(x)
        return F.pixel_shuffle(halves, 2), self._quality(x, halves, bottom)

    def _quality(self, x: Tensor, halves: Tensor, bottom: Tensor) -> Tensor:
        """Predict the IoU (B, 4) from features (B, D, h, w) averaged inside and outside of each mask.

        A mask with probabilities p covers sum(p) pixels; its mean feature is sum(p * x) / sum(p). Further
        inputs are the certainty of the mask, mean |2p - 1|, its share of the window, and the mean of the
        deepest features. The gradient flows into the features only.
        """
        count = x.shape[0]  # len would be a constant in exported graphs
        p = halves.detach().float().unflatten(1, (MASKS, 4)).mean(2).sigmoid().flatten(2)  # (B, 4, hw)
        flat = x.float().flatten(2)  # (B, D, hw)
        inside = torch.einsum("bmp,bdp->bmd", p, flat) / (p.sum(2, keepdim=True) + 1)
        outside = torch.einsum("bmp,bdp->bmd", 1 - p, flat) / ((1 - p).sum(2, keepdim=True) + 1)
        whole = bottom.float().mean((2, 3))[:, None].expand(count, MASKS, -1)
        certainty = torch.stack([(2 * p - 1).abs().mean(2), p.mean(2)], 2)
        return self.quality(torch.cat([inside, outside, whole, certainty], 2))[..., 0].sigmoid()


class Up(nn.Module):
    """A decoder stage that doubles the resolution, joins the encoder's features and convolves both.

    (B, I, h, w) and (B, K, 2h, 2w) to (B, O, 2h, 2w).
    """

    def __init__(self, inputs: int, skipped: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs + skipped, outputs, 3, padding=1)
        self.norm = nn.GroupNorm(8, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
        return F.relu(self.norm(self.first(torch.cat([x, skip], 1))))


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, (kernel - stride) // 2)
