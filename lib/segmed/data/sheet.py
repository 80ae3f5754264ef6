"""Overview pictures of labelled slices, to check by eye whether images and labels belong together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segmed.data.slices import SliceDataset


def label_sheet(
    dataset: SliceDataset,
    places: Sequence[int],
    path: str | os.PathLike[str],
    columns: int = 6,
    rows: int = 4,
) -> Path:
    """Write a PNG of slices with their labels outlined, and the names of the labels below.

    Args:
        dataset: Dataset with the slices.
        places: Indices of the slices; if there are more than the sheet shows, evenly spaced ones are taken.
        path: Path of the PNG file to write.
        columns: Largest number of pictures in a row.
        rows: Largest number of rows.

    Raises:
        ValueError: There are no slices, or the path does not end in `.png`.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"A sheet is written as .png, not as {path.name!r}. Change the name.")
    if not places:
        raise ValueError("There is no labelled slice to show. Check the label maps.")
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    shown = [
        places[n]
        for n in np.unique(
            np.linspace(0, len(places) - 1, min(columns * rows, len(places))).round().astype(int)
        )
    ]
    columns = min(columns, len(shown))
    rows = -(-len(shown) // columns)
    palette = colormaps["tab10" if len(dataset.classes) <= 10 else "tab20"]
    colours = {value: palette(n % palette.N) for n, value in enumerate(sorted(dataset.classes))}
    legend = -(-len(colours) // 4)
    height = 2.2 * rows + 0.25 * legend + 0.2
    figure = Figure(figsize=(2.0 * max(columns, 3), height))
    FigureCanvasAgg(figure)
    figure.subplots_adjust(0.01, (0.25 * legend + 0.15) / height, 0.99, 1 - 0.25 / height, 0.03, 0.12)
    for number, place in enumerate(shown, start=1):
        sample = dataset[place]
        axes = figure.add_subplot(rows, columns, number)
        across, down = sample.spacing[1], sample.spacing[0]
        axes.imshow(sample.image, cmap="gray", vmin=0, vmax=255, aspect=down / across)
        for value in (int(v) for v in np.unique(sample.labels) if v):
            # a border of background closes outlines at the edge of the picture
            mask = np.pad(sample.labels == value, 1).astype(float)
            x, y = (np.arange(-1, size - 1) for size in mask.shape[::-1])
            axes.contour(x, y, mask, [0.5], colors=[colours[value]], linewidths=0.9)
        n, k = dataset.slices[place]
        volume = dataset.volumes[n]
        title = volume.image.stem if volume.slices == 1 else f"{sample.patient} / {k}"
        axes.set_title(title[-28:], fontsize=5.5, pad=2)
        axes.axis("off")
    handles = [
        Patch(color=colours[value], label=f"{value} {name}")
        for value, name in sorted(dataset.classes.items())
    ]
    figure.legend(
        handles=handles, loc="lower center", ncols=min(4, len(handles)), fontsize=6.5, frameon=False
    )
    figure.savefig(path, dpi=120)
    return path
