#!/usr/bin/env python
"""The SAM ViT-B image encoder at 1024 px: transformers' and ours, fp32 and bf16, time and agreement in one
run.

Random weights (sd 0.02, relative positions 0.1), a smooth random picture; masks of 16 boxes by the same
decoder, thresholded at their median because random weights put no object into them. Usage: python
scripts/bench_encoder.py
"""

from __future__ import annotations

import argparse
import copy
import os
import time

import numpy as np
import torch
import torch.nn.functional as F
from segmed.evaluation.metrics import Overlap
from segmed.sam.cpu.dtype import cpu_has_bf16
from segmed.sam.cpu.precision import prepare_encoder
from torch import Tensor, nn
from transformers import SamConfig, SamModel


def random_sam() -> SamModel:
    """ViT-B with weights at the scale of trained ones."""
    torch.manual_seed(0)
    model = SamModel(SamConfig()).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.trunc_normal_(parameter, std=0.1 if "rel_pos" in name else 0.02)
    return model


@torch.inference_mode()
def masks(model: SamModel, features: Tensor) -> np.ndarray:
    """(16, 256, 256) boolean."""
    generator = torch.Generator().manual_seed(1)
    corner = torch.rand(1, 16, 2, generator=generator) * 500
    boxes = torch.cat([corner, corner + 150 + torch.rand(1, 16, 2, generator=generator) * 300], -1)
    low = model(image_embeddings=features, input_boxes=boxes, multimask_output=False).pred_masks[0, :, 0]
    return (low > low.flatten(1).median(1).values[:, None, None]).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    model = random_sam()
    stock = model.vision_encoder
    encoders: dict[str, tuple[nn.Module, torch.dtype]] = {
        "transformers fp32": (stock, torch.float32),
        "SegMed fp32": (prepare_encoder(copy.deepcopy(stock), torch.device("cpu"), "fp32"), torch.float32),
        "transformers bf16": (copy.deepcopy(stock).bfloat16(), torch.bfloat16),
        "SegMed bf16": (prepare_encoder(copy.deepcopy(stock), torch.device("cpu"), "bf16"), torch.float32),
    }
    picture = F.interpolate(torch.rand(1, 3, 48, 48), (1024, 1024), mode="bicubic").clamp(0, 1)
    times: dict[str, list[float]] = {name: [] for name in encoders}
    features: dict[str, Tensor] = {}
    with torch.inference_mode():
        for _ in range(repeats):
            for name, (encoder, dtype) in encoders.items():
                start = time.perf_counter()
                features[name] = encoder(picture.to(dtype)).last_hidden_state.float()
                times[name].append(time.perf_counter() - start)
    first = "transformers fp32"
    truth = masks(model, features[first])
    print(f"torch {torch.__version__}, {os.cpu_count()} CPUs, bf16 instructions: {cpu_has_bf16()}\n")
    print("| encoder | fastest of runs | against transformers fp32 | cosine | mask Dice, mean (min) |")
    print("|" + "---|" * 5)
    for name in encoders:
        found = masks(model, features[name])
        dice = [Overlap.of(a, b).dice() for a, b in zip(found, truth, strict=True)]
        cosine = float(
            F.cosine_similarity(features[name].double().flatten(), features[first].double().flatten(), dim=0)
        )
        fastest = min(times[name])
        print(
            f"| {name} | {fastest:.2f} s | {min(times[first]) / fastest:.1f} × | {cosine:.5f} | "
            f"{np.mean(dice):.4f} ({min(dice):.4f}) |"
        )


if __name__ == "__main__":
    main()
