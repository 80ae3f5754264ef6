#!/usr/bin/env python
"""What a new slice, a prompt on an encoded slice and the decoder cost with the encoders of published weights.

    python scripts/bench_weights.py [--repeats 7] [--precision fp32] [--runtime openvino] [--with-vit]

The weights are random: times do not depend on their values. Each column is the median of the repeats. A new
slice is preparation, encoder and one box; a repeated prompt is a box on an encoded slice, with the resampling
to the slice; the decoder is the prompt encoder and mask decoder alone. CPU seconds are those of all threads:
on a machine that does nothing else, a new slice takes this time divided by the threads, or somewhat more.
--with-vit adds the encoder of SAM ViT-B, for ratios. OpenVINO compiles encoder and decoder first, which takes
a minute each.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from segmed.imaging.prompts import SlicePrompt
from segmed.inference.runtimes.openvino_graphs import Compiler
from segmed.methods.base.backbone import RUNTIMES
from segmed.methods.sam.medsam import MedSam
from segmed.sam.cpu.precision import prepare_encoder
from segmed.sam.encoders.tiny_vit import TinyVitShape
from segmed.sam.stem import build_sam
from transformers import SamConfig

TARGETS = {"new slice": 0.4, "repeated prompt": 0.06, "decoder": 0.03}  # s, for LiteMedSAM
SLICE = 512  # px


def tiny_vit(stem: int, preparation: str) -> SamConfig:
    """The configuration of LiteMedSAM (a stem of 1 px) or MobileSAM (3 px)."""
    shape = TinyVitShape(stem=stem)
    size = {"image_size": 64 * shape.patch_size, "patch_size": shape.patch_size}
    vision = {"tiny_vit": shape.as_config(), "hidden_size": shape.widths[-1], "num_hidden_layers": 0, **size}
    return SamConfig(vision_config=vision, prompt_encoder_config=size, preparation=preparation)


def seconds(function: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Median elapsed and CPU seconds of a call, after one that does not count."""
    function()
    elapsed, used = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        function()
        elapsed.append(time.perf_counter() - wall)
        used.append(time.process_time() - cpu)
    return statistics.median(elapsed), statistics.median(used)


@torch.inference_mode(False)
def random_method(config: SamConfig, precision: str, runtime: str) -> MedSam:
    """MedSAM with random weights of an architecture, ready to be measured."""
    torch.manual_seed(0)
    model = build_sam(config).eval().requires_grad_(False)
    if runtime == "torch":
        model.vision_encoder = prepare_encoder(model.vision_encoder, "cpu", precision)
    method = MedSam(model).eval()
    if runtime == "openvino":
        with tempfile.TemporaryDirectory() as folder:
            compiler = Compiler(Path(folder), torch.get_num_threads())
            method.run_by({graph.name: compiler.compile(graph, precision) for graph in method.graphs()})
    return method


@torch.inference_mode()
def measured(
    config: SamConfig, precision: str, repeats: int, runtime: str
) -> Mapping[str, tuple[float, float]]:
    """Seconds by column."""
    method = random_method(config, precision, runtime)
    image = np.random.default_rng(0).integers(0, 255, (SLICE, SLICE), np.uint8)
    prompts = [[SlicePrompt(box=np.array([100, 120, 300, 280], np.float32))]]
    embedding = method.embed([image])
    box = torch.tensor([[[20.0, 30.0, 120.0, 110.0]]])

    def new() -> None:
        method.decode(method.embed([image]), prompts, (SLICE, SLICE))

    return {
        "new slice": seconds(new, repeats),
        "repeated prompt": seconds(lambda: method.decode(embedding, prompts, (SLICE, SLICE)), repeats),
        "decoder": seconds(
            lambda: method.model(
                image_embeddings=embedding.features, input_boxes=box, multimask_output=False
            ),
            repeats,
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--precision", default="fp32", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--runtime", default="torch", choices=RUNTIMES)
    parser.add_argument("--with-vit", action="store_true")
    arguments = parser.parse_args()
    if arguments.runtime != "torch" and arguments.precision == "auto":
        parser.error("Give --precision fp32 or bf16 with another runtime.")
    models = {"LiteMedSAM, 256 px": tiny_vit(1, "litemedsam"), "MobileSAM, 1024 px": tiny_vit(3, "sam")}
    if arguments.with_vit:
        models["SAM ViT-B, 1024 px"] = SamConfig(preparation="sam")
    print(
        f"{torch.get_num_threads()} threads, {arguments.precision} by {arguments.runtime}, "
        f"a slice of {SLICE} × {SLICE} px\n"
    )
    print("| weights | " + " | ".join(f"{name}, s | CPU s" for name in TARGETS) + " |")
    print("|---|" + "---|" * 2 * len(TARGETS))
    for name, config in models.items():
        found = measured(config, arguments.precision, arguments.repeats, arguments.runtime)
        print(f"| {name} | " + " | ".join(f"{a:.3f} | {b:.3f}" for a, b in found.values()) + " |")
    told = ", ".join(f"{name} ≤ {limit} s" for name, limit in TARGETS.items())
    print(f"\nTargets for LiteMedSAM on two cores: {told}.")


if __name__ == "__main__":
    main()
