#!/usr/bin/env python
"""Draw the figures of docs/methods.md: each method on synthetic images, with the embedded backbone, briefly
trained.

    python scripts/method_figures.py [--only gafl lora …] [--steps N]

Ten minutes on two CPU cores. Nothing here measures a method; `segmed benchmark` does.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib
import nibabel as nib
import numpy as np
import torch

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from segmed.data.datasets.folder import load_folder
from segmed.data.phantom import make_phantom
from segmed.data.slices import LabelledSlice, SliceDataset
from segmed.evaluation.feature_sheet import feature_sheet
from segmed.imaging.labels.masks import slice_box
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.adapter.adapter import AdapterSam, AdapterSamConfig
from segmed.methods.base.trainable import TrainableSegmenter
from segmed.methods.gafl.gafl import Gafl
from segmed.methods.imedsam.imedsam import Imedsam
from segmed.methods.lora import LoraSam, LoraSamConfig
from segmed.methods.sam.medsam import MedSam
from segmed.sam.weights import load_sam
from segmed.training.finetune import Finetuning
from segmed.training.finetune_config import FinetuneConfig

OUT = Path(__file__).resolve().parents[1] / "docs" / "images"
LABELS = ("liver", "spleen", "kidney right", "kidney left", "aorta", "lesion")
COLOURS = ("red", "yellow", "cyan", "deepskyblue", "magenta", "lime")


def phantoms(folder: Path, count: int = 8, stripes: float = 0.0) -> SliceDataset:
    """Small CT phantoms as a dataset, with stripes across the slices where asked for."""
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for n in range(count):
        phantom = make_phantom("CT", shape=(96, 80, 14), spacing=(3.6, 3.6, 14.0), seed=n)
        x = np.arange(96)[:, None, None]
        image = phantom.image + stripes * np.sin(2 * np.pi * x / 4)
        nib.save(nib.Nifti1Image(image.astype(np.int16), phantom.affine), folder / "images" / f"{n}.nii.gz")
        nib.save(nib.Nifti1Image(phantom.labels, phantom.affine), folder / "labels" / f"{n}.nii.gz")
    (folder / "labels.json").write_text(json.dumps({name: value for value, name in enumerate(LABELS, 1)}))
    return load_folder(folder).with_object()


def trained(method: TrainableSegmenter, data: SliceDataset, steps: int, batch: int = 8) -> TrainableSegmenter:
    """The method after so many steps on all patients but the first."""
    method.recipe = method.recipe_for(batch)
    if method.recipe.schedule == "poly":
        method.recipe = replace(method.recipe, warmup=20)
    Finetuning(method, data.of(data.patients[1:]), FinetuneConfig(steps=steps, batch=batch)).run()
    return method.eval()


def example(data: SliceDataset) -> LabelledSlice:
    """The slice of the first patient with the most labels."""
    mine = data.of(data.patients[:1])
    return max(
        (mine[n] for n in range(len(mine))),
        key=lambda s: (len(np.unique(s.labels)), int((s.labels > 0).sum())),
    )


def show(axis: plt.Axes, image: np.ndarray, title: str, **options: object) -> None:
    axis.imshow(image, **{"cmap": "gray", **options})
    axis.set_title(title, fontsize=9)
    axis.axis("off")


def draw_gafl(folder: Path, steps: int) -> plt.Figure:
    data = phantoms(folder, stripes=60.0)
    method = trained(Gafl(load_sam("segmed-tiny")), data, steps)
    pixels, _ = method.prepare(example(data).image)
    with torch.no_grad():
        after = method.filter(pixels[None])[0, 0].numpy()
    weight = (
        method.filter.state_dict()["weight"][0].numpy() if "weight" in method.filter.state_dict() else None
    )
    figure, axes = plt.subplots(1, 4 if weight is not None else 3, figsize=(10, 2.8))
    before = pixels[0].numpy()
    show(axes[0], before, "image with stripes")
    show(axes[1], after, "after the filter")
    change = after - before
    show(axes[2], change, "change", cmap="coolwarm", vmin=-np.abs(change).max(), vmax=np.abs(change).max())
    if weight is not None:
        limit = np.abs(weight - 1).max()
        show(axes[3], np.fft.fftshift(weight, 0), "weights", cmap="coolwarm", vmin=1 - limit, vmax=1 + limit)
    return figure


def draw_classes(method: TrainableSegmenter, folder: Path, steps: int) -> plt.Figure:
    data = phantoms(folder)
    sample = example(data)
    trained(method, data, steps)
    size = (sample.labels.shape[0], sample.labels.shape[1])
    with torch.no_grad():
        found = method.decode(method.embed([sample.image]), None, size).masks.argmax(1)[0].numpy()
    figure, axes = plt.subplots(1, 3, figsize=(8, 2.8))
    show(axes[0], sample.image, "slice of a volume not learnt from")
    for axis, labels, title in (
        (axes[1], sample.labels, "truth"),
        (axes[2], found, "found without a prompt"),
    ):
        show(axis, sample.image, title)
        for value, colour in enumerate(COLOURS, 1):
            if (labels == value).any():
                axis.contour(labels == value, [0.5], colors=colour, linewidths=1)
    return figure


def draw_imedsam(folder: Path, steps: int) -> plt.Figure:
    data = phantoms(folder)
    sample = example(data)
    method = trained(Imedsam(load_sam("segmed-tiny")), data, steps)
    truth = sample.labels == 1
    height, width = truth.shape
    figure, axes = plt.subplots(1, 5, figsize=(12, 2.8))
    show(axes[0], sample.image, "slice and box")
    x0, y0, x1, y1 = slice_box(truth)
    axes[0].add_patch(plt.Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color="cyan"))
    with torch.no_grad():
        embedding = method.embed([sample.image])
        for axis, factor in zip(axes[1:4], (0.5, 1, 4), strict=True):
            size = (int(height * factor), int(width * factor))
            found = method.decode(embedding, [[SlicePrompt(box=slice_box(truth))]], size)
            show(axis, found.masks[0, 0].numpy() > 0, f"{size[1]} × {size[0]} px")
    assert found.uncertainty is not None
    show(axes[4], found.uncertainty[0, 0].sqrt().numpy(), "uncertainty", cmap="magma")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ("gafl", "featup", "lora", "adapter", "imedsam")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--steps", type=int, default=150)
    options = parser.parse_args()
    torch.manual_seed(0)
    for name in options.only:
        path = OUT / f"method-{name}.png"
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "phantoms"
            if name == "featup":
                sample = example(phantoms(place))
                feature_sheet(
                    MedSam(load_sam("segmed-tiny")).eval(), sample.image, path, channels=(0, 1, 2, 3)
                )
                print(f"wrote {path.name}")
                continue
            base = load_sam("segmed-tiny")
            if name == "gafl":
                figure = draw_gafl(place, options.steps)
            elif name == "imedsam":
                figure = draw_imedsam(place, options.steps)
            elif name == "lora":
                figure = draw_classes(LoraSam(base, LoraSamConfig(LABELS)), place, options.steps)
            else:
                figure = draw_classes(AdapterSam(base, AdapterSamConfig(LABELS)), place, 2 * options.steps)
        figure.tight_layout(pad=0.3)
        figure.savefig(path, dpi=90)
        plt.close(figure)
        print(f"wrote {path.name}")


if __name__ == "__main__":
    main()
