"""Blocks with wide hidden layers, computed band by band, so that these stay in the caches of a CPU.

At the first scales of a convolutional encoder, the hidden layer of a block takes 64 MB, and writing and
reading it costs more than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BYTES = 2**22  # of the hidden layer per thread and band

Step = Callable[[Tensor], Tensor]


def separable(x: Tensor, first: Step, depthwise: nn.Conv2d, last: Step) -> Tensor:
    """Apply a layer on each pixel, a depthwise 3×3 convolution, and a layer on each pixel again.

    Args:
        x: (B, C, H, W).
        first: pixels with C channels to those with the channels of the convolution, with its activation.
        depthwise: of any stride, with a padding of 1.
        last: activation of the convolution's output, and the layer behind it.

    Returns:
        (B, channels of `last`, H / stride, W / stride).
    """
    height, width, stride = x.shape[2], x.shape[3], int(depthwise.stride[0])
    rows = _band(x, len(x) * width * depthwise.in_channels * stride)
    outputs = (height - 1) // stride + 1
    if not rows or rows >= outputs:
        return last(depthwise(first(x)))
    parts = []
    for start in range(0, outputs, rows):
        stop = min(start + rows, outputs)
        # a row of the output sees the row below it in the hidden layer, and one to each side
        low, high = start * stride - 1, (stop - 1) * stride + 2
        hidden = first(x[:, :, max(low, 0) : min(high, height)])
        if low < 0 or high > height:
            hidden = F.pad(hidden, (0, 0, max(-low, 0), max(high - height, 0)))
        seen = F.conv2d(hidden, depthwise.weight, depthwise.bias, stride, (0, 1), groups=depthwise.groups)
        parts.append(last(seen))
    return torch.cat(parts, 2)


def tokenwise(x: Tensor, layers: Step, hidden: int) -> Tensor:
    """Apply layers that treat each token by itself, (..., C) → (..., D).

    Args:
        x: the tokens.
        layers: what to apply.
        hidden: largest number of channels inside.
    """
    tokens = x.reshape(-1, x.shape[-1])
    count = _band(x, hidden)
    if not count or count >= len(tokens):
        return layers(x)
    return torch.cat([layers(part) for part in tokens.split(count)]).unflatten(0, x.shape[:-1])


def _band(x: Tensor, values: int) -> int:
    """How many rows or tokens with that many hidden values fit into the caches; 0 to take all at once."""
    if (
        x.device.type != "cpu"
        or torch.is_grad_enabled()
        or torch.jit.is_tracing()
        or torch.compiler.is_compiling()
    ):
        return 0
    return max(1, _BYTES * torch.get_num_threads() // (values * x.element_size()))
