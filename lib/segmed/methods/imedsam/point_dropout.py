"""The dropout of I-MedSAM's authors: in each pass, every output of a network is drawn for every point.

What follows from the passes depends only on how many of them keep an output, and on the last one. One bit per
output and pass is therefore drawn, eight of them at a time, instead of one number.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_OUTPUTS = 8  # bytes of a drawn number
_BITS = 8  # passes per byte
# A byte repeated in all bytes of a number.
_ONES, _PAIRS, _FOURS, _BYTES = (
    int.from_bytes(bytes([b]) * 8, "little", signed=True) for b in (0x01, 0x55, 0x33, 0x0F)
)


class Draw(NamedTuple):
    """The passes of a tensor's elements.

    Attributes:
        kept: Number of passes that keep an element, uint8.
        last: Whether the last pass keeps it, bool.
    """

    kept: Tensor
    last: Tensor


def draw_passes(shape: tuple[int, ...], passes: int, generator: torch.Generator | None = None) -> Draw:
    """Draw for every element and pass whether it is kept, with a probability of one half.

    Args:
        shape: Shape of the tensor.
        passes: Number of passes, at most 255.
        generator: A random generator on the CPU, or None for PyTorch's global one.
    """
    numbers = -(-torch.Size(shape).numel() // _OUTPUTS)
    total = torch.zeros(numbers, dtype=torch.int64)
    for first in range(0, passes, _BITS):
        bits = torch.empty_like(total).random_(-(2**63), None, generator=generator)
        used = min(passes - first, _BITS)
        if used < _BITS:
            bits &= ((1 << used) - 1) * _ONES
        last = (bits >> (used - 1)) & _ONES
        total += _ones_per_byte(bits)
    return Draw(_elements(total, shape), _elements(last, shape).view(torch.bool))


def _ones_per_byte(numbers: Tensor) -> Tensor:
    """Number of bits that are 1 in each byte: sums of pairs, then of four, then of eight."""
    pairs = numbers - ((numbers >> 1) & _PAIRS)
    fours = (pairs & _FOURS) + ((pairs >> 2) & _FOURS)
    return (fours + (fours >> 4)) & _BYTES


def _elements(numbers: Tensor, shape: tuple[int, ...]) -> Tensor:
    return numbers.view(torch.uint8)[: torch.Size(shape).numel()].view(shape)
