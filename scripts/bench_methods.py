#!/usr/bin/env python
"""What each method costs beside plain SAM: encoding a slice and decoding a box, untrained, in turns.

python scripts/bench_methods.py LGG --layout lgg --backbone apps/segmed/model/segmed-tiny --batches 1 8
python scripts/bench_methods.py LGG --layout lgg --backbone segmed-tiny --parts training

`training` compares a pass of SegMed's training with a bare loop of the same losses, gradients and steps on
tensors in memory; embeddings of frozen encoders were stored in the pass before.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from bench_train import seconds
from segmed.data.datasets.catalogue import load_dataset
from segmed.data.slices import LabelledSlice, SliceDataset
from segmed.imaging.labels.masks import slice_box
from segmed.imaging.prompts import SlicePrompt
from segmed.methods import find_method
from segmed.methods.base.segmenter import Segmenter
from segmed.methods.lora import LoraSam
from segmed.sam.cpu.precision import prepare_encoder
from segmed.sam.weights import load_sam, weights_version
from segmed.training.finetune import Finetuning
from segmed.training.finetune_config import FinetuneConfig
from transformers import SamModel

_WARM_UP = 3  # turns, at most as many as are measured


def build(name: str, base: SamModel, labels: tuple[str, ...]) -> Segmenter:
    """A fresh method, named as in `segmed info`, on a copy of the backbone; NAME:SETTING sets it to true."""
    name, _, setting = name.partition(":")
    training = find_method(name).training
    if training is None:
        raise ValueError(f"{name} is not trained. Choose from the methods with 'training' in `segmed info`.")
    known = {field.name for field in fields(training.config)}
    settings: dict[str, Any] = {setting: True} if setting else {}
    config = training.config(**settings, **({"labels": labels} if "labels" in known else {}))
    method: Segmenter = training.kind(copy.deepcopy(base), config)
    return method.to(next(base.parameters()).device)


def now(device: torch.device) -> float:
    """Seconds of the processor where there is one thread, which other programs do not disturb."""
    if device.type == "cpu" and torch.get_num_threads() == 1:
        return time.process_time()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def throughput(names: Sequence[str], base: SamModel, data: SliceDataset, a: argparse.Namespace) -> str:
    """Markdown: slices per second of training and of a bare loop, in turns, medians over the passes."""
    lines = [
        "| method | ours, slices/s | bare loop, slices/s | ratio | encoder |",
        "|---|---:|---:|---:|---|",
    ]
    for name in names:
        torch.manual_seed(0)
        method = build(name, base, tuple(data.classes.values()))
        with TemporaryDirectory() as folder:
            config = FinetuneConfig(epochs=1 + a.passes, batch=a.batch, bf16=False)
            training = Finetuning(method, data, config, Path(folder))  # type: ignore[arg-type]
            training.train_epoch()  # reads the slices and stores embeddings
            parts = training.reader.batches(0, 0, training.per_epoch)
            batches = [training._targets(samples) for _, samples in parts]

            def bare(training: Finetuning = training, batches: list[Any] = batches) -> None:
                for source, prompts, truth in batches:
                    training.optimiser.zero_grad(set_to_none=True)
                    loss = training.module(source, prompts, truth, 0.5)
                    loss.backward()
                    training.optimiser.step()
                    loss.item()

            times = [(seconds(training.train_epoch), seconds(bare)) for _ in range(a.passes)]
            ours, alone = (len(training.data) / t for t in np.median(times, 0))
            kept = "stored embeddings" if training.encoder.frozen else "in each step"
            lines.append(f"| {name} | {ours:.2f} | {alone:.2f} | {ours / alone:.2f} | {kept} |")
            print(lines[-1], file=sys.stderr, flush=True)
            training.encoder.remove()
    return "\n".join(lines)


@torch.inference_mode()
def overhead(names: Sequence[str], base: SamModel, data: SliceDataset, a: argparse.Namespace) -> str:
    """Markdown: encode + decode of a box per slice against plain SAM, methods in turns, medians over the
    turns.

    The ratio is the median of the ratios within a turn, so that what slows the machine for a while cancels
    out.
    """
    device, warm_up = next(base.parameters()).device, min(_WARM_UP, a.repetitions)
    base.vision_encoder = prepare_encoder(base.vision_encoder, device, a.precision)
    methods: dict[str, Segmenter] = {"sam": build("sam", base, ()).eval()}
    for name in [n for n in names if n != "sam"]:
        methods[name] = method = build(name, base, tuple(data.classes.values())).eval()
        if isinstance(method, LoraSam):
            methods[f"{name} merged"] = method.merged().eval()
    heads = "| method | batch | encode, ms | decode, ms | sum, ms per slice | against sam | peak memory, GB |"
    lines = [heads, "|---|---:|---:|---:|---:|---:|---:|"]
    for batch in a.batches:
        samples = [data[n % len(data)] for n in range(batch)]
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
        peak = dict.fromkeys(methods, 0.0)
        for turn in range(a.repetitions + warm_up):
            order = list(methods)[turn % len(methods) :] + list(methods)[: turn % len(methods)]
            for name in order:
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats(device)
                times[name].append(once(methods[name], samples, device, a.output))
                if device.type == "cuda":
                    peak[name] = torch.cuda.max_memory_allocated(device) / 2**30
        plain = np.array(times["sam"][warm_up:]).sum(1)
        for name in methods:
            spent = np.array(times[name][warm_up:])
            encode, decode = np.median(spent, 0) * 1000 / batch
            total, ratio = np.median(spent.sum(1)) * 1000 / batch, np.median(spent.sum(1) / plain)
            memory = f"{peak[name]:.2f}" if device.type == "cuda" else ""
            lines.append(
                f"| {name} | {batch} | {encode:.2f} | {decode:.2f} | {total:.2f} | {ratio:.3f} | {memory} |"
            )
    return "\n".join(lines)


def once(
    method: Segmenter, samples: Sequence[LabelledSlice], device: torch.device, output: int | None
) -> tuple[float, float]:
    """Seconds of encoding and of decoding slices of one size, a box for each, to masks of any side."""
    prepared = [method.prepare(s.image) for s in samples]
    batch = torch.stack([pixels for pixels, _ in prepared]).to(device)
    prompts = [[SlicePrompt(box=slice_box(s.labels > 0))] for s in samples]
    height, width = (output, output) if output else samples[0].labels.shape
    start = now(device)
    embedding = replace(method.encode(batch), frame=prepared[0][1])
    middle = now(device)
    method.decode(embedding, prompts, (height, width))
    return middle - start, now(device) - middle


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", help="folder")
    parser.add_argument("--layout", choices=["lgg", "msd"], required=True)
    parser.add_argument("--methods", default="gafl,featup,imedsam,adapter,lora", help="comma-separated")
    parser.add_argument("--backbone", required=True, help="SAM weights: folder, file or Hugging Face id")
    parser.add_argument("--size", type=int, help="input side in px, if not that of the weights")
    parser.add_argument("--output", type=int, help="side of the masks in px, if not that of the slices")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--parts", nargs="+", choices=["inference", "training"], default=["inference"])
    parser.add_argument("--slices", type=int, default=16, help="to train on")
    parser.add_argument("--passes", type=int, default=3, help="of training")
    parser.add_argument("--batch", type=int, default=8, help="slices per step of training")
    parser.add_argument("--batches", type=int, nargs="+", default=[1], help="slices encoded together")
    parser.add_argument(
        "--precision", default="fp32", choices=["auto", "bf16", "fp32"], help="of the encoder"
    )
    return parser.parse_args()


def main() -> None:
    a = parse()
    data = load_dataset(a.layout, a.dataset)
    base = load_sam(a.backbone, a.size).requires_grad_(False).to(a.device)
    labelled = data.of(data.patients[:1]).with_object(10)
    side, version = base.config.vision_config.image_size, weights_version(base)
    print(f"Backbone {version} at {side} px, {a.precision}, {a.device}, {torch.get_num_threads()} threads.\n")
    names = [name.strip() for name in a.methods.split(",")]
    if "training" in a.parts:
        print(throughput(names, base, data.of(data.patients[:2]).with_object().thinned(a.slices // 2), a))
    if "inference" in a.parts:
        print(overhead(names, base, labelled, a))


if __name__ == "__main__":
    main()
