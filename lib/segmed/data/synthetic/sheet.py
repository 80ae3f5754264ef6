"""A picture of samples, to see what a model is trained on."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from segmed.data.synthetic.sample import PhantomConfig, generate


def contact_sheet(
    path: str | os.PathLike[str],
    seed: int = 0,
    rows: int = 6,
    columns: int = 8,
    size: int = 192,
    config: PhantomConfig | None = None,
) -> Path:
    """Write a PNG of samples with their targets outlined, titled with family and modality.

    Args:
        path: PNG to write.
        seed: of the samples.
        rows: of pictures.
        columns: of pictures.
        size: side of a picture in px.
        config: what is drawn.

    Raises:
        ValueError: no rows or columns, or a name that does not end in .png.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"A sheet is written as .png, not as {path.name!r}. Change the name.")
    if rows < 1 or columns < 1:
        raise ValueError(f"A sheet of {rows} rows and {columns} columns is empty. Take at least 1 of each.")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = generate(rows * columns, size, seed, config=config)
    figure = Figure(figsize=(1.9 * columns, 2.1 * rows), layout="tight")
    FigureCanvasAgg(figure)
    colours = ("#00e5ff", "#ff4fa3", "#ffd60a", "#5cff5c", "#ff8c1a", "#b78bff")
    for number in range(rows * columns):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.imshow(drawn.images[number].permute(1, 2, 0).numpy())
        for index in np.flatnonzero(drawn.valid[number].numpy()):
            mask = drawn.targets[number, index].numpy().astype(float)
            axes.contour(
                np.pad(mask, 1)[1:-1, 1:-1], [0.5], colors=colours[index % len(colours)], linewidths=0.8
            )
        axes.set_title(f"{drawn.families[number]} / {drawn.modalities[number]}", fontsize=7)
        axes.axis("off")
    figure.savefig(path, dpi=100)
    return path
