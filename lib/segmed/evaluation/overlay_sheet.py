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
    """What is shown of one object, cut out around it.

    Attributes:
        title: name of the case.
        image: (h, w) or (h, w, 3) uint8.
        truth: (h, w) boolean.
        found: (h, w) boolean.
        dice: of the whole masks; NaN counts as the worst.
    """

    title: str
    image: np.ndarray
    truth: np.ndarray
    found: np.ndarray
    dice: float

    @classmethod
    def cut(cls, title: str, image: np.ndarray, truth: np.ndarray, found: np.ndarray, dice: float) -> Tile:
        """Cut out around an object that is there, with two fifths of its side around it."""
        y, x = np.nonzero(truth)
        margin = round(0.4 * max(np.ptp(x), np.ptp(y)) + 4)
        rows = slice(max(int(y.min()) - margin, 0), int(y.max()) + margin + 1)
        columns = slice(max(int(x.min()) - margin, 0), int(x.max()) + margin + 1)
        shown, true, predicted = (np.array(array[rows, columns]) for array in (image, truth, found))
        return cls(title, shown, true, predicted, dice)


def best_median_worst(tiles: Sequence[Tile], count: int) -> list[Tile]:
    """`count` tiles each of the best, of those around the median and of the worst, from the best to the worst."""
    ordered = sorted(tiles, key=lambda t: -1.0 if np.isnan(t.dice) else t.dice, reverse=True)
    if len(ordered) <= 3 * count:
        return ordered
    middle = (len(ordered) - count) // 2
    # where the middle would run into the ends it starts behind the best, and never reaches the worst
    return [*ordered[:count], *ordered[max(middle, count) :][:count], *ordered[-count:]]


def draw_sheet(tiles: Sequence[Tile], path: Path, columns: int = _COLUMNS) -> None:
    """Write a PNG of tiles with truth (green) and prediction (red), row by row.

    Args:
        tiles: at least one.
        path: of the file.
        columns: tiles in a row.

    Raises:
        ValueError: no tiles.
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
