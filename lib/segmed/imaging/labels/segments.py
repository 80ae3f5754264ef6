"""Label maps whose values are named and coloured segments, in layers where these overlap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from colorsys import hls_to_rgb
from dataclasses import dataclass, field, replace

import numpy as np

from segmed.imaging.formats.limits import check_size

Colour = tuple[int, int, int]

# Okabe and Ito (2008), which people with any colour vision tell apart; black is left out, as images have it
_PALETTE: tuple[Colour, ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
    (204, 121, 167),
)  # fmt: skip
_GOLDEN_ANGLE = 137.508 / 360  # of the colour wheel, so that neighbours in value are far apart in hue


@dataclass(frozen=True)
class StoredSegment:
    """One segment of a file.

    Attributes:
        name: Name as viewers show it; "" where the file states none.
        value: Value in the flat label map, different for each segment.
        layer: Index of the layer that holds its voxels.
        layer_value: Value in that layer.
        fields: Further facts that the file states, by the end of the key, as text: `ID`, `Color`, `Tags`, …
    """

    name: str
    value: int
    layer: int = 0
    layer_value: int = 0
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def colour(self) -> Colour | None:
        """Red, green, blue, 0 to 255; None where the file does not state them."""
        try:
            r, g, b = (round(255 * min(max(float(part), 0.0), 1.0)) for part in self.fields["Color"].split())
        except (KeyError, ValueError):
            return None
        return r, g, b

    def coloured(self, colour: Colour) -> StoredSegment:
        """The segment, with this colour if it has none."""
        if self.colour:
            return self
        return replace(self, fields={**self.fields, "Color": " ".join(f"{c / 255:.6g}" for c in colour)})


@dataclass(frozen=True)
class Segments:
    """Label maps in layers, and what is in them.

    Attributes:
        layers: Label maps (I, J, K) of integers, 0 the background.
        segments: Every value of every layer, in the order of the file.
        general: Facts that the file states about the segmentation as a whole, by key.
    """

    layers: tuple[np.ndarray, ...]
    segments: tuple[StoredSegment, ...]
    general: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> dict[int, str]:
        """Names by value in the flat label map; segments without a name are left out."""
        return {s.value: s.name for s in self.segments if s.name}

    def mask(self, segment: StoredSegment) -> np.ndarray:
        """(I, J, K) boolean, all voxels of a segment, those beneath others too."""
        return np.asarray(self.layers[segment.layer] == segment.layer_value)

    def flat(self) -> np.ndarray:
        """(I, J, K), one value a voxel: where segments overlap, the smaller one lies on top."""
        if len(self.layers) == 1:
            return self.layers[0]
        most = max((s.value for s in self.segments), default=0)
        out = np.zeros(self.layers[0].shape, np.uint8 if most < 256 else np.uint16, order="F")
        masks = {s.value: self.mask(s) for s in self.segments}
        for value in sorted(masks, key=lambda v: -int(masks[v].sum())):
            out[masks[value]] = value
        return out

    def overlaps(self) -> dict[tuple[int, int], int]:
        """Voxels that two segments share, by their values, the one on top first."""
        if len(self.layers) == 1:
            return {}
        flat, counts = self.flat(), {}
        for segment in self.segments:
            under = flat[self.mask(segment) & (flat != segment.value)]
            for value, count in zip(*np.unique(under, return_counts=True), strict=True):
                counts[int(value), segment.value] = int(count)
        return counts


def pack(
    masks: Iterable[tuple[int, np.ndarray]], shape: Sequence[int]
) -> tuple[list[np.ndarray], dict[int, int]]:
    """Put segments into as few layers as they need, in the order of coming.

    Args:
        masks: Value of each segment, and indices of its voxels in the raveled array (Fortran order).
        shape: Shape (I, J, K) of the layers.

    Returns:
        The layers, (I, J, K) uint8 or uint16, at least one, and the layer of each value.

    Raises:
        ImageFault: so many segments lie on each other that the layers would be too large.
    """
    given = [(value, places) for value, places in masks]
    kind = np.uint8 if max((value for value, _ in given), default=0) < 256 else np.uint16
    layers, where = [np.zeros(int(np.prod(shape)), kind)], {}
    for value, places in given:
        free = next((n for n, layer in enumerate(layers) if not layer[places].any()), None)
        if free is None:
            free = len(layers)
            check_size(
                (*shape, free + 1), "The segmentation, with a layer for each of the segments that overlap,"
            )
            layers.append(np.zeros_like(layers[0]))
        layers[free][places] = value
        where[value] = free
    return [layer.reshape(tuple(shape), order="F") for layer in layers], where


def colour_of(value: int) -> Colour:
    """The colour of a value that has none of its own; the web page shows the same."""
    if value <= len(_PALETTE):
        return _PALETTE[value - 1]
    r, g, b = (round(255 * part) for part in hls_to_rgb(value * _GOLDEN_ANGLE % 1, 0.6, 0.9))
    return r, g, b


def values_in(array: np.ndarray) -> list[int]:
    """The values of a label map of whole numbers, 0 left out, rising."""
    if array.dtype == np.uint8:
        return [int(v) for v in np.flatnonzero(np.bincount(array.ravel(order="K"), minlength=256)) if v]
    return [int(v) for v in np.unique(array) if v]
