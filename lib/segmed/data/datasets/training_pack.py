"""Reads a folder of labelled images from many public datasets, listed in its `index.json`."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

# semantic masks whose connected parts are the objects
SPLIT = frozenset({"nuinsseg", "tnbc", "axondeepseg"})
_PARTS_KEPT = 4096  # label maps whose connected parts are remembered


@dataclass(frozen=True, eq=False)
class PackImage:
    """One labelled image.

    Attributes:
        image: Pixels (H, W) or (H, W, 3), uint8.
        labels: Labels (H, W), uint8, 0 for background.
        entry: Entry of the image in the index.
    """

    image: np.ndarray
    labels: np.ndarray
    entry: dict[str, Any]

    @property
    def source(self) -> str:
        return str(self.entry["source"])

    @property
    def modality(self) -> str:
        return str(self.entry["modality"])

    @cached_property
    def values(self) -> list[int]:
        """The label values that occur."""
        return [int(v) for v in np.unique(self.labels) if v]

    @property
    def has_instances(self) -> bool:
        """Whether every value, or every connected part, is one object."""
        return self.entry["labels"] == "instances" or self.source in SPLIT

    def parts(self, value: int) -> list[tuple[slice, slice]]:
        """Bounding slices of the connected parts of a label; the n-th one holds `part_mask(value, n)`."""
        return [slices for slices in ndimage.find_objects(self._parts(value)) if slices is not None]

    def part_mask(self, value: int, part: int | None = None) -> np.ndarray:
        """The pixels (H, W) of a label, or of its connected part counted from 0."""
        if part is None:
            return self.labels == value
        return self._parts(value) == part + 1

    def _parts(self, value: int) -> np.ndarray:
        return _connected(self, value)


class TrainingPack:
    """All images of the folder, read once.

    Args:
        folder: Folder with `index.json`.
        without: Sources to leave out, such as those held out for evaluation.
        only: Sources to take; all if None.

    Raises:
        FileNotFoundError: There is no index in the folder.
        ValueError: The index does not have a given source, or no image is left.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        without: Collection[str] = (),
        only: Collection[str] | None = None,
    ) -> None:
        self.folder = Path(folder)
        index = self.folder / "index.json"
        if not index.is_file():
            raise FileNotFoundError(
                f"{self.folder} has no index.json. Give a folder of labelled images with an index."
            )
        entries = json.loads(index.read_text(encoding="utf-8"))
        known = {entry["source"] for entry in entries}
        unknown = (set(without) | set(only or ())) - known
        if unknown:
            raise ValueError(
                f"{sorted(unknown)} are not sources of {index}. Choose from {', '.join(sorted(known))}."
            )
        chosen = [e for e in entries if e["source"] not in without and (only is None or e["source"] in only)]
        if not chosen:
            raise ValueError(f"No image of {index} is left. Hold out fewer sources.")
        self.images = [self._read(entry) for entry in chosen]

    def by_source(self) -> dict[str, list[PackImage]]:
        """Images with at least one labelled pixel, by source."""
        out: dict[str, list[PackImage]] = {}
        for image in self.images:
            if image.labels.any():
                out.setdefault(image.source, []).append(image)
        return out

    def __iter__(self) -> Iterator[PackImage]:
        return iter(self.images)

    def __len__(self) -> int:
        return len(self.images)

    def _read(self, entry: dict[str, Any]) -> PackImage:
        with Image.open(self.folder / entry["image"]) as file:
            image = np.asarray(file if file.mode == "L" else file.convert("RGB"))
        with Image.open(self.folder / entry["label"]) as file:
            labels = np.asarray(file.convert("L") if file.mode not in ("L", "P") else file)
        if image.shape[:2] != labels.shape:
            raise ValueError(
                f"{entry['image']} has {image.shape[:2]} px and its label map {labels.shape}. They must "
                f"agree."
            )
        if (
            image.ndim == 3
            and (image[..., 0] == image[..., 1]).all()
            and (image[..., 0] == image[..., 2]).all()
        ):
            image = np.ascontiguousarray(image[..., 0])
        return PackImage(image, labels.astype(np.uint8, copy=False), entry)


@lru_cache(_PARTS_KEPT)
def _connected(image: PackImage, value: int) -> np.ndarray:
    """Connected parts of a label, numbered from 1 by size, largest first; (H, W) uint16."""
    components, count = ndimage.label(image.labels == value, np.ones((3, 3)))
    order = np.argsort(-np.bincount(components.ravel(), minlength=count + 1)[1:])
    rank = np.zeros(count + 1, np.uint16)
    rank[order + 1] = np.arange(1, count + 1)
    return np.asarray(rank[components])
