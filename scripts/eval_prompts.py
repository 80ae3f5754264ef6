#!/usr/bin/env python
"""Dice of a method on a folder of labelled cases: boxes, careless boxes, and clicks, beside what a box alone gives.

    python scripts/eval_prompts.py CASES [--method segmed] [--backbone WEIGHTS] [--sheet overlays.png]

Every label is prompted on at most --max-slices slices; objects of at least --min-area px count. Clicks are simulated:
the first one in the middle of the object, each further one in the middle of the largest error. Dice is averaged over
the objects of a case, then over the cases of a source, then over the sources of a modality, so that a volume with many
slices weighs no more than a picture. Any method and any weights can be compared, such as MedSAM with your own:

    python scripts/eval_prompts.py CASES --method medsam --backbone medsam_vit_b.pth --only box
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib
import numpy as np
import torch
from rich.progress import track

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from segmed.evaluation.annotator import jittered, with_click
from segmed.evaluation.baselines import grabcut, inscribed_ellipse
from segmed.evaluation.cases import Case, SliceObject, load_cases
from segmed.evaluation.metrics import Overlap
from segmed.imaging.prompts import SlicePrompt
from segmed.methods import METHODS
from segmed.methods.loading import BackboneConfig, Loader
from segmed.methods.segmenter import Segmenter

BOXES = {"box": 0.0, "box ±5 %": 0.05, "box ±10 %": 0.10, "box ±20 %": 0.20}
CLICKS = {"1 click": 1, "3 clicks": 3, "5 clicks": 5}
BASELINES = ("ellipse", "grabcut", "classical")
SIZES = {"< 0.5 %": 0.005, "0.5–2 %": 0.02, "2–8 %": 0.08, "> 8 %": 1.0}  # of the slice's area
Scores = dict[str, dict[str, dict[str, list[float]]]]  # modality → source → case → Dice of its objects
Predict = Callable[[SlicePrompt], np.ndarray]


def predictor(method: Segmenter, case: Case, k: int) -> Predict:
    """Masks of prompts on one slice, which is encoded once."""
    embedding = method.embed([case.picture.slice(k)])
    size = case.picture.shape[1], case.picture.shape[0]

    def predict(prompt: SlicePrompt) -> np.ndarray:
        return np.asarray((method.decode(embedding, [[prompt]], size).masks[0, 0] > 0).cpu().numpy())

    return predict


def dice_of(
    item: SliceObject, image: np.ndarray, predict: Predict, classical: Predict, wanted: set[str], seed: int
) -> Iterator[tuple[str, float, np.ndarray]]:
    """Column, Dice and mask of everything that is tried on one object."""

    def told(name: str, mask: np.ndarray) -> tuple[str, float, np.ndarray]:
        return name, Overlap.of(mask, item.mask).dice(), mask

    for name, share in BOXES.items():
        if name in wanted:
            box = jittered(item.box, share, item.mask.shape, np.random.default_rng(seed))
            yield told(name, predict(SlicePrompt(box=box)))
    prompt, found = None, None
    for turn in range(1, max([0, *(n for name, n in CLICKS.items() if name in wanted)]) + 1):
        prompt = with_click(prompt, found, item.mask)
        found = predict(prompt)
        for name, clicks in CLICKS.items():
            if clicks == turn and name in wanted:
                yield told(name, found)
    if "ellipse" in wanted:
        yield told("ellipse", inscribed_ellipse(item.box, item.mask.shape))
    if "grabcut" in wanted:
        yield told("grabcut", grabcut(image, item.box))
    if "classical" in wanted:
        yield told("classical", classical(item.prompt))


def mean_over_sources(scores: dict[str, dict[str, list[float]]]) -> float:
    return float(np.mean([np.mean([np.mean(v) for v in cases.values()]) for cases in scores.values()]))


def table(scores: dict[str, Scores], columns: list[str]) -> str:
    """Markdown: modalities, and their mean."""
    lines = [f"| modality | sources | cases | objects | {' | '.join(columns)} |", "|---" * (4 + len(columns)) + "|"]
    first = scores[columns[0]]
    for modality in sorted(first):
        cases = [c for source in first[modality].values() for c in source.values()]
        values = " | ".join(f"{mean_over_sources(scores[c][modality]):.3f}" for c in columns)
        lines.append(f"| {modality} | {len(first[modality])} | {len(cases)} | {sum(map(len, cases))} | {values} |")
    means = [np.mean([mean_over_sources(v) for v in scores[c].values()]) for c in columns]
    lines.append(f"| **mean over modalities** | | | | {' | '.join(f'**{m:.3f}**' for m in means)} |")
    return "\n".join(lines)


def size_table(sizes: dict[str, dict[str, list[float]]], columns: list[str]) -> str:
    """Markdown: mean over the objects of a size, measured against the slice."""
    lines = [f"| area | objects | {' | '.join(columns)} |", "|---" * (2 + len(columns)) + "|"]
    for name in SIZES:
        if sizes[name]:
            values = " | ".join(f"{np.mean(sizes[name][c]):.3f}" for c in columns)
            lines.append(f"| {name} | {len(sizes[name][columns[0]])} | {values} |")
    return "\n".join(lines)


def overlay_sheet(shown: list[tuple[str, np.ndarray, np.ndarray, np.ndarray, float]], path: Path) -> None:
    """Truth (green) and prediction (red) around the object, one tile per case."""
    columns = 9
    rows = -(-len(shown) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(columns * 2, rows * 2.15), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (title, picture, truth, found, dice) in zip(axes.flat, shown, strict=False):
        y, x = np.nonzero(truth)
        margin = 0.4 * max(np.ptp(x), np.ptp(y)) + 4
        axis.imshow(picture, cmap="gray")
        for mask, colour in ((truth, "lime"), (found, "red")):
            if mask.any():
                axis.contour(mask, [0.5], colors=colour, linewidths=0.8)
        axis.set_xlim(x.min() - margin, x.max() + margin)
        axis.set_ylim(y.max() + margin, y.min() - margin)
        axis.set_title(f"{title[:26]}  {dice:.2f}", fontsize=6, pad=2)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=110)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("--method", choices=list(METHODS), default="segmed")
    parser.add_argument("--backbone", default="", help="weights, if not the embedded ones")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--min-area", type=int, default=100, help="px")
    parser.add_argument("--max-slices", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=[*BOXES, *CLICKS, *BASELINES], help="columns; all if not given")
    parser.add_argument("--sheet", type=Path, help="PNG with the first object of every case")
    arguments = parser.parse_args()
    columns = arguments.only or [*BOXES, *CLICKS, *BASELINES]
    loader = Loader()
    method = loader.get(arguments.method, BackboneConfig(arguments.backbone), arguments.device)
    classical = loader.get("classical", BackboneConfig())
    scores: dict[str, Scores] = {c: defaultdict(lambda: defaultdict(lambda: defaultdict(list))) for c in columns}
    sizes: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in SIZES}
    shown, skipped, start, count = [], [], time.perf_counter(), 0
    for case in track(list(load_cases(arguments.cases)), "cases"):
        items = list(case.objects(arguments.min_area, arguments.max_slices))
        if not items:
            skipped.append(case.name)
        for n, item in enumerate(items):
            image = case.picture.slice(item.k)
            predict = predictor(method, case, item.k)
            size = next(name for name, limit in SIZES.items() if item.mask.mean() <= limit)
            tried = dice_of(item, image, predict, predictor(classical, case, item.k), set(columns), count)
            for column, dice, mask in tried:
                scores[column][case.modality][case.source][case.name].append(dice)
                sizes[size][column].append(dice)
                if n == 0 and column == columns[0]:
                    shown.append((case.name, image, item.mask, mask, dice))
            count += 1
    print(f"\n{table(scores, columns)}\n\nBy the object's share of the slice, mean over objects:\n")
    print(size_table(sizes, columns))
    print(f"\n{count} objects in {time.perf_counter() - start:.0f} s.", end=" ")
    print(f"Without an object of {arguments.min_area} px: {', '.join(skipped) or 'none'}.")
    if arguments.sheet:
        overlay_sheet(shown, arguments.sheet)


if __name__ == "__main__":
    main()
