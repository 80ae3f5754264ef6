#!/usr/bin/env python
"""Methods trained alike on one dataset, beside plain SAM whose mask decoder is tuned on the same slices: one
table.

    python scripts/compare_methods.py LGG --layout lgg --backbone apps/segmed/model/segmed-tiny \\
        --methods sam,gafl,featup,imedsam,adapter --epochs 10 --seeds 3
    python scripts/compare_methods.py HIPPOCAMPUS --layout msd --backbone apps/segmed/model/segmed-tiny
    --automatic \\
        --methods lora:1,lora:4,lora:8,adapter --epochs 10 --seeds 3

A method is NAME or NAME:VARIANT: sam:brats|segmed|full, gafl:VARIANT, featup:decoder|hires, imedsam, adapter,
lora:RANK. Patients are split once, the same for all methods and seeds; seeds change the order of slices, the
training boxes and fresh weights. Each method is trained by its own recipe and measured before and after, on
the same slices and boxes. With --automatic, methods that tell classes apart get no prompt, and each class is
scored on every slice; all others are still told a box. A table is no proof that one method is better: recipes
were not tuned for the dataset.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from segmed.data.datasets.lgg import load_lgg
from segmed.data.datasets.msd import load_msd
from segmed.data.slices import SliceDataset
from segmed.data.split import Split, split_patients
from segmed.evaluation.segmentation_scores import ImageScore, score_mask, summarise
from segmed.imaging.labels.masks import slice_box
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.adapter.adapter import AdapterSam, AdapterSamConfig
from segmed.methods.base.segmenter import Segmenter
from segmed.methods.base.trainable import TrainableSegmenter
from segmed.methods.featup.featup import FeatUp, FeatUpConfig
from segmed.methods.gafl.gafl import Gafl, GaflConfig
from segmed.methods.imedsam.imedsam import Imedsam, ImedsamConfig
from segmed.methods.lora import LoraSam, LoraSamConfig, learning_rate
from segmed.methods.sam.class_head import ClassSegmenter
from segmed.methods.sam.decoder_tuning import DecoderTuning, DecoderTuningConfig
from segmed.sam.weights import load_sam, weights_version
from segmed.simulation.slice_annotator import jittered
from segmed.training.finetune import Finetuning
from segmed.training.finetune_config import FinetuneConfig
from transformers import SamModel

Build = Callable[[SamModel, str, tuple[str, ...], str], TrainableSegmenter]

LAYOUTS: dict[str, Callable[[str], SliceDataset]] = {"lgg": load_lgg, "msd": load_msd}
BUILDERS: dict[str, Build] = {
    "sam": lambda model, variant, labels, jbu: DecoderTuning(model, DecoderTuningConfig(variant or "brats")),  # type: ignore[arg-type]
    "gafl": lambda model, variant, labels, jbu: Gafl(model, GaflConfig(variant or "spectrum")),  # type: ignore[arg-type]
    "featup": lambda model, variant, labels, jbu: FeatUp(model, FeatUpConfig(variant or "decoder", jbu=jbu)),  # type: ignore[arg-type]
    "imedsam": lambda model, variant, labels, jbu: Imedsam(model, ImedsamConfig()),
    "adapter": lambda model, variant, labels, jbu: AdapterSam(model, AdapterSamConfig(labels)),
    "lora": lambda model, variant, labels, jbu: LoraSam(model, LoraSamConfig(labels, int(variant or 4))),
}
NOT_SETTINGS = ("methods", "seeds", "results", "device", "aggregates")
COLUMNS = {"dice": "Dice", "iou": "IoU", "precision": "precision", "recall": "recall"}
COLUMNS |= {"hd95": "HD95", "missed": "missed"}
AGGREGATES = {
    "dice_all": "Dice, all images",
    "dice_pooled": "Dice, pooled",
    "iou_two_classes": "IoU, two classes",
}


def build(
    name: str, base: SamModel, labels: tuple[str, ...], batch: int = 8, rates: float = 1.0, jbu: str = ""
) -> TrainableSegmenter:
    """A fresh method on a copy of the backbone.

    Args:
        name: see `--methods`.
        base: backbone.
        labels: names of the classes, in order.
        batch: slices per step.
        rates: factor on all learning rates.
        jbu: upsampler that featup starts from.
    """
    kind, _, variant = name.partition(":")
    if kind not in BUILDERS:
        raise ValueError(f"There is no method {kind!r} to compare. Choose from {', '.join(BUILDERS)}.")
    method = BUILDERS[kind](copy.deepcopy(base), variant, labels, jbu)
    known = {"": learning_rate(batch)} if kind == "lora" else method.recipe.rates
    method.recipe = replace(method.recipe, rates={prefix: rate * rates for prefix, rate in known.items()})
    return method.to(next(base.parameters()).device)


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@torch.inference_mode()
def measure(
    method: Segmenter, data: SliceDataset, prompted: bool, jitter: float, min_area: int
) -> tuple[list[ImageScore], float]:
    """Scores at the resolution of the slices, and the median of encoding and decoding one slice in ms.

    Args:
        method: on any device.
        data: slices.
        prompted: with a box for each label of at least `min_area` px; else every label is scored on every
            slice.
        jitter: largest move of a side of a box, as share of the box.
        min_area: px.
    """
    device = next(method.parameters()).device
    method.eval()
    scores, times = [], []
    for n in range(len(data)):
        sample = data[n]
        truths = {label: sample.labels == label for label in data.classes}
        prompts = None
        if prompted:
            truths = {label: mask for label, mask in truths.items() if mask.sum() >= min_area}
            boxes = boxes_of(list(truths.values()), jitter, seed=n)
            prompts = [[SlicePrompt(box=box) for box in boxes]]
            if not boxes:
                continue
        pixels, frame = method.prepare(sample.image)
        start = now(device)
        embedding = replace(method.encode(pixels[None].to(device)), frame=frame)
        logits = method.decode(embedding, prompts, (sample.labels.shape[0], sample.labels.shape[1])).masks[0]
        times.append(now(device) - start)
        if prompted:
            found = dict(zip(truths, (logits > 0).cpu().numpy(), strict=True))
        else:
            classes = logits.argmax(0).cpu().numpy()
            found = {label: classes == place for place, label in enumerate(data.classes, 1)}
        for label, truth in truths.items():
            scores.append(score_mask(found[label], truth, sample.spacing, sample.patient, label))
    return scores, 1000 * float(np.median(times))


def boxes_of(
    masks: Sequence[np.ndarray], jitter: float, seed: int
) -> list[tuple[float, float, float, float]]:
    generator = np.random.default_rng(seed)
    return [jittered(slice_box(m), jitter, (m.shape[0], m.shape[1]), generator) for m in masks]


def run(
    name: str, seed: int, base: SamModel, train: SliceDataset, test: SliceDataset, a: argparse.Namespace
) -> Any:
    """One method and seed: scores before and after, as they go into the file of results."""
    torch.manual_seed(seed)
    method = build(name, base, tuple(train.classes.values()), a.batch, a.rates, a.jbu)
    prompted = not (a.automatic and isinstance(method, ClassSegmenter))
    before, _ = measure(method, test, prompted, a.jitter, a.min_area)
    config = FinetuneConfig(
        steps=a.steps, epochs=a.epochs, batch=a.batch, seed=seed, bf16=a.bf16, prompted=prompted
    )
    training = Finetuning(method, train, config)
    start = time.perf_counter()
    losses = training.run()
    seconds = time.perf_counter() - start
    after, ms = measure(method, test, prompted, a.jitter, a.min_area)
    return {
        "method": name,
        "seed": seed,
        "prompted": prompted,
        "untrained": asdict(summarise(before)),
        "trained": asdict(summarise(after)),
        "parameters": sum(p.numel() for p in training.parameters),
        "ms": ms,
        "steps": training.steps,
        "seconds": seconds,
        "losses": [float(np.mean(losses[:10])), float(np.mean(losses[-10:]))],
    }


def table(
    results: Sequence[dict[str, Any]], names: Sequence[str], unit: str, columns: dict[str, str]
) -> list[str]:
    """Markdown, mean ± sd over seeds."""
    heads = [f"HD95, {unit}" if column == "hd95" else head for column, head in columns.items()]
    heads = ["method", "", *heads, "Dice − sam", "trained parameters", "ms per slice"]
    lines = [f"| {' | '.join(heads)} |", "|---" * 2 + "|---:" * (len(heads) - 2) + "|"]
    dice = {(r["method"], r["seed"]): r["trained"]["dice"] for r in results}
    for name in names:
        mine = [r for r in results if r["method"] == name]
        for state in ("untrained", "trained"):
            cells = [
                spread([r[state][column] for r in mine], ".1f" if column == "hd95" else ".3f")
                for column in columns
            ]
            last = ["", "", ""]
            if state == "trained":
                against = [
                    r["trained"]["dice"] - dice.get(("sam", r["seed"]), np.nan) for r in mine if name != "sam"
                ]
                last = [
                    spread(against, "+.3f"),
                    f"{mine[0]['parameters']:,}",
                    spread([r["ms"] for r in mine], ".1f"),
                ]
            lines.append(
                f"| {name if state == 'untrained' else ''} | {state} | {' | '.join([*cells, *last])} |"
            )
    return lines


def spread(values: Sequence[float], form: str) -> str:
    """Mean ± sd of a sample; what is not a number is left out."""
    known = [v for v in values if np.isfinite(v)]
    if not known:
        return ""
    mean = f"{np.mean(known):{form}}"
    return f"{mean} ± {np.std(known, ddof=1):{form.lstrip('+')}}" if len(known) > 1 else mean


def chosen_split(data: SliceDataset, a: argparse.Namespace) -> Split:
    """The split of the file if it is there, else a new one, which is written there."""
    if a.split and a.split.is_file():
        return Split.load(a.split)
    patients = np.random.default_rng(a.split_seed).permutation(data.patients)[: a.patients].tolist()
    split = split_patients(patients, a.split_seed, validation=0, test=a.test_share)
    if a.split:
        split.save(a.split)
    return split


def finished(path: Path | None, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """What a file of results holds for these settings."""
    if not path or not path.is_file():
        return []
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [line["result"] for line in lines if line["settings"] == settings]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", help="folder")
    parser.add_argument("--layout", choices=list(LAYOUTS), required=True)
    parser.add_argument("--methods", default="sam,gafl,featup,imedsam,adapter,lora:4", help="comma-separated")
    parser.add_argument("--backbone", required=True, help="SAM weights: folder, file or Hugging Face id")
    parser.add_argument("--size", type=int, help="input side in px, if not that of the weights")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--automatic", action="store_true", help="classes without prompts where a method can")
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--epochs", type=int, help="passes over the training slices, if not those of the recipe"
    )
    length.add_argument("--steps", type=int, help="optimiser steps instead")
    parser.add_argument("--batch", type=int, default=8, help="slices per step")
    parser.add_argument("--rates", type=float, default=1.0, help="factor on all learning rates")
    parser.add_argument("--bf16", action="store_true", help="train in bf16 autocast")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0")
    parser.add_argument("--patients", type=int, help="at most so many, at random")
    parser.add_argument("--slices", type=int, help="at most so many per patient, evenly spaced")
    parser.add_argument("--test-share", type=float, default=0.2, help="share of the patients")
    parser.add_argument(
        "--split", type=Path, help="JSON file of a split to replay, or to write if it is not there"
    )
    parser.add_argument("--split-seed", type=int, default=0)
    parser.add_argument("--jitter", type=float, default=0.05, help="of test boxes, as share of their sides")
    parser.add_argument("--min-area", type=int, default=10, help="px of an object that is prompted")
    parser.add_argument("--aggregates", action="store_true", help="further means of Dice and IoU as columns")
    parser.add_argument("--jbu", default="", help="file of scripts/pretrain_jbu.py for featup to start from")
    parser.add_argument(
        "--results", type=Path, help="JSON lines to add to; what it holds already is not run again"
    )
    return parser.parse_args()


def main() -> None:
    a = parse()
    names = [name.strip() for name in a.methods.split(",")]
    data = LAYOUTS[a.layout](a.dataset)
    base = load_sam(a.backbone, a.size).requires_grad_(False).to(a.device)
    side, version = base.config.vision_config.image_size, weights_version(base)
    for name in names:  # what cannot be built shall not come up after hours
        build(name, base, tuple(data.classes.values()), jbu=a.jbu)
    split = chosen_split(data, a)
    train, test = data.of(split.train), data.of(split.test)
    if not a.automatic:
        train, test = train.with_object(), test.with_object(a.min_area)
    if a.slices:
        train, test = train.thinned(a.slices), test.thinned(a.slices)
    settings = {k: str(v) for k, v in sorted(vars(a).items()) if k not in NOT_SETTINGS} | {"weights": version}
    results = finished(a.results, settings)
    for seed in range(a.seeds):
        for name in names:
            if any((r["method"], r["seed"]) == (name, seed) for r in results):
                continue
            results.append(run(name, seed, base, train, test, a))
            last = results[-1]
            print(
                f"{name}, seed {seed}: Dice {last['untrained']['dice']:.3f} → {last['trained']['dice']:.3f}, "
                f"loss {last['losses'][0]:.3f} → {last['losses'][1]:.3f} in {last['steps']} steps, "
                f"{last['seconds']:.0f} s",
                file=sys.stderr,
                flush=True,
            )
            if a.results:
                with a.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"settings": settings, "result": last}) + "\n")
    shown = [r for r in results if r["method"] in names and r["seed"] < a.seeds]
    columns = COLUMNS | (AGGREGATES if a.aggregates else {})
    told = sorted({r["method"] for r in shown if r["prompted"]})
    lines = [
        *table(shown, names, data.unit, columns),
        f"\nTrained on {len(train)} slices of {len(split.train)} patients, tested on {len(test)} of "
        f"{len(split.test)}; "
        f"batch {a.batch}, {a.seeds} seeds. Backbone {version} at {side} px. Told a box: "
        f"{', '.join(told) or 'none'}. "
        "Means go over images with the object, then over labels; a missed object counts 0 and has no HD95. "
        "All images: "
        "both masks empty counts 1.",
    ]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
