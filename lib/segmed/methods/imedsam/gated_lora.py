"""Low-rank, optionally gated updates of queries and values in the fused projection of SAM's encoder.

Source: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models (ICLR 2022); on SAM: Zhang and Liu,
Customized Segment Anything Model for Medical Image Segmentation (2023).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GatedLora(nn.Module):
    """The frozen fused projection plus B A x on its q rows and on its v rows; k is never touched.

    A starts as PyTorch starts a linear layer (Kaiming uniform, a = √5), B at zero, so that nothing changes at
    first.

    Args:
        qkv: The frozen projection, D → 3 D, with rows in the order q, k, v.
        rank: Channels between A and B.
        gate: Whether both updates are multiplied by one number per sample, linear in the mean of its tokens
            (Wei et al., I-MedSAM: Implicit Medical Image Segmentation with Segment Anything, 2024, the
            authors' code). In windowed layers a sample is a window.
    """

    def __init__(self, qkv: nn.Linear, rank: int, gate: bool) -> None:
        super().__init__()
        width = qkv.in_features
        self.base = qkv
        self.q_down, self.v_down = (nn.Linear(width, rank, bias=False) for _ in range(2))
        self.q_up, self.v_up = (nn.Linear(rank, width, bias=False) for _ in range(2))
        nn.init.zeros_(self.q_up.weight)
        nn.init.zeros_(self.v_up.weight)
        self.gate = nn.Linear(width, 1, bias=False) if gate else None

    def forward(self, tokens: Tensor) -> Tensor:
        """Project tokens, (N, h, w, D) → (N, h, w, 3 D), in the number format of the frozen projection."""
        frozen = self.base(tokens)
        tokens = tokens.to(frozen.dtype)
        # Both updates in one pair of products, with A = [A_q; A_v] (2 r, D) and B = [[B_q, 0], [0, 0], [0,
        # B_v]] (3 D, 2 r): q and v read their own half of the bottleneck, k reads nothing.
        down = torch.cat([self.q_down.weight, self.v_down.weight])
        none = torch.zeros_like(self.q_up.weight)
        q_up, k_up, v_up = ([self.q_up.weight, none], [none, none], [none, self.v_up.weight])
        up = torch.cat([torch.cat(row, 1) for row in (q_up, k_up, v_up)])
        low = F.linear(tokens, down.to(tokens.dtype))
        if self.gate is not None:
            low = low * F.linear(tokens.mean((1, 2), keepdim=True), self.gate.weight.to(tokens.dtype))
        return torch.addmm(frozen.flatten(0, -2), low.flatten(0, -2), up.to(low.dtype).T).view_as(frozen)
