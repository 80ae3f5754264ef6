"""The readers of `imaging`, run in decoding processes."""

from __future__ import annotations

import math
import os
from pathlib import Path

from segmed.imaging.decoding.tasks import grid_facts, told_picture, told_segments, told_volume
from segmed.imaging.decoding.workers import Workers
from segmed.imaging.grid import Grid
from segmed.imaging.labels.segments import Segments
from segmed.imaging.picture import Picture
from segmed.imaging.volume import Volume


class Decoder:
    """What the functions of the same names do, for files that nobody vouches for.

    Each method raises what that function raises, and ValueError for files that take more memory or time than
    their size explains, or whose reader crashes.

    Args:
        workers: the processes.
    """

    def __init__(self, workers: Workers | None = None) -> None:
        self.workers = workers or Workers()

    def check(self, path: Path) -> None:
        """Raises what `read_volume` raises; the voxels are not handed out."""
        self.workers.run("check", path)

    def volume(self, path: str | os.PathLike[str]) -> Volume:
        """See `read_volume`."""
        return told_volume(*self.workers.run("volume", Path(path)))

    def picture(self, path: str | os.PathLike[str], window: str = "auto") -> Picture:
        """See `open_picture`."""
        return told_picture(*self.workers.run("picture", Path(path), {"window": window}))

    def segments(self, path: str | os.PathLike[str], grid: Grid, grey: bool = False) -> Segments:
        """See `read_label_segments`.

        Args:
            path: of the label map.
            grid: of the image.
            grey: whether pictures in colour are refused, as their channels say nothing of labels.
        """
        arguments = {"grid": grid_facts(grid), "grey": grey}
        return told_segments(*self.workers.run("segments", Path(path), arguments, math.prod(grid.shape)))
