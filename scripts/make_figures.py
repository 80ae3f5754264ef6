#!/usr/bin/env python
"""Draw the pictures of README.md: the demo study, a box, and what comes back. Usage: python
scripts/make_figures.py"""

from __future__ import annotations

import tempfile
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle
from segmed.data.phantom import write_demo_study
from segmed.imaging.labels.masks import stack_slices
from segmed.imaging.picture import open_picture
from segmed.imaging.prompts import parse_prompt
from segmed.imaging.store import ByteBoundedStore
from segmed.inference.predictor import Predictor
from segmed.methods.classical import Classical

OUT = Path(__file__).resolve().parents[1] / "docs" / "images" / "first-result.png"
ROI = [28, 98, 40, 103, 29, 29]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        picture = open_picture(write_demo_study(folder)[0])
    prompt, _ = parse_prompt(picture.shape, ROI)
    predictor = Predictor(Classical(), ByteBoundedStore(2**28))
    mask = stack_slices(predictor.segment_volume(picture, prompt), picture.shape)
    k, i = ROI[4], 64
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), facecolor="black")
    axial, axial_mask = picture.slice(k), mask[:, :, k].T
    sagittal, sagittal_mask = picture.array[i].T, mask[i].T
    tall = picture.affine[2, 2] / abs(picture.affine[1, 1])
    for axis, image, title in zip(
        axes,
        (axial, axial, sagittal),
        (
            "a box on one slice",
            "the slice it fills",
            f"and the volume: {int(mask.any(axis=(0, 1)).sum())} slices",
        ),
        strict=True,
    ):
        axis.imshow(
            image,
            cmap="gray",
            aspect=tall if image is sagittal else 1,
            origin="lower" if image is sagittal else None,
        )
        axis.set_title(title, color="white", fontsize=11)
        axis.axis("off")
    axes[0].add_patch(
        Rectangle((ROI[0], ROI[2]), ROI[1] - ROI[0], ROI[3] - ROI[2], fill=False, color="cyan", lw=1.5)
    )
    for axis, shown in ((axes[1], axial_mask), (axes[2], sagittal_mask)):
        axis.imshow(
            np.ma.masked_equal(shown, 0),
            cmap="autumn",
            alpha=0.45,
            origin=axis.images[0].origin,
            aspect=axis.get_aspect(),
        )
        axis.contour(shown, [0.5], colors="yellow", linewidths=0.8)
    figure.tight_layout(pad=0.4)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUT, dpi=80, facecolor="black")
    print(f"wrote {OUT.relative_to(Path.cwd()) if OUT.is_relative_to(Path.cwd()) else OUT}")


if __name__ == "__main__":
    main()
