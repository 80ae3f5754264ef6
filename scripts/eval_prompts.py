#!/usr/bin/env python
"""Dice of a method on a folder of labelled cases, every label boxed, beside the ellipse inscribed in the box.

Usage: python scripts/eval_prompts.py CASES [--method classical] [--backbone WEIGHTS] [--sheet overlays.png]

Objects of at least --min-area px count; a label of a volume is tried on --max-slices slices. Dice is averaged over
the objects of a case, then over the cases of a source, then over the sources of a modality, so that a volume with many
slices weighs no more than a picture.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path

import matplotlib
import numpy as np
import torch
from rich.progress import track

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from segmed.evaluation.cases import Case, SliceObject, load_cases
from segmed.evaluation.metrics import Overlap
from segmed.methods import METHODS
from segmed.methods.loading import BackboneConfig, Loader
from segmed.methods.segmenter import Segmenter

Scores = dict[str, dict[str, dict[str, list[float]]]]  # modality → source → case → Dice of its objects


def inscribed_ellipse(item: SliceObject) -> np.ndarray:
    """The ellipse that touches the four sides of the object's box: (H, W) boolean."""
    x0, y0, x1, y1 = item.box
    y, x = np.mgrid[: item.mask.shape[0], : item.mask.shape[1]]
    radius_x, radius_y = (x1 - x0 + 1) / 2, (y1 - y0 + 1) / 2
    return np.asarray(((x - (x0 + x1) / 2) / radius_x) ** 2 + ((y - (y0 + y1) / 2) / radius_y) ** 2 <= 1)


@torch.inference_mode()
def predict(method: Segmenter, case: Case, items: list[SliceObject]) -> list[np.ndarray]:
    """Masks of objects; a slice is encoded once for all of its objects."""
    masks, embedding, last = [], None, -1
    for item in sorted(items, key=lambda i: i.k):
        if item.k != last or embedding is None:
            embedding, last = method.embed([case.picture.slice(item.k)]), item.k
        logits = method.decode(embedding, [[item.prompt]], item.mask.shape)
        masks.append((logits.masks[0, 0] > 0).cpu().numpy())
    return masks


def mean_over_sources(scores: dict[str, dict[str, list[float]]]) -> float:
    return float(np.mean([np.mean([np.mean(v) for v in cases.values()]) for cases in scores.values()]))


def overlay_sheet(shown: list[tuple[str, np.ndarray, np.ndarray, np.ndarray, float]], path: Path) -> None:
    """Truth (green) and prediction (red) on the picture, one tile per case."""
    columns = 8
    rows = -(-len(shown) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(columns * 2, rows * 2.15), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (title, picture, truth, found, dice) in zip(axes.flat, shown, strict=False):
        axis.imshow(picture, cmap="gray")
        for mask, colour in ((truth, "lime"), (found, "red")):
            if mask.any():
                axis.contour(mask, [0.5], colors=colour, linewidths=0.8)
        axis.set_title(f"{title[:22]}  {dice:.2f}", fontsize=6, pad=2)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("--method", choices=list(METHODS), default="classical")
    parser.add_argument("--backbone", default="")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--min-area", type=int, default=100, help="px")
    parser.add_argument("--max-slices", type=int, default=3)
    parser.add_argument("--sheet", type=Path, help="PNG with the first object of every case")
    arguments = parser.parse_args()
    method = Loader().get(arguments.method, BackboneConfig(arguments.backbone), arguments.device)
    ours: Scores = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    ellipse: Scores = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    shown, skipped, start, count = [], [], time.perf_counter(), 0
    for case in track(list(load_cases(arguments.cases)), "cases"):
        items = sorted(case.objects(arguments.min_area, arguments.max_slices), key=lambda i: i.k)
        if not items:
            skipped.append(case.name)
        for n, (item, found) in enumerate(zip(items, predict(method, case, items), strict=True)):
            dice = Overlap.of(found, item.mask).dice()
            ours[case.modality][case.source][case.name].append(dice)
            ellipse[case.modality][case.source][case.name].append(Overlap.of(inscribed_ellipse(item), item.mask).dice())
            count += 1
            if n == 0:
                shown.append((case.name, case.picture.slice(item.k), item.mask, found, dice))
    print(f"\n| modality | sources | cases | objects | {arguments.method} | inscribed ellipse |")
    print("|---|---|---|---|---|---|")
    for modality in sorted(ours):
        cases = [c for source in ours[modality].values() for c in source.values()]
        print(
            f"| {modality} | {len(ours[modality])} | {len(cases)} | {sum(map(len, cases))} | "
            f"{mean_over_sources(ours[modality]):.3f} | {mean_over_sources(ellipse[modality]):.3f} |"
        )
    means = [float(np.mean([mean_over_sources(v) for v in scores.values()])) for scores in (ours, ellipse)]
    print(f"| **mean over modalities** | | | {count} | **{means[0]:.3f}** | **{means[1]:.3f}** |")
    print(f"\n{count} objects in {time.perf_counter() - start:.0f} s.", end=" ")
    print(f"Without an object of {arguments.min_area} px: {', '.join(skipped) or 'none'}.")
    if arguments.sheet:
        overlay_sheet(shown, arguments.sheet)


if __name__ == "__main__":
    main()
