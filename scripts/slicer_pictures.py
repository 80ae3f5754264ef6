#!/usr/bin/env python
"""Draw what prompts of 3D Slicer give on the demo study, for docs/slicer.md: python
scripts/slicer_pictures.py"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from segmed.data.phantom import write_demo_study
from segmed.imaging.labels.masks import stack_slices
from segmed.imaging.picture import Picture, open_picture
from segmed.imaging.prompts import parse_prompt
from segmed.imaging.store import ByteBoundedStore
from segmed.inference.loading import Loader
from segmed.inference.predictor import Predictor
from segmed.server.config.settings import ServerSettings

OUT = Path(__file__).resolve().parents[1] / "docs" / "images"
K = 29
LIVER = [98, 28, 103, 40, K, K]  # i and j come the wrong way round for volumes that are stored left-posterior
LIVER_CLICK, LESION_CLICK = [62, 85, K], [56, 63, K]
KIDNEY = [81, 55, 121, 95, 15, 15]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        picture = open_picture(write_demo_study(folder)[0])
    predictor = Predictor(
        Loader().get("segmed", ServerSettings.from_conf({"models": "segmed"}).backbones["segmed"]),
        ByteBoundedStore(2**28),
    )

    def segment(
        roi: Sequence[float] | None = None,
        plus: Sequence[Sequence[float]] = (),
        minus: Sequence[Sequence[float]] = (),
        volume: bool = False,
    ) -> np.ndarray:
        parsed, _ = parse_prompt(picture.shape, roi, plus, minus)
        found = (
            predictor.segment_volume(picture, parsed) if volume else predictor.segment_slices(picture, parsed)
        )
        return stack_slices(found, picture.shape)

    OUT.mkdir(parents=True, exist_ok=True)
    figure, axes = _figure(2)
    _axial(axes[0], picture, K, "the box", roi=LIVER)
    _axial(axes[1], picture, K, "segmed: the slice", segment(LIVER), LIVER)
    _save(figure, "slicer-roi")
    figure, axes = _figure(3)
    for axis, plus, minus, title in zip(
        axes,
        ([LIVER_CLICK], [LESION_CLICK], [LESION_CLICK]),
        ([], [], [LIVER_CLICK]),
        ("a click", "a click in the lesion", "and one beside it"),
        strict=True,
    ):
        _axial(axis, picture, K, title, segment(plus=plus, minus=minus), plus=plus, minus=minus)
    _save(figure, "slicer-clicks")
    mask = segment(KIDNEY, volume=True)
    figure, axes = _figure(2)
    _axial(axes[0], picture, KIDNEY[4], "segmed_3d: a box on one slice", mask, KIDNEY)
    _coronal(
        axes[1],
        picture,
        (KIDNEY[2] + KIDNEY[3]) // 2,
        mask,
        f"and through {int(mask.any((0, 1)).sum())} slices",
    )
    _save(figure, "slicer-volume")


def _figure(count: int) -> tuple[plt.Figure, Sequence[Axes]]:
    figure, axes = plt.subplots(1, count, figsize=(3.7 * count, 3.4), facecolor="black")
    return figure, axes


def _axial(
    axis: Axes,
    picture: Picture,
    k: int,
    title: str,
    mask: np.ndarray | None = None,
    roi: Sequence[int] = (),
    plus: Sequence[Sequence[int]] = (),
    minus: Sequence[Sequence[int]] = (),
) -> None:
    axis.imshow(picture.slice(k), cmap="gray")
    if mask is not None:
        _overlay(axis, mask[:, :, k].T)
    if roi:
        corner, size = (roi[0], roi[2]), (roi[1] - roi[0], roi[3] - roi[2])
        axis.add_patch(Rectangle(corner, *size, fill=False, color="cyan", lw=1.5))
    for points, colour, marker in ((plus, "lime", "o"), (minus, "deepskyblue", "X")):
        for x, y, _ in points:
            axis.plot(x, y, marker, color=colour, markeredgecolor="black", markersize=7)
    axis.set_title(title, color="white", fontsize=11)
    axis.axis("off")


def _coronal(axis: Axes, picture: Picture, j: int, mask: np.ndarray, title: str) -> None:
    tall = float(picture.affine[2, 2] / abs(picture.affine[0, 0]))
    axis.imshow(picture.array[:, j].T, cmap="gray", origin="lower", aspect=tall)
    _overlay(axis, mask[:, j].T, "lower", tall)
    axis.set_title(title, color="white", fontsize=11)
    axis.axis("off")


def _overlay(
    axis: Axes, shown: np.ndarray, origin: Literal["upper", "lower"] = "upper", aspect: float = 1
) -> None:
    axis.imshow(np.ma.masked_equal(shown, 0), cmap="autumn", alpha=0.45, origin=origin, aspect=aspect)
    if shown.any():
        axis.contour(shown, [0.5], colors="yellow", linewidths=0.8)


def _save(figure: plt.Figure, name: str) -> None:
    figure.tight_layout(pad=0.4)
    figure.savefig(OUT / f"{name}.png", dpi=80, facecolor="black")
    plt.close(figure)
    print(f"wrote {name}.png, {(OUT / f'{name}.png').stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
