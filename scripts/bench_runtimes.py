#!/usr/bin/env python
"""PyTorch and OpenVINO on this CPU: SAM ViT-B at 1024 px (random weights) and the default model, in one run.

Times are the fastest of some runs in seconds of the CPU, which other programs on the machine change less than
elapsed time, and elapsed on one thread. Dice compares masks with those of PyTorch in fp32 on the demo study;
for random weights, masks are cut at the median of their logits, because they find nothing. Usage: python
scripts/bench_runtimes.py [--threads 1]
"""

from __future__ import annotations

import argparse
import copy
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from bench_encoder import masks, random_sam
from segmed.evaluation.metrics import Overlap
from segmed.imaging.prompts import SlicePrompt
from segmed.inference.loading import Loader
from segmed.inference.runtimes.agreement import demo_masks, mean_dice
from segmed.inference.runtimes.compiled import compile_method
from segmed.inference.runtimes.library import openvino
from segmed.inference.runtimes.openvino_graphs import Compiler
from segmed.methods.base.backbone import BackboneConfig
from segmed.methods.base.segmenter import Segmenter
from segmed.methods.sam.graphs import sam_graphs
from segmed.sam.cpu.precision import prepare_encoder
from transformers import SamModel

SIDE = 1024


def fastest(run: Callable[[], object], repeats: int) -> tuple[float, float]:
    """CPU seconds and elapsed seconds of the fastest run."""
    run()
    found = []
    for _ in range(repeats):
        cpu, clock = time.process_time(), time.perf_counter()
        run()
        found.append((time.process_time() - cpu, time.perf_counter() - clock))
    return min(found)


@torch.inference_mode()
def vit_b(model: SamModel, compiler: Compiler, repeats: int) -> None:
    """Encoder and decoder of a SAM ViT-B."""
    picture = F.interpolate(torch.rand(1, 3, 48, 48), (SIDE, SIDE), mode="bicubic").clamp(0, 1)
    encoder_graph, decoder_graph = sam_graphs(model)
    truth = None
    print("\n| ViT-B encoder, one slice | CPU s | elapsed s | against PyTorch | mask Dice |")
    print("|" + "---|" * 5)
    for precision in ("fp32", "bf16"):
        prepared = prepare_encoder(copy.deepcopy(model.vision_encoder), "cpu", precision)
        with torch.inference_mode(False):
            begun = time.perf_counter()
            quick = compiler.compile(encoder_graph, precision)
            spent = time.perf_counter() - begun
            begun = time.perf_counter()
            compiler.compile(encoder_graph, precision)
            again = time.perf_counter() - begun
        base = 0.0
        for name, run in (
            ("PyTorch", lambda prepared=prepared: prepared(picture).last_hidden_state.float()),
            ("OpenVINO", lambda quick=quick: quick(picture)[0]),
        ):
            cpu, clock = fastest(run, repeats)
            found = masks(model, run())
            truth = found if truth is None else truth
            dice = np.mean([Overlap.of(a, b).dice() for a, b in zip(found, truth, strict=True)])
            base = base or cpu
            print(
                f"| {name} {precision} | {cpu:.2f} | {clock:.2f} | {cpu / base:.2f} × | {dice:.4f} |",
                flush=True,
            )
        print(f"| OpenVINO {precision}: compiling, and from the cache |  | {spent:.1f}, {again:.1f} |  |  |")
    with torch.inference_mode(False):
        quick = compiler.compile(decoder_graph, "fp32")
    inputs = [t.clone() for t in decoder_graph.inputs.values()]
    inputs[1], inputs[2] = torch.tensor([[[200.0, 200.0], [700.0, 800.0]]]), torch.tensor([[2.0, 3.0]])
    box = inputs[1].reshape(1, 1, 4)
    torch_cpu, torch_clock = fastest(
        lambda: model(image_embeddings=inputs[0], input_boxes=box, multimask_output=False), 10
    )
    quick_cpu, quick_clock = fastest(lambda: quick(*inputs), 10)
    print("\n| ViT-B decoder, one box | CPU s | elapsed s | against PyTorch |\n|---|---|---|---|")
    print(f"| PyTorch fp32 | {torch_cpu:.3f} | {torch_clock:.3f} | 1.00 × |")
    print(f"| OpenVINO fp32 | {quick_cpu:.3f} | {quick_clock:.3f} | {quick_cpu / torch_cpu:.2f} × |")


@torch.inference_mode()
def default_model(folder: Path, repeats: int) -> None:
    """A box and a click on a slice of 512 px with the default model."""
    plain = Loader().get("segmed", BackboneConfig())
    methods: dict[str, Segmenter] = {"PyTorch fp32": plain}
    for precision in ("fp32", "bf16"):
        with torch.inference_mode(False):
            quick = compile_method(plain, "fp32" if precision == "fp32" else "auto", folder)
        methods[f"OpenVINO {quick.version.rsplit('-', 1)[-1]}"] = quick
    image = (
        F.interpolate(torch.rand(1, 1, 24, 24), (512, 512), mode="bicubic")[0, 0].clamp(0, 1) * 255
    ).byte()
    prompts = {
        "box": SlicePrompt(box=(150.0, 120.0, 330.0, 300.0)),
        "click": SlicePrompt(points=np.array([[240, 210]], np.float32), labels=np.ones(1, np.int64)),
    }
    truth = demo_masks(plain)
    print("\n| default model | prompt | CPU s | elapsed s | against PyTorch | mask Dice on the demo study |")
    print("|" + "---|" * 6)
    base: dict[str, float] = {}
    for name, method in methods.items():
        embedding, dice = method.embed([image.numpy()]), mean_dice(demo_masks(method), truth)
        for kind, prompt in prompts.items():
            cpu, clock = fastest(
                lambda m=method, e=embedding, p=prompt: m.decode(e, [[p]], (512, 512)), 4 * repeats
            )
            base.setdefault(kind, cpu)
            print(
                f"| {name} | {kind} | {cpu:.3f} | {clock:.3f} | {cpu / base[kind]:.2f} × | {dice:.4f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(
        f"torch {torch.__version__}, openvino {openvino().__version__}, {os.cpu_count()} CPUs, "
        f"{options.threads} thread(s)"
    )
    with tempfile.TemporaryDirectory() as folder:
        default_model(Path(folder), options.repeats)
        vit_b(random_sam(), Compiler(Path(folder), options.threads, lambda text: None), options.repeats)


if __name__ == "__main__":
    main()
