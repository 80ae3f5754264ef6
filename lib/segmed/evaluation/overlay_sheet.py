"""A sheet of overlays: truth and prediction around objects, with their Dice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_COLUMNS = 9


@dataclass(frozen=True)
class Tile:
    """A crop around one object with its masks.

    Attributes:
        title: Name of the case.
        image: The crop of the image, (h, w) or (h, w, 3), uint8.
        truth: The true mask (h, w), boolean.
        found: The predicted mask (h, w), boolean.
        dice: Dice of the whole masks; NaN counts as the worst.
    """

    title: str
    image: np.ndarray
    truth: np.ndarray
    found: np.ndarray
    dice: float

    @classmethod
    def cut(cls, title: str, image: np.ndarray, truth: np.ndarray, found: np.ndarray, dice: float) -> Tile:
        """Crop around an object that is not empty, with a margin of two fifths of its longer side."""
        y, x = np.nonzero(truth)
        margin = round(0.4 * max(np.ptp(x), np.ptp(y)) + 4)
        rows = slice(max(int(y.min()) - margin, 0), int(y.max()) + margin + 1)
        columns = slice(max(int(x.min()) - margin, 0), int(x.max()) + margin + 1)
        shown, true, predicted = (np.array(array[rows, columns]) for array in (image, truth, found))
        return cls(title, shown, true, predicted, dice)


def best_median_worst(tiles: Sequence[Tile], count: int) -> list[Tile]:
    """Select `count` tiles each of the best, the median and the worst Dice, in falling order."""
    ordered = sorted(tiles, key=lambda t: -1.0 if np.isnan(t.dice) else t.dice, reverse=True)
    if len(ordered) <= 3 * count:
        return ordered
    middle = (len(ordered) - count) // 2
    # The middle part never overlaps the best or the worst.
    return [*ordered[:count], *ordered[max(middle, count) :][:count], *ordered[-count:]]


def draw_sheet(tiles: Sequence[Tile], path: Path, columns: int = _COLUMNS) -> None:
    """Write a PNG of tiles with truth (green) and prediction (red), row by row.

    Args:
        tiles: The tiles, at least one.
        path: Path of the file.
        columns: Number of tiles per row.

    Raises:
        ValueError: If there are no tiles.
    """
    if not tiles:
        raise ValueError("There is no object to show. Lower the smallest area, or give other cases.")
    rows = -(-len(tiles) // columns)
    figure = Figure(figsize=(columns * 2, rows * 2.15))
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, tile in zip(axes.flat, tiles, strict=False):
        axis.imshow(tile.image, cmap="gray", vmin=0, vmax=255)
        for mask, colour in ((tile.truth, "lime"), (tile.found, "red")):
            if mask.any() and not mask.all():
                axis.contour(mask, [0.5], colors=colour, linewidths=0.8)
        axis.set_title(f"{tile.title[:26]}  {tile.dice:.2f}", fontsize=6, pad=2)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=110)
