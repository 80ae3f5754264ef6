#!/usr/bin/env python
"""Where prompts should enter the default model: short trainings of its alternatives with the same objects.

    python scripts/compare_networks.py RUNS --pack FOLDER --imagenet FILE [--steps 300]

Each network starts from the same ImageNet encoder and sees the same objects in the same order:

- `encoder`: the default model; prompts are channels of the deeper half of the encoder;
- `decoder`: the encoder sees the image only, as in SAM (Kirillov et al., Segment Anything, ICCV 2023); the
  prompt is added to its features at all resolutions, followed by two layers of attention at 1/16;
- `no evidence`: the default model without the channels that compare grey values.

Validation is that of train_default.py, on sources that were not trained on. A run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from ablate_rules import WithoutEvidence
from segmed.data.datasets.training_pack import TrainingPack
from segmed.methods.segmed.encoder import folded
from segmed.methods.segmed.network import PromptNetwork, WindowFeatures
from segmed.pretraining.objects import ObjectConfig, ObjectSource
from segmed.pretraining.pool import ObjectPool
from segmed.pretraining.trainer import Pretraining, PretrainingConfig
from torch import Tensor, nn
from train_default import HELD_OUT, VALIDATED


class DecoderPrompts(PromptNetwork):
    """The same encoder and decoder, but the encoder's features are the same for all prompts of an image."""

    def __init__(self) -> None:
        super().__init__()
        quarter = self.encoder.early_channels[1]
        eighth, sixteenth, deepest = self.encoder.late_channels
        sides = ((quarter, eighth), (eighth, sixteenth), (sixteenth, deepest))
        self.prompts = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in sides)
        layer = nn.TransformerEncoderLayer(
            sixteenth, 4, 2 * sixteenth, 0.0, batch_first=True, norm_first=True
        )
        self.attention = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.place = nn.Parameter(torch.zeros(1, sixteenth, 8, 8))

    def forward(self, features: WindowFeatures, images: Tensor, channels: Tensor) -> tuple[Tensor, Tensor]:
        drawn_half = self.prompt_half(torch.cat([images - 0.5, channels], 1))
        drawn = [self.prompt_quarter(drawn_half)]
        for layer in self.prompts:
            drawn.append(layer(F.relu(drawn[-1])))
        eighth, sixteenth, deepest = self.encoder.late(features.quarter)
        eighth, deepest = eighth + drawn[1], deepest + drawn[3]
        place = F.interpolate(self.place, sixteenth.shape[2:], mode="bilinear", align_corners=False)
        tokens = (sixteenth + drawn[2] + place).flatten(2).transpose(1, 2)  # (B, hw, D)
        sixteenth = self.attention(tokens).transpose(1, 2).unflatten(2, sixteenth.shape[2:])
        bottom = F.relu(self.reduce(deepest))
        x = self.up8(self.up16(bottom, sixteenth), eighth)
        x = self.up4(x, torch.cat([features.quarter, drawn[0]], 1))
        x = self.up2(x, torch.cat([features.half, drawn_half], 1))
        halves = self.masks(x)
        return F.pixel_shuffle(halves, 2), self._quality(x, halves, bottom)


NETWORKS: dict[str, type[PromptNetwork]] = {
    "encoder": PromptNetwork,
    "decoder": DecoderPrompts,
    "no evidence": WithoutEvidence,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pack", type=Path, required=True, help="folder of labelled images")
    parser.add_argument("--imagenet", type=Path, required=True, help="ImageNet weights of EfficientNet-Lite0")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=48, help="objects per step")
    parser.add_argument("--size", type=int, default=96, help="side of the windows, px")
    options = parser.parse_args()
    unseen = ObjectSource(TrainingPack(options.pack, only=HELD_OUT), ObjectConfig(0.0, 0.0, 0.0), 1)
    source = ObjectSource(TrainingPack(options.pack, without=HELD_OUT))

    def opened() -> ObjectPool:
        pool = ObjectPool(unseen, 2 * VALIDATED, options.size, seed=77)
        pool.refill()
        return pool

    for name in options.networks:
        torch.manual_seed(0)
        network = NETWORKS[name]()
        weights = torch.load(options.imagenet, map_location="cpu", weights_only=True)
        network.encoder.load_state_dict(folded(weights))
        config = PretrainingConfig(options.steps, warmup=min(100, options.steps // 4), average=0.99)
        pool = ObjectPool(source, options.batch, options.size)
        folder = options.folder / name.replace(" ", "-")
        run = Pretraining(network, config, pool, {"Dice": opened}, folder, facts=name)
        begun, start = run.step, time.process_time()
        run.run()
        rate = (run.step - begun) * options.batch / max(time.process_time() - start, 1e-9)
        told = "  ".join(f"{k.removeprefix('Dice ')} {v:.3f}" for k, v in run.validate().items())
        print(f"{name}: {told}  ({rate:.0f} samples a second of the processor)", flush=True)


if __name__ == "__main__":
    main()
