"""EfficientNet-Lite0 as an image encoder, with its batch normalisation folded into the convolutions.

Source: Tan and Le, EfficientNet (ICML 2019), and the Lite variant without squeeze-and-excitation and with
ReLU6 that Google published in 2020. Folded, the network consists of convolutions with biases only: it runs
faster, can be trained in small batches, and has the same outputs as the published one in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_EPSILON = 1e-3  # epsilon of the published batch normalisation
# expansion, output channels, kernel, stride, repeats
_STAGES = (
    (1, 16, 3, 1, 1),
    (6, 24, 3, 2, 2),
    (6, 40, 5, 2, 2),
    (6, 80, 3, 2, 3),
    (6, 112, 5, 1, 3),
    (6, 192, 5, 2, 4),
    (6, 320, 3, 1, 1),
)
STEM = 32  # channels of the stem
_EARLY = 2  # stages before the prompt is added


class SamePadded(nn.Conv2d):
    """A convolution padded as in TensorFlow: at stride 2 the extra pixel is right and at the bottom."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        even = (kernel - 1) // 2
        super().__init__(inputs, outputs, kernel, stride, even if stride == 1 else 0, groups=groups)
        self.extra = (even if stride == 1 else (kernel - stride) // 2, kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] > 1:
            low, high = self.extra
            x = F.pad(x, (low, high, low, high))
        return super().forward(x)


class InvertedResidual(nn.Module):
    """An inverted residual block: 1×1 expansion, depthwise filter, 1×1 projection (Sandler et al., 2018)."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = nn.Conv2d(inputs, inner, 1) if expansion > 1 else None
        self.depthwise = SamePadded(inner, inner, kernel, stride, groups=inner)
        self.project = nn.Conv2d(inner, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu6(self.expand(x)) if self.expand is not None else x
        out: Tensor = self.project(F.relu6(self.depthwise(inner)))
        return x + out if self.residual else out


class EfficientNetLite0(nn.Module):
    """The published network up to its last block, in two halves between which a prompt can be added.

    `early` depends on the image only, so that its features can be reused for any number of prompts; `late`
    continues from the sum of its last features and those of a prompt.
    """

    early_channels = (16, 24)  # at 1/2 and 1/4 of the input
    late_channels = (40, 112, 320)  # at 1/8, 1/16 and 1/32

    def __init__(self) -> None:
        super().__init__()
        self.stem = SamePadded(3, STEM, 3, 2)
        stages, inputs = [], STEM
        for expansion, outputs, kernel, stride, repeats in _STAGES:
            blocks = []
            for n in range(repeats):
                blocks.append(InvertedResidual(inputs, outputs, expansion, kernel, stride if n == 0 else 1))
                inputs = outputs
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)

    def early(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features of images (B, 3, S, S) in [0, 1]: (B, 16, S/2, S/2) and (B, 24, S/4, S/4)."""
        half = self.stages[0](F.relu6(self.stem(images * 2 - 1)))
        return half, self.stages[1](half)

    def late(self, quarter: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of (B, 24, S/4, S/4): (B, 40, S/8, S/8), (B, 112, S/16, S/16) and (B, 320, S/32, S/32)."""
        eighth = self.stages[2](quarter)
        sixteenth = self.stages[4](self.stages[3](eighth))
        return eighth, sixteenth, self.stages[6](self.stages[5](sixteenth))

    def early_parameters(self) -> list[nn.Parameter]:
        """The parameters of `early`."""
        return [*self.stem.parameters(), *self.stages[:_EARLY].parameters()]


def folded(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the published state with batch normalisation to that of an `EfficientNetLite0`.

    A convolution with normalisation, y = (w * x - mean) g / sqrt(var + eps) + b, equals the convolution with
    weight w s and bias b - mean s, where s = g / sqrt(var + eps).

    Args:
        published: State of the PyTorch port (`_conv_stem.weight`, `_blocks.N._expand_conv.weight`, …).

    Raises:
        KeyError: If the state is not that of this network.
    """
    state: dict[str, Tensor] = {}

    def take(target: str, conv: str, norm: str) -> None:
        mean, variance = published[f"{norm}.running_mean"], published[f"{norm}.running_var"]
        scale = published[f"{norm}.weight"] / torch.sqrt(variance + _EPSILON)
        state[f"{target}.weight"] = published[f"{conv}.weight"] * scale[:, None, None, None]
        state[f"{target}.bias"] = published[f"{norm}.bias"] - mean * scale

    take("stem", "_conv_stem", "_bn0")
    block = 0
    for stage, (expansion, _, _, _, repeats) in enumerate(_STAGES):
        for n in range(repeats):
            source, target = f"_blocks.{block}", f"stages.{stage}.{n}"
            if expansion > 1:
                take(f"{target}.expand", f"{source}._expand_conv", f"{source}._bn0")
            take(f"{target}.depthwise", f"{source}._depthwise_conv", f"{source}._bn1")
            take(f"{target}.project", f"{source}._project_conv", f"{source}._bn2")
            block += 1
    return state
