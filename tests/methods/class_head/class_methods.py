"""Both methods with class tokens on small SAMs, an example to train them on, and measures."""

from __future__ import annotations

import pytest
import torch
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.adapter.adapter import AdapterSam, AdapterSamConfig
from segmed.methods.lora import LoraSam, LoraSamConfig
from segmed.methods.sam.class_head import TrainableClassSegmenter
from segmed.sam.stem import build_sam
from segmed.sam.tiny import tiny_config
from tiny_sam import tiny_sam
from torch import Tensor
from transformers import SamModel

LABELS = ("disc", "block")
METHODS = [(LoraSam, LoraSamConfig), (AdapterSam, AdapterSamConfig)]
both = pytest.mark.parametrize(("method", "config"), METHODS, ids=["lora", "adapter"])


def conv_stem_sam() -> SamModel:
    """64 px, no windows, no relative positions, 64 channels; every weight is random."""
    sizes = {
        "hidden": 64,
        "layers": 2,
        "heads": 2,
        "width": 64,
        "stem_channels": (16, 32, 64),
        "stem_depths": (0, 0, 1),
    }
    torch.manual_seed(0)
    model = build_sam(tiny_config(64, **sizes))  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 1 if "positional" in name else parameter[0].numel() ** -0.5)
    return model.eval()


BACKBONES = {"windows": lambda: tiny_sam(0, 128), "stem": conv_stem_sam}


def example(side: int, batch: int = 2) -> tuple[Tensor, Tensor]:
    """Images (B, 3, side, side) of a bright disc and a dark block, and their classes (B, 1, side, side)."""
    y, x = torch.meshgrid(torch.linspace(0, 1, side), torch.linspace(0, 1, side), indexing="ij")
    images, truth = torch.full((batch, 3, side, side), 0.3), torch.zeros(batch, 1, side, side)
    for b in range(batch):
        disc = (x - 0.3 - 0.06 * b) ** 2 + (y - 0.35) ** 2 < 0.19**2
        block = ((x - 0.7).abs() < 0.17) & ((y - 0.66 - 0.03 * b).abs() < 0.14)
        images[b, :, disc], images[b, :, block] = 0.9, 0.05
        truth[b, 0, disc], truth[b, 0, block] = 1.0, 2.0
    return images, truth


def train(
    segmenter: TrainableClassSegmenter,
    steps: int,
    prompts: list[list[SlicePrompt]] | None = None,
    rate: float = 3e-3,
) -> list[float]:
    """Losses of a few steps on the example; with prompts the disc is what they ask for."""
    images, truth = example(int(segmenter.input_size or 0))
    truth = truth if prompts is None else (truth == 1).float()
    optimiser = torch.optim.AdamW([p for p in segmenter.parameters() if p.requires_grad], lr=rate)
    losses = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = segmenter.loss(images, prompts, truth)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def snapshot(model: SamModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def class_dice(one: Tensor, two: Tensor, classes: int) -> list[float]:
    """Dice of each class of two class maps."""
    masks = [(one == c, two == c) for c in range(classes)]
    return [float(2 * (a & b).sum() / (a.sum() + b.sum())) for a, b in masks]
