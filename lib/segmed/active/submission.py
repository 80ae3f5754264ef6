"""What a submitted label map says: how large each structure is, where it lies, and how far the proposal was right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segmed.active.quarantine import label_dice
from segmed.data.checksums import file_checksum
from segmed.imaging.grid import read_grid, read_labels
from segmed.imaging.masks import slice_box

_LARGEST = 2**16 - 1


@dataclass(frozen=True)
class LabelMap:
    """A stored label map with the names of its values.

    Attributes:
        file: of it.
        names: by value; others are called by their number.
    """

    file: Path
    names: Mapping[int, str]


@dataclass(frozen=True)
class Submission:
    """What is noted of a label.

    Attributes:
        checksum: of the file.
        sizes: voxels by structure.
        agreement: Dice of the proposal by structure; None if there was none, or it lies elsewhere.
    """

    checksum: str
    sizes: Mapping[str, int]
    agreement: Mapping[str, float] | None


def names_of(info: Mapping[str, Any], structures: Mapping[str, int]) -> dict[int, str]:
    """Names by value out of what was sent with a label map.

    Args:
        info: holds `label_info`, in the order of the values as viewers store them, or `label_names` in `params`, as
            models tell them.
        structures: values by name that hold if it tells neither.
    """
    try:
        order = [str(item["name"]).strip() for item in info.get("label_info") or ()]
        if order:
            return dict(enumerate(order, 1))
        told = (info.get("params") or {}).get("label_names") or {}
        if told:
            return {int(value): str(name) for name, value in told.items()}
    except (AttributeError, KeyError, TypeError, ValueError):  # whatever a client sent
        pass
    return {value: name for name, value in structures.items()}


def read_submission(final: LabelMap, proposal: LabelMap | None = None) -> Submission:
    """Read a label map and what was proposed for it, compared by the names of the structures.

    Raises:
        FileNotFoundError: the label map is gone.
        ValueError: it cannot be read, or holds numbers that are no labels.
    """
    grid = read_grid(final.file)
    labels = whole_labels(read_labels(final.file, grid))
    counts = np.bincount(labels.ravel())
    sizes = {_name(value, final.names): int(counts[value]) for value in np.flatnonzero(counts) if value}
    agreement = None
    if proposal is not None:
        try:
            proposed = whole_labels(read_labels(proposal.file, grid))
        except (OSError, ValueError):
            proposed = None
        if proposed is not None:
            agreement = named_dice(proposed, proposal.names, labels, final.names)
    return Submission(file_checksum(final.file), sizes, agreement)


def named_dice(
    first: np.ndarray, first_names: Mapping[int, str], second: np.ndarray, second_names: Mapping[int, str]
) -> dict[str, float]:
    """Dice of each structure that either map has, whatever its value in each.

    Args:
        first: label map of whole numbers.
        first_names: by value.
        second: likewise, of the same shape.
        second_names: likewise.

    Raises:
        ValueError: shapes differ.
    """
    values: dict[str, int] = {}
    same = [_renumbered(m, names, values) for m, names in ((first, first_names), (second, second_names))]
    dice = label_dice(same[0], same[1])
    return {name: dice[value] for name, value in values.items() if value in dice}


def whole_labels(array: np.ndarray) -> np.ndarray:
    """Labels as whole numbers.

    Raises:
        ValueError: fractions, negative numbers, or more than 16 bits hold.
    """
    labels = array if np.issubdtype(array.dtype, np.integer) else np.rint(array).astype(np.int64)
    if labels.size and (labels.min() < 0 or labels.max() > _LARGEST or not np.array_equal(labels, array)):
        raise ValueError(f"The label map holds other numbers than 0 to {_LARGEST}. Export whole numbers.")
    return labels


def object_slices(mask: np.ndarray, most: int) -> list[int]:
    """Evenly spaced slices among those on which a mask (I, J, K) has anything."""
    shown = np.flatnonzero(mask.any(axis=(0, 1)))
    count = min(most, len(shown))
    return [int(shown[int((n + 0.5) / count * len(shown))]) for n in range(count)]


def object_places(labels: np.ndarray, slices: int = 2) -> np.ndarray:
    """Middles (N, 2) of the structures of a label map (I, J, K), as shares (x, y) of width and height."""
    places = []
    for value in np.unique(labels):
        mask = labels == value
        for k in object_slices(mask, slices) if value else ():
            x0, y0, x1, y1 = slice_box(mask[:, :, k].T)
            places.append(((x0 + x1 + 1) / 2 / labels.shape[0], (y0 + y1 + 1) / 2 / labels.shape[1]))
    return np.array(places).reshape(-1, 2)


def _renumbered(labels: np.ndarray, names: Mapping[int, str], values: dict[str, int]) -> np.ndarray:
    """Labels by the numbers in `values`, which grows by the names that are new."""
    table = np.zeros(int(labels.max(initial=0)) + 1, np.int64)
    for value in np.flatnonzero(np.bincount(labels.ravel(), minlength=1)):
        if value:
            table[value] = values.setdefault(_name(int(value), names), len(values) + 1)
    return table[labels]


def _name(value: int, names: Mapping[int, str]) -> str:
    return names.get(int(value), f"label {value}")
