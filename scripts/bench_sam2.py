#!/usr/bin/env python
"""Propagation by SAM 2 (Hiera tiny, random weights) through a stack of slices: SegMed beside bare
transformers.

Both encode every slice once, start from the same box in the middle and follow it in both directions. Runs
alternate, and the fastest of each counts. Usage: python scripts/bench_sam2.py [--size 512] [--slices 12]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from segmed.imaging.picture import Picture
from segmed.imaging.prompts import Box, Prompt
from segmed.imaging.store import ByteBoundedStore
from segmed.inference.predictor import Masks, Predictor
from segmed.methods.sam.sam2 import Sam2
from segmed.sam.sam2 import Sam2Weights, image_model
from transformers import Sam2VideoConfig, Sam2VideoInferenceSession, Sam2VideoModel

BOX = (0.3, 0.35, 0.7, 0.65)  # x0, y0, x1, y1 in sides of the slice


def random_sam2(size: int) -> Sam2VideoModel:
    """SAM 2 with Hiera tiny; it says of every slice that the object is there."""
    torch.manual_seed(0)
    tokens = size // 16
    config = Sam2VideoConfig(image_size=size, memory_attention_rope_feat_sizes=[tokens, tokens])
    config.prompt_encoder_config.image_size = size
    config.vision_config.backbone_config.image_size = [size, size]
    config.vision_config.backbone_feature_sizes = [[factor * tokens] * 2 for factor in (4, 2, 1)]
    model = Sam2VideoModel(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.trunc_normal_(parameter, std=0.05)
    model.mask_decoder.pred_obj_score_head.proj_out.weight.zero_()
    model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(10.0)
    return model


def segmed(model: Sam2VideoModel, picture: Picture) -> Masks:
    """Masks by slice as a server computes them."""
    method = Sam2(Sam2Weights(image_model(model), model).eval()).eval()
    side, _, depth = picture.shape
    x0, y0, x1, y1 = (int(v * side) for v in BOX)
    prompt = Prompt(Box((x0, x1), (y0, y1), (depth // 2, depth // 2)))
    return Predictor(method, ByteBoundedStore(2**30)).segment_volume(picture, prompt)


@torch.inference_mode()
def bare(model: Sam2VideoModel, picture: Picture) -> Masks:
    """Masks by slice as transformers' video model computes them."""
    side, _, depth = picture.shape
    method = Sam2(Sam2Weights(image_model(model), model).eval()).eval()
    pixels = torch.stack([method.prepare(picture.slice(k))[0] for k in range(depth)])
    session = Sam2VideoInferenceSession((pixels - method.mean) / method.sd, side, side, dtype=torch.float32)
    session.obj_id_to_idx(1)
    corners = torch.tensor([int(v * side) for v in BOX]).view(1, 1, 2, 2).float() * (model.image_size / side)
    labels = torch.tensor([[[2, 3]]], dtype=torch.int32)
    session.add_point_inputs(0, depth // 2, {"point_coords": corners, "point_labels": labels})
    session.obj_with_new_inputs = [1]
    found = {}

    def keep(k: int, low: torch.Tensor) -> None:
        full = torch.nn.functional.interpolate(low.float(), (side, side), mode="bilinear")
        found[k] = (full[0, 0] > 0).numpy()

    keep(depth // 2, model(session, frame_idx=depth // 2).pred_masks)
    for reverse in (False, True):
        for out in model.propagate_in_video_iterator(session, reverse=reverse):
            keep(out.frame_idx, out.pred_masks)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=512, help="input of the model in px")
    parser.add_argument("--slices", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((1, 1, 4, 12, 12))).float()
    fine = torch.nn.functional.interpolate(coarse, (options.slices, 256, 256), mode="trilinear")[0, 0]
    array = (fine.numpy().transpose(2, 1, 0) * 220 + 20).astype(np.uint8)
    model = random_sam2(options.size)
    runs: dict[str, Callable[[Sam2VideoModel, Picture], Masks]] = {"transformers": bare, "SegMed": segmed}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    masks: dict[str, Masks] = {}
    for n in range(options.repeats):
        for name, run in runs.items():
            start = time.process_time()
            masks[name] = run(model, Picture(array, np.eye(4), f"stack {n}", "auto"))
            seconds[name].append(time.process_time() - start)
    same = np.mean([(masks["SegMed"][k] == m).mean() for k, m in masks["transformers"].items()])
    print(
        f"torch {torch.__version__}, SAM 2 tiny at {options.size} px, {options.slices} slices, "
        f"{options.threads} thread(s)"
    )
    print("\n| propagation | CPU s per slice | rate against transformers |\n|---|---|---|")
    for name, times in seconds.items():
        rate = min(seconds["transformers"]) / min(times)
        print(f"| {name} | {min(times) / options.slices:.3f} | {rate:.2f} × |")
    print(f"\n{same:.2%} of the pixels of the masks are the same.")


if __name__ == "__main__":
    main()
