"""Reads submitted label maps: the sizes and places of structures, and their agreement with the proposal."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segmed.active.review.quarantine import label_dice
from segmed.data.checksums import file_checksum
from segmed.imaging.grid import read_grid, read_labels
from segmed.imaging.labels.masks import slice_box
from segmed.imaging.labels.names import stored_names

_LARGEST = 2**16 - 1


@dataclass(frozen=True)
class LabelMap:
    """A stored label map with the names of its values.

    Attributes:
        file: File of the label map.
        names: Names by value; structures without a name are called by their number.
    """

    file: Path
    names: Mapping[int, str]


@dataclass(frozen=True)
class Submission:
    """The facts about a submitted label.

    Attributes:
        checksum: Checksum of the file.
        sizes: Number of voxels by structure.
        agreement: Dice of the proposal by structure; None if there was none, or it lies on another grid.
    """

    checksum: str
    sizes: Mapping[str, int]
    agreement: Mapping[str, float] | None


def names_of(
    info: Mapping[str, Any], structures: Mapping[str, int], values: Collection[int] | None = None
) -> dict[int, str]:
    """Names by value from the facts that are known about a label map.

    3D Slicer stores the values 1, 2, … in the order of `label_info`, and its `idx` counts segments that are
    not stored too; others mean `idx` as it is written. So `idx` holds where the values of the map are exactly
    those of `idx`, or where they cannot be numbers of that order, and else the order. Values that are
    neither, as in masks of 0 and 255, have the names in their order if there are as many.

    Args:
        info: Facts in the datastore's list: `segments`, which this server noted when it took the label map;
            or `label_info` as it was sent; or `label_names` in `params`, as models return them.
        structures: Values by name, used if `info` has none of these.
        values: Values that occur in the label map; None if they are not known.
    """
    try:
        if stored := info.get("segments"):
            return {int(item["value"]): str(item["name"]) for item in stored if item["name"]}
        entries = [(str(item["name"]).strip(), item.get("idx")) for item in info.get("label_info") or ()]
        if entries := [(name, idx) for name, idx in entries if idx != 0]:  # 0 is the background
            return _by_value(entries, None if values is None else set(values) - {0})
        label_names = (info.get("params") or {}).get("label_names") or {}
        if label_names:
            return {int(value): str(name) for name, value in label_names.items()}
    except (AttributeError, KeyError, TypeError, ValueError):  # whatever a client sent
        pass
    return {value: name for name, value in structures.items()}


def names_of_file(file: Path, info: Mapping[str, Any], structures: Mapping[str, int]) -> dict[int, str]:
    """As `names_of`; where nothing was sent with a label map, the names in its own file count.

    A label map that cannot be read has the names in `info` or `structures`.
    """
    if not any(info.get(key) for key in ("segments", "label_info", "params")):
        with contextlib.suppress(ValueError, OSError):
            if own := stored_names(file):
                return dict(own)
    return names_of(info, structures)


def _by_value(entries: Sequence[tuple[str, Any]], values: set[int] | None) -> dict[int, str]:
    """Names by `idx` or by order, see `names_of`."""
    order = {n: name for n, (name, _) in enumerate(entries, 1)}
    numbers = [idx for _, idx in entries if isinstance(idx, int) and not isinstance(idx, bool) and idx > 0]
    if not values or len(set(numbers)) < len(entries):
        return order
    rising = numbers == sorted(numbers)
    if values == set(numbers) or (values <= set(numbers) and (not rising or max(values) > len(entries))):
        return {number: name for number, (name, _) in zip(numbers, entries, strict=True)}
    if len(values) == len(entries) and values.isdisjoint({*numbers, *order}):
        return {value: name for value, (name, _) in zip(sorted(values), entries, strict=True)}
    return order


def read_submission(final: LabelMap, proposal: LabelMap | None = None) -> Submission:
    """Read a label map and compare it with its proposal by the names of the structures.

    Raises:
        FileNotFoundError: The label map is missing.
        ValueError: The label map cannot be read, or holds values that are not labels.
    """
    grid = read_grid(final.file, labels=True)
    labels = whole_labels(read_labels(final.file, grid))
    counts = np.bincount(labels.ravel())
    sizes: dict[str, int] = {}
    for value in np.flatnonzero(counts[1:]) + 1:  # two segments may have one name
        name = _name(int(value), final.names)
        sizes[name] = sizes.get(name, 0) + int(counts[value])
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
        first: Label map of integers.
        first_names: Names by value in `first`.
        second: Label map of integers, of the same shape.
        second_names: Names by value in `second`.

    Raises:
        ValueError: The shapes differ.
    """
    values: dict[str, int] = {}
    same = [_renumbered(m, names, values) for m, names in ((first, first_names), (second, second_names))]
    dice = label_dice(same[0], same[1])
    return {name: dice[value] for name, value in values.items() if value in dice}


def whole_labels(array: np.ndarray) -> np.ndarray:
    """Labels as integers.

    Raises:
        ValueError: There are fractions, negative values, or values beyond 16 bits.
    """
    labels = array if np.issubdtype(array.dtype, np.integer) else np.rint(array).astype(np.int64)
    if labels.size and (labels.min() < 0 or labels.max() > _LARGEST or not np.array_equal(labels, array)):
        odd = array[(array != labels) | (labels < 0) | (labels > _LARGEST)]
        raise ValueError(
            f"The label map holds values such as {odd.flat[0]:g}; allowed are whole numbers from 0 to "
            f"{_LARGEST}. Export it as such."
        )
    return labels


def object_slices(mask: np.ndarray, most: int) -> list[int]:
    """Evenly spaced slices among those on which a mask (I, J, K) is not empty."""
    shown = np.flatnonzero(mask.any(axis=(0, 1)))
    count = min(most, len(shown))
    return [int(shown[int((n + 0.5) / count * len(shown))]) for n in range(count)]


def object_places(labels: np.ndarray, slices: int = 2) -> np.ndarray:
    """Centres (N, 2) of the structures of a label map (I, J, K), as shares (x, y) of width and height."""
    places = []
    for value in np.unique(labels):
        mask = labels == value
        for k in object_slices(mask, slices) if value else ():
            x0, y0, x1, y1 = slice_box(mask[:, :, k].T)
            places.append(((x0 + x1 + 1) / 2 / labels.shape[0], (y0 + y1 + 1) / 2 / labels.shape[1]))
    return np.array(places).reshape(-1, 2)


def _renumbered(labels: np.ndarray, names: Mapping[int, str], values: dict[str, int]) -> np.ndarray:
    """The labels renumbered by `values` (number by name), to which new names are added."""
    table = np.zeros(int(labels.max(initial=0)) + 1, np.int64)
    for value in np.flatnonzero(np.bincount(labels.ravel(), minlength=1)):
        if value:
            table[value] = values.setdefault(_name(int(value), names), len(values) + 1)
    return table[labels]


def _name(value: int, names: Mapping[int, str]) -> str:
    return names.get(int(value), f"label {value}")
