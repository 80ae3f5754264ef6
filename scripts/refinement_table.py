#!/usr/bin/env python
"""What refinement and denoising do to the masks of a method: Dice, HD95 and ms, on drawn or on labelled
images.

    python scripts/refinement_table.py [CASES] [--method segmed] [--backbone WEIGHTS] [--denoiser
    dncnn.safetensors]

Without CASES, slices of procedural CT and MR volumes are taken. Every object is prompted with its box, once
exact and once with sides off by up to 10 %. The second table adds Gaussian noise of growing strength to the
windowed slices.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from segmed.data.phantom import make_phantom
from segmed.denoising.dncnn import load_dncnn
from segmed.denoising.pictures import Denoiser, gaussian
from segmed.evaluation.cases import load_cases
from segmed.evaluation.segmentation_scores import score_mask
from segmed.imaging.intensity import WINDOWS
from segmed.imaging.labels.masks import slice_box
from segmed.imaging.picture import Picture
from segmed.imaging.prompts import Box, Prompt
from segmed.imaging.store import ByteBoundedStore
from segmed.inference.loading import BackboneConfig, Loader
from segmed.inference.predictor import Predictor
from segmed.inference.refinement.refinement import REFINEMENTS, Refinement
from segmed.methods import METHODS
from segmed.simulation.slice_annotator import jittered

NOISE = (0, 10, 25, 50)  # standard deviation, of 255
_LEAST = 60  # px of an object


@dataclass(frozen=True)
class Item:
    """One object on one slice."""

    picture: Picture
    k: int
    mask: np.ndarray

    def prompt(self, careless: float, seed: int) -> Prompt:
        box = jittered(slice_box(self.mask), careless, self.mask.shape, np.random.default_rng(seed))
        x0, y0, x1, y1 = (round(v) for v in box)
        return Prompt(Box((x0, x1), (y0, y1), (self.k, self.k)))

    def noisy(self, sigma: float, seed: int) -> Item:
        grain = np.random.default_rng(seed).normal(0, sigma, self.mask.shape).T if sigma else 0
        image = self.picture.array[:, :, self.k]
        image = (image + (grain if image.ndim == 2 else np.asarray(grain)[..., None])).round().clip(0, 255)
        array = image.astype(np.uint8)[:, :, None]
        picture = Picture(
            array, self.picture.affine, f"{self.picture.key}:{self.k}:{sigma}", self.picture.window
        )
        return Item(picture, 0, self.mask)


def drawn() -> Iterator[Item]:
    for seed in range(4):
        for modality in ("CT", "MR"):
            phantom = make_phantom(modality, (160, 140, 24), (2.2, 2.2, 8.0), seed)
            low, high = np.percentile(phantom.image, (1, 99))
            array = ((phantom.image.clip(low, high) - low) / (high - low) * 255).astype(np.uint8)
            picture = Picture(array, phantom.affine, f"{modality} {seed}", next(iter(WINDOWS)))
            for value in phantom.names:
                labelled = phantom.labels == value
                k = int(labelled.sum(axis=(0, 1)).argmax())
                if labelled[:, :, k].sum() >= _LEAST:
                    yield Item(picture, k, labelled[:, :, k].T)


def labelled(folder: Path) -> Iterator[Item]:
    for case in load_cases(folder):
        for found in case.objects(_LEAST, 1):
            yield Item(case.picture, found.k, found.mask)


def run(
    items: list[Item],
    predictor: Predictor,
    careless: float,
    refine: Refinement | None,
    denoise: Denoiser | None,
) -> tuple[float, float, float]:
    """Mean Dice, mean HD95 in px where something was found, and ms beyond the first look at the slice."""
    scores, spent = [], 0.0
    for seed, item in enumerate(items):
        picture = denoise(item.picture) if denoise else item.picture
        prompt = item.prompt(careless, seed)
        predictor.segment_slices(picture, prompt)  # encodes, and cleans the slice
        start = time.perf_counter()
        mask = predictor.segment_slices(picture, prompt, refine=refine)[item.k]
        spent += time.perf_counter() - start
        scores.append(score_mask(mask, item.mask))
    distances = [s.hd95 for s in scores if np.isfinite(s.hd95)]
    return (
        float(np.mean([s.overlap.dice("zero") for s in scores])),
        float(np.mean(distances)),
        1000 * spent / len(items),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", type=Path, nargs="?")
    parser.add_argument("--method", choices=list(METHODS), default="segmed")
    parser.add_argument("--backbone", default="")
    parser.add_argument("--denoiser", type=Path, help="made by `segmed denoiser`")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    items = list(labelled(arguments.cases) if arguments.cases else drawn())
    segmenter = Loader().get(arguments.method, BackboneConfig(arguments.backbone))
    predictor = Predictor(segmenter, ByteBoundedStore(2**30))
    refinements: dict[str, Refinement | None] = {"none": None, **REFINEMENTS}
    cleaners: dict[str, Denoiser | None] = {"none": None, "Gaussian 1 px": gaussian(1.0)}
    if arguments.denoiser:
        cleaners["DnCNN"] = load_dncnn(arguments.denoiser)

    def row(name: str, work: Callable[[float], tuple[float, float, float]]) -> str:
        (dice, far, ms), (dice_careless, far_careless, _) = work(0.0), work(0.1)
        return f"| {name} | {dice:.3f} | {far:.1f} | {dice_careless:.3f} | {far_careless:.1f} | {ms:.0f} |"

    lines = [
        "| refine | Dice | HD95 px | Dice, box ±10 % | HD95 px, box ±10 % | ms |",
        "|---|---|---|---|---|---|",
    ]
    for name, refine in track(refinements.items(), "refine"):
        lines.append(row(name, lambda c, r=refine: run(items, predictor, c, r, None)))  # type: ignore[misc]
    lines += [
        "",
        f"| denoise | {' | '.join(f'Dice, noise {s}' for s in NOISE)} |",
        "|---" * (1 + len(NOISE)) + "|",
    ]
    for name, cleaner in track(cleaners.items(), "denoise"):
        values = [
            run([item.noisy(sigma, n) for n, item in enumerate(items)], predictor, 0.1, None, cleaner)[0]
            for sigma in NOISE
        ]
        lines.append(f"| {name} | {' | '.join(f'{v:.3f}' for v in values)} |")
    print(f"{len(items)} objects, method {arguments.method}\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
