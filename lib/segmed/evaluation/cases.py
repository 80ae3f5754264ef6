"""A folder of labelled cases as objects on slices.

Layout: `index.json`, a list of {"id", "modality", "image", "label", …} with paths relative to the folder; beside a
label, `label_instances.*` may hold one value per object where `label` holds one value for all of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from segmed.imaging.grid import image_grid, read_labels
from segmed.imaging.masks import slice_box
from segmed.imaging.picture import Picture, open_picture
from segmed.imaging.prompts import SlicePrompt


@dataclass(frozen=True)
class SliceObject:
    """One labelled object on one slice of a case.

    Attributes:
        k: the slice.
        label: its value in the label map.
        mask: (H, W) boolean.
    """

    k: int
    label: int
    mask: np.ndarray

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Tight (x0, y0, x1, y1), ends inclusive."""
        return slice_box(self.mask)

    @property
    def prompt(self) -> SlicePrompt:
        return SlicePrompt(box=self.box)


@dataclass(frozen=True)
class Case:
    """A picture and its label map (I, J, K) on the same grid."""

    name: str
    modality: str
    source: str
    picture: Picture
    labels: np.ndarray
    has_many: bool

    def objects(self, min_area: int = 100, max_slices: int | None = None) -> Iterator[SliceObject]:
        """Objects of at least `min_area` px; cases of `has_many` give one per connected part (or instance).

        Args:
            min_area: px.
            max_slices: at most so many slices per label, evenly spaced; None takes all.
        """
        for label in (int(v) for v in np.unique(self.labels) if v):
            of_label = self.labels == label
            ks = [k for k in range(of_label.shape[2]) if of_label[:, :, k].sum() >= min_area]
            if max_slices and len(ks) > max_slices:
                ks = [ks[round(n)] for n in np.linspace(0, len(ks) - 1, max_slices)]
            for k in ks:
                for mask in self._parts(of_label[:, :, k].T):
                    if mask.sum() >= min_area:
                        yield SliceObject(k, label, mask)

    def _parts(self, mask: np.ndarray) -> list[np.ndarray]:
        if not self.has_many:
            return [mask]
        parts, count = ndimage.label(mask, np.ones((3, 3)))
        return [parts == n for n in range(1, count + 1)]


def load_cases(folder: str | os.PathLike[str]) -> Iterator[Case]:
    """All cases of the folder's `index.json`.

    Raises:
        FileNotFoundError: no index there.
    """
    folder = Path(folder)
    if not (folder / "index.json").is_file():
        raise FileNotFoundError(f"{folder} has no index.json. Give a folder of labelled cases.")
    for entry in json.loads((folder / "index.json").read_text(encoding="utf-8")):
        image, label = folder / entry["image"], folder / entry["label"]
        instances = next(iter(sorted(label.parent.glob("label_instances.*"))), None)
        picture = open_picture(image)
        labels = read_labels(instances or label, image_grid(image, picture.shape, picture.affine))
        yield Case(
            entry["id"],
            entry["modality"],
            entry.get("source", entry["id"]),
            picture,
            labels,
            has_many=instances is None and entry["modality"] == "lm",
        )
