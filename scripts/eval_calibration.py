#!/usr/bin/env python
"""How far the probabilities of a method can be believed: reliability of its pixels, from tight boxes and
single clicks.

    python scripts/eval_calibration.py CASES [--method segmed] [--backbone FOLDER]

Of each object, pixels within twice its box are sorted by probability into ten bins. In a calibrated bin the
share of pixels that belong to the object is the mean probability; the expected calibration error (Guo et al.,
ICML 2017) is the mean distance between both, weighted by pixels. Each object counts as much as any other, and
the tables end with the mean over modalities. Pixels of less than 2 % are left out: there are many, and nearly
all are right.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from segmed.evaluation.cases import load_cases
from segmed.imaging.prompts import SlicePrompt
from segmed.inference.loading import BackboneConfig, Loader
from segmed.methods import METHODS
from segmed.simulation.slice_annotator import deepest

BINS = 10
LEAST = 0.02


def counted(probability: np.ndarray, truth: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """(3, BINS): share of pixels, sum of probabilities and of truth by bin, of all pixels together."""
    x0, y0, x1, y1 = box
    w, h = (x1 - x0) / 2 + 1, (y1 - y0) / 2 + 1
    rows, columns = slice(max(0, int(y0 - h)), int(y1 + h) + 1), slice(max(0, int(x0 - w)), int(x1 + w) + 1)
    p, t = probability[rows, columns].ravel(), truth[rows, columns].ravel()
    p, t = p[p >= LEAST], t[p >= LEAST]
    if not len(p):
        return np.zeros((3, BINS))
    place = np.minimum((p * BINS).astype(int), BINS - 1)
    sums = [np.bincount(place, weights, BINS) for weights in (np.ones(len(p)), p, t.astype(float))]
    return np.stack(sums) / len(p)


def error(table: np.ndarray) -> float:
    """Expected calibration error of summed tables (3, BINS)."""
    return float(np.abs(table[1] - table[2]).sum() / max(table[0].sum(), 1e-9))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", type=Path)
    parser.add_argument("--method", choices=list(METHODS), default="segmed")
    parser.add_argument("--backbone", default="")
    parser.add_argument("--limit", type=int, default=20, help="objects of each case")
    options = parser.parse_args()
    segmenter = Loader().get(options.method, BackboneConfig(options.backbone), "cpu")
    tables: dict[str, dict[str, np.ndarray]] = defaultdict(lambda: defaultdict(lambda: np.zeros((3, BINS))))
    for case in load_cases(options.cases):
        for n, item in enumerate(case.objects(max_slices=1)):
            if n >= options.limit:
                break
            size = case.picture.shape[1], case.picture.shape[0]
            click = SlicePrompt(points=np.array([deepest(item.mask)], np.float32), labels=np.array([1]))
            prompts = {"box": item.prompt, "1 click": click}
            for name, prompt in prompts.items():
                with torch.inference_mode():
                    logits = segmenter.decode(
                        segmenter.embed([case.picture.slice(item.k)]), [[prompt]], size
                    ).masks[0, 0]
                tables[name][case.modality] += counted(logits.sigmoid().numpy(), item.mask, item.box)
    for name, by_modality in tables.items():
        print(
            f"\n{name}\n\n| modality | error | "
            + " | ".join(f"{(b + 0.5) / BINS:.2f}" for b in range(BINS))
            + " |"
        )
        print("|" + "---|" * (BINS + 2))
        for modality, table in sorted(by_modality.items()):
            shares = table[2] / np.maximum(table[0], 1e-9)
            print(
                f"| {modality} | {error(table):.3f} | "
                + " | ".join(f"{share:.2f}" for share in shares)
                + " |"
            )
        print(f"| **mean** | **{np.mean([error(t) for t in by_modality.values()]):.3f}** |" + " |" * BINS)


if __name__ == "__main__":
    main()
