"""Segmentations of 3D Slicer (`.seg.nrrd`): named and coloured segments, in layers where they overlap.

The voxels are label maps, one for each layer, that lie side by side on the first axis of the file. Key/value pairs of
the header, such as `Segment0_Name`, tell which value of which layer is which segment.
"""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from segmed.imaging.faults import explained
from segmed.imaging.itk import LPS_TO_RAS, itk_affine, quiet_itk
from segmed.imaging.reading import itk_reader
from segmed.imaging.text_headers import (
    DETACHED_EXTENSIONS,
    NRRD_EXTENSIONS,
    check_regular,
    for_itk,
    names_other_files,
    nrrd_fields,
)

SEGMENTATION = ".seg.nrrd"
Colour = tuple[int, int, int]

_FIELD = re.compile(r"Segment(\d+)_(\w+)")
_GENERAL = "Segmentation_"
_OFFSET = "Segmentation_ReferenceImageExtentOffset"
_PALETTE: tuple[Colour, ...] = (
    (221, 130, 101), (157, 108, 162), (249, 180, 111), (216, 101, 79), (0, 151, 206), (128, 174, 128),
    (241, 214, 145), (111, 184, 210), (230, 80, 120), (144, 238, 144), (95, 120, 200), (205, 205, 80),
)  # fmt: skip
_TYPES = {"uint8": "unsigned char", "uint16": "unsigned short"}


@dataclass(frozen=True)
class StoredSegment:
    """One segment of a file.

    Attributes:
        name: as viewers show it; "" where the file tells none.
        value: in the flat label map, different for each segment.
        layer: that holds its voxels.
        layer_value: its value there.
        fields: what else the file tells of it, by the end of the key, as text: `ID`, `Color`, `Tags`, …
    """

    name: str
    value: int
    layer: int = 0
    layer_value: int = 0
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def colour(self) -> Colour | None:
        """Red, green, blue, 0 to 255; None where the file does not tell."""
        try:
            r, g, b = (round(255 * min(max(float(part), 0.0), 1.0)) for part in self.fields["Color"].split())
        except (KeyError, ValueError):
            return None
        return r, g, b

    def coloured(self, colour: Colour) -> StoredSegment:
        """With a colour of its own, if it has none."""
        if self.colour:
            return self
        return replace(self, fields={**self.fields, "Color": " ".join(f"{c / 255:.6g}" for c in colour)})


@dataclass(frozen=True)
class Segments:
    """Label maps in layers, and what is in them.

    Attributes:
        layers: (I, J, K) whole numbers each, 0 the background.
        segments: every value of every layer, in the order of the file.
        general: what the file tells of the segmentation as a whole, by key.
    """

    layers: tuple[np.ndarray, ...]
    segments: tuple[StoredSegment, ...]
    general: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> dict[int, str]:
        """By value in the flat label map; those without a name are left out."""
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
        flat, found = self.flat(), {}
        for segment in self.segments:
            under = flat[self.mask(segment) & (flat != segment.value)]
            for value, count in zip(*np.unique(under, return_counts=True), strict=True):
                found[int(value), segment.value] = int(count)
        return found


def segmentation_header(path: str | os.PathLike[str]) -> dict[str, str]:
    """Fields and key/value pairs of an NRRD file that holds a segmentation; nothing for all other files.

    Raises:
        ImageFault: its header has no end.
    """
    path = Path(path)
    if path.suffix.lower() not in NRRD_EXTENSIONS or not path.is_file():
        return {}
    with path.open("rb") as file:
        if file.read(4) != b"NRRD":
            return {}
    found = {key: _unescaped(value) for key, value in nrrd_fields(path).items()}
    return found if any(_FIELD.fullmatch(key) for key in found) else {}


def is_segmentation(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a segmentation of 3D Slicer, whatever it is called."""
    return bool(segmentation_header(path))


def read_segments(path: str | os.PathLike[str]) -> tuple[Segments, np.ndarray]:
    """Read a `.seg.nrrd` file, or a `.nhdr` header with its voxels beside it.

    Returns:
        What is in it, on its own grid, and the affine (4, 4), voxel to RAS mm, of that.

    Raises:
        ValueError: damaged, or its header does not fit its voxels, or names files that are not read.
    """
    path = Path(path)
    name = path.name
    check_regular(path)
    if not name.lower().endswith(DETACHED_EXTENSIONS) and names_other_files(path):
        raise ValueError(f"{name} holds no voxels but the name of another file. Save it as one file.")
    damaged = f"{name} cannot be read: the file is damaged. Save it again."
    with explained(path, SEGMENTATION, lambda: damaged), quiet_itk(), for_itk(path) as plain:
        header = segmentation_header(path)
        image = itk_reader(plain).Execute()
    array = sitk.GetArrayViewFromImage(image)
    parts = array[None] if image.GetNumberOfComponentsPerPixel() == 1 else np.moveaxis(array, -1, 0)
    if not 2 <= parts.ndim - 1 <= 3 or not np.issubdtype(parts.dtype, np.integer):
        raise ValueError(f"{name} is not one 3-D segmentation of whole numbers. Save it again, as a binary labelmap.")
    layers = tuple(np.array(part.T[..., None] if part.ndim == 2 else part.T) for part in parts)
    told = _told(header, len(layers), name)
    return Segments(layers, tuple(_complete(told, layers)), _general(header)), itk_affine(image)


def cropped(header: Mapping[str, str]) -> bool:
    """Whether the file says that it is a part of a larger grid."""
    return _OFFSET in header


def write_segments(found: Segments, affine: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Write a `.seg.nrrd` file.

    Args:
        found: what goes into it.
        affine: (4, 4), voxel to RAS mm.
        path: of the file.

    Raises:
        ValueError: values beyond 16 bits.
        OSError: it cannot be written.
    """
    most = max((int(layer.max(initial=0)) for layer in found.layers), default=0)
    if most >= 2**16:
        raise ValueError(f"A segment has the value {most}; a segmentation holds values up to {2**16 - 1}.")
    kind = np.dtype(np.uint8 if most < 256 else np.uint16)
    several = len(found.layers) > 1
    shape = found.layers[0].shape
    steps = (LPS_TO_RAS[:3, :3] @ affine[:3, :3]).T  # one row for each axis of the file
    lines = [
        "NRRD0004",
        f"type: {_TYPES[kind.name]}",
        f"dimension: {4 if several else 3}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, ([len(found.layers)] if several else []) + list(shape)))}",
        f"space directions: {'none ' if several else ''}{' '.join(map(_vector, steps))}",
        f"kinds: {'list ' if several else ''}domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(LPS_TO_RAS[:3, :3] @ affine[:3, 3])}",
    ]
    extent = " ".join(f"0 {n - 1}" for n in shape)
    for n, segment in enumerate(found.segments):
        fields = {
            "ID": f"Segment_{n + 1}",
            **segment.fields,
            "Extent": extent,
            "LabelValue": str(segment.layer_value),
            "Layer": str(segment.layer),
            "Name": segment.name,
        }
        lines += [f"Segment{n}_{key}:={_escaped(value)}" for key, value in sorted(fields.items())]
    general = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        **found.general,
        _OFFSET: "0 0 0",
    }
    lines += [f"{key}:={_escaped(value)}" for key, value in sorted(general.items())]
    voxels = np.stack(found.layers) if several else found.layers[0]
    with Path(path).open("wb") as file:
        file.write(("\n".join(lines) + "\n\n").encode())
        with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1, mtime=0) as packed:
            packed.write(voxels.astype(kind.newbyteorder("<"), copy=False).tobytes(order="F"))


def pack(masks: Iterable[tuple[int, np.ndarray]], shape: Sequence[int]) -> tuple[list[np.ndarray], dict[int, int]]:
    """Put segments into as few layers as they need, in the order of coming.

    Args:
        masks: value, and places in the raveled array (Fortran order) that belong to it.
        shape: (I, J, K).

    Returns:
        The layers, (I, J, K) uint8 or uint16, at least one, and the layer of each value.
    """
    given = [(value, places) for value, places in masks]
    kind = np.uint8 if max((value for value, _ in given), default=0) < 256 else np.uint16
    layers, where = [np.zeros(int(np.prod(shape)), kind)], {}
    for value, places in given:
        free = next((n for n, layer in enumerate(layers) if not layer[places].any()), None)
        if free is None:
            free = len(layers)
            layers.append(np.zeros_like(layers[0]))
        layers[free][places] = value
        where[value] = free
    return [layer.reshape(tuple(shape), order="F") for layer in layers], where


def colour_of(value: int) -> Colour:
    """Of a value that has none of its own."""
    return _PALETTE[(value - 1) % len(_PALETTE)]


def values_in(array: np.ndarray) -> list[int]:
    """The values of a label map of whole numbers, 0 left out, rising."""
    if array.dtype == np.uint8:
        return [int(v) for v in np.flatnonzero(np.bincount(array.ravel(order="K"), minlength=256)) if v]
    return [int(v) for v in np.unique(array) if v]


def _told(header: Mapping[str, str], count: int, name: str) -> list[StoredSegment]:
    """The segments that the header lists; their values in the flat map are still those of the layers."""
    by_number: dict[int, dict[str, str]] = {}
    for key, text in header.items():
        if match := _FIELD.fullmatch(key):
            by_number.setdefault(int(match[1]), {})[match[2]] = text
    # of old, each segment had a layer of its own, of which nothing was said
    apart = not any("LabelValue" in f or "Layer" in f for f in by_number.values())
    found: list[StoredSegment] = []
    for n, (_, fields) in enumerate(sorted(by_number.items())):
        try:
            layer = int(fields.pop("Layer", n if apart and count > 1 else 0))
            value = int(fields.pop("LabelValue", n + 1 if apart and count == 1 else 1))
        except ValueError as error:
            raise ValueError(f"{name} has a segment whose layer or value is no number. Save it again.") from error
        if not 0 <= layer < count:
            raise ValueError(f"{name} has {count} layers, but a segment in layer {layer}. Save it again.")
        fields.pop("Extent", None)
        called = fields.pop("Name", "").strip()
        if value > 0 and not any((s.layer, s.layer_value) == (layer, value) for s in found):
            found.append(StoredSegment(called, value, layer, value, fields))
    return found


def _complete(told: Sequence[StoredSegment], layers: Sequence[np.ndarray]) -> list[StoredSegment]:
    """All segments with values of their own: that of the layer, or a free one if another segment has it."""
    known = {(s.layer, s.layer_value) for s in told}
    rest = [
        StoredSegment("", value, n, value)
        for n, layer in enumerate(layers)
        for value in values_in(layer)
        if value > 0 and (n, value) not in known
    ]
    taken: set[int] = set()
    reserved = {s.layer_value for s in (*told, *rest)}
    out = []
    for segment in (*told, *rest):
        value = segment.layer_value
        if value in taken:
            value = next(v for v in range(1, 2**16) if v not in taken and v not in reserved)
        taken.add(value)
        out.append(replace(segment, value=value))
    return out


def _general(header: Mapping[str, str]) -> dict[str, str]:
    return {key: text for key, text in header.items() if key.startswith(_GENERAL) and key != _OFFSET}


def _vector(values: Iterable[float]) -> str:
    return "(" + ",".join(f"{float(v):.17g}" for v in values) + ")"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\r", " ").replace("\n", "\\n")


def _unescaped(text: str) -> str:
    return re.sub(r"\\(n|\\)", lambda m: "\n" if m[1] == "n" else "\\", text)
