"""Overlap of a new object with existing labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np


def crossed_labels(
    found: Mapping[int, np.ndarray],
    bare: Mapping[int, np.ndarray],
    own: Iterable[int],
    labels: Mapping[str, int],
) -> dict[str, int]:
    """Number of voxels of other labels that an object covers, by label name.

    Args:
        found: Mask (H, W) of the object, boolean, by slice.
        bare: Label map (H, W) without the object, uint8, by slice.
        own: Values of the object.
        labels: Label values by name.
    """
    counts = sum((np.bincount(bare[k][mask], minlength=256) for k, mask in found.items()), np.zeros(256, int))
    counts[[0, *own]] = 0
    names = {value: name for name, value in labels.items()}
    return {names[int(value)]: int(counts[value]) for value in np.flatnonzero(counts)}


def crossing_note(crossed: Mapping[str, int], overwrite: bool) -> list[str]:
    """A message on voxels that other labels have lost or kept; empty if there are none."""
    if not crossed:
        return []
    listed = ", ".join(
        f"{count} voxel{'s' if count > 1 else ''} of {name}" for name, count in crossed.items()
    )
    if overwrite:
        return [f"This has replaced {listed}."]
    return [f"This crosses {listed}, which stay as they are. Ask to overwrite other labels to replace them."]
